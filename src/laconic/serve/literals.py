"""JSON whose strings are replaced in place: every other byte stays what it was.

Numbers, white space, the order of keys, keys that come twice, and escapes are the client's; a parser and a writer would
change them, and with them what an upstream hashes or signs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import Any, NoReturn

from laconic.serve.parts import Path

DEEPEST = 100  # brackets inside brackets; real requests have ten
_STRING = rb'"[^"\\]*(?:\\.[^"\\]*)*"'
_STRINGS = re.compile(_STRING, re.DOTALL)
_TOKENS = re.compile(_STRING + rb"|[\[\]{},:]", re.DOTALL)
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


class UnreadableError(Exception):
    """A body that is forwarded as it came; the argument is a key of `report.WHOLE`."""


def parsed(body: bytes, largest: int) -> Any:
    """The value of a JSON text in UTF-8 of at most `largest` bytes; UnreadableError says what is wrong with it."""
    if len(body) > largest:
        raise UnreadableError("large")
    try:
        value = json.loads(body.decode(), parse_constant=_refuse)
    except UnicodeDecodeError:
        raise UnreadableError("encoding") from None
    except RecursionError:
        raise UnreadableError("deep") from None
    except ValueError:
        raise UnreadableError("malformed") from None
    if depth(body) > DEEPEST:
        raise UnreadableError("deep")
    return value


def depth(body: bytes) -> int:
    """How deep brackets are nested in valid JSON; in linear time, because every string in it ends.

    >>> depth(b'{"a": [1, "]]{"]}')
    2
    """
    brackets = _STRINGS.sub(b"", body).translate(None, _NO_BRACKETS)
    return max(accumulate(1 if bracket in b"[{" else -1 for bracket in brackets), default=0)


def replaced(body: bytes, new: Mapping[Path, str]) -> bytes:
    """Valid JSON with the strings at these paths replaced; of a key that comes twice the last one, which counts.

    >>> replaced(b'{"a": ["x",  1.0 ]}', {("a", 0): "y"})
    b'{"a": ["y",  1.0 ]}'
    """
    spans = {path: span for path, span in _strings(body) if path in new}
    pieces, position = [], 0
    for path, (start, end) in sorted(spans.items(), key=lambda item: item[1]):
        pieces += [body[position:start], _literal(new[path], body[start:end])]
        position = end
    return b"".join([*pieces, body[position:]])


def _strings(body: bytes) -> Iterator[tuple[Path, tuple[int, int]]]:
    """(path, (start, end)) of every string that is a value, in order; `end` is behind the closing quote."""
    path: list[str | int] = []
    at_key = False
    for token in _TOKENS.finditer(body):
        mark = chr(body[token.start()])
        if mark in "[{":
            at_key = mark == "{"
            path.append("" if at_key else 0)
        elif mark in "]}":
            at_key = False
            path.pop()
        elif mark == ",":
            last = path[-1]
            at_key = isinstance(last, str)
            path[-1] = last if isinstance(last, str) else last + 1
        elif at_key and mark == '"':
            path[-1], at_key = json.loads(token.group()), False
        elif mark == '"':
            yield tuple(path), token.span()


def _literal(text: str, old: bytes) -> bytes:
    """The text in JSON; in ASCII where the old literal was, or where only escapes can say it (lone surrogates)."""
    if not old.isascii():
        try:
            return json.dumps(text, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            pass
    return json.dumps(text).encode()


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")
