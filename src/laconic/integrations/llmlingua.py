"""A drop-in for `llmlingua.PromptCompressor`, its LLMLingua-2 part: same signatures, same keys in the result.

    from laconic.integrations.llmlingua import PromptCompressor

By default laconic does the work: spans of the original, one budget over all contexts that is kept, facts whole.
With `legacy=True` the decisions and strings are those of llmlingua 0.2.2, its bugs included (`laconic.legacy`).
A parameter that LLMLingua-2 would silently ignore is refused here, in both modes, unless it has its default.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import fields
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from laconic.budget import Budget, counter
from laconic.errors import InputError
from laconic.legacy import BATCH, MAX_FORCE, LegacyCompressor, context_share, contexts_of, with_aliases
from laconic.legacy.words import LegacyResult, LegacySettings
from laconic.text import Bools, Floats, Tiling, cut, mend

if TYPE_CHECKING:
    from laconic.compressor import Compressor
    from laconic.hub import Model
    from laconic.result import KeptPart

_NOTHING: Mapping[str, Any] = MappingProxyType({})
_DEVICES = re.compile(r"(cpu|cuda|mps)(:\d+)?|auto")
_SIZES = {"max_batch_size": BATCH, "max_force_token": MAX_FORCE}


class PromptCompressor:
    """llmlingua's class of this name over laconic.

    `device_map` takes what it always took ("cpu", "cuda", "cuda:1", "mps", "auto"), but inference is ONNX Runtime on
    the CPU whatever it says. `model_config` may only say `trust_remote_code=False`: no code is loaded from a model.
    `counter` stands where tiktoken's cl100k_base did; it needs no network. The model is read at the first use.

    >>> from laconic.integrations.llmlingua import PromptCompressor
    >>> PromptCompressor("laconic-small", use_llmlingua2=True).compress_prompt("A text.", rate=1)["rate"]
    '100.0%'
    """

    def __init__(
        self,
        model_name: str = "NousResearch/Llama-2-7b-hf",
        device_map: str = "cuda",
        model_config: Mapping[str, Any] = _NOTHING,
        open_api_config: Mapping[str, Any] = _NOTHING,
        use_llmlingua2: bool = False,
        llmlingua2_config: Mapping[str, Any] = _NOTHING,
        *,
        legacy: bool = False,
        counter: str | Callable[[str], int] = "cl100k_base",
    ) -> None:
        _check_construction(device_map, model_config, open_api_config, use_llmlingua2, llmlingua2_config)
        self.model_name = model_name
        self.legacy = legacy
        self._counter = counter
        self._sizes = {**_SIZES, **llmlingua2_config}

    def __call__(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The same as `compress_prompt`."""
        return self.compress_prompt(*args, **kwargs)

    def compress_prompt(
        self,
        context: str | Sequence[str],
        instruction: str = "",
        question: str = "",
        rate: float = 0.5,
        target_token: float = -1,
        iterative_size: int = 200,
        force_context_ids: Collection[int] | None = None,
        force_context_number: int | None = None,
        use_sentence_level_filter: bool = False,
        use_context_level_filter: bool = True,
        use_token_level_filter: bool = True,
        keep_split: bool = False,
        keep_first_sentence: int = 0,
        keep_last_sentence: int = 0,
        keep_sentence_number: int = 0,
        high_priority_bonus: int = 100,
        context_budget: str = "+100",
        token_budget_ratio: float = 1.4,
        condition_in_question: str = "none",
        reorder_context: str = "original",
        dynamic_context_compression_ratio: float = 0.0,
        condition_compare: bool = False,
        add_instruction: bool = False,
        rank_method: str = "llmlingua",
        concate_question: bool = True,
        context_segs: Sequence[str] | None = None,
        context_segs_rate: Sequence[float] | None = None,
        context_segs_compress: Sequence[bool] | None = None,
        target_context: int = -1,
        context_level_rate: float = 1.0,
        context_level_target_token: float = -1,
        return_word_label: bool = False,
        word_sep: str = "\t\t|\t\t",
        label_sep: str = " ",
        token_to_word: str = "mean",
        force_tokens: Sequence[str] = (),
        force_reserve_digit: bool = False,
        drop_consecutive: bool = False,
        chunk_end_tokens: Sequence[str] = (".", "\n"),
        strict_preserve_uncompressed: bool = True,
    ) -> dict[str, Any]:
        """Compress the contexts; the same as `compress_prompt_llmlingua2` with the context filter on by default.

        What only the perplexity methods read (`instruction`, `question`, `rank_method` …) must have its default.
        """
        given = dict(locals())
        used = inspect.signature(self.compress_prompt_llmlingua2).parameters
        for name, parameter in inspect.signature(self.compress_prompt).parameters.items():
            if name not in used and given[name] != parameter.default and (given[name] or parameter.default):
                raise InputError(_unread(name, given[name]))
        return self.compress_prompt_llmlingua2(**{name: given[name] for name in used})

    def compress_prompt_llmlingua2(
        self,
        context: str | Sequence[str],
        rate: float = 0.5,
        target_token: float = -1,
        use_context_level_filter: bool = False,
        use_token_level_filter: bool = True,
        target_context: int = -1,
        context_level_rate: float = 1.0,
        context_level_target_token: float = -1,
        force_context_ids: Collection[int] | None = (),
        return_word_label: bool = False,
        word_sep: str = "\t\t|\t\t",
        label_sep: str = " ",
        token_to_word: str = "mean",
        force_tokens: Sequence[str] = (),
        force_reserve_digit: bool = False,
        drop_consecutive: bool = False,
        chunk_end_tokens: Sequence[str] = (".", "\n"),
    ) -> dict[str, Any]:
        """Compress the contexts: `rate` is the share of tokens to keep, `target_token` (above 0) overrides it.

        Keys: compressed_prompt, compressed_prompt_list, origin_tokens, compressed_tokens, ratio, rate, saving, and with
        `return_word_label` fn_labeled_original_prompt.
        """
        given = dict(locals())
        settings = LegacySettings(**{f.name: given[f.name] for f in fields(LegacySettings)})
        result = self._legacy.compress(context, settings) if self.legacy else self._faithful(context, settings)
        report = result.report()
        if not self.legacy and result.tokens_before and not result.tokens_after:
            report.update(ratio="infx", rate="0.0%")
        if return_word_label:
            lines = [f"{word}{label_sep}{label}" for word, label in result.labels]
            report["fn_labeled_original_prompt"] = word_sep.join(lines)
        return report

    def get_token_length(self, text: str, add_special_tokens: bool = True, use_oai_tokenizer: bool = False) -> int:
        """Tokens of a text in the model's tokenizer, or in the counter's."""
        if use_oai_tokenizer:
            return counter(self._counter)(text)
        return len(self._folder.tokenizer.encode(text, add_special_tokens=add_special_tokens).ids)

    @cached_property
    def _folder(self) -> Model:
        from laconic.hub import load_folder

        return load_folder(self.model_name, int8=not self.legacy)  # equal decisions need equal weights

    @cached_property
    def _legacy(self) -> LegacyCompressor:
        folder = self._folder
        return LegacyCompressor(
            with_aliases(folder.tokenizer, _embedding_rows(folder.path, Path(self.model_name))),
            folder.encoder,
            counter(self._counter),
            batch=min(self._sizes["max_batch_size"], BATCH),
            max_force_tokens=self._sizes["max_force_token"],
        )

    @cached_property
    def _compressor(self) -> Compressor:
        import laconic

        return laconic.load(self.model_name, counter=self._counter)

    def _faithful(self, context: str | Sequence[str], settings: LegacySettings) -> LegacyResult:
        """laconic's own way: the best contexts, then one budget over all words in them."""
        _check_faithful(settings, self._sizes["max_force_token"])
        contexts = contexts_of(context)
        before = sum(map(self._compressor.counter, contexts))
        chosen = self._chosen(contexts, before, settings)
        parts = self._parts([contexts[k] for k in chosen], _limit(settings, before), settings)
        texts = [cut(part.tiling, mend(part.tiling, keep)) for part, keep in parts]
        labels = {k: _labelled(part.tiling, keep) for k, (part, keep) in zip(chosen, parts, strict=True)}
        for k in set(range(len(contexts))) - set(chosen):
            tiling = _tiling(contexts[k])
            labels[k] = _labelled(tiling, np.zeros(len(tiling), bool))
        after = sum(map(self._compressor.counter, texts))
        return LegacyResult(texts, before, after, [pair for k in range(len(contexts)) for pair in labels[k]])

    def _parts(self, contexts: list[str], limit: int | None, settings: LegacySettings) -> list[tuple[KeptPart, Bools]]:
        """Each context with its keep mask, within `limit` tokens over all of them (None: everything)."""
        if not contexts:
            return []
        budget: dict[str, Any] = {"rate": 1} if limit is None else {"tokens": max(limit, 1)}
        messages = [{"role": "user", "content": text} for text in contexts]
        result = self._compressor.compress(messages, **budget, protect=list(_protected(settings)), newest=True)
        if not settings.drop_consecutive:
            return [(part, part.keep) for part in result.parts]
        return [(part, _without_repeats(part, settings.force_tokens)) for part in result.parts]

    def _chosen(self, contexts: list[str], before: int, settings: LegacySettings) -> list[int]:
        """The contexts to keep, in order: those of the highest mean score, and those forced."""
        if not settings.use_context_level_filter or len(contexts) < 2:
            return list(range(len(contexts)))
        share = context_share(len(contexts), before, settings)
        if share < 0:
            raise InputError(f"context_level_rate must be in (0, 1], got {share}")
        scores = self._compressor.scorer.score([_tiling(text) for text in contexts])
        means = [_mean(s.values) for s in scores]
        best = sorted(range(len(contexts)), key=lambda k: -means[k])[: max(round(share * len(contexts)), 1)]
        return sorted({*best, *(k for k in settings.force_context_ids or () if 0 <= k < len(contexts))})


