"""laconic against llmlingua 0.2.2: the same weights, text and token counter, in the same run on the same machine.

    python bench/speed.py [--text FILE] [--json OUT] [--bodies MiniLM BERT-base XLM-R-large] [--quick]

Long text and short prompt: one process holds all systems and takes turns, `--rounds` times; the table has the fastest
run of each, the JSON all. Start-up is a fresh process from its start to its end: import, construct, compress a short
prompt. Import is `python -c "import …"`. Memory is the peak of a fresh process that compresses the long text. Every
system uses its own default number of threads and keeps half of the tokens. Other work on the machine slows llmlingua's
threads, which wait for each other, more than laconic's: the share of it is printed, and should be near 0.

The MiniLM body is a real encoder with a random head, the two others are random: what a body computes has no influence
on how long it takes. The Unigram vocabulary of the XLM-R-large body is small, which spares llmlingua start-up and
memory (its real table has 250,002 rows, 1 GB). laconic's models are exported before anything is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

from common import (
    BODIES,
    WORK,
    bare,
    body,
    busy_seconds,
    counter,
    document,
    exported,
    fresh,
    machine,
    peak_megabytes,
    system,
    table,
)

TOKENS = {"MiniLM": 32_000, "BERT-base": 8_000, "XLM-R-large": 4_000}  # slow bodies get what llmlingua does in a minute
SHORT = (
    "The harbour committee met on Tuesday to discuss the repair of the northern pier, which had been closed since the "
    "storm of 14 January. The engineers found 23 damaged piles, so the cost rose from $1.2 million to $1.9 million."
)
PAUSE = 0.3  # seconds between turns: the threads of the one before spin for a while
TURN = 0.5  # seconds that a turn lasts at least: fast systems run several times
COLUMNS = {
    "llmlingua": "llmlingua",
    "fp32": "laconic fp32",
    "int8": "laconic int8",
    "default": "laconic default model",
    "asked": "laconic default, with a question",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, metavar="FILE", help="prose to compress (default: Python's own manual)")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write every single measurement there")
    parser.add_argument("--bodies", nargs="+", choices=BODIES, default=list(BODIES), metavar="BODY")
    parser.add_argument("--default", default="laconic-small", metavar="NAME|DIR", help="laconic's default model")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each system (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=150, help="no turn begins later (default: %(default)s)")
    parser.add_argument("--work", type=Path, default=WORK, metavar="DIR", help="where bodies are kept")
    parser.add_argument("--quick", action="store_true", help="a twentieth of the text and one turn: does it run?")
    parser.add_argument("--worker", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        print(json.dumps(globals()[f"_{args.worker.pop('task')}"](**args.worker)))
        return
    print(machine())
    found: dict[str, Any] = {}
    for name in args.bodies:
        found[name] = _measure(name, args)
        if args.json:
            args.json.write_text(json.dumps({"machine": machine(), "bodies": found}, indent=2) + "\n", encoding="utf-8")
    _report(found)


def _measure(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Everything about one body. This process stays small and idle; the work is done in fresh ones."""
    tokens = TOKENS[name] // (20 if args.quick else 1)
    rounds = 1 if args.quick else args.rounds
    source = str(args.text) if args.text else None
    made, _ = fresh(__file__, task="prepare", name=name, tokens=tokens, source=source, work=str(args.work))
    folders = {**made["folders"], "default": args.default, "asked": args.default}
    long, _ = fresh(__file__, task="turns", folders=folders, text=made["text"], rounds=rounds, seconds=args.seconds)
    short, _ = fresh(__file__, task="turns", folders=folders, rounds=4 * rounds, seconds=args.seconds / 3)
    start: dict[str, list[float]] = {c: [] for c in COLUMNS}
    imports: dict[str, list[float]] = {"llmlingua": [], "laconic": []}
    for _ in range(min(rounds, 3)):
        for column, folder in folders.items():
            start[column].append(fresh(__file__, task="once", column=column, folder=folder)[1])
        for package, times in imports.items():
            times += bare(f"import {package}")
    jobs = {c: {"task": "once", "column": c, "folder": f, "text": made["text"]} for c, f in folders.items()}
    memory = {c: [fresh(__file__, **job)[0]["megabytes"]] for c, job in jobs.items()}
    lazy = dict.fromkeys(COLUMNS, imports["laconic"]) | {"llmlingua": imports["llmlingua"]}
    sizes = {k: made[k] for k in ("tokens", "short_tokens", "pieces")}
    times = {"long": long["seconds"], "short": short["seconds"], "kept": long["kept"]}
    times["others"] = {column: statistics.mean(shares) for column, shares in long["others"].items()}
    return {**sizes, **times, "start": start, "import": lazy, "memory": memory}


