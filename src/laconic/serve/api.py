"""The plain API: `POST /v1/compress` takes a text, chat messages or documents, answers with what was kept."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

import anyio
import anyio.to_thread
import regex
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

import laconic
from laconic.budget import Budget, counter
from laconic.errors import InputError
from laconic.hub import PACKAGED
from laconic.serve.literals import DEEPEST, UnreadableError, parsed

if TYPE_CHECKING:
    from laconic.compressor import Compressor
    from laconic.result import Compression, KeptPart

INPUTS = ("text", "messages", "documents")  # one of them
BUDGETS = ("rate", "tokens", "threshold")  # at most one of them
METHODS = ("llmlingua2", "bm25", "tfidf", "stopwords", "lead", "random")  # those that need no other model
COUNTERS = ("o200k_base", "cl100k_base", "words")
FIELDS = (*INPUTS, *BUDGETS, "question", "protect", "newest", "method", "model", "counter", "scores")
LARGEST = 2 << 20  # bytes of a body: half a million tokens of English, more than most models read
PATTERNS, PATTERN = 50, 1000  # most regular expressions, most characters of one
_PATIENCE = 2.0  # seconds for all regular expressions of a request
_AT_ONCE, _WAITING = 2, 16  # compressions; one more is asked to come back
_SHOWN = 300  # characters of a message: advice repeats what was wrong
_UNREADABLE = {
    "encoding": "the body is not UTF-8; send JSON in UTF-8",
    "deep": f"brackets are nested deeper than {DEEPEST}; send less deep JSON",
    "malformed": 'the body is not JSON; send for example {"text": "…", "rate": 0.5}',
}


class Service(Protocol):
    """What the routes need of the server."""

    @property
    def compressor(self) -> Compressor:
        """Of requests that name no method."""
        ...


class RefusedError(Exception):
    """A request that gets no compression: the status, and advice."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Api:
    """The endpoint over one service; compressions run in threads, so many at once."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.limiter = anyio.CapacityLimiter(_AT_ONCE)

    async def compress(self, request: Request) -> Response:
        """`POST /v1/compress`."""
        try:
            wanted = await anyio.to_thread.run_sync(_checked, await _body(request))
            if self.limiter.statistics().tasks_waiting >= _WAITING:
                raise RefusedError(503, f"{_WAITING} compressions are waiting; try again in a few seconds")
            async with self.limiter:
                if await request.is_disconnected():  # while it waited: nobody would read the answer
                    return Response(status_code=499)
                answer = await anyio.to_thread.run_sync(_answer, self.service.compressor, wanted)
        except RefusedError as error:
            return _refusal(error.status, str(error))
        except InputError as error:
            return _refusal(422, str(error))
        return Response(answer, media_type="application/json", headers={"cache-control": "no-store"})


def _refusal(status: int, message: str) -> JSONResponse:
    shown = message if len(message) <= _SHOWN else message[:_SHOWN] + "…"
    advice = {"error": {"message": shown.encode("utf-8", "replace").decode()}}
    return JSONResponse(advice, status, {"retry-after": "2"} if status == 503 else {})


async def _body(request: Request) -> bytes:
    """The body, as long as it is not too large."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":  # what a page of another site cannot send without being asked
        raise RefusedError(415, "send the header content-type: application/json, and JSON in the body")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST:
            raise RefusedError(413, f"the body is larger than {LARGEST:,} bytes; send less at a time")
    return bytes(body)


def _checked(body: bytes) -> dict[str, Any]:
    """The fields of a request. What `Compressor.compress` checks itself is left to it."""
    try:
        fields = parsed(body, LARGEST)
        json.dumps(fields, allow_nan=False)  # 1e999 becomes infinite, which JSON cannot say
    except UnreadableError as error:
        raise RefusedError(400, _UNREADABLE[str(error)]) from None
    except ValueError:
        raise RefusedError(400, "a number is too large; send numbers below 1.8e308") from None
    if not isinstance(fields, dict):
        raise RefusedError(400, 'the body must be an object, for example {"text": "…", "rate": 0.5}')
    _check_names(fields)
    for name, allowed in {"method": METHODS, "model": PACKAGED, "counter": COUNTERS}.items():
        if name in fields and fields[name] not in allowed:
            raise InputError(f"{name} must be one of {', '.join(allowed)}, got {fields[name]!r}")
    for name in ("newest", "scores"):
        if not isinstance(fields.get(name, False), bool):
            raise InputError(f"{name} must be true or false, got {fields[name]!r}")
    _check_numbers(fields)
    return fields


