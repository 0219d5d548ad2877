"""Soft compression: a text as a few slots of keys and values (or embeddings) that one model reads in its place.

    text ─▶ SoftEncoder ─▶ Memory ─▶ Reader ─▶ answers, surprisal, the text again

Two published methods are one code path: 500xCompressor (arXiv 2408.03094; mode "kv") and ICAE (arXiv 2307.06945; mode
"embedding"). docs/soft.md says how it is used, and where we differ from them.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from laconic.errors import MissingExtraError

if TYPE_CHECKING:
    from laconic.soft.adapter import mode_of
    from laconic.soft.base import Base
    from laconic.soft.encoder import Settings, SoftEncoder
    from laconic.soft.measure import Plan, evaluate
    from laconic.soft.memory import Memory
    from laconic.soft.reader import Reader
    from laconic.soft.tuned import Tuned, Tuning

__all__ = ["Base", "Memory", "Plan", "Reader", "Settings", "SoftEncoder", "Tuned", "Tuning", "evaluate", "mode_of"]
_LAZY = {
    "Base": "laconic.soft.base",
    "Memory": "laconic.soft.memory",
    "Plan": "laconic.soft.measure",
    "Reader": "laconic.soft.reader",
    "Settings": "laconic.soft.encoder",
    "SoftEncoder": "laconic.soft.encoder",
    "Tuned": "laconic.soft.tuned",
    "Tuning": "laconic.soft.tuned",
    "evaluate": "laconic.soft.measure",
    "mode_of": "laconic.soft.adapter",
}
_NEEDED = ("peft", "safetensors", "torch", "transformers")


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'laconic.soft' has no attribute {name!r}")
    if not all(map(find_spec, _NEEDED)):
        raise MissingExtraError("Soft compression", "soft")
    return getattr(import_module(_LAZY[name]), name)
