"""BootstrapFinetune on a provider's model: a real server on loopback that has OpenAI's jobs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from promptgrad import Budget, Trainer, lm, nn, optim
from promptgrad.data import Example, pocket
from promptgrad.errors import LMError, NoLMError, UnknownPriceError
from promptgrad.finetune import JobResult
from promptgrad.metrics import exact_match
from promptgrad.testing import LoopbackJobs, LoopbackLM, Status

TRAIN = [Example(question=f"{number} + 1?", answer=str(number + 1)) for number in range(20)]
VAL = [Example(question=f"{number} + 2?", answer=str(number + 2)) for number in range(24)]


def reply(question: str, model: str) -> str:
    """Right for 16 of the training questions; the trained model is always right."""
    first, _, second = question.splitlines()[1].strip("?").split()
    right = model.startswith("ft:") or (second == "1" and int(first) < 16)
    return f"[[ ## answer ## ]]\n{int(first) + int(second) if right else 'no'}\n\n[[ ## completed ## ]]"


@pytest.fixture
def jobs() -> LoopbackJobs:
    return LoopbackJobs()


@pytest.fixture
def server(jobs: LoopbackJobs) -> Iterator[LoopbackLM]:
    with LoopbackLM(
        lambda messages: reply(messages[-1]["content"], made.requests[-1].json["model"]), jobs=jobs
    ) as made:
        yield made


@pytest.fixture
def program(server: LoopbackLM) -> nn.Predict:
    return nn.Predict("question -> answer").to(lm.resolve("openai/tiny", base_url=server.url, api_key="sk-1"))


def trainer(program: nn.Predict, optimizer: optim.BootstrapFinetune, **options: Any) -> Trainer:
    return Trainer(program, optimizer, metric=exact_match, progress=False, **options)


def test_the_trainer_ships_the_program_on_the_provider_s_new_model(
    program: nn.Predict, jobs: LoopbackJobs, server: LoopbackLM
) -> None:
    optimizer = optim.BootstrapFinetune(
        program, max_rounds=1, max_labeled_demos=0, epochs=2, batch_size=4, job={"suffix": "sums", "poll": 0.001}
    )
    result = trainer(program, optimizer).fit(TRAIN, VAL)
    assert isinstance(optimizer.result, JobResult)
    assert result.shipped
    assert result.after is not None
    assert result.after.mean > 0.9
    assert program.lm is not None
    assert program.lm.name == "openai/ft:tiny:loopback:sums:1"
    assert program(question="40 + 2?").answer == "42"
    ((_, _, data),) = jobs.files.values()
    rows = [json.loads(line) for line in data.splitlines()]
    assert len(rows) == optimizer.result.samples == 16
    assert all("no" not in row["messages"][-1]["content"] for row in rows)
    (asked,) = jobs.jobs.values()
    assert asked["method"]["supervised"]["hyperparameters"] == {"n_epochs": 2, "batch_size": 4}


def test_a_run_that_was_stopped_while_the_job_went_on_resumes_without_a_second_one(
    program: nn.Predict, jobs: LoopbackJobs, server: LoopbackLM, tmp_path: Path
) -> None:
    def optimizer() -> optim.BootstrapFinetune:
        return optim.BootstrapFinetune(program, max_rounds=1, max_labeled_demos=0, job={"poll": 0.001})

    jobs.script(None, None, Status(401))  # the upload, the job, the first look at it
    with pytest.raises(LMError):
        trainer(program, optimizer(), run_dir=tmp_path / "run").fit(TRAIN, VAL)
    assert (len(jobs.files), len(jobs.jobs)) == (1, 1)
    asked = len(server.requests)
    result = Trainer.resume(tmp_path / "run", program, optimizer(), exact_match, progress=False)
    assert result.shipped
    assert (len(jobs.files), len(jobs.jobs)) == (1, 1)
    before = [request.json for request in server.requests[:asked] if request.path.endswith("/chat/completions")]
    after = [request.json for request in server.requests[asked:] if request.path.endswith("/chat/completions")]
    assert len(before) >= len(TRAIN)
    assert after
    assert not [request for request in after if request in before]  # what was run for the samples is not run again


def test_a_budget_in_money_is_refused_before_any_run(
    program: nn.Predict, jobs: LoopbackJobs, server: LoopbackLM
) -> None:
    assert program.lm is not None
    with pytest.raises(UnknownPriceError):
        trainer(program, optim.BootstrapFinetune(program), budget=Budget(usd=1)).fit(TRAIN, VAL)
    assert not jobs.requests


def test_a_budget_of_seconds_ends_the_wait(program: nn.Predict, jobs: LoopbackJobs) -> None:
    jobs.statuses = ["running"]
    optimizer = optim.BootstrapFinetune(program, max_rounds=1, max_labeled_demos=0, job={"poll": 0.01})
    result = trainer(program, optimizer, budget=Budget(seconds=3)).fit(TRAIN, VAL)
    assert not result.shipped
    assert "the search ended" in str(result)
    assert len(jobs.jobs) <= 1  # none where the machine is so slow that the runs took all the time
    assert program.lm is not None
    assert program.lm.name == "openai/tiny"


@pytest.mark.parametrize("option", [{"steps": 3}, {"lr": 1e-3}, {"lora": None}, {"dtype": "bfloat16"}])
def test_options_of_another_kind_of_model_are_refused_before_any_run(
    program: nn.Predict, server: LoopbackLM, option: dict[str, Any]
) -> None:
    (name,) = option
    with pytest.raises(ValueError, match=f"{name}= is of a local model"):
        trainer(program, optim.BootstrapFinetune(program, **option)).fit(TRAIN, VAL)


def test_job_options_are_known_and_of_a_provider() -> None:
    model = nn.Predict("text -> answer").to(lm.pocket())
    with pytest.raises(TypeError, match="'sufix'; it has model, suffix"):
        optim.BootstrapFinetune(model, job={"sufix": "x"})
    with pytest.raises(ValueError, match="job= is of a provider's model"):
        trainer(model, optim.BootstrapFinetune(model, job={"suffix": "x"})).fit(
            *pocket.task("label-map-kind", seed=3).split(20, 20)
        )
    nobody = nn.Predict("question -> answer").to(lm.FunctionLM(lambda messages: "x"))
    with pytest.raises(NoLMError, match="runs on no local model"):
        trainer(nobody, optim.BootstrapFinetune(nobody)).fit(TRAIN, VAL)