def _check_names(fields: dict[str, Any]) -> None:
    for name, value in fields.items():
        if name not in FIELDS:
            raise InputError(f"there is no field {name!r}; there are {', '.join(FIELDS)}")
        if value is None:
            raise InputError(f"{name} must not be null; leave it out")
    given = [name for name in INPUTS if name in fields]
    if len(given) != 1:
        raise InputError(f"pass one of {', '.join(INPUTS)}, got {' and '.join(given) or 'none of them'}")
    if given != ["messages"] and "newest" in fields:
        raise InputError("newest is for messages; leave it out")
    if given == ["documents"] and "threshold" in fields:
        raise InputError("threshold is for a text or messages; pass rate or tokens for documents")
    if "model" in fields and fields.get("method", METHODS[0]) != METHODS[0]:
        raise InputError(f"model is for the method {METHODS[0]}; leave model out")
    if given == ["text"] and not isinstance(fields["text"], str):
        raise InputError("text must be a string; pass chat messages as messages")
    if given == ["messages"] and not isinstance(fields["messages"], list):
        raise InputError("messages must be a list of objects with a role; pass a plain text as text")


def _check_numbers(fields: dict[str, Any]) -> None:
    """Budgets, before anything is loaded; 500.0 is a whole number in JSON."""
    tokens = fields.get("tokens")
    if isinstance(tokens, float) and tokens.is_integer():
        fields["tokens"] = int(tokens)
    for name in ("rate", "threshold"):
        if isinstance(fields.get(name), int) and not isinstance(fields[name], bool):
            fields[name] = float(min(10**9, max(-(10**9), fields[name])))  # 10**400 has no float, and is as wrong
    Budget(*(fields.get(name) for name in BUDGETS))


def _answer(default: Compressor, fields: dict[str, Any]) -> bytes:
    """The body of the answer, in ASCII: lone surrogates pass, too."""
    compressor = _compressor(default, fields)
    options = {name: fields[name] for name in (*BUDGETS, "question", "newest") if name in fields}
    options["protect"] = _patterns(fields.get("protect", []))
    try:
        if "documents" in fields:
            result: Compression = compressor.compress_documents(fields["documents"], **options)
        else:
            result = compressor.compress(fields["text"] if "text" in fields else fields["messages"], **options)
    except TimeoutError:
        raise InputError(f"protect took over {_PATIENCE:g} s on this text; pass simpler expressions") from None
    answer = result.to_dict()
    if fields.get("scores"):
        units = [_units(part) for part in result.parts]
        answer["units"] = units[0] if "text" in fields else units
    return json.dumps(answer, separators=(",", ":")).encode()


def _units(part: KeptPart) -> list[tuple[int, float | None]]:
    """(end, score) of every unit in order; a score is null where there is no evidence."""
    scores = [None if score != score else round(score, 3) for score in part.scores.tolist()]
    return list(zip(part.tiling.bounds[1:].tolist(), scores, strict=True))


def _compressor(default: Compressor, fields: dict[str, Any]) -> Compressor:
    """The one that was asked for; the server's own where it is that."""
    chosen = default
    if "method" in fields or "model" in fields:
        wanted = (fields.get("method", METHODS[0]), fields.get("model"))
        own = default.scorer
        if wanted not in ((own.name, own.model), (own.name, None)):
            chosen = _loaded(wanted[0], wanted[1] or PACKAGED[0])
    return replace(chosen, counter=counter(fields["counter"]) if "counter" in fields else default.counter)


@cache
def _loaded(method: str, model: str) -> Compressor:
    return laconic.load(model, method=method)


@dataclass
class _Clock:
    """How long the regular expressions of a request may still take; it starts with the first of them."""

    end: float = 0.0

    def left(self) -> float:
        self.end = self.end or time.monotonic() + _PATIENCE
        return max(1e-3, self.end - time.monotonic())


@dataclass(frozen=True)
class _Patient:
    """A regular expression of a stranger: `re` would hold up the whole server for as long as it takes."""

    compiled: Any
    clock: _Clock

    @property
    def pattern(self) -> str:
        """As it was given."""
        return str(self.compiled.pattern)

    def finditer(self, text: str) -> Iterator[Any]:
        """As of `re.Pattern`; TimeoutError when time is up."""
        return self.compiled.finditer(text, timeout=self.clock.left())  # type: ignore[no-any-return]


def _patterns(protect: Any) -> list[Any]:
    texts = isinstance(protect, list) and all(isinstance(p, str) and len(p) <= PATTERN for p in protect)
    if not texts or len(protect) > PATTERNS:
        raise InputError(f"protect takes a list of up to {PATTERNS} regular expressions of {PATTERN} characters each")
    clock, made = _Clock(), []
    for pattern in protect:
        try:
            made.append(_Patient(regex.compile(pattern, cache_pattern=False), clock))
        except Exception as error:  # of what a stranger sends: also RecursionError, OverflowError, warnings
            raise InputError(f"protect takes regular expressions, got {pattern!r}: {error}") from None
    return made
