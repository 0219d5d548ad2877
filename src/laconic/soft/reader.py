"""The frozen base, reading memories in place of texts: answers, surprisal, the text again; and losses to train by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from laconic.backends import Nats
from laconic.errors import InputError
from laconic.soft.base import Base, enough_memory
from laconic.soft.caches import Capture, Prefix, contents, growing
from laconic.soft.encoder import padded
from laconic.soft.memory import Memory
from laconic.soft.replay import divergence, nats, recompute

Parts = Memory | str | Sequence[Memory | str]  # what stands before a prompt, in order
_LESS = "use fewer requests at once, shorter ones, or fewer slots"


class Reader:
    """Reads memories, texts and any mix of them. Its weights are those of `base`, without adapters.

    Slots take positions as tokens do: what follows m of them is at m. Nothing here changes a memory or the base.

    reader = Reader(encoder.base)
    reader.generate([memory], "Question: Who signed it? Answer:")
    """

    def __init__(self, base: Base, body: Any = None) -> None:
        """body: what reads in place of the base's own, such as one with LoRA (`Tuned.reader`)."""
        self.base = base
        self._body = base.shared_body() if body is None else body
        self._head = base.model.get_output_embeddings()

    # Reading

    def generate(self, before: Parts, prompt: str, max_tokens: int = 46) -> str:
        """The most probable answer, token by token, to a prompt after memories and texts.

        `[memory, "Now the second report: ", other]` mixes them. A text that comes first gets the BOS before it.
        """
        return self.generate_many([(before, prompt)], max_tokens)[0]

    def generate_many(self, requests: Sequence[tuple[Parts, str]], max_tokens: int = 46) -> list[str]:
        """`generate` for many (before, prompt), in one batch; other rows do not change a row beyond float error."""
        pasts = [self._past(before) for before, _ in requests]
        prompts = [self._prompt(past, prompt) for past, (_, prompt) in zip(pasts, requests, strict=True)]
        return [self.base.text(ids) for ids in self.answers(pasts, prompts, [max_tokens] * len(prompts))]

    def answers(
        self, pasts: Sequence[Tensor], prompts: Sequence[Sequence[int]], limits: Sequence[int]
    ) -> list[list[int]]:
        """`generate_many` in ids, after keys and values: float[L, 2, n_kv, P, d_h] for each prompt."""
        answers: list[list[int]] = [[] for _ in prompts]
        for step in self._decode(pasts, prompts, limits) if prompts else ():
            for answer, token in zip(answers, step, strict=True):
                answer += token
        return answers

    def stream(self, before: Parts, prompt: str | None, max_tokens: int = 46) -> Iterator[str]:
        """What `generate` returns, piece by piece as it comes; without a prompt, what `regenerate` returns."""
        past = self._past(before)
        asked = [self.base.start] if prompt is None else self._prompt(past, prompt)
        said, ids = "", list[int]()
        for step in self._decode([past], [asked], [max_tokens]):
            ids += step[0]
            text = self.base.text(ids)
            if not text.endswith("\ufffd"):  # else a character of several tokens is not complete
                yield text[len(said) :]
                said = text
        yield self.base.text(ids)[len(said) :]

    def regenerate(self, memory: Memory, max_tokens: int | None = None) -> str:
        """The text that a memory stands for, as far as it holds it: what follows the BOS; at most as many tokens."""
        return "".join(self.stream(memory, None, memory.tokens if max_tokens is None else max_tokens))

    def nll(self, before: Parts, text: str, given: str = "") -> Nats:
        """The surprisal of each token of a text, in nats: float32[T].

        Read after memories and texts, and after `given` (a question) or, without it, the BOS.
        """
        past, ids = self._past(before), self.base.tokens(text)
        head = self.base.tokens(given) or [self.base.start]
        if past.shape[-2] == 0 and given:
            head = [self.base.start, *head]
        self._check_room(past.shape[-2] + len(head) + len(ids))
        if not ids:
            return np.zeros(0, np.float32)
        with torch.no_grad(), enough_memory(_LESS):
            found = self.nats(past[None], [head + ids], [len(head)])
        return np.asarray(found.cpu().numpy(), np.float32)

    def inputs(self, before: Parts, prompt: str) -> dict[str, Any]:
        """What transformers' own `base.model.generate(**inputs, …)` needs, for sampling or beams.

        The mask spans slots and prompt: with a shorter one, or with `inputs_embeds`, generate is wrong without a word.
        For beams, call `inputs["past_key_values"].batch_repeat_interleave(beams)` first. generate fills the cache.
        """
        past = self._past(before)
        ids = torch.tensor([self._prompt(past, prompt)], device=self.base.device)
        mask = torch.ones(1, past.shape[-2] + ids.shape[1], dtype=torch.int64, device=self.base.device)
        return {"input_ids": ids, "attention_mask": mask, "past_key_values": growing(past[None])}

    # Training

    def recompute(self, on: bool = True) -> None:
        """Gradient checkpointing: less memory, the same gradients, a third more time."""
        recompute(self._body, on)

    def kv(self, states: Tensor) -> Tensor:
        """An encoder's states as keys and values, with gradient: float[B, L, 2, n_kv, m, d_h]."""
        if states.dim() == 6:
            return states
        cache = Capture(torch.arange(states.shape[1], device=states.device).expand(len(states), -1))
        self._body(inputs_embeds=states, past_key_values=cache, use_cache=True)
        return cache.kv

    def nats(self, kv: Tensor, rows: Sequence[Sequence[int]], after: Sequence[int]) -> Tensor:
        """-ln p of the tokens of each row from index `after` (1 or more) on: float32[N], row by row, with gradient.

        kv: float[B, L, 2, n_kv, P, d_h], what each row is read after. Regeneration is the rows `[BOS, *text, EOS]`
        after 1, an answer the rows `[*question, *answer, EOS]` after the question, a continuation its tokens after 1.
        """
        return self.spent(self.states(kv, rows, after), rows, after)

    def divergence(
        self, kv: Tensor, rows: Sequence[Sequence[int]], after: Sequence[int], contexts: Sequence[Sequence[int]]
    ) -> Tensor:
        """KL(reader of the full context ‖ reader of kv) for the tokens that `nats` would give: float32[N].

        contexts: ids of what each row's memory stands for, read after the BOS; no gradient goes there.
        """
        whole = [[self.base.start, *context, *row] for context, row in zip(contexts, rows, strict=True)]
        places = [1 + len(context) + first for context, first in zip(contexts, after, strict=True)]
        with torch.no_grad():
            teacher = self.states(self.nothing(len(rows)), whole, places)
        return self.apart(self.states(kv, rows, after), teacher)

    def states(self, kv: Tensor, rows: Sequence[Sequence[int]], after: Sequence[int]) -> Tensor:
        """The last hidden states that the tokens of `nats` are predicted from: float[N, H], with gradient."""
        return self._states(kv, rows)[:, :-1][_learned(rows, after, self.base.device)]

    def spent(self, states: Tensor, rows: Sequence[Sequence[int]], after: Sequence[int]) -> Tensor:
        """`nats` of states that are there already."""
        learn = _learned(rows, after, self.base.device)
        return nats(self._head, states, padded(rows, self.base.device)[:, 1:][learn])

    def apart(self, states: Tensor, teacher: Tensor) -> Tensor:
        """KL(teacher ‖ states) where both are `states` of the same tokens: float[N, H] twice to float32[N]."""
        return divergence(self._head, states, teacher)

    # Inside

    def _states(self, kv: Tensor, rows: Sequence[Sequence[int]]) -> Tensor:
        """float[B, T, H], last hidden states of rows padded on the right, with gradient to kv."""
        states: Tensor = self._body(
            input_ids=padded(rows, self.base.device), past_key_values=Prefix(kv), use_cache=True
        ).last_hidden_state
        return states

    def nothing(self, rows: int) -> Tensor:
        """Keys and values of no past: float[B, L, 2, n_kv, 0, d_h]."""
        config = self.base.model.config.get_text_config()
        heads = config.num_attention_heads
        width = getattr(config, "head_dim", None) or config.hidden_size // heads
        shape = (rows, config.num_hidden_layers, 2, getattr(config, "num_key_value_heads", heads), 0, width)
        return self.base.table.new_zeros(shape)

    def _extend(self, kv: Tensor, embeddings: Tensor) -> Tensor:
        """A past and what is read after it, no gradient: float[B, L, 2, n_kv, P, d_h], float[B, m, H] to P + m."""
        cache = growing(kv)
        self._body(inputs_embeds=embeddings, past_key_values=cache, use_cache=True)
        return contents(cache)

    def _past(self, before: Parts) -> Tensor:
        """Keys and values of memories and texts in order: float[L, 2, n_kv, P, d_h]."""
        parts = [before] if isinstance(before, (Memory, str)) else list(before)
        kv = self.nothing(1)
        with torch.no_grad(), enough_memory(_LESS):
            for k, part in enumerate(parts):
                if not isinstance(part, (Memory, str)):
                    raise InputError(f"part {k + 1} must be a Memory or a str, got {type(part).__name__}")
                kv = self._read_text(kv, part) if isinstance(part, str) else self._read_memory(kv, part, k)
        return kv[0]

    def _read_text(self, kv: Tensor, text: str) -> Tensor:
        ids = self._prompt(kv[0], text)
        self._check_room(kv.shape[-2] + len(ids))
        return self._extend(kv, self._body.get_input_embeddings()(padded([ids], self.base.device))) if ids else kv

    def _read_memory(self, kv: Tensor, memory: Memory, number: int) -> Tensor:
        self.base.made.check(memory.made, f"memory {number + 1}")
        self._check_room(kv.shape[-2] + memory.slots)
        placed = memory.moved(kv.shape[-2]).state.to(kv)[None]
        return torch.cat([kv, placed], -2) if memory.mode == "kv" else self._extend(kv, placed)

    def _prompt(self, past: Tensor, text: str) -> list[int]:
        """Ids of a text after a past; the BOS is before what comes first of all."""
        return [*([] if past.shape[-2] else [self.base.start]), *self.base.tokens(text)]

    def _check_room(self, tokens: int) -> None:
        if tokens > self.base.window:
            raise InputError(
                f"slots, texts and answer take {tokens:,} positions, {self.base.name} has {self.base.window:,}; "
                "use fewer slots, a shorter text or a smaller max_tokens"
            )

    def _decode(
        self, pasts: Sequence[Tensor], prompts: Sequence[Sequence[int]], limits: Sequence[int]
    ) -> Iterator[list[list[int]]]:
        """Greedy answers to prompts after pasts, in one batch; yields for each row its next token, or none.

        Columns of the cache: pasts, padded on the left; prompts, padded on the right; what was said. A mask hides the
        padding, and positions of a row count its own tokens only.
        """
        for past, prompt, limit in zip(pasts, prompts, limits, strict=True):
            if not prompt:
                raise InputError("the prompt has no tokens; pass one, such as 'Question: … Answer:'")
            self._check_room(past.shape[-2] + len(prompt) + limit)
        device, rows = self.base.device, range(len(prompts))
        lengths = torch.tensor([len(p) for p in prompts], device=device)
        ids, (kv, seen) = padded(prompts, device), _together(pasts)
        places = seen.sum(1, keepdim=True) + torch.arange(ids.shape[1], device=device)
        seen = torch.cat([seen, torch.arange(ids.shape[1], device=device) < lengths[:, None]], 1)
        cache, last, going = growing(kv), lengths - 1, [limit > 0 for limit in limits]
        for count in range(1, max(limits) + 1):
            if not any(going):
                return
            with torch.no_grad(), enough_memory(_LESS):
                given = {"attention_mask": seen.long(), "position_ids": places, "past_key_values": cache}
                states = self._body(input_ids=ids, use_cache=True, **given).last_hidden_state
                best = self._head(states[torch.arange(len(rows), device=device), last]).argmax(-1)
            tokens = best.tolist()
            going = [going[k] and tokens[k] not in self.base.ends for k in rows]
            yield [[tokens[k]] if going[k] else [] for k in rows]
            going = [going[k] and count < limits[k] for k in rows]
            places = places.gather(1, last[:, None]) + 1
            ids, last = best[:, None], torch.zeros_like(last)
            seen = torch.cat([seen, torch.ones_like(ids, dtype=torch.bool)], 1)


def _together(pasts: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Pasts as one batch, with zeros on the left, and what is no padding: float[B, L, 2, h, P, d], bool[B, P]."""
    size = max(past.shape[-2] for past in pasts)
    rows = [torch.nn.functional.pad(past, (0, 0, size - past.shape[-2], 0)) for past in pasts]
    free = torch.tensor([size - past.shape[-2] for past in pasts], device=pasts[0].device)
    return torch.stack(rows), torch.arange(size, device=free.device) >= free[:, None]


def _learned(rows: Sequence[Sequence[int]], after: Sequence[int], device: torch.device) -> Tensor:
    """Which tokens, the first of a row aside, a loss is over: bool[B, T - 1]."""
    wrong = [k for k, (row, first) in enumerate(zip(rows, after, strict=True)) if not 1 <= first < len(row)]
    if wrong:
        k = wrong[0]
        raise InputError(f"after must be in [1, {len(rows[k]) - 1}] for row {k + 1}, got {after[k]}")
    index = torch.arange(1, max(map(len, rows)), device=device)
    first, end = (torch.tensor(x, device=device)[:, None] for x in (list(after), [len(row) for row in rows]))
    return (index >= first) & (index < end)
