"""Places that an endpoint has, found out by what it turns away; and what may be sent in a minute."""

import asyncio
import random
import threading
from contextlib import contextmanager

import pytest

from promptgrad import aio, run
from promptgrad.errors import BudgetExceeded, LMError
from promptgrad.lm import HTTP, FunctionLM, Limit, Retry, resolve
from promptgrad.lm._minute import Minute
from promptgrad.lm._places import UNKNOWN, Places, places_of
from promptgrad.testing import Cut, Delay, Drop, Garbage, LoopbackLM, Reply, Status


def take(places, count):
    """So many places, all at once."""

    async def some():
        return [await places.acquire() for _ in range(count)]

    return aio.drive(some())


def test_a_burst_that_is_turned_away_leaves_what_was_served():
    places = Places()
    levels = take(places, 64)
    assert (levels, places.cap) == ([*range(1, 65)], UNKNOWN)
    for level in levels[8:]:
        places.release(level, served=False)
    assert (places.cap, places.in_flight, places.turned_away) == (8, 8, 56)
    for level in levels[:8]:
        places.release(level, served=True)
    assert (places.cap, places.in_flight) == (8, 0)


def test_answers_that_come_with_refusals_do_not_lower_the_cap():
    places = Places()
    levels = take(places, 32)
    for number, level in enumerate(levels):
        places.release(level, served=None if number % 2 else number % 8 > 1)
    assert places.turned_away == 4
    assert places.cap == 32 - 4


def serve(places, capacity, answers, demand=64, noise=0.0, seed=0, pushes=1):
    """Keep a server busy that turns away what is above its capacity, and a random share; returns how many it did."""
    chance, serving, turned_away = random.Random(seed), [], 0
    while answers:
        while len(serving) < demand and places.in_flight < places.cap:
            (level,) = take(places, 1)
            if len(serving) >= capacity or chance.random() < noise:
                places.release(level, served=False)
                turned_away += 1
                break
            serving.append(level)
        else:
            places.release(serving.pop(0), served=True)
            answers -= 1
            continue
        if len(serving) >= capacity and turned_away % pushes == 0:
            places.release(serving.pop(0), served=True)
            answers -= 1
    for level in serving:
        places.release(level)
    return turned_away


def test_the_cap_grows_by_one_and_ever_more_slowly_where_it_was_too_much():
    places = Places()
    serve(places, 8, 30)
    turned_away = [serve(places, 8, 300) for _ in range(4)]
    assert turned_away[0] <= 5
    assert turned_away[-1] <= 2
    assert 8 <= places.cap <= 9


def test_the_cap_grows_faster_as_long_as_it_is_not_too_much():
    places = Places()
    serve(places, 8, 30)
    assert places.cap == 8
    serve(places, 64, 500)
    assert places.cap >= 48


def test_the_cap_does_not_grow_where_it_is_not_in_use():
    places = Places()
    serve(places, 8, 30)
    cap = places.cap
    serve(places, 64, 500, demand=cap)
    assert cap <= places.cap <= cap + 1


def test_an_endpoint_that_takes_less_than_before_halves_it():
    places = Places()
    serve(places, 64, 300)
    assert places.cap == UNKNOWN
    serve(places, 4, 100, pushes=2)
    assert places.cap <= 10


def test_refusals_at_random_leave_most_of_it():
    caps = []
    for seed in range(20):
        places = Places()
        serve(places, 999, 600, demand=32, noise=0.25, seed=seed)
        caps.append(min(places.cap, 32))
    assert sorted(caps)[10] >= 16
    assert min(caps) >= 6


def test_the_first_in_line_comes_first_and_who_gives_up_leaves_no_hole():
    places = Places()
    places.cap = 1

    async def main():
        order = []
        level = await places.acquire()

        async def one(name):
            own = await places.acquire()
            order.append(name)
            places.release(own)

        tasks = [asyncio.ensure_future(one(name)) for name in "abc"]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        tasks[1].cancel()
        await asyncio.gather(tasks[1], return_exceptions=True)
        assert places.waiting == 2
        places.release(level)
        await asyncio.gather(tasks[0], tasks[2])
        return order

    assert asyncio.run(main()) == ["a", "c"]
    assert (places.in_flight, places.waiting) == (0, 0)


def test_one_model_at_one_address_has_one_cap():
    one, other = HTTP("m", "http://127.0.0.1:9/v1"), HTTP("m", "http://127.0.0.1:9/v1", temperature=0)
    assert Limit(one, 4)._places is Limit(other, 8)._places
    assert Limit(one, 4)._places is not Limit(HTTP("n", "http://127.0.0.1:9/v1"), 4)._places
    assert Limit(FunctionLM(str), 4)._places is not Limit(FunctionLM(str), 4)._places
    assert places_of("") is not places_of("")


