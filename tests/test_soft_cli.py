"""laconic soft: encoded once, asked many times, and one line of advice for whatever is wrong."""

from __future__ import annotations

import io
import json
import sqlite3
import subprocess
import sys

import pytest

pytest.importorskip("torch")
pytest.importorskip("peft")

import softs
from laconic.cli import main
from laconic.soft import Memory, Reader, Settings, SoftEncoder
from laconic.soft.store import MemoryStore

SETTINGS = Settings(slots=3, window=40, rank=4)
LONG = " ".join([softs.TEXT, softs.OTHER] * 3)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """An encoder whose adapter does something, its folder, and that of another one of the same base."""
    folder = tmp_path_factory.mktemp("soft")
    base = softs.base_of(folder / "base")
    encoders = [softs.shaken(SoftEncoder.create(base, SETTINGS), seed) for seed in (1, 2)]
    for encoder, name in zip(encoders, ("one", "two"), strict=True):
        encoder.save(folder / name)
    return encoders[0], folder / "one", folder / "two"


@pytest.fixture
def soft(capfdbinary, made, tmp_path, monkeypatch):
    """A command as a person types it: status, standard output, standard error."""
    monkeypatch.setenv("LACONIC_CACHE", str(tmp_path / "cache"))

    def run(command, *args, encoder=made[1]):
        given = ["--encoder", encoder] if command != "inspect" else []
        status = main(["soft", command, *map(str, args), *map(str, given)])
        out, err = capfdbinary.readouterr()
        return status, out.decode("utf-8", "surrogatepass"), err.decode()

    return run


@pytest.fixture
def files(tmp_path):
    for name, text in (("a.txt", softs.TEXT), ("b.txt", softs.OTHER), ("long.txt", LONG)):
        (tmp_path / name).write_text(text)
    return [tmp_path / name for name in ("a.txt", "b.txt", "long.txt")]


def identity(soft, file, *args):
    status, out, err = soft("encode", file, *args)
    assert (status, err) == (0, "")
    return out.split()[0]


def asked(encoder, before, question):
    return Reader(encoder.base).generate(before, f"\nQuestion: {question} Answer:").lstrip()


def test_encoded_once_and_asked_by_the_beginning_of_its_id(soft, made, files, monkeypatch):
    encoder = made[0]
    status, out, _ = soft("encode", *files[:2])
    first, second = out.splitlines()
    memory, other = encoder.encode_many([softs.TEXT, softs.OTHER])
    tokens = len(encoder.base.tokens(softs.TEXT))
    assert status == 0 and f"a.txt  {tokens} tokens, 3 slots ({tokens / 3:.1f}x)" in first and "encoded in" in first
    with monkeypatch.context() as patch:
        patch.setattr(SoftEncoder, "forward", lambda *args: pytest.fail("encoded again"))
        _, again, _ = soft("encode", *files[:2])
        assert [line.split()[0] for line in again.splitlines()] == [first.split()[0], second.split()[0]]
        assert again.count("already there") == 2
        one, two = first[:5], second.split()[0]
        status, answer, err = soft("ask", one, "What did they discuss?")
        assert status == 0 and answer == asked(encoder, memory, "What did they discuss?")
        assert err.startswith(f"3 slots read for {tokens} tokens") and err.count("\n") == 1
        assert soft("ask", two, one, "Why?")[1] == asked(encoder, [other, memory], "Why?")


def test_fewer_slots_are_another_memory(soft, files):
    assert identity(soft, files[0]) != identity(soft, files[0], "--slots", "2")
    assert soft("inspect")[1].count(" slots ") == 2


def test_the_text_again_and_json(soft, made, files):
    encoder = made[0]
    name = identity(soft, files[0])
    memory, reader = encoder.encode(softs.TEXT), Reader(encoder.base)
    assert soft("ask", name, "--again")[1] == reader.regenerate(memory)
    assert soft("ask", name, "--again", "--tokens", "3")[1] == reader.regenerate(memory, 3)
    told = json.loads(soft("ask", name, "Who?", "--tokens", "5", "--format", "json")[1])
    assert told["answer"] == reader.generate(memory, "\nQuestion: Who? Answer:", 5).lstrip()
    assert (told["question"], told["memories"], told["tokens"], told["slots"]) == ("Who?", [name], memory.tokens, 3)
    assert 0 < told["first_seconds"] <= told["seconds"]


