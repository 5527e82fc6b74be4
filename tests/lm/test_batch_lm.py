"""`BatchLM`: collected, uploaded, awaited, read; its errors, prices and folders; and processes killed at any moment."""

import asyncio
import json
import sys

import pytest

import promptgrad as pg
from promptgrad import aio, nn, run
from promptgrad.errors import (
    BadRequestError,
    ContextWindowError,
    DataError,
    JobError,
    LMError,
    LMReplyError,
    LMStatusError,
    RateLimitError,
    ServerTimeoutError,
    UnknownPriceError,
)
from promptgrad.lm import HTTP, BatchLM, Cache, FunctionLM, Request, Usage, track_usage
from promptgrad.testing import Cut, Drop, LoopbackJobs, LoopbackLM, Reply, Status
from tests.killed_at import killed_at
from tests.waiting import until

KEY = "sk-never-to-be-seen-0123456789"


def echo(messages):
    return f"echo {messages[-1]['content']}"


@pytest.fixture
def jobs():
    return LoopbackJobs(respond=echo)


@pytest.fixture
def server(jobs):
    with LoopbackLM("not in a batch", jobs=jobs) as running:
        yield running


async def soon(seconds):
    await aio.sleep(min(seconds, 0.03))


@pytest.fixture
def batch(server):
    made = []

    def make(folder=None, *, idle=0.05, model="tiny", prices=(10.0, 20.0), **settings):
        http = HTTP(model, server.url, KEY, prices=prices, **settings.pop("http", {}))
        made.append(BatchLM(http, folder, idle=idle, poll=0.001, **settings))
        return made[-1]

    yield make
    for lm in made:
        lm.close()


def ask(lm, texts, **options):
    """Ask all at once; the replies, and errors as they are."""

    async def asked():
        return await asyncio.gather(*[lm.acall(text, **options) for text in texts], return_exceptions=True)

    return asyncio.run(asked())


def lines(jobs):
    return [
        [json.loads(line) for line in data.splitlines()]
        for name, purpose, data in jobs.files.values()
        if purpose == "batch"
    ]


class TestRequests:
    def test_what_comes_together_is_one_job_and_each_gets_its_own_reply(self, batch, jobs, server):
        lm = batch()
        replies = ask(lm, ["a", "b", "c"], temperature=0.5)
        assert [reply.text for reply in replies] == ["echo a", "echo b", "echo c"]
        (sent,) = lines(jobs)
        assert [line["body"]["messages"][0]["content"] for line in sent] == ["a", "b", "c"]
        assert {(line["method"], line["url"]) for line in sent} == {("POST", "/v1/chat/completions")}
        assert sent[0]["body"] | {"messages": 0} == {"messages": 0, "model": "tiny", "temperature": 0.5}
        (made,) = jobs.batches.values()
        assert (made["endpoint"], made["completion_window"]) == ("/v1/chat/completions", "24h")
        assert server.received == 0
        assert lm.stats()["jobs"] == 1

    def test_the_body_is_that_of_a_request_without_a_batch(self, batch, jobs, server):
        options = {"temperature": 0.5, "seed": 3, "replicate": 2, "top_k": 4, "max_tokens": 9, "stop": ["x"]}
        ask(batch(), ["a"], **options)
        HTTP("tiny", server.url, KEY)("a", **options)
        assert lines(jobs)[0][0]["body"] == server.requests[0].json

    def test_equal_requests_are_one_and_replicates_are_not(self, batch, jobs):
        async def several(lm):
            calls = [lm.acall("a"), lm.acall("a"), lm.acall("a", replicate=1)]
            return await asyncio.gather(*calls)

        with track_usage() as used:
            assert len(asyncio.run(several(batch()))) == 3
        assert len(lines(jobs)[0]) == 2
        assert (used.calls, used.cached) == (2, 1)

    def test_a_job_has_no_more_requests_than_it_may(self, batch, jobs):
        ask(batch(max_requests=2), list("abcde"))
        assert sorted(map(len, lines(jobs))) == [1, 2, 2]
        ask(batch(max_bytes=300), [letter * 100 for letter in "abcd"])
        assert len(jobs.batches) > 4

    def test_a_program_is_evaluated_in_it(self, batch, jobs):
        jobs.respond = lambda messages: "[[ ## answer ## ]]\nParis"
        dev = [pg.Example(question=f"{n}?", answer="Paris").with_inputs("question") for n in range(20)]
        program = nn.Predict("question -> answer").to(batch())
        report = pg.evaluate(program, dev, pg.metrics.exact_match, concurrency=20, progress=False)
        assert (report.score, len(jobs.batches)) == (1.0, 1)

    def test_a_stream_has_its_pieces_afterwards(self, batch):
        async def collect():
            return [event async for event in batch().stream("a b")]

        *pieces, completion = asyncio.run(collect())
        assert "".join(piece.text for piece in pieces) == completion.text == "echo a b"

    def test_a_caller_that_leaves_leaves_the_others(self, batch):
        lm = batch()

        async def leave():
            tasks = [asyncio.ensure_future(lm.acall(text)) for text in "ab"]
            await asyncio.sleep(0)
            tasks[0].cancel()
            return await asyncio.gather(*tasks, return_exceptions=True)

        gone, stayed = asyncio.run(leave())
        assert isinstance(gone, asyncio.CancelledError)
        assert stayed.text == "echo b"


