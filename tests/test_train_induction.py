"""A wired model copies what it has never seen, before any training."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from laconic.train.induction import wire  # noqa: E402

VOCABULARY = 2000


def llama(layers=3, heads=4, width=128):
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads // 2,
        tie_word_embeddings=True,
        initializer_range=width**-0.5,
    )
    return transformers.LlamaForCausalLM(config).eval()


def nats(lm, ids):
    with torch.no_grad():
        scores = lm(ids).logits[:, :-1].transpose(1, 2)
    return torch.nn.functional.cross_entropy(scores, ids[:, 1:], reduction="none")


@pytest.mark.parametrize(("heads", "width"), [(4, 128), (6, 192), (2, 64)])
def test_random_tokens_are_foretold_where_they_come_again_and_nowhere_else(heads, width):
    lm = llama(heads=heads, width=width)
    passage = torch.randint(VOCABULARY, (16, 40))
    twice = torch.cat([passage, passage], 1)
    before = nats(lm, twice)[:, 40:].mean()
    wire(lm)
    found = nats(lm, twice)
    first, again = found[:, :39].mean(), found[:, 40:].mean()
    assert before > math.log(VOCABULARY) - 0.5
    assert again < first - 0.5
    other = torch.cat([passage, torch.randint(VOCABULARY, (16, 40))], 1)
    assert nats(lm, other)[:, 40:].mean() > first - 0.3


def test_one_layer_is_too_few_and_stays_as_it_is():
    lm = llama(layers=1)
    before = {name: p.clone() for name, p in lm.named_parameters()}
    wire(lm)
    assert all(torch.equal(before[name], p) for name, p in lm.named_parameters())
