"""GRPO, end to end on the embedded model: what earns credit, what is learned, and what a run is worth."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest

from promptgrad import aio, lm, nn
from promptgrad.adapters import PocketAdapter
from promptgrad.autograd import LossRow
from promptgrad.data import Example, pocket
from promptgrad.errors import DataError, JournalError, NoLMError, ParseError, StateDictError
from promptgrad.finetune import Rollouts, TuneResult, agrpo, grpo, sft
from promptgrad.finetune._memory import checkpointed_in_eval
from promptgrad.finetune._policy import Policy, PolicyOptions
from promptgrad.finetune._rollouts import graded
from promptgrad.finetune._sample import arollouts
from promptgrad.finetune._training import Training, TuneSettings
from promptgrad.run import Journal, active

torch = pytest.importorskip("torch")
pytest.importorskip("peft")

TASK = pocket.task("color-of-last", seed=3)
TRAIN = TASK.split(32, 1, 1)[0]

Data = tuple[list[Example], list[Example], list[Example]]


def colors() -> nn.Predict:
    """It knows that a color is wanted, and not of which word."""
    return nn.Predict("text -> answer", instruction=TASK.instruction("partial")).to(lm.pocket())


def odd(example: Example, output: Any) -> float:
    """A score that differs between the replies to every prompt."""
    return float(len(str(output.answer)) % 2)


def accuracy(program: nn.Module, examples: Sequence[Example]) -> float:
    batch = program.map(examples)
    return sum(float(pocket.metric(e, o)) for e, o in zip(examples, batch, strict=True)) / len(examples)


def policy(program: nn.Module, n: int = 4, local: lm.Local | None = None) -> Policy:
    options = PolicyOptions(n, 1.0, 0.2, 1, 0.0, False, 1.0)
    return Policy(program, [local or lm.pocket()], options, TuneSettings(None, 4, 1e-4, 4))


def runs_of(made: Policy, examples: Sequence[Example], metric: Any, n: int = 4) -> Sequence[LossRow]:
    made.sampling(0)
    return aio.run(arollouts(made.program, examples, metric, n))


@pytest.fixture(scope="module")
def half(task: pocket.Task, data: Data) -> nn.Module:
    """It knows the labels of a label map, and not always which is whose."""
    program = nn.Predict("text -> answer", instruction=task.instruction("vague")).to(lm.pocket())
    return sft(program, data[0][:16], steps=14, lora=None, lr=5e-4).program


@pytest.fixture(scope="module")
def learned(half: nn.Module, data: Data) -> TuneResult:
    return grpo(half, data[0], pocket.metric, steps=14, n=6, lora=None, lr=1e-3)


def test_the_reward_rises(half: nn.Module, learned: TuneResult, data: Data) -> None:
    assert isinstance(learned.collected, Rollouts)
    rewards = learned.collected.rewards
    assert sum(rewards[-4:]) > sum(rewards[:4]) + 0.8
    before, model = accuracy(half, data[2]), half.lm
    assert accuracy(learned.program, data[2]) > before + 0.2
    assert half.lm is model  # the program and its model are as they were
    assert accuracy(half, data[2]) == before
    assert learned.program.lm is learned.lm
    assert learned.lm.options == model.options  # greedy again
    assert not learned.lm.weights()


def test_the_result_tells_what_was_done(learned: TuneResult) -> None:
    found = learned.collected
    assert isinstance(found, Rollouts)
    assert found.runs == 14 * 48
    assert len(learned.losses) == sum(step.calls > 0 for step in found)
    assert learned.samples == sum(step.calls for step in found)
    assert all(step.calls <= 6 * (step.groups - step.alike) for step in found)
    assert 0 < found.alike < 14 * 8
    assert found.errors == found.unreadable == 0
    assert not learned.interrupted
    assert repr(found) == f"Rollouts(14 steps, 672 runs, {found.alike} groups alike, 0 errors)"
    assert f"reward {found.rewards[0]:.3f} -> {found.rewards[-1]:.3f}" in repr(learned)


def test_one_result_at_any_concurrency() -> None:
    options = {"steps": 2, "n": 4, "batch_size": 4, "lora": {"r": 2}, "lr": 1e-3, "inner": 2, "kl": 0.05, "seed": 5}
    one = grpo(colors(), TRAIN, odd, concurrency=1, **options)
    many = asyncio.run(agrpo(colors(), TRAIN, odd, concurrency=16, **options))
    assert one.lm.name == many.lm.name
    assert one.losses == many.losses
    assert one.collected == many.collected
    assert all(torch.equal(a, b) for a, b in zip(one.lm.model.parameters(), many.lm.model.parameters(), strict=True))


class Chain(nn.Module):
    """Finds a word twice, each time with the local model, and has another LM judge what it found."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Predict("text -> answer", instruction=TASK.instruction("partial")).to(lm.pocket())
        self.judge = nn.Predict("text -> answer").to(lm.FunctionLM(lambda messages: "fine", adapter="pocket"))

    def forward(self, text: str) -> Any:
        found = self.first(text=text)
        again = self.first(text=text) if " " in text else found
        self.judge(text=found.answer)
        return again


