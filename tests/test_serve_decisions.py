"""The store of decisions: the first one stays, whoever made it."""

from __future__ import annotations

import os
import stat
import subprocess
import sys

import pytest

from laconic.errors import InputError
from laconic.serve.decisions import Decisions, Outcome, Verdict, text_key

KEY = text_key([0.5], None, "text")


@pytest.fixture
def decisions(tmp_path):
    with Decisions(tmp_path / "deep" / "decisions.sqlite") as made:
        yield made


def test_the_first_decision_stays(decisions, tmp_path):
    first = [Outcome(9, "newest"), Outcome(8, text=KEY)]
    decisions.settle({"k": first}, [Verdict(KEY, "compressed", 3, "te", "text")])
    decisions.settle({"k": [Outcome(1, "short")], "l": []}, [Verdict(KEY, "compressed", 1, "x", "y")])
    with Decisions(tmp_path / "deep" / "decisions.sqlite") as again:
        assert again.turns(["k", "l", "m"]) == {"k": first, "l": []}
        assert again.verdicts([KEY, "none"]) == {KEY: Verdict(KEY, "compressed", 3, "te")}
        assert again.restore(KEY) == "text"


@pytest.mark.parametrize("text", ["", "\ud800 x \udfff", "\x00", "👍é\r\n", "x" * 100_000])
def test_the_original_comes_back_whole(decisions, text):
    key = text_key([], "q", text)
    decisions.settle({}, [Verdict(key, "compressed", 1, text[:3], text)])
    assert decisions.restore(key[:12]) == text
    assert decisions.verdicts([key])[key].compressed == text[:3]


def test_thousands_of_keys_at_once(decisions):
    turns = {str(k): [Outcome(k, "short")] for k in range(1234)}
    decisions.settle(turns, [])
    assert decisions.turns(list(turns)) == turns
    assert decisions.turns([]) == {}


def test_only_one_compressed_part_is_restored(decisions):
    decisions.settle({}, [Verdict("abcdef000001" + end, "compressed", 1, "c", end) for end in "12"])
    decisions.settle({}, [Verdict("abcdef000002", "gain", 1)])
    assert decisions.restore("abcdef0000011") == "1"
    for identity, advice in {
        "abcdef000001": "several parts begin with abcdef000001",
        "abcdef000002": "no compressed part begins with abcdef000002",
        "abc": "an id has 12 to 64 characters of 0-9 and a-f, got 'abc'",
        "%%%%%%%%": "an id has 12 to 64",
    }.items():
        with pytest.raises(InputError, match=advice):
            decisions.restore(identity)


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_only_the_owner_reads_the_files(decisions, tmp_path):
    path = tmp_path / "deep" / "decisions.sqlite"
    path.parent.mkdir()
    path.touch(mode=0o644)
    before = os.umask(0)
    try:
        decisions.settle({"k": []}, [])
        files = sorted(path.parent.iterdir())
        assert [f.suffix for f in files] == [".sqlite", ".sqlite-shm", ".sqlite-wal"]
        assert {stat.S_IMODE(f.stat().st_mode) for f in files} == {0o600}
    finally:
        os.umask(before)


def test_a_damaged_file_is_told(tmp_path):
    path = tmp_path / "decisions.sqlite"
    path.write_bytes(b"not a database at all" * 100)
    with pytest.raises(InputError, match="cannot be the store of decisions"):
        Decisions(path).turns(["k"])


KILLED = """
import os, sys
from pathlib import Path
from laconic.serve.decisions import Decisions, Outcome, Verdict
decisions = Decisions(Path(sys.argv[1]))
decisions.settle({"k": [Outcome(5, text="a" * 64)]}, [Verdict("a" * 64, "compressed", 1, "c", "o")])
with decisions._file.transaction() as database:
    database.execute("INSERT INTO turns VALUES ('half', '[]', 0)")
    os.kill(os.getpid(), 9)
"""


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_a_killed_process_loses_nothing_and_leaves_nothing_half(tmp_path):
    path = tmp_path / "decisions.sqlite"
    assert subprocess.run([sys.executable, "-c", KILLED, path]).returncode == -9
    with Decisions(path) as decisions:
        assert decisions.turns(["k", "half"]) == {"k": [Outcome(5, text="a" * 64)]}
        assert decisions.restore("a" * 64) == "o"


def test_settings_question_and_text_make_the_key():
    keys = [
        text_key([0.5], None, "a"),
        text_key([0.4], None, "a"),
        text_key([0.5], "q", "a"),
        text_key([0.5], None, "b"),
    ]
    assert len(set(keys)) == 4
    assert text_key([0.5], "a", "b") != text_key([0.5], "b", "a")
