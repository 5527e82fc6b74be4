"""GRPO in the trainer, on the embedded model and a metric that it meets half of the time."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from promptgrad import Budget, Trainer, lm, nn, optim
from promptgrad.data import Example, pocket
from promptgrad.errors import JournalError, NoLMError
from promptgrad.finetune import Rollouts
from tests.optim.of_weights import OfWeights

pytest.importorskip("torch")
pytest.importorskip("peft")
TASK = pocket.task("color-of-last", seed=3)
TRAIN, VAL, TEST = TASK.split(24, 40, 60)


def program() -> nn.Predict:
    return nn.Predict("text -> answer", instruction=TASK.instruction("partial")).to(lm.pocket())


def odd(example: Example, output: Any) -> float:
    """A score that differs between the replies to every prompt: whether the number of letters is odd."""
    return float(len(str(output.answer)) % 2)


def accuracy(model: nn.Module) -> float:
    return sum(odd(example, output) for example, output in zip(TEST, model.map(TEST), strict=True)) / len(TEST)


def test_the_trainer_ships_the_trained_model_and_counts_its_runs(tmp_path: Path) -> None:
    model = program()
    before = accuracy(model)
    optimizer = optim.GRPO(model, n=4, steps=8, lora=None, lr=3e-4)
    trainer = Trainer(model, optimizer, metric=odd, progress=False, run_dir=tmp_path / "run")
    result = trainer.fit(TRAIN, VAL)
    assert result.shipped
    assert optimizer.result is not None
    assert isinstance(optimizer.result.collected, Rollouts)
    assert optimizer.result.collected.runs == 256
    assert result.calls >= 256 + len(VAL)
    assert model.lm is optimizer.result.lm
    assert accuracy(model) > before + 0.2
    assert model.instruction.data == TASK.instruction("partial")
    again = program()
    resumed = Trainer.resume(tmp_path / "run", again, optim.GRPO(again, n=4, steps=8, lora=None, lr=3e-4), odd)
    assert resumed.calls == result.calls


def test_a_journal_cut_before_the_checkpoint_is_not_filled_by_later_weights(tmp_path: Path) -> None:
    """Without the checkpoint the steps are taken again, from what is on record."""

    def optimizer(model: nn.Module) -> optim.GRPO:
        return optim.GRPO(model, n=4, batch_size=2, steps=3, lora=None, lr=3e-4, checkpoint_every=1)

    model, folder = program(), tmp_path / "run"
    result = Trainer(model, optimizer(model), metric=odd, progress=False, run_dir=folder).fit(TRAIN, VAL)
    journal = folder / "journal.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    cut = "".join(lines[: next(place for place, line in enumerate(lines) if '"grpo/2"' in line)])
    journal.write_text(cut)
    model = program()
    with pytest.raises(JournalError, match="not on record, and the weights that gave it are not here: remove"):
        Trainer.resume(folder, model, optimizer(model), odd)
    assert '"kind":"call"' not in journal.read_text().removeprefix(cut)
    shutil.rmtree(folder / "finetune")
    model = program()
    assert Trainer.resume(folder, model, optimizer(model), odd).calls == result.calls


def test_its_options_for_memory_are_those_of_the_training() -> None:
    model = program()
    small = optim.GRPO(
        model, n=4, batch_size=2, steps=1, micro_batch_tokens=128, gradient_checkpointing=True, dtype="bfloat16"
    )
    Trainer(model, small, metric=odd, progress=False).fit(TRAIN[:4], VAL[:4])
    assert small.result is not None
    assert small.result.settings.dtype == "bfloat16"
    with pytest.raises(ValueError, match="micro_batch_tokens is at least 1"):
        Trainer(model, optim.GRPO(model, micro_batch_tokens=0), metric=odd, progress=False).fit(TRAIN[:4], VAL[:4])


def test_a_budget_leaves_what_the_confirmation_needs() -> None:
    model = program()
    optimizer = optim.GRPO(model, n=4, batch_size=4, steps=50, lora=None)
    trainer = Trainer(model, optimizer, metric=odd, progress=False, budget=Budget(calls=200))
    result = trainer.fit(TRAIN, VAL)
    assert result.calls <= 200
    assert optimizer.result is not None
    assert isinstance(optimizer.result.collected, Rollouts)
    assert 2 <= len(optimizer.result.collected) < 10
    assert not optimizer.result.interrupted
    model = program()
    optimizer = optim.GRPO(model)
    small = Trainer(model, optimizer, metric=odd, progress=False, budget=Budget(calls=100)).fit(TRAIN, VAL)
    assert not small.shipped
    assert small.calls <= 100
    assert optimizer.result is None


def test_weights_after_prompts_in_better_together() -> None:
    """The weights learn from runs with the instruction that the phase before found, and both are installed."""

    class Shown(optim.Search):
        kinds = ("demos",)

        async def fit(self, session: optim.Session) -> None:
            candidate = session.base.child({"demos": tuple(TRAIN[:2])}, "two demos")
            session.offer(await session.evaluate(candidate, session.val, scope="shown"))

    model = program()
    weights = optim.GRPO(model, steps=3, n=4, batch_size=4, lora=None, lr=1e-4)
    both = optim.BetterTogether("p -> w -> p", p=Shown(model.parameters()), w=weights)
    Trainer(model, both, metric=odd, progress=False).fit(TRAIN, VAL)
    assert weights.result is not None
    assert weights.result.samples > 0


def test_a_program_without_a_local_model_and_wrong_numbers() -> None:
    model = nn.Predict("text -> answer").to(lm.FunctionLM(lambda messages: "x"))
    with pytest.raises(NoLMError, match="runs on no local model"):
        Trainer(model, optim.GRPO(model), metric=odd, progress=False).fit(TRAIN, VAL)
    with pytest.raises(ValueError, match="n"):
        optim.GRPO(model, n=1)
    with pytest.raises(TypeError, match=r"num_rollouts_per_grpo_step.*n="):
        optim.GRPO(model, num_rollouts_per_grpo_step=4)
    assert optim.GRPO(model).skips == ()


class TestContract(OfWeights):
    def make(self, params: Any) -> optim.GRPO:
        return optim.GRPO(params, n=4, steps=2, batch_size=3, lora=None, lr=1e-4)

    def program(self) -> nn.Predict:
        return nn.Predict("text -> answer", instruction=TASK.instruction("partial"))

    def data(self) -> tuple[list[Example], list[Example]]:
        return TRAIN[:6], VAL[:8]

    def metric(self, example: Example, output: Any) -> Any:
        return odd(example, output)

    def base(self) -> dict[str, Any]:
        return {"instruction": TASK.instruction("partial", seed=1)}