def test_every_call_on_the_local_model_has_the_advantage_of_its_run() -> None:
    made = policy(Chain())
    rows = runs_of(made, TRAIN[:3], odd)
    found = graded(rows, *made.lms)
    assert (found.runs, found.groups, found.errors) == (12, 3, 0)
    wanted = []
    for start in range(0, 12, 4):
        scores = [row.score for row in rows[start : start + 4]]
        if len(set(scores)) > 1:
            for row in rows[start : start + 4]:
                nodes = [node for node in row.tape.nodes if node.path == "first"]
                assert len(nodes) == 2
                wanted += [
                    (tuple(node.weight_traces[0].ids), pytest.approx(row.score - sum(scores) / 4)) for node in nodes
                ]
    assert wanted
    assert [(reply.tokens.ids[reply.tokens.start :], reply.advantage) for reply in found.replies] == wanted
    assert {reply.tokens.temperature for reply in found.replies} == {1.0}
    assert found.reward == pytest.approx(sum(row.score for row in rows) / 12)


def test_what_was_recorded_when_sampling_is_what_the_ratio_is_to() -> None:
    """The first pass computes what sampling computed, except for the last digits."""
    made = policy(colors())
    traces = [row.tape.nodes[0].weight_traces[0] for row in runs_of(made, TRAIN[:2], TASK.metric)]
    for trace in traces:
        assert trace.log_likelihood().tolist() == pytest.approx(list(trace.logprobs), abs=1e-4)


def test_groups_that_are_alike_are_skipped_and_cost_no_update() -> None:
    made = policy(colors())
    scores = [1.0, 1.0, 1.0, 1.0, 0.0, 1.0, 0.0, 0.0]
    rows = [replace(row, score=score) for row, score in zip(runs_of(made, TRAIN[:2], odd), scores, strict=True)]
    found = graded(rows, *made.lms)
    assert (found.alike, found.groups, len(found.replies)) == (1, 2, 4)
    same = graded(rows[:4], *made.lms)
    step = made.learn(same)
    assert (step.calls, step.alike, made.training.losses) == (0, 1, [])
    assert step.loss is None
    made.learn(found)
    assert len(made.training.losses) == 1


def test_a_reply_that_cannot_be_read_earns_the_penalty_and_is_learned_from() -> None:
    kind = Literal["red", "blue", "green", "grey"]
    program = nn.Predict("text -> answer: kind", types={"kind": kind}, instruction=TASK.instruction("partial"))
    free = lm.pocket(constrain=False)  # a reply that is held to its form can always be read
    made = policy(program.to(free), 8, free)
    rows = runs_of(made, TRAIN[:3], lambda example, output: 1.0, 8)
    unread = [isinstance(row.error, ParseError) for row in rows]
    assert 0 < sum(unread) < 24
    found = graded(rows, *made.lms, format_penalty=0.5)
    assert (found.unreadable, found.errors) == (sum(unread), 0)
    assert found.reward == pytest.approx((24 - 1.5 * sum(unread)) / 24)
    for start in range(0, 24, 8):
        assert sum(unread[start : start + 8]) in range(9)
    bad = {tuple(row.tape.nodes[0].weight_traces[0].ids) for row in rows if row.error is not None}
    assert found.replies
    for reply in found.replies:
        assert (reply.advantage < 0) == (reply.tokens.ids[reply.tokens.start :] in bad)


