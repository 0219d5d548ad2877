"""Memories on disk: found again, whole, within the limit, whatever happens to the disk or to the processes."""

from __future__ import annotations

import random
import resource
import sqlite3
import subprocess
import sys
import time

import pytest

from laconic.errors import InputError
from laconic.soft.store import MemoryStore, memory_key


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "new" / "memories"


def put(store, key, data, **given):
    store.put(key, data, **{"label": "a.txt", "tokens": 500, "slots": 16, **given})


def keys(store):
    return [entry.key for entry in store.entries()]


def test_a_memory_is_found_again_by_another_store(folder):
    data = bytes(range(256)) * 5000
    with MemoryStore(folder, 1 << 24) as store:
        assert store.get("k") is None and store.entries() == []
        put(store, "k", data)
        assert store.get("k") == data
    with MemoryStore(folder, 1 << 24) as store:
        assert store.get("k") == data and store.get("other") is None


def test_a_store_that_is_not_used_makes_no_file(folder):
    with MemoryStore(folder, 1):
        assert not folder.exists()


def test_entries_say_what_was_put_and_when(folder):
    with MemoryStore(folder, 1 << 20) as store:
        before = time.time()
        put(store, "k", b"abc", label="Bericht – 1.md", tokens=1234, slots=4)
        after = time.time()
        (entry,) = store.entries()
        assert (entry.key, entry.label, entry.tokens, entry.slots, entry.size) == ("k", "Bericht – 1.md", 1234, 4, 3)
        assert before - 1e-3 <= entry.created == entry.used <= after + 1e-3
        store.get("k")
        (later,) = store.entries()
        assert later.created == entry.created and entry.used < later.used <= time.time() + 1e-3


@pytest.mark.parametrize("seed", range(6))
def test_it_holds_what_a_list_by_last_use_would_hold(tmp_path, monkeypatch, seed):
    """A model of LRU: puts, again too, and gets of six keys in 10 bytes, while the clock stands still."""
    pick, held = random.Random(seed), {}  # the least recently used first
    monkeypatch.setattr(time, "time_ns", lambda: 10**18)
    with MemoryStore(tmp_path, 10) as store:
        for number in range(60):
            key, data = str(pick.randrange(6)), bytes([number]) * pick.choice([0, 1, 2, 3, 4, 5, 10])
            if pick.random() < 0.5:
                assert store.get(key) == held.get(key)
                held |= {key: held.pop(key)} if key in held else {}
            else:
                held.pop(key, None)
                while sum(map(len, held.values())) + len(data) > 10:
                    del held[next(iter(held))]
                held[key] = data
                put(store, key, data)
            assert keys(store) == list(held)[::-1]
        assert {key: store.get(key) for key in held} == held


def test_a_memory_larger_than_the_limit_is_refused_and_nothing_goes(folder):
    with MemoryStore(folder, 10) as store:
        put(store, "a", b"a" * 9)
        with pytest.raises(InputError, match="memory of 11 bytes is too large .* limit is 10"):
            put(store, "a", b"b" * 11)
        assert store.get("a") == b"a" * 9


def test_a_file_name_that_is_no_unicode_is_a_label(folder):
    with MemoryStore(folder, 9) as store:
        put(store, "k", b"abc", label="caf\udce9.txt")
        assert [entry.label for entry in store.entries()] == ["caf\ufffd.txt"]


def test_a_clock_that_is_set_back_does_not_make_the_newest_the_oldest(folder, monkeypatch):
    with MemoryStore(folder, 2) as store:
        for key, now in (("a", 3_000), ("b", 2_000), ("c", 1_000)):
            monkeypatch.setattr(time, "time_ns", lambda now=now: now)
            put(store, key, b"1")
        assert keys(store) == ["c", "b"]


def test_the_file_does_not_grow_beyond_the_limit(folder):
    with MemoryStore(folder, 1 << 20) as store:
        for k in range(40):
            put(store, str(k), bytes([k]) * 200_000)
        assert len(store.entries()) == 5
    assert sum(path.stat().st_size for path in folder.iterdir()) < 1.2 * (1 << 20)


def test_an_edited_memory_is_removed_and_the_others_stay(folder):
    with MemoryStore(folder, 1 << 24) as store:
        for name in (b"one", b"two", b"six"):
            put(store, name.decode(), name * 20_000, label=name.decode())
    file = folder / "memories.sqlite"
    whole = bytearray(file.read_bytes())
    for name in (b"two", b"six"):
        place = whole.index(name * 100) + 90
        whole[place : place + 3] = b"TWO"
    file.write_bytes(whole)
    with MemoryStore(folder, 1 << 24) as store:
        assert store.get("two") is None and keys(store) == ["six", "one"]
        assert [entry.label for entry in store.remove_damaged()] == ["six"]
        assert keys(store) == ["one"] and store.remove_damaged() == []
        assert store.get("one") == b"one" * 20_000
        put(store, "two", b"again")
        assert store.get("two") == b"again"


