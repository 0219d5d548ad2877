"""The drop-in with `use_llmlingua2=False`, over a decoder of known probabilities: what stays is worked out by hand."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import decoders
from laconic.errors import InputError
from laconic.integrations.llmlingua import PromptCompressor
from laconic.segment import words

KEYS = ["compressed_prompt", "origin_tokens", "compressed_tokens", "ratio", "rate", "saving"]
WORDS = [f"w{chr(97 + k // 26)}{chr(97 + k % 26)}" for k in range(300)]
RARE = set(WORDS[::3])
TEN = [" ".join(WORDS[k : k + 10]) for k in range(0, 50, 10)]  # five contexts of ten words


def unigram(word, before):
    return 0.001 if word.strip() in RARE else 0.2


def made(texts=(), chance=unigram, **options):
    """Over a model that knows the words of these texts and of `TEN`; tokens are counted by blanks."""
    compressor = PromptCompressor("fake", counter="words", **options)
    known = [*texts, *TEN, *WORDS, *(f" {w}" for w in WORDS), " ".join(WORDS)]
    compressor.__dict__["_model"] = decoders.word_model(chance, [unit for text in known for unit in words(text)])
    return compressor


class Fixed:
    """A ranker that was told the answer."""

    def __init__(self, *relevance):
        self.relevance = relevance

    def rank(self, documents, question):
        return np.array(self.relevance[: len(documents)], np.float32)


def contexts_of(result):
    """Which of `TEN` are in the prompt, in its order."""
    parts = result["compressed_prompt"].split("\n\n")
    return [TEN.index(part) for part in parts if part in TEN]


# The result


def test_keys_are_those_of_the_package():
    result = made().compress_prompt(TEN, "Read.", "Which?", rate=0.5)
    assert list(result) == KEYS
    assert result["origin_tokens"] == 52 and result["compressed_tokens"] == 26
    assert (result["ratio"], result["rate"]) == ("2.0x", "50.0%")
    assert result["saving"] == ", Saving $0.0 in GPT-4."


def test_the_prompt_is_instruction_contexts_question():
    instruction, question = "  Do as told. ", "What is it?\n"
    result = made().compress_prompt(TEN[0], instruction, question, rate=0.9)
    prompt = result["compressed_prompt"]
    assert prompt.startswith(instruction + "\n\n") and prompt.endswith("\n\n" + question)
    without = made().compress_prompt(TEN[0], instruction, question, rate=0.9, concate_question=False)
    assert question.strip() not in without["compressed_prompt"]
    assert without["origin_tokens"] == result["origin_tokens"] == 3 + 10 + 3


def test_the_surprising_words_stay():
    text = " ".join(WORDS)
    kept = made().compress_prompt(text, target_token=100)["compressed_prompt"].split()
    assert kept == [w for w in WORDS if w in RARE]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=40), min_size=1, max_size=6),
    st.floats(0.1, 1),
    st.integers(0, 6),
    st.booleans(),
)
def test_a_rate_bounds_the_whole_prompt_and_a_target_the_contexts(rows, rate, size, concate):
    contexts, frame = [" ".join(row) for row in rows], " ".join(WORDS[:size])
    compressor = made()
    result = compressor.compress_prompt(contexts, frame, frame, rate=rate, concate_question=concate)
    own = size * (1 + concate)
    assert result["origin_tokens"] == 2 * size + sum(map(len, rows))
    assert result["compressed_tokens"] == len(result["compressed_prompt"].split())
    assert result["compressed_tokens"] <= max(rate * result["origin_tokens"], own + 1) + 1e-9
    for target in (1, 7, 1000):
        found = compressor.compress_prompt(contexts, frame, frame, target_token=target, concate_question=concate)
        assert found["compressed_tokens"] - own <= target
        body = " ".join(contexts)
        kept = found["compressed_prompt"][len(frame) :].split()[: found["compressed_tokens"] - own]
        remaining = iter(body.split())
        assert all(word in remaining for word in kept)  # a subsequence of what came in


def test_arguments_are_not_changed_and_strings_not_executed():
    contexts, ids = list(TEN), [1]
    made().compress_prompt(contexts, force_context_ids=ids, target_token=5, context_budget="+1")
    assert contexts == TEN and ids == [1]
    with pytest.raises(InputError, match="a sign and a number"):
        made().compress_prompt(TEN, context_budget="+__import__('os').getpid()")


# Contexts


def chosen(compressor=None, **options):
    """The contexts that stay, by a ranking that says 2, 0, 4, 1, 3; five of ten words each."""
    given = {
        "question": "Which?",
        "rank_method": Fixed(4, 2, 5, 1, 3),
        "use_token_level_filter": False,
        "concate_question": False,
        **options,
    }
    return contexts_of((compressor or made()).compress_prompt(TEN, **given))


@pytest.mark.parametrize(
    ("target", "budget", "expected"),
    [
        (5, "+0", [2]),  # ten exceed five
        (10, "+0", [0, 2]),  # ten do not exceed ten, so another one is taken
        (12, "*2", [0, 2, 4]),
        (12, "/ 2", [2]),
        (30, "-15.5", [0, 2]),
        (30, "+100", [0, 1, 2, 3, 4]),
    ],
)
def test_the_best_contexts_are_taken_until_the_room_is_exceeded(target, budget, expected):
    assert chosen(target_token=target, context_budget=budget) == expected


def test_contexts_can_be_forced_by_number_or_count():
    assert chosen(target_token=5, context_budget="+0", force_context_ids=[3]) == [2, 3]
    assert chosen(target_token=5, context_budget="+0", force_context_number=3) == [0, 2, 4]
    assert chosen(target_token=5, use_context_level_filter=False) == [0, 1, 2, 3, 4]


def test_contexts_are_put_in_order():
    assert chosen(rate=1, reorder_context="sort") == [2, 0, 4, 1, 3]
    assert chosen(rate=1, reorder_context="two_stage") == [2, 4, 3, 1, 0]
    assert chosen(target_token=10, context_budget="+0", reorder_context="sort") == [2, 0]


def test_demonstrations_are_ranked_by_their_own_perplexity():
    """Context 3 is made of rare words only, so it surprises most."""
    contexts = [*TEN[:3], " ".join(WORDS[60:90:3]), TEN[4]]
    result = made().compress_prompt(contexts, target_token=5, context_budget="+0", use_token_level_filter=False)
    assert result["compressed_prompt"] == contexts[3]


@pytest.mark.parametrize("position", ["none", "after", "before"])
def test_documents_are_ranked_by_the_question(position):
    """The question is foreseen after context 1 (it has `wal`), and so is context 1 after the question."""
    question = "wzz?"

    def chance(word, before):
        related = {"wzz": " wal", " wal": "wzz"}.get(word.strip() if word != " wal" else word)
        return 0.9 if related and any(related.strip() == b.strip() for b in before) else 0.01

    compressor = made([question, f"{question} We can get the answer to this question in the given documents."], chance)
    result = compressor.compress_prompt(
        TEN,
        question=question,
        rank_method="longllmlingua",
        condition_in_question=position,
        target_token=5,
        context_budget="+0",
        use_token_level_filter=False,
        concate_question=False,
    )
    assert result["compressed_prompt"] == TEN[1]


# Sentences


def test_the_best_sentences_are_taken_until_the_room_is_exceeded():
    one = "Waa wab wac. Wad wae waf. Wag wah wai. Waj wak wal."
    other = "Wba wbb wbc. Wbd wbe wbf."
    common = {
        "question": "Which?",
        "use_sentence_level_filter": True,
        "use_token_level_filter": False,
        "concate_question": False,
        "rank_method": Fixed(1, 6, 2, 3, 5, 4),
        "use_context_level_filter": False,
        "target_token": 4,
    }
    compressor = made([one, other])

    def kept(**options):
        return compressor.compress_prompt([one, other], **common, **options)["compressed_prompt"]

    assert kept() == " Wad wae waf.\n\nWba wbb wbc."  # 3 + 3 exceed 1.4 * 4
    assert kept(token_budget_ratio=0.5) == " Wad wae waf."
    assert kept(token_budget_ratio=0, keep_first_sentence=1) == "Waa wab wac. Wad wae waf."
    assert kept(token_budget_ratio=0, keep_last_sentence=1) == " Wad wae waf.\n\n Wbd wbe wbf."
    assert kept(token_budget_ratio=0, keep_sentence_number=1) == " Wad wae waf.\n\nWba wbb wbc."
    assert kept(token_budget_ratio=100) == f"{one}\n\n{other}"


# Words


def test_with_a_comparison_what_the_question_explains_stays():
    """After the question every 5th word is no surprise any more; without it all words are alike."""
    explained = WORDS[:50:5]

    def chance(word, before):
        return 0.5 if word.strip() in explained and "wzz" in before else 0.01

    compressor = made(["wzz?"], chance)
    text = " ".join(WORDS[:50])
    options = {"question": "wzz?", "target_token": 10, "concate_question": False}
    with_it = compressor.compress_prompt(text, **options, condition_compare=True)
    assert with_it["compressed_prompt"].split() == explained
    assert compressor.compress_prompt(text, **options)["compressed_prompt"].split() != explained


def test_the_instruction_is_read_too_if_asked():
    heads = {}
    for added in (False, True):
        compressor = made(["wzz?", "wyy wxx"])
        compressor.compress_prompt(
            TEN[0], "wyy wxx", "wzz?", target_token=5, condition_compare=True, add_instruction=added
        )
        heads[added] = {len(before) for before, _ in compressor._model.decoder.read}
    assert heads[False] == {1, 4}
    assert max(heads[True]) > max(heads[False])


@pytest.mark.parametrize("size", [20, 50, 200])
def test_words_are_read_in_segments_of_the_iterative_size(size):
    compressor = made()
    compressor.compress_prompt(" ".join(WORDS), rate=0.5, iterative_size=size)
    first = compressor._model.decoder.read[0][1]
    assert len(first) == (150 if size == 200 else size)  # 300 words in two equal segments


def test_the_better_context_keeps_more():
    def sizes(spread):
        result = made().compress_prompt(
            TEN,
            question="Which?",
            rank_method=Fixed(1, 2, 3, 4, 5),
            dynamic_context_compression_ratio=spread,
            target_token=25,
            concate_question=False,
        )
        return [len(part.split()) for part in result["compressed_prompt"].split("\n\n")]

    assert sizes(0.3) == sorted(sizes(0.3)) and sizes(0.3)[-1] - sizes(0.3)[0] >= 4
    assert sum(sizes(0.3)) == sum(sizes(0.0)) == 25


def test_token_rates_keep_empty_lines_between_contexts():
    result = made().compress_prompt(TEN, rate=0.5, keep_split=True)
    assert result == made().compress_prompt(TEN, rate=0.5)
    assert result["compressed_prompt"].count("\n\n") == 4


# What is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": 0}, r"rate must be in \(0, 1\]"),
        ({"rate": 1.5}, r"rate must be in \(0, 1\]"),
        ({"target_token": "many"}, "target_token must be a number"),
        ({"iterative_size": 0}, "iterative_size must be a whole number from 1"),
        ({"force_context_number": -1}, "force_context_number must be a whole number from 0"),
        ({"reorder_context": "best"}, "reorder_context must be one of original, sort, two_stage"),
        ({"condition_in_question": "inside"}, "condition_in_question must be one of"),
        ({"condition_in_question": "after"}, "'longllmlingua' ranks"),
        ({"condition_in_question": "none_condition"}, "pass condition_compare=True"),
        ({"condition_compare": True}, "condition_compare=True needs a question"),
        ({"rank_method": "longllmlingua"}, "needs a question"),
        ({"dynamic_context_compression_ratio": 0.3}, "needs a question"),
        ({"dynamic_context_compression_ratio": -1}, "from 0 on"),
        ({"add_instruction": True}, "no effect without condition_compare=True"),
        ({"keep_first_sentence": 1}, "no effect without use_sentence_level_filter=True"),
        ({"token_budget_ratio": 2}, "no effect without use_sentence_level_filter=True"),
        ({"context_budget": "+5", "use_context_level_filter": False}, "no effect without use_context_level_filter"),
        ({"iterative_size": 100, "use_token_level_filter": False}, "no effect without use_token_level_filter"),
        ({"high_priority_bonus": 5}, "high_priority_bonus has no meaning"),
        ({"force_tokens": ["x"]}, "a perplexity method does not read force_tokens"),
        ({"target_context": 2}, "does not read target_context"),
        ({"return_word_label": True}, "does not read return_word_label"),
        ({"context_segs": [["x"]]}, "pass all three"),
        ({"instruction": 7}, "instruction must be a str"),
    ],
    ids=str,
)
def test_what_cannot_be_honoured_is_refused_by_name(options, message):
    with pytest.raises(InputError, match=message):
        made().compress_prompt(TEN, **options)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("openai", "a paid service.*an object with rank"),
        ("voyageai", "a paid service"),
        ("cohere", "a paid service"),
        ("jinza", "code of its own"),
        ("bge_llmembedder", "an instruction before"),
        ("sentbert", 'write rank_method="sentbert=DIR".*multi-qa-mpnet'),
        ("bge", 'write rank_method="bge=DIR".*BAAI/bge-large'),
        ("bge_reranker", 'write rank_method="bge_reranker=DIR".*BAAI/bge-reranker'),
        ("best", "no ranker 'best'"),
    ],
)
def test_rankers_that_are_not_at_hand_say_what_to_do(method, message):
    with pytest.raises(InputError, match=message):
        made().compress_prompt(TEN, question="Which?", rank_method=method, reorder_context="sort")


def test_rankers_of_the_package_are_those_of_laconic():
    documents = ["The mill stands.", "Ann bakes the bread.", "Bo reads on."]
    for method in ("bm25", "gzip"):
        result = made(documents).compress_prompt(
            documents,
            question="Ann bakes the bread?",
            rank_method=method,
            target_token=1,
            context_budget="+0",
            use_token_level_filter=False,
            concate_question=False,
        )
        assert result["compressed_prompt"] == documents[1]


def test_construction():
    with pytest.raises(InputError, match="legacy=True and llmlingua2_config are of LLMLingua-2"):
        PromptCompressor("x", legacy=True)
    with pytest.raises(InputError, match="are of LLMLingua-2"):
        PromptCompressor("x", llmlingua2_config={"max_batch_size": 3})


@pytest.mark.parametrize("context", ["", [], [""], ["", TEN[0], ""], "\n \n", ["\ud800 half", "👍🏽"]], ids=repr)
def test_any_context_gives_a_result(context):
    for options in ({}, {"question": "q?", "condition_compare": True}, {"use_sentence_level_filter": True}):
        result = made().compress_prompt(context, rate=0.5, **options)
        assert list(result) == KEYS and result["compressed_tokens"] <= max(1, result["origin_tokens"])


# get_ppl, get_token_length


def test_perplexity_is_the_mean_surprisal_from_the_second_token_on():
    text = "waa wab wac wad"  # rare, common, common, rare
    rare, common = -np.log(0.001), -np.log(0.2)
    compressor = made([text])
    assert compressor.get_ppl(text, "token") == pytest.approx([common, common, rare])
    assert compressor.get_ppl(text) == pytest.approx((2 * common + rare) / 3)
    assert compressor.get_ppl(text, end=3) == pytest.approx(common)
    assert compressor.get_ppl(text, condition_mode="after", condition_pos_id=2) == pytest.approx(rare)
    assert compressor.get_ppl(text, condition_mode="before", condition_pos_id=2) == pytest.approx(common)
    assert np.isnan(compressor.get_ppl("waa"))
    with pytest.raises(InputError, match="input_ids"):
        compressor.get_ppl(text, input_ids=[1])
    with pytest.raises(InputError, match="granularity is sentence or token"):
        compressor.get_ppl(text, "word")
    with pytest.raises(InputError, match="needs a causal language model"):
        PromptCompressor("x", use_llmlingua2=True).get_ppl(text)


def test_tokens_are_counted_by_the_model_or_the_counter():
    compressor = made(["waa wab, wac"])
    assert compressor.get_token_length("waa wab, wac") == 4
    assert compressor.get_token_length("waa wab, wac", use_oai_tokenizer=True) == 3


def test_every_parameter_is_in_the_table():
    """docs/dropin.md says of each parameter what becomes of it."""
    import inspect
    from pathlib import Path

    table = (Path(__file__).parent.parent / "docs" / "dropin.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(\w+)`", table))
    for method in ("__init__", "compress_prompt", "structured_compress_prompt", "compress_json", "recover", "get_ppl"):
        assert set(inspect.signature(getattr(PromptCompressor, method)).parameters) - {"self"} <= named, method
