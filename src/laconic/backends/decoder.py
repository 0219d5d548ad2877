"""Causal language models in PyTorch: any Hugging Face checkpoint of a plain decoder, on the CPU or a GPU."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from laconic.backends import Ids, Nats, first_line
from laconic.errors import MissingExtraError, ModelError
from laconic.text import Bools

_WINDOW = 4096  # tokens at most: more context hardly changes surprisal, and attention costs its square
_TOGETHER = 4096  # tokens of one forward pass, padding included (a single row may have more)
_PADDING = 0.1  # share of them that may be padding
_SLICE = 256  # positions whose logits exist at a time: float32[256, vocabulary]
_COLUMNS = 512  # positions read at a time, so that attention weights stay small
_TURNED = 0.02  # of the largest key: how far those that were moved may be off
_TOLERANCE = {2: 0.2, 4: 1e-3}  # nats between our way and the model's own, by bytes of a weight


class TorchDecoder:
    """A checkpoint folder as a `Decoder`. Weights of 16 bits stay so on a GPU, and in bfloat16 on a CPU that has it.

    Hidden states come from the model's body; the head is applied to slices of positions, so that logits of a whole text
    never exist. On loading, that way is compared with the model's own logits: a model that changes its logits after the
    head in a way unknown here, that reads ahead, or whose cache cannot be cut back is refused.
    """

    def __init__(self, folder: str | os.PathLike[str], device: str | None = None) -> None:
        """`device`: "cpu", "cuda" or "mps"; by default a GPU if there is one."""
        try:
            import torch
            import transformers  # noqa: F401
        except ImportError as error:
            raise MissingExtraError("A causal language model", "torch") from error
        self._torch = torch
        self.path = Path(folder)
        self._device = device or best_device(torch)
        model = read_checkpoint(self.path)
        self._model = (_for_cpu(torch, model) if self._device == "cpu" else model).to(self._device)
        self._head = model.get_output_embeddings()
        config = model.config.get_text_config()
        self._cap: float | None = getattr(config, "final_logit_softcapping", None)  # Gemma 2
        self.start = start_token(self.path, config, self._head.weight.shape[0])
        self.window = min(_WINDOW, getattr(config, "max_position_embeddings", None) or _WINDOW)
        self._try_out()

    def nll(self, ids: Ids, mask: Ids, last: int | None = None) -> Nats:
        """float32[B, T], nats; NaN for the first token of a row, at padding, and before the `last` of a row."""
        found: Nats = np.full(ids.shape, np.nan, np.float32)
        lengths = mask.sum(1).tolist()
        pieces = [
            (row, first, max(new, n - (last or n)), end)
            for row, n in enumerate(lengths)
            for first, new, end in _windows(n, self.window)
            if end > n - (last or n)
        ]
        for batch in _batches(sorted(pieces, key=lambda p: p[3] - p[1])):
            rows = [np.append(ids[row, :1], ids[row, first:end]) for row, first, _, end in batch]
            values = iter(self._surprisal_of_rows(rows, [end - new for _, _, new, end in batch]))
            for row, _, new, end in batch:
                found[row, new:end] = next(values)
        return found

    def greedy(self, rows: Sequence[Ids], most: int) -> list[Ids]:
        """The most probable next tokens after each row, one by one, until the end token or `most`: int64[n] each.

        Rows of at most `window - most` tokens. The checkpoint's own settings of generation (sampling, penalties) are
        not used.
        """
        found: list[Ids] = [np.zeros(0, np.int64)] * len(rows)
        pieces = sorted(((k, 0, 0, len(row) + most) for k, row in enumerate(rows)), key=lambda p: p[3])
        for batch in _batches(pieces):
            places = [piece[0] for piece in batch]
            for k, ids in zip(places, self._continued([rows[k] for k in places], most), strict=True):
                found[k] = ids
        return found

    def _continued(self, rows: Sequence[Ids], most: int) -> list[Ids]:
        """`greedy` in one batch, padded on the left."""
        from transformers import GenerationConfig

        width, ends = max(map(len, rows)), self._ends()
        ids, mask = np.full((len(rows), width), self.start), np.zeros((len(rows), width), np.int64)
        for k, row in enumerate(rows):
            ids[k, width - len(row) :], mask[k, width - len(row) :] = row, 1
        config: Any = GenerationConfig  # untyped
        config = config(max_new_tokens=most, do_sample=False, pad_token_id=self.start, eos_token_id=ends)
        given = [self._torch.from_numpy(x).to(self._device) for x in (ids, mask)]
        with self._torch.inference_mode():
            out = self._model.generate(given[0], attention_mask=given[1], generation_config=config)
        new = out[:, width:].cpu().numpy()
        ended = np.isin(new, ends)
        lengths = np.where(ended.any(1), ended.argmax(1), new.shape[1]).tolist()
        return [row[:n] for row, n in zip(new, lengths, strict=True)]

    def _ends(self) -> list[int]:
        """The tokens that end a text; where none is named, the one that begins the next."""
        places = (self._model.generation_config, self._model.config.get_text_config())
        named = [i for i in (getattr(place, "eos_token_id", None) for place in places) if i is not None]
        first = named[0] if named else self.start
        return first if isinstance(first, list) else [int(first)]

    def session(self, heads: Sequence[Ids]) -> TorchSession:
        """A text, read part by part after each of these heads of 1 to `window - 2` tokens."""
        assert all(1 <= len(head) <= self.window - 2 for head in heads), "a head leaves no room"
        return TorchSession(self, heads)

    def _surprisal_of_rows(self, rows: Sequence[Ids], fresh: Sequence[int]) -> Iterator[Nats]:
        """The surprisal of the last `fresh` tokens of each row, in one forward pass.

        Rows are padded on the right without a mask: a causal model does not read what follows.
        """
        tokens = np.zeros((len(rows), max(map(len, rows))), np.int64)
        wanted = np.zeros(tokens.shape, bool)
        for k, (row, count) in enumerate(zip(rows, fresh, strict=True)):
            tokens[k, : len(row)] = row
            wanted[k, len(row) - count : len(row)] = True
        states = self._states(tokens[:, :-1])
        picked = states[self._torch.from_numpy(wanted[:, 1:]).to(self._device)]
        values = self._surprisal(picked, tokens[wanted])
        return iter(np.split(values, np.cumsum(fresh)[:-1]))

    def _states(self, tokens: Ids, cache: Any = None, padding: Ids | None = None) -> Any:
        """Last hidden states, float[B, T, H] on the device; `cache` gets the keys and values of the tokens.

        padding: int64[B, 1], how many of the first tokens of each row are none.
        """
        from transformers import DynamicCache

        if cache is None and tokens.shape[1] > _COLUMNS:
            cache = DynamicCache()
        found = []
        with self._torch.inference_mode():
            for k in range(0, tokens.shape[1], _COLUMNS):
                part = tokens[:, k : k + _COLUMNS]
                given = {"input_ids": part}
                if padding is not None:
                    places = np.arange(cache.get_seq_length() + part.shape[1]) - padding
                    given["attention_mask"] = (places >= 0).astype(np.int64)
                    given["position_ids"] = np.maximum(places, 0)[:, -part.shape[1] :]
                on_device = {name: self._torch.from_numpy(x).to(self._device) for name, x in given.items()}
                out = self._model.base_model(**on_device, past_key_values=cache, use_cache=cache is not None)
                found.append(out.last_hidden_state)
        return self._torch.cat(found, 1)

    def _surprisal(self, states: Any, targets: Ids) -> Nats:
        """Of each target given the state before it: float[N, H], int64[N] to float32[N]."""
        wanted = self._torch.from_numpy(targets).to(self._device)
        parts = [np.zeros(0, np.float32)]
        with self._torch.inference_mode():
            for k in range(0, len(targets), _SLICE):
                logits = self._head(states[k : k + _SLICE])
                if self._cap:
                    logits = self._cap * self._torch.tanh(logits.float() / self._cap)
                chances = logits.log_softmax(-1, dtype=self._torch.float32)
                parts.append(-chances.gather(1, wanted[k : k + _SLICE, None])[:, 0].cpu().numpy())
        return np.concatenate(parts)

    def _select(self, cache: Any, places: Ids, same: int) -> None:
        """Only what is at these places stays in the cache, moved to places that follow each other.

        same: how many of the first places are so already.
        """
        moves = np.arange(len(places)) - places
        stay, by = (self._torch.from_numpy(x[same:]).to(self._device) for x in (places, moves))
        for layer in cache.layers:
            moved = self._moved(layer.keys[:, :, stay], by)
            layer.keys = self._torch.cat([layer.keys[:, :, :same], moved], 2)
            layer.values = self._torch.cat([layer.values[:, :, :same], layer.values[:, :, stay]], 2)

    def _moved(self, keys: Any, moves: Any) -> Any:
        """Keys, float[B, heads, n, D], as if their tokens stood so many places further on: RoPE rotates them."""
        with self._torch.inference_mode():
            cos, sin = self._model.base_model.rotary_emb(keys.float(), moves[None])
            turned, rest = keys[..., : cos.shape[-1]], keys[..., cos.shape[-1] :]
            left, right = turned.chunk(2, -1)
            turned = turned * cos[:, None] + self._torch.cat([-right, left], -1) * sin[:, None]
            return self._torch.cat([turned.to(keys.dtype), rest], -1)

    def _can_move(self) -> bool:
        """Does a token that is read at place 5, alone, get the keys of place 0 in all layers when it is moved there?"""
        from transformers import DynamicCache

        caches: list[Any] = [DynamicCache(), DynamicCache()]
        for place, cache in zip((0, 5), caches, strict=True):
            self._states(np.array([[self.start]]), cache, np.array([[-place]]))
        back, gaps = self._torch.tensor([-5], device=self._device), []
        try:
            for here, there in zip(caches[0].layers, caches[1].layers, strict=True):
                gap = (self._moved(there.keys, back) - here.keys).abs().max()
                gaps.append(float(gap / here.keys.abs().max()))
        except Exception:  # no RoPE, another kind of it, or an older transformers
            return False
        return max(gaps) < _TURNED

    def _try_out(self) -> None:
        """Five tokens after two heads, in pieces of which one is read twice, against the model's own logits."""
        torch, tokens = self._torch, np.random.default_rng(0).integers(0, self._head.weight.shape[0], 9)
        heads, body = [tokens[:1], tokens[:4]], tokens[4:]
        try:
            expected = []
            for head in heads:
                row = torch.from_numpy(np.append(head, body)[None]).to(self._device)
                with torch.inference_mode():
                    chances = self._model(input_ids=row).logits[0, -1 - len(body) : -1].float().log_softmax(-1)
                expected.append(-chances.cpu().numpy()[np.arange(len(body)), body])
            if self._device == "cpu" and self._head.weight.element_size() == 2:
                _plain_attention(self._model)
            self._moves = self._can_move()
            session = self.session(heads)
            first, wrong = session.read(body[:2]), session.read(body[1:4])
            session.keep(np.arange(5) < 1)
            found = np.concatenate([first[:, :1], session.read(body[1:])], 1)
        except Exception as error:  # a foreign model fails in its own way
            raise ModelError(f"{self.path} does not run as a decoder ({first_line(error)}); {_ADVICE}") from error
        gap = np.abs(found - expected).max()
        if not (gap < _TOLERANCE[self._head.weight.element_size()] and np.isfinite(wrong).all()):
            raise ModelError(
                f"{self.path} gives other probabilities read piece by piece ({gap:.2g} nats): its logits are changed "
                f"after the head, it reads ahead, or its cache cannot be cut back; {_ADVICE}"
            )


