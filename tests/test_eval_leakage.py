"""Texts that were trained on are found out, others are not, by comparison with a plain search for runs of words."""

from __future__ import annotations

import random
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from laconic.errors import InputError
from laconic.eval import leakage
from laconic.eval.leakage import check, seen
from laconic.train import tasks
from laconic.train.split import published

WORDS = [f"{a}{b}{c}" for a in "bdgklmnprst" for b in "aeiou" for c in "lmnrst"]


def prose(seed, words=120):
    pick = random.Random(seed)
    return " ".join(pick.choice(WORDS) for _ in range(words))


def by_search(trained, judged, run=13):
    """The same by strings: slow, and without a hash."""
    told = [re.findall(r"\w+", text.lower()) for text in trained]
    long = " | ".join(" ".join(words) for words in told if len(words) >= run)
    short = [words for words in told if len(words) < run]
    shares = []
    for text in judged:
        words = re.findall(r"\w+", text.lower())
        runs = [words[k : k + run] for k in range(len(words) - run + 1)]
        hits = [f" {' '.join(r)} " in f" {long} " for r in runs] if runs else [words in short][: len(words)]
        shares.append(sum(hits) / len(hits) if hits else 0.0)
    return shares


texts = st.lists(st.text(st.sampled_from("ab ."), max_size=60), max_size=6)


@settings(max_examples=200, deadline=None)
@given(trained=texts, judged=texts, batch=st.integers(1, 3))
def test_shares_are_those_of_a_search(trained, judged, batch):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(leakage, "_MANY", batch)
        assert seen(iter(trained), judged) == pytest.approx(by_search(trained, judged))


def test_copies_and_near_copies_are_seen_and_the_unrelated_are_not():
    told = prose(1)
    words = told.split()
    judged = [
        f"  {told.upper().replace(' ', ',  ')}!",  # the same words
        " ".join([*words[:60], "OTHER", *words[61:]]),  # 13 of 108 runs have the other word
        " ".join(words[:12] + prose(2, 108).split()),
        prose(3),
    ]
    assert seen([prose(9), told], judged) == pytest.approx([1, 95 / 108, 0, 0])


def test_a_run_does_not_reach_from_one_text_into_the_next():
    words = prose(1, 26).split()
    assert seen([" ".join(words[:20]), " ".join(words[20:])], [" ".join(words[13:])]).tolist() == [0]


def test_short_texts_are_seen_only_as_a_whole():
    judged = ["Anna lives in Oslo.", "Anna lives in", "…", ""]
    assert seen(["anna lives in OSLO", prose(1)], judged).tolist() == [1, 0, 0, 0]
    assert seen([], judged).tolist() == [0] * 4 and len(seen(judged, [])) == 0


def test_scripts_without_blanks_have_runs_too():
    told = "提示壓縮讓模型用更少的詞元讀懂同樣的內容並且保留事實"
    assert seen([f"前言。{told}後記。"], [told, told[::-1]]).tolist() == [1, 0]


def test_the_check_fails_the_run_and_names_the_worst():
    told = prose(1)
    half = " ".join([*told.split()[:60], *prose(2, 60).split()])
    check([told], [prose(3), prose(4)])
    with pytest.raises(InputError, match=f"2 of 3 texts .* trained on .number 2 to 100%: '{told[:20]}"):
        check([told], [prose(3), half, told])
    check([told], [half], most=0.5)
    with pytest.raises(InputError, match=r"most must be in \[0, 1\), got 1"):
        check([told], [half], most=1)


def test_facts_about_fresh_names_pass_and_facts_told_before_do_not():
    def told(fresh, seeds):
        return [tasks.facts(1, 6, np.random.default_rng(k), fresh=fresh).text for k in seeds]

    trained = told(False, range(2000))
    check(trained, told(True, range(200)), most=0)
    with pytest.raises(InputError, match="1 of 2"):
        check(trained, [*told(True, [1]), trained[77]])


@pytest.mark.parametrize(
    ("identifier", "month"),
    [
        ("2606.01234", (2026, 6)),
        ("0704.0001v3", (2007, 4)),
        ("arXiv:9912.1234", (1999, 12)),
        ("math.GT/0309136", (2003, 9)),
        ("cond-mat/9108001", (1991, 8)),
    ],
)
def test_an_arxiv_identifier_tells_its_month(identifier, month):
    assert published(identifier) == month


@pytest.mark.parametrize(
    "identifier", ["", "2613.01234", "2600.01234", "260.01234", "2606.01234 ", "PEP 8", "２６06.01234"]
)
def test_what_is_no_arxiv_identifier_is_refused(identifier):
    with pytest.raises(InputError, match="no arXiv identifier"):
        published(identifier)