class Asks(PocketAdapter):
    """Asks again, as adapters of larger models do."""

    def repair_messages(self, completion: lm.Completion, error: ParseError) -> tuple[lm.Message, ...]:
        return (lm.Message("assistant", completion.text), lm.Message("user", "[[answer]]"))


def test_a_reply_after_which_the_module_asked_again_counts_as_unreadable_alone() -> None:
    kind = Literal["red", "blue", "green", "grey"]
    program = nn.Predict(
        "text -> answer: kind", types={"kind": kind}, instruction=TASK.instruction("partial"), adapter=Asks()
    )
    free = lm.pocket(constrain=False)  # a reply that is held to its form can always be read
    made = policy(program.to(free), 8, free)
    rows = runs_of(made, TRAIN[:4], lambda example, output: float(output.answer == "red"), 8)
    asked = [row for row in rows if row.error is None and len(row.tape.nodes[0].weight_traces) == 2]
    assert asked
    found = graded(rows, *made.lms, format_penalty=1.0)
    known = {tuple(row.tape.nodes[0].weight_traces[0].ids) for row in rows if len(row.tape.nodes[0].weight_traces) == 2}
    first = [reply for reply in found.replies if tuple(reply.tokens.ids[reply.tokens.start :]) in known]
    assert first
    assert all(reply.advantage < 0 for reply in first)


def test_ctrl_c_returns_what_was_learned_and_raises_before_the_first_update() -> None:
    seen: list[int] = []

    def metric(example: Example, output: Any) -> float:
        seen.append(1)
        if len(seen) == stop:
            os.kill(os.getpid(), signal.SIGINT)
        return odd(example, output)

    options = {"steps": 50, "n": 4, "batch_size": 4, "lora": None, "lr": 1e-4}
    stop = 40
    result = grpo(colors(), TRAIN, metric, **options)
    assert result.interrupted
    assert len(result.losses) == len(result.collected) == 2
    seen.clear()
    stop = 3
    with pytest.raises(KeyboardInterrupt):
        grpo(colors(), TRAIN, metric, **options)


def test_a_killed_training_goes_on_from_its_last_checkpoint(tmp_path: Path) -> None:
    """With the same weights as one that was never killed; the steps that are done are not run again."""
    asked: list[int] = []

    async def runs(program: nn.Module, examples: Sequence[Example], n: int, step: int) -> Sequence[LossRow]:
        asked.append(step)
        if step == kill:
            raise SystemError("killed")
        return await arollouts(program, examples, odd, n)

    options: dict[str, Any] = {"steps": 4, "n": 4, "batch_size": 3, "inner": 2, "lora": {"r": 2}, "runs": runs}
    kill = -1
    whole = grpo(colors(), TRAIN, **options)
    kill = 3
    options |= {"checkpoint": tmp_path / "grpo", "checkpoint_every": 2}
    with pytest.raises(SystemError):
        grpo(colors(), TRAIN, **options)
    kill = -1
    asked.clear()
    again = grpo(colors(), TRAIN, **options)
    assert asked == [3]
    assert again.collected == whole.collected
    assert again.losses == whole.losses
    assert again.lm.name == whole.lm.name
    assert all(torch.equal(a, b) for a, b in zip(again.lm.model.parameters(), whole.lm.model.parameters(), strict=True))
    with pytest.raises(StateDictError, match="holds the training of pocket"):
        grpo(colors(), TRAIN, **{**options, "kl": 0.1})