class TestPrices:
    def test_half_the_price(self, batch, jobs):
        jobs.respond = Reply("x", usage=(1000, 100))
        lm = batch()
        (reply,) = ask(lm, ["a"])
        assert reply.usage.usd == pytest.approx((10.0 * 1000 + 20.0 * 100) / 2e6)
        assert lm.prices == (5.0, 10.0)
        assert batch(discount=0.25).prices == (2.5, 5.0)

    def test_a_budget_is_kept_with_the_prices_of_a_batch(self, batch):
        with run.active(ledger=run.Ledger(pg.Budget(usd=1.0))) as active:
            ask(batch(), ["a"])
            assert 0 < active.ledger.spent.usd < 1e-3
        with run.active(ledger=run.Ledger(pg.Budget(usd=1.0))):
            (error,) = ask(batch(model="unknown-to-all", prices=None), ["a"])
        assert isinstance(error, UnknownPriceError)

    def test_a_cache_around_it_shares_its_replies_with_the_lm(self, batch, server, jobs, tmp_path):
        lm = Cache(batch(), tmp_path)
        ask(lm, ["a"])
        lm.flush()
        other = Cache(HTTP("tiny", server.url, KEY), tmp_path)
        assert other("a").cached
        assert server.received == 0
        other.close(), lm.close()


class TestErrors:
    def test_a_line_that_failed_is_an_error_of_its_kind(self, batch, jobs):
        answers = {
            "long": Status(400, message="x", kind="context_length_exceeded"),
            "bad": Status(400, message="no"),
            "busy": Status(429, message="x", kind="rate_limit_exceeded"),
        }
        jobs.respond = lambda messages: answers.get(messages[-1]["content"], "fine")
        long, bad, busy, fine = ask(batch(), ["long", "bad", "busy", "fine"])
        assert [type(error) for error in (long, bad, busy)] == [ContextWindowError, BadRequestError, RateLimitError]
        assert "in a batch" in str(bad)
        assert fine.text == "fine"

    def test_an_error_is_not_kept(self, batch, jobs, tmp_path):
        jobs.respond = Status(500)
        lm = batch(tmp_path)
        assert isinstance(ask(lm, ["a"])[0], LMStatusError)
        jobs.respond = "at last"
        assert ask(lm, ["a"])[0].text == "at last"
        lm.close()
        assert ask(batch(tmp_path), ["a"])[0].text == "at last"
        assert len(jobs.batches) == 2

    def test_what_expired(self, batch, jobs):
        jobs.batch_statuses = ["in_progress", "expired"]
        jobs.respond = lambda messages: "done" if messages[-1]["content"] == "first" else None
        first, second = ask(batch(), ["first", "second"])
        assert first.text == "done"
        assert isinstance(second, ServerTimeoutError)

    @pytest.mark.parametrize(
        ("status", "kind", "said"),
        [("failed", BadRequestError, "the file is odd"), ("cancelled", LMReplyError, "is cancelled")],
    )
    def test_a_job_that_failed(self, batch, jobs, status, kind, said):
        jobs.batch_statuses, jobs.error = ["validating", status], "the file is odd"
        for error in ask(batch(), ["a", "b"]):
            assert type(error) is kind
            assert said in str(error)

    def test_a_line_that_is_missing(self, batch, jobs):
        jobs.respond = lambda messages: None if messages[-1]["content"] == "a" else "b"
        missing, there = ask(batch(), ["a", "b"])
        assert isinstance(missing, LMReplyError)
        assert there.text == "b"

    def test_what_the_server_does_not_take_is_left_out_in_another_job(self, batch, jobs):
        def picky(messages):
            return Status(400, message="temperature is not supported") if len(jobs.batches) == 1 else "fine"

        jobs.respond = picky
        with pytest.warns(UserWarning, match="does not take a temperature"):
            (reply,) = ask(batch(model="without-temperature"), ["a"], temperature=0.3)
        assert reply.text == "fine"
        assert "temperature" not in lines(jobs)[1][0]["body"]

    def test_a_server_without_batches(self, server, jobs):
        with LoopbackLM("ok") as plain:
            lm = BatchLM(HTTP("tiny", plain.url), idle=0.01, sleep=soon)
            (error,) = ask(lm, ["a"])
            assert isinstance(error, LMError)
            lm.close()

    def test_no_key_is_in_a_folder_or_a_message(self, batch, jobs, tmp_path):
        jobs.script(Status(401, message=f"wrong key {KEY}"))
        lm = batch(tmp_path)
        (error,) = ask(lm, ["a"])
        assert KEY not in str(error) + repr(lm)
        for path in tmp_path.rglob("*"):
            assert path.is_dir() or KEY not in path.read_text()

    @pytest.mark.parametrize("arguments", [{"idle": 0}, {"poll": 0}, {"max_requests": 0}])
    def test_arguments(self, server, arguments):
        with pytest.raises(ValueError, match="above 0"):
            BatchLM(HTTP("tiny", server.url), **arguments)
        with pytest.raises(TypeError, match="of an LM of a server"):
            BatchLM(FunctionLM(str))


