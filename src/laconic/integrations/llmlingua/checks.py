"""What is refused: values that cannot be honoured, and parameters that the chosen method does not read."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import fields
from typing import Any

from laconic.errors import InputError
from laconic.integrations.llmlingua.settings import PerplexitySettings
from laconic.legacy import BATCH, MAX_FORCE
from laconic.legacy.words import LegacySettings

SIZES = {"max_batch_size": BATCH, "max_force_token": MAX_FORCE}
_DEVICES = re.compile(r"(cpu|cuda|mps)(:\d+)?|auto")
_PERPLEXITY = {f.name for f in fields(PerplexitySettings)}
_LLMLINGUA2 = {f.name for f in fields(LegacySettings)}
_SEGMENTS = {"context_segs", "context_segs_rate", "context_segs_compress"}
_LABELS = {"return_word_label", "word_sep", "label_sep"}
ONLY_PERPLEXITY = (_PERPLEXITY - _LLMLINGUA2) | _SEGMENTS
ONLY_LLMLINGUA2 = (_LLMLINGUA2 - _PERPLEXITY) | _LABELS


def check_construction(
    device_map: str,
    model_config: Mapping[str, Any],
    open_api_config: Mapping[str, Any],
    llmlingua2_config: Mapping[str, Any],
    legacy: bool,
    use_llmlingua2: bool,
) -> None:
    """The arguments of the constructor."""
    if not isinstance(device_map, str) or not _DEVICES.fullmatch(device_map):
        raise InputError(f"device_map must be cpu, cuda, cuda:N, mps or auto, got {device_map!r}")
    if model_config.get("trust_remote_code"):
        raise InputError("trust_remote_code=True is refused: no code is ever loaded from a model; leave it out")
    if others := sorted(set(model_config) - {"trust_remote_code"}):
        raise InputError(f"model_config[{others[0]!r}] has no meaning here; leave it out")
    if open_api_config:
        raise InputError("open_api_config has no meaning here, no service is called; leave it out")
    for name, value in llmlingua2_config.items():
        if name not in SIZES or not isinstance(value, int) or value < 1:
            raise InputError(f"llmlingua2_config takes {' and '.join(SIZES)}, both above 0, got {name}={value!r}")
    if not use_llmlingua2 and (legacy or llmlingua2_config):
        raise InputError("legacy=True and llmlingua2_config are of LLMLingua-2: pass use_llmlingua2=True with them")


def check_read(given: Mapping[str, Any], defaults: Mapping[str, Any], unread: Collection[str], method: str) -> None:
    """Whatever the method does not read must have its default, or be empty."""
    for name in sorted(unread & given.keys() & defaults.keys()):
        value, default = given[name], defaults[name]
        if _plain(value) != _plain(default) and (value or default):
            raise InputError(f"{method} does not read {name}={value!r}; leave it out")


def check_question(instruction: str, question: str, reads: bool) -> None:
    """LLMLingua-2 takes a question, and an instruction beside it, if its model reads questions."""
    for name, value in (("question", question), ("instruction", instruction)):
        if value and not reads:
            raise InputError(
                f"this model does not read {name}={value!r}; leave it out and put it beside the compressed prompt "
                'yourself, or take a model that reads questions ("laconic-small", without legacy=True)'
            )


def check_json(instruction: str, unread: str, use_sentence_level_filter: bool) -> None:
    """What has no place in JSON; `unread`: a question that nothing reads."""
    if instruction:
        raise InputError(f"instruction={instruction!r} has no place in a JSON object; put it beside it yourself")
    if unread:
        raise InputError(
            f"question={unread!r} is read only with condition_compare=True or by another rank_method; leave it out"
        )
    if use_sentence_level_filter:
        raise InputError("use_sentence_level_filter=True would cut an object in two; use use_keyvalue_level_filter")


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, (list, tuple)) else value
