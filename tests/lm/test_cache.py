import asyncio
import multiprocessing
import os
import pathlib
import shutil
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
import warnings
from decimal import Decimal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from promptgrad import aio, run
from promptgrad.errors import BudgetExceeded, DataError, LMConnectionError
from promptgrad.lm import HTTP, Cache, Completion, FunctionLM, Message, Prefix, Request, Usage, track_usage
from promptgrad.lm._store import Store


class Counted:
    """A function that counts its calls and names them in its replies."""

    def __init__(self):
        self.calls = 0

    def __call__(self, messages):
        self.calls += 1
        return f"reply {self.calls}"


@pytest.fixture
def counted():
    return Counted()


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "not" / "made" / "yet"


@pytest.fixture
def open_cache(counted, folder):
    made = []

    def make(path=folder, **options):
        made.append(Cache(FunctionLM(counted, name="f"), path, **options))
        return made[-1]

    yield make
    for cache in made:
        cache.close()


def test_a_repeated_request_is_answered_from_memory(counted):
    lm = Cache(FunctionLM(counted))
    first, second = lm("q", temperature=1), lm("q", temperature=1)
    assert (first.text, first.cached, first.usage.calls) == ("reply 1", False, 1)
    assert (second.text, second.cached, second.usage) == ("reply 1", True, Usage(cached=1))
    assert lm("q", temperature=1, replicate=1).text == "reply 2"
    assert lm("q", temperature=0).text == "reply 3"
    assert lm("other").text == "reply 4"
    assert len(lm) == 4


def test_usage_counts_hits_apart(counted):
    lm = Cache(FunctionLM(counted))
    with track_usage() as usage:
        for _ in range(3):
            lm("q")
    assert (usage.calls, usage.cached) == (1, 2)


def test_the_least_recently_used_goes_first(counted):
    lm = Cache(FunctionLM(counted), max_entries=2)
    lm("a"), lm("b"), lm("a"), lm("c")
    assert counted.calls == 3
    lm("a"), lm("c")
    assert counted.calls == 3
    lm("b")
    assert counted.calls == 4


def test_clear_forgets(counted):
    lm = Cache(FunctionLM(counted))
    lm("a")
    lm.clear()
    lm("a")
    assert counted.calls == 2


def test_the_endpoint_is_part_of_the_key(server, folder):
    from promptgrad.testing import LoopbackLM

    with LoopbackLM(respond="other") as other:
        one, two = Cache(HTTP("m", server.url), folder), Cache(HTTP("m", other.url), folder)
        assert one("q").text == "echo q"
        assert two("q").text == "other"
        one.close(), two.close()


def test_errors_are_not_cached(server):
    from promptgrad.testing import Drop

    lm = Cache(HTTP("m", server.url))
    server.script(Drop())
    with pytest.raises(LMConnectionError):
        lm("q")
    assert lm("q").text == "echo q"
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    "rubbish",
    [
        Completion(""),
        Completion(" \n\t"),
        Completion("Paris is", finish_reason="error"),
        Completion("Paris is", finish_reason="network_error"),
        Completion("Paris is", finish_reason="content_filter"),
        Completion("Paris is", finish_reason="SAFETY"),
    ],
)
def test_a_reply_that_is_worth_nothing_is_asked_for_anew(rubbish, folder):
    replies = iter([rubbish, "Paris"])
    lm = Cache(FunctionLM(lambda messages: next(replies), name="f"), folder)
    assert [lm("q").text, lm("q").text, lm("q").text] == [rubbish.text, "Paris", "Paris"]
    lm.close()


def test_what_an_earlier_version_kept_of_it_is_a_miss(counted, folder, open_cache):
    lm = open_cache()
    lm("q")
    lm._memory.store.put(Request.of("q").digest(lm.lm.identity()), Completion("  "))
    lm.close()
    lm = open_cache()
    assert [lm("q").text, lm("q").text] == ["reply 2", "reply 2"]


def test_equal_requests_in_flight_are_sent_once(server):
    lm = Cache(HTTP("m", server.url))
    server.hold()

    async def many():
        return await asyncio.gather(*[lm.acall("q") for _ in range(20)])

    done = []
    threads = [threading.Thread(target=lambda: done.append(lm("q"))) for _ in range(4)]
    threads.append(threading.Thread(target=lambda: done.extend(aio.run(many()))))
    for thread in threads:
        thread.start()
    server.wait_for(1)
    server.release()
    for thread in threads:
        thread.join(60)
    assert [c.text for c in done] == ["echo q"] * 24
    assert len(server.requests) == 1
    assert sum(c.usage.calls for c in done) == 1


