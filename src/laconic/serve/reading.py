"""Settings from the tables of a TOML file and from texts; what is wrong with them, said so that it can be repeated."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

from laconic.errors import InputError, MissingExtraError

VARIABLE = "LACONIC_"  # in front of a setting's name in the environment
_TABLES = ("server", "upstreams", "rules")  # of a file; who reads one of them finds typos in the names of all
_SHOWN = 40  # characters of a wrong value that a message repeats


def table(file: Path, title: str, known: Collection[str] | None = None) -> dict[str, Any]:
    """The table of this title in a TOML file, lists as tuples; without `known`, any names may stand in it."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        try:
            import tomli as tomllib
        except ImportError as error:
            raise MissingExtraError("Reading a TOML file with this Python", "serve") from error
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{file} cannot be read as TOML: {error}") from None
    for name in tables:
        _check_name(f"{file}: {short(name)} is no table", name, _TABLES)
    found = tables.get(title, {})
    if not isinstance(found, dict):
        raise InputError(f"{file}: {title} must be a table, got {short(found)}; begin it with [{title}]")
    for name in found if known is not None else ():
        _check_name(f"{file}: there is no {short(name)} in [{title}]", name, known or ())
    return {name: tuple(value) if isinstance(value, list) else value for name, value in found.items()}


def _check_name(wrong: str, name: str, known: Collection[str]) -> None:
    if name not in known:
        close = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}"
        raise InputError(f"{wrong}; {hint}")


def number(name: str, text: str) -> float:
    """The value of a text."""
    try:
        return float(text)
    except ValueError:
        raise InputError(f"{name} must be a number, got {short(text)}") from None


def whole(name: str, text: str) -> int:
    """The value of a text."""
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise InputError(f"{name} must be a whole number, got {short(text)}")
    return int(text)


def switch(name: str, text: str) -> bool:
    """The value of a text."""
    switches = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    if text.lower() not in switches:
        raise InputError(f"{name} must be one of {', '.join(switches)}, got {short(text)}")
    return switches[text.lower()]


def is_whole(value: object, least: int) -> bool:
    """Is it a whole number, and at least this?"""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def require(fine: bool, name: str, what: str, value: object) -> None:
    """InputError if a value is not fine."""
    if not fine:
        raise InputError(f"{name} must be {what}, got {short(value)}")


def short(value: object) -> str:
    """A value as a message repeats it: in ASCII without controls, which a reply header may hold."""
    shown = ascii(value)
    return shown if len(shown) <= _SHOWN else shown[:_SHOWN] + "..."