def _check_construction(
    device_map: str,
    model_config: Mapping[str, Any],
    open_api_config: Mapping[str, Any],
    use_llmlingua2: bool,
    llmlingua2_config: Mapping[str, Any],
) -> None:
    if not use_llmlingua2:
        raise InputError(
            "use_llmlingua2=False selects the perplexity methods, which this class does not offer; pass True"
        )
    if not isinstance(device_map, str) or not _DEVICES.fullmatch(device_map):
        raise InputError(f"device_map must be cpu, cuda, cuda:N, mps or auto, got {device_map!r}")
    if model_config.get("trust_remote_code"):
        raise InputError("trust_remote_code=True is refused: no code is ever loaded from a model; leave it out")
    if others := sorted(set(model_config) - {"trust_remote_code"}):
        raise InputError(f"model_config[{others[0]!r}] has no meaning for ONNX Runtime; leave it out")
    if open_api_config:
        raise InputError("open_api_config has no meaning for LLMLingua-2; leave it out")
    for name, value in llmlingua2_config.items():
        if name not in _SIZES or not isinstance(value, int) or value < 1:
            raise InputError(f"llmlingua2_config takes {' and '.join(_SIZES)}, both above 0, got {name}={value!r}")


def _check_faithful(settings: LegacySettings, most: int) -> None:
    """What laconic's own way has no use for is refused as well."""
    defaults = LegacySettings()
    for name in ("token_to_word", "chunk_end_tokens"):
        value, default = getattr(settings, name), getattr(defaults, name)
        if list(value) != list(default):
            raise InputError(
                f"{name}={value!r} needs legacy=True: laconic always takes the mean and cuts at sentence ends"
            )
    if len(settings.force_tokens) > most:
        raise InputError(f"at most {most} force tokens, got {len(settings.force_tokens)}; pass fewer")


