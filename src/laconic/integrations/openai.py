"""`wrap`: an OpenAI client that compresses in this process what the proxy would compress (docs/clients.md)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from openai import AsyncOpenAI, OpenAI

from laconic.integrations.clients import Options, wrapped

if TYPE_CHECKING:
    from laconic.compressor import Compressor
    from laconic.serve.report import Report
    from laconic.serve.rules import Rules

_Client = TypeVar("_Client", OpenAI, AsyncOpenAI)


def wrap(
    client: _Client,
    *,
    rules: Rules | None = None,
    compressor: Compressor | None = None,
    store: Path | str | None = None,
    on_report: Callable[[Report], object] | None = None,
) -> _Client:
    """A copy of the client that compresses what it sends; `client` itself stays as it is.

    Both use the same connections: closing one closes them for both, and with the copy the store of decisions.
    rules: default those of the environment (`LACONIC_RATE` …). compressor: default laconic-small, loaded by the first
    request. store: folder of decisions, by default in the user's data. on_report: told what became of each request.

        client = wrap(OpenAI(), on_report=lambda report: print(report.saved, "tokens saved"))
    """
    return wrapped(client, (OpenAI, AsyncOpenAI), ("chat", "responses"), Options(rules, compressor, store, on_report))