def test_a_failure_reaches_all_who_wait(server):
    from promptgrad.testing import Drop

    lm = Cache(HTTP("m", server.url))
    server.hold()
    server.script(Drop())

    async def many():
        return await asyncio.gather(*[lm.acall("q") for _ in range(5)], return_exceptions=True)

    found = []
    thread = threading.Thread(target=lambda: found.extend(aio.run(many())))
    thread.start()
    server.wait_for(1)
    server.release()
    thread.join(60)
    assert [type(error) for error in found] == [LMConnectionError] * 5


def test_the_end_of_one_runs_budget_is_no_answer_to_another_caller():
    busy, over = aio.Signal(), aio.Signal()
    asked = []

    async def answer(messages):
        asked.append(messages[-1].content)
        if asked == ["first"]:
            busy.set(None)
            await over
        return "here"

    lm = Cache(FunctionLM(answer, name="slow"))

    async def in_run():
        with run.active(ledger=run.Ledger(run.Budget(calls=1))):
            first = asyncio.create_task(lm.acall("first"))
            await busy
            return await asyncio.gather(first, lm.acall("second"), return_exceptions=True)

    async def outside():
        await busy
        for _ in range(5):  # until the run's second call waits for what its first one leaves
            await asyncio.sleep(0)
        second = asyncio.create_task(lm.acall("second"))
        for _ in range(5):
            await asyncio.sleep(0)
        over.set(None)
        return await second

    async def main():
        return await asyncio.gather(in_run(), outside())

    (first, refused), second = asyncio.run(main())
    assert (first.text, second.text) == ("here", "here")
    assert isinstance(refused, BudgetExceeded)
    assert asked == ["first", "second"]


def test_when_the_first_caller_is_cancelled_the_next_one_sends(server):
    lm = Cache(HTTP("m", server.url))

    async def main():
        server.hold()
        first = asyncio.ensure_future(lm.acall("q"))
        await asyncio.to_thread(server.wait_for, 1)
        second = asyncio.ensure_future(lm.acall("q"))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.to_thread(server.wait_for, 2)
        server.release()
        with pytest.raises(asyncio.CancelledError):
            await first
        return (await second).text

    assert asyncio.run(main()) == "echo q"


def test_a_hit_costs_nothing_even_if_the_reply_came_from_a_cache_of_the_server():
    lm = Cache(FunctionLM(lambda messages: Completion("r", Usage(1, 100, 100, 0.5), "m", cached=True), name="f"))
    assert lm("q").usage.usd == 0.5
    with track_usage() as usage:
        hit = lm("q")
    assert (hit.cached, hit.usage) == (True, Usage(cached=1))
    assert usage.total == Usage(cached=1)


def test_a_hit_does_not_suspend(counted):
    lm = Cache(FunctionLM(counted))
    lm("q")
    with pytest.raises(StopIteration):
        lm.complete(Request.of("q")).send(None)


def test_disk(counted, folder, open_cache):
    completion = Completion('ü "x"\n\ud800', Usage(1, 5, 2, 0.25, 0, 1.5), "m", "length")
    lm = open_cache()
    lm._memory.store.put(Request.of("other").digest(lm.identity()), completion)
    assert lm("q").text == "reply 1"
    lm.flush()
    again = open_cache()
    hit = again("q")
    assert (hit.text, hit.cached, counted.calls) == ("reply 1", True, 1)
    assert again("other") == completion.as_cached()
    assert len(again) == 2
    assert [p.name for p in folder.iterdir() if p.suffix == ".db"] == ["lm.db"]
    assert "lm.db" in repr(lm)


def test_a_path_may_name_the_file(tmp_path, open_cache):
    open_cache(tmp_path / "mine.db")("q")
    assert (tmp_path / "mine.db").exists()


def test_what_was_put_is_there_before_it_is_written(counted, open_cache, monkeypatch):
    gate = threading.Event()
    monkeypatch.setattr("promptgrad.lm._store.insert_rows", lambda *_: gate.wait(60))
    lm = open_cache(max_entries=1)
    lm("a"), lm("b")
    assert lm("a").text == "reply 1"
    assert counted.calls == 2
    gate.set()