class TorchSession:
    """Keys and values of the heads and of what was kept, all but the last token: that is fed with what comes next.

    A shorter head is padded on the left. Where keys can be moved, those of kept tokens close up; else kept tokens are
    read again.
    """

    def __init__(self, owner: TorchDecoder, heads: Sequence[Ids]) -> None:
        from transformers import DynamicCache

        self._owner = owner
        self._size = max(map(len, heads))
        self._padding = np.array([[self._size - len(head)] for head in heads])
        self._rows = np.stack([np.append(np.full(self._size - len(head), owner.start), head) for head in heads])
        self._cache: Any = DynamicCache()  # without a config: sliding layers keep all, and can be cut back

    @property
    def length(self) -> int:
        """Tokens after the heads."""
        return int(self._rows.shape[1]) - self._size

    def read(self, ids: Ids) -> Nats:
        """The surprisal of these tokens, int64[n] to float32[B, n], after the heads and all that was kept."""
        found = [np.zeros((len(self._rows), 0), np.float32)]
        room = self._owner.window - self._size
        while len(ids):
            if self.length == room:
                self.keep(np.arange(room) >= room - room // 2)
            part, ids = np.split(ids, [room - self.length])
            self._rows = np.concatenate([self._rows, np.tile(part, (len(self._rows), 1))], 1)
            found.append(self._surprisal(len(part)))
        return np.concatenate(found, 1)

    def keep(self, which: Bools) -> None:
        """Of the last tokens, bool[n], only these stay; those that a full window forgot are gone already."""
        which = which[max(0, len(which) - self.length) :]
        before = self._rows.shape[1] - len(which)
        places = np.append(np.arange(before), before + np.flatnonzero(which))
        if len(places) == self._rows.shape[1]:
            return
        self._rows = self._rows[:, places]
        read = places[:-1]
        same = int((read == np.arange(len(read))).sum())
        if self._owner._moves:
            self._owner._select(self._cache, read, same)
        elif (surplus := self._cache.get_seq_length() - same) > 0:
            self._cache.crop(-surplus)  # negative: how many to remove, in every version

    def _surprisal(self, new: int) -> Nats:
        """Of the last `new` tokens, after all that the cache lacks is read."""
        rows = self._rows[:, self._cache.get_seq_length() : -1]
        states = self._owner._states(rows, self._cache, self._padding if self._padding.any() else None)
        values = self._owner._surprisal(states[:, -new:].flatten(0, 1), self._rows[:, -new:].ravel())
        return values.reshape(len(self._rows), new)


_ADVICE = "use a plain decoder such as those of Llama, Mistral, Qwen2, Phi or GPT-2"


def _window_of(position: int, room: int) -> int:
    """Where the window begins in which the token at this position is predicted; a window holds `room` tokens."""
    step = room - room // 2
    return 0 if position < room else ((position - room) // step + 1) * step


def _windows(length: int, window: int) -> Iterator[tuple[int, int, int]]:
    """(first, first new, end) of each window over a row of `length` tokens, whose first token is the head of all."""
    room, new = window - 1, 1
    while new < length:
        first = 1 + _window_of(new - 1, room)
        end = min(first + room, length)
        yield first, new, end
        new = end


def _batches(pieces: Sequence[tuple[int, ...]]) -> Iterator[list[tuple[int, ...]]]:
    """Pieces (row, first, new, end), the shortest first, in batches of `_TOGETHER` tokens at most, little padding."""
    batch: list[tuple[int, ...]] = []
    used = 0
    for piece in pieces:
        size = 1 + piece[3] - piece[1]
        whole = (len(batch) + 1) * size
        if batch and (whole > _TOGETHER or used + size < (1 - _PADDING) * whole):
            yield batch
            batch, used = [], 0
        batch.append(piece)
        used += size
    if batch:
        yield batch


def best_device(torch: Any) -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _for_cpu(torch: Any, model: Any) -> Any:
    return model.bfloat16() if model.dtype.itemsize == 2 and computes_in_bfloat16(torch) else model.float()


def _plain_attention(model: Any) -> None:
    """In bfloat16 on a CPU `_attention` takes half the time of the plain form in transformers, or torch's fused one."""
    try:
        from transformers import AttentionInterface, AttentionMaskInterface
        from transformers.masking_utils import eager_mask
    except ImportError:  # an older transformers
        return
    AttentionInterface.register("laconic", _attention)
    AttentionMaskInterface.register("laconic", eager_mask)
    model.set_attn_implementation("laconic")


def _attention(
    module: Any,
    query: Any,
    key: Any,
    value: Any,
    mask: Any,
    scaling: float | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[Any, None]:
    """As `eager_attention_forward` of transformers' models: no copies of shared keys, and no weights in float32."""
    rows, heads, new, size = query.shape
    shared = key.shape[1]
    grouped = (query * (scaling or size**-0.5)).reshape(rows, shared, -1, size)
    weights = (grouped @ key.transpose(2, 3)).view(rows, heads, new, -1)
    if softcap:  # Gemma 2
        weights = softcap * (weights / softcap).tanh()
    if mask is not None:
        weights += mask
    weights = weights.softmax(-1).view(rows, shared, grouped.shape[2], -1)
    return (weights @ value).view(rows, heads, new, -1).transpose(1, 2).contiguous(), None


def computes_in_bfloat16(torch: Any) -> bool:
    """Does this CPU have instructions for it? Without them it is slower than float32. (Older torch does not say.)"""
    known: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(known.get("avx512_bf16") or known.get("amx_bf16"))


def start_token(folder: Path, config: Any, vocabulary: int) -> int:
    """BOS; for a model without one EOS, which separates texts in training."""
    found = [i for i in (config.bos_token_id, config.eos_token_id) if i is not None]
    token = found[0] if found else -1
    token = token[0] if isinstance(token, list) else token
    if not 0 <= token < vocabulary:
        raise ModelError(
            f"{folder} says in config.json neither a bos_token_id nor an eos_token_id below {vocabulary:,}; set the id "
            "of the token that its training put before a text"
        )
    return int(token)


def read_checkpoint(folder: Path) -> Any:
    """The module in the precision of the checkpoint; every weight must come from there."""
    from transformers import AutoModelForCausalLM

    from laconic.export import check_weights, quiet

    check_weights(folder)
    loader: Any = AutoModelForCausalLM  # its types know nothing of `output_loading_info`
    try:
        with quiet():
            model, info = loader.from_pretrained(
                folder,
                torch_dtype="auto",  # `dtype` only since 4.56
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
    except Exception as error:  # a bad folder provokes errors of five libraries
        raise ModelError(f"{folder} cannot be read as a checkpoint ({first_line(error)}); fetch it again") from error
    if lost := sorted(info["missing_keys"]):
        raise ModelError(f"{folder} lacks weights ({', '.join(lost[:3])}): it is not a trained language model")
    return model.eval()
