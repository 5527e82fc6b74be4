"""The counter that stands in for a clock sees work wherever it is done, and tells linear from quadratic."""

import gc

import pytest

from promptgrad import aio
from tests.counting import growth, steps


def here(turns):
    for _ in range(turns):
        pass


async def there(turns):
    await aio.gather([lambda: aio.sleep(0)] * 2)  # goes on in the thread of the program loop
    here(turns)


@pytest.mark.parametrize("run", [lambda turns: here(turns), lambda turns: aio.run(there(turns))], ids=["here", "there"])
def test_each_turn_of_a_loop_counts_in_both_threads(run):
    assert steps(lambda: run(9000), loop=True) - steps(lambda: run(1000), loop=True) == pytest.approx(16_000, rel=0.1)
    assert growth(lambda size: lambda: run(size), 5000) == pytest.approx(4, rel=0.3)
    assert growth(lambda size: lambda: run(size * size // 50), 500) > 12


def test_calls_of_c_functions_count():
    assert steps(lambda: list(map(abs, range(5)))) >= 1
    assert steps(lambda: [abs(1), abs(2), abs(3)]) - steps(lambda: [abs(1)]) >= 2


def test_it_ends_with_the_work_even_if_that_fails():
    import sys

    before = sys.gettrace(), sys.getprofile()
    with pytest.raises(ZeroDivisionError):
        steps(lambda: 1 // 0)
    assert (sys.gettrace(), sys.getprofile()) == before


def test_what_the_garbage_collector_ends_does_not_count():
    class Ends:
        def __init__(self):
            self.me = self

        def __del__(self):
            here(1000)

    before = gc.get_threshold()
    gc.set_threshold(1)
    try:
        assert steps(lambda: [Ends() for _ in range(50)] and None) < 1000
    finally:
        gc.set_threshold(*before)
    assert gc.isenabled()
