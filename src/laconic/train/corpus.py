"""Texts as one long array of tokens on the disk, and the windows that a language model learns from."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from laconic.distill.texts import Fields, read
from laconic.errors import InputError
from laconic.train import bpe

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Tokens = npt.NDArray[np.uint16]
Ints = npt.NDArray[np.int64]

_MANY = 512  # documents that are encoded at a time


@dataclass(frozen=True)
class Texts:
    """Files (or folders of text files) to learn from and to judge on; `field` holds the text of a record."""

    train: tuple[Path, ...]
    dev: tuple[Path, ...]
    field: str = "text"
    skip: bool = False  # pass over broken records instead of stopping

    def __post_init__(self) -> None:
        names = [name(p) for p in self.dev]
        if twice := next((n for n in names if names.count(n) > 1), None):
            raise InputError(f"two dev files are called {twice}; rename one, scores are given by name")

    def documents(self, path: Path) -> Iterator[str]:
        """The texts of a file that hold anything."""
        for document in read(path, Fields(text=self.field), (lambda problem: None) if self.skip else None):
            if document.text.strip():
                yield bpe.encodable(document.text)


def name(path: Path) -> str:
    """What the scores on a file are called."""
    return path.absolute().name.strip(".").split(".")[0]


@dataclass(frozen=True)
class Corpus:
    """Documents in tokens, each from <s> to </s>: the k-th is tokens[bounds[k] : bounds[k + 1]]."""

    tokens: Tokens  # uint16[N], on the disk
    bounds: Ints  # int64[D + 1]

    @classmethod
    def write(cls, texts: Iterable[str], tokenizer: Tokenizer, folder: Path) -> None:
        """Encode texts into a folder, some at a time."""
        folder.mkdir(parents=True)
        bounds, rest = [0], iter(texts)
        with (folder / "tokens.bin").open("wb") as file:
            while some := list(islice(rest, _MANY)):
                for encoded in tokenizer.encode_batch_fast(some, add_special_tokens=False):
                    ids = [bpe.BOS, *encoded.ids, bpe.EOS]
                    file.write(np.array(ids, "<u2").tobytes())
                    bounds.append(bounds[-1] + len(ids))
        np.save(folder / "bounds.npy", np.array(bounds))

    @classmethod
    def open(cls, folder: Path) -> Corpus:
        """What `write` left there."""
        return cls(np.memmap(folder / "tokens.bin", "<u2", "r"), np.load(folder / "bounds.npy"))

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def windows(self, window: int) -> int:
        """How many windows the documents fill; what is over is left out."""
        return max(0, len(self.tokens) - 1) // (window - 1)


@dataclass(frozen=True)
class Prepared:
    """A tokenizer, the documents to learn from, and those to judge on by the name of their file."""

    tokenizer: Tokenizer
    train: Corpus
    dev: dict[str, Corpus]
    files: dict[str, list[dict[str, Any]]]  # for `train` and `dev`: file and how many of its texts were taken
    key: str  # the same for the same texts and vocabulary

    @classmethod
    def open(cls, folder: Path) -> Prepared:
        """What `prepare` wrote there."""
        files = json.loads((folder / "files.json").read_text(encoding="utf-8"))
        dev = {name(Path(d["file"])): Corpus.open(folder / "dev" / name(Path(d["file"]))) for d in files["dev"]}
        return cls(bpe.load(folder), Corpus.open(folder / "train"), dev, files, folder.name)


def prepare(texts: Texts, vocabulary: int, out: Path) -> Prepared:
    """Make the tokenizer (from the training texts alone) and tokenize, unless the folder `out` has the result already.

    A text of a dev file is never trained on, wherever else it stands.
    """
    dev = [(p, [_digest(t) for t in texts.documents(p)]) for p in texts.dev]
    unseen = {d for _, digests in dev for d in digests}
    train = [(p, [d for d in map(_digest, texts.documents(p)) if d not in unseen]) for p in texts.train]
    for path, digests in train + dev:
        if not digests:
            raise InputError(f"no text in {path} to learn from or to judge on; pass a file with other texts")
    whole = [vocabulary, [digests for _, digests in train], [(name(p), digests) for p, digests in dev]]
    folder = out / f"tokens-{sha256(json.dumps(whole).encode()).hexdigest()[:16]}"
    if not folder.exists():
        half = folder.with_suffix(".tmp")
        shutil.rmtree(half, ignore_errors=True)
        half.mkdir(parents=True)

        def training() -> Iterator[str]:
            return (t for p in texts.train for t in texts.documents(p) if _digest(t) not in unseen)

        tokenizer = bpe.train(training(), vocabulary)
        tokenizer.save(str(half / "tokenizer.json"))
        Corpus.write(training(), tokenizer, half / "train")
        for path in texts.dev:
            Corpus.write(texts.documents(path), tokenizer, half / "dev" / name(path))
        counts = {
            kind: [{"file": p.absolute().name, "texts": len(digests)} for p, digests in files]
            for kind, files in (("train", train), ("dev", dev))
        }
        (half / "files.json").write_text(json.dumps(counts, indent=2) + "\n", encoding="utf-8")
        half.replace(folder)
    return Prepared.open(folder)


def _digest(text: str) -> str:
    return sha256(text.strip().encode()).hexdigest()


class Packed:
    """The documents of a corpus in a random order, cut into windows: <s> one document </s> <s> another document </s> …

    A window begins with <s> wherever it is cut, in place of the token that the window before it ended with: so every
    token is predicted once, and after <s>. The windows are in a random order too: those of a long document are alike.
    """

    def __init__(self, corpus: Corpus, window: int, random: np.random.Generator) -> None:
        self.corpus, self.window = corpus, window
        self.documents = random.permutation(len(corpus))
        self.ends = np.cumsum(np.diff(corpus.bounds)[self.documents])
        self.order = random.permutation(corpus.windows(window))

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, k: int) -> Ints:
        """int64[window], token ids."""
        begin = int(self.order[k]) * (self.window - 1)
        end = begin + self.window
        first, last = np.searchsorted(self.ends, [begin, end - 1], side="right").tolist()
        parts = []
        for document, stop in zip(self.documents[first : last + 1], self.ends[first : last + 1], strict=True):
            shift = self.corpus.bounds[document + 1] - stop  # from places in this order to places on the disk
            start = max(begin, int(stop - np.diff(self.corpus.bounds[document : document + 2])[0]))
            parts.append(self.corpus.tokens[start + shift : min(end, stop) + shift])
        found = np.concatenate(parts).astype(np.int64)
        found[0] = bpe.BOS
        return found
