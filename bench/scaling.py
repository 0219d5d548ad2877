"""How time and memory grow with the text, where the time outside the model goes, and what a process costs.

    python bench/scaling.py [--text FILE] [--model laconic-small] [--json OUT] [--quick]

Every length is compressed in a process of its own; its peak memory is the whole process, interpreter, model and text
included. "Outside the model" is the same compression with an encoder that takes no time, as a share of the real one;
it is split by exclusive time: what a part spends in another part is the other's.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import bare, document, fresh, machine, peak_megabytes, table

LENGTHS = (1_000, 10_000, 100_000, 1_000_000)
SPLIT = 100_000
WORDS = 500  # of the file that the command line compresses


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, metavar="FILE", help="prose to compress (default: Python's own manual)")
    parser.add_argument("--model", default="laconic-small", metavar="NAME|DIR")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write every single measurement there")
    parser.add_argument("--repeats", type=int, default=5, help="fresh processes a figure (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="a hundredth of the text: does it run?")
    parser.add_argument("--worker", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        print(json.dumps(globals()[f"_{args.worker.pop('task')}"](**args.worker)))
        return
    print(machine(), flush=True)
    shrink = 100 if args.quick else 1
    # The command line comes first: ru_maxrss of a child starts at what its parent holds, so the parent must be small.
    process = _processes(args)
    _report_processes(process)
    with tempfile.TemporaryDirectory() as folder:
        sizes = [n // shrink for n in LENGTHS]
        fresh(__file__, task="texts", folder=folder, sizes=sizes, source=str(args.text) if args.text else None)
        files = [str(Path(folder, f"{n}.txt")) for n in sizes]
        lengths = [fresh(__file__, task="length", model=args.model, file=file)[0] for file in files]
        _report_lengths(lengths)
        split, _ = fresh(__file__, task="split", model=args.model, file=files[LENGTHS.index(SPLIT)])
        _report_split(split)
    if args.json:
        found = {"machine": machine(), "processes": process, "lengths": lengths, "split": split}
        args.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def _processes(args: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds (and megabytes) of fresh processes, taking turns."""
    words = document(2 * WORDS, lambda p: len(p.split()), args.text).split(" ")[:WORDS]
    found: dict[str, list[float]] = {"bare": [], "import": [], "command": [], "cpu": [], "megabytes": []}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "text.txt")
        file.write_text(" ".join(words), encoding="utf-8")
        command = [sys.executable, "-m", "laconic.cli", "compress", str(file), "--model", args.model]
        for _ in range(args.repeats + 1):
            found["bare"] += bare("pass")
            found["import"] += bare("import laconic")
            for name, value in _watched(command).items():
                found[name].append(value)
    return {name: values[1:] for name, values in found.items()}  # the first fills the file cache


def _watched(command: list[str]) -> dict[str, float]:
    """Wall-clock seconds, CPU seconds and peak resident megabytes of a command."""
    began = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert child.stderr
    said = child.stderr.read()
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.perf_counter() - began
    child.returncode = os.waitstatus_to_exitcode(status)  # it is reaped: Popen must not wait for it
    if child.returncode:
        raise SystemExit(said.decode())
    megabytes = usage.ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)
    return {"command": seconds, "cpu": usage.ru_utime + usage.ru_stime, "megabytes": megabytes}


def _texts(folder: str, sizes: list[int], source: str | None) -> dict[str, int]:
    """Write a text of each size."""
    from laconic.budget import counter

    texts = {n: document(n, counter(), Path(source) if source else None) for n in sizes}
    return {str(n): Path(folder, f"{n}.txt").write_text(text, encoding="utf-8") for n, text in texts.items()}


def _length(model: str, file: str) -> dict[str, float]:
    """One text of one length: the faster of two runs, one for the longest."""
    import laconic

    compressor = laconic.load(model)
    text = Path(file).read_text(encoding="utf-8")
    compressor.compress(text[:1000], rate=0.5)
    before = peak_megabytes()
    result, seconds = _timed(lambda: compressor.compress(text, rate=0.5))
    peak = peak_megabytes()
    if result.tokens_before < LENGTHS[-1] // 2:
        seconds = min(seconds, _timed(lambda: compressor.compress(text, rate=0.5))[1])
    return {
        "tokens": result.tokens_before,
        "seconds": seconds,
        "rate": result.rate,
        "megabytes_before": before,
        "megabytes": peak,
    }


