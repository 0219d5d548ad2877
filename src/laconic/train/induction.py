"""A new Llama that can copy before it has read anything: one induction head, wired by hand.

An induction head looks for where the present token stood before and says what came after it (Olsson et al. 2022, arXiv
2209.11895). It takes two layers: a head of the first writes beside each token which one came before; a head of the
second looks for the places where that is the present token. Small models find this late or never (docs/log.md), and
what copies and recalls builds on it. Wired at the start it is there for training to use, sharpen, or drop.
"""

from __future__ import annotations

from typing import Any

_SHARED = 0.7  # length of the direction that all embeddings share, as a share of their own length
_BEFORE, _MATCH, _COPY = 16.0, 72.0, 6.0  # how sharply the heads look, and how loudly the second one says what it saw
_FAST = 5  # one in so many of a head's dimensions tells neighbours apart
_QUIET = 0.02  # all other heads and layers write so little at first, as a share of what they would


def wire(lm: Any) -> None:
    """Wire an induction head into the first two layers of a new LlamaForCausalLM; does nothing if it has only one."""
    import torch

    config = lm.config
    if config.num_hidden_layers < 2:
        return
    width, size = config.hidden_size, config.hidden_size // config.num_attention_heads
    group = config.num_attention_heads // config.num_key_value_heads  # heads that share a key: they are wired alike
    scale = width**-0.5
    with torch.no_grad():
        for layer in lm.model.layers:
            layer.self_attn.o_proj.weight.mul_(_QUIET)
            layer.mlp.down_proj.weight.mul_(_QUIET)
        embeddings = lm.get_input_embeddings().weight
        shared = torch.nn.functional.normalize(torch.randn(width), dim=0)
        embeddings.normal_(0, scale).add_(shared * _SHARED)
        seen, written, said = (torch.linalg.qr(torch.randn(width, size))[0].T for _ in range(3))  # float32[size, width]
        first, second = (layer.self_attn for layer in lm.model.layers[:2])

        query, key = _one_back(lm, size)
        share = (
            _SHARED**2 / (1 + _SHARED**2) * width
        )  # squared length of the shared direction in a normalised embedding
        strength = (_BEFORE * size**0.5 / share) ** 0.5
        _set(first.q_proj, strength * torch.outer(query, shared).repeat(group, 1))
        _set(first.k_proj, strength * torch.outer(key, shared))
        _set(first.v_proj, seen)
        _write(first.o_proj, written.T.repeat(1, group) * scale / group)

        strength = (_MATCH / size**0.5) ** 0.5
        slow = (torch.arange(size) % (size // 2) >= size // 4).float()[:, None] * strength  # blind to distance
        _set(second.q_proj, (slow * seen).repeat(group, 1))
        _set(second.k_proj, slow * written)
        _set(second.v_proj, said)
        _write(second.o_proj, said.T.repeat(1, group) * scale * _COPY / group)


def _one_back(lm: Any, size: int) -> tuple[Any, Any]:
    """A query and a key, float32[size] each, that fit best where the key is one position before the query."""
    import torch

    turn = lm.model.rotary_emb.inv_freq[: max(1, size // _FAST)].float()
    query, key = torch.zeros(size), torch.zeros(size)
    query[: len(turn)] = 1
    key[: len(turn)] = turn.cos()
    key[size // 2 : size // 2 + len(turn)] = turn.sin()
    return query, key


def _set(projection: Any, rows: Any) -> None:
    """The first rows: those of the first heads."""
    projection.weight[: len(rows)] = rows


def _write(projection: Any, columns: Any) -> None:
    """The first columns: what the first heads write."""
    projection.weight[:, : columns.shape[1]] = columns
