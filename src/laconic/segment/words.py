"""Words: the plain tiling, one regular expression over the whole text.

A unit is a word or one punctuation mark with the white space before it. What would be a lie when cut (a number, a
date, a path, an identifier, a URL) is one unit. The expression is total and linear: every repeat is possessive or
bounded, and every position matches some alternative, so the lengths of the matches are the tiling.
"""

from __future__ import annotations

from functools import cache
from itertools import accumulate

import numpy as np
import regex

from laconic.text import Ints, Tiling

LONGEST = 256  # code points; a longer unbroken run is no word and is cut into pieces ...
LONGEST_NUMBER = 2000  # a run of digits (decimal, hexadecimal) stays whole up to here
PIECE = 64  # ... of at most this many

BLANK = r"[\s\x1c-\x1f]"  # str.isspace, which `laconic.text.mend` uses
_UNSPACED = r"\p{Han}\p{Hiragana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"  # scripts that put no blanks between words
_KANA = r"\p{Katakana}\u30fc"
_W = rf"[[\w\p{{N}}\u00ad]--[{_UNSPACED}{_KANA}]]"
_URL = rf"[[\w\-~/#@$&+=%]--[{_UNSPACED}{_KANA}]]"

# What joins two word characters into one unit. A full stop or comma at the end of a sentence joins nothing: the
# character after it must be one of a word.
_JOIN = r"""
    [-'\u2019./@\u2010\u2011\u00b7]                 # well-known, don't, a.b.c, src/app, me@home
  | (?<=\d)[,:\u2013+\uff0c\uff0e\uff1a\u066b\u066c](?=\d)   # 1,000  10:30  1990–2000  +02:00, full-width, Arabic
  | (?<=\d)[\u00a0\u202f](?=\d{3}(?!\d))          # 1 000 000 with no-break spaces
  | :(?=\d) | ::                                    # localhost:8080, std::vector
  | /[.*]{1,2}                                    # src/.git, src/*.py
  | \+(?=[\w.-]{1,64}@)                           # me+lists@example.com
  | (?<=\p{Lu})&(?=\p{Lu})                      # AT&T
  | (?<=\w)(?:\^|\*\*)[-+\u2212]?(?=\w)         # 10^-5, 2**8
"""
_RUNS = r"[!<>+*/%:~^|&-]=++ | [-=]> | <- | " + "|".join(f"{regex.escape(c)}{{2,}}+" for c in "-.=*~_#+!?<>&|:/`")
_BACKSLASH = r"| :?\\{1,2}"  # C:\Users\me

_HEAD = rf"""
    (?<![\w)\]}}])[-+\u2212\u00b1]?(?:\p{{Sc}}[-\u2212]?)?\.?(?=\d)   # -5  $1,000.50  .5
  | (?:[<>]=?|[!~]=|={{2,3}}|[\u2264\u2265\u2248\u2260])\ ?[-+\u2212]?(?:\p{{Sc}})?\.?(?=\d)   # >=2.0  < 5  !=1.26.4
  | [@\#$](?={_W})                                  # @name  #123  $HOME
  | (?<![\w/<.])(?:~|\.{{1,2}})?(?:/\.\.)*+/\.?(?={_W})   # /usr/bin  ./run  ../../lib  ~/notes
  | (?<![\w-])--?(?=[A-Za-z])                       # -v  --verbose
"""
_NUMBER = r"[0-9A-Fa-f]++"
_COMMAND = r"| \\(?=[A-Za-z])"  # \alpha
_SEPARATOR = r"\x85\u2028\u2029"
_TAIL = r"""
    (?<=\d)(?:[%\u2030\uff05\u2032\u2033\uffe5]|\u00b0[CFK]?|\p{Sc}|[\ \u00a0\u202f]%(?!\w))   # 50%  21°C  5€
  | (?<=[A-Za-z])(?:\+\+|\#)(?!\w)                  # C++  C#
  | /(?![\w/*>])                                    # src/
"""


