"""What commands share: values of options, texts in, texts and lines out."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from laconic.errors import InputError

TEXTS = ".jsonl, .jsonl.gz, .parquet, .txt, .md, or a folder of .txt and .md"


def say(line: str) -> None:
    """A line on standard error, if there is one; on a terminal, not glued to the text before it."""
    if sys.stderr is not None:
        print(line, file=sys.stderr)


def number(text: str) -> float:
    """An option's value."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None


def whole(text: str) -> int:
    """An option's value."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None


def read(name: str) -> str:
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


def write(path: Path | None, text: str) -> None:
    """Exactly these characters at once, no newline added or changed; to standard output without a path."""
    data = text.encode("utf-8", "surrogatepass")
    if path is None:
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    try:
        path.write_bytes(data)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from None
