"""The checks of the contract suites, whose failures name what was found, what is expected and what to do.

They do not use `assert`, which pytest explains only in test files, and which `-O` removes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextvars import copy_context
from typing import Any, NoReturn, TypeVar

T = TypeVar("T")


def in_threads(calls: Sequence[Callable[[], T]]) -> list[T]:
    """The results of the calls, each made in its own thread with the context of the caller."""
    results: list[Any] = [None] * len(calls)

    def work(place: int) -> None:
        try:
            results[place] = calls[place]()
        except Exception as error:  # noqa: BLE001 - it is raised below, in the thread of the test
            results[place] = error

    threads = [threading.Thread(target=copy_context().run, args=(work, place)) for place in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for result in results:
        if isinstance(result, Exception):
            raise result
        must(result is not None, "a call in a thread did not come back within 60 seconds")
    return results


def raised(call: Callable[[], object], kind: type[Exception] | tuple[type[Exception], ...], what: str) -> Exception:
    """The exception that a call raises, which must be of this kind, or of one of these."""
    kinds = kind if isinstance(kind, tuple) else (kind,)
    expected = " or ".join(one.__name__ for one in kinds)
    try:
        value = call()
    except kinds as error:
        return error
    except Exception as error:
        raise AssertionError(f"{what} raised {error!r}, and {expected} is expected") from error
    fail(f"{what} gave {value!r}, and {expected} is expected")


def must(holds: bool, message: str) -> None:  # noqa: FBT001 - as assert has it
    """Fail with the message unless the promise holds."""
    __tracebackhide__ = True
    if not holds:
        fail(message)


def fail(message: str) -> NoReturn:
    """Fail with the message."""
    __tracebackhide__ = True
    raise AssertionError(message)
