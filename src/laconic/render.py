"""A compression as a heat map: for the terminal (ANSI) and as a self-contained HTML page."""

from __future__ import annotations

import html as escape
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from laconic.result import Compression, KeptPart

_DROPPED = "\x1b[2;9m"  # dim, struck through
_SHADES = ("\x1b[38;5;250m", "\x1b[38;5;157m", "\x1b[38;5;120m", "\x1b[1;38;5;46m")  # kept: the greener, the surer
_RESET = "\x1b[0m"
_HIDDEN = [*range(0x80, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)]  # C1 controls, bidi overrides
CONTROLS = {c: 0x2400 + c for c in range(0x20) if c not in (0x09, 0x0A)} | dict.fromkeys(_HIDDEN, 0xFFFD)
CONTROLS |= {0x7F: 0x2421, 0x0D: None}


def ansi(result: Compression, color: bool = True) -> str:
    """The whole text for a terminal; without color, dropped stretches stand in [- -]."""
    return "\n".join(_ansi_part(part) if color else _plain_part(part) for part in result.parts)


def _printable(text: str) -> str:
    """Control characters as their pictures: a document must not drive the terminal it is shown on."""
    return text.translate(CONTROLS).encode("utf-8", "replace").decode()


def _blank(text: str) -> str:
    """The white space a unit begins with."""
    return _printable(text[: len(text) - len(text.lstrip())])


def _ansi_part(part: KeptPart) -> str:
    out, last = [], ""
    for text, score, kept in part.units():
        style = _SHADES[_shade(score, len(_SHADES))] if kept else _DROPPED
        blank = _blank(text)
        change = (_RESET if last else "") + blank + style if style != last else blank
        out.append(change + _printable(text.lstrip()))
        last = style
    return "".join(out) + (_RESET if last else "")


def _plain_part(part: KeptPart) -> str:
    out, open_ = [], False
    for text, _, kept in part.units():
        blank = _blank(text)
        if kept == open_:  # a dropped stretch ends here, or begins
            out.append("-]" + blank if kept else blank + "[-")
            open_ = not kept
        else:
            out.append(blank)
        out.append(_printable(text.lstrip()))
    return "".join(out) + ("-]" if open_ else "")


def _shade(score: float, shades: int) -> int:
    return 0 if math.isnan(score) else min(shades - 1, max(0, int(score * shades)))


_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>laconic: {title}</title>
<style>
:root {{ color-scheme: light dark; --ink: #16202a; --paper: #fcfcfa; --dim: #8a929a; --keep: 34, 139, 94; }}
@media (prefers-color-scheme: dark) {{
  :root {{ --ink: #e6e9ec; --paper: #14181c; --dim: #767f88; --keep: 64, 190, 130; }}
}}
body {{ margin: 2rem auto; max-width: 52rem; padding: 0 1rem; color: var(--ink); background: var(--paper);
  font: 1rem/1.6 system-ui, sans-serif; }}
main {{ white-space: pre-wrap; overflow-wrap: anywhere; }}
mark {{ color: inherit; border-radius: .15em; background: rgba(var(--keep), var(--a)); }}
del {{ color: var(--dim); }}
.short del {{ display: none; }}
header {{ border-bottom: 1px solid var(--dim); margin-bottom: 1rem; padding-bottom: .5rem; }}
.a0 {{ --a: .08 }} .a1 {{ --a: .16 }} .a2 {{ --a: .26 }} .a3 {{ --a: .38 }} .a4 {{ --a: .52 }}
hr {{ border: 0; border-top: 1px dashed var(--dim); }}
</style>
<header>
<p><strong>{stats}</strong></p>
<p><mark class="a1">kept</mark>, <mark class="a4">kept, sure</mark>, <del>dropped</del>
<label><input type="checkbox" onchange="document.querySelector('main').classList.toggle('short')">
hide what was dropped</label></p>
</header>
<main>{body}</main>
</html>
"""


def html(result: Compression) -> str:
    """One HTML page: no scripts from elsewhere, light and dark, kept words tinted by their score."""
    stats = escape.escape(result.stats())
    body = "<hr>".join(_html_part(part) for part in result.parts)
    page = _PAGE.format(title=stats.split(",")[0], stats=stats, body=body)
    return page.encode("utf-8", "replace").decode()


def _html_part(part: KeptPart) -> str:
    out: list[str] = []
    last = ""
    for text, score, kept in part.units():
        tag = f'mark class="a{_shade(score, 5)}"' if kept else "del"
        if tag != last:
            out.append((f"</{last.split()[0]}>" if last else "") + f"<{tag}>")
        out.append(escape.escape(text.translate(CONTROLS)))
        last = tag
    return "".join(out) + (f"</{last.split()[0]}>" if last else "")
