"""Budgets and counters."""

from __future__ import annotations

import base64
import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic.budget import Budget, counter
from laconic.choose import largest_cutoff
from laconic.errors import InputError
from texts import texts


@pytest.mark.parametrize(
    ("rate", "before", "limit"), [(0.29, 100, 29), (0.1, 30, 3), (0.7, 10, 7), (0.5, 1, 0), (1, 7, 7)]
)
def test_rate_is_floored_in_decimals_not_in_binary(rate, before, limit):
    assert Budget(rate=rate).limit(before) == limit


def test_without_a_budget_half_is_kept():
    assert Budget().limit(100) == 50
    assert Budget(threshold=0.5).limit(100) is None


@given(st.lists(st.integers(0, 20), min_size=1, max_size=40), st.integers(0, 20), st.integers(0, 20))
@settings(max_examples=1000)
def test_cutoffs_grow_with_the_limit_even_if_counts_do_not_grow(counts, one, other):
    low, high = sorted((one, other))
    last = len(counts) - 1
    assert largest_cutoff(last, low, counts.__getitem__) <= largest_cutoff(last, high, counts.__getitem__)


@given(st.lists(st.integers(0, 20), min_size=2, max_size=40), st.integers(0, 20))
def test_the_cutoff_fits_and_the_next_does_not(counts, limit):
    counts[0] = 0
    k = largest_cutoff(len(counts) - 1, limit, counts.__getitem__)
    assert counts[k] <= limit
    assert k == len(counts) - 1 or counts[k + 1] > limit


def _tiktoken(name):
    """tiktoken's own encoding, its ranks read from disk instead of fetched."""
    tiktoken = pytest.importorskip("tiktoken")
    data = pytest.importorskip("bpe_openai").__path__[0]
    public = pytest.importorskip("tiktoken_ext.openai_public")
    with gzip.open(Path(data) / "data" / f"{name}.tiktoken.gz") as file:
        ranks = {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in file)}
    original = public.load_tiktoken_bpe
    public.load_tiktoken_bpe = lambda *args, **kwargs: ranks
    try:
        return tiktoken.Encoding(**getattr(public, name)())
    finally:
        public.load_tiktoken_bpe = original


@pytest.mark.parametrize("name", ["o200k_base", "cl100k_base"])
def test_counts_equal_tiktokens(name):
    reference, ours = _tiktoken(name), counter(name)

    @settings(max_examples=3000, deadline=None)
    @given(texts)
    def check(text):
        clean = "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in text)
        assert ours(text) == len(reference.encode_ordinary(clean))

    check()


@pytest.mark.parametrize("char", ["a", " ", "\n", "1", "é", "😀", "我", "\ud800"])
def test_a_character_repeated_five_million_times_is_counted(char):
    assert counter()(char * 5_000_000) > 0


def test_special_tokens_in_a_text_are_text():
    assert counter("cl100k_base")("<|endoftext|>") > 1


def test_words_counts_what_blanks_separate():
    assert counter("words")(" one\ttwo\nthree  ") == 3


def test_any_tokenizer_json_counts(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({"a": 0, "?": 1}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.enable_truncation(2)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert counter(tmp_path)("a b a, \ud800") == 5
    assert counter(str(tmp_path / "tokenizer.json"))("a") == 1


@pytest.mark.parametrize("bad", ["gpt-9", "/no/such/place", 7])
def test_unknown_counters_are_answered_with_advice(bad):
    with pytest.raises(InputError, match="counter"):
        counter(bad)


def test_a_broken_tokenizer_json_is_refused(tmp_path):
    (tmp_path / "tokenizer.json").write_text(json.dumps({"version": "1.0"}))
    with pytest.raises(InputError, match=r"is not a tokenizer\.json"):
        counter(tmp_path)