def test_a_memory_without_its_content_is_removed(folder):
    with MemoryStore(folder, 1 << 20) as store:
        put(store, "k", b"abc")
        database = sqlite3.connect(folder / "memories.sqlite")
        with database:
            database.execute("DELETE FROM contents")
        database.close()
        assert store.get("k") is None and store.entries() == []


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda whole: whole[:-20_000], "damaged: remove it"),
        (
            lambda whole: b"not a database, but long enough to be one " * 500,
            "file is not a database.*pass another path",
        ),
    ],
)
def test_a_file_that_cannot_be_read_is_named_and_left_alone(folder, damage, says):
    with MemoryStore(folder, 1 << 24) as store:
        for k in range(5):
            put(store, str(k), bytes([k]) * 20_000)
    file = folder / "memories.sqlite"
    file.write_bytes(damage(file.read_bytes()))
    before = file.read_bytes()
    with MemoryStore(folder, 1 << 24) as store, pytest.raises(InputError, match=f"memories.sqlite cannot be .*{says}"):
        store.remove_damaged()
    assert file.read_bytes() == before


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with MemoryStore(tmp_path / "file", 1) as store, pytest.raises(InputError, match="cannot be the store of memories"):
        store.entries()


def test_a_disk_that_takes_no_more_leaves_the_store_as_it_was(folder):
    """A limit on the size of files is a disk that is full as far as SQLite can see; then it is lifted."""
    with MemoryStore(folder, 1 << 24) as store:
        for k in range(4):
            put(store, str(k), bytes([k]) * 100_000)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (900_000, hard))
        try:
            with pytest.raises(InputError, match="cannot be the store of memories"):
                put(store, "large", b"x" * 2_000_000)
            assert keys(store) == ["3", "2", "1", "0"]
            assert [store.get(str(k)) for k in range(4)] == [bytes([k]) * 100_000 for k in range(4)]
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        put(store, "large", b"x" * 2_000_000)
    with MemoryStore(folder, 1 << 24) as store:
        assert keys(store)[0] == "large" and len(keys(store)) == 5 and store.remove_damaged() == []


def test_a_full_database_says_to_free_space(folder):
    with MemoryStore(folder, 1 << 24) as store:
        put(store, "a", b"a" * 10_000)
        with store._file.transaction() as database:
            database.execute("PRAGMA max_page_count = 20")
        with pytest.raises(InputError, match="full.*free some space"):
            put(store, "b", b"b" * 200_000)
        assert store.get("a") == b"a" * 10_000 and keys(store) == ["a"]


WRITER = """
import sys
from pathlib import Path
from laconic.soft.store import MemoryStore
name, die = sys.argv[2], sys.argv[3] == "die"
with MemoryStore(Path(sys.argv[1]), 300_000) as store:
    for k in range(30):
        store.put(f"{name}{k}", (f"{name}{k}" * 10_000).encode()[:20_000], label=name, tokens=k, slots=1)
        held = store.entries()
        assert sum(e.size for e in held) <= 300_000, held
        for e in held[:3]:
            data = store.get(e.key)  # another process may have evicted it meanwhile
            assert data is None or data == (e.key * 10_000).encode()[:20_000]
        if die and k == 20:
            with store._file.transaction() as database:
                database.execute("DELETE FROM memories")
                database.execute("DELETE FROM contents")
                import os
                os._exit(7)
"""


def test_processes_share_a_store_and_one_may_die(folder):
    """Three write at once; the third is gone in the middle of a transaction that empties the store."""
    ways = (("a", "live"), ("b", "live"), ("c", "die"))
    running = [subprocess.Popen([sys.executable, "-c", WRITER, str(folder), *way]) for way in ways]
    assert [p.wait() for p in running] == [0, 0, 7]
    with MemoryStore(folder, 300_000) as store:
        held = store.entries()
        assert len(held) == 15 and len({e.key for e in held}) == 15 and store.remove_damaged() == []
        assert all(store.get(e.key) == (e.key * 10_000).encode()[:20_000] for e in held)


def test_keys_tell_encoders_slots_and_contents_apart():
    given = [
        ("e", 1, "text"),
        ("e", 1, "text "),
        ("e", 11, "text"),
        ("e1", 1, "text"),
        ("e", 1, "[1, 2]"),
        ("e", 1, [1, 2]),
        ("e", 1, [12]),
        ("e", 1, "\ud800"),
        ("e", 1, "\ufffd"),
    ]
    assert len({memory_key(*each) for each in given}) == len(given)
    assert memory_key("e", 1, (1, 2)) == memory_key("e", 1, [1, 2]) and len(memory_key("e", 1, "")) == 64


def test_a_limit_below_one_is_refused(folder):
    with pytest.raises(InputError, match="max_bytes must be 1 or more, got 0"):
        MemoryStore(folder, 0)
