"""Parity of `laconic.legacy` with the llmlingua package: same weights, same tokenizer, same token counter.

Both tokenizer families, over tiny random checkpoints. The package compares with a strict >, so a word whose probability
lies within float error of its threshold could go either way; such cases are left out, counted, printed, and must stay
few. A probability that *is* the threshold is no such case: both sides pick the same word's value.
"""

from __future__ import annotations

import gzip
import json
import random
import re
import warnings
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from laconic.errors import InputError, ModelError
from laconic.export import export
from laconic.hub import load_folder
from laconic.integrations.llmlingua import PromptCompressor
from laconic.legacy import LegacyCompressor, with_aliases
from laconic.legacy.words import Family, Force, LegacySettings, Words, percentile, threshold, without_repeats

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    torch = pytest.importorskip("torch")
    pytest.importorskip("llmlingua", reason="the reference package")
    import llmlingua.prompt_compressor as reference_module
    from tokenizers import Tokenizer, models

import tiny

pytestmark = pytest.mark.filterwarnings("ignore")
NEAR = 1e-5  # closer than this to the threshold, but not on it, a case is left out
RATES = (0.1, 0.2, 0.33, 0.5, 0.55, 0.66, 0.8, 0.9)
FORCE: tuple[tuple[str, ...], ...] = ((), (".",), ("The answer is", "?", "min"), ("\n", "minute"))
PROSE = """The committee met on 14 March 2024, and the first item was the budget: $1,000.50 for the harbour, 3.75 % less
than last year. Nobody objected; Mrs. O'Neill didn't vote. "Is that final?" asked the chair. The answer is no.

Next time. A 10-minute abominable min of silence followed!! Then the council, tired & hungry, went home (at 21:30).
def total(rows):
    return sum(row["amount"] for row in rows)  # <- the sum
Später sprach der Bürgermeister über die Straße; él dijo que sí. Das Ergebnis: nichts.
Please see https://example.org/a/b?c=1#top and mail a.b@example.org. It was cold, it was late, it was over. The end.
"""
STRANGE = (
    "🎉",
    "東京都は大きい。",
    "\uff21\uff22\uff11\uff12",
    "[UNK]",
    "<unk>",
    "[PAD]",
    "<pad>",
    "[SEP]",
    "</s>",
    "\x00",
    "##",
    "#1",
)


def count(text: str) -> int:
    """A token counter with zeros, ones and many: pieces of up to four letters, signs, runs of digits."""
    return len(re.findall(r"\d{1,3}|[^\W\d]{1,4}|[^\w\s]", text))


class FakeEncoding:
    """Stands where tiktoken's encoding would, which needs a download."""

    def encode(self, text: str) -> list[int]:
        return [0] * count(text)


@dataclass
class TorchEncoder:
    """The reference's own model behind our seam; `length` pads to a fixed length, as the reference does."""

    model: Any
    length: int = 0

    def logits(self, ids: np.ndarray, mask: np.ndarray, types: np.ndarray | None = None) -> np.ndarray:
        pad = max(self.length - ids.shape[1], 0)
        ids, mask = (np.pad(a, ((0, 0), (0, pad))) for a in (ids, mask))
        with torch.no_grad():
            return self.model(input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask) == 1).logits.numpy()


@dataclass
class Trace:
    """What the reference computed on its way, by chunk."""

    chunks: list[list[str]] = field(default_factory=list)
    ids: list[list[int]] = field(default_factory=list)
    words: list[list[str]] = field(default_factory=list)
    probabilities: list[list[float]] = field(default_factory=list)
    percentiles: list[float] = field(default_factory=list)


class Watched(LegacyCompressor):
    """Ours, noting whether any word's probability came next to its chunk's threshold."""

    close = False

    def labels(self, words: Words, reduce: float, force: Force, settings: LegacySettings) -> Any:
        if words.texts:
            limits, after = [], words
            if settings.drop_consecutive and settings.force_tokens:
                limits.append(percentile(words.p, words.plain, int(100 * reduce), ""))
                after = without_repeats(words, reduce, force)
            limits.append(threshold(after, counts(words), reduce))
            gaps = np.abs(np.subtract.outer(words.p.astype(np.float64), limits))
            self.close |= bool(((gaps > 0) & (gaps < NEAR)).any())
        return super().labels(words, reduce, force, settings)


def counts(words: Words) -> np.ndarray:
    """Tokens of each word."""
    return np.array([count(text) for text in words.texts])


