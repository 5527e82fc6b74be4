import asyncio
import gc
import threading
import time
import weakref
from contextvars import ContextVar
from decimal import Decimal
from functools import partial

import pytest

from promptgrad import aio
from tests.aio.test_drive import interrupt_when
from tests.waiting import turns, until

MODES = [aio.drive, aio.run, asyncio.run]


def returning(value):
    async def thunk():
        return value

    return thunk


class Crowd:
    """Thunks that can only end when `together` of them are in flight; counts how many are at most."""

    def __init__(self, together):
        self.together = together
        self.now = self.most = 0
        self.lock = threading.Lock()
        self.full = aio.Signal()

    def thunk(self, value):
        async def work():
            with self.lock:
                self.now += 1
                self.most = max(self.most, self.now)
                full = self.now >= self.together
            if full:
                self.full.set(None)
            await self.full
            with self.lock:
                self.now -= 1
            return value

        return work


@pytest.mark.parametrize("mode", MODES)
def test_results_are_in_order_and_really_concurrent(mode):
    crowd = Crowd(10)
    assert mode(aio.gather([crowd.thunk(i) for i in range(10)])) == list(range(10))
    assert crowd.most == 10


@pytest.mark.parametrize("mode", MODES)
def test_no_more_than_the_limit_are_in_flight(mode):
    crowd = Crowd(3)
    assert mode(aio.gather([crowd.thunk(i) for i in range(20)], limit=3)) == list(range(20))
    assert crowd.most == 3


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("count", [0, 1, 2, 50])
def test_on_done_is_told_of_each(mode, count):
    done = {}
    mode(aio.gather([returning(i) for i in range(count)], limit=4, on_done=done.__setitem__))
    assert done == {i: i for i in range(count)}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("limit", [1, 4])
def test_what_on_done_raises_is_a_failure(mode, limit):
    def refuse(index, value):
        raise KeyError(index)

    with pytest.raises(KeyError, match="0"):
        mode(aio.gather([returning(i) for i in range(9)], limit=limit, on_done=refuse))


@pytest.mark.parametrize("mode", MODES)
def test_each_is_a_gather_of_calls(mode):
    crowd = Crowd(3)
    done = {}
    found = mode(aio.each(lambda item: crowd.thunk(item)(), range(20), limit=3, on_done=done.__setitem__))
    assert found == [*range(20)]
    assert done == dict(enumerate(range(20)))
    assert crowd.most == 3
    assert mode(aio.each(returning, [])) == []


def test_nothing_to_run_side_by_side_is_driven_in_place():
    async def where():
        return threading.get_ident()

    here = threading.get_ident()
    assert aio.drive(aio.gather([where])) == [here]
    assert aio.drive(aio.gather([where] * 5, limit=1)) == [here] * 5
    assert here not in aio.drive(aio.gather([where] * 2))


@pytest.mark.parametrize("mode", MODES)
def test_the_first_failure_cancels_the_rest_and_is_raised(mode):
    events = []
    begun = aio.Signal()

    async def slow():
        begun.set(None)
        try:
            await aio.Signal()
        except asyncio.CancelledError:
            events.append("cancelled")
            raise

    async def fail():
        await begun
        raise LookupError("first")

    async def never():
        events.append("started too late")

    with pytest.raises(LookupError, match="first"):
        mode(aio.gather([slow, fail, never], limit=2))
    assert events == ["cancelled"]


def test_cancelling_gather_cancels_all_and_waits_for_them():
    ended = []

    async def child(i):
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append(i)

    async def main():
        task = asyncio.ensure_future(aio.gather([lambda i=i: child(i) for i in range(5)], limit=3))
        await turns()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return sorted(ended)

    assert asyncio.run(main()) == [0, 1, 2]


def test_a_second_cancellation_of_gather_leaves_nothing_running():
    ended = []

    async def child(i):
        try:
            await asyncio.Event().wait()
        finally:
            try:
                await asyncio.Event().wait()  # a cleanup that the second cancellation ends
            finally:
                await turns()
                ended.append(i)

    async def main():
        task = asyncio.ensure_future(aio.gather([lambda i=i: child(i) for i in range(3)]))
        for _ in range(2):
            await turns()
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return sorted(ended)

    assert asyncio.run(main()) == [0, 1, 2]


