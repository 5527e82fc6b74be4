import asyncio
import inspect
import signal
import threading
import time

import pytest

from promptgrad import aio
from promptgrad.errors import AsyncUsageError


async def ascale(number, *, by: int = 2) -> int:
    """Multiply."""
    await aio.sleep(0)
    return number * by


scale = aio.blocking(ascale)


async def awhere() -> threading.Thread:
    """Say in which thread."""
    return threading.current_thread()


async def awarn() -> None:
    """Warn, on the program loop."""
    aio.warn("mind the gap", UserWarning)


def test_a_warning_points_at_the_line_that_called_the_twin():
    with pytest.warns(UserWarning, match="mind the gap") as told:
        aio.blocking(awarn)()
    assert told[0].filename == __file__


class Tower:
    def __init__(self, height):
        self.height = height

    async def agrow(self, by: int) -> int:
        """Add a storey."""
        return self.height + by

    grow = aio.blocking(agrow)

    @classmethod
    async def abuild(cls, height: int) -> "Tower":
        """Make one."""
        return cls(height)

    build = aio.blocking_classmethod(abuild)


def test_a_twin_waits_and_has_name_signature_and_docstring():
    assert scale(4, by=3) == 12
    assert (scale.__name__, scale.__qualname__, scale.__doc__) == ("scale", "scale", "Multiply.")
    assert inspect.signature(scale) == inspect.signature(ascale)
    assert not inspect.iscoroutinefunction(scale)


def test_methods_and_class_methods_have_twins():
    assert Tower.build(3).grow(2) == 5
    assert Tower.grow.__qualname__ == "Tower.grow"


@pytest.mark.parametrize("call", [lambda: scale(), lambda: scale(1, 2, 3, 4), lambda: scale(1, nope=2)])
def test_wrong_arguments_are_told_under_the_name_that_was_called(call):
    with pytest.raises(TypeError, match=r"^scale\(\) (missing|takes|got)"):
        call()


def test_a_type_error_inside_is_as_it_was_raised():
    async def araise():
        raise TypeError("araise() is not to blame")

    with pytest.raises(TypeError, match=r"^araise\(\) is not to blame"):
        aio.blocking(araise)()


def test_a_twin_runs_on_the_program_loop_or_in_place():
    assert aio.blocking(awhere)() is not threading.current_thread()
    assert aio.blocking(awhere, in_place=True)() is threading.current_thread()


@pytest.mark.parametrize("in_place", [False, True])
def test_in_a_coroutine_of_ours_the_error_names_the_other_one(in_place):
    twin = aio.blocking(ascale, in_place=in_place)

    async def inside():
        return twin(1)

    with pytest.raises(AsyncUsageError, match=r"scale was called inside .* write `await \S*ascale\(\.\.\.\)`"):
        aio.run(inside())


def test_what_a_cancelled_coroutine_finished_comes_with_the_interrupt():
    waiting = threading.Event()

    async def acount():
        try:
            waiting.set()
            await asyncio.sleep(60)
        except asyncio.CancelledError as stop:
            stop.finished = [1, 2]
            raise

    def interrupt():
        assert waiting.wait(60)
        time.sleep(0.05)  # until the main thread blocks; earlier does no harm either
        signal.raise_signal(signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt) as caught:
        aio.blocking(acount)()
    thread.join()
    assert caught.value.finished == [1, 2]