@dataclass
class Pair:
    """The reference and ours over the same checkpoint."""

    reference: Any
    ours: Watched
    padded: Watched  # ours, reading 512 positions like the reference
    cases: Counter[str] = field(default_factory=Counter)

    def theirs(self, context: Any, **options: Any) -> dict[str, Any]:
        return self.reference.compress_prompt_llmlingua2(context, **options)

    def check(self, context: Any, padded: bool = False, **options: Any) -> None:
        """Assert that both give the same return value, labels included, unless the case is too close to call."""
        ours = self.padded if padded else self.ours
        ours.close = False
        result = ours.compress(context, LegacySettings(**options))
        expected = self.theirs(context, return_word_label=True, word_sep="\x01", label_sep="\x02", **options)
        labels = "\x01".join(f"{word}\x02{label}" for word, label in result.labels)
        equal = {**result.report(), "fn_labeled_original_prompt": labels} == expected
        self.cases[("equal" if equal else "different") + (", left out" if ours.close else "")] += 1
        if not ours.close:
            assert labels == expected.pop("fn_labeled_original_prompt"), options
            assert result.report() == expected, options


@pytest.fixture(scope="module", params=["xlm-roberta-large", "bert-base-multilingual-cased"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("models") / f"tiny-{request.param}"
    build = tiny.build_xlmr if "xlm" in request.param else tiny.build_mbert
    build(folder, [PROSE] * 3, vocab_size=250)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    state = random.getstate(), np.random.get_state()
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng(devices=[]):
        patch.setenv("PYTHONHASHSEED", "0")
        patch.setattr(reference_module.tiktoken, "encoding_for_model", lambda name: FakeEncoding())
        reference = reference_module.PromptCompressor(
            str(folder), device_map="cpu", model_config={}, use_llmlingua2=True
        )
        reference.model.eval()
    random.setstate(state[0])
    np.random.set_state(state[1])
    reference.tokenizer.save_pretrained(folder)  # with the aliases [NEWi], whose rows the reference has just drawn
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ours = Watched(tokenizer, TorchEncoder(reference.model), count)
    padded = Watched(tokenizer, TorchEncoder(reference.model, 512), count, batch=1)
    made = Pair(reference, ours, padded)
    yield made
    torch.set_num_threads(threads)
    print(f"\n{request.param}: {dict(made.cases)}")
    left_out = made.cases["equal, left out"] + made.cases["different, left out"]
    assert left_out <= 0.05 * sum(made.cases.values())


@pytest.fixture
def trace(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> Trace:
    """The reference's intermediate values, recorded."""
    seen = Trace()
    owner = type(pair.reference)

    def spy(name: str, record: Callable[[Any], None]) -> None:
        original = getattr(owner, f"_PromptCompressor__{name}")

        def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
            result = original(self, *args, **kwargs)
            record(result)
            return result

        monkeypatch.setattr(owner, f"_PromptCompressor__{name}", wrapped)

    def percentile(values: Any, q: Any) -> Any:
        seen.percentiles.append(float(np.percentile(values, q)))
        return np.percentile(values, q)

    spy("chunk_context", seen.chunks.append)
    spy("merge_token_to_word", lambda result: seen.words.append(list(result[0])))
    spy("token_prob_to_word_prob", lambda result: seen.probabilities.append([float(p) for p in result]))
    monkeypatch.setattr(reference_module, "np", SimpleNamespace(percentile=percentile))
    return seen


def texts(seed: int, number: int, longest: int = 60) -> list[str]:
    """Random mixtures of prose, numbers, signs, line breaks and strange strings."""
    rng = random.Random(seed)
    words = PROSE.split()
    made = []
    for _ in range(number):
        parts = [rng.choice(words)]
        for _ in range(rng.randrange(longest)):
            kind = rng.random()
            parts.append(rng.choice(STRANGE) if kind < 0.05 else str(rng.randrange(10**4)) if kind < 0.1 else "")
            parts.append(rng.choice((". ", "\n", "", "!", ", ", "?")) if kind > 0.8 else " ")
            parts.append("The answer is" if 0.1 < kind < 0.13 else rng.choice(words))
        made.append("".join(parts))
    return made


def of_length(pair: Pair, n: int, stops: bool, seed: int = 0) -> str:
    """A text of exactly n pieces, with or without sentence ends."""
    rng = random.Random(seed)
    pieces = pair.ours.tokenizer
    size = lambda words: len(pieces.encode(" ".join(words), add_special_tokens=False))  # noqa: E731
    single = [w for w in ("the", "was", "it", "a", "t", "The", "s") if size([w]) == 1]
    words = [rng.choice(PROSE.split()) for _ in range(n)] if stops else [rng.choice(single) for _ in range(n)]
    words = words[: bisect_right(range(n), n, key=lambda k: size(words[:k])) - 1] if size(words) > n else words
    words += [rng.choice(single) for _ in range(n - size(words))]
    assert size(words) == n
    return " ".join(words)


LENGTHS = (1, 2, 509, 510, 511, 512, 513, 1021, 1022, 1023)


@pytest.mark.parametrize("stops", [True, False])
def test_chunks_are_the_same_at_every_critical_length(pair: Pair, stops: bool) -> None:
    for n in LENGTHS:
        text = of_length(pair, n, stops)
        for ends in ({".", "\n"}, set(), {"the", "▁the"}):
            expected = pair.reference._PromptCompressor__chunk_context(text, chunk_end_tokens=ends)
            assert pair.ours.chunks(text, ends) == expected


def test_an_end_token_that_opens_a_chunk_does_not_end_it(pair: Pair) -> None:
    text = "was" + " the" * 600
    ends = set(pair.ours.tokenizer.encode("was", add_special_tokens=False).tokens[:1])
    assert pair.ours.chunks(text, ends) == pair.reference._PromptCompressor__chunk_context(text, chunk_end_tokens=ends)


@pytest.mark.parametrize("stops", [True, False])
def test_long_texts_compress_to_the_same_bytes(pair: Pair, stops: bool) -> None:
    for n in LENGTHS:
        pair.check(of_length(pair, n, stops), rate=0.5)
        pair.check(of_length(pair, n, stops, seed=1), rate=0.33, drop_consecutive=True, force_tokens=["."])


def test_ids_and_mask_are_the_same(pair: Pair) -> None:
    samples = [*texts(1, 40), *STRANGE, of_length(pair, 511, True), of_length(pair, 513, False)]
    data = reference_module.TokenClfDataset(samples, tokenizer=pair.reference.tokenizer, max_len=512)
    for k, text in enumerate(samples):
        ids, mask = pair.ours.encode(text)
        expected = data[k]
        assert ids.tolist() == expected["ids"][: len(ids)].tolist()
        assert mask.tolist() == expected["mask"][: len(ids)].tolist()
        assert not expected["mask"][len(ids) :].any()


def test_markers_are_the_unknown_token_for_sentencepiece(pair: Pair) -> None:
    ids, _ = pair.ours.encode("the")
    expected = [3, 3] if pair.ours.family.mark == "▁" else [2, 3]
    assert [ids[0], ids[-1]] == expected


@pytest.mark.parametrize("token_to_word", ["mean", "first"])
@pytest.mark.parametrize("force", FORCE)
def test_words_and_probabilities_are_the_same(
    pair: Pair, trace: Trace, force: tuple[str, ...], token_to_word: str
) -> None:
    for text in texts(2, 12):
        options: dict[str, Any] = {
            "force_tokens": list(force),
            "token_to_word": token_to_word,
            "force_reserve_digit": True,
        }
        trace.words.clear(), trace.probabilities.clear(), trace.chunks.clear()
        pair.theirs(text, **options)
        settings, known = LegacySettings(**options), pair.ours.force(force)
        words = pair.ours.words(trace.chunks[0], known, settings)
        assert [w.texts for w in words] == trace.words
        for ours, theirs in zip(words, trace.probabilities, strict=True):
            np.testing.assert_allclose(ours.p, theirs, atol=1e-6)


@pytest.mark.parametrize("rate", RATES)
def test_thresholds_are_the_same(pair: Pair, trace: Trace, rate: float) -> None:
    for text, digit in product(texts(3, 12), (False, True)):
        options: dict[str, Any] = {"force_tokens": ["."], "force_reserve_digit": digit}
        trace.percentiles.clear(), trace.chunks.clear()
        pair.theirs(text, rate=rate, **options)
        words = pair.padded.words(trace.chunks[0], pair.ours.force(["."]), LegacySettings(**options))
        found = [threshold(w, counts(w), 1 - rate) for w in words]
        np.testing.assert_allclose(found, trace.percentiles, atol=1e-6)


def test_words_begin_where_the_reference_says(pair: Pair) -> None:
    name, force = pair.reference.model_name, pair.ours.force(["a", "The answer is"])
    for piece in ("a", "▁a", "##a", "b", "##b", "▁", "▁▁b", "#", "##", "###", "#b", "+", "+,-", "-+", "[NEW1]", "▁."):
        begins = reference_module.is_begin_of_new_word(piece, name, list(force.tokens), force.alias)
        assert pair.ours.family.opens_word(piece, force.all) == begins, piece
        assert pair.ours.family.pure(piece) == reference_module.get_pure_token(piece, name)


@pytest.mark.parametrize("forced", [False, True])
def test_percentiles_have_the_precision_of_the_packages_lists(forced: bool) -> None:
    """float32 until one Python float is among them: at whole ranks the two round to different sides."""
    rng = np.random.default_rng(0)
    differ = 0
    for n, q in product((2, 21, 51, 101, 201, 301), (10, 20, 34, 45, 51, 67, 68, 81, 91)):
        values = rng.random(n).astype(np.float32)
        plain = np.zeros(n, bool)
        plain[0] = forced
        as_held = [float(v) if python else v for v, python in zip(values, plain, strict=True)]
        assert percentile(values, plain, q, "") == float(np.percentile(as_held, q))
        other = values.astype(np.float32 if forced else np.float64)
        differ += percentile(values, plain, q, "") != float(np.percentile(other, q))
    assert differ


@pytest.mark.parametrize("force", FORCE)
@pytest.mark.parametrize("rate", RATES)
def test_bytes_and_labels_over_all_options(pair: Pair, rate: float, force: tuple[str, ...]) -> None:
    """The wide crossing, single chunks read as the reference reads them."""
    crossing = list(product((False, True), (False, True), ("mean", "first")))
    for k, text in enumerate(texts(hash_of(rate, force), 24)):
        digit, drop, how = crossing[k % len(crossing)]
        pair.check(
            text,
            padded=True,
            rate=rate,
            force_tokens=list(force),
            force_reserve_digit=digit,
            drop_consecutive=drop,
            token_to_word=how,
        )


def hash_of(*values: Any) -> int:
    """A seed that is the same in every process."""
    return sum(map(ord, repr(values)))


@pytest.mark.parametrize("target", [1, 50, 10**6, 7.5])
def test_target_token(pair: Pair, target: float) -> None:
    for text in [*texts(5, 12), "\n".join(texts(6, 30))]:
        pair.check(text, target_token=target)


def test_target_token_zero_falls_back_to_the_rate(pair: Pair) -> None:
    for text in texts(7, 5):
        pair.check(text, target_token=0, rate=0.4)


CONTEXT_OPTIONS: tuple[dict[str, Any], ...] = (
    {"rate": 0.5},
    {"rate": 0.3, "token_to_word": "first"},
    {"rate": 0.5, "use_token_level_filter": False},
    {"rate": 0.4, "target_context": 2},
    {"rate": 0.4, "target_context": 0},
    {"rate": 0.4, "target_context": 100},
    {"rate": 0.6, "context_level_rate": 0.45},
    {"rate": 0.6, "context_level_target_token": 40},
    {"rate": 0.6, "context_level_target_token": 10**6},
    {"target_token": 60},
    {"target_token": 60, "use_token_level_filter": False},
    {"target_token": 60, "context_level_rate": 0.7},
    {"target_token": 10**6},
    {"target_token": 60, "force_tokens": ["The answer is", "min", "?"]},
    {"rate": 0.5, "target_context": 1, "force_context_ids": [0, 3]},
    {"rate": 0.5, "force_context_ids": None},
    {"rate": 0.5, "force_tokens": ["The answer is", "\n", "."], "force_reserve_digit": True, "drop_consecutive": True},
    {"rate": 1.0, "target_context": 2},
    {"rate": 1.7},
)


@pytest.mark.parametrize("options", CONTEXT_OPTIONS, ids=str)
def test_context_filter(pair: Pair, options: dict[str, Any]) -> None:
    for seed in range(4):
        contexts = [*texts(10 + seed, 4, longest=40), *texts(20 + seed, 1, longest=300)]
        before = list(contexts)
        pair.check(contexts, use_context_level_filter=True, **options)
        assert contexts == before


def test_context_scores_take_the_first_pieces_value_for_all(pair: Pair) -> None:
    pieces = [w for w in PROSE.split() if len(pair.ours.tokenizer.encode(w, add_special_tokens=False)) > 2]
    (words,) = pair.ours.words([" ".join(pieces)], pair.ours.force(()), LegacySettings())
    (first,) = pair.ours.words([" ".join(pieces)], pair.ours.force(()), LegacySettings(token_to_word="first"))
    np.testing.assert_allclose(words.free, first.p, rtol=1e-6)
    assert np.abs(words.p - words.free).max() > 0.01


def test_several_contexts_without_filter(pair: Pair) -> None:
    for seed in range(8):
        pair.check([*texts(30 + seed, 3), ""], rate=0.5)
        pair.check(texts(40 + seed, 3), target_token=30, use_token_level_filter=bool(seed % 2))


@pytest.mark.parametrize("rate", [1.0, 1.5])
def test_rate_of_one_or_more(pair: Pair, rate: float) -> None:
    for text, force in product([*texts(8, 10), of_length(pair, 1023, True)], FORCE):
        pair.check(text, rate=rate, force_tokens=list(force))


@pytest.mark.parametrize("ends", [["."], [], ["\n", "."], ["the", "▁the", "?"]])
def test_chunk_end_tokens(pair: Pair, ends: list[str]) -> None:
    text = "\n".join(texts(9, 25))
    for force in FORCE:
        pair.check(text, rate=0.5, chunk_end_tokens=ends, force_tokens=list(force))


def test_strange_strings(pair: Pair) -> None:
    for text, rate in product(("", " ", *(f"The {s}the {s} end. {s}" for s in STRANGE)), (0.2, 0.5, 1.0)):
        pair.check(text, rate=rate)


def test_force_tokens_of_every_kind(pair: Pair) -> None:
    lists = (
        ["a", "a"],
        ["min", "minute", "10-minute"],
        ["[NEW0]"],
        ["#", "##"],
        ["."] * 100,
        ["é", "🎉"],
        ["1"],
        ["+,-"],
    )
    for force, text, drop in product(lists, texts(11, 4), (False, True)):
        pair.check(text + " min.. . 10-minute 1 # a a +,-", rate=0.3, force_tokens=force, drop_consecutive=drop)


def test_rates_near_the_edges(pair: Pair) -> None:
    for rate, text in product((0.004, 0.011, 0.99, 0.995, 0.9999), texts(12, 4)):
        pair.check(text, rate=rate, force_tokens=["."])


def test_real_texts(pair: Pair) -> None:
    samples = list(_samples(12))
    if not samples:
        pytest.skip("no sample data beside the checkout")
    for text, rate in product(samples, (0.33, 0.5)):
        pair.check(text[:6000], rate=rate, force_tokens=["\n", ".", "?"], drop_consecutive=True)


def _samples(number: int) -> Iterator[str]:
    folder = Path(__file__).parents[2] / "shared" / "data" / "text"
    for file in sorted(folder.glob("*.jsonl.gz")):
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            for _, line in zip(range(number // 4), lines, strict=False):
                yield max((v for v in json.loads(line).values() if isinstance(v, str)), key=len, default="")


@pytest.fixture(scope="module")
def exported(pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reference's model, aliases and all, as an ONNX folder of ours in float32."""
    pytest.importorskip("onnx")
    source = tmp_path_factory.mktemp("source") / Path(pair.reference.model_name).name
    pair.reference.model.save_pretrained(source)
    pair.reference.tokenizer.save_pretrained(source)
    return export(source, tmp_path_factory.mktemp("exported"), int8=False)


def test_onnx_runtime_decides_the_same(pair: Pair, exported: Path) -> None:
    model = load_folder(exported, threads=1)
    ours = Watched(model.tokenizer, model.encoder, count)
    through = Pair(pair.reference, ours, ours, pair.cases)
    for text in [*texts(13, 20), of_length(pair, 1023, True)]:
        through.check(text, rate=0.5, force_tokens=["The answer is"])


def test_the_drop_in_returns_what_the_package_returns(pair: Pair, exported: Path) -> None:
    ours = PromptCompressor(str(exported), use_llmlingua2=True, legacy=True, counter=count)
    contexts = texts(14, 4)
    more = {"force_tokens": [".", "The answer is"], "return_word_label": True}
    for options in ({"rate": 0.4}, {"target_token": 50, **more}, {"rate": 1}):
        assert ours.compress_prompt(contexts, **options) == pair.reference.compress_prompt(contexts, **options)
    for text in contexts:
        assert ours.get_token_length(text) == pair.reference.get_token_length(text)


# Where the reference crashes


def crashes(pair: Pair, context: Any, **options: Any) -> bool:
    """Does the reference fall over?"""
    try:
        pair.theirs(context, **options)
    except (ValueError, IndexError, ZeroDivisionError, AssertionError, NotImplementedError):
        return True
    return False


def test_any_string_gives_what_the_reference_gives_or_a_defined_result(pair: Pair) -> None:
    rng = random.Random(15)
    for _ in range(150):
        wide = [chr(rng.choice([rng.randrange(0x250), rng.randrange(0xD800), rng.randrange(0xE000, 0x11000)]))]
        text = "".join(rng.choice((" ", "the", "#", "\u2581", ".", *wide)) for _ in range(rng.randrange(1, 30)))
        options: dict[str, Any] = {"rate": 0.5, "force_tokens": [rng.choice(".#x"), rng.choice((" ", "\n", "e #"))]}
        if crashes(pair, text, **options):
            assert len(pair.ours.compress(text, LegacySettings(**options)).texts) == 1
        else:
            pair.check(text, **options)


@pytest.mark.parametrize(
    ("context", "options"),
    [
        ("The answer is no.", {"rate": 0}),
        ("The answer is no.", {"rate": -1}),
        ("The answer is no.", {"token_to_word": "max"}),
        ("The answer is no.", {"force_tokens": ["."] * 101}),
        ([], {"use_context_level_filter": True}),
        (["The answer is no.", ""], {"use_context_level_filter": True}),
        (["The answer is no.", "So it was."], {"use_context_level_filter": True, "target_token": 0}),
        (["The answer is no.", "So it was."], {"use_context_level_filter": True, "rate": 1, "context_level_rate": 1.5}),
        (["The answer is no.", "So it was."], {"use_context_level_filter": True, "context_level_rate": -0.5}),
    ],
)
def test_a_crash_of_the_reference_is_one_typed_error_here(pair: Pair, context: Any, options: dict[str, Any]) -> None:
    assert crashes(pair, context, **options)
    with pytest.raises(InputError):
        pair.ours.compress(context, LegacySettings(**options))


def test_a_chunk_without_words_is_empty(pair: Pair) -> None:
    strange = "東京都" if pair.ours.family.mark == "##" else "<unk>"
    assert crashes(pair, strange)
    assert pair.ours.compress(strange).texts == [""]


def test_an_empty_text_with_a_target_is_empty(pair: Pair) -> None:
    assert crashes(pair, "", target_token=5)
    assert pair.ours.compress("", LegacySettings(target_token=5)).report()["compressed_prompt"] == ""


def test_a_lone_surrogate_is_refused(pair: Pair) -> None:
    with pytest.raises(InputError, match="lone surrogate"):
        pair.ours.compress("a\ud800b")


def test_a_missing_alias_is_refused_with_a_remedy(tmp_path: Path) -> None:
    tokenizer = tiny.wordpiece([PROSE])
    ours = LegacyCompressor(tokenizer, TorchEncoder(None), count)
    with pytest.raises(InputError, match=r"\[NEW1\].*force single pieces"):
        ours.compress("x", LegacySettings(force_tokens=[".", "The answer is"]))


def test_aliases_are_added_where_the_model_has_rows_for_them() -> None:
    tokenizer = tiny.wordpiece([PROSE])
    size = tokenizer.get_vocab_size()
    assert with_aliases(tokenizer, size) is tokenizer
    wider = with_aliases(tokenizer, size + 100)
    assert [wider.token_to_id("[NEW0]"), wider.token_to_id("[NEW99]")] == [size, size + 99]
    assert wider.encode("a [NEW7] b", add_special_tokens=False).tokens[1] == "[NEW7]"
    assert tokenizer.token_to_id("[NEW0]") is None


def test_other_tokenizers_are_refused() -> None:
    with pytest.raises(ModelError, match="BPE"):
        Family.of(Tokenizer(models.BPE()))


def test_a_tokenizer_that_truncates_is_read_in_full() -> None:
    tokenizer = tiny.wordpiece([PROSE])
    tokenizer.enable_truncation(5)
    tokenizer.enable_padding()
    ours = LegacyCompressor(tokenizer, TorchEncoder(None), count)
    assert len(ours.encode(PROSE)[0]) > 100
    assert tokenizer.truncation is not None
