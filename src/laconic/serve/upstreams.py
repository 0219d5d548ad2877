"""Where requests go: the configured upstreams and no other host, whatever a request says."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes, urlsplit

from laconic.errors import InputError
from laconic.serve.reading import short

_NAME = re.compile(r"(?!v\d)[a-z][a-z0-9_-]*")  # it begins paths, as /v1 does
_UNSAFE = re.compile(rb"[\x00-\x1f\x7f]|^//|(?:^|[/\\])\.\.?(?:[/\\;]|$)")  # of a path without %xx


@dataclass(frozen=True)
class Upstream:
    """A server that answers.

    >>> Upstream("openai", "https://api.openai.com/v1").target(b"/v1/models")
    b'/v1/models'
    """

    name: str
    url: str

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise InputError(f"an upstream's name must be of a-z, 0-9, - and _, such as openai, got {short(self.name)}")
        if "@" in self.url or "?" in self.url or "#" in self.url:  # not to be shown
            raise InputError("an upstream's URL may hold no key, user or query; clients send their keys themselves")
        try:
            parts = urlsplit(self.url)
            fine = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and self.url.isascii()
        except ValueError:
            fine = False
        if not fine:
            raise InputError(f"not a URL: {short(self.url)}; pass for example https://api.openai.com")

    @property
    def base(self) -> str:
        """The path of the URL, which comes before that of each request."""
        return urlsplit(self.url).path.rstrip("/")

    def target(self, path: bytes) -> bytes:
        """The path to ask for. A URL with a version in it (`…/v1`) says so in place of the request's `/v1`."""
        if re.search(r"/v\d", self.base) and path.startswith(b"/v1/"):
            path = path[3:]
        return self.base.encode() + path


class Upstreams:
    """All upstreams by name. Which one a request is for, its path says (`/NAME/v1/…`), else its protocol."""

    def __init__(self, urls: Mapping[str, str]) -> None:
        if not urls:
            raise InputError("no upstream: pass --upstream URL, for example --upstream https://api.openai.com")
        self._all = {name: Upstream(name, url.strip()) for name, url in urls.items()}

    def choose(self, path: bytes, anthropic: bool) -> tuple[Upstream, bytes]:
        """(whom to ask, the path without the upstream's name)."""
        first, _, rest = path[1:].partition(b"/")
        named = self._all.get(first.decode("latin-1"))
        if named:
            return named, b"/" + rest
        usual = self._all.get("anthropic" if anthropic or path.startswith(b"/v1/messages") else "openai")
        return usual or next(iter(self._all.values())), path


def named(given: Iterable[str]) -> dict[str, str]:
    """URLs by name, from NAME=URL; a URL alone is called "anthropic" if it says so, else "openai".

    >>> named(["https://api.anthropic.com", "mine=http://localhost:8000"])
    {'anthropic': 'https://api.anthropic.com', 'mine': 'http://localhost:8000'}
    """
    found = dict[str, str]()
    for text in given:
        name, equals, url = text.strip().partition("=")
        if not equals or ":" in name:  # the = is a part of the URL
            name, url = "anthropic" if "anthropic" in text else "openai", text.strip()
        if name in found:
            raise InputError(f"two upstreams are named {name}; pass --upstream NAME=URL")
        found[name] = url
    return found


def safe(path: bytes) -> bool:
    """May the path be sent on? Not if it could leave the upstream's base path, or is no path at all.

    >>> safe(b"/v1/models/org%2Fname"), safe(b"/v1/%2e%2e/admin"), safe(b"http://other/"), safe(b"//other/")
    (True, False, False, False)
    """
    return path.startswith(b"/") and not _UNSAFE.search(unquote_to_bytes(path))
