"""What stands around the contexts of a prompt, and the report on the whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from laconic.budget import Budget, Counter
from laconic.errors import InputError
from laconic.legacy.words import LegacyResult
from laconic.text import PARAGRAPH


@dataclass(frozen=True)
class Frame:
    """The instruction before and the question after the contexts, both untouched; the question only if `concate`."""

    instruction: str = ""
    question: str = ""
    concate: bool = True

    def __post_init__(self) -> None:
        for name in ("instruction", "question"):
            if not isinstance(getattr(self, name), str):
                raise InputError(f"{name} must be a str, got {type(getattr(self, name)).__name__}")

    def around(self, text: str) -> str:
        """The prompt."""
        parts = [self.instruction, text if text.strip() else "", self.question if self.concate else ""]
        return PARAGRAPH.join(part for part in parts if part)

    def before(self, texts: Sequence[str], counter: Counter) -> int:
        """Tokens of everything as it came in."""
        return counter(PARAGRAPH.join([self.instruction, *texts, self.question]).strip())

    def added(self, counter: Counter) -> Counter:
        """Counts what the contexts add to the prompt."""
        bare = counter(self.around(""))
        return Counter(counter.name, lambda text: max(0, counter(self.around(text)) - bare))

    def limit(self, before: int, counter: Counter, rate: float, target: float) -> int:
        """Tokens that the contexts may add: `target` of them, or (below 0) what `rate` leaves beside the frame."""
        if target >= 0:
            return int(target)
        return (Budget(rate=rate).limit(before) or 0) - counter(self.around(""))


def reported(result: LegacyResult) -> dict[str, Any]:
    """The package's keys, the list of contexts among them; an empty result reads 0 %, not 100 %."""
    report = result.report()
    if result.tokens_before and not result.tokens_after:
        report.update(ratio="infx", rate="0.0%")
    return report
