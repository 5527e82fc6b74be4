"""Known ways out of a sandbox, none of which succeeds, and programs without end, each of which is ended."""

import contextlib
import ctypes
import os
import socket
import struct
import threading

import pytest

from promptgrad import sandbox
from tests.sandbox.conftest import CONFINED, MAKERS
from tests.sandbox.escapes import BOMBS, ESCAPES, LIBC, OTHERS, PROCESS_ESCAPES, REFUSED, RUNAWAYS
from tests.waiting import given_time

TREASURE = "the treasure is under the oak"


def test_there_are_as_many_as_the_guide_says():
    assert len(ESCAPES) >= 240
    assert len(RUNAWAYS) + len(BOMBS) >= 75
    assert len(PROCESS_ESCAPES) + len(OTHERS) >= 75


@pytest.fixture(scope="module")
def port():
    """The port of a server on which nothing may arrive."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        yield server.getsockname()[1]
        with pytest.raises(BlockingIOError):
            server.accept()


@pytest.fixture
def world(tmp_path, monkeypatch, port):
    """What an escape would reach: a secret file, a place for a file of its own, a server, the environment."""
    monkeypatch.setenv("PROMPTGRAD_SECRET", TREASURE)
    (tmp_path / "secret.txt").write_text(TREASURE)
    return {"secret": str(tmp_path / "secret.txt"), "marker": str(tmp_path / "marker.txt"), "port": port}


def note(said="", **more):
    return said


def fail():
    raise KeyError("no such thing")


GRANTED = {"note": note, "fail": fail}


@pytest.fixture(scope="module")
def held():
    """A session of each interpreter, which all escapes share: one may build on what another left behind."""
    sessions = {name: maker(sandbox.Limits(seconds=5)).session() for name, maker in MAKERS.items()}
    yield sessions
    for session in sessions.values():
        session.close()


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("name", ESCAPES)
def test_an_escape_reaches_nothing(name, kind, held, world, tmp_path):
    if kind == "subprocess" and not CONFINED:
        pytest.skip("a process cannot be confined here")
    threads = threading.active_count()
    before = (tmp_path / "secret.txt").stat()
    wait = name == "open_of_a_number" and kind == "subprocess"  # it takes the next message from itself, and waits
    session = sandbox.Subprocess(sandbox.Limits(seconds=0.2, wall=0.2)).session() if wait else held[kind]
    found = session.run(ESCAPES[name], world, GRANTED)
    after = (tmp_path / "secret.txt").stat()
    if kind == "monty":  # in a Python that can do nothing, what is tried may come to nothing without an error
        assert found.error is not None, found
        assert found.error.limit != "seconds", found
    assert TREASURE not in repr(found)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["secret.txt"]
    assert (tmp_path / "secret.txt").read_text() == TREASURE
    assert (before.st_mode, before.st_mtime, before.st_nlink) == (after.st_mode, after.st_mtime, after.st_nlink)
    assert threading.active_count() <= threads + 1
    if wait:
        session.close()


@pytest.mark.skipif(not CONFINED, reason="a process cannot be confined here")
@pytest.mark.parametrize("name", PROCESS_ESCAPES)
def test_an_escape_from_a_process_is_refused(name, world, tmp_path, held):
    found = held["subprocess"].run(PROCESS_ESCAPES[name], world, GRANTED)
    assert found.error is not None, found
    assert TREASURE not in repr(found)
    assert [path.name for path in tmp_path.iterdir()] == ["secret.txt"]


@pytest.fixture
def theirs(world):
    """What another program of this user has: a queue with a message, a semaphore, memory, a queue with a name."""
    libc = ctypes.CDLL(None, use_errno=True)
    found = {
        "queue": libc.msgget(0, 0o1600),
        "semaphore": libc.semget(0, 1, 0o1600),
        "memory": libc.shmget(0, 64, 0o1600),
    }
    message = ctypes.create_string_buffer(struct.pack("l32s", 1, TREASURE.encode()))
    assert libc.msgsnd(found["queue"], message, 32, 0) == 0
    named = f"/promptgrad-{os.getpid()}"
    descriptor = libc.mq_open(named.encode(), os.O_CREAT | os.O_RDWR, 0o600, None)
    with contextlib.suppress(OSError):
        os.setxattr(world["secret"], "user.said", TREASURE.encode())
    yield {**world, **found, "named": named}
    assert libc.msgrcv(found["queue"], message, 32, 0, 0o4000) == 32
    assert message.raw[8:40].strip(b"\0").decode() == TREASURE
    assert libc.semctl(found["semaphore"], 0, 12) == 0  # its value
    assert libc.shmctl(found["memory"], 0, 0) == 0
    assert descriptor < 0 or libc.mq_unlink(named.encode()) == 0
    os.close(descriptor)
    libc.msgctl(found["queue"], 0, 0)
    libc.semctl(found["semaphore"], 0, 0)


@pytest.mark.skipif(not CONFINED, reason="a process cannot be confined here")
def test_what_other_programs_have_is_out_of_reach(theirs, held):
    attributes = os.listxattr(theirs["secret"])
    reached = {}
    for name, code in OTHERS.items():
        refused = REFUSED if "r = " in code else ""
        found = held["subprocess"].run(LIBC + code + refused, theirs)
        if found.error is None or TREASURE in repr(found):
            reached[name] = found
    assert reached == {}
    assert os.listxattr(theirs["secret"]) == attributes


def each(programs, few):
    """The programs for `Monty`, and some of them for `Subprocess`, which starts a process for each."""
    return [("monty", name) for name in programs] + [("subprocess", name) for name in programs if name in few]


FEW = {
    *("loop_that_catches_all", "sum_of_a_large_range", "list_times", "text_times", "text_formatted", "shift"),
    *("recursion", "flood", "flood_that_catches_all", "calls_without_end", "calls_that_catch_all", "value_too_deep"),
    *("value_too_long", "deep_brackets", "deep_blocks", "long_chain", "slow_pattern", "long_message", "deep_json"),
}


@pytest.mark.parametrize(("kind", "name"), each(RUNAWAYS, FEW))
def test_a_program_without_end_is_ended_by_its_limit(kind, name):
    if kind == "subprocess" and not CONFINED:
        pytest.skip("a process cannot be confined here")
    code, limit = RUNAWAYS[name]
    waits = kind == "subprocess" and name == "nested_sleep"  # which takes no time of the processor

    def check(seconds):
        wall = seconds if waits else None
        limits = sandbox.Limits(seconds=seconds, memory=32_000_000, output=5000, calls=20, depth=100, wall=wall)
        found = MAKERS[kind](limits).run(code, {}, GRANTED)
        assert found.error.limit == ("wall" if waits else limit), found
        assert len(found.stdout) <= 5000
        assert len(found.shown()) < 20_000

    given_time(check, 0.15)


@pytest.mark.parametrize(("kind", "name"), each(BOMBS, FEW))
def test_a_program_that_is_hard_to_read_run_or_report_is_an_error(kind, name):
    if kind == "subprocess" and not CONFINED:
        pytest.skip("a process cannot be confined here")
    limits = sandbox.Limits(seconds=0.5, memory=32_000_000, output=5000, calls=20, depth=100)
    found = MAKERS[kind](limits).run(BOMBS[name], {}, GRANTED)
    assert found.error is not None, found
    assert len(found.shown()) < 20_000


def test_the_next_run_is_whole_again(make):
    def check(seconds):
        with make(seconds=seconds, memory=32_000_000).session() as session:
            joined = "(('a' * 10**5).join(['b'] * 10**5))"
            for code in ("while True: pass", "[0] * 10**12", "x = [1]\nwhile True: x += x", joined):
                assert session.run(code).error is not None
                assert session.run("sum(range(10))") == sandbox.Execution(value=45)

    given_time(check, 0.15)


def test_many_at_once_are_ended_each_for_itself(make):
    import asyncio

    async def all_of_them(interpreter):
        bad = [interpreter.arun(code) for code in ("while True: pass", "[0] * 10**12", "1 / 0")] * 2
        good = [interpreter.arun("sum(range(10))") for _ in range(6)]
        return await asyncio.gather(*bad, *good)

    def check(seconds):
        found = asyncio.run(all_of_them(make(seconds=seconds, memory=32_000_000)))
        assert [one.error is None for one in found] == [False] * 6 + [True] * 6
        assert {one.value for one in found[6:]} == {45}

    given_time(check, 0.2)
