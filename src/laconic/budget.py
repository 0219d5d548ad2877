"""Budgets and the counters they are counted in."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from numbers import Integral, Real
from pathlib import Path

from laconic.errors import InputError
from laconic.text import readable

DEFAULT_RATE = 0.5
DEFAULT_COUNTER = "o200k_base"


@dataclass(frozen=True)
class Budget:
    """How much may stay: at most one of the three; none at all means `rate=0.5`.

    rate: kept tokens / original tokens, 0 < rate <= 1. tokens: upper bound in the target's tokens. threshold: keep what
    scores at least this, 0 to 1; the amount follows from the text.
    """

    rate: float | None = None
    tokens: int | None = None
    threshold: float | None = None

    def __post_init__(self) -> None:
        given = {k: v for k, v in vars(self).items() if v is not None}
        if len(given) > 1:
            named = " and ".join(f"{k}={v}" for k, v in given.items())
            raise InputError(f"one budget at a time, got {named}; leave out all but one")
        for name, value in given.items():
            if isinstance(value, bool) or not isinstance(value, Integral if name == "tokens" else Real):
                kind = "a whole number" if name == "tokens" else "a number"
                raise InputError(f"{name} must be {kind}, got {value!r}")
        if self.rate is not None and not 0 < self.rate <= 1:
            raise InputError(f"rate must be in (0, 1], got {self.rate}{_hint(self.rate)}")
        if self.tokens is not None and self.tokens < 1:
            raise InputError(f"tokens must be 1 or more, got {self.tokens}")
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise InputError(f"threshold must be in [0, 1], got {self.threshold}")

    def limit(self, tokens_before: int) -> int | None:
        """The upper bound in tokens for an input of `tokens_before`; None for a threshold.

        >>> Budget(rate=0.29).limit(100)
        29
        """
        if self.threshold is not None:
            return None
        if self.tokens is not None:
            return int(self.tokens)
        rate = DEFAULT_RATE if self.rate is None else self.rate
        return math.floor(Decimal(str(float(rate))) * tokens_before)


def _hint(rate: float) -> str:
    if math.isfinite(rate) and rate > 1:
        return f"; did you mean tokens={rate:.0f}" + (f" or rate={rate / 100:g}?" if rate <= 100 else "?")
    return "; it is the share of tokens that stays, for example rate=0.5"


@dataclass(frozen=True)
class Counter:
    """Counts tokens as the target model would."""

    name: str
    function: Callable[[str], int]

    def __call__(self, text: str) -> int:
        """Tokens of a text; any str."""
        if not text.isascii():  # lone surrogates cannot be sent to any model: counted as U+FFFD
            text = readable(text)
        size = self.function(text)
        if not isinstance(size, Integral):
            raise InputError(f"a counter returns a whole number, {self.name} returned {size!r}")
        return int(size)


def counter(name: str | Path | Counter | Callable[[str], int] = DEFAULT_COUNTER) -> Counter:
    """A token counter: `o200k_base`, `cl100k_base`, `words`, a tokenizer.json (or its folder), or a function.

    >>> counter("words")("three short words")
    3
    """
    if not isinstance(name, (str, Path)):
        if not callable(name):
            raise InputError(f"a counter is a name, a path or a function from str to int, got {name!r}")
        return name if isinstance(name, Counter) else Counter(getattr(name, "__name__", "custom"), name)
    return _named(str(name))


@lru_cache(maxsize=8)
def _named(name: str) -> Counter:
    if name in ("o200k_base", "cl100k_base"):
        return Counter(name, _openai(name))
    if name == "words":
        return Counter(name, lambda text: len(text.split()))
    path = Path(name)
    file = path / "tokenizer.json" if path.is_dir() else path
    if not file.is_file():
        raise InputError(
            f"no counter {name!r}; pass o200k_base, cl100k_base, words, or the path of a tokenizer.json or its folder"
        )
    return Counter(name, _hugging_face(file))


def _openai(name: str) -> Callable[[str], int]:
    """OpenAI's vocabularies offline. rs-bpe starts ten times faster; bpe-openai serves Pythons it has no wheel for."""
    try:
        from rs_bpe import openai
    except ImportError:
        from bpe_openai._bindings import tokenizer_for_encoding

        return tokenizer_for_encoding(name).count  # type: ignore[no-any-return]
    return getattr(openai, name)().count  # type: ignore[no-any-return]


def _hugging_face(file: Path) -> Callable[[str], int]:
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the Rust library raises bare Exception
        raise InputError(f"{file} is not a tokenizer.json: {error}") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return lambda text: len(tokenizer.encode_batch_fast([text], add_special_tokens=False)[0])
