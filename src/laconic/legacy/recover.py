"""Subsequence recovery as llmlingua 0.2.2 does it (LongLLMLingua, arXiv 2310.06839, section 4.4), its quirks included.

`laconic.restore` is ours; docs/methods.md has the differences.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict

from tokenizers import Tokenizer

_GAP = 10  # tokens between two neighbours of a stretch


def recover(tokenizer: Tokenizer, original: str, compressed: str, response: str) -> str:
    """The response with every run of words that the compressed prompt has replaced by tokens of the original, decoded.

    Words are what blanks separate. Quirk: a run need not end where words of the compressed prompt do ("a" is in "cat").
    """
    ids = tokenizer.encode(original, add_special_tokens=False).ids
    said, out, start = response.split(" "), [], 0
    while start < len(said):
        end = start + 1
        if said[start] in compressed:
            while end < len(said) and " ".join(said[start : end + 1]) in compressed:
                end += 1
            run = " ".join(said[start:end])
            wanted = tokenizer.encode(run, add_special_tokens=False).ids
            first, last = _stretch(ids, wanted)
            out.append(tokenizer.decode(ids[first:last], skip_special_tokens=False) if last else run)
        else:
            out.append(said[start])
        start = end
    return " ".join(out)


def _stretch(ids: list[int], wanted: list[int]) -> tuple[int, int]:
    """The shortest stretch of the ids with most of the wanted ones in their order; (0, 0) if there is none.

    Quirk: one that is more than `_GAP` away is passed over, and those after it are counted on.
    """
    places = defaultdict(list)
    for place, token in enumerate(ids):
        places[token].append(place)
    best, found = (-1, 0), (0, 0)
    for start in places.get(wanted[0], []) if wanted else []:
        count, end = 1, start
        for token in wanted[1:]:
            after = places.get(token, [])
            k = bisect_right(after, end)
            if k < len(after) and after[k] - end <= _GAP:
                count, end = count + 1, after[k]
        if (count, start - end) > best:
            best, found = (count, start - end), (start, end + 1)
    return found