def test_runs_on_record_are_given_again_and_not_learned_from_again(tmp_path: Path) -> None:
    asked: list[int] = []

    async def runs(program: nn.Module, examples: Sequence[Example], n: int, step: int) -> Sequence[LossRow]:
        asked.append(step)
        if step == kill:
            raise SystemError("killed")
        return await arollouts(program, examples, even if step == other else odd, n)

    def even(example: Example, output: Any) -> float:
        return 1 - odd(example, output)

    def lived(folder: str) -> TuneResult:
        options: dict[str, Any] = {"steps": 4, "n": 4, "batch_size": 3, "inner": 2, "lora": {"r": 2}}
        options |= {"checkpoint": tmp_path / folder, "checkpoint_every": 1, "runs": runs, "replayed": True}
        with active(journal=journal):
            return grpo(colors(), TRAIN, **options)

    kill, other, journal = 3, -1, Journal()
    with pytest.raises(SystemError):
        lived("killed")
    paid, kill = journal.paid, -1
    asked.clear()
    for other, told in ((0, "not on record"), (2, "3 steps from other runs than those on record: remove it")):
        with pytest.raises(JournalError, match=told):
            lived("killed")
        assert asked == [0, 1, 2][: other + 2]
        assert journal.paid == paid
        asked.clear()
    other = -1
    again = lived("killed")
    assert asked == [0, 1, 2, 3]
    assert journal.paid == paid + 12
    whole = lived("whole")
    assert journal.paid == paid + 12  # the same weights are known by the same name
    assert again.collected == whole.collected
    assert again.lm.identity() == whole.lm.identity()


def test_runs_of_ones_own_and_a_limit_on_them() -> None:
    asked: list[tuple[int, int, int]] = []

    async def runs(program: nn.Module, examples: Sequence[Example], n: int, step: int) -> Sequence[LossRow]:
        asked.append((len(examples), n, step))
        return await arollouts(program, examples, odd, n)

    result = grpo(colors(), TRAIN, n=3, batch_size=5, rollouts=44, lora=None, lr=1e-4, runs=runs)
    assert asked == [(5, 3, 0), (5, 3, 1)]
    assert result.collected.runs == 30
    assert not result.interrupted