class TestFolders:
    def test_lost_answers_are_looked_up(self, batch, jobs, tmp_path):
        jobs.script(Cut(0.5), None, Drop(), Cut(0.5))  # upload lost, found in the list; creation lost twice
        assert ask(batch(tmp_path, sleep=soon), ["a"])[0].text == "echo a"
        assert (len(lines(jobs)), len(jobs.batches)) == (1, 1)

    def test_another_process_has_the_replies_and_asks_for_new_ones_alone(self, batch, jobs, tmp_path):
        lm = batch(tmp_path)
        ask(lm, ["a", "b"])
        lm.close()
        again = batch(tmp_path)
        with track_usage() as used:
            assert [reply.text for reply in ask(again, ["b", "c"])] == ["echo b", "echo c"]
        assert [[line["body"]["messages"][0]["content"] for line in sent] for sent in lines(jobs)] == [
            ["a", "b"],
            ["c"],
        ]
        assert used.calls == 2  # paid once, and counted where it is used
        assert ask(again, ["b"])[0].cached

    @pytest.mark.parametrize("kept", [True, False])
    def test_a_server_that_was_away_is_asked_for_the_same_job(self, batch, jobs, tmp_path, monkeypatch, kept):
        monkeypatch.setattr("promptgrad.lm._batch_lm.OUTAGES", 0)
        lm = batch(tmp_path if kept else None, sleep=soon)
        jobs.script(None, None, *[Status(500)] * 5)
        for error in ask(lm, ["a", "b"]):
            assert type(error) is LMStatusError
        assert [reply.text for reply in ask(lm, ["b", "a"])] == ["echo b", "echo a"]
        assert (len(lines(jobs)), len(jobs.batches)) == (1, 1)

    def test_what_a_batch_had_no_reply_to_is_asked_anew_though_its_asker_had_left(self, batch, jobs):
        async def left(lm):
            asking = asyncio.ensure_future(lm.acall("a"))
            while not lm._entries:
                await asyncio.sleep(0.001)
            asking.cancel()
            await asyncio.wait([asking])

        lm = batch(sleep=soon)
        jobs.respond = lambda messages: None
        asyncio.run(left(lm))
        until(lambda: lm._jobs and lm._jobs[0].ended and not lm._jobs[0].running)
        jobs.respond = "at last"
        assert ask(lm, ["a"])[0].text == "at last"
        assert len(jobs.batches) == 2

    def test_who_asks_again_at_once_finds_that_nobody_sees_to_the_job(self, batch, jobs, monkeypatch):
        monkeypatch.setattr("promptgrad.lm._batch_lm.OUTAGES", 0)
        seen = {}

        async def watched(seconds):
            for name, line in lm._entries.items():
                if name not in seen:
                    seen[name] = []
                    line.done.subscribe(lambda name=name, line=line: seen[name].append(line.job.running))
            await soon(seconds)

        lm = batch(sleep=watched)
        jobs.script(None, None, *[Status(500)] * 5)
        assert [type(error) for error in ask(lm, ["a", "b"])] == [LMStatusError] * 2
        until(lambda: list(seen.values()) == [[False], [False]])  # the last of them is told behind its asker
        assert [reply.text for reply in ask(lm, ["b", "a"])] == ["echo b", "echo a"]

    def test_one_process_at_a_time(self, batch, tmp_path):
        lm = batch(tmp_path)
        with pytest.raises(JobError, match="another process"):
            batch(tmp_path)
        lm.close()
        batch(tmp_path)

    def test_a_folder_of_another_lm_is_refused(self, batch, tmp_path):
        lm = batch(tmp_path)
        ask(lm, ["a"])
        lm.close()
        with pytest.raises(DataError, match="give another folder"):
            batch(tmp_path, model="other")

    def test_a_folder_is_for_its_owner_alone(self, batch, tmp_path):
        ask(batch(tmp_path / "batches"), ["a"])
        modes = {path.stat().st_mode & 0o077 for path in (tmp_path / "batches").rglob("*")}
        assert modes == {0}

    def test_a_resumed_run_sends_nothing(self, batch, jobs, tmp_path):
        def once():
            lm = batch(tmp_path / "batches")
            with run.Journal(tmp_path / "run.jsonl") as journal, run.active(journal=journal):
                found = [reply.text for reply in ask(lm, ["a", "b"])]
            lm.close()
            return found

        assert once() == once() == ["echo a", "echo b"]
        assert len(jobs.batches) == 1


