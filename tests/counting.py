"""How much work a function does, counted rather than timed: the same on an idle machine and on a busy one."""

import sys
from collections.abc import Callable


def steps(work: Callable[[], object]) -> int:
    """How many lines of Python `work` executes in this thread, each turn of a loop included."""
    count = 0

    def trace(frame, event, argument):
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


def growth(work: Callable[[int], Callable[[], object]], size: int, times: int = 4) -> float:
    """How many times as many steps it takes for `times` the size: about `times` if linear, its square if quadratic.

    `work(size)` prepares, uncounted, and returns what is to be counted.
    """
    work(size)()  # what is loaded, compiled or cached once is no part of either
    return steps(work(size * times)) / steps(work(size))