@cache
def compiled(pattern: str, flags: int = 0) -> regex.Pattern[str]:
    """A pattern, compiled when first asked for: importing costs nothing."""
    return regex.compile(pattern, flags)


def _pattern(join: str, head: str, w: str = _W, first: str = "", after: str = "", blank: str = BLANK) -> str:
    """The expression for one unit; `w`: a word character, `first`: tried first, `after`: belongs to what it follows."""
    return rf"""(?V1){blank}*+(?:
    (?:{first}
    [A-Za-z]++(?={BLANK}|[,;!?)\]"]|\.{BLANK}|\z)   # most words of most texts
  | [()\[\]{{}},;"]|[<>](?![<>=-]|\ ?[-+]?\.?\d)|\.(?={BLANK}|\z)    # and most of their punctuation
  | (?>(?>https?|ftps?|file|wss?|ssh|git|s3|gs|jdbc)://|(?>mailto|urn):)(?:{_URL}++|[.,:;!?'*]++(?={_URL}|\()
        |\((?:{_URL}|[.,:;!?'*])*+\))++
  | (?:\p{{L}}\.){{2,8}}+(?!\w)                     # U.S.  e.g.
  | (?:{head})?{w}++(?:(?:{join}){w}++)*+(?:{_TAIL})?
  | [{_UNSPACED}]
  | [{_KANA}\u30fb\uff9e\uff9f]++
  | {_RUNS}                                        # ...  ==  ```
  | .){after}
  ) | {blank}++"""


@cache
def spoken() -> regex.Pattern[str]:
    """What is read aloud: words, and characters of scripts without blanks; no punctuation."""
    return regex.compile(rf"(?V1){_W}++|[{_UNSPACED}]|[{_KANA}]++")


@cache
def plain() -> regex.Pattern[str]:
    """Units of ordinary text."""
    return regex.compile(_pattern(_JOIN + _BACKSLASH, _HEAD + _COMMAND), regex.VERBOSE | regex.DOTALL)


# Inside a JSON string. An escape of a script without blanks (or half an emoji) is a character of its own.
_WIDE = r"\\u(?:[3-9A-Ca-c][0-9A-Fa-f]{3}|0[Ee]..|1[07]..|[Ff][9AFaf]..|[Dd][89ABab]..\\u[Dd][C-Fc-f]..)"
_JSON_BLANK, _INK = rf"[^\S{_SEPARATOR}]", rf"[\S{_SEPARATOR}]"
_JSON_W = rf"(?:{_W}|(?!{_WIDE})\\u....)"
_AFTER = rf"(?:\\[^u]|(?!{_WIDE})\\u....{_JSON_W}*+)*+(?:{_JSON_BLANK}*+[{_SEPARATOR}]{_INK}*+)*+"


@cache
def json_string() -> regex.Pattern[str]:
    """Units of what stands between the quotes of a JSON string: an escape belongs to the unit it touches.

    Only escapes of scripts without blanks (and of emoji) start units there, and then nothing else does up to the next
    blank. Line separators, legal in a JSON string and nowhere else in JSON, never start a unit.
    """
    first = rf"{_WIDE}(?:(?!{_WIDE})(?:\\.|{_INK}))*+ | \\[^u] |"
    return regex.compile(_pattern(_JOIN, _HEAD, _JSON_W, first, _AFTER, _JSON_BLANK), regex.VERBOSE | regex.DOTALL)


@cache
def json_opening() -> regex.Pattern[str]:
    """The quote that opens a JSON string, with what may not start a unit."""
    return regex.compile(f'(?V1)"{_AFTER}', regex.DOTALL)


