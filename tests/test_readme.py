"""What the README shows is what happens."""

from __future__ import annotations

from pathlib import Path

import laconic

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_statistics_and_the_excerpt_are_real():
    text = (ROOT / "examples" / "constitution-article-1.txt").read_text(encoding="utf-8")
    c = laconic.compress(text, rate=0.4)
    assert c.stats().rsplit(",", 1)[0] in README  # all but the seconds
    start = "> Representatives and direct Taxes apportioned"
    shown = next(line for line in README.splitlines() if line.startswith(start))
    assert shown.removeprefix("> ").removesuffix(" …") in c.text


def test_what_answers_the_question_is_real():
    text = (ROOT / "examples" / "constitution-article-1.txt").read_text(encoding="utf-8")
    question = README.split('--question "')[1].split('"')[0]
    assert laconic.compress(text, rate=0.06, question=question).text.rstrip() in README


def test_the_changelog_knows_the_version():
    assert f"## {laconic.__version__} " in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