def _split(model: str, file: str) -> dict[str, Any]:
    """The whole, the same without the model, and the parts of that: the best of three each, in turns."""
    from dataclasses import replace

    import laconic.compressor as module
    from laconic.bench import _Nothing
    from laconic.budget import counter
    from laconic.compressor import Compressor
    from laconic.hub import load_folder
    from laconic.scorers.classifier import Classifier

    loaded, count = load_folder(model), counter()
    text = Path(file).read_text(encoding="utf-8")
    whole = Compressor(Classifier(loaded), count)
    around = Compressor(Classifier(replace(loaded, encoder=_Nothing(loaded.manifest))), count)
    runs: dict[str, list[float]] = {"whole": [], "around": []}
    for _ in range(3):
        runs["whole"].append(_timed(lambda: whole.compress(text, rate=0.5))[1])
        runs["around"].append(_timed(lambda: around.compress(text, rate=0.5))[1])

    watch = _Stopwatch()
    scorer = Classifier(replace(loaded, encoder=watch.object("encoder stand-in", _Nothing(loaded.manifest))))
    scorer._model.tokenizer = watch.object("tokenise", loaded.tokenizer)
    for part, name in {"segment": "segment", "choose": "entries", "mend and cut": "mend"}.items():
        setattr(module, name, watch.function(part, getattr(module, name)))
    module.cut = watch.function("mend and cut", module.cut)
    counted = watch.function("count", count)
    counted.name = count.name
    scorer.score = watch.function("windows, pooling", scorer.score)
    _, seconds = _timed(lambda: Compressor(scorer, counted).compress(text, rate=0.5))
    parts = {**watch.seconds, "rest": seconds - sum(watch.seconds.values())}
    return {"tokens": count(text), **runs, "parts": parts, "calls": watch.calls}


class _Stopwatch:
    """Exclusive seconds of functions that call each other on one thread."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.calls: dict[str, int] = {}
        self._inner = [0.0]

    def function(self, name: str, called: Callable[..., Any]) -> Any:
        def watched(*args: Any, **options: Any) -> Any:
            self._inner.append(0.0)
            began = time.perf_counter()
            try:
                return called(*args, **options)
            finally:
                spent = time.perf_counter() - began
                self.seconds[name] = self.seconds.get(name, 0.0) + spent - self._inner.pop()
                self.calls[name] = self.calls.get(name, 0) + 1
                self._inner[-1] += spent

        return watched

    def object(self, name: str, wrapped: Any) -> Any:
        """The object with all its methods watched."""
        watch = self

        class Watched:
            def __getattr__(self, attribute: str) -> Any:
                found = getattr(wrapped, attribute)
                return watch.function(name, found) if callable(found) else found

        return Watched()


def _timed(run: Callable[[], Any]) -> tuple[Any, float]:
    began = time.perf_counter()
    result = run()
    return result, time.perf_counter() - began


def _report_processes(found: dict[str, list[float]]) -> None:
    goals = {"import": 0.15, "command": 0.8, "megabytes": 250.0}
    names = {"bare": "`python -c pass`, s", "import": "`import laconic` (whole process), s"}
    names |= {"command": f"`laconic compress` of {WORDS} words, s", "cpu": "the same, CPU seconds of all threads"}
    names |= {"megabytes": "the same, peak memory, MB"}
    rows = []
    for key, name in names.items():
        value, goal = statistics.median(found[key]), goals.get(key)
        digits = 0 if key == "megabytes" else 3
        spread = f"{min(found[key]):.{digits}f} to {max(found[key]):.{digits}f}"
        verdict = "" if goal is None else f"≤ {goal:g}: {'reached' if value <= goal else 'MISSED'}"
        rows.append([name, f"{value:.{digits}f}", spread, verdict])
    print("\n" + table(["fresh process", "median", "range", "target"], rows), flush=True)


def _report_lengths(found: list[dict[str, float]]) -> None:
    rows = []
    for r in found:
        pace = r["tokens"] / r["seconds"]
        grown = r["megabytes"] - r["megabytes_before"]
        cells = f"{r['tokens']:,}", f"{r['seconds']:.3f}", f"{pace:,.0f}", f"{r['megabytes']:,.0f}", f"{grown:,.0f}"
        rows.append([*cells, f"{1e6 * grown / r['tokens']:,.0f}", f"{r['rate']:.4f}"])
    head = ["tokens", "s", "tokens/s", "peak MB", "MB above loaded", "bytes a token", "rate"]
    print("\n" + table(head, rows), flush=True)
    first, last = found[1], found[-1]
    growth = (last["seconds"] / first["seconds"]) / (last["tokens"] / first["tokens"])
    print(
        f"time a token, {last['tokens']:,} against {first['tokens']:,} tokens: {growth:.2f} (linear is 1)", flush=True
    )


def _report_split(found: dict[str, Any]) -> None:
    whole, around = min(found["whole"]), min(found["around"])
    total = sum(found["parts"].values())
    rows = [["whole", f"{whole:.3f}", "", ""], ["outside the model", f"{around:.3f}", f"{around / whole:.1%}", ""]]
    for part, seconds in sorted(found["parts"].items(), key=lambda item: -item[1]):
        calls = found["calls"].get(part, "")
        rows.append([f"- {part}", f"{seconds:.3f}", f"{around / whole * seconds / total:.1%}", calls])
    print("\n" + table([f"{found['tokens']:,} tokens", "s", "share of the whole", "calls"], rows))
    verdict = "reached" if around <= 0.15 * whole else "MISSED"
    print(f"target {verdict}: outside the model ≤ 15 %, it is {around / whole:.1%}")


if __name__ == "__main__":
    main()
