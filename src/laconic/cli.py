"""The command line: parses, calls, prints. Exit 0 done, 2 wrong usage or input, 1 anything else."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from laconic import DEFAULT_MODEL, __version__
from laconic.errors import InputError, LaconicError
from laconic.render import CONTROLS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from laconic.result import Compression
    from laconic.score import Progress

_LONG = 300_000  # characters from which a watching person gets a progress bar


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    try:
        args = _parser().parse_args(argv)
        if sys.stdout is None or sys.stdin is None:
            raise InputError("standard input and standard output must be open; redirect them to /dev/null instead")
        status: int = args.run(args)
        sys.stdout.flush()
        return status
    except LaconicError as error:
        return _fail(str(error), 2)
    except BrokenPipeError:  # the reader went away: nothing to say, and nobody to say it to
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return _fail("interrupted", 1)
    except Exception as error:  # a bug of ours, or the machine's: one line, never a traceback
        return _fail(f"{type(error).__name__}: {error}", 1)


def _fail(message: str, status: int) -> int:
    _say("laconic: " + " ".join(message.split()).translate(CONTROLS))
    return status


def _say(line: str) -> None:
    """A line on standard error, if there is one; on a terminal, not glued to the text before it."""
    if sys.stderr is not None:
        print(line, file=sys.stderr)


class _Parser(argparse.ArgumentParser):
    """Errors of usage in one line, like all others."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; try: {self.prog} --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="laconic",
        description="Prompt compression: keep the smallest verbatim part of a text that still does the job.",
        epilog="example: laconic compress report.md --rate 0.4 > short.md",
    )
    parser.add_argument("--version", action="version", version=f"laconic {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        sub.set_defaults(run=run)
        return sub

    sub = command("compress", _compress, "compress a text; the result goes to standard output, byte for byte")
    _compression_options(sub)
    sub.add_argument("--format", choices=("text", "json", "ansi", "html"), default="text", help="default: text")
    sub.add_argument("-o", "--output", metavar="OUT", type=Path, help="write there instead of to standard output")
    sub = command("show", _show, "show kept and dropped words as a heat map")
    _compression_options(sub)
    sub.add_argument("--html", metavar="OUT", type=Path, help="write a self-contained HTML page instead")
    command("models", _models, "list the models")
    sub = command("export", _export, "convert a Hugging Face token classifier to ONNX (needs the extra [torch])")
    sub.add_argument("folder", metavar="DIR", type=Path, help="folder with config.json, model.safetensors, tokenizer")
    sub.add_argument("-o", "--output", metavar="OUT", type=Path, help="default: DIR/onnx")
    sub.add_argument("--fp32", action="store_true", help="no int8 weights: larger and slower, scores unchanged")
    sub = command("bench", _bench, "measure the speed on this machine")
    sub.add_argument("file", nargs="?", metavar="FILE", help="text to measure on (default: generated prose)")
    sub.add_argument("--model", default=DEFAULT_MODEL, metavar="NAME|DIR", help=f"default: {DEFAULT_MODEL}")
    return parser


def _compression_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("file", nargs="?", default="-", metavar="FILE", help="UTF-8 text; - or nothing: standard input")
    budget = sub.add_argument_group("budget (one of them; default: --rate 0.5)")
    budget.add_argument("--rate", type=_number, metavar="R", help="share of tokens to keep, in (0, 1]")
    budget.add_argument("--tokens", type=_whole, metavar="N", help="most tokens to keep, counted on the result")
    budget.add_argument("--threshold", type=_number, metavar="P", help="keep what scores at least P, in [0, 1]")
    sub.add_argument("--question", metavar="Q", help="keep what answers it (only with a model that reads questions)")
    sub.add_argument("--keep", metavar="REGEX", action="append", default=[], help="never drop what matches; repeatable")
    sub.add_argument("--model", default=DEFAULT_MODEL, metavar="NAME|DIR", help=f"default: {DEFAULT_MODEL}")
    sub.add_argument("--method", default="llmlingua2", metavar="M", help="llmlingua2 (default), tfidf, lead, random")
    sub.add_argument(
        "--counter",
        default="o200k_base",
        metavar="C",
        help="whose tokens are counted: o200k_base (default), cl100k_base, words, or a folder with a tokenizer.json",
    )
    sub.add_argument("--plain", action="store_true", help="no special care of JSON, code, Markdown, negations")


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None


def _compress(args: argparse.Namespace) -> int:
    result = _run(args)
    text = {
        "text": lambda: result.text,
        "json": lambda: json.dumps(result.to_dict(), ensure_ascii=False) + "\n",
        "ansi": lambda: result.show() + "\n",
        "html": result.html,
    }[args.format]()
    _write(args.output, text)
    if args.output is None and sys.stdout.isatty() and not text.endswith("\n"):
        _say("")
    _say(result.stats())
    return 0


def _show(args: argparse.Namespace) -> int:
    result = _run(args)
    if args.html:
        _write(args.html, result.html())
    else:
        color = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        _write(None, result.show(color) + "\n")
    _say(result.stats())
    return 0


def _run(args: argparse.Namespace) -> Compression:
    import laconic
    from laconic.budget import Budget

    Budget(args.rate, args.tokens, args.threshold)  # before reading or loading anything
    text = _read(args.file)
    compressor = laconic.load(args.model, method=args.method, counter=args.counter, structure=not args.plain)
    with _bar(len(text)) as progress:
        return compressor.compress(
            text,
            rate=args.rate,
            tokens=args.tokens,
            threshold=args.threshold,
            question=args.question,
            protect=args.keep,
            progress=progress,
        )


@contextmanager
def _bar(size: int) -> Iterator[Progress | None]:
    """A progress bar on standard error when the work is long and a person watches."""
    if size < _LONG or sys.stderr is None or not sys.stderr.isatty():
        yield None
        return
    from tqdm import tqdm

    with tqdm(total=size, unit="char", unit_scale=True, leave=False, desc="compressing") as bar:
        yield bar.update


def _read(name: str) -> str:
    """A file or standard input as text: UTF-8, with or without a byte order mark."""
    try:
        data = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except FileNotFoundError:
        raise InputError(f"no file {name}; pass the path of a text file, or - for standard input") from None
    except IsADirectoryError:
        raise InputError(f"{name} is a folder; pass a text file") from None
    except OSError as error:
        raise InputError(f"cannot read {name}: {error.strerror}") from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        guess = "UTF-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "ISO-8859-1"
        raise InputError(
            f"{name} is not UTF-8 (byte {error.start}); if it is {guess}, convert it: iconv -f {guess} -t UTF-8 {name}"
        ) from None


def _write(path: Path | None, text: str) -> None:
    """Exactly these characters, no newline added or changed."""
    data = text.encode("utf-8", "surrogatepass")
    if path is None:
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        return
    try:
        path.write_bytes(data)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from None


def _models(args: argparse.Namespace) -> int:
    from laconic.hub import models

    for row in models():
        if "problem" in row:
            print(f"{row['name']}: {row['problem']}")
            continue
        languages = ", ".join(row["languages"]) or "any language"
        reads = "reads questions" if row["question"] else "does not read questions"
        print(f"{row['name']}  {row['bytes'] / 1e6:.0f} MB, {languages}, windows of {row['window']} tokens, {reads}")
        print(f"  limits: {row['limits']}\n  data: {row['data']}\n  licence: {row['licence']}\n  folder: {row['path']}")
    return 0


def _export(args: argparse.Namespace) -> int:
    from laconic.export import export

    print(export(args.folder, args.output or args.folder / "onnx", int8=not args.fp32))
    return 0


def _bench(args: argparse.Namespace) -> int:
    from laconic.bench import report

    text = _read(args.file) if args.file else None
    for line in report(args.model, text):
        print(line)
    return 0


def _entry() -> Any:
    sys.exit(main())


if __name__ == "__main__":
    _entry()
