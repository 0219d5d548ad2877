"""The perplexity methods against llmlingua's own, same weights, same text, in one run: seconds, memory, what is kept.

    python bench/perplexity.py CHECKPOINT [--text FILE] [--tokens 2000] [--old DIR] [--json OUT]

CHECKPOINT is a Hugging Face folder of a causal language model (`recipes/laconic_lm.sh`). The loop of llmlingua 0.2.2
fails with transformers 5; for it, pass as `--old` a folder that `pip install --no-deps --target DIR
transformers==4.46.3 tokenizers==0.20.3 huggingface-hub==0.26.5` made. Without it, llmlingua has no rows. The systems
take turns, each in a process of its own that compresses the same paragraphs several times after a first time that does
not count. Memory is the peak of the whole process. On a machine with other work, set OMP_NUM_THREADS=1 and compare the
seconds of the processor.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from common import COUNTER, RATE, counter, document, machine, peak_megabytes, quiet, table

QUESTION = "What did the engineers find, and what will it cost?"
METHODS = ("llmlingua", "longllmlingua", "selective-context", "llmlingua2")  # laconic's; the last with its own model
PEERS = {"llmlingua 0.2.2": {}, "llmlingua 0.2.2, LongLLMLingua": {"rank_method": "longllmlingua", "asked": True}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--text", type=Path, metavar="FILE", help="prose to compress (default: Python's own manual)")
    parser.add_argument("--tokens", type=int, default=2000, help="of the text (default: %(default)s)")
    parser.add_argument("--old", type=Path, metavar="DIR", help="transformers before 5, for llmlingua")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each system (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="in each of them (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write every single measurement there")
    parser.add_argument("--worker", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        print(json.dumps(_measure(**args.worker)))
        return
    print(machine(), flush=True)
    text = document(args.tokens, counter(), args.text)
    names = [*METHODS, *(PEERS if args.old else ())]
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for _ in range(args.rounds):
        for name in names:
            job = {"name": name, "folder": str(args.checkpoint), "text": text, "repeats": args.repeats}
            runs[name].append(_fresh(job, args.old if name in PEERS else None))
    _report(runs, counter()(text))
    if args.json:
        args.json.write_text(json.dumps({"machine": machine(), "runs": runs}, indent=2) + "\n", encoding="utf-8")


def _fresh(job: dict[str, Any], old: Path | None) -> dict[str, Any]:
    """A worker in a new interpreter, which sees the older packages first."""
    paths = [str(old)] if old else []
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(
        [sys.executable, __file__, job["folder"], "--worker", json.dumps(job)], capture_output=True, text=True, env=env
    )
    if done.returncode:
        raise SystemExit(f"{job['name']}\n{done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _measure(name: str, folder: str, text: str, repeats: int) -> dict[str, Any]:
    run = _peer(folder, **PEERS[name]) if name in PEERS else _ours(name, folder)
    kept, seconds, cpu = run(text), [], []
    for _ in range(repeats):
        began, used = time.perf_counter(), time.process_time()
        run(text)
        seconds.append(time.perf_counter() - began)
        cpu.append(time.process_time() - used)
    return {"seconds": seconds, "cpu": cpu, "megabytes": peak_megabytes(), "kept": counter()(kept)}


def _ours(method: str, folder: str) -> Any:
    import laconic

    model = laconic.DEFAULT_MODEL if method == "llmlingua2" else folder
    compressor = laconic.load(model, method=method, counter=COUNTER)
    question = QUESTION if method == "longllmlingua" else None
    return lambda text: compressor.compress(text, rate=RATE, question=question).text


def _peer(folder: str, rank_method: str = "llmlingua", asked: bool = False) -> Any:
    """llmlingua's first methods, its token counter without a download; LongLLMLingua as its authors recommend it."""
    quiet()
    import llmlingua.prompt_compressor as package
    from rs_bpe import openai

    package.tiktoken = SimpleNamespace(encoding_for_model=lambda name: openai.cl100k_base())
    peer = package.PromptCompressor(folder, device_map="cpu", model_config={})
    options: dict[str, Any] = {"rate": RATE, "rank_method": rank_method, "context_budget": "+100"}
    if asked:
        options |= {"question": QUESTION, "condition_in_question": "after_condition", "condition_compare": True}
        options |= {"reorder_context": "sort", "dynamic_context_compression_ratio": 0.3}
    return lambda text: peer.compress_prompt(text.split("\n\n"), **options)["compressed_prompt"]


def _report(runs: dict[str, list[dict[str, Any]]], tokens: int) -> None:
    median, cpu = (
        {name: statistics.median(s for r in found for s in r[key]) for name, found in runs.items()}
        for key in ("seconds", "cpu")
    )
    rows = []
    for name, found in runs.items():
        peer = list(PEERS)["long" in name.lower()]
        ratio = f"{cpu[peer] / cpu[name]:.1f}x" if peer in cpu and name not in PEERS else ""
        memory, kept = max(r["megabytes"] for r in found), found[0]["kept"] / tokens
        times = [f"{median[name]:.2f}", f"{cpu[name]:.2f}", f"{tokens / median[name]:,.0f}"]
        rows.append([name, *times, ratio, f"{memory:.0f}", f"{kept:.2f}"])
    print(table(["method", "seconds", "CPU seconds", "tokens/s", "of llmlingua (CPU)", "peak MB", "kept"], rows))


if __name__ == "__main__":
    main()
