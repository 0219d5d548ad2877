"""Rankers: how relevant is each document to a question? By name; one is imported only when it is asked for.

| name | a document is worth | source |
|---|---|---|
| `evidence` | its best sentence, as the default model (or `evidence=NAME`) scores it | ours |
| `bm25` | its words, against the question's | Robertson and Zaragoza 2009 |
| `gzip` | minus the normalised compression distance to the question | Cilibrasi and Vitányi 2005, eq. 6 |
| `embedding=DIR` | the cosine of its best passage and the question | Reimers and Gurevych 2019 |
| `reranker=DIR` | the logit of its best passage, read together with the question | Nogueira and Cho 2019 |
| `perplexity=DIR` | how well it foretells the question, token by token | LongLLMLingua, eq. 3 |

`DIR` is the folder of a Hugging Face checkpoint; the last three need the extra [torch].
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any, Protocol

from laconic.errors import InputError
from laconic.text import Floats

# name -> (module, factory). A factory takes a model's name or folder, "" for none given, and returns a Ranker.
RANKERS = {
    "evidence": ("laconic.rankers.evidence", "load"),
    "bm25": ("laconic.rankers.lexical", "bm25"),
    "gzip": ("laconic.rankers.lexical", "gzip"),
    "embedding": ("laconic.rankers.encoders", "embedding"),
    "reranker": ("laconic.rankers.encoders", "reranker"),
    "perplexity": ("laconic.scorers.perplexity", "load"),
}


class Ranker(Protocol):
    """Ranks documents. Holds no state between calls."""

    def rank(self, documents: Sequence[str], question: str) -> Floats:
        """How relevant each document is: float32[k], finite, higher is more; comparable within one call only."""
        ...


def ranker(spec: str) -> Ranker:
    """A ranker by `NAME` or `NAME=MODEL`.

    >>> ranker("bm25").rank(["A cat sat.", "Stars move."], "Where did the cat sit?").argmax()
    np.int64(0)
    """
    name, _, model = spec.partition("=")
    if name not in RANKERS:
        raise InputError(f"no ranker {name!r}; there are {', '.join(RANKERS)}")
    module, factory = RANKERS[name]
    made: Any = getattr(import_module(module), factory)(model)
    return made  # type: ignore[no-any-return]