def test_ctrl_c_in_a_driven_gather_cancels_what_runs():
    waiting, ended = threading.Event(), []

    async def child(i):
        if i == 4:
            waiting.set()
        try:
            await aio.Signal()
        finally:
            ended.append(i)

    thread = interrupt_when(waiting)
    with pytest.raises(KeyboardInterrupt):
        aio.drive(aio.gather([lambda i=i: child(i) for i in range(5)]))
    thread.join()
    assert sorted(ended) == list(range(5))


@pytest.mark.parametrize("mode", MODES)
def test_gathers_nest_in_threads_and_driven_code(mode):
    """Sync code in threads that gathers sync code in threads: what a `map` inside a `map` does."""

    def inner(i):
        return sum(aio.drive(aio.gather([lambda j=j: aio.in_thread(int, j) for j in range(i)], limit=2)))

    async def outer():
        return await aio.gather([lambda i=i: aio.in_thread(inner, i) for i in range(12)], limit=5)

    assert mode(outer()) == [sum(range(i)) for i in range(12)]


def test_a_driven_gather_on_a_foreign_running_loop():
    async def cell():
        return aio.drive(aio.gather([returning(i) for i in range(5)]))

    assert asyncio.run(cell()) == list(range(5))


def test_each_thunk_has_a_context_of_its_own():
    from contextvars import ContextVar

    var = ContextVar("var", default=0)

    async def change():
        var.set(var.get() + 1)
        return var.get()

    assert aio.run(aio.gather([change] * 10, limit=2)) == [1] * 10


def test_a_limit_below_one_is_refused():
    with pytest.raises(ValueError, match="at least 1"):
        aio.drive(aio.gather([returning(1)], limit=0))


