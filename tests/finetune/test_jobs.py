"""Jobs at a provider, against a real server on loopback that has OpenAI's files and jobs."""

from __future__ import annotations

import asyncio
import copy
import json
import os
import pickle
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from promptgrad import lm, nn, run
from promptgrad.data import Example
from promptgrad.errors import (
    AuthenticationError,
    BadRequestError,
    DataError,
    JobError,
    LMStatusError,
    NoLMError,
    UnknownPriceError,
)
from promptgrad.finetune import (
    Conversation,
    JobEvent,
    Preference,
    TrainingJob,
    ajob,
    attach,
    collect,
    job,
    sft,
)
from promptgrad.finetune._job_server import JobServer
from promptgrad.testing import Cut, Drop, Fields, Garbage, LoopbackJobs, LoopbackLM, Status
from tests.killed_at import killed_at

KEY = "sk-very-secret-0123456789"
DATA = [Example(question=f"{number} + 1?", answer=str(number + 1)) for number in range(12)]


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.fixture
def jobs() -> LoopbackJobs:
    return LoopbackJobs()


@pytest.fixture
def server(jobs: LoopbackJobs) -> Iterator[LoopbackLM]:
    with LoopbackLM(Fields(answer="4"), jobs=jobs) as made:
        yield made


@pytest.fixture
def program(server: LoopbackLM) -> nn.Predict:
    return nn.Predict("question -> answer").to(lm.resolve("openai/tiny", base_url=server.url, api_key=KEY, top_p=0.5))


def begin(program: nn.Module, data: Any = DATA, **options: Any) -> TrainingJob:
    return job(program, data, **{"poll": 0.001, **options})


def sent(jobs: LoopbackJobs) -> list[dict[str, Any]]:
    ((name, purpose, data),) = jobs.files.values()
    assert name.startswith("promptgrad-")
    assert purpose == "fine-tune"
    return [json.loads(line) for line in data.splitlines()]


def test_from_labels_to_the_program_on_the_new_model(
    program: nn.Predict, server: LoopbackLM, jobs: LoopbackJobs
) -> None:
    begun = begin(program, suffix="mine", epochs=3, learning_rate_multiplier=0.5, seed=7)
    assert begun.status == "validating_files"
    assert not begun.done()
    rows = sent(jobs)
    assert len(rows) == begun.samples == 12
    assert rows[2]["messages"][:-1] == program.render(question="2 + 1?")
    assert rows[2]["messages"][-1]["role"] == "assistant"
    assert "\n3\n" in rows[2]["messages"][-1]["content"]
    (asked,) = jobs.jobs.values()
    assert {name: asked[name] for name in ("model", "suffix", "seed", "method", "training_file")} == {
        "model": "tiny",
        "suffix": "mine",
        "seed": 7,
        "method": {
            "type": "supervised",
            "supervised": {"hyperparameters": {"n_epochs": 3, "learning_rate_multiplier": 0.5}},
        },
        "training_file": "file-1",
    }

    result = begun.result()
    assert (result.model, result.job, result.samples) == ("ft:tiny:loopback:mine:1", "ftjob-1", 12)
    assert (result.losses, result.trained_tokens, result.seconds) == ((2.0, 1.0, 0.5), 1234, 900.0)
    assert begun.events[-1] == JobEvent("Step 3/3: training loss=0.5", "info", 3, 3, 0.5)
    assert repr(begun) == "TrainingJob('ftjob-1': succeeded, 'tiny', 12 samples, loss 0.500)"
    assert repr(result) == ("JobResult(ft:tiny:loopback:mine:1: 12 samples, 1,234 tokens trained, loss 2.000 -> 0.500)")
    assert result.program(question="a").answer == "4"
    assert server.requests[-1].json["model"] == "ft:tiny:loopback:mine:1"
    assert server.requests[-1].json["top_p"] == 0.5
    assert server.requests[-1].headers["authorization"] == f"Bearer {KEY}"
    assert result.program.lm is not None
    assert result.program.lm.name == "openai/ft:tiny:loopback:mine:1"
    assert type(result.program.lm) is type(program.lm)  # the layers
    program(question="b")
    assert server.requests[-1].json["model"] == "tiny"  # the program is as it was
    written = pickle.dumps(result.lm)
    assert KEY.encode() not in written
    again = pickle.loads(written)
    assert (again.model, again.name, again.identity()) == (result.model, result.lm.name, result.lm.identity())