WORK = """
import asyncio
import aiohttp  # once, for all forks
from promptgrad import run
from promptgrad.lm import HTTP, BatchLM

def work(name):
    http = HTTP("tiny", url, "sk-very-secret-0123456789", prices=(1.0, 1.0))
    lm = BatchLM(http, folder / name, idle=0.02, poll=0.001)

    async def all_at_once():
        return await asyncio.gather(*[lm.acall(f"{name} {number}") for number in range(5)])

    with run.Journal(folder / f"{name}.jsonl") as journal, run.active(journal=journal) as active:
        texts = [reply.text for reply in asyncio.run(all_at_once())]
        (folder / f"{name}.txt").write_text(json.dumps([texts, active.ledger.spent.calls]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_process_that_is_killed_at_any_moment_sends_nothing_twice(server, jobs, tmp_path):
    moments = [
        ["replace", 1, "after"],  # the requests are written, the state is not
        ["replace", 3, "after"],  # about to upload
        ["replace", 4, "before"],  # the answer is there and not noted
        ["replace", 5, "after"],  # about to create
        ["request", 2, "after"],  # created, no answer
        ["request", 6, "after"],  # the replies are on their way
        ["replace", 7, "before"],  # they are there and not written
        ["replace", 8, "after"],  # all is written, and nobody has it
    ]
    killed_at(moments, WORK, server, jobs, tmp_path)
    for moment in moments:
        name = "-".join(map(str, moment))
        texts, calls = json.loads((tmp_path / f"{name}.txt").read_text())
        assert (texts, calls) == ([f"echo {name} {number}" for number in range(5)], 5)
        files = [key for key, (_, kind, data) in jobs.files.items() if kind == "batch" and f"{name} 0".encode() in data]
        made = [one for one in jobs.batches.values() if one["input_file_id"] in files]
        assert (len(files), len(made)) == (1, 1), moment


def test_usage_of_a_reply_is_that_of_the_server(batch, jobs):
    jobs.respond = Reply("x", usage=(7, 3), finish_reason="length")
    (reply,) = ask(batch(), [Request.of("a")])
    assert (reply.usage.input_tokens, reply.usage.output_tokens, reply.is_cut) == (7, 3, True)
    assert isinstance(reply.usage, Usage)
