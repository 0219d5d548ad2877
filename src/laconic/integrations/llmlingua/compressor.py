"""The class: signatures, what is refused, and who does the work."""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import fields
from functools import cached_property
from numbers import Real
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from laconic.budget import Counter
from laconic.budget import counter as named_counter
from laconic.errors import InputError
from laconic.integrations.llmlingua import llmlingua2
from laconic.integrations.llmlingua.checks import (
    ONLY_LLMLINGUA2,
    ONLY_PERPLEXITY,
    SIZES,
    check_construction,
    check_json,
    check_question,
    check_read,
)
from laconic.integrations.llmlingua.frame import Frame, reported
from laconic.integrations.llmlingua.jsons import Pairs, dumped
from laconic.integrations.llmlingua.llmlingua2 import LLMLingua2
from laconic.integrations.llmlingua.perplexity import Perplexity, plain
from laconic.integrations.llmlingua.recover import recover
from laconic.integrations.llmlingua.settings import PerplexitySettings
from laconic.integrations.llmlingua.structured import Context, given_segments, joined, parsed
from laconic.legacy import BATCH, LegacyCompressor, contexts_of, with_aliases
from laconic.legacy.recover import recover as legacy_recover
from laconic.legacy.words import LegacyResult, LegacySettings
from laconic.text import Floats, readable

if TYPE_CHECKING:
    import tokenizers

    from laconic.compressor import Compressor
    from laconic.hub import LanguageModel, Model
    from laconic.rankers import Ranker

_NOTHING: Mapping[str, Any] = MappingProxyType({})