def _unread(name: str, value: Any) -> str:
    if name in ("question", "instruction"):
        return (
            f"LLMLingua-2 does not read {name}={value!r}; leave it out and put it beside the compressed prompt yourself"
        )
    return f"{name}={value!r} belongs to the perplexity methods, LLMLingua-2 does not read it; leave it out"


def _limit(settings: LegacySettings, before: int) -> int | None:
    """The budget in tokens: of the original, whatever the context filter removed. None: keep all."""
    if not settings.use_token_level_filter:
        return None
    if settings.target_token >= 0:
        return Budget(tokens=int(settings.target_token)).limit(before)
    return None if settings.rate >= 1 else Budget(rate=settings.rate).limit(before)


def _protected(settings: LegacySettings) -> Iterator[str]:
    """Patterns for what must stay. Line breaks need none: between kept lines laconic keeps the break."""
    for token in settings.force_tokens:
        if token.strip():
            yield _on_word_boundaries(token.strip())
    if settings.force_reserve_digit:
        yield r"\d"


def _on_word_boundaries(token: str) -> str:
    before = r"(?<!\w)" if re.match(r"\w", token) else ""
    after = r"(?!\w)" if re.search(r"\w\Z", token) else ""
    return before + re.escape(token) + after


def _without_repeats(part: KeptPart, tokens: Collection[str]) -> Bools:
    """The keep mask without force tokens that would directly follow themselves."""
    keep: Bools = part.keep.copy()
    last = None
    for k, (unit, _, kept) in enumerate(part.units()):
        if kept:
            keep[k] = unit.strip() not in tokens or unit.strip() != last
            last = unit.strip()
    return keep


def _labelled(tiling: Tiling, keep: Bools) -> list[tuple[str, int]]:
    return [(unit.strip(), int(kept)) for unit, kept in zip(tiling, keep.tolist(), strict=True) if unit.strip()]


def _tiling(text: str) -> Tiling:
    from laconic.segment import words

    return words(text)


def _mean(values: Floats) -> float:
    """Mean of the units with evidence; below everything where there is none."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else -1.0


def _embedding_rows(*folders: Path) -> int:
    """How many token embeddings the model has, as the first config.json says; 0 if there is none."""
    files = [folder / "config.json" for folder in folders]
    found = next((file for file in files if file.is_file()), None)
    return int(json.loads(found.read_text(encoding="utf-8")).get("vocab_size", 0)) if found else 0
