"""Code without a fence: which lines are surely code, and how far a block of it reaches."""

from __future__ import annotations

import regex

from laconic.segment.plan import Plan
from laconic.segment.words import compiled

DOCSTRING = 4000  # code points; a longer quotation is taken for one that was never closed

# A verbose expression for a line that prose does not write. Each alternative is linear: a look-ahead for how the line
# ends, then one for what it holds.
CODE = r"""(?=[^\n]{1,400}+$)(?=[^\S\n]*+\S)[^\S\n]*+(?:
    (?:async\ +)?(?:def|fn|func|function)\ +[\w.*]+\ *[(<]
  | class\ +\w+\ *(?:[({:]|extends\b|implements\b)
  | import\ +[\w.]++(?:\ +as\ +\w++)?(?:,\ *[\w.]++)*+\ *;?$ | import\ [^\n]{0,200}?\ from\ ["']
  | from\ +[\w.]++\ +import\ +[\w(*]
  | (?:if|elif|while|for|with|switch|catch)\b(?=[^\n]*[:{]\ *$)
      (?=[^\n]*?(?:[=!<>]=|\w\(|\w\.\w|\w_\w|\[|\ in\ \w++:))
  | (?:else|try|finally|do)\ *[:{]\ *$
  | return\ +[\w.]++\ *[(\[;.+*/]
  | \#\ *(?:include\ *["<]|define\ |ifdef\ |ifndef\ |endif\b|pragma\ ) | \#!/
  | (?:public|private|protected|static|final|const|let|var|struct|enum|interface|namespace|using|typedef|extern|void|int
      |char|bool|double|float|auto|template|export|package|impl|pub|use)\b(?=[^\n]*[;{(=,]\ *$)
  | (?:const|let|var|int|char|float|double|bool)\ +[\w*]++\ *=
  | @[\w.]++(?:\([^\n]*\))?\ *$
  | [\w.]++(?:\[[^\]\n]*+\])?(?:,\ *[\w.]++){0,4}+(?::\ *[\w.\[\],\ |]{1,40}?)?\ *(?:[-+*/|&%]|:|//)?=(?![=~])
      \ *[\w"'(\[{*&!.-]
  | [\w.]++\([^\n]*\)\ *[;{:]?\ *$
  | (?=[^\n]*[)\]}"'\w];\ *$)(?=[^\n]*[=(])(?![^\n]*\w\ \w++\ \w++\ \w++\ )[\w*}(]
  | >>>\ | \$\ +[a-z] | //(?!\w) | /\* | \*/ | r?\"{3}(?!") | r?'{3}[^\s']
  | [\])}]++[;,:]?(?:\ *(?:else|catch|finally)\b[^\n]*)?\ *\{?\ *$ | \{\ *$
  )[^\n]*+$"""

# What only continues code, at its own indent.
_STATEMENT = r"(?:#|//|\*|(?:raise|assert|del|yield|pass|break|continue|return|global|nonlocal|end|done|fi)\b)"

# What closes what a line at the same indent has opened.
_CLOSES = r"[\])}]|(?:except|finally|catch|rescue|ensure|end|fi|done|esac)\b"

# An indented line that is code: no five words in a row, and a mark that prose does not carry.
_INDENTED = r"(?![^\n]*\w \w++ \w++ \w++ \w)(?=[^\n]*(?:\w[({\[]|\s[-+*/:]?=\s|[;{}]\s*$|->|::|\w_\w))"


def plan_code(plan: Plan, start: int, literal: bool = False) -> int:
    """Plan the block of code that opens with the line at `start`, each line one unit; returns its end.

    A `literal` block reaches as far as its indent; any other as far as its lines look like code.
    """
    end = _block_end(plan.text, start, literal)
    code_lines(plan, start, end)
    plan.claim(start, end)
    return end


def code_lines(plan: Plan, start: int, end: int) -> None:
    """Every line one unit; what stands inside something needs it, and what opens something needs its first line.

    So a body never moves under another header, a header never stands bare, brackets and long strings are closed: what
    is kept of Python mostly still parses.
    """
    around: list[tuple[int, int, bool]] = []  # (indent, position, has it a body yet?) of the lines around
    quoted, opening = "", -1
    for line in compiled(r"\S[^\n]*+").finditer(plan.text, start, end):
        position, core = line.start(), line.group().rstrip()
        plan.line(position, position + len(core))
        if quoted:  # the lines of a long string need its first, which needs its last
            plan.need(position, position + len(core), opening)
            if not (quoted := _quote(core, quoted, "")):
                plan.pair(opening, position)
            continue
        blank = plan.text[plan.text.rfind("\n", 0, position) + 1 : position]
        _nest(plan, around, len(blank.expandtabs()), position, core)
        quoted, opening = _quote(core, "", plan.text[position + len(core) : position + DOCSTRING]), position


def _nest(plan: Plan, around: list[tuple[int, int, bool]], indent: int, position: int, core: str) -> None:
    while around and around[-1][0] > indent:
        around.pop()
    if around and around[-1][0] == indent:
        _, sibling, body = around.pop()
        if body and compiled(_CLOSES).match(core):
            plan.pair(sibling, position)
        elif body and compiled(r"(?:else|elif)\b").match(core):
            plan.need(position, position + len(core), sibling)
    if around:
        outer, parent, body = around[-1]
        plan.need(position, position + len(core), parent)
        if not body:
            plan.pair(parent, position)
            around[-1] = (outer, parent, True)
    around.append((indent, position, False))


def looks_indented(text: str, start: int) -> bool:
    """Is the indented line whose content begins at `start` code?"""
    return bool(compiled(_INDENTED, regex.MULTILINE).match(text, start, start + 400))


def _block_end(text: str, start: int, literal: bool) -> int:
    lines = compiled(r"(?P<indent>[^\S\n]*+)(?P<core>[^\n]*+)(?:\n|\Z)")
    position = end = start
    base, quoted, gap = -1, "", False
    while position < len(text) and (line := lines.match(text, position)):
        indent = len(line["indent"])
        base = indent if base < 0 else base
        if line["core"]:
            deeper = indent > base or (indent == base > 0 and (literal or not gap))
            inside = quoted or deeper or position == start
            if not inside and (literal or not _continues(text, line, base)):
                break
            end = line.end("core")
            quoted = _quote(line["core"], quoted, text[end : end + DOCSTRING])
        gap = not line["core"]
        position = line.end()
    return end


def _continues(text: str, line: regex.Match[str], base: int) -> bool:
    """Does a line that is no further in than the block's first belong to the block?"""
    if compiled(CODE, regex.VERBOSE | regex.MULTILINE).match(text, line.start()):
        return True
    return len(line["indent"]) == base and bool(compiled(_STATEMENT).match(line["core"]))


def _quote(line: str, quoted: str, following: str) -> str:
    """The triple quote that is open after this line, or nothing: a docstring is part of its block."""
    for mark in ('"""', "'''"):
        if quoted in ("", mark) and line.count(mark) % 2:
            return mark if not quoted and mark in following else ""
    return quoted
