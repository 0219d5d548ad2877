"""Names and folders to models.

A model folder holds a graph, a tokenizer.json and `laconic.json`, the manifest: all that inference knows of a model.
Hugging Face folders have no manifest; what it would say is read from config.json.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from laconic.backends import first_line
from laconic.errors import MissingExtraError, ModelError
from laconic.text import Ints, readable

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    import tokenizers

    from laconic.backends import Decoder, Encoder

PACKAGED = ("laconic-small", "laconic-nano")  # the default first
KIND = "token-classifier"
FORMAT = 1
MANIFEST = "laconic.json"
LABELS = ["drop", "keep", "evidence", "answer"]  # of models that read questions; others have the first two
WINDOWS = (16, 8192)  # tokens
_LARGEST_WINDOW = 512  # of a checkpoint without a manifest: what the LLMLingua-2 family was trained on
_KEEP = {"keep", "kept", "preserve", "label_1"}
_GRAPHS = ("model.onnx", "onnx/model.onnx", "model_quantized.onnx", "onnx/model_quantized.onnx")
_DOWNLOADED = ["*.json", "*.safetensors", "vocab.txt", "merges.txt", "*.model", *_GRAPHS, "*.onnx_data", "*.onnx.data"]
_DUPLICATES = ["consolidated*", "original/*"]  # the same weights again, in their makers' own formats
_WHERE = "pass a model's name, a Hugging Face name such as org/name, or a folder"


@dataclass(frozen=True)
class Manifest:
    """What `laconic.json` says of a model."""

    name: str
    model: str  # the graph to run, a path inside the folder
    window: int  # tokens the model takes at once, special tokens included
    keep_label: int  # the class that means "keep"
    files: dict[str, str]  # name to SHA-256, in hex
    question: bool = False  # does it read a question before the text? Then class 2 is evidence, class 3 the answer
    embedding: int = 0  # width of the vector after those classes, whose mean over a sentence is its embedding
    features: bool = False  # are its token types those of laconic.features?
    pooling: str = "mean"  # token values to word values
    row_threads: int = 1  # threads inside a row that pay: two for fp32, one for int8 (docs/log.md)
    languages: tuple[str, ...] = ()
    data: str = ""  # what it was trained on
    scores: dict[str, Any] = field(default_factory=dict)
    limits: str = ""  # what it does badly
    licence: str = ""
    kind: str = KIND
    format: int = FORMAT

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """The manifest of a folder, checked; the hashes are not (`verify`)."""
        raw = _read_json(folder / MANIFEST)
        if raw.get("format") != FORMAT or raw.get("kind") != KIND:
            raise ModelError(
                f"{folder / MANIFEST} is of format {raw.get('format')!r} and kind {raw.get('kind')!r}; this laconic "
                f"reads format {FORMAT} of kind {KIND!r}: upgrade laconic, or export the model again"
            )
        known = {f.name for f in dataclasses.fields(cls)}
        given: dict[str, Any] = {k: v for k, v in raw.items() if k in known}
        try:
            manifest = cls(**{**given, "languages": tuple(given.get("languages", ()))})
        except TypeError as error:
            reason = first_line(error)
            raise ModelError(f"{folder / MANIFEST} is incomplete ({reason}); export the model again") from error
        manifest._check(folder)
        return manifest

    @classmethod
    def of_config(cls, folder: Path) -> Manifest:
        """What the configuration of a Hugging Face checkpoint says; `model` and `files` stay empty."""
        config = _read_json(folder / "config.json")
        architectures = config.get("architectures") or ["unknown architecture"]
        if not any("ForTokenClassification" in str(name) for name in architectures):
            raise ModelError(
                f"{folder} is a {architectures[0]}; laconic needs a token classifier (…ForTokenClassification) "
                "with two labels, such as the LLMLingua-2 checkpoints"
            )
        ours = config.get("laconic") or {}  # what laconic.train says
        manifest = cls(
            folder.name,
            "",
            _config_window(folder, config),
            keep_label(folder, config),
            {},
            question=bool(ours.get("question")),
            embedding=int(ours.get("embedding") or 0),
            features=bool(ours.get("features")),
        )
        manifest._check(folder, graph=False)
        return manifest

    def write(self, folder: Path) -> None:
        """Write `laconic.json`."""
        text = json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False, sort_keys=True)
        (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")

    def replace(self, **changes: Any) -> Manifest:
        """A changed copy."""
        return dataclasses.replace(self, **changes)

    def verify(self, folder: Path) -> None:
        """Hash what is going to be loaded: the graph (with its weights beside it) and the tokenizer."""
        for name, expected in self.files.items():
            if name.startswith(self.model) or name == "tokenizer.json":
                if not (folder / name).is_file():
                    raise ModelError(f"{folder} lacks {name}; fetch or export the model again")
                if sha256(folder / name) != expected:
                    raise ModelError(f"{folder / name} is not the file that {MANIFEST} names (SHA-256): fetch it again")

    def _check(self, folder: Path, graph: bool = True) -> None:
        (low, high), files = WINDOWS, self.files
        plain = isinstance(files, dict) and all(map(_plain, files))
        rules = {
            f"window must be a number in [{low}, {high}], got {self.window!r}": _in(self.window, low, high),
            f"row_threads must be a number in [1, 64], got {self.row_threads!r}": _in(self.row_threads, 1, 64),
            f"keep_label must be 0 or 1, got {self.keep_label!r}": _in(self.keep_label, 0, 1),
            f"pooling must be 'mean', got {self.pooling!r}": self.pooling == "mean",
            "files must map names inside the folder to SHA-256": plain,
            f"files must hold tokenizer.json and the model, {self.model!r}": not graph
            or (plain and {"tokenizer.json", self.model} <= set(files)),
        }
        broken = [rule for rule, fine in rules.items() if not fine]
        if broken:
            raise ModelError(f"{folder}: {broken[0]}; correct it or export the model again")


@dataclass
class Model:
    """A model ready to run."""

    path: Path
    manifest: Manifest
    tokenizer: tokenizers.Tokenizer  # never truncates, never pads
    encoder: Encoder


@dataclass
class LanguageModel:
    """A causal language model ready to run."""

    name: str
    tokenizer: tokenizers.Tokenizer  # never truncates, never pads
    decoder: Decoder
    path: Path | None = None  # its folder

    def tokens(self, text: str) -> tuple[Ints, Ints, Ints]:
        """Ids and code point offsets (starts, ends) of a text without special tokens: int64[T] each."""
        encoding = self.tokenizer.encode(readable(text), add_special_tokens=False)
        starts, ends = np.array(encoding.offsets, np.int64).reshape(-1, 2).T
        return np.array(encoding.ids, np.int64), starts, ends


def load_folder(name: str | os.PathLike[str], threads: int | None = None, *, int8: bool = True) -> Model:
    """The model of a name, a folder, or a Hugging Face name (`org/name`), which is fetched if it is not at hand.

    A checkpoint without a graph is converted when it is first loaded, to int8 or, `int8=False`, to fp32.
    """
    from laconic.backends.ort import OrtEncoder

    folder, manifest = _open(_found(name), int8)
    tokenizer = _tokenizer(folder)
    encoder = OrtEncoder(folder / manifest.model, threads, manifest.row_threads)
    _try_out(folder, encoder, manifest)
    return Model(folder, manifest, tokenizer, encoder)


def load_decoder(name: str | os.PathLike[str], device: str | None = None) -> LanguageModel:
    """The causal language model of a folder or a Hugging Face name (`org/name`), which is fetched if not at hand.

    `device`: "cpu", "cuda" or "mps"; by default a GPU if there is one.
    """
    from laconic.backends.decoder import TorchDecoder

    folder = decoder_folder(name)
    known = folder.name if Path(name).exists() else str(name)
    return LanguageModel(known, decoder_tokenizer(folder), TorchDecoder(folder, device), folder)


def decoder_folder(name: str | os.PathLike[str]) -> Path:
    """The folder of a causal language model; other kinds are refused."""
    folder = _found(name)
    _check_is_decoder(folder)
    return folder


def decoder_tokenizer(folder: Path) -> tokenizers.Tokenizer:
    """Its tokenizer, to which "</s>" in a text is text."""
    from laconic.export import write_tokenizer

    with tempfile.TemporaryDirectory() as scratch:
        write_tokenizer(folder, Path(scratch, "tokenizer.json"))
        tokenizer = _tokenizer(Path(scratch))
    tokenizer.encode_special_tokens = True
    return tokenizer


def names() -> list[str]:
    """The known names, the default first."""
    return [*PACKAGED, *sorted(_registered())]


def models() -> list[dict[str, Any]]:
    """For each known name what its manifest says, the size in bytes, and the `problem` if it cannot be used."""
    rows = []
    for name in names():
        row: dict[str, Any] = {"name": name}
        try:
            folder = _named(name)
            manifest = Manifest.read(folder)
            row |= {**dataclasses.asdict(manifest), "name": name, "path": str(folder)}
            row["bytes"] = (folder / manifest.model).stat().st_size
        except (ModelError, OSError) as error:
            row["problem"] = str(error)
        rows.append(row)
    return rows


def sha256(path: Path) -> str:
    """The hash of a file, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(partial(file.read, 1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def _found(name: str | os.PathLike[str]) -> Path:
    """The folder of a name."""
    if isinstance(name, str) and (name in PACKAGED or name in names()):
        return _named(name)
    if Path(name).exists():
        if not Path(name).is_dir():
            raise ModelError(f"{name} is a file; pass the folder that holds it")
        return Path(name)
    if isinstance(name, str) and re.fullmatch(r"[\w.-]+/[\w.-]+", name) and not name.startswith("."):
        return _download(name)
    close = difflib.get_close_matches(str(name), names(), 1)
    hint = f"did you mean {close[0]!r}?" if close else _WHERE
    raise ModelError(f"no model {str(name)!r}: {hint} (known: {', '.join(names())})")


def _open(folder: Path, int8: bool) -> tuple[Path, Manifest]:
    """A folder that can be run, and its manifest."""
    if (folder / MANIFEST).exists():
        manifest = Manifest.read(folder)
        manifest.verify(folder)
        return folder, manifest
    if not (folder / "config.json").exists():
        raise ModelError(f"{folder} holds no model: neither {MANIFEST} nor config.json; {_WHERE}")
    manifest = Manifest.of_config(folder)
    graph = next((g for g in _GRAPHS if (folder / g).exists()), None)
    if graph and (folder / "tokenizer.json").exists():
        return folder, manifest.replace(model=graph)
    return _exported(folder, int8)


def _check_is_decoder(folder: Path) -> None:
    ours = (folder / MANIFEST).exists()
    architectures = [KIND] if ours else _read_json(folder / "config.json").get("architectures") or ["unknown kind"]
    if not any(str(name).endswith(("ForCausalLM", "LMHeadModel")) for name in architectures):
        raise ModelError(
            f"{folder} is a {architectures[0]}; this method needs a causal language model (…ForCausalLM), such as "
            "openai-community/gpt2 or Qwen/Qwen2.5-0.5B"
        )


def _exported(folder: Path, int8: bool) -> tuple[Path, Manifest]:
    """The folder converted, once: the cache is keyed by content, and an entry appears whole or not at all."""
    from laconic.export import check_weights, export

    check_weights(folder)
    cached = cache_folder() / "exported" / f"{fingerprint(folder)}-{'int8' if int8 else 'fp32'}"
    if not (cached / MANIFEST).exists():
        try:
            cached.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=cached.parent, prefix=".new-") as scratch:
                os.replace(export(folder, Path(scratch, "model"), int8=int8), cached)
        except OSError as error:
            if not (cached / MANIFEST).exists():  # else another process was first, with the same bytes
                raise ModelError(f"{cached} cannot be written ({first_line(error)}); set LACONIC_CACHE") from error
    return _open(cached, int8)


def cache_folder() -> Path:
    """Where what can be made again is kept: LACONIC_CACHE, or `laconic` in the user's cache."""
    if "LACONIC_CACHE" in os.environ:
        return Path(os.environ["LACONIC_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "laconic"


def fingerprint(folder: Path) -> str:
    """One hash of all that decides what a checkpoint says: configuration, weights, tokenizer."""
    digest = hashlib.sha256(b"laconic export 1")
    for path in sorted(p for end in ("json", "safetensors", "txt", "model") for p in folder.glob(f"*.{end}")):
        digest.update(f"{path.name}\0{sha256(path)}\0".encode())
    return digest.hexdigest()[:32]


def _download(name: str) -> Path:
    """The snapshot of a Hugging Face repository, without pickles and code; what is at hand needs no network."""
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise MissingExtraError(f"Fetching {name}", "torch") from error
    fetch: Callable[..., str] = partial(
        snapshot_download, name, allow_patterns=_DOWNLOADED, ignore_patterns=_DUPLICATES
    )
    with contextlib.suppress(Exception):  # not at hand: fetch it
        local = Path(fetch(local_files_only=True))
        if any(local.rglob("*.onnx")) or any(local.glob("*.safetensors")):
            return local
    try:
        return Path(fetch())
    except Exception as error:  # the network's, the hub's and the disk's errors alike
        raise ModelError(
            f"{name} is not on this machine and cannot be fetched ({first_line(error)}); check the name and the "
            "network, or fetch it elsewhere and pass the folder"
        ) from error


def _registered() -> dict[str, EntryPoint]:
    from importlib import metadata  # here: it costs 20 ms, and the default model needs none of it

    return {point.name: point for point in metadata.entry_points(group="laconic.models")}


def _named(name: str) -> Path:
    """The folder of a known name."""
    if name in PACKAGED:
        return Path(str(resources.files("laconic") / "models" / name))
    try:
        return Path(_registered()[name].load()())
    except Exception as error:  # code of another package
        raise ModelError(f"the package that offers {name!r} failed ({first_line(error)}); reinstall it") from error


def _tokenizer(folder: Path) -> tokenizers.Tokenizer:
    import tokenizers

    path = folder / "tokenizer.json"
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the package raises bare Exception
        raise ModelError(f"{path} is not a tokenizer ({first_line(error)}); fetch or export the model again") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _try_out(folder: Path, encoder: Encoder, manifest: Manifest) -> None:
    """One tiny run, so that a foreign graph is found now and not in the middle of a batch."""
    ids = np.zeros((1, 2), np.int64)
    labels = encoder.logits(ids, np.ones_like(ids)).shape[-1]
    expected = LABELS if manifest.question else LABELS[:2]
    if labels != len(expected) + manifest.embedding:
        raise ModelError(f"{folder} tells {labels} classes apart, not {len(expected)}: {', '.join(expected)}")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read ({first_line(error)}); fetch or export the model again") from error
    if not isinstance(found, dict):
        raise ModelError(f"{path} holds {type(found).__name__}, not a JSON object; fetch or export the model again")
    return found


def _config_window(folder: Path, config: dict[str, Any]) -> int:
    """The smallest of what the positions, the tokenizer and the training of the family allow."""
    limits = [_LARGEST_WINDOW, config.get("max_position_embeddings", _LARGEST_WINDOW)]
    if "roberta" in str(config.get("model_type")):  # its positions start after the padding's id
        limits[1] -= config.get("pad_token_id", 1) + 1
    if (folder / "tokenizer_config.json").exists():
        limits.append(_read_json(folder / "tokenizer_config.json").get("model_max_length") or _LARGEST_WINDOW)
    return int(min(limits))


def keep_label(folder: Path, config: dict[str, Any]) -> int:
    """Which class of a config.json means "keep"; ModelError where that cannot be told."""
    labels = config.get("id2label") or {"0": "LABEL_0", "1": "LABEL_1"}
    keep = [int(k) for k, v in labels.items() if str(v).lower() in _KEEP]
    if [labels.get(str(k)) for k in range(len(LABELS))] == LABELS:
        return LABELS.index("keep")
    if len(labels) != 2 or len(keep) != 1:
        raise ModelError(
            f"{folder} has the labels {list(labels.values())[:5]}; laconic needs two, one of them named 'keep' or "
            "'preserve' (or LABEL_0 and LABEL_1): correct id2label in config.json"
        )
    return keep[0]


def _in(value: object, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _plain(name: str) -> bool:
    """A path that stays inside the folder."""
    return not Path(name).is_absolute() and ".." not in Path(name).parts