def test_a_file_instead_of_the_store(soft, made, files, tmp_path):
    encoder, out = made[0], tmp_path / "m.safetensors"
    small = tmp_path / "small.safetensors"
    assert soft("encode", files[2], "-o", out)[0] == soft("encode", files[2], "-o", small, "--int8")[0] == 0
    memory = encoder.encode(LONG)
    assert memory.slots > 3 and Memory.load(out).state.equal(memory.state)
    assert small.stat().st_size < out.stat().st_size
    assert soft("ask", out, "What?")[1] == asked(encoder, memory, "What?")
    assert f"slots: {memory.slots}" in soft("inspect", out)[1]
    assert not (tmp_path / "cache").exists()


def test_standard_input_and_a_store_of_ones_own(soft, monkeypatch, tmp_path, files):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(softs.TEXT.encode())))
    store = ("--store", tmp_path / "mine")
    name = identity(soft, "-", *store)
    assert identity(soft, files[0], *store) == name  # what a memory is of counts, not where it came from
    assert [p.name for p in (tmp_path / "mine").glob("*.sqlite")] == ["memories.sqlite"]
    assert soft("ask", name, "Who?", *store)[0] == 0


def test_inspect_lists_and_shows(soft, made, files):
    status, out, _ = soft("encode", *files[:2])
    status, out, err = soft("inspect")
    assert (status, err) == (0, "") and "a.txt" in out and "b.txt" in out and "2 memories, " in out
    _, out, _ = soft("inspect", identity(soft, files[0]))
    facts = dict(line.split(": ") for line in out.splitlines())
    assert facts["mode"] == "kv" and facts["slots"] == "3" and facts["adapter"] == made[0].made.adapter
    assert facts["numbers"] == "2x2x2x3x8 torch.float32"


def test_names_drive_no_terminal_and_questions_need_not_be_text(soft, tmp_path):
    file = tmp_path / "a\x1b[2J.txt"
    file.write_text(softs.TEXT)
    name = identity(soft, file)
    assert "a␛[2J.txt" in soft("inspect")[1]
    status, out, _ = soft("ask", name, "\udcff?", "--format", "json")
    assert status == 0 and json.loads(out)["question"] == "\udcff?"


def damage(tmp_path, slots):
    with sqlite3.connect(tmp_path / "cache" / "memories" / "memories.sqlite") as database:
        query = "UPDATE contents SET data = zeroblob(9) WHERE key IN (SELECT key FROM memories WHERE slots = ?)"
        assert database.execute(query, (slots,)).rowcount == 1
    database.close()


def test_a_damaged_memory_is_removed_and_encoded_again(soft, files, tmp_path):
    name, other = identity(soft, files[0]), identity(soft, files[1], "--slots", "2")
    damage(tmp_path, 3)
    status, out, err = soft("ask", name, "Who?")
    assert (status, out, err.count("\n")) == (2, "", 1) and "damaged and is removed; encode" in err
    assert "encoded in" in soft("encode", files[0])[1]
    damage(tmp_path, 3)
    status, out, _ = soft("inspect", "--check")
    lines = out.splitlines()
    assert status == 0 and lines[0].startswith(f"{name}  ") and "removed" in lines[0]
    assert [line.split()[0] for line in lines[1:]] == [other, "1"]


def test_ids_that_are_unknown_or_begin_several(soft, files, tmp_path):
    status, _, err = soft("ask", "ab", "Who?")
    assert status == 2 and "no memories in" in err and not (tmp_path / "cache").exists()
    identity(soft, files[0])
    for name in ("none", "%", "_", ""):
        status, _, err = soft("ask", name, "Who?")
        assert status == 2 and f"no memory {name!r}" in err and "laconic soft inspect" in err
    with MemoryStore(tmp_path / "cache" / "memories", 1 << 30) as store:
        for key in ("xy1", "xy2"):
            store.put(key, b"", label=key, tokens=1, slots=1)
    status, _, err = soft("ask", "xy", "Who?")
    assert status == 2 and "2 memories begin with 'xy': xy1, xy2" in err


def test_another_encoder_reads_nothing_of_this_one(soft, made, files):
    name = identity(soft, files[0])
    status, out, err = soft("ask", name, "Who?", encoder=made[2])
    assert (status, out) == (2, "") and f"{name} was made with another adapter" in err
    status, out, _ = soft("encode", files[0], encoder=made[2])
    assert "encoded in" in out and out.split()[0] != name


