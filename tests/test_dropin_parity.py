"""The drop-in beside llmlingua 0.2.2 on the same weights, tokenizers and texts, wherever its code still runs.

What fails there (its loop over windows, with transformers 5) or depends on its NLTK data is left out.
"""

from __future__ import annotations

import random
import warnings
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    torch = pytest.importorskip("torch")
    package = pytest.importorskip("llmlingua", reason="the reference package")

import decoders
import families
import tiny
from laconic.budget import Counter as TokenCounter
from laconic.integrations.llmlingua import PromptCompressor
from laconic.integrations.llmlingua.perplexity import Perplexity, named_ranker, plain
from laconic.integrations.llmlingua.settings import PerplexitySettings
from laconic.integrations.llmlingua.structured import parsed
from laconic.legacy.recover import recover

VOCABULARY = sorted({word for text in families.TEXTS for word in text.split()})


def bare():
    """The package's object without its constructor, which fetches a vocabulary."""
    made = object.__new__(package.PromptCompressor)
    made.context_idxs = []
    return made


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """(ours, theirs) over one tiny Llama."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = decoders.build(tmp_path_factory.mktemp("llama"), "llama", max_position_embeddings=512)
    theirs = bare()
    theirs.tokenizer = AutoTokenizer.from_pretrained(folder)
    theirs.model = AutoModelForCausalLM.from_pretrained(folder).eval()
    theirs.device, theirs.max_position_embeddings = "cpu", 512
    return PromptCompressor(str(folder), "cpu", counter="words"), theirs


def drawn(rng, most=40):
    return " ".join(rng.choice(VOCABULARY) for _ in range(rng.randrange(2, most)))


def test_perplexities(both):
    ours, theirs = both
    rng = random.Random(0)
    for _ in range(150):
        text = drawn(rng)
        assert ours.get_token_length(text) == theirs.get_token_length(text)
        assert ours.get_token_length(text, False) == theirs.get_token_length(text, False)
        expected = theirs.get_ppl(text, "token").numpy()
        assert ours.get_ppl(text, "token") == pytest.approx(expected, abs=2e-5)
        place = rng.randrange(1, len(expected) + 1)
        for mode in ("before", "after")[: 1 + (place < len(expected))]:
            condition = {"condition_mode": mode, "condition_pos_id": place}
            assert ours.get_ppl(text, **condition) == pytest.approx(theirs.get_ppl(text, **condition).item(), abs=2e-5)


@pytest.mark.parametrize("condition", ["none", "before", "after"])
def test_ranks_by_perplexity(both, condition):
    """`get_rank_results`, worked out from our `get_ppl` and `get_token_length`."""
    ours, theirs = both
    rng, close = random.Random(1), 0
    for _ in range(60):
        documents, question = [drawn(rng, 15) for _ in range(5)], drawn(rng, 8)
        asked = f"{question} We can get the answer to this question in the given documents."

        def value(document, asked=asked):
            if condition == "none":
                return -ours.get_ppl(document)
            first, second = (asked, document) if condition == "before" else (document, asked)
            place = ours.get_token_length(first) - 1
            return ours.get_ppl(first + second, condition_mode="after", condition_pos_id=place)

        values = [value(d) for d in documents]
        if np.diff(sorted(values)).min() < 1e-4:
            close += 1
            continue
        method = "llmlingua" if condition == "none" else "longllmlingua"
        ranked = [k for k, _ in theirs.get_rank_results(documents, question, method, condition, [0] * 5)]
        assert ranked == np.argsort(values).tolist()
    assert close < 6


class Told:
    """A ranker that was told the order."""

    def __init__(self, order):
        self.order = order

    def rank(self, documents, question):
        relevance = np.zeros(len(documents), np.float32)
        relevance[self.order] = np.arange(len(documents), 0, -1)
        return relevance


@settings(max_examples=500, deadline=None)
@given(
    st.lists(st.integers(0, 450), min_size=2, max_size=8),
    st.integers(0, 1500),
    st.sampled_from(["+100", "+0", "*1.5", "-20", "/2"]),
    st.sampled_from(["original", "sort", "two_stage"]),
    st.data(),
)
def test_contexts_and_their_order(lengths, target, budget, reorder, data):
    """`control_context_budget`. Its order has those that are forced in front, so here they are only for "original"."""
    order = data.draw(st.permutations(range(len(lengths))))
    forced = data.draw(st.lists(st.sampled_from(order), unique=True)) if reorder == "original" else []
    theirs, texts = bare(), [str(n) for n in lengths]
    theirs.get_rank_results = lambda *_: [(k, 0.0) for k in order]
    options = {"context_budget": budget, "reorder_context": reorder}
    _, _, used = theirs.control_context_budget(texts, lengths, target, list(forced), **options)
    given = PerplexitySettings(
        question="0", target_token=target, rank_method=Told(order), force_context_ids=forced, **options
    )
    counter = TokenCounter("numbers", lambda text: sum(map(int, text.split())))
    assert Perplexity(None, counter, plain(texts), given).order() == used


def test_segments():
    """`segment_structured_context`, for what its regular expression reads: no `<` inside, nothing outside of tags."""
    rng = random.Random(2)
    for _ in range(300):
        context, rate = "", rng.choice([0.3, 0.5, 1.0])
        for _ in range(rng.randrange(1, 6)):
            options = rng.sample(
                [rng.choice(["", f", rate={rng.choice([0.1, 0.45, 1])}"]), rng.choice(["", ", compress=False"])], 2
            )
            context += f"<llmlingua{''.join(options)}>{drawn(rng, 5)}\n</llmlingua>"
        _, texts, rates, compress = bare().segment_structured_context([context], rate)
        found = parsed(context, rate)
        assert [s.text for s in found] == texts[0]
        assert [s.compress for s in found] == compress[0]
        assert [s.share for s in found] == [r if c else 1 for r, c in zip(rates[0], compress[0], strict=True)]


@pytest.mark.parametrize("family", ["bytelevel", "wordpiece", "unigram"])
def test_recovered_answers(family, tmp_path):
    """`recover` with `legacy=True`, byte for byte; 300 prompts, about half kept, and answers that quote them."""
    from transformers import PreTrainedTokenizerFast

    texts = [" ".join(VOCABULARY), *families.TEXTS]
    tokenizer = families.bytelevel(texts) if family == "bytelevel" else getattr(tiny, family)(texts, 400)
    theirs = bare()
    theirs.tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    rng, cases = random.Random(3), Counter()
    for _ in range(300):
        words = [rng.choice(VOCABULARY) for _ in range(60)]
        kept = [word for word in words if rng.random() < 0.55]
        said = []
        for _ in range(3):
            start = rng.randrange(len(kept))
            said += ["perhaps", *kept[start : start + rng.randrange(1, 6)], rng.choice(["", "no"])]
        original, compressed, answer = (" ".join(part) for part in (words, kept, said))
        found = recover(tokenizer, original, compressed, answer)
        try:
            expected = theirs.recover(original, compressed, answer)
        except IndexError:  # an empty word is in every text, and has no first token
            cases["excluded"] += 1
            continue
        assert found == expected
        cases["changed" if found != answer else "unchanged"] += 1
    print(dict(cases))
    assert cases["changed"] > 50


def okapi(documents, word):
    """Of the package's `rank_method="bm25"`: BM25Okapi of `rank_bm25` for one word that few documents have."""
    counts = np.array([document.count(word) for document in documents])
    lengths = np.array([len(document) for document in documents])
    holding = (counts > 0).sum()
    weight = np.log(len(documents) - holding + 0.5) - np.log(holding + 0.5)
    return weight * counts * 2.5 / (counts + 1.5 * (0.25 + 0.75 * lengths / lengths.mean()))


def test_bm25_orders_documents_for_one_word_like_the_package():
    """For several words the weights differ on purpose; for one, k1 changes the scores and not the order."""
    rng, words = random.Random(4), [f"word{chr(97 + k)}x" for k in range(26)]
    for _ in range(300):
        documents = [[rng.choice(words) for _ in range(rng.randrange(3, 40))] for _ in range(8)]
        holding = {w: sum(w in d for d in documents) for w in words}
        word = rng.choice([w for w in words if 0 < holding[w] < 4] or words[:1])
        if not 0 < holding[word] < 4:
            continue
        expected, found = okapi(documents, word), named_ranker("bm25").rank([" ".join(d) for d in documents], word)
        for one in range(8):
            for other in range(8):
                if expected[one] > expected[other] + 1e-6:
                    assert found[one] > found[other]
