"""The parameters of the perplexity methods, LLMLingua and LongLLMLingua: checked, and what depends on what."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, fields
from numbers import Integral, Real
from typing import Any

from laconic.budget import Budget
from laconic.documents import ORDERS
from laconic.errors import InputError

# reorder_context -> the order of contexts when they come best first
REORDER = {"original": ORDERS["original"], "sort": ORDERS["best_first"], "two_stage": ORDERS["two_ended"]}
_CONDITIONS = ("none", "before", "after", "none_condition", "before_condition", "after_condition")
_ROOM = re.compile(r"\s*([+\-*/])\s*(\d+(?:\.\d+)?)\s*")
_SIGNS: dict[str, Callable[[float, float], float]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b if b else math.inf,
}
_COUNTS = {  # whole numbers and the least each may be
    "iterative_size": 1,
    "force_context_number": 0,
    "keep_first_sentence": 0,
    "keep_last_sentence": 0,
    "keep_sentence_number": 0,
}
_NEEDS = {  # parameter -> the switch without which nothing reads it
    "force_context_number": "use_context_level_filter",
    "context_budget": "use_context_level_filter",
    "keep_first_sentence": "use_sentence_level_filter",
    "keep_last_sentence": "use_sentence_level_filter",
    "keep_sentence_number": "use_sentence_level_filter",
    "token_budget_ratio": "use_sentence_level_filter",
    "iterative_size": "use_token_level_filter",
    "condition_compare": "use_token_level_filter",
    "dynamic_context_compression_ratio": "use_token_level_filter",
    "add_instruction": "condition_compare",
}


@dataclass(frozen=True)
class PerplexitySettings:
    """The parameters by their old names and with their old defaults; docs/dropin.md says what each one means here."""

    instruction: str = ""
    question: str = ""
    rate: float = 0.5
    target_token: float = -1
    iterative_size: int = 200
    force_context_ids: Collection[int] | None = None
    force_context_number: int | None = None
    use_sentence_level_filter: bool = False
    use_context_level_filter: bool = True
    use_token_level_filter: bool = True
    keep_split: bool = False
    keep_first_sentence: int = 0
    keep_last_sentence: int = 0
    keep_sentence_number: int = 0
    high_priority_bonus: int = 100
    context_budget: str = "+100"
    token_budget_ratio: float = 1.4
    condition_in_question: str = "none"
    reorder_context: str = "original"
    dynamic_context_compression_ratio: float = 0.0
    condition_compare: bool = False
    add_instruction: bool = False
    rank_method: Any = "llmlingua"
    concate_question: bool = True
    strict_preserve_uncompressed: bool = True

    def __post_init__(self) -> None:
        Budget(rate=self.rate)
        for name, least in _COUNTS.items():
            value = getattr(self, name)
            if value is not None and (not isinstance(value, Integral) or value < least):
                raise InputError(f"{name} must be a whole number from {least} on, got {value!r}")
        if not isinstance(self.target_token, Real):
            raise InputError(f"target_token must be a number, got {self.target_token!r}")
        for name in ("token_budget_ratio", "dynamic_context_compression_ratio"):
            value = getattr(self, name)
            if not isinstance(value, Real) or not 0 <= value < math.inf:
                raise InputError(f"{name} must be a number from 0 on, got {value!r}")
        if self.reorder_context not in REORDER:
            raise InputError(f"reorder_context must be one of {', '.join(REORDER)}, got {self.reorder_context!r}")
        if self.high_priority_bonus != 100:
            raise InputError("high_priority_bonus has no meaning: sentences to keep are kept; leave it out")
        self.room(0)
        self._check_needs()
        self._check_question()

    def room(self, limit: int) -> float:
        """Tokens of the contexts that are looked at more closely when `limit` of them are to stay."""
        match = _ROOM.fullmatch(self.context_budget) if isinstance(self.context_budget, str) else None
        if not match:
            raise InputError(
                f"context_budget is a sign and a number, such as +100 or *1.5, got {self.context_budget!r}"
            )
        return _SIGNS[match[1]](limit, float(match[2]))

    @property
    def told(self) -> str | None:
        """What the token stage reads before the contexts: the question, with `add_instruction` the instruction too."""
        parts = [self.question, self.instruction if self.add_instruction else ""]
        return "\n\n".join(p for p in parts if p) if self.condition_compare else None

    @property
    def position(self) -> str:
        """Where the question stands when contexts are ranked: before or after them, or none."""
        plain = self.condition_in_question.removesuffix("_condition")
        return "after" if plain == "none" and self.rank_method == "longllmlingua" else plain

    @property
    def ranks_by_question(self) -> bool:
        return bool(self.rank_method != "llmlingua")

    def _check_needs(self) -> None:
        defaults = {f.name: f.default for f in fields(self)}
        for name, switch in _NEEDS.items():
            if getattr(self, name) != defaults[name] and not getattr(self, switch):
                raise InputError(f"{name}={getattr(self, name)!r} has no effect without {switch}=True; leave it out")

    def _check_question(self) -> None:
        """Who reads the question, and who needs one."""
        if self.condition_in_question not in _CONDITIONS:
            raise InputError(
                f"condition_in_question must be one of {', '.join(_CONDITIONS)}, got {self.condition_in_question!r}"
            )
        if self.condition_in_question.endswith("_condition") and not self.condition_compare:
            raise InputError(
                "a question before the contexts is compared with none (LongLLMLingua, eq. 5): pass "
                f"condition_compare=True with condition_in_question={self.condition_in_question!r}"
            )
        if self.position != "none" and self.rank_method != "longllmlingua":
            raise InputError(
                f"condition_in_question={self.condition_in_question!r} says how rank_method='longllmlingua' ranks; "
                'for another one pass "none", or "none_condition"'
            )
        wants = {
            f"rank_method={self.rank_method!r}": self.ranks_by_question,
            "condition_compare=True": self.condition_compare,
            "dynamic_context_compression_ratio": self.dynamic_context_compression_ratio > 0,
        }
        for name, wanted in wants.items():
            if wanted and not self.question.strip():
                raise InputError(f"{name} needs a question; pass question=")
