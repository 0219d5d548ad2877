"""The drop-in for `llmlingua.PromptCompressor`: signatures, keys, refusals, and laconic's promises behind them."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from laconic.budget import counter
from laconic.compressor import Compressor
from laconic.errors import InputError
from laconic.integrations.llmlingua import PromptCompressor
from laconic.score import Progress, Scores
from laconic.text import Tiling

KEYS = ["compressed_prompt", "compressed_prompt_list", "origin_tokens", "compressed_tokens", "ratio", "rate", "saving"]
TEXT = "The meeting was moved from Monday to Tuesday at 14:30. Please bring the report, the blue folder and a pen."
CONTEXTS = [
    TEXT,
    "Nothing else was said about it. Nothing at all.",
    "Costs rose by 3.75 percent to 1,000 euros in 2024.",
]


class ByLength:
    """A scorer without a model: the longer the word, the better."""

    name = "length"
    model = "by-length"
    reads_question = False
    reads_budget = False

    def score(self, tilings: Sequence[Tiling], progress: Progress | None = None) -> list[Scores]:
        return [Scores(np.array([len(u.strip()) / 20 for u in t], np.float32), self.name) for t in tilings]


class EvenOdd:
    """An encoder without a model: P(keep) depends on the token id."""

    def logits(self, ids: np.ndarray, mask: np.ndarray, types: np.ndarray | None = None) -> np.ndarray:
        return np.stack([np.zeros(ids.shape), np.sin(ids * 7.0)], -1).astype(np.float32)


@pytest.fixture
def faithful() -> PromptCompressor:
    made = PromptCompressor("by-length", use_llmlingua2=True)
    made.__dict__["_compressor"] = Compressor(ByLength(), counter("cl100k_base"))
    return made


@pytest.fixture
def legacy(tmp_path: Path) -> PromptCompressor:
    words = sorted({w for text in CONTEXTS for w in text.replace(".", " .").replace(",", " ,").split()})
    vocab = {w: k for k, w in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words])}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
    (tmp_path / "config.json").write_text(json.dumps({"vocab_size": len(vocab) + 100}))
    made = PromptCompressor("tiny", use_llmlingua2=True, legacy=True)
    made.__dict__["_folder"] = SimpleNamespace(tokenizer=tokenizer, encoder=EvenOdd(), path=tmp_path)
    return made


@pytest.fixture(params=["faithful", "legacy"])
def either(request: pytest.FixtureRequest) -> PromptCompressor:
    made: PromptCompressor = request.getfixturevalue(request.param)
    return made


def tokens(text: str) -> int:
    return counter("cl100k_base")(text)


# The same surface


def frozen(default: Any) -> Any:
    """Lists and tuples, dicts and read-only mappings alike: ours cannot be written to."""
    if isinstance(default, Mapping):
        return dict(default)
    return tuple(default) if isinstance(default, (list, tuple)) else default


METHODS = [
    "__init__",
    "compress_prompt",
    "compress_prompt_llmlingua2",
    "structured_compress_prompt",
    "compress_json",
    "recover",
    "get_ppl",
    "get_token_length",
]


@pytest.mark.parametrize("method", METHODS)
def test_signatures_are_those_of_the_package(method: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reference = pytest.importorskip("llmlingua").PromptCompressor
    theirs = inspect.signature(getattr(reference, method)).parameters.values()
    ours = inspect.signature(getattr(PromptCompressor, method)).parameters.values()
    extra = {"legacy", "counter"} if method == "__init__" else set()
    described = [(p.name, p.kind, frozen(p.default)) for p in ours if p.name not in extra]
    assert described == [(p.name, p.kind, frozen(p.default)) for p in theirs]
    assert all(p.kind is p.KEYWORD_ONLY for p in ours if p.name in extra)


def test_keys_are_those_of_the_package(either: PromptCompressor) -> None:
    assert list(either.compress_prompt(TEXT)) == KEYS
    assert list(either.compress_prompt_llmlingua2(CONTEXTS, return_word_label=True)) == [
        *KEYS,
        "fn_labeled_original_prompt",
    ]


def test_calling_is_compress_prompt(either: PromptCompressor) -> None:
    assert either(CONTEXTS, rate=0.4) == either.compress_prompt(CONTEXTS, rate=0.4)


def test_arguments_are_not_changed(either: PromptCompressor) -> None:
    contexts, force, ids, ends = list(CONTEXTS), [".", "the"], [1], [".", "\n"]
    either.compress_prompt(contexts, force_tokens=force, force_context_ids=ids, chunk_end_tokens=ends, target_token=20)
    assert (contexts, force, ids, ends) == (CONTEXTS, [".", "the"], [1], [".", "\n"])


def test_importing_and_constructing_is_quiet_and_light() -> None:
    code = (
        "import sys; from laconic.integrations.llmlingua import PromptCompressor; "
        "PromptCompressor('no/such-model', use_llmlingua2=True); "
        "assert not {'torch', 'transformers', 'tiktoken', 'llmlingua'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# What is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"use_llmlingua2": False, "legacy": True}, "legacy=True .*pass use_llmlingua2=True"),
        ({"device_map": "tpu"}, "device_map must be cpu, cuda"),
        ({"model_config": {"trust_remote_code": True}}, "trust_remote_code=True is refused"),
        ({"model_config": {"torch_dtype": "auto"}}, "torch_dtype.*leave it out"),
        ({"open_api_config": {"api_key": "x"}}, "open_api_config.*leave it out"),
        ({"llmlingua2_config": {"max_batch": 3}}, "max_batch_size and max_force_token"),
        ({"llmlingua2_config": {"max_batch_size": 0}}, "above 0"),
    ],
)
def test_construction_refuses_what_it_cannot_honour(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        PromptCompressor("x", **{"use_llmlingua2": True, **options})


@pytest.mark.parametrize("device", ["cpu", "cuda", "cuda:1", "mps", "auto"])
def test_every_usual_device_is_accepted(device: str) -> None:
    PromptCompressor("x", device, {"trust_remote_code": False}, use_llmlingua2=True)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("instruction", "Answer."),
        ("question", "When?"),
        ("iterative_size", 100),
        ("force_context_number", 2),
        ("use_sentence_level_filter", True),
        ("context_budget", "+50"),
        ("condition_in_question", "after"),
        ("reorder_context", "sort"),
        ("rank_method", "longllmlingua"),
        ("concate_question", False),
        ("context_segs_rate", [0.5]),
        ("strict_preserve_uncompressed", False),
    ],
)
def test_what_llmlingua2_would_silently_drop_is_refused_by_name(
    either: PromptCompressor, name: str, value: Any
) -> None:
    with pytest.raises(InputError, match=f"{name}=.*leave it out"):
        either.compress_prompt(TEXT, **{name: value})


def test_empty_values_of_unread_parameters_pass(either: PromptCompressor) -> None:
    empty: dict[str, Any] = {"question": None, "instruction": None, "context_segs": []}
    assert either.compress_prompt(TEXT, **empty) == either.compress_prompt(TEXT)


@pytest.mark.parametrize("name", ["rate", "target_token", "context_level_rate"])
def test_numbers_must_be_numbers(either: PromptCompressor, name: str) -> None:
    with pytest.raises(InputError, match=f"{name} must be a number"):
        either.compress_prompt(TEXT, **{name: "half"})


@pytest.mark.parametrize("context", [None, 7, [TEXT, None], b"bytes"])
def test_contexts_must_be_texts(either: PromptCompressor, context: Any) -> None:
    with pytest.raises(InputError, match="must be a str"):
        either.compress_prompt(context)


@pytest.mark.parametrize("rate", [0, -1])
def test_a_rate_of_zero_is_refused(either: PromptCompressor, rate: float) -> None:
    with pytest.raises(InputError, match=r"in \(0, 1\]"):
        either.compress_prompt(TEXT, rate=rate)


def test_a_string_where_a_list_belongs_is_refused(either: PromptCompressor) -> None:
    with pytest.raises(InputError, match="force_tokens must be a list"):
        either.compress_prompt(TEXT, force_tokens="the")


@pytest.mark.parametrize("options", [{"token_to_word": "first"}, {"chunk_end_tokens": ["."]}], ids=str)
def test_settings_of_the_old_algorithm_need_legacy(
    faithful: PromptCompressor, legacy: PromptCompressor, options: dict[str, Any]
) -> None:
    with pytest.raises(InputError, match="needs legacy=True"):
        faithful.compress_prompt(TEXT, **options)
    assert legacy.compress_prompt(TEXT, **options)["compressed_prompt"]


def test_too_many_force_tokens_are_refused() -> None:
    made = PromptCompressor("x", use_llmlingua2=True, llmlingua2_config={"max_force_token": 2})
    with pytest.raises(InputError, match="at most 2 force tokens, got 3"):
        made.compress_prompt(TEXT, force_tokens=["a", "b", "c"])


# laconic's own way


@pytest.mark.parametrize("rate", [0.2, 0.5, 0.9])
def test_the_rate_is_kept_over_all_contexts(faithful: PromptCompressor, rate: float) -> None:
    result = faithful.compress_prompt_llmlingua2(CONTEXTS, rate=rate)
    assert result["origin_tokens"] == sum(map(tokens, CONTEXTS))
    assert result["compressed_tokens"] == sum(map(tokens, result["compressed_prompt_list"]))
    assert result["compressed_tokens"] <= rate * result["origin_tokens"]
    assert result["compressed_prompt"] == "\n\n".join(result["compressed_prompt_list"])


@pytest.mark.parametrize("target", [1, 20, 30.5])
def test_a_target_is_an_upper_bound(faithful: PromptCompressor, target: float) -> None:
    for filtered in (False, True):
        result = faithful.compress_prompt(CONTEXTS, target_token=target, use_context_level_filter=filtered)
        assert result["compressed_tokens"] <= target


@pytest.mark.parametrize("options", [{"rate": 1.0}, {"rate": 3}, {"use_token_level_filter": False}], ids=str)
def test_keeping_everything_is_the_identity(faithful: PromptCompressor, options: dict[str, Any]) -> None:
    odd = ["  indented\n\n\ttext 🎉 ", "", "ＡＢ"]
    result = faithful.compress_prompt_llmlingua2(odd, **options)
    assert result["compressed_prompt_list"] == odd
    assert result["rate"] == "100.0%"


def test_force_tokens_and_digits_stay(faithful: PromptCompressor) -> None:
    result = faithful.compress_prompt_llmlingua2(
        CONTEXTS, rate=0.5, force_tokens=["a pen", "said"], force_reserve_digit=True
    )
    first, second, third = result["compressed_prompt_list"]
    assert "a pen" in first
    assert "14:30" in first
    assert "said" in second
    assert all(number in third for number in ("3.75", "1,000", "2024"))


def test_force_tokens_match_on_word_boundaries(faithful: PromptCompressor) -> None:
    text = "min is abominable minutes minimal administration"
    kept = faithful.compress_prompt(text, rate=0.7, force_tokens=["min"])["compressed_prompt"]
    assert kept.split()[0] == "min"
    assert faithful.compress_prompt(text, target_token=1, force_tokens=["min"])["compressed_prompt"] == "min"


def test_consecutive_force_tokens_become_one(faithful: PromptCompressor) -> None:
    text = "Wonderful evenings, of, or, if, unforgettable celebrations, at, to, on."
    plain = faithful.compress_prompt(text, rate=0.6, force_tokens=[","])["compressed_prompt"]
    once = faithful.compress_prompt(text, rate=0.6, force_tokens=[","], drop_consecutive=True)["compressed_prompt"]
    assert ",," in plain
    assert ",," not in once
    assert "," in once


def test_the_context_filter_keeps_the_best_and_the_forced(faithful: PromptCompressor) -> None:
    alone = faithful.compress_prompt(CONTEXTS, target_context=1, use_token_level_filter=False)
    assert alone["compressed_prompt_list"] == [max(CONTEXTS, key=mean_length)]
    forced = faithful.compress_prompt(
        CONTEXTS, target_context=1, use_token_level_filter=False, force_context_ids=[1, 99]
    )
    assert CONTEXTS[1] in forced["compressed_prompt_list"]
    assert len(forced["compressed_prompt_list"]) == 2


def mean_length(text: str) -> float:
    from laconic.segment import words

    return float(np.mean([len(unit.strip()) for unit in words(text)]))


def test_labels_name_every_word_once(faithful: PromptCompressor) -> None:
    result = faithful.compress_prompt(
        CONTEXTS, target_context=2, rate=0.4, return_word_label=True, word_sep="|", label_sep="="
    )
    pairs = [pair.rsplit("=", 1) for pair in result["fn_labeled_original_prompt"].split("|")]
    assert "".join(word for word, _ in pairs) == "".join("".join(CONTEXTS).split())
    kept = "".join(word for word, label in pairs if label == "1")
    assert kept == "".join("".join(result["compressed_prompt_list"]).split())


@pytest.mark.parametrize("context", ["", [], [""], ["", TEXT, ""]])
def test_empty_contexts_are_no_trouble(faithful: PromptCompressor, context: Any) -> None:
    result = faithful.compress_prompt(context, rate=0.5)
    assert result["compressed_tokens"] <= result["origin_tokens"]


def test_an_empty_result_is_reported_as_such(faithful: PromptCompressor) -> None:
    result = faithful.compress_prompt("incomprehensibilities", target_token=1)
    assert [result[k] for k in ("compressed_prompt", "ratio", "rate")] == ["", "infx", "0.0%"]


# The old way


def test_legacy_reads_aliases_from_spare_embedding_rows(legacy: PromptCompressor) -> None:
    result = legacy.compress_prompt(TEXT, rate=0.3, force_tokens=["blue folder"])
    assert "blue folder" in result["compressed_prompt"]


def test_token_length_in_both_tokenizers(legacy: PromptCompressor) -> None:
    assert legacy.get_token_length("The meeting was moved") == 4
    assert legacy.get_token_length(TEXT, use_oai_tokenizer=True) == tokens(TEXT)


def test_the_counter_can_be_a_function(legacy: PromptCompressor) -> None:
    made = PromptCompressor("x", use_llmlingua2=True, legacy=True, counter=len)
    made.__dict__["_folder"] = legacy._folder
    assert made.compress_prompt(TEXT)["origin_tokens"] == len(TEXT)