def test_another_base_is_refused(soft, made, files, tmp_path):
    other = softs.build(tmp_path / "other", seed=5)
    status, _, err = soft("encode", files[0], "--base", other)
    assert status == 2 and "was made with another base model or revision" in err


def test_a_long_text_is_refused_if_told_even_if_its_memory_is_at_hand(soft, files):
    identity(soft, files[2])
    status, out, err = soft("encode", files[2], "--no-chunks")
    assert (status, out) == (2, "") and "long.txt has" in err and "trained on up to 40; allow chunks" in err


def test_an_edited_file_is_refused(soft, files, tmp_path):
    out = tmp_path / "m.safetensors"
    soft("encode", files[0], "-o", out)
    data = bytearray(out.read_bytes())
    data[-1] ^= 1
    out.write_bytes(data)
    status, _, err = soft("ask", out, "Who?")
    assert status == 2 and "SHA-256" in err


@pytest.mark.parametrize(
    ("args", "advice"),
    [
        (("encode", "a.txt", "--slots", "0"), "slots must be from 1 to 3"),
        (("encode", "a.txt", "--slots", "4"), "slots must be from 1 to 3"),
        (("encode", "empty.txt"), "empty.txt has no tokens"),
        (("encode", "none.txt"), "no file"),
        (("encode", "a.txt", "b.txt", "-o", "m.safetensors"), "-o takes one FILE, got 2"),
        (("encode", "a.txt", "-o", "m.bin"), "must end in .safetensors"),
        (("encode", "a.txt", "-o", "none/m.safetensors"), "cannot be written"),
        (("encode", "a.txt", "--int8"), "pass -o OUT.safetensors with it"),
        (("encode", "a.txt", "-o", "m.safetensors", "--store", "s"), "not allowed with argument"),
        (("encode", "a.txt", "--limit", "0"), "--limit must be 1 GB or more, got 0"),
        (("encode", "a.txt", "--store", "a.txt"), "cannot be the store of memories"),
        (("ask", "Who?"), "pass a memory and a question, or --again, got 'Who?' alone"),
        (("ask", "one", "two", "--again"), "--again takes one memory and no question, got 2 values"),
        (("ask", "one", "Who?", "--tokens", "0"), "--tokens must be 1 or more, got 0"),
        (("ask", "none.safetensors", "Who?"), "cannot be read as a memory"),
        (("inspect", "--store", "none"), "no memories in none"),
    ],
)
def test_wrong_use_gets_one_helpful_line_and_leaves_nothing(soft, files, tmp_path, monkeypatch, args, advice):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.txt").write_text("")
    before = sorted(tmp_path.iterdir())
    status, out, err = soft(*args)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert advice in err
    assert sorted(p for p in tmp_path.iterdir() if p.name != "cache") == before


def test_an_encoder_is_needed(capfdbinary, tmp_path):
    assert main(["soft", "ask", "ab", "Who?", "--encoder", str(tmp_path)]) == 2
    assert main(["soft", "encode", str(tmp_path / "none"), "--encoder", str(tmp_path)]) == 2
    assert main(["soft", "ask", "ab", "Who?"]) == 2
    assert "required: --encoder" in capfdbinary.readouterr().err.decode()


def test_two_processes_fill_one_store(soft, made, files, tmp_path):
    command = [sys.executable, "-m", "laconic.cli", "soft", "encode", "--encoder", made[1], "--store", tmp_path / "s"]
    order = [files, files[::-1]]
    running = [subprocess.Popen([*command, *some], stdout=-1, stderr=-1, text=True) for some in order]
    told = [process.communicate() for process in running]
    assert [process.returncode for process in running] == [0, 0], told
    names = [dict(line.split()[1::-1] for line in out.splitlines()) for out, _ in told]
    assert names[0] == names[1]
    out = soft("inspect", "--check", "--store", tmp_path / "s")[1]
    assert "3 memories" in out and "removed" not in out


def test_listing_needs_no_torch(soft, files, tmp_path):
    identity(soft, files[0])
    code = "import sys; from laconic.cli import main; main(sys.argv[1:]); print('torch' in sys.modules)"
    command = [sys.executable, "-c", code, "soft", "inspect", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