class TestSemaphore:
    @pytest.mark.parametrize("mode", MODES)
    def test_it_bounds_and_serves_in_order(self, mode):
        places = aio.Semaphore(2)
        order, now, most = [], 0, 0

        async def work(i):
            nonlocal now, most
            async with places:
                order.append(i)
                now += 1
                most = max(most, now)
                await aio.sleep(0)
                now -= 1

        mode(aio.gather([lambda i=i: work(i) for i in range(20)]))
        assert order == list(range(20))
        assert most == 2

    def test_a_cancelled_waiter_gives_its_place_up(self):
        async def main():
            places = aio.Semaphore(1)
            await places.acquire()
            waiter = asyncio.ensure_future(places.acquire())
            granted = asyncio.ensure_future(places.acquire())
            await asyncio.sleep(0)
            waiter.cancel()
            places.release()
            await granted
            granted_and_cancelled = asyncio.ensure_future(places.acquire())
            await asyncio.sleep(0)
            places.release()  # granted, but cancelled before it noticed
            granted_and_cancelled.cancel()
            with pytest.raises(asyncio.CancelledError):
                await granted_and_cancelled
            await asyncio.wait_for(places.acquire(), 60)
            return True

        assert asyncio.run(main())

    def test_it_is_shared_by_threads_and_loops(self):
        places, results = aio.Semaphore(3), []

        async def work(i):
            async with places:
                await aio.on_transport(asyncio.sleep, 0)
                results.append(i)

        threads = [
            threading.Thread(target=lambda i=i: (aio.drive, aio.run, asyncio.run)[i % 3](work(i))) for i in range(30)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert sorted(results) == list(range(30))

    def test_no_room_is_refused(self):
        with pytest.raises(ValueError, match="at least 1"):
            aio.Semaphore(0)


@pytest.mark.parametrize("mode", MODES)
def test_sleep_takes_its_time(mode):
    began = time.monotonic()
    mode(aio.sleep(0.02))
    assert time.monotonic() - began >= 0.015
    mode(aio.sleep(0))


@pytest.mark.parametrize("mode", MODES)
def test_sleep_takes_any_number(mode):
    mode(aio.sleep(Decimal("0.001")))
    with pytest.raises(ValueError, match="float"):
        mode(aio.sleep("soon"))


@pytest.mark.parametrize("mode", [aio.drive, aio.run, asyncio.run])
@pytest.mark.parametrize("threads", [False, True])
def test_who_waits_for_time_alone_keeps_no_place(mode, threads):
    """With two places, all five others work while two wait aside; never more than two work at once."""
    over, lock, active, most, done = aio.Signal(), threading.Lock(), set(), [0], []

    def work(index, *, on):
        with lock:
            active.add(index) if on else active.discard(index)
            most[0] = max(most[0], len(active))

    async def one(index):
        work(index, on=True)
        if index < 2:
            work(index, on=False)

            async def wait():
                await over

            await aio.aside(wait)
            work(index, on=True)
        await aio.sleep(0)
        with lock:
            done.append(index)
            if len(done) == 5:
                over.set(None)
        work(index, on=False)
        return index

    def thunk(index):
        async def in_a_thread():
            return await aio.in_thread(lambda: aio.drive(one(index)))

        return in_a_thread if threads else lambda: one(index)

    async def main():
        return await aio.gather([thunk(index) for index in range(7)], limit=2)

    assert mode(main()) == list(range(7))
    assert set(done[:5]) == {2, 3, 4, 5, 6}
    assert most[0] <= 2


def test_only_some_more_start_while_others_wait_aside():
    started, over = [], aio.Signal()

    async def one(index):
        started.append(index)

        async def wait():
            await over

        await aio.aside(wait)

    async def main():
        rows = asyncio.ensure_future(aio.gather([lambda index=index: one(index) for index in range(99)], limit=2))
        await turns()
        count = len(started)
        over.set(None)
        await rows
        return count

    assert asyncio.run(main()) == 10
    assert started == list(range(99))


def test_a_gather_whose_thunks_wait_aside_can_be_stopped():
    async def main():
        async def one(index):
            if index == 3:
                await turns(5)
                raise ZeroDivisionError

            async def wait():
                await asyncio.sleep(60)

            await aio.aside(wait)

        with pytest.raises(ZeroDivisionError):
            await aio.gather([lambda index=index: one(index) for index in range(9)], limit=2)

        rows = asyncio.ensure_future(aio.gather([lambda index=index: one(index) for index in (0, 1, 2)], limit=1))
        await turns()
        rows.cancel()
        with pytest.raises(asyncio.CancelledError):
            await rows

    asyncio.run(main())


def test_outside_of_a_gather_to_wait_aside_is_to_wait():
    waited = []

    async def wait():
        waited.append(1)

    aio.drive(aio.aside(wait))
    assert waited == [1]


NOTED: ContextVar[str] = ContextVar("noted", default="nothing")


def test_a_thunk_that_starts_in_the_place_of_another_knows_nothing_of_it():
    seen = []

    async def work():
        seen.append(NOTED.get())
        NOTED.set("what another one did")
        await aio.aside(turns)

    async def outer():
        NOTED.set("from outside")
        await aio.gather([work] * 4, limit=1)

    aio.run(outer())
    assert seen == ["from outside"] * 4


@pytest.mark.parametrize("limit", [1, 2, None])
def test_a_thunk_knows_its_place_at_any_concurrency(limit):
    async def inner():
        return aio.row()

    async def outer():
        return [aio.row(), *await aio.gather([inner, inner], limit=limit), aio.row()]

    places = [[(i,), (i, 0), (i, 1), (i,)] for i in range(2)]
    assert aio.run(aio.gather([outer, outer], limit=limit)) == places
    assert aio.drive(aio.gather([outer, outer], limit=limit)) == places
    assert aio.row() == ()


def test_what_is_left_behind_in_a_thread_keeps_no_results():
    class Large:
        pass

    alive, over, came_back = weakref.WeakSet(), threading.Event(), aio.Signal()

    def linger():
        over.wait(300)

        async def rest():
            await aio.aside(partial(aio.sleep, 0))  # in a gather that is over it only waits
            return "back"

        came_back.set(aio.drive(rest()))

    async def thunk(number):
        if number == 0:
            aio.start_in_thread(linger)
        large = Large()
        alive.add(large)
        return large

    results = aio.run(aio.gather([partial(thunk, number) for number in range(4)]))
    assert len(results) == len(alive) == 4
    del results
    until(lambda: gc.collect() >= 0 and not alive)  # the thread of the loop is still letting go
    over.set()

    async def wait():
        return await came_back

    assert aio.drive(wait()) == "back"


@pytest.mark.parametrize("run", MODES)
def test_what_the_thunks_hold_goes_with_them_and_not_when_the_collector_comes(run):
    async def work(held):
        await asyncio.sleep(0)
        return 1

    async def both(thunks, seen):
        return await aio.gather(thunks, on_done=seen.__setitem__)

    thunks, seen = [partial(work, {"a"}), partial(work, {"b"})], {}
    known = [weakref.ref(thunk) for thunk in thunks]
    gc.collect()
    gc.disable()
    try:
        assert run(both(thunks, seen)) == [1, 1]
        del thunks
        assert [ref() for ref in known] == [None, None]
    finally:
        gc.enable()
