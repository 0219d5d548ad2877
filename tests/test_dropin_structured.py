"""The drop-in for texts with parts of their own: tags, JSON, a question; and answers restored."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import decoders
import laconic
from laconic.budget import counter
from laconic.compressor import Compressor
from laconic.errors import InputError
from laconic.integrations.llmlingua import PromptCompressor
from laconic.integrations.llmlingua.recover import aligned, recover
from laconic.integrations.llmlingua.structured import joined, parsed, within
from laconic.score import Progress, Scores
from laconic.text import Tiling

TAGGED = (
    "<llmlingua, compress=False>Speaker 4:</llmlingua><llmlingua, rate=0.4> Thank you very much, and can we do the "
    "functions for content please?</llmlingua><llmlingua, compress=False>\nSpeaker 0:</llmlingua>"
    "<llmlingua> Item 11 is a communication from the council, with a recommendation.</llmlingua>"
)
OTHER = "abc longest abc Speaker 4: Thank you very much indeed"
QUESTION = "Who bakes the bread?"
DOCUMENTS = [
    "The mill stands by the river. It was built in 1820 and repaired twice since then by the town council.",
    "Early every morning Ann Miller bakes the bread for the whole village. Her brother sells it on the market.",
    "Stars move slowly across the sky. Nobody in the village knows how far away from us they really are.",
]


class ByLength:
    """A scorer without a model: the longer the word, the better."""

    name = "length"
    model = "by-length"
    reads_question = False
    reads_budget = False

    def score(self, tilings: Sequence[Tiling], progress: Progress | None = None) -> list[Scores]:
        return [Scores(np.array([len(u.strip()) / 20 for u in t], np.float32), self.name) for t in tilings]


def by_length() -> PromptCompressor:
    made = PromptCompressor("by-length", use_llmlingua2=True, counter="words")
    made.__dict__["_compressor"] = Compressor(ByLength(), counter("words"))
    return made


def by_surprise() -> PromptCompressor:
    """Long words are surprising."""
    made = PromptCompressor("fake", counter="words")
    known = [unit for text in [TAGGED, *DOCUMENTS, QUESTION, OTHER] for unit in laconic.segment.words(text)]
    made.__dict__["_model"] = decoders.word_model(lambda word, before: 2.0 ** -(1 + len(word)), known)
    return made


@pytest.fixture(params=[by_length, by_surprise])
def either(request: pytest.FixtureRequest) -> PromptCompressor:
    made: PromptCompressor = request.param()
    return made


@pytest.fixture(scope="module")
def small() -> PromptCompressor:
    return PromptCompressor("laconic-small", use_llmlingua2=True)


# Tags


def test_tags_are_read():
    found = parsed("a < b <llmlingua,rate=0.3>x <y> z</llmlingua> t<llmlingua, compress = False , rate=0.2>q", 0.5)
    assert [(s.text, s.share) for s in found] == [("a < b ", 0.5), ("x <y> z", 0.3), (" t", 0.5), ("q", 1.0)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<llmlingua, rate=lots>x</llmlingua>", "a tag takes rate=0.3"),
        ("<llmlingua, compress=no>x</llmlingua>", "a tag takes rate=0.3"),
        ("<llmlingua, speed=3>x</llmlingua>", "got 'speed=3'"),
        ("<llmlingua, rate=0>x</llmlingua>", r"rate must be in \(0, 1\]"),
        ("<llmlingua, rate=1.2>x</llmlingua>", r"rate must be in \(0, 1\]"),
        ("<llmlingua>x<llmlingua>y</llmlingua></llmlingua>", "cannot be nested"),
    ],
)
def test_bad_tags_are_refused(text, message):
    with pytest.raises(InputError, match=message):
        parsed(text, 0.5)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text("ab <\n", min_size=1), max_size=6), st.lists(st.integers(0, 40), max_size=8, unique=True))
def test_segments_within_spans_are_the_text_of_the_spans(texts, edges):
    context = [s for text in texts for s in parsed(text, 0.5)]
    text = joined(context)
    places = sorted(min(e, len(text)) for e in edges)
    spans = [(a, z) for a, z in zip(places[::2], places[1::2], strict=False) if a < z]
    assert joined(within(context, spans)) == "".join(text[a:z] for a, z in spans)


def test_each_rate_is_kept_and_the_rest_stays(either):
    result = either.structured_compress_prompt([TAGGED], rate=0.5)
    prompt = result["compressed_prompt"]
    lines = prompt.split("\n")
    assert lines[0].startswith("Speaker 4:") and lines[1].startswith("Speaker 0:")
    assert len(lines[0].split()) - 2 == int(0.4 * 13)
    assert len(lines[1].split()) - 2 == int(0.5 * 11)
    assert result["origin_tokens"] == 2 + 13 + 2 + 11
    assert result["compressed_tokens"] == 2 + 5 + 2 + 5


def test_only_a_target_for_the_contexts_sets_the_rate_of_the_others(either):
    text = " ".join(["abc", "longest"] * 10)
    result = either.structured_compress_prompt([f"<llmlingua> {text} </llmlingua>"], target_token=10)
    assert result["compressed_prompt"].split() == ["longest"] * 10


def test_contexts_that_hold_what_must_stay_are_not_filtered(either):
    tagged = ["<llmlingua, compress=False>keep</llmlingua>", *(f"<llmlingua>{d}</llmlingua>" for d in DOCUMENTS)]
    options: dict[str, Any] = {"target_token": 1}
    if not either.use_llmlingua2:
        options["context_budget"] = "+0"
    assert "keep" in either.structured_compress_prompt(tagged, **options)["compressed_prompt"]
    lax = either.structured_compress_prompt(tagged, strict_preserve_uncompressed=False, **options)
    assert "keep" not in lax["compressed_prompt"]


def test_segments_can_be_given_apart():
    segments = {
        "context_segs": [["Speaker 4:", " Thank you very much indeed"]],
        "context_segs_rate": [[0.5, 0.4]],
        "context_segs_compress": [[False, True]],
    }
    result = by_surprise().compress_prompt(["Speaker 4: Thank you very much indeed"], **segments)
    assert result["compressed_prompt"] == "Speaker 4: Thank indeed"
    with pytest.raises(InputError, match="the texts it is made of"):
        by_surprise().compress_prompt(["Something else"], **segments)


def test_sentences_of_tagged_contexts():
    """A sentence with a segment that must stay is never dropped."""
    stays = "<llmlingua, compress=False>Keep.</llmlingua>"
    text = f"<llmlingua>One two. </llmlingua>{stays}<llmlingua> Unusual.</llmlingua>"
    result = by_surprise().structured_compress_prompt(
        [text], target_token=1, use_sentence_level_filter=True, use_token_level_filter=False
    )
    assert result["compressed_prompt"].split() == ["Keep.", "Unusual."]


def test_structured_prompts_have_instruction_and_question():
    result = by_surprise().structured_compress_prompt([TAGGED], "Read.", "Who?", rate=0.5)
    assert result["compressed_prompt"].startswith("Read.\n\nSpeaker 4:")
    assert result["compressed_prompt"].endswith("\n\nWho?")


def test_what_structured_prompts_cannot_honour(either):
    with pytest.raises(InputError, match="dynamic_context_compression_ratio|does not read question"):
        either.structured_compress_prompt([TAGGED], question="Who?", dynamic_context_compression_ratio=0.3)
    legacy = PromptCompressor("x", use_llmlingua2=True, legacy=True)
    with pytest.raises(InputError, match="leave legacy=True out"):
        legacy.structured_compress_prompt([TAGGED])


# JSON

DATA = {
    "id": 987654,
    "name": 'Ann "Al" Miller, baker',
    "biography": "Ann was born in the village, and she has baked its bread since the beginning of the century.",
    "tags": ["baker of bread and cakes", "villager", 7],
    "place": {"town": "somewhere beyond the mountains", "open": True, "since": None},
}
CONFIG = {
    "id": {"rate": 1, "compress": False, "pair_remove": True, "value_type": "int"},
    "name": {"rate": 0.7, "compress": False, "pair_remove": False, "value_type": "str"},
    "biography": {"rate": 0.3, "compress": True, "pair_remove": False, "value_type": "str"},
    "tags": {"rate": 0.5, "compress": True, "pair_remove": True, "value_type": "list"},
    "place": {"rate": 0.5, "compress": True, "pair_remove": True, "value_type": "dict"},
}


def skeleton(value: Any) -> Any:
    """The value without the text of its strings."""
    if isinstance(value, dict):
        return {k: skeleton(v) for k, v in value.items()}
    return [skeleton(v) for v in value] if isinstance(value, list) else "" if isinstance(value, str) else value


def is_part(short: Any, long: Any) -> bool:
    """Is every string a subsequence of the one in its place?"""
    if isinstance(long, str):
        rest = iter(long)
        return all(c in rest for c in short)
    pairs = zip(short.values(), long.values(), strict=True) if isinstance(long, dict) else []
    return all(is_part(a, b) for a, b in (pairs if not isinstance(long, list) else zip(short, long, strict=True)))


def test_json_keeps_its_shape_and_loses_words(either):
    result = either.compress_json(DATA, CONFIG)
    found = result["compressed_prompt"]
    assert skeleton(found) == skeleton(DATA) and is_part(found, DATA)
    assert (found["id"], found["name"]) == (DATA["id"], DATA["name"])
    assert 1 <= len(found["biography"].split()) <= 0.3 * len(DATA["biography"].split())
    assert result["origin_tokens"] == len(json.dumps(DATA).split())
    assert result["compressed_tokens"] == len(json.dumps(found).split())
    assert "compressed_prompt_list" not in result


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(
        st.text(max_size=8),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=60),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
            max_leaves=6,
        ),
        max_size=5,
    ),
    st.floats(0.05, 1),
)
def test_any_json_stays_json(data, rate):
    result = by_length().compress_json(data, {key: {"pair_remove": True} for key in data}, rate=rate)
    found = json.loads(json.dumps(result["compressed_prompt"]))
    assert skeleton(found) == skeleton(data) and is_part(found, data)


def test_pairs_can_be_filtered_and_put_in_order():
    class ByKey:
        def rank(self, documents, question):
            return (
                np.array(["bio" in d for d in documents], np.float32) + np.array(["tags" in d for d in documents]) * 2
            )

    options: dict[str, Any] = {"question": "q", "rank_method": ByKey(), "target_token": 1, "context_budget": "+0"}
    result = by_surprise().compress_json(DATA, CONFIG, use_keyvalue_level_filter=True, **options)
    assert list(result["compressed_prompt"]) == ["name", "biography", "tags"]
    ordered = by_surprise().compress_json(
        DATA, CONFIG, use_keyvalue_level_filter=True, reorder_keyvalue="sort", use_token_level_filter=False, **options
    )
    assert list(ordered["compressed_prompt"]) == ["tags", "biography", "name"]
    assert ordered["compressed_prompt"]["biography"] == DATA["biography"]


def test_pairs_are_filtered_by_their_scores():
    """Three of five pairs at a rate of 0.2, those with the longest words; the name is not for removal."""
    data = {"a": "incomprehensibilities", "b": "is it", "c": "or so", "d": "at me", "name": "Al"}
    config = {key: {"compress": False, "pair_remove": key != "name"} for key in data}
    found = by_length().compress_json(data, config, rate=0.2, use_keyvalue_level_filter=True)["compressed_prompt"]
    assert "a" in found and "name" in found and len(found) < 5


def test_values_become_what_their_entry_says(tmp_path):
    data = {"a": "3", "b": (1, "two words here"), "c": 5, "d": "yes"}
    types = {"a": "int", "b": "tuple", "c": "str", "d": "str"}
    config = {key: {"rate": 0.99, "value_type": kind} for key, kind in types.items()}
    found = by_length().compress_json(data, config)["compressed_prompt"]
    assert found["a"] == 3 and found["b"][0] == 1 and isinstance(found["c"], str)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(config))
    assert by_length().compress_json(data, str(file))["compressed_prompt"] == found


def test_configurations_in_yaml(tmp_path):
    pytest.importorskip("yaml")
    file = tmp_path / "config.yaml"
    file.write_text("note:\n  rate: 0.5\n  compress: true\n  value_type: str\n  pair_remove: false\n")
    found = by_length().compress_json({"note": "a considerable amount of text"}, str(file))
    assert found["compressed_prompt"] == {"note": "considerable amount"}


@pytest.mark.parametrize(
    ("data", "config", "options", "message"),
    [
        ({"a": 1}, {}, {}, "has an entry for each key of json_data: a"),
        ({"a": 1}, {"a": {"speed": 3}}, {}, r"json_config\['a'\] takes rate, compress"),
        ({"a": 1}, {"a": {"value_type": "set"}}, {}, "value_type must be one of"),
        ({"a": "x"}, {"a": {"value_type": "int"}}, {}, r"json_data\['a'\] is no int"),
        ({"a": "x"}, {"a": {"value_type": "list"}}, {}, "is no list"),
        ({"a": {1, 2}}, {"a": {}}, {}, "cannot be written as JSON"),
        ({"a": float("nan")}, {"a": {}}, {}, "cannot be written as JSON"),
        ({1: "a"}, {1: {}}, {}, "str as keys"),
        ({"a": "x"}, "/nonexistent", {}, "cannot be read"),
        ({"a": "x"}, {"a": {}}, {"instruction": "Read."}, "has no place in a JSON object"),
        ({"a": "x"}, {"a": {}}, {"use_sentence_level_filter": True}, "cut an object in two"),
        ({"a": "x"}, {"a": {}}, {"question": "Who?"}, "read"),
        ({"a": "x"}, {"a": {}}, {"target_token": "many"}, "target_token must be a number"),
        ({"a": "x"}, {"a": {"rate": 2}}, {}, r"rate must be in \(0, 1\]"),
    ],
    ids=str,
)
def test_json_that_cannot_be_honoured(either, data, config, options, message):
    with pytest.raises(InputError, match=message):
        either.compress_json(data, config, **options)


# A question for LLMLingua-2


def test_a_question_is_honoured_by_a_model_that_reads_questions(small):
    result = small.compress_prompt(DOCUMENTS, "Answer briefly.", QUESTION, rate=0.6)
    prompt = result["compressed_prompt"]
    assert prompt.startswith("Answer briefly.\n\n") and prompt.endswith(f"\n\n{QUESTION}")
    assert "Ann Miller bakes" in prompt and "sky" not in prompt
    assert result["compressed_tokens"] == small.get_token_length(prompt, use_oai_tokenizer=True)
    assert result["compressed_tokens"] <= 0.6 * result["origin_tokens"]
    plain = small.compress_prompt(DOCUMENTS, rate=0.6)
    assert plain["compressed_prompt_list"] != result["compressed_prompt_list"]
    without = small.compress_prompt(DOCUMENTS, "", QUESTION, target_token=15, concate_question=False)
    assert QUESTION not in without["compressed_prompt"] and "Ann" in without["compressed_prompt"]
    assert without["compressed_tokens"] <= 15


def test_the_context_filter_asks_the_question(small):
    result = small.compress_prompt(DOCUMENTS, question=QUESTION, target_context=1, use_token_level_filter=False)
    assert result["compressed_prompt_list"] == [DOCUMENTS[1]]
    forced = small.compress_prompt(
        DOCUMENTS, question=QUESTION, target_context=1, use_token_level_filter=False, force_context_ids=[2]
    )
    assert forced["compressed_prompt_list"] == DOCUMENTS[1:]


def test_other_parameters_are_still_refused_beside_a_question(small):
    with pytest.raises(InputError, match="does not read rank_method"):
        small.compress_prompt(DOCUMENTS, question=QUESTION, rank_method="bm25")
    with pytest.raises(InputError, match="does not read question"):
        by_length().structured_compress_prompt([TAGGED], question="Who?")


def test_structured_and_json_ask_the_question(small):
    tagged = [f"<llmlingua, rate=0.4>{' '.join(DOCUMENTS)}</llmlingua>"]
    asked = small.structured_compress_prompt(tagged, question=QUESTION)["compressed_prompt"]
    assert "Ann Miller" in asked and asked.endswith(QUESTION)
    found = small.compress_json({"text": " ".join(DOCUMENTS)}, {"text": {"rate": 0.4}}, question=QUESTION)
    assert "Ann Miller" in found["compressed_prompt"]["text"]


# Recovered answers


def test_answers_are_recovered_from_the_texts_alone():
    made = PromptCompressor("x", use_llmlingua2=True)
    original = "Read this.\n\nThe Willmar Reds of the year 1912 won the cup.\n\nOthers lost everything."
    assert (
        made.recover(original, "Others lost\n\nWillmar 1912 won", "Willmar 1912.") == "Willmar Reds of the year 1912."
    )
    assert made.recover(original, "Willmar 1912 lost", "Willmar 1912") == "Willmar 1912"  # of no one paragraph
    with pytest.raises(InputError, match="response must be a str"):
        made.recover(original, "x", None)  # type: ignore[arg-type]


def test_a_word_that_can_be_from_two_places_is_no_quotation():
    original = "Berg measured the tower and Berg repaired the harbour."
    assert recover(original, "Berg harbour", "Berg harbour") == "Berg harbour"
    assert recover(original, "Berg tower", "Berg tower") == "Berg measured the tower"


def test_what_was_kept_is_found_again():
    """What is aligned is a subsequence of what was kept; with distinct words all of it, where it was kept."""
    rng = random.Random(0)
    compressor = Compressor(ByLength(), counter("words"))
    for _ in range(40):
        drawn = [f"w{rng.randrange(10**6)}x" for _ in range(60)]
        text = "\n\n".join(" ".join(drawn[k : k + 20]) for k in range(0, 60, 20))
        c = compressor.compress(text, rate=rng.uniform(0.2, 0.9))
        parts = list(aligned(text, c.text))
        assert " ".join(w for p in parts for w in p.text.split()) == " ".join(c.text.split())
        answer = " ".join(c.text.split()[:5])
        assert recover(text, c.text, answer) == c.restore(answer)
