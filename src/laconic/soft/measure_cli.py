"""`laconic soft measure`: its options, and the call."""

from __future__ import annotations

import argparse
from pathlib import Path

from laconic import DEFAULT_MODEL, soft
from laconic.errors import InputError


def options(sub: argparse.ArgumentParser) -> None:
    """Those of `laconic soft measure`."""
    sub.set_defaults(run=run)
    sub.add_argument(
        "encoders",
        nargs="+",
        metavar="ENCODER",
        type=Path,
        help="folders of trained encoders, and of readers of full contexts (the upper bound), of one base",
    )
    data = sub.add_argument_group("what is measured on (one of them or more)")
    data.add_argument("--data", metavar="FILE", type=Path, action="append", default=[], help="texts, or with questions")
    data.add_argument("--facts", type=int, default=0, metavar="N", help="contexts of made-up facts, fresh names")
    data.add_argument(
        "--facts-lengths", type=_numbers, default=(), metavar="N,N…", help="tokens of them (default: up to the window)"
    )
    data.add_argument("--lookup", type=int, default=0, metavar="N", help="contexts of 4, 8, 12 and 16 pairs, N of each")
    data.add_argument(
        "--trained", metavar="FILE", type=Path, action="append", default=[], help="refuse what is in them"
    )
    data.add_argument("--text-field", default="text", metavar="F", help="default: text")
    data.add_argument("--limit", type=int, metavar="N", help="so many texts of each file and length")
    sub.add_argument("--slots", type=int, action="append", default=[], metavar="M", help="repeatable; default: all")
    sub.add_argument("--lengths", type=_numbers, default=(), metavar="N,N…", help="default: 96,192,288,384,480")
    sub.add_argument("--follow", type=int, default=32, metavar="N", help="tokens after a text, to go on with; 0: none")
    sub.add_argument("--hard", default=DEFAULT_MODEL, metavar="NAME|DIR", help=f"default: {DEFAULT_MODEL}; none")
    sub.add_argument("--ablate", action="store_true", help="also leave out each slot in turn")
    sub.add_argument("--base", metavar="NAME|DIR", help="the base, if it was moved since the encoders were trained")
    sub.add_argument("--device", metavar="D", help="cpu, cuda or mps; default: a GPU if there is one")
    sub.add_argument("-o", "--output", metavar="OUT", type=Path, required=True, help="folder; done rows are kept")


def run(args: argparse.Namespace) -> int:
    """Measure, and print the tables."""
    from tqdm import tqdm

    plan = soft.Plan(
        encoders=args.encoders,
        out=args.output,
        data=args.data,
        slots=tuple(args.slots),
        lengths=args.lengths,
        facts=args.facts,
        facts_lengths=args.facts_lengths,
        lookup=args.lookup,
        follow=args.follow,
        limit=args.limit,
        trained=args.trained,
        hard="" if args.hard == "none" else args.hard,
        ablate=args.ablate,
        base=args.base,
        device=args.device,
        field=args.text_field,
    )
    with tqdm(unit="row", disable=None) as bar:  # silent where nobody watches
        written = soft.evaluate(plan, bar.update)
    tqdm.write(written)
    return 0


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(map(int, text.split(",")))
    except ValueError:
        raise InputError(f"lengths are whole numbers with commas between them, such as 96,480; got {text!r}") from None