def test_it_can_be_used_after_close(counted, open_cache):
    lm = open_cache()
    lm("q")
    lm.close()
    lm.clear()
    assert lm("q").cached
    lm("other")
    lm.close()
    assert len(open_cache()) == 2


def test_a_damaged_entry_is_a_miss(counted, folder, open_cache):
    lm = open_cache()
    lm("q")
    lm.close()
    database = sqlite3.connect(folder / "lm.db")
    with database:
        database.execute("UPDATE completion SET reply='[1, 2'")
    database.close()
    lm.clear()
    with pytest.warns(RuntimeWarning, match="cannot read the cache"):
        assert lm("q").text == "reply 2"


def test_a_reply_that_has_no_json_stops_no_other_from_being_written(folder, open_cache):
    def answer(messages):
        model = Decimal("0.1") if messages[-1].content == "odd" else "m"
        return Completion("r", Usage(1, 1, 1, 0.01), model)

    lm = Cache(FunctionLM(answer, name="f"), folder)

    def ask(*questions):
        for question in questions:
            lm(question)
        lm.flush()

    with pytest.warns(RuntimeWarning, match="cannot write a reply to the cache .*Decimal"):
        ask("a", "odd", "b")
    ask("c")
    lm.close()
    other = open_cache()
    assert len(other) == 3
    assert [other(question).cached for question in ("a", "b", "c", "odd")] == [True, True, True, False]


def test_a_file_that_went_away_stops_no_call(counted, folder, open_cache):
    lm = open_cache()
    lm("q")
    lm.close()
    shutil.rmtree(folder)
    with pytest.warns(RuntimeWarning, match="cannot read the cache .*going on without it"):
        assert lm("another").text == "reply 2"
    assert lm("another").cached


