"""A small client for OpenAI-compatible chat completions: concurrent, paced, retried, and never paid twice."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import threading
import time
from collections import deque
from collections.abc import Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from laconic.errors import EndpointError, InputError, MissingExtraError
from laconic.store import Store

if TYPE_CHECKING:
    import httpx

Messages = Sequence[Mapping[str, str]]  # [{"role": "user", "content": "…"}, …]

KEY_VARIABLES = ("LACONIC_API_KEY", "OPENAI_API_KEY")
_LONGEST_WAIT = 300.0  # seconds; an endpoint that asks for more is out of service for this run
_RETRIES_UNTIL_REACHED = 2  # nobody wants to wait a minute to hear that the address is wrong
_FAILURES_IN_A_ROW = 10  # after which an endpoint counts as down


@dataclass(frozen=True)
class Completion:
    """An answer. Tokens as the endpoint counted them, 0 where it does not say; `cached`: it cost nothing now.

    finish: the endpoint's own word: `stop`, `length` (cut off), `content_filter`, …
    """

    text: str
    prompt_tokens: int
    completion_tokens: int
    finish: str
    cached: bool


class Endpoint:
    """Chat completions of one model behind one OpenAI-compatible URL; safe to share between threads.

    url: base, with or without `/v1`. key: default LACONIC_API_KEY, then OPENAI_API_KEY; none where neither is set.
    concurrency: requests in flight. per_minute: at most so many requests are begun, retries included. retries: after
    5xx, 429, time-outs, broken connections and answers that are no JSON. timeout: seconds without a byte.
    cache: a file that keeps every answer by its model, messages and settings, also across processes and kills.

        with Endpoint("http://localhost:8000", "qwen3", cache=Path("answers.sqlite")) as teacher:
            print(teacher.complete([{"role": "user", "content": "Say yes."}]).text)
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        key: str | None = None,
        concurrency: int = 8,
        per_minute: float | None = None,
        retries: int = 6,
        timeout: float = 120.0,
        cache: Path | None = None,
    ) -> None:
        for name, value, least in (("concurrency", concurrency, 1), ("retries", retries, 0)):
            if value < least:
                raise InputError(f"{name} must be {least} or more, got {value}")
        for name, number in (("per_minute", per_minute), ("timeout", timeout)):
            if number is not None and not number > 0:
                raise InputError(f"{name} must be more than 0, got {number}")
        self.url = _address(url)
        self.model = model
        self.concurrency = concurrency
        self.retries = retries
        self._key = _checked(key or next(filter(None, map(os.environ.get, KEY_VARIABLES)), ""))
        self._client = _client(self.url, self._key, timeout, concurrency)
        self._store = Store(cache) if cache else None
        self._pace = _Pace(60 / per_minute if per_minute else 0.0)
        self._reached = False  # it answered at least once: worth more patience
        self._rejected: set[str] = set()  # settings that this model does not know
        self._busy: dict[str, threading.Lock] = {}  # by cache key: equal requests wait for the first one's answer

    def __enter__(self) -> Endpoint:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close connections and the cache."""
        self._client.close()
        if self._store:
            self._store.close()

    def cached(
        self, messages: Messages, *, max_tokens: int | None = None, temperature: float | None = 0.0
    ) -> Completion | None:
        """The answer that is already paid for, without asking."""
        found = self._store.peek(_digest(self._body(messages, max_tokens, temperature))) if self._store else None
        return Completion(**found, cached=True) if found else None

    def complete(
        self, messages: Messages, *, max_tokens: int | None = None, temperature: float | None = 0.0
    ) -> Completion:
        """One answer. Raises EndpointError when there is none after all retries, or at once when retrying is vain."""
        return self._complete(self._body(messages, max_tokens, temperature), threading.Event())

    def complete_many(
        self, requests: Iterable[Messages], *, max_tokens: int | None = None, temperature: float | None = 0.0
    ) -> Generator[Completion | EndpointError, None, None]:
        """Answers in the order of the requests, which are drawn as needed; a request that failed gives its error.

        Raises EndpointError when it is fatal (key, quota, address), or after ten failures in a row.
        """
        ahead: deque[Future[Completion]] = deque()
        stop, patience = threading.Event(), _Patience()
        pool = ThreadPoolExecutor(self.concurrency)
        try:
            for messages in requests:
                ahead.append(pool.submit(self._complete, self._body(messages, max_tokens, temperature), stop))
                if len(ahead) >= 4 * self.concurrency:  # a slow answer at the head does not stall the others
                    yield patience.settle(ahead.popleft())
            while ahead:
                yield patience.settle(ahead.popleft())
        finally:  # what is on its way is paid for: wait for it; what only waits to be retried gives up
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)

    def _body(self, messages: Messages, max_tokens: int | None, temperature: float | None) -> dict[str, Any]:
        settings = {"max_tokens": max_tokens, "temperature": temperature}
        return {
            "model": self.model,
            "messages": [dict(m) for m in messages],
            **{k: v for k, v in settings.items() if v is not None},
        }

    def _complete(self, body: dict[str, Any], stop: threading.Event) -> Completion:
        if not self._store:
            return self._ask(body, stop)
        key = _digest(body)
        with self._busy.setdefault(key, threading.Lock()):
            found = self._store.get(key)
            if found:
                return Completion(**found, cached=True)
            answer = self._ask(body, stop)
            self._store.put(key, {k: v for k, v in vars(answer).items() if k != "cached"})
            return answer

    def _ask(self, body: dict[str, Any], stop: threading.Event) -> Completion:
        """Try until there is an answer, with waits that double from one second up to a minute, jittered."""
        import httpx

        attempt = 0
        while True:
            self._wait(self._pace.turn(), stop)
            try:
                sent = self._accepted(body)
                response = self._client.post(self.url, content=json.dumps(sent).encode())
                self._reached = True
                return self._read(response, sent)
            except _Again as again:
                reason, asked, dead = str(again), again.seconds, False
            except httpx.RequestError as error:
                reason, asked = f"{type(error).__name__} {error}".strip(), None
                dead = isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout))
            attempt += 1
            if attempt > (self.retries if self._reached else min(self.retries, _RETRIES_UNTIL_REACHED)):
                raise EndpointError(self._clean(_gave_up(self.url, attempt, reason, dead)), fatal=dead)
            if asked is None:
                self._wait(min(60.0, 2.0 ** (attempt - 1)) * random.uniform(0.5, 1.0), stop)
            elif asked <= _LONGEST_WAIT:
                self._pace.pause(asked)  # for all threads: the endpoint's limit is one for all
            else:
                raise EndpointError(f"{self.url} asks to wait {asked:.0f} s ({reason}); run again then", fatal=True)

    def _wait(self, seconds: float, stop: threading.Event) -> None:
        if stop.wait(seconds) if seconds > 0 else stop.is_set():
            raise EndpointError("given up", fatal=True)

    def _accepted(self, body: dict[str, Any]) -> dict[str, Any]:
        """The request without settings that the model rejected; some models know max_tokens by another name."""
        out = {k: v for k, v in body.items() if k not in self._rejected}
        if "max_tokens" in body and "max_tokens" in self._rejected:
            out["max_completion_tokens"] = body["max_tokens"]
        return out

    def _read(self, response: httpx.Response, sent: dict[str, Any]) -> Completion:
        """The answer in a response; raises _Again where another try may help, EndpointError where it cannot."""
        status = response.status_code
        try:
            data = response.json()
        except (ValueError, RecursionError):
            data = None
        if status < 300:
            return _completion(data)
        error = _error(data)
        message = self._clean(str(error.get("message") or response.text[:300] or response.reason_phrase))
        if status in (401, 403):
            raise EndpointError(
                f"{self.url} refuses {'the key' if self._key else 'a request without a key'} ({status}: {message}); "
                f"set {' or '.join(KEY_VARIABLES)} to a valid one",
                fatal=True,
            )
        if "insufficient_quota" in (error.get("code"), error.get("type")) or status == 402:
            raise EndpointError(f"the quota at {self.url} is used up ({status}: {message}); add credit", fatal=True)
        if status in (408, 409, 425, 429) or status >= 500:
            raise _Again(f"{status} {message}", _retry_after(response.headers.get("retry-after")) or None)
        setting = error.get("param")
        if setting in ("max_tokens", "temperature") and setting in sent:
            self._rejected.add(setting)
            raise _Again(f"{status} {message}", 0.0)
        if status == 404:
            message += f"; check the address and the model's name {self.model!r}"
        raise _Refused(f"{self.url} answers {status}: {message}", fatal=status in (301, 302, 307, 308, 404, 405))

    def _clean(self, message: str) -> str:
        """In one line, without the key, which some servers repeat."""
        message = " ".join(message.split())
        return message.replace(self._key, "***") if len(self._key) > 7 else message  # shorter ones are no secrets


def _gave_up(url: str, tries: int, reason: str, dead: bool) -> str:
    advice = "; check the address and that the server runs" if dead else ""
    return f"{url} gave no answer in {tries} {'try' if tries == 1 else 'tries'}: {reason}{advice}"


class _Again(Exception):
    """This try failed, another may succeed; `seconds`: the wait that the endpoint asked for."""

    def __init__(self, reason: str, seconds: float | None = None) -> None:
        super().__init__(reason)
        self.seconds = seconds


class _Refused(EndpointError):
    """The endpoint does not want this one request."""


class _Patience:
    """Ends a run when the endpoint seems to be down.

    Requests that are refused count only until one was answered: passages that a content filter refuses may stand
    together, but ten refusals at the start are a wrong setting.
    """

    def __init__(self) -> None:
        self._failures, self._answered = 0, False

    def settle(self, future: Future[Completion]) -> Completion | EndpointError:
        """The outcome of a request; raises EndpointError where no other request would fare better."""
        try:
            answer = future.result()
        except EndpointError as error:
            if error.fatal:
                raise
            if not (self._answered and isinstance(error, _Refused)):
                self._failures += 1
            if self._failures >= _FAILURES_IN_A_ROW:
                message = f"{self._failures} requests in a row failed; the last: {error}"
                raise EndpointError(message, fatal=True) from None
            return error
        self._failures, self._answered = 0, True
        return answer


class _Pace:
    """When the next request may start: one `interval` (seconds) after the last, and not before a pause ends."""

    def __init__(self, interval: float) -> None:
        self._interval, self._next, self._lock = interval, 0.0, threading.Lock()

    def turn(self) -> float:
        """Take the next place; returns the seconds until it comes."""
        with self._lock:
            now = time.monotonic()
            start = max(now, self._next)
            self._next = start + self._interval
            return start - now

    def pause(self, seconds: float) -> None:
        with self._lock:
            self._next = max(self._next, time.monotonic() + seconds)


def _address(url: str) -> str:
    """The chat completions address of a base URL.

    >>> _address("http://localhost:8000")
    'http://localhost:8000/v1/chat/completions'
    """
    if "@" in url or "?" in url:  # not to be shown
        raise InputError(f"the URL may hold no key, user or query; set {KEY_VARIABLES[0]} instead")
    try:
        parts = urlsplit(url.strip())
        whole = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        whole = False
    if not whole:
        raise InputError(f"not a URL: {url!r}; pass for example http://localhost:8000 or https://api.openai.com/v1")
    path = parts.path.rstrip("/").removesuffix("/chat/completions")
    if not re.search(r"/v\d", path):
        path += "/v1"
    return f"{parts.scheme}://{parts.netloc}{path}/chat/completions"


def _checked(key: str) -> str:
    key = key.strip()
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise InputError("the API key holds blanks, control or non-ASCII characters; copy it again")
    return key


def _client(url: str, key: str, timeout: float, concurrency: int) -> httpx.Client:
    try:
        import httpx
    except ImportError:
        raise MissingExtraError("talking to an endpoint", "distill") from None
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    limits = httpx.Limits(max_connections=concurrency)
    secure = url.startswith("https:")  # certificates take a tenth of a second to load
    return httpx.Client(headers=headers, timeout=timeout, limits=limits, verify=secure)


def _digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _completion(data: Any) -> Completion:
    """The answer in the JSON of a response (or None where it was none)."""
    try:
        choice = data["choices"][0]
        message, usage = choice["message"], data.get("usage") or {}
        text = message.get("content") or message.get("refusal") or ""
        if not isinstance(text, str):
            raise TypeError
        asked, answered = (int(usage.get(k) or 0) for k in ("prompt_tokens", "completion_tokens"))
        return Completion(text, asked, answered, str(choice.get("finish_reason") or ""), cached=False)
    except (KeyError, IndexError, TypeError, AttributeError, ValueError):
        said = _error(data).get("message")
        raise _Again(f"an error: {said}" if said else "the answer is no chat completion, or was cut off") from None


def _error(data: Any) -> dict[str, Any]:
    """The error object of a response, in the forms that servers use; {} where there is none."""
    if not isinstance(data, dict):
        return {}
    error = data.get("error", data)
    return error if isinstance(error, dict) else {"message": error}


def _retry_after(value: str | None) -> float | None:
    """Seconds to wait, from a Retry-After header: a number or a date."""
    if not value:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None
