"""Every error laconic raises on purpose.

    LaconicError
    ├── InputError (ValueError)    a value is out of range or of the wrong type; the message says what to pass
    │   └── BudgetError            strict=True and the protected text alone exceeds the budget
    ├── ModelError                 a model folder or a memory is missing, damaged, foreign or refused
    ├── EndpointError              a chat-completions endpoint cannot be reached, refuses, or answers with nonsense
    └── MissingExtraError (ImportError)   an optional dependency is needed; the message names the extra

Messages are advice: the value, the allowed range, the remedy.
"""

from __future__ import annotations


class LaconicError(Exception):
    """Base of all errors below."""


class InputError(LaconicError, ValueError):
    """A value is out of range or of the wrong type."""


class BudgetError(InputError):
    """The protected text alone exceeds the budget (only with `strict=True`)."""


class ModelError(LaconicError):
    """A model or a memory is missing, damaged, of a foreign kind, or refused for safety."""


class EndpointError(LaconicError):
    """An endpoint gave no answer; `fatal` says that no other request to it would fare better (key, quota, address)."""

    def __init__(self, message: str, fatal: bool = False) -> None:
        super().__init__(message)
        self.fatal = fatal


class MissingExtraError(LaconicError, ImportError):
    """An optional dependency is not installed."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f'{what} needs the extra [{extra}]: pip install "laconic[{extra}]"')