@pytest.mark.parametrize("size", ["text", "zeros", "half", "page"])
def test_a_broken_file_is_set_aside_and_a_new_one_begun(counted, folder, open_cache, size):
    lm = open_cache()
    for number in range(200):
        lm(f"q{number}")
    lm.close()
    file = folder / "lm.db"
    data = file.read_bytes()
    broken = {"text": b"no database" * 900, "zeros": bytes(len(data)), "half": data[: len(data) // 2]}
    broken["page"] = data[:4096] + b"\xaa" * (len(data) - 4096)
    file.write_bytes(broken[size])
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        again = open_cache()
        for number in range(200):
            assert again(f"q{number}").text == f"reply {counted.calls}"
    assert "lm.db.broken now, and a new one is begun" in str(told[0].message)
    assert (folder / "lm.db.broken").read_bytes() == broken[size]
    again.close()
    assert all(open_cache()(f"q{number}").cached for number in range(200))


def test_a_file_that_breaks_while_it_is_open_ends_nothing(counted, folder, open_cache):
    lm = open_cache()
    lm("q")
    lm.close()
    lm("r")  # it is open again
    lm.flush()
    with open(folder / "lm.db", "r+b") as file:
        file.truncate(1000)
    lm.clear()
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        for number in range(50):
            lm(f"more {number}")
        lm.close()
        again = open_cache()
        assert again("q").text in ("reply 1", f"reply {counted.calls}")


@settings(max_examples=100, deadline=None)
@given(place=st.integers(min_value=0), bit=st.integers(min_value=0, max_value=7))
@example(place=4017, bit=7)  # in the text of the schema, which SQLite quotes
def test_no_flipped_bit_makes_another_reply(tmp_path_factory, place, bit):
    folder = tmp_path_factory.mktemp("flip")
    lm = Cache(FunctionLM(lambda messages: f"the answer to {messages[-1].content}", name="f"), folder)
    for number in range(20):
        lm(f"q{number}")
    lm.close()
    data = bytearray((folder / "lm.db").read_bytes())
    data[place % len(data)] ^= 1 << bit
    (folder / "lm.db").write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        again = Cache(FunctionLM(lambda messages: "asked again", name="f"), folder)
        for number in range(20):
            reply = again(f"q{number}")
            assert reply.text == (f"the answer to q{number}" if reply.cached else "asked again")
        again.close()


def test_entries_without_a_checksum_are_read(counted, folder, open_cache):
    lm = open_cache()
    lm("q")
    lm.close()
    database = sqlite3.connect(folder / "lm.db")
    with database:
        (reply,) = database.execute("SELECT reply FROM completion").fetchone()
        database.execute("UPDATE completion SET reply=?", (reply.splitlines()[0],))
        database.execute("PRAGMA user_version=2")
    database.close()
    assert open_cache()("q").cached


ALONE = """
import os, sys, warnings
from promptgrad.lm import Cache, FunctionLM
other = Cache(FunctionLM(lambda messages: "", name="f"), sys.argv[2])
other("imports everything")
other.close()
if os.geteuid() == 0:  # whom no mode stops
    os.setgid(65534), os.setuid(65534)
warnings.simplefilter("always")
lm = Cache(FunctionLM(lambda messages: "asked", name="f"), sys.argv[1])
print(lm("q").text, lm("r").text, lm("r").text)
lm.close()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no modes")
@pytest.mark.parametrize("there", [True, False])
def test_a_folder_that_cannot_be_written_is_only_read(tmp_path, there):
    with tempfile.TemporaryDirectory() as above:  # whose folders others may enter
        folder = pathlib.Path(above) / "cache"
        folder.mkdir()
        if there:
            lm = Cache(FunctionLM(lambda messages: "kept", name="f"), folder)
            lm("q")
            lm.close()
            (folder / "lm.db").chmod(0o444)
        pathlib.Path(above).chmod(0o755)
        folder.chmod(0o555)
        environment = {**os.environ, "PYTHONPATH": os.getcwd(), "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, "-c", ALONE, str(folder), str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        folder.chmod(0o755)
    assert done.stdout.split() == ["kept" if there else "asked", "asked", "asked"], done.stderr
    assert done.stderr.count("RuntimeWarning") == 1, done.stderr
    assert ("only reading it" if there else "going on without it") in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no modes")
def test_its_files_are_for_their_owner_alone(folder, open_cache):
    before = os.umask(0)
    try:
        lm = open_cache()
        lm("q")
        lm.flush()
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    finally:
        os.umask(before)
    assert modes == dict.fromkeys(("lm.db", "lm.db-wal", "lm.db-shm"), 0o600)


def test_a_newer_file_is_refused(tmp_path):
    database = sqlite3.connect(tmp_path / "lm.db")
    database.execute("PRAGMA user_version=99")
    database.close()
    with pytest.raises(ValueError, match="newer version"):
        Cache(FunctionLM(str), tmp_path)


def test_memory_has_room_for_one():
    with pytest.raises(ValueError, match="at least 1"):
        Cache(FunctionLM(str), max_entries=0)


def test_an_entry_is_small(open_cache, folder):
    prefix = Prefix([Message("system", "x" * 200)])
    lm = Cache(FunctionLM(lambda messages: "y" * 100), folder)
    for i in range(500):
        lm(Request(prefix, (Message("user", str(i)),)))
    lm.close()
    assert sum(file.stat().st_size for file in folder.iterdir()) / 500 <= 1000


WRITER = """
import sys
from promptgrad.lm import Cache, FunctionLM
lm = Cache(FunctionLM(lambda messages: messages[-1].content, name="f"), sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
for i in range(100):
    lm(f"{sys.argv[2]} {i}")
    lm(f"common {i}")
lm.flush()
print(len(lm), flush=True)
if sys.argv[2] == "killed":
    import os
    for i in range(100_000):
        lm(f"more {i}")
        if i == 200:
            print("going", flush=True)
lm.close()
"""


def test_many_processes_write_and_one_is_killed(folder, open_cache, counted):
    names = ["one", "two", "killed"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    writers = {n: subprocess.Popen([sys.executable, "-c", WRITER, str(folder), n], **pipes) for n in names}
    try:
        for writer in writers.values():
            assert writer.stdout.readline() == "ready\n"
        for writer in writers.values():
            writer.stdin.write("go\n")
            writer.stdin.flush()
        for writer in writers.values():
            assert int(writer.stdout.readline()) >= 200
        assert writers["killed"].stdout.readline() == "going\n"
        writers["killed"].kill()
        for name in ("one", "two"):
            assert writers[name].wait(60) == 0
    finally:
        for writer in writers.values():
            writer.kill()
            writer.wait(60)
            writer.stdin.close()
            writer.stdout.close()
    lm = open_cache()
    for name in [*names, "common"]:
        for i in range(100):
            assert lm(f"{name} {i}").text == f"{name} {i}"
    assert counted.calls == 0
    database = sqlite3.connect(folder / "lm.db")
    assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    database.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_reads_and_writes(folder, open_cache, counted):
    lm = open_cache()
    lm("before")
    lm.flush()
    child = multiprocessing.get_context("fork").Process(target=lambda: (lm("before"), lm("child"), lm.flush()))
    child.start()
    child.join(60)
    assert child.exitcode == 0
    lm.clear()
    assert lm("child").text == "reply 2"
    assert lm("before").text == "reply 1"
    assert counted.calls == 1


def test_a_store_opens_without_blocking_readers(tmp_path):
    one, two = Store(tmp_path / "a.db"), Store(tmp_path / "a.db")
    key = Request.of("q").digest()
    one.put(key, Completion("x"))
    one.flush()
    locker = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
    locker.execute("BEGIN IMMEDIATE")
    assert two.get(key).text == "x"
    locker.execute("ROLLBACK")
    locker.close()
    one.close(), two.close()
    assert "a.db" in repr(one)


# ---------------------------------------------------------------------------------------- inside a run


def test_a_hit_counts_in_a_run_as_the_journal_would_count_it(counted, tmp_path):
    path = tmp_path / "journal.jsonl"
    warm = Cache(FunctionLM(counted, name="f"))
    warm("known before the run")

    def go(lm):
        with run.Journal(path) as journal:
            with run.active(journal=journal) as session:
                texts = [lm(prompt).text for prompt in ("known before the run", "new", "new", "known before the run")]
            return texts, session.ledger.spent.calls, journal.digest()

    first = go(warm)
    assert first[0] == ["reply 1", "reply 2", "reply 2", "reply 1"]
    assert counted.calls == 2
    cold = go(Cache(FunctionLM(counted, name="f")))  # resumed in a process whose cache is empty
    assert cold == first
    assert go(warm) == first
    assert counted.calls == 2


def test_an_empty_cache_is_true():
    lm = Cache(FunctionLM(lambda request: "x", "f"))
    assert len(lm) == 0
    assert (lm or None) is lm


# ---- bounds, lists, exports


class Clock:
    def __init__(self):
        self.now = 1e9

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def echo(messages):
    return Completion(messages[-1].content, Usage(1, 1, 1), "small" if len(messages[-1].content) < 10 else "large")


@pytest.fixture
def open_echo(tmp_path, clock):
    made = []

    def make(path=tmp_path / "echo", **options):
        made.append(Cache(FunctionLM(echo, name="echo"), path, clock=clock, **options))
        return made[-1]

    yield make
    for cache in made:
        cache.close()


def key_of(cache, text):
    return Request.of(text).digest(cache.lm.identity())


def test_memory_is_bounded_by_bytes(open_echo):
    lm = open_echo(None, max_bytes=250)
    for letter in "abcd":
        lm(letter * 100)
    assert [lm(letter * 100).cached for letter in "dcab"] == [True, True, False, False]
    assert lm._memory.size == 200
    lm("e" * 1000)  # more than there is room for
    assert not lm("e" * 1000).cached


def test_a_file_is_bounded_and_the_least_recently_used_goes(open_echo, clock):
    lm = open_echo(max_file_entries=3, max_entries=1)
    for text in "abc":
        clock.now += 1
        lm(text)
        lm.flush()
    clock.now += 2 * 3600
    assert lm("a").cached
    lm("d"), lm.flush()
    again = open_echo()
    assert [again(text).cached for text in "abcd"] == [True, False, True, True]


def test_a_file_is_bounded_by_bytes(open_echo, clock):
    lm = open_echo(max_file_bytes=3000)
    for number in range(30):
        clock.now += 1
        lm(f"{number:03}" * 100)
    lm.flush()
    entries = lm.entries()
    assert sum(entry.size for entry in entries) <= 3000
    assert entries[-1].key == key_of(lm, "029" * 100)
    assert 1 <= len(entries) < 10


def test_a_use_is_written_once_an_hour(open_echo, clock):
    first = open_echo()
    first("a"), first.close()
    for later, used in ((600, 0), (4000, 4000), (4100, 4000)):
        clock.now = 1e9 + later
        lm = open_echo()
        assert lm("a").cached
        (entry,) = lm.entries()
        assert (entry.made, entry.used) == (1e9, 1e9 + used)


def test_entries_are_listed_with_their_model_and_size(open_echo, clock):
    for lm in (open_echo(), open_echo(None)):
        lm("short")
        clock.now += 1
        lm("x" * 50)
        entries = lm.entries()
        assert [(entry.model, entry.key) for entry in entries] == [
            ("small", key_of(lm, "short")),
            ("large", key_of(lm, "x" * 50)),
        ]
        assert [entry.size for entry in lm.entries("large")] >= [50]
        assert "large" in repr(entries[1])


def test_prune(open_echo, clock):
    lm = open_echo()
    for text in ("a", "b", "long " * 5, "c", "d"):
        clock.now += 10
        lm(text)
    assert lm.prune(model="large") == 1
    assert lm.prune(older_than=30, model="large") == 0
    assert lm.prune(older_than=35) == 1
    assert lm.prune(max_entries=2) == 1
    assert [lm(text).cached for text in ("a", "b", "c", "d", "long " * 5)] == [False, False, True, True, False]
    assert lm.prune(max_bytes=1) == 5
    assert len(lm) == 0
    with pytest.raises(ValueError, match="what to remove"):
        lm.prune()
    for wrong in ({"older_than": -1}, {"max_entries": -1}):
        with pytest.raises(ValueError, match="ages and bounds of at least 0"):
            lm.prune(**wrong)


def test_prune_in_memory(open_echo):
    lm = open_echo(None)
    for text in "abc":
        lm(text)
    assert lm.prune(max_entries=1) == 2
    assert [lm(text).cached for text in "cab"] == [True, False, False]
    with pytest.raises(ValueError, match="keeps no times"):
        lm.prune(unused_for=1)


def test_pruning_gives_space_back(open_echo, tmp_path):
    lm = open_echo()
    for number in range(300):
        lm(f"{number}" + "x" * 5000)
    lm.close()
    before = (tmp_path / "echo" / "lm.db").stat().st_size
    lm.prune(max_entries=10)
    lm.close()
    assert (tmp_path / "echo" / "lm.db").stat().st_size < before / 5


def test_export_load_and_diff(open_echo, tmp_path):
    lm, other = open_echo(), open_echo(tmp_path / "other")
    for text in ("a", "b", "\ud800"):
        lm(text)
    assert lm.export(tmp_path / "out.jsonl") == 3
    other("b"), other("c")
    difference = other.diff(tmp_path / "out.jsonl")
    assert (difference.here, difference.same) == ((key_of(lm, "c"),), 1)
    assert difference.there == tuple(sorted([key_of(lm, "a"), key_of(lm, "\ud800")]))
    assert other.load(tmp_path / "out.jsonl") == 2
    assert other("\ud800").cached
    other._memory.put(key_of(lm, "b"), Completion("another"))
    other.flush()
    difference = other.diff(lm)
    assert (difference.changed, difference.there, difference.same) == ((key_of(lm, "b"),), (), 2)
    assert "1 changed" in repr(difference)
    assert not lm.diff(tmp_path / "out.jsonl")


@pytest.mark.parametrize(
    "text", ["", "{}\n", "[1]\n", '{"format": "promptgrad cache 1"}\n{"key": "zz", "reply": {"text": "a"}}\n']
)
def test_what_is_no_export_is_refused(open_echo, tmp_path, text):
    (tmp_path / "out.jsonl").write_text(text)
    if text:
        with pytest.raises(DataError, match=r"out\.jsonl, line"):
            open_echo().load(tmp_path / "out.jsonl")
    else:
        assert open_echo().load(tmp_path / "out.jsonl") == 0


def test_a_file_of_an_earlier_version_is_listed_and_bounded(open_echo, tmp_path, clock):
    lm = open_echo()
    for text in "abc":
        lm(text)
    lm.close()
    database = sqlite3.connect(tmp_path / "echo" / "lm.db")
    with database:
        database.execute("DROP TABLE entry")  # as it was before
    database.close()
    lm = open_echo()
    assert [(entry.model, entry.made) for entry in lm.entries()] == [("", 0)] * 3
    assert lm("a").cached
    lm.close()
    lm = open_echo(max_file_entries=2)
    lm("d"), lm.flush()
    assert {entry.key for entry in lm.entries()} == {key_of(lm, "a"), key_of(lm, "d")}


def test_bounds_are_checked(open_echo):
    with pytest.raises(ValueError, match="max_bytes is at least 1, not"):
        open_echo(None, max_bytes=0)
    with pytest.raises(ValueError, match="give path="):
        open_echo(None, max_file_entries=3)