def _prepare(name: str, tokens: int, source: str | None, work: str) -> dict[str, Any]:
    """Write the body, its exports and the text."""
    from tokenizers import Tokenizer

    count = counter()
    path = Path(source) if source else None
    folder = body(name, Path(work), document(300_000, count, path) if name == "XLM-R-large" else "")
    folders = {"llmlingua": folder, "fp32": exported(folder, int8=False), "int8": exported(folder, int8=True)}
    text = document(tokens, count, path)
    target = folder / "text.txt"
    target.write_text(text, encoding="utf-8")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    pieces = len(tokenizer.encode(text))
    sizes = {"tokens": count(text), "short_tokens": count(SHORT), "pieces": pieces}
    return {**sizes, "text": str(target), "folders": {k: str(v) for k, v in folders.items()}}


def _turns(folders: dict[str, str], rounds: int, seconds: float, text: str | None = None) -> dict[str, Any]:
    """Seconds of each system, in turns; the share of tokens that each keeps; and how busy others kept the machine."""
    content = Path(text).read_text(encoding="utf-8") if text else SHORT
    run = {column: system(_package(column), folder) for column, folder in folders.items()}
    for compress in run.values():
        compress(SHORT)
    found: dict[str, list[float]] = {column: [] for column in run}
    kept: dict[str, float] = {}
    others: dict[str, list[float]] = {column: [] for column in run}
    count, deadline = counter(), time.perf_counter() + seconds
    for turn in range(rounds):
        if turn >= 2 and time.perf_counter() > deadline:
            break
        for column, compress in run.items():
            time.sleep(PAUSE)
            start, busy, own = time.perf_counter(), busy_seconds(), time.process_time()
            while time.perf_counter() - start < TURN:
                began = time.perf_counter()
                output = compress(content)
                found[column].append(time.perf_counter() - began)
            cores, span = os.cpu_count() or 1, time.perf_counter() - start
            others[column].append(max(0.0, busy_seconds() - busy - (time.process_time() - own)) / (cores * span))
            kept[column] = count(output) / count(content)
    return {"seconds": found, "kept": kept, "others": others}


def _once(column: str, folder: str, text: str | None = None) -> dict[str, float]:
    """Import, construct, compress: what a fresh process does."""
    content = Path(text).read_text(encoding="utf-8") if text else SHORT
    system(_package(column), folder)(content)
    return {"megabytes": peak_megabytes()}


def _package(column: str) -> str:
    return {"llmlingua": "llmlingua", "asked": "asked"}.get(column, "laconic")


def _report(found: dict[str, Any]) -> None:
    rows = []
    for name, r in found.items():
        long, short = f"long text, {r['tokens']:,} tokens", f"short prompt, {r['short_tokens']} tokens"
        rows.append(_row(name, f"{long}: tokens/s", r["long"], lambda s, n=r["tokens"]: f"{n / s:,.0f}"))
        rows.append(_row("", f"{short}: ms", r["short"], lambda s: f"{1000 * s:,.1f}"))
        rows.append(_row("", "start to first result: s", r["start"], lambda s: f"{s:,.2f}"))
        rows.append(_row("", "import: s", r["import"], lambda s: f"{s:,.2f}"))
        rows.append(_row("", "peak memory, long text: MB", r["memory"], lambda s: f"{s:,.0f}"))
    ratios = [f"× {COLUMNS[c].removeprefix('laconic ')}" for c in list(COLUMNS)[1:]]
    print("\nThe × columns: how many times less time (or memory) than llmlingua.\n")
    print(table(["body", "", *COLUMNS.values(), *ratios], rows))
    print()
    for name, r in found.items():
        medians = {column: statistics.median(times) for column, times in r["long"].items()}
        notes = {
            "× by medians": {c: f"{medians['llmlingua'] / m:.1f}" for c, m in medians.items()},
            "kept": {c: f"{k:.3f}" for c, k in r["kept"].items()},
            "machine busy with others": {c: f"{s:.0%}" for c, s in r["others"].items()},
        }
        print(f"{name}, long text: {r['pieces'] / r['tokens']:.2f} pieces a token")
        for what, values in notes.items():
            print(f"  {what}: {', '.join(f'{c} {v}' for c, v in values.items())}")
    goals = [("MiniLM", "long", "fp32", 1.8), ("MiniLM", "short", "int8", 10), ("XLM-R-large", "long", "default", 90)]
    for name, what, column, goal in goals:
        if name in found:
            ratio = min(found[name][what]["llmlingua"]) / min(found[name][what][column])
            verdict = "reached" if ratio >= goal else "MISSED"
            print(f"target {verdict}: {COLUMNS[column]} against llmlingua with {name}, {what}: {ratio:.1f} (≥ {goal})")


def _row(name: str, what: str, values: dict[str, list[float]], form: Any) -> list[str]:
    best = {column: min(times) for column, times in values.items()}
    ratios = [f"{best['llmlingua'] / best[column]:.1f}" for column in list(COLUMNS)[1:]]
    return [name, what, *(form(best[column]) for column in COLUMNS), *ratios]


if __name__ == "__main__":
    main()
