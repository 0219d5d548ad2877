"""The command `laconic replay`."""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from laconic import DEFAULT_MODEL
from laconic.console import number, say, whole, write
from laconic.errors import InputError

if TYPE_CHECKING:
    from laconic.serve.replay import Saving
    from laconic.serve.rules import Rules

_PROTOCOLS = ("chat", "responses", "messages")
_MILLION = 1e6


def options(sub: argparse.ArgumentParser) -> None:
    """The command `laconic replay`."""
    sub.description = (
        "Recorded requests: what would have been saved, net of what the provider's prefix cache makes cheap anyway. "
        "Nothing is sent, and the store of decisions is a new one that goes when this ends."
    )
    sub.set_defaults(run=run)
    what = ".jsonl, .json, both also .gz, or folders of them: requests, or objects with a body; docs/clients.md"
    sub.add_argument("paths", nargs="+", metavar="FILE|FOLDER", type=Path, help=what)
    told = "default: what a record says, or looks like"
    sub.add_argument("--protocol", choices=_PROTOCOLS, default="", help=told)
    sub.add_argument("--expand", action="store_true", help="a record is a conversation: a request for each model call")
    sub.add_argument("--limit", type=whole, metavar="N", help="so many records of each file (default: all)")
    sub.add_argument(
        "--config", metavar="FILE", type=Path, help="TOML with [rules]: docs/serve.md (default: environment)"
    )
    sub.add_argument("--model", default=DEFAULT_MODEL, metavar="NAME|DIR", help=f"default: {DEFAULT_MODEL}")
    cache = sub.add_argument_group("prices of the provider's cache, of a token at full price")
    cache.add_argument("--cache-read", type=number, default=0.1, metavar="F", help="default: 0.1")
    cache.add_argument("--cache-write", type=number, default=1.25, metavar="F", help="default: 1.25; OpenAI: 1")
    sub.add_argument("--price", type=number, metavar="P", help="of a million tokens of input at full price")
    sub.add_argument("--format", choices=("text", "json"), default="text", help="default: text")


def run(args: argparse.Namespace) -> int:
    """A table and a sentence, or one JSON object."""
    from laconic.serve.rules import Rules

    _check(args)
    saving = _replayed(args, Rules.read(args.config))
    if not saving.requests:
        raise InputError(f"no requests in {', '.join(map(str, args.paths))}; pass files that have some")
    if args.format == "json":
        prices = {"price": args.price} if args.price is not None else {}
        write(None, json.dumps({**saving.to_dict(), **prices}) + "\n")
    else:
        write(None, "\n".join(_told(saving, args.price)) + "\n")
    if saving.answered == saving.requests:
        say("laconic: every request ends with the model's words; if these are whole conversations, pass --expand")
    return 0


def _check(args: argparse.Namespace) -> None:
    prices = {"--cache-read": args.cache_read, "--cache-write": args.cache_write, "--price": args.price}
    for name, value in prices.items():
        if value is not None and not 0 <= value < float("inf"):
            raise InputError(f"{name} must be 0 or more, got {value}")
    if args.limit is not None and args.limit < 1:
        raise InputError(f"--limit must be 1 or more, got {args.limit}")


def _replayed(args: argparse.Namespace, rules: Rules) -> Saving:
    import laconic
    from laconic.serve.decisions import Decisions
    from laconic.serve.recorded import recorded
    from laconic.serve.replay import replay
    from laconic.serve.rewrite import Rewriter

    requests = (recorded(path, args.protocol, args.expand, args.limit) for path in args.paths)
    compressor = laconic.load(args.model)
    with tempfile.TemporaryDirectory() as folder, Decisions(Path(folder, "decisions.sqlite")) as decisions:
        rewriter = Rewriter(compressor, rules, decisions)
        return replay(itertools.chain.from_iterable(requests), rewriter, args.cache_read, args.cache_write)


def _told(saving: Saving, price: float | None) -> list[str]:
    """The lines of the text form."""
    from laconic.serve.replay import percentile
    from laconic.serve.report import REASONS, WHOLE

    plain, ours = saving.plain, saving.ours
    rows = [["", "as it is", "laconic", "saved"], _row("tokens sent", plain.tokens, ours.tokens)]
    rows.append(_row("cost in tokens", plain.cost, ours.cost))
    lines = _table(rows)
    parts = [["kind", "reason", "parts", "tokens", "saved", ""]]
    for (kind, why), line in sorted(saving.lines.items(), key=lambda item: -item[1].tokens_before):
        saved = line.tokens_before - line.tokens_after
        parts.append([kind, why, f"{line.parts:,}", f"{line.tokens_before:,}", f"{saved:,}", REASONS[why]])
    lines += ["", "Texts when they were first sent:", *_table(parts)] if len(parts) > 1 else []
    lines += [f"{n:,} requests went out as they came: {WHOLE[why]}" for why, n in saving.whole.items()]
    slow = [1000 * percentile(saving.seconds, p) for p in (50, 95)]
    lines += ["", f"Added to a request: {slow[0]:.0f} ms (median), {slow[1]:.0f} ms (95th percentile) here."]
    return [f"{saving.requests:,} requests, {len(saving.sessions):,} sessions", "", *lines, _net(saving, price)]


def _net(saving: Saving, price: float | None) -> str:
    """The honest number, and what it leaves open."""
    before, net = saving.plain.cost, saving.net
    money = "" if price is None else f" ({before * net * price / _MILLION:,.2f} of {before * price / _MILLION:,.2f})"
    fate = f"cost {-net:.1%} more than" if net < 0 else f"saved {net:.1%} of what"
    broken = f"{saving.broken:,} requests" if saving.broken else "no request"
    return (
        f"Net of the prefix cache laconic would have {fate} the input cost{money}; {broken} had less in the cache than "
        "without it. What the model would have answered to the shorter texts is not known."
    )


def _row(name: str, before: float, after: float) -> list[str]:
    return [name, f"{before:,.0f}", f"{after:,.0f}", f"{1 - after / before:.1%}" if before else ""]


def _table(rows: list[list[str]]) -> list[str]:
    """Columns under each other: numbers and their heads to the right."""
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    right = [any(row[k][:1].isdigit() for row in rows[1:]) for k in range(len(rows[0]))]
    aligned = ([c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True)] for row in rows)
    return ["  ".join(row).rstrip() for row in aligned]
