"""Between requests and the compressor: how long one may wait, how many work at once, when to stop trying."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
FAILURES = 5  # in a row: then the compressor rests
REST = 30.0  # seconds


class LateError(Exception):
    """A text is left alone; the argument is a key of `report.REASONS`."""


class Deadline:
    """Until when a request may be compressed; and whose word counts then, the thread's at work or who waits for it.

    >>> deadline = Deadline(seconds=0)
    >>> deadline.passed, deadline.claim(), deadline.claim()
    (True, True, False)
    """

    def __init__(self, seconds: float = threading.TIMEOUT_MAX) -> None:
        self._end = time.monotonic() + seconds
        self._claimed = threading.Lock()

    @property
    def left(self) -> float:
        """Seconds, 0 or more, as a lock can wait."""
        return min(max(0.0, self._end - time.monotonic()), threading.TIMEOUT_MAX)

    @property
    def passed(self) -> bool:
        """Is no time left?"""
        return self.left == 0

    def check(self, characters: int = 0) -> None:
        """LateError if it has passed; takes what a compressor reports of its progress."""
        if self.passed:
            raise LateError("late")

    def claim(self) -> bool:
        """True for the first who asks. The thread asks before it writes down what is to be sent, who waits before it
        sends something else: so that nothing is written down that was not sent."""
        return self._claimed.acquire(blocking=False)


class Guard:
    """Runs the compressor in a bounded number of threads, for a bounded queue; after failures in a row it rests.

    >>> Guard().run(lambda: "done", Deadline())
    'done'
    """

    def __init__(self, threads: int = 16, queue: int = 1000) -> None:
        self._working, self._present = threading.Semaphore(threads), threading.Semaphore(threads + queue)
        self._lock, self._failures, self._until = threading.Lock(), 0, 0.0

    @property
    def resting(self) -> bool:
        """Has the compressor failed too often a moment ago?"""
        return time.monotonic() < self._until

    def run(self, work: Callable[[], T], deadline: Deadline) -> T:
        """What `work` returns; LateError where there is no place in the queue, no time, or a rest."""
        if self.resting:
            raise LateError("resting")
        deadline.check()
        if not self._present.acquire(blocking=False):
            raise LateError("late")
        try:
            if not self._working.acquire(timeout=deadline.left):
                raise LateError("late")
            try:
                return self._watched(work, deadline)
            finally:
                self._working.release()
        finally:
            self._present.release()

    def failed(self) -> None:
        """Count a failure; after so many in a row, and then after each until one succeeds, the compressor rests."""
        with self._lock:
            self._failures += 1
            if self._failures >= FAILURES:
                self._until = time.monotonic() + REST

    def _watched(self, work: Callable[[], T], deadline: Deadline) -> T:
        try:
            result = work()
        except Exception:
            self.failed()
            raise
        if not deadline.passed:  # else who waited has counted a failure
            with self._lock:
                self._failures = 0
        return result
