"""Names and folders become models; what is damaged or foreign becomes one error that says what to do."""

from __future__ import annotations

import json
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata

import pytest

import families
from laconic import hub
from laconic.errors import MissingExtraError, ModelError
from laconic.export import export


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of its own, and no network."""
    monkeypatch.setenv("LACONIC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def originals(tmp_path_factory):
    """A checkpoint and the model made of it, only to be copied."""
    folder = tmp_path_factory.mktemp("hub")
    checkpoint = families.build_bert(folder / "checkpoint", families.TEXTS)
    return checkpoint, export(checkpoint, folder / "model")


@pytest.fixture
def checkpoint(originals, tmp_path):
    return shutil.copytree(originals[0], tmp_path / "checkpoint")


@pytest.fixture
def model(originals, tmp_path):
    return shutil.copytree(originals[1], tmp_path / "model")


def test_a_model_folder_loads_with_its_manifest(model):
    loaded = hub.load_folder(model)
    assert loaded.path == model
    assert (loaded.manifest.keep_label, loaded.manifest.window, loaded.manifest.pooling) == (1, 192, "mean")
    assert loaded.tokenizer.truncation is None
    assert loaded.tokenizer.padding is None


def test_truncation_and_padding_of_the_tokenizer_are_switched_off(checkpoint):
    from tokenizers import Tokenizer

    path = str(checkpoint / "tokenizer.json")
    tokenizer = Tokenizer.from_file(path)
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=32)
    tokenizer.save(path)
    assert len(hub.load_folder(checkpoint).tokenizer.encode("the pier " * 20).ids) > 32


def test_a_manifest_survives_a_round_trip(tmp_path):
    files = {"model.onnx": "0" * 64, "tokenizer.json": "1" * 64}
    manifest = hub.Manifest("m", "model.onnx", 256, 0, files, True, languages=("en", "de"), scores={"f1": 0.8})
    manifest.write(tmp_path)
    assert hub.Manifest.read(tmp_path) == manifest


def test_a_checkpoint_is_exported_once(checkpoint, cache, monkeypatch):
    first = hub.load_folder(checkpoint)
    monkeypatch.setitem(sys.modules, "torch", None)
    again = hub.load_folder(checkpoint)
    assert first.path == again.path
    assert first.path.parent == cache / "exported"
    assert [p.name for p in (cache / "exported").iterdir()] == [first.path.name]


def test_the_cache_is_keyed_by_content_not_by_name(checkpoint, tmp_path):
    moved = shutil.copytree(checkpoint, tmp_path / "elsewhere")
    assert hub.load_folder(checkpoint).path == hub.load_folder(moved).path
    families.build_bert(checkpoint, families.TEXTS, seed=1)
    assert hub.load_folder(checkpoint).path != hub.load_folder(moved).path


def test_loading_at_the_same_time_is_safe(checkpoint, cache):
    with ThreadPoolExecutor(2) as pool:
        paths = {m.path for m in pool.map(hub.load_folder, [checkpoint, checkpoint])}
    assert [p.name for p in (cache / "exported").iterdir()] == [paths.pop().name]


@pytest.mark.parametrize("name", ["model.onnx", "onnx/model_quantized.onnx"])
def test_a_checkpoint_with_onnx_needs_no_torch(checkpoint, model, monkeypatch, name):
    monkeypatch.setitem(sys.modules, "torch", None)
    (checkpoint / "model.safetensors").unlink()
    (checkpoint / name).parent.mkdir(exist_ok=True)
    shutil.copy(model / "model.int8.onnx", checkpoint / name)
    assert hub.load_folder(checkpoint).manifest.model == name


def test_a_checkpoint_without_torch_names_the_extra(checkpoint, monkeypatch, cache):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r"laconic\[torch\]"):
        hub.load_folder(checkpoint)
    assert not any((cache / "exported").iterdir())


def test_a_cache_that_cannot_be_written_is_named(checkpoint, cache):
    cache.write_text("a file in the way")
    with pytest.raises(ModelError, match="LACONIC_CACHE"):
        hub.load_folder(checkpoint)


@pytest.mark.parametrize("kind", families.BUILDERS)
def test_window_and_label_come_from_the_config(kind, tmp_path):
    folder = families.BUILDERS[kind](tmp_path / "model", families.TEXTS)
    manifest = hub.Manifest.of_config(folder)
    assert manifest.window == {"bert": 192}.get(kind, 512)
    assert manifest.keep_label == (0 if kind == "modernbert" else 1)
    families.edit_json(folder / "tokenizer_config.json", model_max_length=128)
    assert hub.Manifest.of_config(folder).window == 128


@pytest.mark.parametrize(
    ("labels", "keep"),
    [({"0": "KEEP", "1": "drop"}, 0), ({"0": "LABEL_0", "1": "LABEL_1"}, 1), ({"0": "O", "1": "preserve"}, 1)],
)
def test_the_keep_class_is_found_by_its_label(checkpoint, labels, keep):
    families.edit_json(checkpoint / "config.json", id2label=labels)
    assert hub.Manifest.of_config(checkpoint).keep_label == keep


@pytest.mark.parametrize("labels", [["neg", "pos"], ["O", "B-PER", "I-PER"], ["keep"], ["keep", "keep"]])
def test_other_labels_are_foreign(checkpoint, labels):
    families.edit_json(checkpoint / "config.json", id2label=dict(enumerate(labels)))
    with pytest.raises(ModelError, match="id2label"):
        hub.load_folder(checkpoint)


@pytest.mark.parametrize("architectures", [["LlamaForCausalLM"], ["BertModel"], [], None])
def test_other_architectures_are_foreign(checkpoint, architectures):
    families.edit_json(checkpoint / "config.json", architectures=architectures)
    with pytest.raises(ModelError, match="needs a token classifier"):
        hub.load_folder(checkpoint)


def test_a_graph_with_other_classes_is_foreign(model):
    from onnx import TensorProto, helper, save

    nodes = [
        helper.make_node("Unsqueeze", ["input_ids", "last"], ["x"]),
        helper.make_node("Cast", ["x"], ["logits"], to=TensorProto.FLOAT),
    ]
    ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["b", "t"])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)
    last = helper.make_tensor("last", TensorProto.INT64, [1], [2])
    graph = helper.make_graph(nodes, "g", [ids], [logits], [last])
    path = model / "model.int8.onnx"
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    change(model, files={**hub.Manifest.read(model).files, path.name: hub.sha256(path)})
    with pytest.raises(ModelError, match="1 classes"):
        hub.load_folder(model)


def change(folder, **changes):
    families.edit_json(folder / "laconic.json", **changes)


@pytest.mark.parametrize(
    ("changes", "advice"),
    [
        ({"format": 2}, "upgrade laconic"),
        ({"kind": "causal-lm"}, "upgrade laconic"),
        ({"kind": None}, "upgrade laconic"),
        ({"window": 3}, "window must be"),
        ({"window": 10**9}, "window must be"),
        ({"window": "512"}, "window must be"),
        ({"window": None}, "incomplete"),
        ({"keep_label": 2}, "keep_label must be"),
        ({"keep_label": True}, "keep_label must be"),
        ({"pooling": "max"}, "pooling must be"),
        ({"files": {}}, "files must hold"),
        ({"files": ["model.int8.onnx"]}, "files must"),
        ({"files": {"../../secret": "0", "tokenizer.json": "0"}, "model": "../../secret"}, "inside the folder"),
        ({"languages": 5}, "incomplete"),
        ({"model": 7}, "files must hold"),
    ],
)
def test_a_manifest_that_says_nonsense_is_refused(model, changes, advice):
    change(model, **changes)
    with pytest.raises(ModelError, match=advice):
        hub.load_folder(model)


def test_what_a_later_laconic_may_add_is_ignored(model):
    change(model, colour="green")
    assert hub.load_folder(model).manifest.window == 192


@pytest.mark.parametrize("name", ["model.int8.onnx", "tokenizer.json"])
def test_changed_and_missing_files_are_named(model, name):
    path = model / name
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelError, match="SHA-256"):
        hub.load_folder(model)
    path.unlink()
    with pytest.raises(ModelError, match=f"lacks {name}"):
        hub.load_folder(model)


@pytest.mark.parametrize("content", ["", "{", "[1]", "null", "\x00", '"text"'])
@pytest.mark.parametrize("name", ["laconic.json", "config.json"])
def test_files_that_are_not_json_objects_are_named(tmp_path, name, content):
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(ModelError, match=name.replace(".", r"\.")):
        hub.load_folder(tmp_path)


def test_a_broken_tokenizer_is_named(checkpoint):
    (checkpoint / "tokenizer.json").write_text(json.dumps({"model": {"type": "none"}}))
    with pytest.raises(ModelError, match="not a tokenizer"):
        hub.load_folder(checkpoint)


def test_pickles_are_refused_without_torch(checkpoint, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    (checkpoint / "model.safetensors").rename(checkpoint / "pytorch_model.bin")
    with pytest.raises(ModelError, match="convert it to safetensors"):
        hub.load_folder(checkpoint)


def test_an_empty_folder_and_a_file_are_named(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="holds no model"):
        hub.load_folder(tmp_path / "empty")
    (tmp_path / "m.onnx").write_bytes(b"")
    with pytest.raises(ModelError, match="is a file; pass the folder"):
        hub.load_folder(tmp_path / "m.onnx")


@pytest.mark.parametrize("name", ["laconic-smal", "Laconic_small"])
def test_a_misspelt_name_is_corrected(name):
    with pytest.raises(ModelError, match="did you mean 'laconic-small'"):
        hub.load_folder(name)


@pytest.mark.parametrize("name", ["", "no such thing", "../nowhere", "a/b/c"])
def test_an_unknown_name_lists_what_is_known(name):
    with pytest.raises(ModelError, match="laconic-small"):
        hub.load_folder(name) if name else hub.load_folder("zzz")


class Hub:
    """Stands in for huggingface_hub: what is at hand, and what the network gives."""

    def __init__(self, monkeypatch, local=None, remote=None):
        import huggingface_hub

        self.calls, self.local, self.remote = [], local, remote
        monkeypatch.setattr(huggingface_hub, "snapshot_download", self)

    def __call__(self, name, allow_patterns, ignore_patterns, local_files_only=False):
        self.calls.append((name, local_files_only))
        assert not any(p.endswith((".bin", ".py", ".pkl", ".pt", "*")) for p in allow_patterns)
        found = self.local if local_files_only else self.remote
        if found is None:
            raise OSError("We couldn't connect\nto the hub")
        return str(found)


def test_a_repository_at_hand_needs_no_network(monkeypatch, checkpoint):
    fake = Hub(monkeypatch, local=checkpoint)
    hub.load_folder("org/name")
    assert fake.calls == [("org/name", True)]


def test_a_repository_is_fetched_when_only_part_of_it_is_at_hand(monkeypatch, checkpoint, tmp_path):
    fake = Hub(monkeypatch, local=tmp_path, remote=checkpoint)
    hub.load_folder("org/name")
    assert fake.calls == [("org/name", True), ("org/name", False)]


def test_a_repository_that_cannot_be_fetched_is_one_line_of_advice(monkeypatch):
    Hub(monkeypatch)
    with pytest.raises(ModelError, match="pass the folder") as caught:
        hub.load_folder("org/name")
    assert "\n" not in str(caught.value)


def test_without_the_hub_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtraError, match="torch"):
        hub.load_folder("org/name")


class Registered:
    """Stands in for an entry point."""

    def __init__(self, name, folder):
        self.name, self.folder = name, folder

    def load(self):
        return lambda: self.folder


def test_third_parties_register_names(monkeypatch, model):
    monkeypatch.setattr(metadata, "entry_points", lambda group: [Registered("theirs", str(model))])
    assert hub.names() == ["laconic-small", "laconic-nano", "theirs"]
    assert hub.load_folder("theirs").path == model
    row = hub.models()[2]
    assert (row["name"], row["window"], row["path"]) == ("theirs", 192, str(model))
    assert row["bytes"] == (model / "model.int8.onnx").stat().st_size


def test_a_third_party_that_fails_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(metadata, "entry_points", lambda group: [Registered("theirs", 5), Registered("b", tmp_path)])
    with pytest.raises(ModelError, match="'theirs' failed"):
        hub.load_folder("theirs")
    assert [bool(row.get("problem")) for row in hub.models()[2:]] == [True, True]


def test_nothing_in_a_name_matters(model, tmp_path):
    renamed = model.rename(tmp_path / "xlm-roberta-bert-llama")
    assert hub.load_folder(renamed).manifest.window == 192
