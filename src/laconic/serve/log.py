"""What is remembered of a request: counts, reasons, times; never bodies, queries or keys."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from laconic.serve.report import Report


@dataclass
class Entry:
    """One request, filled in on its way."""

    id: str
    method: str
    path: str
    upstream: str
    protocol: str  # a key of `rewrite.READERS`; empty where nothing is rewritten
    status: int = 0  # 0: the client went away before there was one
    stream: bool = False
    error: str = ""  # what cut it short
    report: Report | None = None
    compressing: float = 0.0  # seconds
    waited: float = 0.0  # seconds to the first bytes of the answer
    seconds: float = 0.0  # to the end
    time: float = field(default_factory=time.time)  # it came

    def line(self) -> str:
        """For the log: one JSON object."""
        at = datetime.fromtimestamp(self.time, timezone.utc).isoformat(timespec="milliseconds")
        found: dict[str, Any] = {"time": at, "id": self.id, "method": self.method, "path": self.path[:200]}
        found |= {"upstream": self.upstream, "status": self.status}
        if self.report:
            found |= {**self.counts(), "compress_ms": _ms(self.compressing)}
        found |= {"first_ms": _ms(self.waited), "ms": _ms(self.seconds)}
        if self.error:
            found["error"] = self.error
        return json.dumps(found)

    def row(self) -> dict[str, Any]:
        """For the ledger."""
        shown = {"time": round(self.time, 3), "protocol": self.protocol, "upstream": self.upstream}
        shown |= {"status": self.status, **self.counts()}
        return {**shown, "ms": _ms(self.compressing), "stream": self.stream}

    def counts(self) -> dict[str, Any]:
        """What the compressor did."""
        report = self.report or Report()
        found = {"tokens_before": report.tokens_before, "tokens_after": report.tokens_after}
        return {**found, "reasons": dict(reasons(report))}


def reasons(report: Report) -> Mapping[str, int]:
    """How many parts have which reason; of a request that went out as it came, why it did."""
    return {report.whole: 1} if report.whole else Counter(part.reason for part in report.parts)


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 1)
