"""laconic: the smallest verbatim part of a prompt that still does the job.

>>> import laconic
>>> laconic.compress("The cat sat on the mat, and then it slept.", rate=0.5).met
True
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from laconic.errors import BudgetError, InputError, LaconicError, MissingExtraError, ModelError

if TYPE_CHECKING:
    from pathlib import Path

    from laconic.compressor import Compressor
    from laconic.documents import CompressedDocuments
    from laconic.prompt import Messages
    from laconic.result import Compression

__version__ = "0.1.0"
__all__ = [
    "BudgetError",
    "CompressedDocuments",
    "Compression",
    "Compressor",
    "InputError",
    "LaconicError",
    "MissingExtraError",
    "ModelError",
    "compress",
    "load",
]
DEFAULT_MODEL = "laconic-small"
_LAZY = {
    "CompressedDocuments": "laconic.documents",
    "Compressor": "laconic.compressor",
    "Compression": "laconic.result",
}
_loaded: dict[str, Compressor] = {}


def load(
    model: str | Path = DEFAULT_MODEL,
    *,
    method: str = "llmlingua2",
    counter: Any = "o200k_base",
    structure: bool = True,
) -> Compressor:
    """A compressor: a model by name, Hugging Face name or folder; a method; a counter; structure rules on or off.

    method: `llmlingua2` takes a token classifier; `llmlingua`, `longllmlingua` and `selective-context` (`-phrase`,
    `-sentence`) a causal language model, named by `model`; docs/methods.md has these and those without a model.
    counter: `o200k_base`, `cl100k_base`, `words`, the path of a tokenizer.json, or a function from str to int.
    """
    from laconic.budget import counter as named
    from laconic.compressor import Compressor
    from laconic.scorers import scorer

    return Compressor(scorer(method, str(model)), named(counter), structure)


def compress(prompt: str | Messages, **options: Any) -> Compression:
    """Compress with the default model, which is loaded once; `options` are those of `Compressor.compress`.

    >>> import laconic
    >>> laconic.compress("A text that is short already.", rate=1).text
    'A text that is short already.'
    """
    if DEFAULT_MODEL not in _loaded:
        _loaded[DEFAULT_MODEL] = load()
    return _loaded[DEFAULT_MODEL].compress(prompt, **options)


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'laconic' has no attribute {name!r}")
