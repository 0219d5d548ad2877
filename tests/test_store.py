"""The SQLite files that processes share."""

from __future__ import annotations

import subprocess
import sys

from laconic.store import Store

FILES, PROCESSES = 40, 6
MAKERS = f"""
import multiprocessing, sys
from pathlib import Path
from laconic.store import Store

def make(mine, start):
    for k in range({FILES}):
        start.wait(20)
        store = Store(Path(sys.argv[1]) / str(k))
        store.put(str(mine), {{"answer": k}})
        store.close()

fork = multiprocessing.get_context("fork")
start = fork.Barrier({PROCESSES})
makers = [fork.Process(target=make, args=(mine, start)) for mine in range({PROCESSES})]
for maker in makers:
    maker.start()
for maker in makers:
    maker.join()
"""


def test_many_processes_may_make_one_file_at_the_same_moment(tmp_path):
    made = subprocess.run([sys.executable, "-c", MAKERS, tmp_path], capture_output=True, text=True, check=True)
    assert made.stderr == ""
    for k in range(FILES):
        store = Store(tmp_path / str(k))
        assert [store.get(str(mine)) for mine in range(PROCESSES)] == [{"answer": k}] * PROCESSES
        store.close()
