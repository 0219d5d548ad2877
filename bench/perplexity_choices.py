"""What the choices in LLMLingua and LongLLMLingua are worth: answers that survive, with other values of each.

    python bench/perplexity_choices.py CHECKPOINT articles=squad_part.json nq20=nq20.jsonl [--rate 0.33] [--limit 40]

`off by one` is what the package does: a token is judged by the surprisal of the one after it. k: paragraphs are taken
until they hold k times the budget; δτ: how much more the best one keeps; segments: tokens that are read at once; mean,
largest: of the tokens of a unit, in place of their sum. Tables as of `laconic eval`; rows that are there already are
not measured again.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from laconic.budget import counter
from laconic.compressor import Compressor
from laconic.eval import report, tasks
from laconic.eval.data import sample
from laconic.eval.matrix import Rows, Suite, measure
from laconic.eval.methods import Output
from laconic.hub import load_decoder
from laconic.scorers import llmlingua
from laconic.text import pool, touching


def largest(values: Any, starts: Any, ends: Any, tiling: Any) -> Any:
    """Of the tokens of a unit, as `laconic.text.pool` has their mean."""
    token, unit = touching(starts, ends, tiling)
    found = np.full(len(tiling), np.nan, np.float32)
    found[unit] = -np.inf
    np.maximum.at(found, unit, values[token])
    return found


CHOICES: dict[str, dict[str, Any]] = {
    "as shipped": {},
    "off by one": {"shift": True},
    "k 1.5": {"coarse": 1.5},
    "k 2": {"coarse": 2.0},
    "k 3": {"coarse": 3.0},
    "mean": {"pooling": pool},
    "largest": {"pooling": largest},
    "segments of 50": {"segment": 50},
    "segments of 100": {"segment": 100},
    "δτ 0": {"spread": 0.0},
    "δτ 1": {"spread": 1.0},
    "k 1, δτ 0": {"coarse": 1.0, "spread": 0.0},
    "k 2, δτ 0.3": {"coarse": 2.0, "spread": 0.3},
    "k 2, δτ 1": {"coarse": 2.0, "spread": 1.0},
}
ONLY_ASKED = [name for name in CHOICES if "δτ" in name]  # without a question all paragraphs get the same share


@dataclass(frozen=True)
class Choice:
    """A method of `laconic eval` with one thing changed."""

    name: str
    compressor: Compressor
    change: dict[str, Any]

    @property
    def reads_question(self) -> bool:
        return self.compressor.scorer.reads_question

    def compress(self, text: str, rate: float, question: str | None) -> Output:
        with changed(**{name: value for name, value in self.change.items() if name != "segment"}):
            c = self.compressor.compress(text, rate=rate, question=question if self.reads_question else None)
        return Output(c.text, c.spans, c.tokens_before, c.tokens_after, c.seconds)


@contextmanager
def changed(
    shift: bool = False, coarse: float | None = None, spread: float | None = None, pooling: Any = None
) -> Iterator[None]:
    """While this is open, the module does it so."""
    own = llmlingua._Prefix.surprisal

    def shifted(prefix: Any, ids: Any) -> Any:
        found = own(prefix, ids)
        return np.append(found[1:], found[-1:])

    with (
        patch.object(llmlingua._Prefix, "surprisal", shifted if shift else own),
        patch.object(llmlingua, "total", pooling or llmlingua.total),
        patch.object(llmlingua, "_COARSE", coarse or llmlingua._COARSE),
        patch.object(llmlingua, "_COARSE_ASKED", coarse or llmlingua._COARSE_ASKED),
        patch.object(llmlingua, "_SPREAD", llmlingua._SPREAD if spread is None else spread),
    ):
        yield


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("tasks", nargs="+", metavar="TASK=PATH")
    parser.add_argument("--rate", type=float, action="append")
    parser.add_argument("--choice", choices=CHOICES, action="append", help="only these; repeatable")
    parser.add_argument("--limit", type=int, default=40, help="questions of each task (default: %(default)s)")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT")
    args = parser.parse_args()
    model = load_decoder(args.checkpoint)
    methods = []
    for asked in (False, True):
        for name, change in CHOICES.items():
            if name in (args.choice or CHOICES) and (asked or name not in ONLY_ASKED):
                scorer = llmlingua.LLMLingua(model, asked, change.get("segment", llmlingua._SEGMENT))
                methods.append(Choice(f"{scorer.name}, {name}", Compressor(scorer, counter()), change))
    rows, shown = Rows(args.output / "rows.jsonl"), []
    for task, path in (t.split("=", 1) for t in args.tasks):
        suite = Suite(task, tasks.task(task).kind, sample(tasks.load(task, path), args.limit))
        measure(suite, methods, args.rate or [0.33], [], rows)
        shown += rows.of(task, [])
    print(report.markdown(shown, methods[0].name))


if __name__ == "__main__":
    main()
