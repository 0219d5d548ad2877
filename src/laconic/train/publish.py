"""A trained checkpoint as a model folder: ONNX, tokenizer, manifest and model card, all from the run's own record."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from laconic.errors import InputError
from laconic.export import export
from laconic.hub import LABELS, WINDOWS, Manifest

_ABOUT = ("name", "window", "languages", "licence", "data", "limits")


def publish(run: Path, about: Mapping[str, Any], *, int8: bool = True) -> Path:
    """Export `run`/checkpoint to `run`/model and describe it; returns the folder.

    about: `name`, `window` (tokens read at once in use), `languages`, `licence`, `data`, `limits`, each optional.
    """
    check(about)
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    folder = export(run / "checkpoint", run / "model", int8=int8)
    scores = {"dev": record["dev"], **record["best"]}
    known = {f.name for f in fields(Manifest)}
    given = {k: tuple(v) if k == "languages" else v for k, v in about.items() if k in known}
    manifest = Manifest.read(folder).replace(**{"name": run.name, **given}, scores=scores)
    manifest.write(folder)
    (folder / "README.md").write_text(card(manifest, record), encoding="utf-8")
    return folder


def check(about: Mapping[str, Any]) -> None:
    """Refuse what `publish` cannot use; before training, not after."""
    if not isinstance(about, Mapping):
        raise InputError(f"what a model card says is a JSON object with {', '.join(_ABOUT)}, got {about!r}")
    strange = sorted(set(about) - set(_ABOUT))
    if strange:
        raise InputError(f"a model card has no {strange[0]!r}; it takes {', '.join(_ABOUT)}")
    window, languages = about.get("window", WINDOWS[0]), about.get("languages", [])
    if not isinstance(window, int) or isinstance(window, bool) or window < WINDOWS[0]:
        raise InputError(f"window must be a whole number, {WINDOWS[0]} or more, got {window!r}")
    if not isinstance(languages, (list, tuple)) or not all(isinstance(x, str) for x in languages):
        raise InputError(f'languages must be a list such as ["en"], got {languages!r}')
    for name in ("name", "licence", "data", "limits"):
        if not isinstance(about.get(name, ""), str):
            raise InputError(f"{name} must be a string, got {about[name]!r}")


def card(manifest: Manifest, record: Mapping[str, Any]) -> str:
    """The model card, Markdown with the header that the Hugging Face hub reads."""
    labels = LABELS if manifest.question else LABELS[:2]
    header = ["---", "library_name: laconic", "pipeline_tag: token-classification", "tags: [prompt-compression]"]
    header += [f"language: [{', '.join(manifest.languages)}]"] if manifest.languages else []
    lines = [
        *header,
        "---",
        f"# {manifest.name}",
        "",
        f"A token classifier for prompt compression ({', '.join(labels)}), trained from {record['settings']['base']} "
        f"with `laconic train classifier`. It reads {manifest.window} tokens at a time"
        + (", with or without a question before them." if manifest.question else "."),
        "",
        "    laconic compress FILE --model FOLDER" + (' --question "…"' if manifest.question else ""),
        "",
        *_section("Trained on", manifest.data),
        "| file | rows | taken in an epoch |",
        "|---|--:|--:|",
        *(f"| {d['file']} | {d['rows']:,} | {d['an epoch']:,} |" for d in record["data"]),
        "",
        "## Scores of the checkpoint in float32, on rows never trained on",
        "",
        "| measure | value |",
        "|---|--:|",
        *(f"| {name} | {value} |" for name, value in manifest.scores.items()),
        "",
        *_section("Limits", manifest.limits),
        *_section("Licence", manifest.licence),
        "## Settings",
        "",
        *(f"- {name}: {value}" for name, value in record["settings"].items()),
        "",
    ]
    return "\n".join(lines)


def _section(title: str, text: str) -> list[str]:
    return [f"## {title}", "", text, ""] if text else []
