"""An object in a process of its own, so that what one side of a comparison sets does not help the other.

Training here tells the C library to keep freed memory, which speeds up everything else in that process too.
"""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

from benchmarks.common import quiet

_held: Any = None


class Apart:
    """`make(*args)`, made in a new process; `call` asks it and waits for the answer."""

    def __init__(self, make: Callable[..., Any], *args: Any) -> None:
        self._pool = ProcessPoolExecutor(1, get_context("spawn"), _make, (make, args))

    def call(self, name: str, *args: Any) -> Any:
        """What a method returns, or the value of an attribute."""
        return self._pool.submit(_call, name, args).result()

    def close(self) -> None:
        """End the process."""
        self._pool.shutdown()


def _make(make: Callable[..., Any], args: tuple[Any, ...]) -> None:
    global _held
    quiet().__enter__()  # for the life of the process
    _held = make(*args)


def _call(name: str, args: tuple[Any, ...]) -> Any:
    found = getattr(_held, name)
    return found(*args) if callable(found) else found
