"""How much work a function does, counted rather than timed: the same on an idle machine and on a busy one."""

import sys
from collections.abc import Callable


def steps(work: Callable[[], object]) -> int:
    """How many lines of Python `work` executes in this thread, each turn of a loop included, and calls of C functions.

    What a C function does inside is not seen: one `in` of a long list is one step.
    """
    count = 0

    def line(frame, event, argument):
        nonlocal count
        count += event == "line"
        return line

    def call(frame, event, argument):
        nonlocal count
        count += event == "c_call"

    before = sys.gettrace(), sys.getprofile()
    sys.settrace(line)
    sys.setprofile(call)
    try:
        work()
    finally:
        sys.setprofile(before[1])
        sys.settrace(before[0])
    return count


def growth(work: Callable[[int], Callable[[], object]], size: int, times: int = 4) -> float:
    """How many times as many steps it takes for `times` the size: about `times` if linear, its square if quadratic.

    `work(size)` prepares, uncounted, and returns what is to be counted.
    """
    work(size)()  # what is loaded, compiled or cached once is no part of either
    small = steps(work(size))
    assert small > size, "the work is done in another thread, or there is none"
    return steps(work(size * times)) / small
