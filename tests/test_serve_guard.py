"""How long a request waits for the compressor, how many at once, and when it rests."""

from __future__ import annotations

import threading

import pytest

from laconic.serve import guard as guarding
from laconic.serve.guard import FAILURES, Deadline, Guard, LateError


def test_a_deadline_is_claimed_once_whoever_comes_first():
    deadline, won = Deadline(), []
    threads = [threading.Thread(target=lambda: won.append(deadline.claim())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == [False] * 7 + [True]


def test_work_waits_for_a_place_until_the_deadline():
    guard, busy, done = Guard(threads=1, queue=1), threading.Event(), threading.Event()
    thread = threading.Thread(target=guard.run, args=(lambda: busy.set() or done.wait(60), Deadline()))
    thread.start()
    busy.wait(60)
    with pytest.raises(LateError, match="late"):
        guard.run(lambda: "never", Deadline(0.02))
    done.set()
    thread.join()
    assert guard.run(lambda: "now", Deadline()) == "now"


def test_where_the_queue_is_full_nobody_waits():
    guard, busy, done = Guard(threads=1, queue=0), threading.Event(), threading.Event()
    thread = threading.Thread(target=guard.run, args=(lambda: busy.set() or done.wait(60), Deadline()))
    thread.start()
    busy.wait(60)
    with pytest.raises(LateError, match="late"):
        guard.run(lambda: "never", Deadline())
    done.set()
    thread.join()


def test_after_failures_in_a_row_the_compressor_rests_and_is_tried_again(monkeypatch):
    guard = Guard()
    for _ in range(FAILURES):
        assert not guard.resting
        with pytest.raises(ZeroDivisionError):
            guard.run(lambda: 1 / 0, Deadline())
    assert guard.resting
    with pytest.raises(LateError, match="resting"):
        guard.run(lambda: "never", Deadline())
    now = guarding.time.monotonic() + guarding.REST
    monkeypatch.setattr(guarding.time, "monotonic", lambda: now)
    assert guard.run(lambda: "well", Deadline()) == "well"
    guard.failed()
    assert not guard.resting


def test_a_success_ends_a_row_of_failures():
    guard = Guard()
    for _ in range(3 * FAILURES):
        guard.failed()
        guard.run(lambda: "well", Deadline()) if not guard.resting else None
    assert not guard.resting
