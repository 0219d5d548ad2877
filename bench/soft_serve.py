"""Serving a context: read in full, its keys and values kept, or a memory of it. Time to first token, memory.

    python bench/soft_serve.py ENCODER [--tokens 96 192 288 384 480 960 1920] [--slots M] [--json OUT]

ENCODER is a folder of `SoftEncoder.save`, or a causal language model: then an untrained encoder of it, since times and
sizes do not depend on what the weights say. A context is a cut of Python's own manual. Each way and length has a
process of its own, in turns:

    encode   text to the store, once; longer than the window: in chunks
    full     context and question read in one pass
    kept     keys and values of the whole context at hand (a prefix cache), the question read
    memory   slots out of the store, the question read

Times are medians, from the request to the first token, after a first request that does not count. `MB more` is by how
much the process grew from the loaded model to its peak, that first request included. `pays after` so many questions,
encoding is cheaper than reading the context each time.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import document, fresh, machine, peak_megabytes, quiet, table

QUESTION = "\nQuestion: What does the manual say? Answer:"
WAYS = ("encode", "full", "kept", "memory")
TOKENS = [96, 192, 288, 384, 480, 960, 1920]
UNTRAINED_SLOTS = 16  # 500xCompressor's


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("encoder", nargs="?", metavar="ENCODER")
    parser.add_argument("--tokens", type=int, nargs="+", default=TOKENS, metavar="N", help="of the contexts")
    parser.add_argument("--slots", type=int, metavar="M", help="of a text or chunk (default: all that were trained)")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each way and length (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="requests in each of them (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write every single measurement there")
    parser.add_argument("--worker", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        print(json.dumps(_measure(**args.worker)))
        return
    if not args.encoder:
        parser.error("pass the folder of a soft encoder or of a causal language model")
    print(machine(), flush=True)
    runs: dict[int, dict[str, list[dict[str, Any]]]] = {n: {way: [] for way in WAYS} for n in args.tokens}
    with tempfile.TemporaryDirectory() as store:
        for _ in range(args.rounds):
            for tokens in args.tokens:
                for way in WAYS:
                    job = {"way": way, "tokens": tokens, "folder": args.encoder, "slots": args.slots}
                    runs[tokens][way].append(fresh(__file__, **job, repeats=args.repeats, store=store)[0])
    print(_report(runs))
    if args.json:
        args.json.write_text(json.dumps({"machine": machine(), "runs": runs}, indent=2) + "\n", encoding="utf-8")


# In a process of its own


def _measure(way: str, tokens: int, folder: str, slots: int | None, repeats: int, store: str) -> dict[str, Any]:
    """Seconds of each request, bytes that are kept between requests, MB of the process; empty if it does not fit."""
    quiet()
    from laconic.errors import InputError
    from laconic.soft.store import MemoryStore

    encoder = _encoder(folder)
    ids = encoder.base.tokens(document(tokens, lambda text: len(encoder.base.tokens(text))))
    text, loaded = encoder.base.text(ids[:tokens]), peak_megabytes()
    with MemoryStore(Path(store), max_bytes=1 << 34) as memories:
        try:
            request, size, held = _WAYS[way](encoder, memories, text, slots)
            request()
        except InputError as error:
            if "positions" not in str(error):
                raise
            return {}
        seconds = [_seconds(request) for _ in range(repeats)]
    return {"seconds": seconds, "bytes": size, "slots": held, "more": peak_megabytes() - loaded}


def _seconds(request: Callable[[], object]) -> float:
    began = time.perf_counter()
    request()
    return time.perf_counter() - began


def _encoder(folder: str) -> Any:
    from laconic.soft import Base, Settings, SoftEncoder

    if Path(folder, "soft.json").exists():
        return SoftEncoder.load(folder)
    base = Base.load(folder)
    return SoftEncoder.create(base, Settings(slots=UNTRAINED_SLOTS, window=min(500, base.window - UNTRAINED_SLOTS)))


Way = tuple[Callable[[], object], int, int]  # a request, bytes kept between requests, slots


def _encode(encoder: Any, store: Any, text: str, slots: int | None) -> Way:
    from laconic.soft.once import encode_once

    kept = encode_once(encoder, store, text, label="context", slots=slots)
    return lambda: encoder.encode(text, slots), kept.size, kept.memory.slots


def _full(encoder: Any, store: Any, text: str, slots: int | None) -> Way:
    reader = _reader(encoder)
    return lambda: _first(reader, [], text + QUESTION), 0, 0


def _kept(encoder: Any, store: Any, text: str, slots: int | None) -> Way:
    from laconic.soft import Memory
    from laconic.soft.caches import contents

    reader, base = _reader(encoder), encoder.base
    state = contents(reader.inputs([text], QUESTION)["past_key_values"])[0]
    whole = Memory(state, "kv", state.shape[-2], 0, base.frequencies, base.made)
    return lambda: _first(reader, whole, QUESTION), whole.bytes, whole.slots


def _memory(encoder: Any, store: Any, text: str, slots: int | None) -> Way:
    from laconic.soft.once import encode_once, recall

    reader, kept = _reader(encoder), encode_once(encoder, store, text, label="context", slots=slots)
    return lambda: _first(reader, recall(store, kept.key), QUESTION), kept.memory.bytes, kept.memory.slots


_WAYS = {"encode": _encode, "full": _full, "kept": _kept, "memory": _memory}


def _reader(encoder: Any) -> Any:
    from laconic.soft import Reader

    return Reader(encoder.base)


def _first(reader: Any, before: Any, prompt: str) -> str:
    """The first token of an answer."""
    said: str = reader.generate(before, prompt, max_tokens=1)
    return said


# The table


def _report(runs: dict[int, dict[str, list[dict[str, Any]]]]) -> str:
    head = ["tokens", "slots", "full, ms", "kept, ms", "memory, ms", "full : memory", "encode, ms", "pays after"]
    head += ["kept, KB", "memory, KB", "full, MB more", "memory, MB more"]
    return table(head, [_row(tokens, ways) for tokens, ways in runs.items()])


def _row(tokens: int, ways: dict[str, list[dict[str, Any]]]) -> list[str]:
    fits = {way: [run for run in found if run] for way, found in ways.items()}
    took = {w: statistics.median(s for r in found for s in r["seconds"]) for w, found in fits.items() if found}
    saved = took.get("full", math.nan) - took.get("memory", math.nan)
    ratio = f"{took['full'] / took['memory']:.1f}x" if saved == saved else "-"
    pays = "-" if saved != saved else f"{math.ceil(took['encode'] / saved)}" if saved > 0 else "never"
    times = [f"{took[way] * 1e3:.1f}" if way in took else "does not fit" for way in ("full", "kept", "memory")]
    sizes = [f"{fits[way][0]['bytes'] / 1e3:,.0f}" if fits[way] else "-" for way in ("kept", "memory")]
    more = [f"{max(r['more'] for r in fits[way]):.0f}" if fits[way] else "-" for way in ("full", "memory")]
    slots, encode = str(fits["encode"][0]["slots"]), f"{took['encode'] * 1e3:.1f}"
    return [f"{tokens:,}", slots, *times, ratio, encode, pays, *sizes, *more]


if __name__ == "__main__":
    main()