class Two(nn.Module):
    def __init__(self, local: lm.LM) -> None:
        super().__init__()
        self.plan = nn.Predict("question -> plan").to(local)
        self.answer = nn.Predict("question, plan -> answer")

    def forward(self, question: str) -> Any:
        return self.answer(question=question, plan=self.plan(question=question).plan)


def test_only_the_modules_on_the_server_and_only_what_the_metric_accepts(
    server: LoopbackLM, jobs: LoopbackJobs
) -> None:
    elsewhere = lm.FunctionLM(Fields(plan="count"), name="elsewhere")
    program = Two(elsewhere)
    program.answer.to(lm.HTTP("tiny", server.url, KEY))
    data = [*DATA, *(Example(question=f"{number} + 0?", answer="4") for number in range(10))]
    done = begin(program, data, metric=lambda example, output: output.answer == example.answer)
    assert done.collected is not None
    assert (done.collected.runs, done.samples) == (22, 11)  # 3 + 1 is 4 as well
    assert all("[[ ## plan ## ]]\ncount" in row["messages"][-2]["content"] for row in sent(jobs))
    result = done.result()
    assert result.program.plan.lm is elsewhere
    assert result.program.answer.lm is result.lm
    assert result.lm.model == "ft:tiny:loopback::1"


def test_a_model_from_the_context_keeps_its_layers(server: LoopbackLM) -> None:
    program = nn.Predict("question -> answer")
    with lm.context(lm=lm.Cache(lm.HTTP("tiny", server.url, KEY))):
        result = begin(program).result()
    assert program.lm is None
    assert isinstance(result.program.lm, lm.Cache)
    assert result.program(question="a").answer == "4"
    assert server.requests[-1].json["model"] == result.model


def test_demos_are_read_and_not_learned(program: nn.Predict, jobs: LoopbackJobs) -> None:
    program.demos.data = DATA[:1]
    begin(program)
    weights = [[m.get("weight") for m in row["messages"] if m["role"] == "assistant"] for row in sent(jobs)]
    assert weights == [[0, None]] * 12


