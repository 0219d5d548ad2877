"""What was done to a request and why not more: counts and reasons, never contents."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from laconic.serve.parts import Path

REASONS = {  # of a part
    "compressed": "it is shorter now",
    "off": "the rules do not compress this kind of part",
    "newest": "it is what the user says now",
    "sent": "the model has answered it: it was sent as it is",
    "short": "it has fewer tokens than the floor",
    "fits": "what is new fits in the budget as it is",
    "tag": "a tag in it says so",
    "tool": "it is the result of a tool that the rules leave alone",
    "error": "a tool reports an error",
    "citations": "the answer's citations count its characters",
    "gain": "too little would be saved",
    "empty": "nothing would be left of it",
    "bypass": "the request said so when this part was new",
    "late": "there was no time when this part was new",
    "failed": "the compressor failed on it",
    "resting": "the compressor had failed several times in a row",
    "rejected": "the upstream rejected the request when this part was compressed",
    "store": "the store could not be written",
}
WHOLE = {  # of a request that is forwarded as it came
    "": "it was read",
    "bypass": "it says so",
    "large": "it is larger than the rules allow",
    "deep": "its brackets are nested deeper than any real request's",
    "encoding": "it is not UTF-8",
    "malformed": "it is not JSON",
    "foreign": "it is not a request of this protocol",
    "store": "the store cannot be used",
    "late": "there was no time to read it",
    "failed": "a bug of ours: please report it",
}


@dataclass(frozen=True)
class PartReport:
    """What became of one part."""

    path: Path
    role: str
    kind: str
    tokens_before: int
    tokens_after: int
    reason: str  # a key of REASONS
    new: bool  # decided now; else replayed
    id: str = ""  # for `Decisions.restore`, if it was compressed


@dataclass(frozen=True)
class Report:
    """What became of a request. Tokens are of its parts: system prompts, tools, the model's words are not counted."""

    parts: tuple[PartReport, ...] = ()
    whole: str = ""  # a key of WHOLE
    notes: tuple[str, ...] = ()  # headers that were ignored, and why

    @property
    def tokens_before(self) -> int:
        return sum(part.tokens_before for part in self.parts)

    @property
    def tokens_after(self) -> int:
        return sum(part.tokens_after for part in self.parts)

    @property
    def saved(self) -> int:
        """Tokens removed."""
        return self.tokens_before - self.tokens_after

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"tokens_before": self.tokens_before, "tokens_after": self.tokens_after, **asdict(self)}