@contextmanager
def small():
    """A server that takes 8 at once, and answers 429 to those above."""
    refused = []

    def respond(messages):
        if server.in_flight > 8:
            refused.append(server.received)
            return Status(429)
        return Delay(0.02, "ok")

    with LoopbackLM(respond) as server:
        server.refused = refused
        yield server


async def _all(lm, count, in_flight, outcomes):
    numbers = iter(range(count))

    async def worker():
        for number in numbers:
            try:
                outcomes[number] = (await lm.acall(f"q{number}")).text
            except LMError as error:
                outcomes[number] = error

    await asyncio.gather(*[worker() for _ in range(in_flight)])


def test_a_server_with_a_capacity_loses_no_row():
    """In each of three tries; few are refused late, and the cap is found, in one that no stall spoils."""
    found = []
    for _ in range(3):
        with small() as server:
            lm = resolve("openai/m", base_url=server.url, api_key="k", cache=False)
            outcomes = {}
            aio.run(_all(lm, 300, 64, outcomes))
            assert [outcomes[number] for number in range(300)] == ["ok"] * 300
            assert server.received == 300 + len(server.refused) == lm.stats()["requests"]
            assert lm.stats()["turned_away"] == len(server.refused)
            # after the first half, which has the burst and those that come back from it
            found.append((sum(at > 150 for at in server.refused) <= 8, 4 <= lm.stats()["cap"] <= 12))
    assert (True, True) in found


def test_no_row_is_lost_or_doubled_under_mixed_faults():
    chance = random.Random(53)
    faults = [
        Status(429, retry_after=0),
        Status(429),
        Status(503),
        Status(500),
        Cut(),
        Drop(),
        Garbage(),
        Garbage(b"{}"),
    ]
    faults.append(Garbage(b'{"error": {"code": 529, "message": "Overloaded"}}'))

    def respond(messages):
        return chance.choice(faults) if chance.random() < 0.53 else f"to {messages[-1]['content']}"

    async def brief(seconds):
        await aio.sleep(0)

    with LoopbackLM(respond) as server:
        lm = Retry(Limit(HTTP("m", server.url), 32), attempts=6, turns=11, sleep=brief)
        outcomes = {}
        with run.active() as session:
            aio.run(_all(lm, 500, 32, outcomes))
            spent = session.ledger.spent
        failed = [error for error in outcomes.values() if isinstance(error, LMError)]
        assert len(outcomes) == 500
        assert len(failed) <= 5
        assert all(text == f"to q{number}" for number, text in outcomes.items() if isinstance(text, str))
        assert spent.calls == 500 - len(failed)
        assert spent.calls + spent.failed == server.received == lm.stats()["requests"]


# -- minutes ---------------------------------------------------------------------------------------------------------


class Time:
    """A clock that sleeping moves."""

    def __init__(self):
        self.now = 1000.0
        self.waits = []

    def __call__(self):
        return self.now

    async def sleep(self, seconds):
        self.waits.append(seconds)
        self.now += seconds


def enter(minute, tokens=0):
    return aio.drive(minute.enter(tokens))


def test_requests_per_minute():
    time = Time()
    minute = Minute(3, None, clock=time, sleep=time.sleep)
    at = []
    for _ in range(7):
        enter(minute)
        at.append(time.now - 1000)
        time.now += 1
    assert at == [0, 1, 2, 60, 61, 62, 120]
    for first, fourth in zip(at, at[3:], strict=False):
        assert fourth - first >= 60


def test_tokens_per_minute_by_estimate_and_then_by_use():
    time = Time()
    minute = Minute(None, 100, clock=time, sleep=time.sleep)
    first = enter(minute, 60)
    minute.settle(first, 20)
    enter(minute, 80)
    assert time.waits == []
    enter(minute, 30)
    assert time.waits == [60]
    minute.settle(first, 99)  # too late to count
    time.now += 60
    enter(minute, 500)  # larger than the limit: alone, rather than never
    enter(minute, 1)
    assert time.waits == [60, 60]


def test_a_limit_of_a_minute_is_kept_by_an_lm(server):
    time = Time()
    lm = Limit(HTTP("m", server.url), 8, requests_per_minute=2, clock=time, sleep=time.sleep)
    for number in range(5):
        lm(str(number))
    assert time.waits == [60, 60]
    lm = Limit(HTTP("m", server.url), 8, tokens_per_minute=300, clock=time, sleep=time.sleep)
    for number in range(3):
        lm(str(number), max_tokens=100)
    assert time.waits == [60, 60]  # each used few of its 100


