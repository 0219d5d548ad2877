"""LLMLingua and LongLLMLingua over a decoder whose probabilities are known: what stays is worked out by hand."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import decoders
import laconic
from laconic.budget import counter
from laconic.errors import InputError
from laconic.score import Target
from laconic.scorers.llmlingua import LLMLingua, _Prefix, _Read, allocate, paragraphs, quantiles
from laconic.scorers.perplexity import RESTRICTION, QuestionPerplexity
from laconic.segment import words

WORDS = [f"w{chr(97 + k // 26)}{chr(97 + k % 26)}" for k in range(300)]

RARE = set(WORDS[::3])


def rare(word):
    """Every 3rd word is rare."""
    return word.strip() in RARE


def unigram(word, before):
    return 0.001 if rare(word) else 0.2


def compressor(text, chance=unigram, reads_question=False, extra=()):
    model = decoders.word_model(chance, [*words(text), *extra])
    return laconic.Compressor(LLMLingua(model, reads_question), counter("words"))


def kept(text, chance=unigram, **budget):
    return compressor(text, chance).compress(text, **budget).text.split()


def test_the_surprising_words_themselves_stay_also_at_the_end():
    """Not the words before them, and the last segment is compressed like the others."""
    text = " ".join(WORDS)
    found = kept(text, tokens=100)
    assert found == [w for w in WORDS if rare(w)]


def test_a_text_shorter_than_a_segment_is_compressed():
    text = " ".join(WORDS[:12])
    assert kept(text, rate=0.34) == [w for w in WORDS[:12] if rare(w)]


def test_what_was_dropped_is_not_read():
    """Every word has probability 1/100, but 1/2 after a word it follows in the alphabet if that was kept."""
    text = "aa bb cc dd"

    def chance(word, before):
        return {"aa": 0.01, "bb": 0.02, "cc": 0.3 if " bb" in before else 0.001, "dd": 0.25}[word.strip()]

    model = decoders.word_model(chance, list(words(text)))
    (found,) = LLMLingua(model, False, segment=2).score([words(text)], targets=[Target(0.5, np.zeros(4, bool))])
    # "bb" is less surprising than "aa" and goes; without it "cc" is a surprise
    assert (found.values >= 0).tolist() == [True, False, True, False]
    assert found.values == pytest.approx([0.25, -0.25, 0.25, -0.25])
    assert model.decoder.read == [([0], [1, 2]), ([0, 1], [3, 4])]  # after aa, which was kept, without bb


def test_without_the_coarse_stage_every_paragraph_keeps_its_share():
    """Of three paragraphs the rare words are in the first; with the coarse stage the last one goes as a whole."""
    common = [w for w in WORDS if not rare(w)]
    text = "\n\n".join([" ".join(sorted(RARE)[:20]), " ".join(common[:20]), " ".join(common[20:40])])
    model = decoders.word_model(unigram, list(words(text)))
    kept = {}
    for coarse in (True, False):
        target = Target(0.2, np.zeros(60, bool))
        (found,) = LLMLingua(model, False, segment=20, coarse=coarse).score([words(text)], targets=[target])
        kept[coarse] = [int((part >= 0).sum()) for part in np.split(found.values, 3)]
    assert kept[True] == [6, 6, 0] and kept[False] == [4, 4, 4]


def test_each_segment_keeps_its_share():
    """A thousand words in which the last 400 are far more surprising: each two hundred keep 80 of their own."""
    text = " ".join(f"v{k}" for k in range(1000))

    def chance(word, before):
        k = int(word.strip()[1:])
        return 1 / (2 + k if k < 600 else 10_000 + k)

    found = [int(w[1:]) for w in kept(text, chance, rate=0.4)]
    assert len(found) == 400
    assert np.bincount(np.array(found) // 200).tolist() == [80] * 5


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(5, 300), st.floats(0.05, 0.95))
def test_a_cut_off_at_zero_keeps_the_rate(seed, size, rate):
    """Before any counter has its say, whatever the probabilities, to within a word a segment."""
    chances = np.random.default_rng(seed).uniform(0.001, 0.5, 300)
    text = " ".join(WORDS[:size])
    model = decoders.word_model(lambda w, before: chances[WORDS.index(w.strip())], list(words(text)))
    (found,) = LLMLingua(model, False).score([words(text)], targets=[Target(rate, np.zeros(size, bool))])
    segments = -(-size // 100)
    assert abs((found.values >= 0).sum() - rate * size) <= 0.5 * segments + 1e-3


def test_units_that_stay_anyway_are_in_the_prefix_and_paid_for():
    text = " ".join(WORDS[:30])
    sure = np.array([not rare(w) and k < 10 for k, w in enumerate(WORDS[:30])])
    model = decoders.word_model(unigram, list(words(text)))
    (found,) = LLMLingua(model, False).score([words(text)], targets=[Target(0.5, sure)])
    stays = sure | (found.values >= 0)
    assert stays.sum() == 15 and stays[sure].all()
    assert all(rare(w) for w, stay, s in zip(WORDS, stays, sure, strict=False) if stay and not s)


def test_protected_text_and_the_question_at_the_end_reach_the_scorer():
    text = " ".join(WORDS[:40]) + "\n\nIs it waa wab?"
    seen = []

    class Spy(LLMLingua):
        def score(self, tilings, progress=None, questions=None, targets=None):
            seen.extend(targets)
            return super().score(tilings, progress, questions, targets)

    model = decoders.word_model(unigram, list(words(text)))
    c = laconic.Compressor(Spy(model, False), counter("words")).compress(text, rate=0.5, protect=["wab"])
    (target,) = seen
    assert target.rate == 0.5
    assert np.flatnonzero(target.sure).tolist() == [1, *range(40, 45)]
    assert c.met and "Is it waa wab?" in c.text and c.tokens_after == 22


def test_the_target_of_messages_leaves_out_what_is_fixed():
    """12 words, of which 4 are fixed: of the other 8 two may stay."""
    messages = [
        {"role": "system", "content": "waa wab wac wad"},
        {"role": "user", "content": " ".join(WORDS[4:9])},
        {"role": "assistant", "content": " ".join(WORDS[9:12])},
    ]
    k = compressor(" ".join(WORDS[:12]), extra=WORDS)
    seen = []
    score = k.scorer.score
    k.scorer.score = lambda *args, **kw: seen.extend(kw["targets"]) or score(*args, **kw)
    c = k.compress(messages, tokens=6, newest=True)
    assert [t.rate for t in seen] == [0.25, 0.25] and c.met
    k.compress(messages, tokens=2, newest=True)
    assert [t.rate for t in seen[2:]] == [0, 0]


def test_a_threshold_is_no_budget():
    with pytest.raises(InputError, match="llmlingua must know how much is to stay.*pass rate= or tokens="):
        compressor("waa wab").compress("waa wab", threshold=0.5)
    with pytest.raises(InputError, match="pass rate= or tokens="):
        compressor("waa wab").compress_many(["waa wab"], threshold=0.5)


def test_paragraphs_of_low_perplexity_go_as_a_whole():
    """Four paragraphs of 120 words; at a rate of a quarter, two of them hold twice the budget."""
    dull, lively = "wab wac " * 60, "waa wad wag waj wab " * 24
    text = "\n\n".join([dull.strip(), lively.strip(), dull.strip(), lively.strip()])
    k = compressor(text)
    part = k.compress(text, rate=0.25).parts[0]
    place = np.repeat(np.arange(4), 120)
    assert np.bincount(place[part.keep], minlength=4).tolist() == [0, 60, 0, 60]
    assert (part.scores[place % 2 == 0] <= -1).all() and (part.scores[place % 2 == 1] > -1).all()
    (_, first), (before, second) = k.scorer._model.decoder.read
    assert len(first) == len(second) == 120 and len(before) == 1 + 60  # after the start and what was kept


def test_half_of_the_text_needs_no_ranking():
    text = "wab wac\n\nwaa wad\n\nwab wac"
    k = compressor(text)
    k.scorer._model.decoder.nll = None  # would fail
    assert k.compress(text, rate=0.5).met


def test_half_of_the_text_needs_no_ranking_whatever_is_protected():
    text = "wab wac\n\nwaa wad\n\nwab wac wag"
    k = compressor(text)
    k.scorer._model.decoder.nll = None  # would fail
    c = k.compress(text, rate=0.5, protect=["wag"])
    assert c.met and "wag" in c.text


def test_allocation_by_hand():
    order, lengths = np.array([2, 0, 1]), np.array([50, 100, 100])
    # eq. 2 and algorithm 1: 60 of 250 tokens may stay; the best, 100, are not more than 120, so the next joins
    assert allocate(order, lengths, 60, 120).tolist() == pytest.approx([0.4, -1, 0.4])
    # with a spread of 0.3 over two: +0.3 and 0, and τ such that 100 (τ + 0.3) + 50 τ = 60
    assert allocate(order, lengths, 60, 120, spread=0.3).tolist() == pytest.approx([0.2, -1, 0.5])
    # a share ends at 1: 100 · 1 + 50 τ = 140
    assert allocate(order[:2], np.array([50, 0, 100]), 140, 280, spread=0.3).tolist() == pytest.approx([0.8, -1, 1])
    assert allocate(order, lengths, 0, 0).tolist() == [-1, -1, -1]
    assert allocate(order, lengths, 250, 500).tolist() == [1, 1, 1]
    assert allocate(order[:0], lengths[:0], 0, 0).tolist() == []


@given(st.lists(st.integers(0, 500), min_size=1, max_size=12), st.floats(0, 1), st.sampled_from([0.0, 0.3]))
def test_allocation_meets_the_budget(lengths, rate, spread):
    size, budget = np.array(lengths), rate * sum(lengths)
    shares = allocate(np.arange(len(size)), size, budget, 2 * budget, spread)
    assert ((shares == -1) | ((shares >= 0) & (shares <= 1))).all()
    assert np.maximum(shares, 0) @ size == pytest.approx(budget, abs=1e-6)
    assert (np.diff(shares[size > 0]) <= 1e-12).all()  # the better the more


def test_quantiles_by_hand():
    values = np.array([1, 5, np.nan, 5, 0], np.float32)
    assert quantiles(values, np.array([2, 1, 7, 1, 4])) == pytest.approx(
        [3 / 8, 0.5 / 8, np.nan, 1.5 / 8, 6 / 8], nan_ok=True
    )


def test_paragraphs_are_between_empty_lines():
    for text, sizes in [("", []), ("a", [1]), ("a b\n\nc\n \n\nd e\n", [2, 1, 3]), ("\n\na\n\n", [2]), ("\n\n", [1])]:
        tiling = words(text)
        assert np.diff(paragraphs(tiling)).tolist() == sizes, text


# --- with a question


def question_model(text, question):
    """A word is 10 times as likely after a text that holds it; RESTRICTION has only words that never help."""
    extra = [*words(question), *words(f"{question}{RESTRICTION}"), *words(f"x\n\n{question}"), "\n\n"]

    def chance(word, before):
        return 0.1 if word.strip() and word.strip() in {b.strip() for b in before} else 0.01

    return decoders.word_model(chance, [*words(text), *extra])


def test_documents_are_ranked_by_how_well_they_foretell_the_question():
    documents = ["red cats sleep", "who wrote that red book", "who sleeps"]
    question = "who wrote that"
    model = question_model(" ".join(documents), question)
    found = QuestionPerplexity(model).rank(documents, question)
    tail = len(list(words(question + RESTRICTION)))
    by_hand = []
    for document in documents:
        known = re.findall(r"\w+", document)
        cost = 0.0
        for word in re.findall(r"\w+|\.", question + RESTRICTION):
            cost -= np.log(0.1 if word in known else 0.01)
            known.append(word)
        by_hand.append(-cost / tail)
    assert found == pytest.approx(by_hand, rel=1e-5)
    assert np.argsort(-found).tolist() == [1, 2, 0]
    assert found.dtype == np.float32 and (found < 0).all()


def test_with_a_question_the_words_it_makes_likelier_stay():
    """Eq. 5: "mill" and "owner" are foreseen after the question only; all words are equally surprising without."""
    text = "some old mill had one good owner for long"
    k = laconic.Compressor(LLMLingua(question_model(text, "mill owner"), True), counter("words"))
    c = k.compress(text, tokens=2, question="mill owner")
    assert c.text == "mill owner" and c.method == "longllmlingua"
    assert k.compress(text, tokens=2).method == "llmlingua"  # without a question


def test_short_paragraphs_are_read_together_and_each_keeps_its_share():
    """The dropped one between them is not read."""
    short = "waa wab wac wad wae waf wag wah wai waj"
    text = "\n\n".join([short, "old mill", short])
    model = decoders.word_model(unigram, words(text))
    read = _Read.of(words(text), model)
    share = np.repeat([0.7, -1.0, 0.3], np.diff(paragraphs(read.tiling)))
    (found,) = read.segments(share, 100)
    assert len(found.ids) == 20 and len(found.tiling) == len(read.tiling)
    values = found.compress(_Prefix(model.decoder, None), np.zeros(len(share), bool))
    kept = [np.nansum(values[share == s] >= 0) for s in (0.7, -1.0, 0.3)]
    assert kept == [7, 0, 3] and np.isnan(values[share == -1]).all()
    assert [(len(before), len(ids)) for before, ids in model.decoder.read] == [(1, 20)]
    lengths = [len(s.ids) for s in read.segments(share, 6)]
    assert lengths == [5, 5, 5, 5]


def test_better_documents_keep_more():
    documents = ["red cats sleep all day long", "who wrote that red book then", "here who never sleeps did stay"]
    text = "\n\n".join(documents)
    model = question_model(text, "who wrote that")
    (found,) = LLMLingua(model, True).score(
        [words(text)], questions=["who wrote that"], targets=[Target(0.5, np.zeros(18, bool))]
    )
    # 9 of 18 words; two hold 1.25 times as many, with shares of 1 and 0.5 (no more than 0.6 apart)
    assert (found.values.reshape(3, 6) >= 0).sum(1).tolist() == [0, 6, 3]


def test_llmlingua_reads_no_question():
    with pytest.raises(InputError, match="does not read questions"):
        compressor("waa wab").compress("waa wab", rate=0.5, question="wab?")