def test_preferences_are_sent_for_direct_preference_optimization(program: nn.Predict, jobs: LoopbackJobs) -> None:
    message = (lm.Message("user", "2 + 2?"),)
    pairs = [Preference(message, f"{number}", "5") for number in range(10)]
    begin(program, pairs, beta=0.2)
    assert sent(jobs)[3] == {
        "input": {"messages": [{"role": "user", "content": "2 + 2?"}]},
        "preferred_output": [{"role": "assistant", "content": "3"}],
        "non_preferred_output": [{"role": "assistant", "content": "5"}],
    }
    assert jobs.jobs["ftjob-1"]["method"] == {"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.2}}}


def test_a_failed_job_says_why_now_and_later(program: nn.Predict, jobs: LoopbackJobs, tmp_path: Path) -> None:
    jobs.statuses, jobs.error = ["queued", "failed"], "line 3 is too long"
    for _ in range(2):
        begun = begin(program, checkpoint=tmp_path / "job")
        with pytest.raises(
            JobError, match=r"ftjob-1 failed: line 3 is too long \(training_file\).*checkpoint="
        ) as caught:
            begun.result()
        assert (caught.value.job, caught.value.status) == ("ftjob-1", "failed")
        assert begun.wait() == "failed"
    assert len(jobs.jobs) == len(jobs.files) == 1


def test_a_job_is_cancelled_once(program: nn.Predict, jobs: LoopbackJobs) -> None:
    jobs.statuses = ["running"]
    begun = begin(program)
    with pytest.raises(TimeoutError, match=r"ftjob-1 is running after 0.01 s.*attach\(program, 'ftjob-1'\)"):
        begun.result(timeout=0.01)
    assert begun.cancel().status == "cancelled"
    with pytest.raises(JobError, match=r"ftjob-1 cancelled$"):
        begun.result()
    with pytest.raises(BadRequestError, match="the job is cancelled"):
        begun.cancel()


def test_statuses_of_other_servers(program: nn.Predict, jobs: LoopbackJobs) -> None:
    jobs.statuses, jobs.events = ["QUEUED", "notRunning", "SUCCESS"], False
    jobs.after = lambda told: [j.update(fine_tuned_model="new") for j in jobs.jobs.values()]  # type: ignore[assignment,func-returns-value]
    begun = begin(program)
    assert begun.status == "queued"
    assert begun.result().losses == ()
    assert sum("events" in told for told in jobs.requests) == 1  # it is not asked again for what it does not have


def test_what_passes_does_not_end_the_wait(program: nn.Predict, jobs: LoopbackJobs) -> None:
    begun = begin(program)
    jobs.script(Status(429), Status(500), Drop(), Garbage(b"<html>"))
    server = JobServer(begun._https[0], sleep=nothing)
    server.api = lm.Api(begun._https[0], sleep=nothing)
    begun._server = server
    assert begun.result().model == "ft:tiny:loopback::1"


async def nothing(seconds: float) -> None:
    await asyncio.sleep(0)


@pytest.mark.parametrize("lost", [Cut(0.0), Cut(0.5), Drop(), Status(500)])
def test_what_may_have_been_done_is_looked_up_before_it_is_done_again(
    program: nn.Predict, jobs: LoopbackJobs, lost: Any
) -> None:
    http = program.lm.transport  # type: ignore[union-attr]
    assert isinstance(http, lm.HTTP)
    jobs.files["file-0"] = ("promptgrad-other.jsonl", "fine-tune", b"")

    async def both() -> tuple[str, dict[str, Any]]:
        server = JobServer(http, nothing)
        jobs.script(Status(429), lost)
        file = await server.upload("mark", b"{}\n", perhaps=False)
        jobs.script(lost, Status(429), None, lost)
        return file, await server.begin("mark", {"model": "tiny", "training_file": file}, perhaps=False)

    file, made = asyncio.run(both())
    assert [name for name, (filename, _, _) in jobs.files.items() if "mark" in filename] == [file]
    assert list(jobs.jobs) == [made["id"]]
    done = isinstance(lost, Cut)
    assert jobs.requests.count("POST files") == (2 if done else 3)
    assert jobs.requests.count("GET files") == 1


def test_a_server_without_metadata_or_lists(program: nn.Predict, jobs: LoopbackJobs) -> None:
    http = program.lm.transport  # type: ignore[union-attr]
    assert isinstance(http, lm.HTTP)
    jobs.refuses, jobs.lists = ["metadata"], False
    assert begin(program).result().job == "ftjob-1"
    assert "metadata" not in jobs.jobs["ftjob-1"]
    jobs.script(None, Cut(0.0))
    with pytest.raises(JobError, match=r"not known whether the job was made.*no list.*attach"):
        asyncio.run(_made(http))
    jobs.lists = True
    for number in range(250):  # the one that is looked for is on a later page
        jobs.jobs[f"ftjob-other-{number}"] = {"id": f"ftjob-other-{number}", "training_file": "file-9"}
    found = asyncio.run(JobServer(http, nothing).begin("m", {"training_file": "file-1"}, perhaps=True))
    assert found["id"] == "ftjob-1"
    assert jobs.requests.count("GET fine_tuning/jobs") == 4


async def _made(http: lm.HTTP) -> Any:
    server = JobServer(http, nothing)
    file = await server.upload("again", b"{}\n", perhaps=False)
    return await server.begin("again", {"model": "tiny", "training_file": file}, perhaps=False)


@pytest.mark.parametrize(
    ("data", "options", "said"),
    [
        (DATA[:9], {}, "at least 10 records, and there are 9"),
        ([*DATA, Example(question="?", answer="x" * 400)], {"max_length": 120}, "1 of 13 records are longer than 120"),
        ([Conversation((lm.Message("user", "a"),), "  ")] * 10, {}, "nothing to learn"),
        (
            [Conversation((lm.Message("user", (lm.ImagePart(b"x", "image/png"),)),), "a")] * 10,
            {},
            "record 1 cannot be written as 'openai'",
        ),
        ([*DATA, Example(question=f"my key is {KEY}", answer="x")], {}, "record 13 holds the key of this server"),
        ([*DATA, Example(question="tok-0123456789abcdef", answer="x")], {}, r"record 13 holds the value of \$MY_TOKEN"),
        ([Conversation((lm.Message("user", "a"),), "b", path="elsewhere")] * 10, {}, "nothing to learn"),
        (DATA, {"beta": 0.1}, "beta= is of preferences"),
        (DATA, {"poll": 0}, "poll is a number of seconds above 0"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_sent(
    program: nn.Predict,
    jobs: LoopbackJobs,
    monkeypatch: pytest.MonkeyPatch,
    data: Any,
    options: dict[str, Any],
    said: str,
) -> None:
    monkeypatch.setenv("MY_TOKEN", "tok-0123456789abcdef")
    with pytest.raises(ValueError, match=said) as caught:
        begin(program, data, **options)
    assert KEY not in str(caught.value)
    assert jobs.requests == []


def test_long_samples_can_be_left_out(program: nn.Predict, jobs: LoopbackJobs) -> None:
    begun = begin(program, [*DATA, Example(question="?", answer="x" * 400)], max_length=120, skip_long=True)
    assert begun.samples == len(sent(jobs)) == 12


def test_where_no_job_can_be_given(server: LoopbackLM, program: nn.Predict) -> None:
    with pytest.raises(NoLMError, match=r"no model of a server.*finetune\.sft"):
        begin(nn.Predict("question -> answer").to(lm.FunctionLM(lambda messages: "x", name="f")))
    with pytest.raises(NoLMError, match=r"finetune\.job\(program, data\)"):
        sft(program, DATA)
    two = Two(lm.HTTP("one", server.url))
    two.answer.to(lm.HTTP("two", server.url))
    with pytest.raises(NoLMError, match="2 models"):
        begin(two)
    with pytest.raises(AuthenticationError, match=r"there is no key for https://api.openai.com/v1"):
        begin(nn.Predict("question -> answer").to(lm.HTTP("gpt-4o-mini")))
    with run.active(ledger=run.Ledger(run.Budget(usd=1))), pytest.raises(UnknownPriceError, match="money budget"):
        begin(program)
    with LoopbackLM() as bare:
        bare.script(Status(404, message="no such path"))
        with pytest.raises(BadRequestError, match=r"answered 404 to POST files: .*no such path") as caught:
            begin(nn.Predict("question -> answer").to(lm.HTTP("tiny", bare.url, KEY)))
        assert KEY not in str(caught.value)


def test_a_folder_goes_on_and_is_of_one_job(
    program: nn.Predict, server: LoopbackLM, jobs: LoopbackJobs, tmp_path: Path
) -> None:
    folder = tmp_path / "job"
    first = begin(program, metric=accepts, checkpoint=folder)
    calls = len(server.requests)
    second = begin(program, metric=accepts, checkpoint=folder)
    assert (first.id, first.samples) == (second.id, second.samples) == ("ftjob-1", 12)
    assert len(server.requests) == calls  # nothing is collected again
    assert second.result().losses == (2.0, 1.0, 0.5)
    written = "".join(path.read_text() for path in folder.iterdir())
    assert KEY not in written
    asked = len(jobs.requests)
    assert begin(program, metric=accepts, checkpoint=folder).result().losses == (2.0, 1.0, 0.5)
    assert len(jobs.requests) == asked  # an ended job is known
    other = copy.deepcopy(program)
    other.instruction.data = "Add."
    for changed, options in ((program, {"epochs": 2}), (program, {"n": 2}), (other, {})):
        with pytest.raises(DataError, match="with other data, another program or other settings"):
            begin(changed, metric=accepts, checkpoint=folder, **options)
    (folder / "train.jsonl").write_text("{}\n")
    with pytest.raises(DataError, match=r"train\.jsonl was changed"):
        begin(program, metric=accepts, checkpoint=folder)
    (folder / "job.json").write_text("[")
    with pytest.raises(DataError, match="cannot be read"):
        begin(program, metric=accepts, checkpoint=folder)


def accepts(example: Example, output: Any) -> float:
    return 1.0


def test_one_process_begins(program: nn.Predict, jobs: LoopbackJobs, tmp_path: Path) -> None:
    folder = tmp_path / "job"
    seen: list[str] = []

    def again(told: str) -> None:
        if told == "POST files" and not seen:
            seen.append(told)
            with ThreadPoolExecutor(1) as other, pytest.raises(JobError, match="another process begins a job"):
                other.submit(job, program, DATA, checkpoint=folder).result()

    jobs.before = again
    assert begin(program, checkpoint=folder).result().job == "ftjob-1"
    assert seen == ["POST files"]


def test_ctrl_c_leaves_the_job_running_and_says_how_to_go_on(program: nn.Predict, jobs: LoopbackJobs) -> None:
    jobs.statuses = ["running"]
    begun = begin(program)
    looks = len(jobs.requests) + 4

    def press(told: str) -> None:
        if len(jobs.requests) == looks:
            os.kill(os.getpid(), signal.SIGINT)

    jobs.after = press
    with pytest.raises(KeyboardInterrupt, match=r"ftjob-1 is running and goes on; .*cancel\(\) ends it"):
        begun.result()
    assert jobs.jobs["ftjob-1"]["status"] == "running"
    jobs.statuses = ["succeeded"]
    assert attach(program, "ftjob-1", poll=0.001).result().model == "ft:tiny:loopback::1"


def test_from_a_coroutine(program: nn.Predict) -> None:
    async def whole() -> str:
        begun = await ajob(program, DATA, poll=0.001)
        assert (await begun.arefresh()) is begun
        return (await begun.aresult()).model

    assert asyncio.run(whole()) == "ft:tiny:loopback::1"


def test_an_unknown_job(program: nn.Predict) -> None:
    unknown = attach(program, "ftjob-9")
    assert unknown.status == "unknown"
    with pytest.raises(LMStatusError, match="no job ftjob-9"):
        unknown.refresh()


def test_collected_conversations_are_sent_as_they_are(program: nn.Predict, jobs: LoopbackJobs) -> None:
    collected = collect(program, DATA, accepts)
    assert begin(program, collected).samples == 12
    assert sent(jobs)[0]["messages"][-1]["content"] == collected.samples[0].reply


WORK = """
import aiohttp  # once, for all forks
from promptgrad import finetune, lm, nn
from promptgrad.data import Example

def accepts(example, output):
    return 1.0

def work(name):
    program = nn.Predict("question -> answer").to(lm.HTTP("tiny", url, "sk-very-secret-0123456789"))
    data = [Example(question=f"{name} {number}", answer="4") for number in range(10)]
    begun = finetune.job(program, data, accepts, suffix=name, checkpoint=folder / name, poll=0.001)
    (folder / f"{name}.txt").write_text(begun.result().model)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_process_that_is_killed_at_any_moment_sends_nothing_twice(
    server: LoopbackLM, jobs: LoopbackJobs, tmp_path: Path
) -> None:
    moments: list[list[Any]] = [
        ["replace", 1, "after"],  # the samples are written, the state is not
        ["replace", 3, "after"],  # about to upload
        ["request", 1, "after"],  # uploaded, no answer
        ["replace", 4, "before"],  # the answer is there and not noted
        ["replace", 5, "after"],  # about to create
        ["request", 2, "after"],  # created, no answer
        ["replace", 6, "before"],  # the answer is there and not noted
        ["replace", 7, "before"],  # it has ended, which is not noted
    ]
    killed_at(moments, WORK, server, jobs, tmp_path)
    for moment in moments:
        name = "-".join(map(str, moment))
        (made,) = [one for one in jobs.jobs.values() if one["suffix"] == name]
        (file,) = [key for key, (_, _, data) in jobs.files.items() if f"{name} 0".encode() in data]
        assert made["training_file"] == file
        assert (tmp_path / f"{name}.txt").read_text() == made["fine_tuned_model"]
        asked = sum(f"{name} 0" in request.prompt for request in server.requests)
        assert asked == (2 if moment == ["replace", 1, "after"] else 1)


def test_a_record_is_as_long_as_a_token_for_four_bytes_and_one_for_each_text(program):
    made = [
        Conversation((lm.Message("user", "q" * 40), lm.Message("user", "\u00e9" * 20)), "a" * size) for size in (8, 12)
    ]
    with pytest.raises(DataError, match="2 of 20 records are longer than 25 tokens"):
        begin(program, [made[0]] * 18 + [made[1]] * 2, max_length=25)
