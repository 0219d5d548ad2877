"""Training with a base that is split over two processes: the same numbers as with the whole base in each."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("peft")
torch = pytest.importorskip("torch")

import softs  # noqa: E402
from laconic.cli import main  # noqa: E402
from laconic.soft import Base, Reader, SoftEncoder, Tuned  # noqa: E402

MODES = ("kv", "embedding", "full")
LAYERS = 4
OPTIONS = ["--rank", "4", "--targets", "q_proj,k_proj,v_proj,up_proj", "--window", "48", "--dropout", "0.1"]
OPTIONS += ["--steps", "3", "--batch", "2", "--lr", "1e-2", "--warmup", "2", "--save-every", "2", "--distil", "0.5"]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return softs.build(tmp_path_factory.mktemp("base"), max_position_embeddings=256, num_hidden_layers=LAYERS)


@pytest.fixture(scope="module")
def half(base, tmp_path_factory):
    """The same base in bfloat16, as most are."""
    from transformers import AutoModelForCausalLM

    folder = shutil.copytree(base, tmp_path_factory.mktemp("half") / "base")
    AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    path, random = tmp_path_factory.mktemp("texts") / "texts.jsonl", np.random.default_rng(0)
    rows = [" ".join(random.choice(softs.TEXT.split(), 10)) for _ in range(8)]
    asked = {"question": "Who met?", "answer": "committee"}
    path.write_text("".join(json.dumps({"text": t, **(asked if k % 2 else {})}) + "\n" for k, t in enumerate(rows)))
    return path


@pytest.fixture(scope="module")
def runs(base, half, texts, tmp_path_factory):
    """Folders of all runs of this file, by name."""
    folder, jobs = tmp_path_factory.mktemp("runs"), []

    def job(name, model, how, *more, mode="kv"):
        slots = [] if mode == "full" else ["--slots", "1", "--slots", "3"]
        command = ["train", "soft", str(texts), "--dev", str(texts), "--base", str(model), "-o", str(folder / name)]
        jobs.append([[*command, *OPTIONS, "--mode", mode, *slots, *more], how])

    for mode in MODES:
        job(f"{mode} ddp", half, "ddp", mode=mode)
        job(f"{mode} shard", half, "as-saved", "--shard", mode=mode)
        job(f"{mode} shard again", half, "as-saved", "--shard", "--checkpointing", mode=mode)
    job("kv whole", half, "as-saved")
    job("float32 ddp", base, "ddp")
    job("float32 shard", base, "", "--shard")
    job("float32 killed", base, "stop", "--shard")
    job("float32 killed", base, "", "--shard")
    (folder / "jobs.json").write_text(json.dumps(jobs))
    script = Path(__file__).parent / "sharded.py"
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script), "jobs.json"]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, *command], cwd=folder, capture_output=True, text=True, env=env, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    (folder / "said.txt").write_text(done.stdout)
    return folder


def seen(folder):
    return [json.loads((folder / f"seen-{rank}.json").read_text()) for rank in (0, 1)]


def weights(folder):
    from safetensors.torch import load_file

    return {k: t for path in sorted((folder / "checkpoint").glob("*.safetensors")) for k, t in load_file(path).items()}


@pytest.mark.parametrize(
    ("sharded", "whole"),
    [(f"{mode} {how}", f"{mode} ddp") for mode in MODES for how in ("shard", "shard again")]
    + [("kv whole", "kv ddp"), ("float32 shard", "float32 ddp")],
)
def test_losses_and_weights_are_those_of_ddp(runs, sharded, whole):
    for mine, theirs in zip(seen(runs / sharded), seen(runs / whole), strict=True):
        assert mine["losses"] == pytest.approx(theirs["losses"], rel=1e-5) and len(mine["losses"]) == 3
    one, two = seen(runs / sharded)
    assert one["losses"] != two["losses"]  # each its own contexts
    mine, theirs = weights(runs / sharded), weights(runs / whole)
    assert mine.keys() == theirs.keys()
    for name, tensor in theirs.items():
        torch.testing.assert_close(mine[name], tensor, rtol=1e-4, atol=1e-5)
    histories = [json.loads((runs / name / "run.json").read_text())["history"] for name in (sharded, whole)]
    assert histories[0][-1] == pytest.approx(histories[1][-1], abs=1e-3)


@pytest.mark.parametrize("mode", MODES)
def test_a_process_keeps_half_of_the_layers_and_has_one_whole_at_a_time(runs, half, mode):
    layers = sum(p.nbytes for p in Base.load(half, "cpu", as_saved=True).body.layers.parameters())
    for whole, sharded in zip(seen(runs / f"{mode} ddp"), seen(runs / f"{mode} shard"), strict=True):
        assert whole["bytes"] - sharded["bytes"] == pytest.approx(layers / 2, rel=0.02)
        assert sharded["whole"] == 1


@pytest.mark.parametrize("mode", MODES)
def test_the_checkpoint_is_the_same_as_ever(runs, mode):
    loaded = (Tuned if mode == "full" else SoftEncoder).load(runs / f"{mode} shard" / "checkpoint")
    assert loaded.settings.mode == mode and all(p.dtype == torch.float32 for p in loaded.trained())
    if mode != "full":
        assert Reader(loaded.base).nll(loaded.encode(softs.TEXT), softs.TEXT).mean() > 0


def test_a_killed_run_goes_on_to_the_same_weights(runs):
    assert (runs / "said.txt").read_text().count(
        str(runs / "float32 killed" / "checkpoint")
    ) == 1  # one process says it
    whole, parts = seen(runs / "float32 shard"), seen(runs / "float32 killed")
    assert [rank["losses"][2:] for rank in whole] == [rank["losses"] for rank in parts]
    for name in ("adapter_model.safetensors", "memory.safetensors"):
        files = [(runs / run / "checkpoint" / name).read_bytes() for run in ("float32 shard", "float32 killed")]
        assert files[0] == files[1]


def test_one_process_has_nothing_to_share(base, texts, tmp_path, capsys):
    command = ["train", "soft", str(texts), "--base", str(base), "-o", str(tmp_path / "out"), "--shard"]
    assert main(command) == 2
    assert "there is 1; start more (accelerate launch), or leave it out" in capsys.readouterr().err


def test_accelerates_own_fsdp_is_refused(base, texts, tmp_path, capsys, monkeypatch):
    import accelerate

    kind = accelerate.DistributedType.FSDP
    monkeypatch.setattr(accelerate.Accelerator, "distributed_type", property(lambda self: kind))
    assert main(["train", "soft", str(texts), "--base", str(base), "-o", str(tmp_path / "out")]) == 2
    assert "accelerate is set up for FSDP; leave that out" in capsys.readouterr().err