@cache
def _joined() -> regex.Pattern[str]:
    """Stretches of characters that may continue a grapheme cluster; between two others one always ends."""
    kinds = ("Extend", "ZWJ", "SpacingMark", "Prepend", "Regional_Indicator", "L", "V", "T")
    joining = "[\\u0300-\\U0010ffff&&[" + "".join(rf"\p{{GCB={kind}}}" for kind in kinds) + "]]"
    return regex.compile(rf"(?V1){joining}++(?:.{joining}++)*+|(?<=\r)\n", regex.DOTALL)


@cache
def _grapheme() -> regex.Pattern[str]:
    return regex.compile(r"\X")


@cache
def _piece() -> regex.Pattern[str]:
    """A piece of a long run, ending after a separator where there is one."""
    return regex.compile(rf"(?s).{{16,{PIECE}}}(?<=[^\w])|.{{1,{PIECE}}}")


def words(text: str) -> Tiling:
    """Cut a text into words and punctuation marks; numbers, names, URLs and graphemes stay whole.

    >>> list(words("It isn't $3.75, see https://example.com/a?b=1."))
    ['It', " isn't", ' $3.75', ',', ' see', ' https://example.com/a?b=1', '.']
    """
    return Tiling(text, whole(text, word_bounds(text)))


def word_bounds(text: str) -> Ints:
    """Bounds of the units of `text` before `whole` has mended graphemes: int64[n + 1]."""
    units = plain().findall(text)
    return np.fromiter(accumulate(map(len, units), initial=0), np.int64, len(units) + 1)


def whole(text: str, bounds: Ints) -> Ints:
    """The bounds with none inside a grapheme cluster and no run longer than `LONGEST`."""
    bounds = within_graphemes(text, bounds)
    long = np.flatnonzero(np.diff(bounds) > LONGEST)
    if not len(long):
        return bounds
    cuts = [pieces(text, int(bounds[k]), int(bounds[k + 1])) for k in long]
    return np.unique(np.concatenate([bounds, *cuts]))


def within_graphemes(text: str, bounds: Ints) -> Ints:
    """The bounds without those inside a grapheme cluster."""
    inside = _inside(text)
    return bounds[~np.isin(bounds, inside)] if len(inside) else bounds


def _inside(text: str) -> Ints:
    """Positions strictly inside a grapheme cluster."""
    if text.isascii():  # words keep runs of white space whole, but pieces of structure may not
        return np.array([m.start() + 1 for m in regex.finditer("\r\n", text)], np.int64)
    found: list[int] = []
    for stretch in _joined().finditer(text):
        position = max(0, stretch.start() - 1)
        for cluster in _grapheme().findall(text[position : stretch.end() + 1]):
            found.extend(range(position + 1, position + len(cluster)))
            position += len(cluster)
    return np.array(found, np.int64)


def pieces(text: str, start: int, end: int) -> Ints:
    """Where to cut the run `text[start:end]`, white space before it aside: its graphemes are kept unless too long."""
    raw = text[start:end]
    core = start + len(raw) - len(raw.lstrip())
    if end - core <= LONGEST or (end - core <= LONGEST_NUMBER and compiled(_NUMBER).fullmatch(text, core, end)):
        return np.zeros(0, np.int64)
    lengths = [len(p) for p in _piece().findall(text, core, end)]
    cuts = core + np.cumsum(lengths, dtype=np.int64)
    run = text[core:end]
    if run.isascii():
        return cuts[:-1]
    return _on_graphemes(run, core, cuts[:-1])


def _on_graphemes(run: str, core: int, cuts: Ints) -> Ints:
    """Each cut moved to the start of its grapheme cluster; a cluster longer than `LONGEST` is cut hard."""
    ends = np.cumsum([len(g) for g in _grapheme().findall(run)], dtype=np.int64)
    starts = core + np.append(0, ends[:-1])
    moved = starts[np.searchsorted(starts, cuts, side="right") - 1]
    hard = [np.arange(s + LONGEST, e, LONGEST) for s, e in zip(starts, core + ends, strict=True) if e - s > LONGEST]
    return np.unique(np.concatenate([moved[moved > core], *hard]))
