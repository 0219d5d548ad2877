"""Rules from a file, the environment, and request headers."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path

import pytest

from laconic.errors import InputError
from laconic.serve.report import REASONS, WHOLE
from laconic.serve.rules import HEADERS, Rules


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "laconic.toml"

    def write(text):
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_a_file_is_over_the_defaults_and_the_environment_over_the_file(file):
    path = file('[server]\nport = 1\n[rules]\nfloor = 10\nrate = 0.3\nparts = ["tool"]\nskip_tools = []\n')
    rules = Rules.read(path, {})
    assert (rules.floor, rules.rate, rules.parts, rules.skip_tools) == (10, 0.3, ("tool",), ())
    over = Rules.read(path, {"LACONIC_FLOOR": "20", "LACONIC_CACHE": "/x", "LACONIC_PARTS": "tool, user", "HOME": "/"})
    assert (over.floor, over.rate, over.parts) == (20, 0.3, ("tool", "user"))


def test_headers_are_over_both_in_any_case():
    rules, notes = Rules(rate=0.3).for_request({"X-Laconic-Rate": "0.2", "x-laconic-question": "OFF", "rate": "9"})
    assert (rules.rate, rules.question, notes) == (0.2, False, ())
    assert Rules().for_request({"x-laconic-bypass": "1"})[0].bypass


def test_a_budget_takes_the_place_of_the_other_one_below_it(file):
    path = file("[rules]\nrate = 0.3\n")
    assert Rules.read(path, {"LACONIC_TOKENS": "50"}) == Rules(tokens=50)
    assert Rules(tokens=50).for_request({"x-laconic-rate": "0.2"})[0] == Rules(rate=0.2)


def test_every_rule_has_a_variable():
    names = {"PARTS": "newest", "RATE": "0.4", "FLOOR": "1", "GAIN": "0.2", "QUESTION": "no", "SKIP_TOOLS": "a*,b"}
    names |= {"TAGS": "x", "PROTECT": r"\d{1,3}", "BYPASS": "yes", "LARGEST": "99"}
    rules = Rules.read(environment={f"LACONIC_{name}": value for name, value in names.items()})
    lists = {"parts": ("newest",), "skip_tools": ("a*", "b"), "tags": ("x",), "protect": (r"\d{1,3}",)}
    assert rules == Rules(rate=0.4, floor=1, gain=0.2, question=False, bypass=True, largest=99, **lists)


@pytest.mark.parametrize(
    ("wrong", "advice"),
    [
        ({"rate": 33}, "rate must be in (0, 1], got 33; did you mean"),
        ({"tokens": 0}, "tokens must be 1 or more, got 0"),
        ({"rate": 0.5, "tokens": 5}, "one budget at a time"),
        ({"floor": -1}, "floor must be 0 or more, got -1"),
        ({"floor": True}, "floor must be 0 or more, got True"),
        ({"floor": 1.5}, "floor must be 0 or more, got 1.5"),
        ({"gain": 1}, "gain must be in [0, 1), got 1"),
        ({"gain": float("nan")}, "gain must be in [0, 1), got nan"),
        ({"question": "yes"}, "question must be true or false, got 'yes'"),
        ({"parts": ("tools",)}, "parts must be some of tool, document, user, newest, got 'tools'"),
        ({"parts": "tool"}, "parts must be a list of texts, got 'tool'"),
        ({"tags": ("",)}, "tags must be a list of texts"),
        ({"skip_tools": (1,)}, "skip_tools must be a list of texts"),
        ({"protect": ("(",)}, "protect takes regular expressions, got '('"),
    ],
)
def test_wrong_values_are_answered_with_advice(wrong, advice):
    with pytest.raises(InputError, match=re.escape(advice)):
        Rules(**wrong)


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("[rules]\nflor = 3\n", "there is no 'flor' in [rules]; did you mean floor?"),
        ("[rules]\nxyz = 3\n", "there is no 'xyz' in [rules]; there are parts, rate"),
        ("rules = 3\n", "begin it with [rules]"),
        ("[rule]\nfloor = 3\n", "'rule' is no table; did you mean rules?"),
        ("floor = 3\n", "'floor' is no table; there are server, upstreams, rules"),
        ("[rules", "cannot be read as TOML"),
        ('[rules]\nparts = "tool"\n', "parts must be a list"),
    ],
)
def test_a_wrong_file_is_answered_with_advice(file, text, advice):
    with pytest.raises(InputError, match=re.escape(advice)):
        Rules.read(file(text), {})


def test_a_file_that_is_missing_or_not_text(tmp_path):
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for name in ("missing", "binary"):
        with pytest.raises(InputError, match="cannot be read as TOML"):
            Rules.read(tmp_path / name, {})


@pytest.mark.parametrize(
    ("name", "value", "advice"),
    [
        ("RATE", "half", "rate must be a number, got 'half'"),
        ("FLOOR", "-3", "floor must be a whole number, got '-3'"),
        ("FLOOR", "9" * 30, "floor must be a whole number"),
        ("BYPASS", "maybe", "bypass must be one of 1, true, yes"),
    ],
)
def test_a_wrong_variable_is_answered_with_advice(name, value, advice):
    with pytest.raises(InputError, match=advice):
        Rules.read(environment={f"LACONIC_{name}": value})


@pytest.mark.parametrize(
    ("header", "value", "note"),
    [
        ("rate", "33", "rate must be in (0, 1], got 33.0"),
        ("rate", "nan", "got nan"),
        ("tokens", "1e3", "tokens must be a whole number, got '1e3'"),
        ("tokens", "", "tokens must be a whole number, got ''"),
        ("bypass", "maybe", "bypass must be one of"),
        ("floor", "3", "there is no such header; there are x-laconic-bypass"),
    ],
)
def test_a_wrong_header_is_ignored_and_told(header, value, note):
    rules, notes = Rules(rate=0.3).for_request({f"x-laconic-{header}": value, "x-laconic-question": "off"})
    assert rules == Rules(rate=0.3, question=False)
    assert len(notes) == 1 and note in notes[0] and f"x-laconic-{header}" in notes[0]


def test_two_budgets_in_the_headers_are_both_ignored():
    rules, notes = Rules(rate=0.3).for_request({"x-laconic-rate": "0.5", "x-laconic-tokens": "9"})
    assert rules == Rules(rate=0.3) and len(notes) == 1 and "one budget at a time" in notes[0]


def test_notes_can_stand_in_a_header():
    wrong = {"x-laconic-rate": "1\r\nset-cookie: é" + "x" * 5000, "x-laconic-\r\né" + "y" * 5000: "1"}
    for note in Rules().for_request(wrong)[1]:
        assert note.isascii() and note.isprintable() and len(note) < 300


def test_tags_and_tools():
    rules = Rules(tags=("keep",), skip_tools=("get_*", "exact"))
    assert [rules.tagged(t) for t in ("a <keep> b", '<keep id="1">', "<keep/>", "<keeper>", "keep")] == [
        True,
        True,
        True,
        False,
        False,
    ]
    assert [rules.skips(t) for t in ("get_x", "exact", "exactly", "")] == [True, True, False, False]
    assert rules.skips("laconic_restore") and Rules().skips("laconic_restore")  # whole, or the model asks for ever


def test_the_page_names_every_rule_header_and_reason():
    page = (Path(__file__).parents[1] / "docs" / "serve.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", page, flags=re.DOTALL)))
    assert {rule.name for rule in fields(Rules)} | REASONS.keys() | (WHOLE.keys() - {""}) <= named
    told = {name for name in named if name.startswith("x-laconic-")} - {"x-laconic-key", "x-laconic-id"}
    assert told == {f"x-laconic-{name}" for name in HEADERS}
    told = {name: shown.strip("` ") for name, shown in re.findall(r"^\| `(\w+)` \|([^|]*)\|", page, re.MULTILINE)}
    defaults = {rule.name: rule.default for rule in fields(Rules)} | {"rate": 0.5}
    for name, value in defaults.items():
        assert told[name] == ("" if value is None else json.dumps(value))
