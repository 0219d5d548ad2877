"""Counters for Prometheus, of this process, or of all workers where `PROMETHEUS_MULTIPROC_DIR` names a folder."""

from __future__ import annotations

import os

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from laconic.serve.log import Entry, reasons

TYPE = "text/plain; version=0.0.4; charset=utf-8"
FOLDER = "PROMETHEUS_MULTIPROC_DIR"
_SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10)
_LONG = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100)


class Metrics:
    """What is counted. Labels are few: no paths, models or keys."""

    def __init__(self) -> None:
        own = self._own = CollectorRegistry()
        labels = ["protocol", "upstream", "status"]
        self._requests = Counter("laconic_requests", "Requests to upstreams", labels, registry=own)
        self._parts = Counter("laconic_parts", "Parts of requests, by what became of them", ["reason"], registry=own)
        self._tokens = Counter("laconic_tokens", "Tokens of these parts", ["when"], registry=own)
        self._compressing = Histogram("laconic_compress_seconds", "Time to rewrite", buckets=_SECONDS, registry=own)
        self._first = Histogram("laconic_first_byte_seconds", "Until an answer began", buckets=_LONG, registry=own)
        self._resting = Gauge(
            "laconic_resting", "1: the compressor failed too often", registry=own, multiprocess_mode="livemax"
        )

    def seen(self, entry: Entry) -> None:
        """Count a request."""
        self._requests.labels(entry.protocol or "other", entry.upstream, str(entry.status)).inc()
        self._first.observe(entry.waited)
        if entry.report:
            self._compressing.observe(entry.compressing)
            self._tokens.labels("before").inc(entry.report.tokens_before)
            self._tokens.labels("after").inc(entry.report.tokens_after)
            for reason, number in reasons(entry.report).items():
                self._parts.labels(reason).inc(number)

    def text(self, resting: bool) -> bytes:
        """For a scrape."""
        self._resting.set(resting)
        registry = self._own
        if FOLDER in os.environ:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        found: bytes = generate_latest(registry)
        return found
