"""Structure: what is kept stays usable, and prose is not taken for anything else."""

from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from laconic.segment import segment
from test_segment_json import choose, closure, render


def units(text: str) -> list[str]:
    return [unit.strip() for unit in segment(text).tiling]


def marks(text: str) -> list[str]:
    seg = segment(text)
    return [unit.strip() for unit, mark in zip(seg.tiling, seg.mark, strict=True) if mark]


def keep(text: str, *wanted: str) -> str:
    """What choosing the first unit of each text alone brings along."""
    seg = segment(text)
    found = units(text)
    return render(seg, closure(seg, {found.index(unit) for unit in wanted}))


PYTHON = '''"""Reads things.

Not only words here.
"""

from __future__ import annotations

import os, sys
from a.b import (
    c,
    d,
)


class Reader(Base):
    """It reads."""

    limit: int = 3

    @property
    def size(self) -> int:
        # how large it is
        if self.limit > 3 and not self.done:
            return len(self.items)
        return 0


x = {"a": 1,
     "b": [2, 3]}
if __name__ == "__main__":
    main(sys.argv[1:])
'''
C = """#include <stdio.h>

/* the main
 * function */
static int add(int a, int b) {
    return a + b;  // sum
}

int main(void)
{
    for (int i = 0; i < 3; i++) {
        printf("%d is not %d\\n", i, add(i, 1));
    }
    return 0;
}
"""
JAVASCRIPT = """import { a } from './a.js';

const total = (items) => {
  return items.reduce((sum, item) => sum + item.price, 0);
};

export default function main() {
  if (total([]) === 0) {
    console.log('none');
  } else {
    console.log("some");
  }
}
"""


@pytest.mark.parametrize("code", [PYTHON, C, JAVASCRIPT], ids=["python", "c", "javascript"])
def test_source_files_go_by_line(code: str) -> None:
    lines = [line.strip() for line in code.splitlines() if line.strip()]
    whole = set(units(code))
    assert [line for line in lines if line not in whole] in ([], ["int main(void)"])


PROSE = """If you want to know, ask: the answer is in the book; it always was (or so they say).
For example, with 3 apples = 3 dollars we can go. Class dismissed. From here to there, import taxes rise.
Return the book while you can. Try again: it works. The function f(x) is not linear in x, and a < b > c holds.
We let go. Use it. Public opinion (as ever) shifted - slowly - towards the private sector; static: none.
He wrote 5 * 3 * 2 on the board. Some_name and __init__ are words. An ERROR occurred. This is not good_or_bad.
    And then, after a while, a line that somebody indented for no reason at all, ends here.
"""


def test_prose_has_no_structure() -> None:
    seg = segment(PROSE)
    assert not seg.mark.any() and not seg.pinned.any() and not len(seg.commas)
    assert max(len(unit) for unit in seg.tiling) < 25


def test_a_fence_keeps_its_lines_fenced() -> None:
    text = "Run this:\n\n```python\nx = 1  # not two\ny = 2\n```\nThen go."
    assert marks(text) == ["```python", "```"]
    assert keep(text, "y = 2") == "```python\ny = 2\n```"
    assert "x = 1  # not two" in units(text)


def test_an_open_fence_reaches_to_the_end() -> None:
    assert units("```\nfoo bar\nbaz qux")[1:] == ["foo bar", "baz qux"]


def test_indented_code() -> None:
    assert "total = add(a, b)" in units("Do this::\n\n    total = add(a, b)\n    print total\n\nThen stop.")
    assert "print total" in units("Do this::\n\n    total = add(a, b)\n    print total\n\nThen stop.")


@pytest.mark.parametrize(
    ("text", "word", "kept"),
    [
        ("## The big title\nText", "big", "## big"),
        ("Buy:\n- some milk\n- [ ] fresh eggs\n", "eggs", "- [ ] eggs"),
        ("1. one thing\n2. another thing", "another", "2. another"),
        ("> quoted words here\nand more", "words", "> words"),
        ("Big Title\n=========\n\nText", "Title", "Title\n========="),
        ("USER: please help me\nSYSTEM: of course", "help", "USER: help"),
        ("Project Manager: so um we go\nMarketing: yes", "go", "Project Manager: go"),
        ("Speaker 2: one line\nand its second line\n\nother", "second", "Speaker 2:\nsecond"),
        ("We need **very strong** words", "strong", "**very strong**"),
        ("2024-05-15 15:00:00,123 - app - ERROR - disk is full\nnext", "disk", "ERROR disk"),
        ("[WARN] cache miss ratio high\nok", "ratio", "[WARN] ratio"),
        ("<p>Hello <b>big</b> world</p>", "big", "<p> <b>big</b></p>"),
        ("<doc>\n<title>One thing</title>\n<body>More here</body>\n</doc>", "More", "<doc>\n<body>More</body>\n</doc>"),
    ],
)
def test_words_bring_their_markers(text: str, word: str, kept: str) -> None:
    assert keep(text, word) == kept


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("Use `pip install laconic -U` now", "`pip install laconic -U`"),
        ("See ``a b`` there", "``a b``"),
        ("Set PATH=/usr/bin:/bin first", "PATH=/usr/bin:/bin"),
        ('it has name="two words" set', 'name="two words"'),
        ('An <img src="a b.png" alt="x"/> here', '<img src="a b.png" alt="x"/>'),
        ("so <!-- hidden words --> there", "<!-- hidden words -->"),
        ('a [link text](https://a.b/c_(d) "title") here', '](https://a.b/c_(d) "title")'),
        ("call __init__ now", "__init__"),
        ("2024-05-15 15:00:00 INFO start", "2024-05-15 15:00:00"),
    ],
)
def test_inline_atoms(text: str, unit: str) -> None:
    assert unit in units(text)


