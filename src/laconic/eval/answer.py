"""Answerers: what reads a context and answers a question on it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from laconic.errors import LaconicError, MissingExtraError, ModelError
from laconic.eval.data import Example
from laconic.eval.kinds import Kind
from laconic.export import quiet

if TYPE_CHECKING:
    from laconic.endpoint import Endpoint

_WINDOW = 384  # tokens, for a reader whose tokenizer does not name its own
_LONGEST = 30  # tokens of an answer
_BATCH = 16  # windows


class Answerer(Protocol):
    """Answers questions on contexts, many at once; an answer that could not be had is the error."""

    name: str

    def answers(self, contexts: Sequence[str], examples: Sequence[Example]) -> list[str | LaconicError]:
        """One answer an example, read from the context of the same place (not from `example.context`)."""
        ...


class Reader:
    """Extractive question answering: a Hugging Face checkpoint that marks start and end of the answer.

    Contexts longer than its window (`model_max_length` of the tokenizer) are read in overlapping windows. The answer is
    the span that beats its window's [CLS] (no answer) by most, over all windows; "" where there is no word to answer
    from. `recipes/reader.py` trains one.
    """

    def __init__(self, folder: str | Path) -> None:
        try:
            import torch
            from transformers import AutoModelForQuestionAnswering, AutoTokenizer
        except ImportError:
            raise MissingExtraError("the reader", "torch") from None
        self.name = str(folder)
        if not Path(folder, "config.json").exists():
            raise ModelError(f"{folder} holds no reader; pass the folder of a checkpoint, see recipes/reader.py")
        self._torch = torch
        with quiet():
            self._tokenizer = AutoTokenizer.from_pretrained(folder)
            self._model = AutoModelForQuestionAnswering.from_pretrained(folder, use_safetensors=True).eval()
        positions = int(getattr(self._model.config, "max_position_embeddings", _WINDOW))
        named = int(self._tokenizer.model_max_length)  # huge where the tokenizer names none
        self.window = named if named <= positions else min(_WINDOW, positions)

    def answer(self, context: str, question: str) -> str:
        """The answer to one question."""
        return self._best([context], [question])[0]

    def answers(self, contexts: Sequence[str], examples: Sequence[Example]) -> list[str | LaconicError]:
        """One span of the context an example."""
        return [*self._best(contexts, [e.question or "" for e in examples])]

    def _best(self, contexts: Sequence[str], questions: Sequence[str]) -> list[str]:
        windows = self._windows(contexts, questions)
        best = [(-np.inf, "")] * len(contexts)
        order = sorted(range(len(windows)), key=lambda k: len(windows[k].ids))  # less padding
        for start in range(0, len(order), _BATCH):
            part = [windows[k] for k in order[start : start + _BATCH]]
            for window, first, last in zip(part, *self._logits(part), strict=True):
                score, (s, e) = best_span(first, last, window.inside)
                if score > best[window.owner][0]:
                    text = contexts[window.owner][window.offsets[s][0] : window.offsets[e][1]]
                    best[window.owner] = (score, text)
        return [text for _, text in best]

    def _windows(self, contexts: Sequence[str], questions: Sequence[str]) -> list[_Window]:
        windows = []
        for owner, (context, question) in enumerate(zip(contexts, questions, strict=True)):
            if not context.strip():
                continue
            encoded = self._tokenizer(
                self._cut(question),
                context,
                truncation="only_second",
                max_length=self.window,
                stride=self.window // 4,  # tokens that neighbouring windows share
                return_overflowing_tokens=True,
                return_offsets_mapping=True,
            )
            for k, ids in enumerate(encoded["input_ids"]):
                inside = np.array([part == 1 for part in encoded.sequence_ids(k)])
                types = encoded["token_type_ids"][k] if "token_type_ids" in encoded else None
                if inside.any():
                    windows.append(_Window(owner, ids, types, inside, encoded["offset_mapping"][k]))
        return windows

    def _cut(self, question: str) -> str:
        """As much of the question as leaves two thirds of a window to the context."""
        encoded = self._tokenizer(question, add_special_tokens=False, return_offsets_mapping=True)
        ends = [end for _, end in encoded["offset_mapping"][: self.window // 3]]
        return question[: ends[-1]] if ends else ""

    def _logits(self, part: Sequence[_Window]) -> tuple[list[npt.NDArray[np.float32]], ...]:
        """Start and end logits of each window: two lists of float32[T]."""
        torch = self._torch

        def padded(rows: list[list[int]], value: int) -> Any:
            width = max(map(len, rows))
            return torch.tensor([row + [value] * (width - len(row)) for row in rows])

        ids = [w.ids for w in part]
        batch = {"input_ids": padded(ids, self._tokenizer.pad_token_id or 0)}
        batch["attention_mask"] = padded([[1] * len(row) for row in ids], 0)
        if part[0].types is not None:
            batch["token_type_ids"] = padded([w.types or [] for w in part], 0)
        with torch.inference_mode():
            out = self._model(**batch)
        sides = (out.start_logits.float().numpy(), out.end_logits.float().numpy())
        return tuple([row[: len(w.ids)] for row, w in zip(side, part, strict=True)] for side in sides)


@dataclass(frozen=True)
class _Window:
    owner: int  # which context it is of
    ids: list[int]
    types: list[int] | None
    inside: npt.NDArray[np.bool_]  # [T], a token of the context
    offsets: list[tuple[int, int]]  # [T], code points of the context


def best_span(
    start: npt.NDArray[np.float32], end: npt.NDArray[np.float32], inside: npt.NDArray[np.bool_]
) -> tuple[float, tuple[int, int]]:
    """(logit above [CLS], (first token, last token)) of the best span of at most 30 tokens; float32[T], bool[T]."""
    null = start[0] + end[0]
    start, end = np.where(inside, start, -np.inf), np.where(inside, end, -np.inf)
    n = len(start)
    offset = np.arange(n)[None, :] - np.arange(n)[:, None]  # last - first
    score = np.where((offset >= 0) & (offset < _LONGEST), start[:, None] + end[None, :], -np.inf)
    first, last = divmod(int(score.argmax()), n)
    return float(score[first, last] - null), (first, last)


class EndpointAnswerer:
    """A model behind an OpenAI-compatible endpoint, asked in the way of one kind of task, at temperature 0."""

    def __init__(self, endpoint: Endpoint, kind: Kind) -> None:
        self.name = endpoint.model
        self._endpoint, self._kind = endpoint, kind

    def answers(self, contexts: Sequence[str], examples: Sequence[Example]) -> list[str | LaconicError]:
        """One answer an example; an example that the endpoint refuses (too long, filtered) has the error instead."""
        prompts = itertools.starmap(self._kind.prompt, zip(contexts, examples, strict=True))
        requests = [[{"role": "user", "content": prompt}] for prompt in prompts]
        done = self._endpoint.complete_many(requests, max_tokens=self._kind.max_tokens, temperature=0.0)
        return [d if isinstance(d, LaconicError) else d.text for d in done]
