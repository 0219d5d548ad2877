"""How the server runs: from [server] and [upstreams] of a TOML file, the environment, and the command line."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from laconic import DEFAULT_MODEL
from laconic.errors import InputError
from laconic.serve.decisions import default_folder
from laconic.serve.reading import VARIABLE, is_whole, number, require, table, whole
from laconic.serve.upstreams import Upstreams, named


@dataclass(frozen=True)
class Config:
    """Where the server listens, whom it asks, how long it waits. InputError for a wrong value."""

    upstreams: Mapping[str, str] = field(default_factory=dict)  # name → URL; "openai" and "anthropic" are usual ones
    host: str = "127.0.0.1"
    port: int = 8787
    workers: int = 1  # processes
    key: str = field(default="", repr=False)  # who sends it may use the server; empty: whoever reaches it
    store: Path = field(default_factory=default_folder)  # folder of decisions and ledger
    model: str = DEFAULT_MODEL
    method: str = "llmlingua2"
    seconds: float = 2.0  # that a request waits for the compressor
    threads: int = 2  # texts that are compressed at once
    queue: int = 16  # requests that wait for that; others are sent with what is decided already
    connect: float = 10.0  # seconds to reach an upstream
    read: float = 600.0  # seconds between two pieces of an upstream's answer
    grace: int = 30  # seconds that answers may take to end when the server is to stop

    def __post_init__(self) -> None:
        for name in ("workers", "threads"):
            require(is_whole(getattr(self, name), 1), name, "1 or more", getattr(self, name))
        for name in ("queue", "grace"):
            require(is_whole(getattr(self, name), 0), name, "0 or more", getattr(self, name))
        for name in ("seconds", "connect", "read"):
            value = getattr(self, name)
            fine = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < float("inf")
            require(fine, name, "a number above 0", value)
        require(is_whole(self.port, 0) and self.port < 65536, "port", "0 to 65535", self.port)
        for name in ("host", "model", "method"):
            require(isinstance(getattr(self, name), str), name, "a text", getattr(self, name))
        require(isinstance(self.store, Path), "store", "a folder in quotes", self.store)
        if not isinstance(self.key, str) or not re.fullmatch(r"[!-~]*", self.key):  # not to be shown
            raise InputError("key must be a text of printable ASCII characters without blanks; choose another")
        Upstreams(self.upstreams)

    @classmethod
    def read_all(
        cls, file: Path | None, options: Mapping[str, Any], environment: Mapping[str, str] = os.environ
    ) -> Config:
        """The file's tables, over them `LACONIC_PORT`, `LACONIC_KEY` …, over those the options that are not None.

        An empty variable says nothing.
        """
        names = [setting.name for setting in fields(cls) if setting.name != "upstreams"]
        layer: dict[str, Any] = {}
        if file:
            layer |= {**table(file, "server", names), "upstreams": _texts(file)}
            _check_secret(file, layer)
        for name in names:
            if text := environment.get(f"{VARIABLE}{name.upper()}", "").strip():
                layer[name] = _READERS.get(name, _text)(name, text)
        if text := environment.get(f"{VARIABLE}UPSTREAMS", "").strip():
            layer["upstreams"] = named(text.split(","))
        layer |= {name: value for name, value in options.items() if value is not None}
        if isinstance(layer.get("store"), str):
            layer["store"] = Path(layer["store"]).expanduser()
        return replace(cls(upstreams=layer.pop("upstreams", {})), **layer)


def _texts(file: Path) -> dict[str, str]:
    """[upstreams]."""
    found = table(file, "upstreams")
    for name, url in found.items():
        require(isinstance(url, str), f"{file}: {name} in [upstreams]", "a URL in quotes", url)
    return found


def _check_secret(file: Path, layer: Mapping[str, Any]) -> None:
    if "key" in layer and os.name == "posix" and stat.S_IMODE(file.stat().st_mode) & 0o077:
        raise InputError(f"{file} holds a key and others may read it; run: chmod 600 {file}")


def _text(name: str, text: str) -> str:
    return text


_READERS: dict[str, Callable[[str, str], Any]] = {
    **dict.fromkeys(("port", "workers", "threads", "queue", "grace"), whole),
    **dict.fromkeys(("seconds", "connect", "read"), number),
}
