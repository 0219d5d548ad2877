"""JSON in which only some strings change."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from laconic.serve.literals import DEEPEST, UnreadableError, depth, parsed, replaced

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
keys = st.text(max_size=3) | st.sampled_from(['"', "\\", "{", "]", ",", ":", "é"])
values = st.recursive(
    scalars | st.text() | keys, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4)
)


def strings(value, path=()):
    """(path, text) of every string in a parsed value."""
    if isinstance(value, str):
        yield path, value
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield from strings(item, (*path, key))


def put(value, path, text):
    """The value with one string replaced."""
    if not path:
        return text
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = put(value[path[0]], path[1:], text)
    return copy


@given(values, st.booleans(), st.sampled_from([None, 1, "\t"]), st.data())
def test_the_strings_that_are_named_change_and_nothing_else(value, ascii, indent, data):
    body = json.dumps(value, ensure_ascii=ascii, indent=indent).encode(errors="surrogatepass")
    paths = [path for path, _ in strings(value)]
    chosen = data.draw(st.lists(st.sampled_from(paths), unique=True) if paths else st.just([]))
    new = {path: data.draw(st.text()) for path in chosen}
    expected = value
    for path, text in new.items():
        expected = put(expected, path, text)
    assert json.loads(replaced(body, new).decode(errors="surrogatepass")) == expected


@given(values, st.sampled_from([None, 2]))
def test_nothing_is_replaced_byte_for_byte_by_itself(value, indent):
    body = json.dumps(value, ensure_ascii=True, indent=indent).encode()
    assert replaced(body, dict(strings(value))) == body


AWKWARD = (
    b'{ "a":[1.0, 1e5,\t-0.0,1234567890123456789], "\\u0061b" : "\\/x\\u00e9", "d":1, "d": {"d":"D\\"D"},"t":"old"}\n'
)


def test_every_other_byte_stays():
    assert replaced(AWKWARD, {("t",): 'n"e\nw'}) == AWKWARD.replace(b'"old"', b'"n\\"e\\nw"')
    assert replaced(AWKWARD, {("ab",): "y"}) == AWKWARD.replace(b'"\\/x\\u00e9"', b'"y"')
    assert replaced(AWKWARD, {("d", "d"): "y"}) == AWKWARD.replace(b'"D\\"D"', b'"y"')


def test_of_a_key_that_comes_twice_the_last_one_is_replaced():
    assert replaced(b'{"a":"x","a":"x"}', {("a",): "y"}) == b'{"a":"x","a":"y"}'


@pytest.mark.parametrize(
    ("old", "new", "literal"),
    [("x", "é", b'"\\u00e9"'), ("é", "ü", '"ü"'.encode()), ("é", "\ud800", b'"\\ud800"'), ("é", "\x00", b'"\\u0000"')],
)
def test_a_text_is_written_as_the_client_writes(old, new, literal):
    body = json.dumps([old], ensure_ascii=False).encode()
    assert replaced(body, {(0,): new}) == b"[" + literal + b"]"


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "malformed"),
        (b"{", "malformed"),
        (b'{"a": NaN}', "malformed"),
        (b'{"a": 1} x', "malformed"),
        (b"\xef\xbb\xbf{}", "malformed"),
        (b'{"a": ' + b"1" * 5000 + b"}", "malformed"),
        (b'"' + b'\\"' * 200_000, "malformed"),
        ('{"a": "é"}'.encode("latin-1"), "encoding"),
        ('{"a": "é"}'.encode("utf-16"), "encoding"),
        (b"[" * 100_000, "deep"),
        (b"[" * (DEEPEST + 1) + b"]" * (DEEPEST + 1), "deep"),
        (b'{"a":' * (DEEPEST + 1) + b"1" + b"}" * (DEEPEST + 1), "deep"),
        (b'"' + b"x" * 1_000_000 + b'"', "large"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_cannot_be_read_says_why(body, why):
    with pytest.raises(UnreadableError, match=f"^{why}$"):
        parsed(body, 1_000_000)


def test_brackets_in_strings_are_not_deep():
    assert parsed(b'["' + b"[" * 1000 + b'"]', 5000) == ["[" * 1000]
    assert parsed(b"[" * DEEPEST + b"]" * DEEPEST, 5000)
    assert depth(b'{"a": [{"b": "\\"]}"}, []]}') == 3
