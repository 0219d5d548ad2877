"""What a run made as a model folder, with a model card from the run's own record."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from laconic.errors import InputError
from laconic.export import export
from laconic.hub import LABELS, WINDOWS, Manifest

_ABOUT = ("name", "window", "languages", "licence", "data", "limits")
_ABOUT_LM = tuple(name for name in _ABOUT if name != "window")


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


def publish_lm(run: Path, about: Mapping[str, Any]) -> Path:
    """Write the model card of a language model into `run`/checkpoint, a Hugging Face folder; returns the folder.

    about: `name`, `languages`, `licence`, `data`, `limits`, each optional.
    """
    check_lm(about)
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    folder = run / "checkpoint"
    (folder / "README.md").write_text(card_lm({"name": run.name, **about}, record), encoding="utf-8")
    return folder


def check(about: Mapping[str, Any]) -> None:
    """Refuse what `publish` cannot use; before training, not after."""
    _check(about, _ABOUT)
    window = about.get("window", WINDOWS[0])
    if not isinstance(window, int) or isinstance(window, bool) or window < WINDOWS[0]:
        raise InputError(f"window must be a whole number, {WINDOWS[0]} or more, got {window!r}")


def check_lm(about: Mapping[str, Any]) -> None:
    """Refuse what `publish_lm` cannot use; before training, not after."""
    _check(about, _ABOUT_LM)


def _check(about: Mapping[str, Any], known: Sequence[str]) -> None:
    if not isinstance(about, Mapping):
        raise InputError(f"what a model card says is a JSON object with {', '.join(known)}, got {about!r}")
    strange = sorted(set(about) - set(known))
    if strange:
        raise InputError(f"a model card has no {strange[0]!r}; it takes {', '.join(known)}")
    languages = about.get("languages", [])
    if not isinstance(languages, (list, tuple)) or not all(isinstance(x, str) for x in languages):
        raise InputError(f'languages must be a list such as ["en"], got {languages!r}')
    for name in ("name", "licence", "data", "limits"):
        if not isinstance(about.get(name, ""), str):
            raise InputError(f"{name} must be a string, got {about[name]!r}")


def card(manifest: Manifest, record: Mapping[str, Any]) -> str:
    """The model card, Markdown with the header that the Hugging Face hub reads."""
    labels = LABELS if manifest.question else LABELS[:2]
    lines = [
        *_head(manifest.name, manifest.languages, "library_name: laconic", "pipeline_tag: token-classification"),
        f"A token classifier for prompt compression ({', '.join(labels)}), trained from {record['settings']['base']} "
        f"with `{record.get('command', 'laconic train classifier')}`. It reads {manifest.window} tokens at a time"
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
        *_scores(manifest.scores),
        *_section("Limits", manifest.limits),
        *_section("Licence", manifest.licence),
        *_settings(record),
    ]
    return "\n".join(lines)


def card_lm(about: Mapping[str, Any], record: Mapping[str, Any]) -> str:
    """The model card of a language model, likewise."""
    settings = record["settings"]
    facts = ("library_name: transformers", "pipeline_tag: text-generation")
    lines = [
        *_head(about["name"], about.get("languages", []), *facts),
        f"A causal language model of {record['parameters'] / 1e6:.1f} M parameters (Llama architecture, float16), "
        f"trained from scratch with `laconic train lm` on {record['read']:,} tokens, for perplexity methods and as a "
        f"base for soft compression. It reads {settings['window']} tokens at a time, the first one `<s>`. After a "
        "passage, `<s>` asks for it again; after facts, `\\nQuestion: … Answer:` asks for one. `<s>` that stands in "
        "a text is text; its id is 0.",
        "",
        "    AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32)",
        "",
        *_section("Trained on", about.get("data", "")),
        "| file | texts |",
        "|---|--:|",
        *(f"| {d['file']} | {d['texts']:,} |" for d in record["data"]),
        "",
        f"{record['tokens']:,} tokens; of the windows, {settings['copy']:.0%} were passages to copy, "
        f"{settings['recall']:.0%} made-up facts to recall, {settings['lookup']:.0%} pairs of symbols to look up.",
        "",
        "## Scores of these weights in float32, on texts and names never trained on",
        "",
        *_scores(record["best"]),
        "`loss`: nats a token of text. `copy`, `first_sight`: share of tokens that are the most probable one, where a "
        "passage comes again and where it is new. `recall`, `lookup`: share of answers right in all their tokens. "
        f"Up to {record['windows']} windows each of {', '.join(d['file'] for d in record['dev'])}, passages of them, "
        "facts, pairs.",
        "",
        *_section("Limits", about.get("limits", "")),
        *_section("Licence", about.get("licence", "")),
        *_settings(record),
    ]
    return "\n".join(lines)


def _head(name: str, languages: Sequence[str], *facts: str) -> list[str]:
    """The header that the Hugging Face hub reads, and the title."""
    header = ["---", *facts, "tags: [prompt-compression]"]
    header += [f"language: [{', '.join(languages)}]"] if languages else []
    return [*header, "---", f"# {name}", ""]


def _scores(scores: Mapping[str, Any]) -> list[str]:
    return ["| measure | value |", "|---|--:|", *(f"| {name} | {value} |" for name, value in scores.items()), ""]


def _settings(record: Mapping[str, Any]) -> list[str]:
    return ["## Settings", "", *(f"- {name}: {value}" for name, value in record["settings"].items()), ""]


def _section(title: str, text: str) -> list[str]:
    return [f"## {title}", "", text, ""] if text else []
