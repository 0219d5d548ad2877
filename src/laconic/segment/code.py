"""Code without a fence: which lines are surely code, and how far a block of it reaches."""

from __future__ import annotations

from functools import cache

import regex

# A verbose expression for a line that prose does not write; looked for on lines of at most 400 code points. Each
# alternative is linear: a look-ahead for how the line ends, then one for what it holds.
CODE = r"""(?=[^\n]{1,400}+$)(?=[^\S\n]*+\S)[^\S\n]*+(?:
    (?:async\ +)?(?:def|fn|func|function)\ +[\w.*]+\ *[(<]
  | class\ +\w+\ *(?:[({:]|extends\b|implements\b)
  | import\ +[\w.]++(?:\ +as\ +\w++)?(?:,\ *[\w.]++)*+\ *;?$ | from\ +[\w.]++\ +import\ +[\w(*] | import\ .{0,200}?\ from\ ["']
  | (?:if|elif|while|for|with|switch|catch)\b(?=[^\n]*[:{]\ *$)(?=[^\n]*?(?:[=!<>]=|\w\(|\w\.\w|\w_\w|\[|\ in\ \w++:))
  | (?:else|try|finally|do)\ *[:{]\ *$
  | return\ +[\w.]++\ *[(\[;.+*/]
  | \#\ *(?:include\ *["<]|define\ |ifdef\ |ifndef\ |endif\b|pragma\ ) | \#!/
  | (?:public|private|protected|static|final|const|let|var|struct|enum|interface|namespace|using|typedef|extern|void|int
      |char|bool|double|float|auto|template|export|package|impl|pub|use)\b(?=[^\n]*[;{(=,]\ *$)
  | (?:const|let|var|int|char|float|double|bool)\ +[\w*]++\ *=
  | @[\w.]++(?:\([^\n]*\))?\ *$
  | [\w.]++(?:\[[^\]\n]*+\])?(?:,\ *[\w.]++){0,4}+(?::\ *[\w.\[\],\ |]{1,40}?)?\ *(?:[-+*/|&%]|:|//)?=(?![=~])\ *[\w"'(\[{*&!.-]
  | [\w.]++\([^\n]*\)\ *[;{:]?\ *$
  | (?=[^\n]*[)\]}"'\w];\ *$)(?=[^\n]*[=(])(?![^\n]*\w\ \w++\ \w++\ \w++\ )[\w*}(]
  | >>>\ | \$\ +[a-z] | //(?!\w) | /\* | \*/ | r?\"\"\" | r?'''
  | [\])}]++[;,:]?(?:\ *(?:else|catch|finally)\b[^\n]*)?\ *\{?\ *$ | \{\ *$
  )[^\n]*+$"""


@cache
def _line() -> regex.Pattern[str]:
    return regex.compile(CODE, regex.VERBOSE | regex.MULTILINE)


@cache
def _weak() -> regex.Pattern[str]:
    """What continues a block: an indented line or a comment."""
    return regex.compile(r"(?:[^\S\n]++\S|#|//|\*)[^\n]*+")


def code_block(text: str, start: int) -> int:
    """Where the block of code that opens with the line at `start` ends; a quoted docstring is part of it."""
    position = end = start
    quoted = ""
    while position < len(text):
        stop = text.find("\n", position)
        stop = len(text) if stop < 0 else stop
        line = text[position:stop]
        if quoted or _line().match(text, position) or _weak().match(text, position):
            quoted = _quote(line, quoted)
            end = stop
        elif line.strip():
            break
        position = stop + 1
    return end


def _quote(line: str, quoted: str) -> str:
    """The triple quote that is open after this line, or nothing."""
    for mark in ('\"\"\"', "'''"):
        if quoted in ("", mark) and line.count(mark) % 2:
            return "" if quoted else mark
    return quoted
