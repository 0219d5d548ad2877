"""Text into units, and the rules that keep what is chosen from them usable.

| recognised | unit | rule | why |
|---|---|---|---|
| number, date, version, identifier, URL, path, grapheme | one each | | half a fact is a lie |
| negation | the word | words of its clause need it | its loss turns the clause round |
| JSON: text, line, fence, labelled | member, bracket, comma, word of a long string | inner needs outer | it parses |
| fence | line | lines need both fences | the reader sees that it is code |
| code, also in a fence | line | needs the header above it, which needs a body | it stays where it was |
| unified diff | hunk (lines, if it is most of the text) | needs its file's header | `git apply` takes it |
| traceback | frame | needs header and exception | a place without its error says nothing |
| heading, list item, quotation | marker | the words of the line need it | they stay what they were |
| table | row | needs the header and the rule under it | columns keep their names |
| setext and RST title | underline | the title needs it | it stays a title |
| speaker label | `Name:` | the words of the turn need it | who said it |
| log line | level, time stamp | words need the level | an error stays an error |
| tag | whole | words need the element around; both ends go together | it stays balanced |
| emphasis | marker, the opening one with its word | words need both | it stays balanced |
| link | `[`, `](target)` | both or neither | it stays a link, or its text |
| code span, `key=value` | whole | | a name and its value are one fact |
| `3 * $4 = $12` | whole | | without one of its numbers or signs it is another sum |
"""

from __future__ import annotations

import numpy as np

from laconic.segment.jsons import is_json, plan_json
from laconic.segment.lines import plan_lines
from laconic.segment.markup import plan_markup
from laconic.segment.negation import negated
from laconic.segment.plan import Plan, Rules, Segmentation
from laconic.segment.sentences import sentences
from laconic.segment.words import words

__all__ = ["Rules", "Segmentation", "segment", "sentences", "words"]


def segment(text: str, structure: bool = True) -> Segmentation:
    """Cut a text into units with the rules that hold between them.

    `structure=False` gives the plain words and no rules.

    >>> s = segment("- It does not fit.")
    >>> list(s.tiling), s.mark.tolist()
    (['-', ' It', ' does', ' not', ' fit', '.'], [True, False, False, False, False, False])
    >>> s.needs.tolist()
    [[1, 0], [1, 3], [2, 0], [2, 3], [3, 0], [4, 0], [4, 3], [5, 0]]
    """
    plan = Plan(text)
    if not structure:
        return plan.build(words(text).bounds, np.zeros((0, 2), np.int64))
    if is_json(text):
        start = len(text) - len(text.lstrip())
        plan.pinned += plan_json(plan, start, len(text.rstrip()))
        bounds = np.array([0, len(text)], np.int64)
    else:
        plan_lines(plan)
        plan_markup(plan)
        bounds = words(text).bounds
    return plan.build(bounds, negated(text, plan.prose() + plan.spoken))
