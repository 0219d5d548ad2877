"""Methods by name. One file a method; a name is imported only when it is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from laconic.errors import InputError
from laconic.score import Scorer

# name -> (module, factory). A factory takes the model name or folder and returns a Scorer.
METHODS = {
    "llmlingua2": ("laconic.scorers.classifier", "load"),
    "llmlingua": ("laconic.scorers.llmlingua", "llmlingua"),
    "longllmlingua": ("laconic.scorers.llmlingua", "longllmlingua"),
    "selective-context": ("laconic.scorers.selective", "words"),
    "selective-context-phrase": ("laconic.scorers.selective", "in_phrases"),
    "selective-context-sentence": ("laconic.scorers.selective", "in_sentences"),
    "bm25": ("laconic.scorers.relevance", "load"),
    "tfidf": ("laconic.scorers.tfidf", "load"),
    "lead": ("laconic.scorers.controls", "lead"),
    "stopwords": ("laconic.scorers.controls", "stopwords"),
    "random": ("laconic.scorers.controls", "random"),
}


def scorer(method: str, model: str) -> Scorer:
    """The scorer of a method; other packages add theirs under the entry point group `laconic.methods`."""
    if method in METHODS:
        module, factory = METHODS[method]
        made: Any = getattr(import_module(module), factory)(model)
        return made  # type: ignore[no-any-return]
    from importlib.metadata import entry_points  # here: it costs 20 ms

    others = {e.name: e for e in entry_points(group="laconic.methods")}
    if method in others:
        return others[method].load()(model)  # type: ignore[no-any-return]
    raise InputError(f"no method {method!r}; there are {', '.join([*METHODS, *others])}")