def test_a_minute_is_not_waited_for_past_the_budget(server):
    time = Time()
    lm = Limit(HTTP("m", server.url), 8, requests_per_minute=1, clock=time, sleep=time.sleep)
    with run.active(ledger=run.Ledger(run.Budget(seconds=30), run.Journal(clock=time))):
        lm("a")
        with pytest.raises(BudgetExceeded, match="would pass the budget of 30 seconds"):
            lm("b")
    assert (time.waits, server.received) == ([], 1)


@pytest.mark.parametrize("bad", [0, -1, 1.5, True])
def test_limits_of_a_minute_are_checked(bad):
    with pytest.raises(ValueError, match="requests_per_minute"):
        Limit(FunctionLM(str), 1, requests_per_minute=bad)
    with pytest.raises(ValueError, match="tokens_per_minute"):
        Limit(FunctionLM(str), 1, tokens_per_minute=bad)


def test_a_place_is_taken_before_the_clock_is_looked_at(server):
    """With two places, nothing leaves after the budget's seconds are over, however many wait for a place."""
    now = [0.0]
    server.hold()
    lm = HTTP("m", server.url, concurrency=2)
    outcomes = []

    def ask(number):
        try:
            outcomes.append(lm(str(number)).text)
        except BudgetExceeded as error:
            outcomes.append(error.kind)

    with run.active(ledger=run.Ledger(run.Budget(seconds=10), run.Journal(clock=lambda: now[0]))):
        from contextvars import copy_context

        threads = [threading.Thread(target=copy_context().run, args=(ask, number)) for number in range(12)]
        for thread in threads:
            thread.start()
        server.wait_for(2)
        now[0] = 11.0
        server.release()
        for thread in threads:
            thread.join(60)
    assert sorted(outcomes, key=len)[:10] == sorted(outcomes, key=len)[:10]
    assert (outcomes.count("seconds"), server.received) == (10, 2)


# -- estimates -------------------------------------------------------------------------------------------------------

TEXTS = {
    "english": "The quick brown fox jumps over the lazy dog, and nobody minds. " * 40,
    "chinese": "\u6628\u5929\u7684\u5929\u6c14\u5f88\u597d\u3002" * 100,
    "emoji": "\U0001f469\u200d\U0001f680 \U0001f3fd" * 100,
    "digits": "1234567890 " * 100,
    "marks": "{}[]();:'!?" * 100,
    "code": "for i in range(10):\n    x[i] += f(i, y=2) ** 3\n" * 40,
    "cut emoji": "\ud83d" * 50,
}


def bytes_or_words(text):
    """The tokens of a tokenizer that makes one of each word of letters, and one of each other byte."""
    import re

    raw = text.encode("utf-8", "surrogatepass").decode("latin-1")
    return len(re.findall(r" ?[A-Za-z]{1,5}|[^A-Za-z ]| ", raw))


@pytest.mark.parametrize("name", TEXTS)
def test_an_estimate_is_no_less_than_what_a_request_takes(name):
    from promptgrad.lm import Message, Prefix, Request
    from promptgrad.lm._channel import estimate_tokens

    text = TEXTS[name]
    whole = Request.of([Message("system", text), Message("user", text)])
    split = Request(Prefix([Message("system", text)]), (Message("user", text),))
    assert estimate_tokens(whole) == estimate_tokens(split) >= 2 * bytes_or_words(text)
    assert estimate_tokens(whole) <= 2 * len(text.encode("utf-8", "surrogatepass")) + 32


@pytest.mark.parametrize("name", ["english", "chinese", "emoji"])
def test_a_budget_of_tokens_holds_in_every_script(name):
    def respond(messages):
        text = messages[-1]["content"]
        return Delay(0.01, Reply("x", usage=(bytes_or_words(text) + 8, 10)))

    text = TEXTS[name]
    limit = 20 * (bytes_or_words(text) + 18)
    with LoopbackLM(respond) as server:
        lm, outcomes = HTTP("m", server.url, max_tokens=10), {}

        async def one(number):
            try:
                outcomes[number] = (await lm.acall(f"{text}{number}")).usage.tokens
            except BudgetExceeded:
                outcomes[number] = 0

        async def many():
            await asyncio.gather(*[one(number) for number in range(64)])

        with run.active(ledger=run.Ledger(run.Budget(tokens=limit))) as session:
            aio.run(many())
        assert sum(outcomes.values()) == session.ledger.spent.tokens <= limit
        assert sum(outcomes.values()) >= limit / 4


def test_what_an_endpoint_fails_at_it_has_worked_on():
    def respond(messages):
        return Status(500) if "fail" in messages[-1]["content"] else Status(429)

    with LoopbackLM(respond) as server:
        lm = Limit(HTTP("m", server.url), 8)
        for prompt in ("fail", "turn away", "fail"):
            with pytest.raises(LMError):
                lm(prompt)
        assert (lm.stats()["turned_away"], lm._places._served) == (1, 1)