def test_a_link_keeps_both_brackets_or_its_words_alone() -> None:
    text = "see [the long guide](https://a.b) now"
    assert keep(text, "guide") == "guide"
    assert keep(text, "guide", "](https://a.b)") == "[ guide](https://a.b)"


def test_less_than_is_no_tag() -> None:
    assert not segment("if a < b and c > d then <3 you").mark.any()


def test_tags_stay_balanced() -> None:
    rng = random.Random(5)
    text = "<a><b>one two</b> three <br/> <c x='1'>four <d>five</d></c></a> six <e> seven </f>"
    for _ in range(200):
        kept = choose(segment(text), 0.2, rng)
        for tag in "abcd":
            assert kept.count(f"<{tag}>") + kept.count(f"<{tag} ") == kept.count(f"</{tag}>")


def test_table_rows_bring_the_header() -> None:
    text = "| Name | Price |\n|------|-------|\n| tea  | $3.75 |\n| milk | $1.20 |\n\nDone."
    assert keep(text, "| milk | $1.20 |") == "| Name | Price |\n|------|-------|\n| milk | $1.20 |"


def test_a_python_traceback_stays_one() -> None:
    text = (
        'It failed:\n\nTraceback (most recent call last):\n  File "a.py", line 3, in <module>\n    main()\n'
        '  File "b.py", line 9, in main\n    return 1 / 0\n           ~~^~~\nZeroDivisionError: division by zero\n\nOh'
    )
    frame = 'File "b.py", line 9, in main\n    return 1 / 0\n           ~~^~~'
    kept = keep(text, frame)
    assert kept.startswith("Traceback (most recent call last):\n")
    assert kept.endswith("\nZeroDivisionError: division by zero")
    assert "line 3" not in kept and "return 1 / 0" in kept


def test_java_and_javascript_frames_bring_the_error() -> None:
    java = 'Exception in thread "main" a.IllegalStateException: no\n\tat com.a.B.c(B.java:12)\n\tat com.a.D.e(D.java:7)'
    kept = keep(java, "at com.a.D.e(D.java:7)")
    assert kept == 'Exception in thread "main" a.IllegalStateException: no\n\tat com.a.D.e(D.java:7)'
    node = "TypeError: x is not a function\n    at main (/app/a.js:3:5)\n    at /app/b.js:9:1\n"
    assert keep(node, "at /app/b.js:9:1") == "TypeError: x is not a function\n    at /app/b.js:9:1"


def test_a_huge_line_falls_back_to_words() -> None:
    text = "```\n" + "let x = 1; " * 400 + "\n```"
    assert len(segment(text).tiling) > 1000


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_any_choice_of_hunks_applies(tmp_path: Path) -> None:
    def git(*words: str, feed: str = "") -> str:
        command = ["git", "-C", str(tmp_path), *words]
        done = subprocess.run(command, input=feed, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    git("init", "-q")
    names = ["one.txt", "two.txt"]
    for name in names:
        (tmp_path / name).write_text("".join(f"line {k}\n" if k % 7 else "\n" for k in range(80)))
    git("add", ".")
    for name in names:
        lines = (tmp_path / name).read_text().splitlines(keepends=True)
        lines[5] = "- changed\n"
        lines[30:32] = ["@@ new @@\n", "   \n", "\n"]
        lines[55] = ""
        lines[-1] = "no line break"
        (tmp_path / name).write_text("".join(lines))
    patch = git("diff")
    git("checkout", "-q", ".")
    seg = segment("I changed this:\n\n" + patch)
    hunks = [k for k, unit in enumerate(seg.tiling) if unit.startswith("@@ -")]
    assert len(hunks) == 8
    rng = random.Random(1)
    for size in (1, 1, 2, 3, 5, 8):
        kept = render(seg, closure(seg, set(rng.sample(hunks, size))))
        git("apply", "--check", "-", feed=kept.lstrip("\n"))


def test_keeping_everything_keeps_the_text() -> None:
    for text in (PYTHON, PROSE, "# T\n\n| a |\n|---|\n| b |\n\n- x **y**\n"):
        seg = segment(text)
        assert render(seg, np.ones(len(seg.tiling), bool)) == text


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("So 80 - 60 + 95 = 235 people came.", " 80 - 60 + 95 = 235"),
        ("She pays (12 + 4) * $1.50 = $24.00.", " (12 + 4) * $1.50 = $24.00"),
        ("That cost 15,000+7,500=$22,500.", " 15,000+7,500=$22,500"),
        ("A third (see 3 + 4) is left", " 3 + 4"),
        ("Half: 16 \u2013 3 \u00d7 4 \u00f7 2 = 10", " 16 \u2013 3 \u00d7 4 \u00f7 2 = 10"),
        ("with a=1,500, it fits", " a=1,500"),
    ],
)
def test_a_sum_is_one_fact(text, unit):
    assert unit in list(segment(text).tiling)


@pytest.mark.parametrize("text", ["5 - apples", "3 x", "x - 3 apples", "1 - 2 - 3 - 4x"])
def test_what_is_no_sum_is_cut_as_words_are(text):
    assert all(" " not in unit.strip() or unit.strip() == "1 - 2 - 3" for unit in segment(text).tiling)
