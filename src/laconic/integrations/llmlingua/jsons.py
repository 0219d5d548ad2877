"""`compress_json`: the strings in a JSON object as segments, and the object with shorter strings."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

from laconic.errors import InputError, MissingExtraError
from laconic.integrations.llmlingua.structured import Context, Segment

_ENTRY = ("rate", "compress", "value_type", "pair_remove")
_BOOLS = {"True": True, "true": True, "TRUE": True, "False": False, "false": False, "FALSE": False}


class Pairs:
    """The pairs of an object as contexts: the key stays, each string in the value is a segment with the pair's rate.

    config: for each key `rate` (default: the one given here), `compress` (True), `value_type` (as it is) and
    `pair_remove` (False: the filter of pairs never takes it); a dict, or the path of a JSON or YAML file. Of a pair
    with `compress=False` or rate 1 nothing changes. Numbers, booleans, null and keys stay whatever the rate, and so
    does the nesting.
    """

    def __init__(self, data: Mapping[str, Any], config: str | Mapping[str, Any], rate: float) -> None:
        entries = _entries(data, config)
        self._keys = list(data)
        self._values: list[Any] = []
        self.contexts: list[Context] = []
        self.forced = [k for k, key in enumerate(data) if not entries[key].get("pair_remove")]
        for key, value in data.items():
            entry = entries[key]
            share = entry.get("rate", rate) if entry.get("compress", True) else 1
            self._values.append(value if share == 1 else _typed(key, value, entry.get("value_type")))
            self.contexts.append(_context(key, self._values[-1], share))

    def rebuilt(self, order: Sequence[int], texts: Sequence[str]) -> dict[str, Any]:
        """The object of these pairs; `texts`: of all their segments, in order."""
        stops = [0, *accumulate(len(self.contexts[k]) for k in order)]
        rows = [texts[a:z] for a, z in pairwise(stops)]
        return {self._keys[k]: _refilled(self._values[k], iter(row[1::2])) for k, row in zip(order, rows, strict=True)}


def dumped(value: Any) -> str:
    """A value as JSON, other scripts as they are."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(f"json_data cannot be written as JSON ({error}); change what cannot") from None


def _context(key: str, value: Any, share: float) -> Context:
    """[the key, a string, a separator, a string, a separator …], the strings being those in the value."""
    found = [Segment(f"{dumped(key)}: ", 1, compress=False)]
    for leaf in _leaves(value):
        found += [Segment(leaf, share, compress=share != 1), Segment(", ", 1, compress=False)]
    return found


def _leaves(value: Any) -> Iterator[str]:
    """The strings in a value, keys aside, in order."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _leaves(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _leaves(inner)


def _refilled(value: Any, texts: Iterator[str]) -> Any:
    """The value with other strings in the same places."""
    if isinstance(value, str):
        return next(texts)
    if isinstance(value, Mapping):
        return {key: _refilled(inner, texts) for key, inner in value.items()}
    return [_refilled(inner, texts) for inner in value] if isinstance(value, (list, tuple)) else value


def _entries(data: Mapping[str, Any], config: str | Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    if not isinstance(data, Mapping) or not all(isinstance(key, str) for key in data):
        raise InputError(f"json_data is a dict with str as keys, got {type(data).__name__}")
    entries = _read(config) if isinstance(config, str) else config
    if not isinstance(entries, Mapping) or set(entries) != set(data):
        raise InputError(f"json_config has an entry for each key of json_data: {', '.join(data)}; got {entries!r}")
    for key, entry in entries.items():
        if not isinstance(entry, Mapping) or not set(entry) <= set(_ENTRY):
            raise InputError(f"json_config[{key!r}] takes {', '.join(_ENTRY)}, got {entry!r}")
    return entries


def _read(path: str) -> Any:
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"json_config={path!r} cannot be read ({error.strerror}); pass a file or a dict") from None
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        import yaml
    except ImportError as error:
        raise MissingExtraError("A configuration in YAML", "torch") from error
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"{path} is neither JSON nor YAML: {error}") from None


def _typed(key: str, value: Any, name: str | None) -> Any:
    """The value as what its entry says it is."""
    if name is None:
        return value
    if name not in _TYPES:
        raise InputError(f"json_config[{key!r}]: value_type must be one of {', '.join(_TYPES)}, got {name!r}")
    try:
        return _TYPES[name](value)
    except (TypeError, ValueError, KeyError):
        raise InputError(f"json_data[{key!r}] is no {name}: {value!r}; change its value_type") from None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else dumped(value)


def _number(value: Any) -> int | float:
    return value if isinstance(value, (int, float)) else float(value)


def _bool(value: Any) -> bool:
    return value if isinstance(value, bool) else _BOOLS[value]


def _list(value: Any) -> list[Any]:
    if not isinstance(value, (list, tuple)):
        raise TypeError
    return list(value)


def _dict(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise TypeError
    return dict(value)


_TYPES: dict[str, Callable[[Any], Any]] = {
    "str": _text,
    "string": _text,
    "int": int,
    "integer": int,
    "float": float,
    "number": _number,
    "bool": _bool,
    "boolean": _bool,
    "list": _list,
    "List": _list,
    "tuple": _list,
    "dict": _dict,
    "dictionary": _dict,
}