@pytest.mark.parametrize(
    "option", [{"gradient_checkpointing": True}, {"dtype": "bfloat16"}, {"micro_batch_tokens": 64}], ids=str
)
def test_what_makes_a_training_fit_changes_its_gradient_by_rounding_alone(
    option: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both learn from the same replies, and the layers tell what they were computed in."""
    grads: list[list[Any]] = []
    seen: list[tuple[bool, Any]] = []
    parts: list[int] = []

    def kept(self: Training, gradient: Any, batch: Sequence[str] = ()) -> float | None:
        forward = vars(self.model).pop("forward", None)  # what computes in another type
        if forward is not None:
            gradient()
            grads[0] = [weight.grad.clone() for weight in self.weights.values()]
            self.optimizer.zero_grad()
            self.model.forward = forward
        loss: float = gradient()
        grads.append([weight.grad.clone() for weight in self.weights.values()])
        parts.append(self.share.limit)
        self.optimizer.zero_grad()
        self.losses.append(loss)
        return loss

    def look(module: Any, args: Any, output: Any) -> None:
        if isinstance(module, torch.nn.Linear) and torch.is_grad_enabled():
            seen.append((False, output.dtype))
        elif getattr(module, "gradient_checkpointing", False):
            seen.append((module.training, None))

    monkeypatch.setattr(Training, "step", kept)
    program = colors()
    made: list[TuneResult] = []
    for options in ({}, option):
        seen.clear()
        hook = torch.nn.modules.module.register_module_forward_hook(look)
        try:
            made.append(grpo(program, TRAIN[:4], odd, n=4, batch_size=4, steps=1, lora=None, **options))
        finally:
            hook.remove()
    plain, other = (torch.cat([grad.flatten() for grad in found]) for found in grads)
    assert float(plain.norm()) > 0
    assert float((plain - other).norm() / plain.norm()) < (0.1 if "dtype" in option else 1e-4)
    assert ((True, None) in seen) == ("gradient_checkpointing" in option)
    assert ((False, torch.bfloat16) in seen) == ("dtype" in option)
    assert parts[1] == option.get("micro_batch_tokens", parts[0])
    model = made[1].lm.model
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    assert "forward" not in vars(model)
    assert not any(module.training or getattr(module, "gradient_checkpointing", False) for module in model.modules())


def test_layers_that_drop_out_on_their_own_are_not_checkpointed() -> None:
    class Layer(torch.nn.Module):  # type: ignore[misc] # torch is not typed here
        gradient_checkpointing, dropout = True, 0.1

        def __init__(self) -> None:
            super().__init__()
            self.dropout = 0.1

    with pytest.raises(ValueError, match=r"would drop out \(dropout=0.1 of Layer\)"), checkpointed_in_eval(Layer()):
        pass


def test_errors_say_what_to_do() -> None:
    program, metric = colors(), TASK.metric
    with pytest.raises(NoLMError, match="runs on no local model"):
        grpo(nn.Predict("text -> answer").to(lm.FunctionLM(str)), TRAIN, metric)
    with pytest.raises(DataError, match="a metric has to score the runs"):
        grpo(program, TRAIN)
    with pytest.raises(DataError, match="the data is empty"):
        grpo(program, [], metric)
    with pytest.raises(DataError, match=r"in none of 4 groups \(16 runs\) two runs differ.*temperature=1.0"):
        grpo(program, TRAIN, lambda example, output: 0.5, steps=1, n=4, batch_size=4)
    with pytest.raises(ZeroDivisionError):
        grpo(program, TRAIN, metric, steps=1, runs=broken)
    for wrong, message in (
        ({"n": 1}, "n is .* at least 2"),
        ({"inner": 0}, "inner is at least 1"),
        ({"temperature": 0.0}, "temperature is a number above 0"),
        ({"kl": -1.0}, "kl is a number of at least 0"),
        ({"clip": 0.0}, "clip is a bound above 0"),
        ({"rollouts": 63}, "a step takes n . batch_size = 64 runs, and rollouts= allows 63"),
        ({"lora": {"dropout": 0.1}}, "leave dropout= out"),
        ({"steps": 0}, "steps is at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            grpo(program, TRAIN, metric, **wrong)


def test_replies_that_are_no_numbers_end_the_training_with_what_was_learned(tmp_path: Path) -> None:
    """The rate of the first step leaves weights whose logits are NaN; nobody can sample from those."""
    options: dict[str, Any] = {"n": 4, "batch_size": 4, "steps": 4, "lr": 1e30, "checkpoint": tmp_path}
    with pytest.warns(
        UserWarning, match=r"after 1 steps, as the replies are no numbers.*its batch: example [0-9a-f]+,.*at the start"
    ):
        result = grpo(colors(), TRAIN, odd, **options)
    assert (result.interrupted, len(result.losses), len(result.collected.steps)) == (True, 1, 1)
    with pytest.warns(UserWarning, match="as the replies are no numbers"):
        again = grpo(colors(), TRAIN, odd, **options)
    assert again.lm.name == result.lm.name
    assert result.program(text=TRAIN[0].text).answer  # its weights are those at the start


def test_nothing_to_learn_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is nothing to learn"):
        grpo(colors(), TRAIN[:2], lambda *_: 0.5, steps=1, n=2, batch_size=2, checkpoint=tmp_path / "run")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match=r"checkpoint= goes into a folder, and '.*file' is a file"):
        grpo(colors(), TRAIN[:2], odd, steps=1, n=2, batch_size=2, checkpoint=tmp_path / "file" / "run")


async def broken(program: nn.Module, examples: Sequence[Example], n: int, step: int) -> Sequence[LossRow]:
    raise ZeroDivisionError
