"""The commands `laconic soft encode`, `ask` and `inspect`."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from laconic.console import read, say, whole, write
from laconic.errors import InputError
from laconic.render import CONTROLS
from laconic.soft import measure_cli

if TYPE_CHECKING:
    from laconic.soft import Memory, SoftEncoder
    from laconic.soft.store import Entry, MemoryStore

_FILE = ".safetensors"  # the end of a memory's file; anything else is the beginning of a key
_LIMIT = 4  # GB of a store
_ANSWER = 46  # tokens


def options(sub: argparse.ArgumentParser) -> None:
    """The commands under `laconic soft`."""
    sub.description = "Texts as a few slots of keys and values, which one language model reads in their place."
    kinds = sub.add_subparsers(required=True, metavar="WHAT")
    _encode_options(kinds.add_parser("encode", help="texts into a store", description="Encode texts, each once."))
    _ask_options(kinds.add_parser("ask", help="a question about memories", description="Answer from memories."))
    _inspect_options(kinds.add_parser("inspect", help="what a store holds", description="List memories."))
    measure_cli.options(
        kinds.add_parser("measure", help="what memories keep (needs the extra [eval])", description="Measure encoders.")
    )


def _encode_options(sub: argparse.ArgumentParser) -> None:
    sub.set_defaults(run=encode)
    sub.add_argument("files", nargs="+", metavar="FILE", help="UTF-8 text; -: standard input")
    _encoder_options(sub)
    sub.add_argument("--slots", type=whole, metavar="M", help="a text, or a chunk (default: all that were trained)")
    sub.add_argument("--no-chunks", action="store_true", help="refuse a text longer than the encoder was trained on")
    where = sub.add_mutually_exclusive_group()
    _store_option(where)
    where.add_argument("-o", "--output", metavar="OUT", type=Path, help=f"a file, *{_FILE}, instead of the store")
    sub.add_argument("--int8", action="store_true", help="with -o: a quarter of the size, a little less exact")
    sub.add_argument(
        "--limit", type=whole, default=_LIMIT, metavar="GB", help=f"then the least recently used go (default: {_LIMIT})"
    )


def _ask_options(sub: argparse.ArgumentParser) -> None:
    sub.set_defaults(run=ask)
    sub.usage = "%(prog)s ID|FILE... (QUESTION | --again) --encoder DIR [options]"
    what = f"memories, read one after another: what encode printed, or a *{_FILE}; the question comes last"
    sub.add_argument("given", nargs="+", metavar="ID|FILE|QUESTION", help=what)
    _encoder_options(sub)
    _store_option(sub)
    sub.add_argument("--again", action="store_true", help="no question: say the text of a memory again")
    most = f"most tokens of the answer (default: {_ANSWER}; with --again those of the text)"
    sub.add_argument("--tokens", type=whole, metavar="N", help=most)
    sub.add_argument("--format", choices=("text", "json"), default="text", help="default: text")


def _inspect_options(sub: argparse.ArgumentParser) -> None:
    sub.set_defaults(run=inspect)
    sub.add_argument("memory", nargs="?", metavar="ID|FILE", help="all about one (default: a line about each)")
    _store_option(sub)
    sub.add_argument("--check", action="store_true", help="read all of the store first, and remove what is damaged")


def _encoder_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--encoder", metavar="DIR", required=True, help="trained soft encoder: docs/soft.md")
    sub.add_argument("--base", metavar="NAME|DIR", help="its language model (default: by the name it had in training)")


def _store_option(sub: argparse._ActionsContainer) -> None:
    sub.add_argument("--store", metavar="DIR", type=Path, help="folder of memories (default: in the user's cache)")


def encode(args: argparse.Namespace) -> int:
    """A line about each file."""
    if args.output and len(args.files) > 1:
        raise InputError(f"-o takes one FILE, got {len(args.files)}; leave it out to put them into the store")
    if args.int8 and not args.output:
        raise InputError("--int8 is for a file; pass -o OUT.safetensors with it")
    if args.output and args.output.suffix != _FILE:
        raise InputError(f"{args.output} must end in {_FILE}, which is how `laconic soft ask` knows a file")
    if args.limit < 1:
        raise InputError(f"--limit must be 1 GB or more, got {args.limit}")
    texts = [read(name) for name in args.files]
    encoder = _encoder(args)
    if args.output:
        _encode_file(args, encoder, texts[0])
    else:
        _encode_all(args, encoder, texts)
    return 0


def _encode_file(args: argparse.Namespace, encoder: SoftEncoder, text: str) -> None:
    began = time.perf_counter()
    memory = encoder.encode(text, args.slots, chunks=not args.no_chunks)
    seconds = time.perf_counter() - began
    memory.save(args.output, int8=args.int8)
    _tell(f"{args.output}  {_line(args.files[0], memory, args.output.stat().st_size)}, encoded in {seconds:.2f} s")


def _encode_all(args: argparse.Namespace, encoder: SoftEncoder, texts: list[str]) -> None:
    from laconic.soft.once import encode_once
    from laconic.soft.store import SHORT, MemoryStore

    given = {"slots": args.slots, "chunks": not args.no_chunks}
    with MemoryStore(_folder(args), max_bytes=args.limit * 10**9) as store:
        for name, text in zip(args.files, texts, strict=True):
            began = time.perf_counter()
            kept = encode_once(encoder, store, text, label=name, **given)
            how = f"encoded in {time.perf_counter() - began:.2f} s" if kept.new else "already there"
            _tell(f"{kept.key[:SHORT]}  {_line(name, kept.memory, kept.size)}, {how}")


def ask(args: argparse.Namespace) -> int:
    """The answer, as it comes; a line of statistics on standard error."""
    from laconic.soft import Reader

    names, question = _asked(args)
    memories = [_memory(args, name) for name in names]
    encoder = _encoder(args)
    for name, memory in zip(names, memories, strict=True):
        encoder.made.check(memory.made, name)
    limit = args.tokens or (memories[0].tokens if args.again else _ANSWER)
    prompt = None if question is None else f"\nQuestion: {question} Answer:"
    began, said, first = time.perf_counter(), "", 0.0
    for piece in Reader(encoder.base).stream(memories, prompt, limit):
        first = first or time.perf_counter() - began
        new = piece if said or args.again else piece.lstrip()  # the blank after "Answer:"
        said += new
        if args.format == "text":
            write(None, new)
    seconds = time.perf_counter() - began
    tokens, slots = sum(m.tokens for m in memories), sum(m.slots for m in memories)
    if args.format == "json":
        told = {"answer": said, "question": question, "memories": names, "tokens": tokens, "slots": slots}
        write(None, json.dumps({**told, "first_seconds": first, "seconds": seconds}, ensure_ascii=False) + "\n")
    elif sys.stdout.isatty() and not said.endswith("\n"):
        say("")
    say(f"{slots:,} slots read for {tokens:,} tokens, first piece after {first:.2f} s, {seconds:.2f} s in all")
    return 0


def _asked(args: argparse.Namespace) -> tuple[list[str], str | None]:
    """The names of memories, and the question, if it is one."""
    names, question = (args.given, None) if args.again else (args.given[:-1], args.given[-1])
    if not names:
        raise InputError(f"pass a memory and a question, or --again, got {question!r} alone")
    if args.again and len(names) > 1:
        raise InputError(f"--again takes one memory and no question, got {len(names)} values; ask for each alone")
    if args.tokens is not None and args.tokens < 1:
        raise InputError(f"--tokens must be 1 or more, got {args.tokens}")
    return names, question


def inspect(args: argparse.Namespace) -> int:
    """A line about each memory and their number, or all about one."""
    if args.check:
        with _opened(args) as store:
            for entry in store.remove_damaged():
                _tell(f"{entry.short}  {entry.label}: damaged, removed; encode it again")
    if args.memory is None:
        _list(args)
    else:
        _show(_memory(args, args.memory))
    return 0


def _list(args: argparse.Namespace) -> None:
    with _opened(args) as store:
        entries = store.entries()
        for entry in entries:
            used = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.used))
            _tell(f"{entry.short}  {used}  {_line(entry.label, entry, entry.size)}")
        _tell(f"{len(entries):,} memories, {sum(e.size for e in entries):,} bytes: {store.path}")


def _show(memory: Memory) -> None:
    numbers = "x".join(map(str, memory.state.shape))
    facts = {"mode": memory.mode, "tokens": memory.tokens, "slots": memory.slots, "ratio": f"{memory.ratio:.1f}"}
    facts |= {"numbers": f"{numbers} {memory.state.dtype}", "bytes": memory.bytes, "first position": memory.start}
    for name, value in {**facts, **asdict(memory.made)}.items():
        _tell(f"{name}: {value}")


def _line(label: str, what: Memory | Entry, size: int) -> str:
    ratio = what.tokens / what.slots
    return f"{label}  {what.tokens:,} tokens, {what.slots:,} slots ({ratio:.1f}x), {size:,} bytes"


def _tell(line: str) -> None:
    """A line on standard output, with nothing in it that drives a terminal."""
    write(None, line.translate(CONTROLS) + "\n")


def _encoder(args: argparse.Namespace) -> SoftEncoder:
    from laconic.soft import SoftEncoder

    return SoftEncoder.load(args.encoder, args.base)


def _memory(args: argparse.Namespace, name: str) -> Memory:
    """Of a file, or of the store."""
    from laconic.soft import Memory

    if Path(name).suffix == _FILE:
        return Memory.load(name)
    from laconic.soft.once import recall

    with _opened(args) as store:
        return recall(store, name)


@contextmanager
def _opened(args: argparse.Namespace) -> Iterator[MemoryStore]:
    """The store, if there is one: looking for a memory makes none."""
    from laconic.soft.store import MemoryStore

    with MemoryStore(_folder(args), max_bytes=_LIMIT * 10**9) as store:
        if not store.path.exists():
            raise InputError(f"no memories in {store.path.parent}; put some there: laconic soft encode FILE")
        yield store


def _folder(args: argparse.Namespace) -> Path:
    from laconic.hub import cache_folder

    folder: Path = args.store or cache_folder() / "memories"
    return folder
