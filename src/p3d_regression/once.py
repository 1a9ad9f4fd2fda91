"""Things that a process makes once."""

from collections.abc import Callable
from functools import cache, wraps
from threading import RLock
from typing import TypeVar

T = TypeVar("T")


def once(make: Callable[[], T]) -> Callable[[], T]:
    """Let a function without arguments be called once in a process; what it returned then is returned again."""
    lock, made = RLock(), cache(make)

    @wraps(make)
    def get() -> T:
        # a cache alone would let two threads make two
        with lock:
            return made()

    get.cache_clear = made.cache_clear  # type: ignore[attr-defined]
    return get
