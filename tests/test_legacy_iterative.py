"""Parity of `laconic.legacy.iterative` with the methods of llmlingua 0.2.2 that still run.

Its `iterative_compress_prompt` fails with transformers 5 from the second window on (it unpacks the cache as a list of
pairs), so the loop as a whole is left out; what it decides by is here, over random and boundary cases.
"""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    torch = pytest.importorskip("torch")
    package = pytest.importorskip("llmlingua", reason="the reference package")

from laconic.legacy import iterative as ours

lengths = st.lists(st.one_of(st.integers(0, 450), st.sampled_from([197, 198, 199, 398])), min_size=1, max_size=8)


@pytest.fixture(scope="module")
def reference():
    """The package's object without its model; a context's text says its length in tokens."""
    made = object.__new__(package.PromptCompressor)
    made.get_token_length = lambda text, *_: int(text)
    made.context_idxs = []
    return made


@settings(max_examples=500, deadline=None)
@given(st.lists(st.floats(0, 20, width=32), min_size=1, max_size=60), st.one_of(st.floats(0, 1), st.just(1.0)))
def test_thresholds(reference, losses, ratio):
    expected = reference.get_estimate_threshold_base_distribution(torch.tensor(losses), ratio)
    assert ours.threshold(np.array(losses, np.float32), ratio) == expected


def test_masked_losses_do_not_count(reference):
    losses = np.array([3, 10000, 1, 2, 10000], np.float32)
    assert ours.threshold(losses, 0.7) == 2
    assert reference.get_estimate_threshold_base_distribution(torch.tensor(losses), 0.7) == 2


@settings(max_examples=500, deadline=None)
@given(st.lists(st.floats(0, 9, width=32), min_size=1, max_size=60), st.floats(0.05, 1))
def test_kept_tokens(reference, losses, ratio):
    """The package's first window, as long as the text: `get_compressed_input` with its own threshold."""
    values = torch.tensor(losses)
    size = len(losses) + 1
    ids = torch.arange(size)[None]
    threshold = reference.get_estimate_threshold_base_distribution(values, ratio)
    found, *_ = reference.get_compressed_input(values, ids, torch.ones_like(ids), size, size, threshold)
    assert np.flatnonzero(ours.kept(np.array(losses, np.float32), ratio)).tolist() == found[0].tolist()


@settings(max_examples=500, deadline=None)
@given(lengths, st.floats(0, 2000), st.data())
def test_windows(reference, lengths, target, data):
    changes = data.draw(st.lists(st.floats(-1, 1), min_size=len(lengths), max_size=len(lengths)))
    texts = [str(n) for n in lengths]
    assert ours.windows(lengths, target, 200, changes) == reference.get_dynamic_compression_ratio(
        texts, target, 200, changes, 0
    )


@settings(max_examples=500, deadline=None)
@given(
    lengths, st.floats(-5, 1500), st.sampled_from([0.0, 0.3, 0.4]), st.sampled_from(["sort", "two_stage"]), st.data()
)
def test_contexts_and_their_changes(reference, lengths, target, spread, reorder, data):
    order = data.draw(st.permutations(range(len(lengths))))
    reference.get_rank_results = lambda *_: [(k, 0.0) for k in order]
    _, expected, used = reference.control_context_budget(
        [str(n) for n in lengths], lengths, target, reorder_context=reorder, dynamic_context_compression_ratio=spread
    )
    taken = ours.taken(order, lengths, target)
    assert (ours.two_stage(taken) if reorder == "two_stage" else taken) == used
    changes = dict(zip(taken, ours.changes(len(taken), spread), strict=True))
    assert [changes[k] for k in used] == expected
