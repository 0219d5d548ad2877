"""A request's bytes in, the bytes to send out: parts are compressed once, at first sight, and replayed for ever.

Why a provider's prefix cache survives. The cache holds what was sent before an answer: the messages of an earlier
request, byte by byte. So that they never change:

1. *What was answered is never decided.* A part that stands before the model's words has been sent, by us or by others.
   If the store knows how, it is sent like that again; if it does not (the proxy is new, or the store was lost), it is
   left alone. So a part that was sent unchanged as the newest turn is unchanged as an earlier one.
2. *The last turn is decided once.* With its first sending the store learns what was done with each of its parts, under
   a key for the conversation up to the end of this turn. The same conversation, longer by answers and turns, has the
   same key there and finds the same row. The row is written before the request is sent, and the first one stays: what
   two workers decide at the same moment ends as one, and rules, models and questions that change later find a row.
3. *A turn may grow before it is answered* (a retry with one message more, results of tools one by one). The row of its
   longest beginning that was sent says what was done with those parts; only the others are decided.
4. *What is not sent is not written down.* Who waits and gives up claims the deadline before sending something else; a
   thread that comes after has decided nothing (guard.py). What the upstream rejects was never accepted, so nothing of
   it is cached: it is decided anew, for the only time, to stay whole.
5. *All other bytes are the client's*: strings are replaced in place, from the store, never compressed again.

The question a part is compressed for is the user's newest when the part is new; since that may come after the part in
its turn, the row's key is of the whole turn: the same document under two questions is two rows, and each conversation
keeps its own. Hence an exception: if one conversation sent [A, B] in one turn before another sent [A] alone, and then
the other grows by B, unanswered, it sends [A, B] as the first one did. And two that are asked for: a request that says
`bypass` is sent as it came, and what the rows say of it holds again in the next one; where the store cannot be written
nothing new is compressed, and nothing is remembered.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from laconic.budget import DEFAULT_RATE
from laconic.compressor import asks
from laconic.errors import InputError
from laconic.segment.jsons import is_json
from laconic.serve import anthropic, openai
from laconic.serve.decisions import SHORTEST, Decisions, Outcome, Verdict, text_key
from laconic.serve.guard import Deadline, Guard, LateError
from laconic.serve.literals import UnreadableError, parsed, replaced
from laconic.serve.parts import Part, Request, Turn, newest_user, turns
from laconic.serve.report import PartReport, Report
from laconic.serve.rules import Rules

if TYPE_CHECKING:
    from laconic.compressor import Compressor

MARKER = '[words left out by laconic, the source is intact: laconic_restore(id="{}") gives it whole]'
MARKED = SHORTEST  # characters of an id in a marker
READERS: dict[str, Callable[[Mapping[str, Any]], Request | None]] = {
    "chat": openai.chat,
    "responses": openai.responses,
    "messages": anthropic.messages,
}
_PATHS = {"/chat/completions": "chat", "/responses": "responses", "/messages": "messages"}  # ends of them


@dataclass(frozen=True)
class Rewritten:
    """What is to be sent, and what was done."""

    body: bytes
    report: Report
    undo: Mapping[str, list[Outcome]] = field(default_factory=dict)  # for `withdraw`; empty if nothing new changed


@dataclass(frozen=True)
class Rewriter:
    """Rewrites requests; threads and processes may share one store of decisions.

    >>> import laconic, tempfile
    >>> from pathlib import Path
    >>> body = b'{"messages": [{"role": "tool", "content": "%s"}]}' % (b"The cat sat on the mat. " * 90)
    >>> with tempfile.TemporaryDirectory() as folder, Decisions(Path(folder, "decisions.sqlite")) as decisions:
    ...     rewriter = Rewriter(laconic.load(method="lead"), Rules(rate=0.2), decisions)
    ...     first = rewriter.rewrite("chat", body, {})
    ...     second = rewriter.rewrite("chat", body, {"x-laconic-rate": "0.9"})
    >>> first.report.parts[0].reason, first.report.saved > 400, second.body == first.body
    ('compressed', True, True)
    """

    compressor: Compressor
    rules: Rules
    decisions: Decisions
    guard: Guard = field(default_factory=Guard)

    def rewrite(
        self, protocol: str, body: bytes, headers: Mapping[str, str], deadline: Deadline | None = None
    ) -> Rewritten:
        """The bytes to send in place of `body`; never an error because of what is in `body` or `headers`.

        protocol: a key of READERS. deadline: what is not compressed by then is left alone, then and later. Who gives
        up waiting, and could claim the deadline, may send what they like: nothing is written down.
        """
        if protocol not in READERS:
            raise InputError(f"protocol must be one of {', '.join(READERS)}, got {protocol!r}")
        rules, notes = self.rules.for_request(headers)
        if _signed(headers):
            return Rewritten(body, Report(whole="signed", notes=notes))
        try:
            request = _read(protocol, body, rules.largest)
            job = _Job(self, rules, deadline or Deadline(), request)
            parts, new = job.run()
        except (UnreadableError, LateError) as error:
            return Rewritten(body, Report(whole=str(error), notes=notes))
        except InputError:
            return Rewritten(body, Report(whole="store", notes=notes))
        if rules.bypass:
            return Rewritten(body, Report(whole="bypass", notes=notes))
        return Rewritten(replaced(body, new) if new else body, Report(tuple(parts), notes=notes), job.undo)

    def withdraw(self, rewritten: Rewritten) -> None:
        """The upstream has rejected this request: what is new in it stays whole from now on. What was sent before stays
        as it was sent. InputError where the store cannot be written."""
        self.decisions.replace(rewritten.undo)


def protocol_of(path: str) -> str:
    """The key of READERS for the path of a URL, behind whatever prefix; empty if it is none of ours.

    >>> protocol_of("/openai/v1/responses"), protocol_of("/v1/messages/count_tokens")
    ('responses', '')
    """
    return next((protocol for end, protocol in _PATHS.items() if path.endswith(end)), "")


def _signed(headers: Mapping[str, str]) -> bool:
    """Does the client sign the bytes of the body, as AWS wants it?"""
    return any(name.lower() == "authorization" and text.startswith("AWS4-") for name, text in headers.items())


def _read(protocol: str, body: bytes, largest: int) -> Request:
    value = parsed(body, largest)
    request = READERS[protocol](value) if isinstance(value, dict) else None
    if request is None:
        raise UnreadableError("foreign")
    return request


class _Job:
    """One request on its way through."""

    def __init__(self, owner: Rewriter, rules: Rules, deadline: Deadline, request: Request) -> None:
        self.compressor, self.decisions, self.guard = owner.compressor, owner.decisions, owner.guard
        self.rules, self.deadline, self.turns = rules, deadline, turns(request)
        newest = newest_user(request)
        said = [part for part in newest.parts if part.kind == "user"] if newest else []
        self.newest = {part.path for part in said}
        asked = rules.question and self.compressor.scorer.reads_question and said
        self.question = _question(said[-1].text) if asked else None
        self.verdicts: dict[str, Verdict] = {}  # made now
        self.undo: dict[str, list[Outcome]] = {}  # rows of turns with something new in them, without it

    def run(self) -> tuple[list[PartReport], dict[tuple[str | int, ...], str]]:
        """(a report of each part, path → new text of those that change)."""
        known = self.decisions.turns([key for turn in self.turns for key in turn.keys])
        sent = {turn.key: _sent(turn, known) for turn in self.turns}
        decided = {turn.key: self._decided(turn, sent[turn.key]) for turn in self.turns if turn.key not in known}
        if decided:
            known |= self._settled(decided, sent)
        verdicts = self.decisions.verdicts({o.text for turn in self.turns for o in known[turn.key] if o.text})
        self.undo = _undone({key: known[key] for key in decided}, sent, verdicts)
        reports, new = list[PartReport](), dict[tuple[str | int, ...], str]()
        for turn in self.turns:
            for k, (part, outcome) in enumerate(zip(turn.parts, known[turn.key], strict=True)):
                verdict = _verdict(outcome, verdicts)
                if verdict.compressed is not None:
                    new[part.path] = verdict.compressed
                reports.append(_report(part, outcome, verdict, k >= len(sent[turn.key])))
        return reports, new

    def _settled(self, decided: dict[str, list[Outcome]], sent: dict[str, list[Outcome]]) -> dict[str, list[Outcome]]:
        """What the store says of these turns from now on; without a store that can be written nothing new changes."""
        if not self.deadline.claim():
            raise LateError("late")
        try:
            self.decisions.settle(decided, self.verdicts.values())
        except InputError:
            return {
                key: [*sent[key], *(Outcome(o.tokens, o.reason or "store") for o in outcomes[len(sent[key]) :])]
                for key, outcomes in decided.items()
            }
        return self.decisions.turns(decided)

    def _decided(self, turn: Turn, sent: list[Outcome]) -> list[Outcome]:
        """What is done with each part of a turn, of which so many parts were sent already."""
        parts = turn.parts[len(sent) :]
        sizes = [self.compressor.counter(part.text) for part in parts]
        reasons = [self._reason(turn, part, size) for part, size in zip(parts, sizes, strict=True)]
        total = sum(size for size, reason in zip(sizes, reasons, strict=True) if not reason)
        if self.rules.tokens is not None and total <= self.rules.tokens:
            reasons = [reason or "fits" for reason in reasons]
        cases = zip(parts, sizes, reasons, strict=True)
        return [*sent, *(Outcome(n, why) if why else self._compressed(part, n, total) for part, n, why in cases)]

    def _reason(self, turn: Turn, part: Part, size: int) -> str:
        """Why a part that was not sent yet is left alone; empty if it is not."""
        newest, rules = part.path in self.newest, self.rules
        reasons = {
            "sent": turn.answered,
            part.fixed: bool(part.fixed),
            "newest": newest and "newest" not in rules.parts,
            "off": not newest and part.kind not in rules.parts,
            "tool": bool(part.tool) and rules.skips(part.tool),
            "tag": rules.tagged(part.text),
            "short": size < rules.floor,
            "bypass": rules.bypass,
            "late": self.deadline.passed,
        }
        return next((reason for reason, holds in reasons.items() if holds), "")

    def _compressed(self, part: Part, size: int, total: int) -> Outcome:
        """A part whose text has a verdict. `total`: tokens of all parts that share the budget."""
        rules, compressor = self.rules, self.compressor
        budget: dict[str, Any] = {"rate": DEFAULT_RATE if rules.rate is None else rules.rate}
        if rules.tokens is not None:
            budget = {"tokens": max(1, rules.tokens * size // total)}
        made_by = [compressor.scorer.name, compressor.scorer.model, compressor.structure, compressor.counter.name]
        question = None if part.kind == "tool" else self.question  # a tool answers its call, not the user
        settings = [*made_by, budget, rules.protect, rules.gain, *(["marker"] if rules.marker else [])]
        key = text_key(settings, question, part.text)
        if key not in self.verdicts and not self.decisions.verdicts([key]):
            try:
                text, after = self.guard.run(partial(self._short, part.text, key, question, budget), self.deadline)
            except LateError as late:
                return Outcome(size, str(late))
            except Exception:  # of a model, a runtime, a bug of ours: the request must go through
                return Outcome(size, "failed")
            self.verdicts[key] = _judged(key, part.text, size, text, after, rules.gain)
        return Outcome(size, text=key)

    def _short(self, text: str, key: str, question: str | None, budget: dict[str, Any]) -> tuple[str, int]:
        """The text that may take a part's place, and its tokens; the marker's count, and need room, too."""
        marker = f"\n{MARKER.format(key[:MARKED])}" if self.rules.marker and not is_json(text) else ""
        if marker and "tokens" in budget:
            room = budget["tokens"] - self.compressor.counter(marker)
            marker, budget = (marker, {"tokens": room}) if room > 0 else ("", budget)
        told = {"question": question, "protect": self.rules.protect, "progress": self.deadline.check, **budget}
        c = self.compressor.compress(text, **told)
        if not marker or not c.text.strip():
            return c.text, c.tokens_after
        return c.text + marker, self.compressor.counter(c.text + marker)


def _judged(key: str, original: str, before: int, text: str, after: int, gain: float) -> Verdict:
    """Is it worth it?"""
    if not text.strip():
        return Verdict(key, "empty", before)
    if after >= before or before - after < gain * before:
        return Verdict(key, "gain", before)
    return Verdict(key, "compressed", after, text, original)


def _sent(turn: Turn, known: Mapping[str, list[Outcome]]) -> list[Outcome]:
    """What was decided for the longest beginning of a turn that was sent."""
    return next((known[key] for key in reversed(turn.keys) if key in known), [])


def _undone(
    decided: Mapping[str, list[Outcome]], sent: Mapping[str, list[Outcome]], verdicts: Mapping[str, Verdict]
) -> dict[str, list[Outcome]]:
    """The rows of those turns in which something is newly compressed, with all that is new left alone."""
    found = dict[str, list[Outcome]]()
    for key, outcomes in decided.items():
        changed = [_verdict(o, verdicts).compressed is not None for o in outcomes]
        changed[: len(sent[key])] = [False] * len(sent[key])
        if any(changed):
            cases = zip(outcomes, changed, strict=True)
            found[key] = [Outcome(o.tokens, "rejected") if change else o for o, change in cases]
    return found


def _verdict(outcome: Outcome, verdicts: Mapping[str, Verdict]) -> Verdict:
    if outcome.text:
        return verdicts.get(outcome.text, Verdict("", "store", outcome.tokens))
    return Verdict("", outcome.reason, outcome.tokens)


def _report(part: Part, outcome: Outcome, verdict: Verdict, new: bool) -> PartReport:
    identity = verdict.key if verdict.compressed is not None else ""
    return PartReport(part.path, part.role, part.kind, outcome.tokens, verdict.tokens, verdict.reason, new, identity)


def _question(text: str) -> str | None:
    """The last paragraph, if it asks something."""
    closing = re.split(r"\n[^\S\n]*\n", text.strip())[-1]
    return closing if asks(closing) else None