class PromptCompressor:
    """llmlingua's class of this name over laconic.

    `use_llmlingua2=True` takes a token classifier and runs it in ONNX Runtime on the CPU, whatever `device_map` says
    ("cpu", "cuda", "cuda:1", "mps", "auto"). Otherwise the model is a causal language model (extra [torch]), on the CPU
    for "cpu" and else on a GPU if there is one. `model_config` may only say `trust_remote_code=False`: no code is ever
    loaded from a model. `counter` stands where tiktoken's cl100k_base did; it needs no network. The model is read at
    the first use.

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
        check_construction(device_map, model_config, open_api_config, llmlingua2_config, legacy, use_llmlingua2)
        self.model_name = model_name
        self.use_llmlingua2 = use_llmlingua2
        self.legacy = legacy
        self._device = "cpu" if device_map.startswith("cpu") else None
        self._named = counter
        self._sizes = {**SIZES, **llmlingua2_config}

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
        rank_method: str | Ranker = "llmlingua",
        concate_question: bool = True,
        context_segs: Sequence[Sequence[str]] | None = None,
        context_segs_rate: Sequence[Sequence[float]] | None = None,
        context_segs_compress: Sequence[Sequence[bool]] | None = None,
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
        """Compress the contexts: rate, target_token and all else as docs/dropin.md says.

        Keys: compressed_prompt, origin_tokens, compressed_tokens, ratio, rate, saving, and with LLMLingua-2
        compressed_prompt_list. The prompt is the instruction, the contexts and, with `concate_question`, the question,
        with an empty line between. A parameter that the method does not read must have its default.
        """
        given = dict(locals())
        if self.use_llmlingua2:
            return self._by_llmlingua2(given, self._frame(given, ONLY_PERPLEXITY))
        texts = contexts_of(context)
        segments = (context_segs, context_segs_rate, context_segs_compress)
        contexts = given_segments(texts, *segments) if any(segments) else plain(texts)
        return self._by_perplexity(contexts, given)

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
        return self._by_llmlingua2(dict(locals()), Frame())

    def structured_compress_prompt(
        self,
        context: Sequence[str],
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
        rank_method: str | Ranker = "llmlingua",
        concate_question: bool = True,
        strict_preserve_uncompressed: bool = True,
    ) -> dict[str, Any]:
        """Compress contexts with tags: `<llmlingua, rate=0.3>…</llmlingua><llmlingua, compress=False>…</llmlingua>`.

        `rate` (or what `target_token` comes to) holds for the rest, and for the choice of contexts and sentences.
        """
        given = dict(locals())
        texts = contexts_of(context)
        default = self._default_rate([joined(parsed(text, 1)) for text in texts], rate, target_token)
        contexts = [parsed(text, default) for text in texts]
        if not self.use_llmlingua2:
            return self._by_perplexity(contexts, given)
        forced = [k for k, c in enumerate(contexts) if strict_preserve_uncompressed and not all(s.compress for s in c)]
        given["force_context_ids"] = [*(force_context_ids or ()), *forced]
        prompt, result = self._llmlingua2(contexts, given).structured(contexts)
        return {**reported(result), "compressed_prompt": prompt}

    def compress_json(
        self,
        json_data: Mapping[str, Any],
        json_config: str | Mapping[str, Any],
        instruction: str = "",
        question: str = "",
        rate: float = 0.5,
        target_token: float = -1,
        iterative_size: int = 200,
        use_sentence_level_filter: bool = False,
        use_keyvalue_level_filter: bool = False,
        use_token_level_filter: bool = True,
        keep_split: bool = False,
        keep_first_sentence: int = 0,
        keep_last_sentence: int = 0,
        keep_sentence_number: int = 0,
        high_priority_bonus: int = 100,
        context_budget: str = "+100",
        token_budget_ratio: float = 1.4,
        condition_in_question: str = "none",
        reorder_keyvalue: str = "original",
        condition_compare: bool = False,
        rank_method: str | Ranker = "llmlingua",
    ) -> dict[str, Any]:
        """Compress the strings in a JSON object: compressed_prompt is an object with the same nesting, shorter strings.

        json_config: for each key, `rate`, `compress`, `value_type`, `pair_remove`
        (`laconic.integrations.llmlingua.jsons.Pairs`); or the path of a YAML or JSON file. The counts are of the JSON.
        """
        given = dict(locals())
        read = self.use_llmlingua2 or rank_method != "llmlingua" or condition_compare
        check_json(instruction, "" if read else question, use_sentence_level_filter)
        text = dumped(json_data)
        pairs = Pairs(json_data, json_config, self._default_rate([text], rate, target_token))
        given.update(use_context_level_filter=use_keyvalue_level_filter, reorder_context=reorder_keyvalue)
        given.update(force_context_ids=pairs.forced, strict_preserve_uncompressed=False, concate_question=not question)
        engine = (self._llmlingua2 if self.use_llmlingua2 else self._perplexity)(pairs.contexts, given)
        order = engine.order()
        contexts = [pairs.contexts[k] for k in order]
        if use_token_level_filter:
            texts = [part.text for part in engine.segmented(contexts).kept(engine.told)]
        else:
            texts = [s.text for c in contexts for s in c]
        found = pairs.rebuilt(order, texts)
        counts = LegacyResult([], self._counter(text), self._counter(dumped(found)), [])
        return {**_without_list(reported(counts)), "compressed_prompt": found}

    def recover(self, original_prompt: str, compressed_prompt: str, response: str) -> str:
        """A response with what it quotes from the compressed prompt as the original prompt has it."""
        if self.legacy:
            return legacy_recover(self._tokenizer, original_prompt, compressed_prompt, response)
        return recover(original_prompt, compressed_prompt, response)

    def get_ppl(
        self,
        text: str,
        granularity: str = "sentence",
        input_ids: Any = None,
        attention_mask: Any = None,
        past_key_values: Any = None,
        return_kv: bool = False,
        end: int | None = None,
        condition_mode: str = "none",
        condition_pos_id: int = 0,
    ) -> float | Floats:
        """Surprisal of a text from its second token on, in nats: float32[T - 1] for "token", the mean for "sentence".

        `condition_mode`: "before" takes those before `condition_pos_id`, "after" those from there on. `end`: how many
        tokens are read.
        """
        if self.use_llmlingua2:
            raise InputError("get_ppl needs a causal language model; pass use_llmlingua2=False and the name of one")
        if any(value is not None for value in (input_ids, attention_mask, past_key_values)) or return_kv:
            raise InputError(
                "get_ppl reads a text: input_ids, attention_mask, past_key_values and return_kv stay unset"
            )
        if granularity not in ("sentence", "token") or condition_mode not in ("none", "before", "after"):
            raise InputError(
                "granularity is sentence or token, condition_mode none, before or after; got "
                f"{granularity!r} and {condition_mode!r}"
            )
        ids = np.array(self._tokenizer.encode(readable(text)).ids[:end], np.int64)[None]
        values = self._model.decoder.nll(ids, np.ones_like(ids))[0, 1:]
        kept = {"none": slice(None), "before": slice(condition_pos_id), "after": slice(condition_pos_id, None)}
        values = values[kept[condition_mode]]
        return values if granularity == "token" else float(values.mean()) if len(values) else math.nan

    def get_token_length(self, text: str, add_special_tokens: bool = True, use_oai_tokenizer: bool = False) -> int:
        """Tokens of a text in the model's tokenizer, or in the counter's."""
        if use_oai_tokenizer:
            return self._counter(text)
        return len(self._tokenizer.encode(readable(text), add_special_tokens=add_special_tokens).ids)

    @cached_property
    def _counter(self) -> Counter:
        return named_counter(self._named)

    @cached_property
    def _model(self) -> LanguageModel:
        from laconic.hub import load_decoder

        return load_decoder(self.model_name, self._device)

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
            self._counter,
            batch=min(self._sizes["max_batch_size"], BATCH),
            max_force_tokens=self._sizes["max_force_token"],
        )

    @cached_property
    def _compressor(self) -> Compressor:
        import laconic

        return laconic.load(self.model_name, counter=self._named)

    @property
    def _tokenizer(self) -> tokenizers.Tokenizer:
        return self._folder.tokenizer if self.use_llmlingua2 else self._model.tokenizer

    def _default_rate(self, texts: Sequence[str], rate: float, target: float) -> float:
        """The rate of segments that have none."""
        if not isinstance(target, Real):
            raise InputError(f"target_token must be a number, got {target!r}")
        if target < 0:
            return rate
        return min(1.0, target / max(1, sum(map(self._counter, texts))))

    def _llmlingua2(self, contexts: Sequence[Context], given: Mapping[str, Any]) -> LLMLingua2:
        """LLMLingua-2 for contexts in segments."""
        frame = self._frame(given, ONLY_PERPLEXITY - {"strict_preserve_uncompressed"})
        if self.legacy:
            raise InputError("rates of segments need laconic's own way; leave legacy=True out")
        settings = LegacySettings(**{name: given[name] for name in _LEGACY if name in given})
        return LLMLingua2(self._compressor, settings, frame, [joined(c) for c in contexts])

    def _perplexity(self, contexts: Sequence[Context], given: Mapping[str, Any]) -> Perplexity:
        return Perplexity(self._model, self._counter, contexts, self._settings(given))

    def _settings(self, given: Mapping[str, Any]) -> PerplexitySettings:
        check_read(given, _DEFAULTS, ONLY_LLMLINGUA2, "a perplexity method")
        names = {f.name for f in fields(PerplexitySettings)}
        texts = {name: given[name] or "" for name in ("instruction", "question")}
        return PerplexitySettings(**{**{k: v for k, v in given.items() if k in names}, **texts})

    def _by_perplexity(self, contexts: Sequence[Context], given: Mapping[str, Any]) -> dict[str, Any]:
        engine = self._perplexity(contexts, given)
        prompt = engine.frame.around(engine.text())
        return _without_list(reported(LegacyResult([prompt], engine.before, self._counter(prompt), [])))

    def _frame(self, given: Mapping[str, Any], unread: Collection[str]) -> Frame:
        """What stands around the contexts of LLMLingua-2, once nothing else is asked for that it does not read."""
        instruction, question = given["instruction"] or "", given["question"] or ""
        reads = bool(instruction or question) and not self.legacy and self._compressor.scorer.reads_question
        check_question(instruction, question, reads)
        honoured = {"instruction", "question"} | ({"concate_question"} if question else set())
        check_read(given, _DEFAULTS, set(unread) - honoured, "LLMLingua-2")
        return Frame(instruction, question, given.get("concate_question", True))

    def _by_llmlingua2(self, given: Mapping[str, Any], frame: Frame) -> dict[str, Any]:
        settings = LegacySettings(**{name: given[name] for name in _LEGACY})
        if self.legacy:
            result = self._legacy.compress(given["context"], settings)
            report = result.report()
        else:
            llmlingua2.check(settings, self._sizes["max_force_token"])
            prompt, result = LLMLingua2(self._compressor, settings, frame, contexts_of(given["context"])).result()
            report = {**reported(result), "compressed_prompt": prompt}
        if given["return_word_label"]:
            lines = [f"{word}{given['label_sep']}{label}" for word, label in result.labels]
            report["fn_labeled_original_prompt"] = given["word_sep"].join(lines)
        return report


_DEFAULTS = {name: p.default for name, p in inspect.signature(PromptCompressor.compress_prompt).parameters.items()}
_LEGACY = [f.name for f in fields(LegacySettings)]


def _without_list(report: dict[str, Any]) -> dict[str, Any]:
    """The keys of the perplexity methods."""
    return {key: value for key, value in report.items() if key != "compressed_prompt_list"}


def _embedding_rows(*folders: Path) -> int:
    """How many token embeddings the model has, as the first config.json says; 0 if there is none."""
    files = [folder / "config.json" for folder in folders]
    found = next((file for file in files if file.is_file()), None)
    return int(json.loads(found.read_text(encoding="utf-8")).get("vocab_size", 0)) if found else 0
