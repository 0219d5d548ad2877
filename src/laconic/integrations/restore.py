"""A tool with which a model gets the whole text of a part that the rule `marker` told it was shortened.

Give one of the definitions along with your own tools, and answer its calls with `answer`; docs/clients.md has the loop.
Results of tools named `laconic_*` are never compressed, so a text that was asked for arrives whole.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from laconic.errors import InputError
from laconic.serve.restore import original

NAME = "laconic_restore"
_TOLD = {
    "name": NAME,
    "description": "Gives the whole text of a tool result or document that laconic shortened. Such a text ends with a "
    "line that names its id. Call this only if something that you need may be among the words that were left out.",
}
_SCHEMA = {
    "type": "object",
    "properties": {"id": {"type": "string", "description": "the id in the last line of the shortened text"}},
    "required": ["id"],
    "additionalProperties": False,
}
TOOL_OPENAI: dict[str, Any] = {"type": "function", "function": {**_TOLD, "parameters": _SCHEMA}}  # chat completions
TOOL_RESPONSES: dict[str, Any] = {"type": "function", **_TOLD, "parameters": _SCHEMA}
TOOL_ANTHROPIC: dict[str, Any] = {**_TOLD, "input_schema": _SCHEMA}


def answer(arguments: str | Mapping[str, Any], store: Path | str | None = None) -> str:
    """What the tool says to a call: the original; for a wrong call what is wrong with it, for the model to read.

    arguments: as the call has them, JSON or parsed. store: the folder that `wrap` or the server uses.

    >>> answer("{}")
    'laconic_restore takes one argument, the id in the last line of a shortened text: {"id": "3f2a91c07d44"}'
    """
    try:
        given = json.loads(arguments) if isinstance(arguments, str) else arguments
        identity = given["id"] if isinstance(given, Mapping) else None
    except (ValueError, KeyError):
        identity = None
    if not isinstance(identity, str):
        return f'{NAME} takes one argument, the id in the last line of a shortened text: {{"id": "3f2a91c07d44"}}'
    try:
        return original(identity, store)
    except InputError as error:
        return str(error)
