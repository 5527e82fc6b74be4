"""Checkpoints: a training that is killed at any moment ends with the weights of one that never was."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from promptgrad import Trainer, lm, nn, optim
from promptgrad._files import whole_folder
from promptgrad.data import Example, pocket
from promptgrad.errors import StateDictError
from promptgrad.finetune import Preference, dpo, sft
from promptgrad.finetune._checkpoint import Checkpoint

Data = tuple[list[Example], list[Example], list[Example]]
LORA = {"r": 2, "dropout": 0.3}


def weights(result: Any) -> dict[str, torch.Tensor]:
    return {name: weight.clone() for name, weight in result.lm.model.named_parameters()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(weight, other[name]) for name, weight in one.items())


@pytest.fixture
def counted() -> Any:
    """Counts the steps of every optimizer; Ctrl-C comes in the middle of the step with the number that is set."""
    from torch.optim.optimizer import register_optimizer_step_pre_hook

    class Steps:
        done = 0
        stop = -1

    def hook(*_: Any) -> None:
        Steps.done += 1
        if Steps.done == Steps.stop:
            signal.raise_signal(signal.SIGINT)

    handle = register_optimizer_step_pre_hook(hook)
    yield Steps
    handle.remove()


def test_ctrl_c_and_the_same_call_again(program: nn.Predict, data: Data, tmp_path: Path, counted: Any) -> None:
    def trained(**more: Any) -> Any:
        return sft(program, data[0][:9], steps=5, batch_size=2, lora=LORA, seed=3, **more)

    whole = trained()
    counted.done, counted.stop = 0, 3
    cut = trained(checkpoint=tmp_path / "c")
    assert (cut.interrupted, len(cut.losses)) == (True, 3)
    again = trained(checkpoint=tmp_path / "c", checkpoint_every=1)
    assert counted.done == 5
    assert again.losses == whole.losses
    assert same(weights(again), weights(whole))
    assert again.lm.name == whole.lm.name
    assert not again.interrupted

    files = sorted(path.name for path in (tmp_path / "c").iterdir())
    assert files == ["step-5-end.safetensors", "training.json"]
    over = trained(checkpoint=tmp_path / "c")
    assert counted.done == 5
    assert same(weights(over), weights(whole))
    assert over.seconds > again.seconds > cut.seconds  # of all processes
    assert {path.suffix for path in (tmp_path / "c").iterdir()} == {".json", ".safetensors"}


@contextlib.contextmanager
def small_files(size: int) -> Iterator[None]:
    """No file may have more bytes, as if the disk were full then."""
    resource = pytest.importorskip("resource")
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, usual[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_a_full_disk_cuts_is_said_and_leaves_what_was_there(
    program: nn.Predict, data: Data, tmp_path: Path, counted: Any
) -> None:
    def trained(**more: Any) -> Any:
        return sft(program, data[0][:6], batch_size=2, lora=LORA, checkpoint=tmp_path / "c", checkpoint_every=1, **more)

    with small_files(20_000), pytest.raises(OSError, match=r"File too large: '.*step-1.safetensors'"):
        trained(steps=4)
    assert files_of(tmp_path) == {}
    counted.done, counted.stop = 0, 2
    cut = trained(steps=4)
    kept = files_of(tmp_path / "c")
    counted.stop = -1
    with small_files(20_000), pytest.raises(OSError, match="File too large"):
        trained(steps=4)
    assert files_of(tmp_path / "c") == kept

    for way in ("new", "old"):
        if way == "old":
            cut.save(tmp_path / way)
        before = files_of(tmp_path / way)
        with small_files(100_000), pytest.raises(OSError, match=rf"File too large: '.*{way}'"):
            cut.save(tmp_path / way)
        assert files_of(tmp_path / way) == before
    view = nn.Predict("text -> answer").to(lm.pocket().lora("full"))
    with small_files(1000), pytest.raises(OSError, match="File too large"):
        sft(view, data[0][:2], steps=1).save(tmp_path / "view")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c", "old"]


def test_a_folder_that_is_there_may_be_a_disk_of_its_own(tmp_path: Path) -> None:
    """A file is moved within one disk only, so nothing of a volume is made beside it."""
    folder = tmp_path / "volume"
    for there in (tmp_path, folder):
        with whole_folder(folder) as place:
            (place / "lora").mkdir()
            (place / "lora" / "a.json").write_text("{}")
            assert place.parent == there
        assert [path.name for path in folder.rglob("*")] == ["lora", "a.json"]
    assert [path.name for path in tmp_path.iterdir()] == ["volume"]


def test_preferences_go_on_too(program: nn.Predict, data: Data, tmp_path: Path, counted: Any) -> None:
    pairs = [Preference(program.messages(text=e.text), e.answer, "no", example_id=e.id) for e in data[0][:6]]

    def trained(**more: Any) -> Any:
        return dpo(program, pairs, steps=4, batch_size=2, lora=LORA, **more)

    whole = trained()
    counted.done, counted.stop = 0, 2
    assert len(trained(checkpoint=tmp_path).losses) == 2
    assert trained(checkpoint=tmp_path).losses == whole.losses
    assert counted.done == 4
    with pytest.raises(StateDictError, match=r"recipe is 'dpo 0.1' there and 'likelihood' here"):
        sft(program, data[0][:6], steps=4, batch_size=2, lora=LORA, checkpoint=tmp_path)


def test_another_training_is_refused_and_told_apart(program: nn.Predict, data: Data, tmp_path: Path) -> None:
    sft(program, data[0][:4], steps=1, checkpoint=tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for said, change in {
        "lr is 0.005 there and 0.1 here": {"lr": 0.1},
        "steps is 1 there and 2 here": {"steps": 2},
        "seed is 0 there and 1 here": {"seed": 1},
        "lora is .* there and None here": {"lora": None},
    }.items():
        with pytest.raises(StateDictError, match=rf"holds the training of pocket \(likelihood, LoRA r=8.*{said}"):
            sft(program, data[0][:4], checkpoint=tmp_path, **{"steps": 1, **change})
    with pytest.raises(StateDictError, match="other data"):
        sft(program, data[0][4:8], steps=1, checkpoint=tmp_path)
    warm = nn.Predict("text -> answer", instruction=str(program.instruction)).to(lm.pocket(temperature=1.0))
    with pytest.raises(StateDictError, match="a model with other weights, seed or options"):
        sft(warm, data[0][:4], steps=1, checkpoint=tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    with pytest.raises(ValueError, match="checkpoint_every is at least 1"):
        sft(program, data[0][:4], checkpoint=tmp_path, checkpoint_every=0)


def test_what_is_damaged_is_said_and_left_alone(program: nn.Predict, data: Data, tmp_path: Path) -> None:
    def trained() -> Any:
        return sft(program, data[0][:4], steps=1, checkpoint=tmp_path)

    trained()
    file = tmp_path / "step-1-end.safetensors"
    kept = file.read_bytes()
    file.write_bytes(kept[:100])
    with pytest.raises(StateDictError, match=r"step-1-end.safetensors cannot be read.*begin anew"):
        trained()
    file.write_bytes(kept)
    text = (tmp_path / "training.json").read_text()
    for broken in (text[:60], "[1]", text.replace("promptgrad.training", "other"), text.replace('"losses"', '"lost"')):
        (tmp_path / "training.json").write_text(broken)
        with pytest.raises(StateDictError, match=r"training.json cannot be read"):
            trained()
    (tmp_path / "training.json").write_text(text.replace('"version": 1', '"version": 9'))
    with pytest.raises(StateDictError, match="has version 9, and this promptgrad reads 1"):
        trained()
    whole = json.loads(text)
    whole["file"] = "../../step-1-end.safetensors"  # a name is looked for in the folder alone
    (tmp_path / "training.json").write_text(json.dumps(whole))
    trained()


@pytest.mark.skipif(sys.platform == "win32", reason="folders have no locks there")
def test_one_process_at_a_time(program: nn.Predict, data: Data, tmp_path: Path) -> None:
    with (
        Checkpoint(tmp_path, {"settings": {"steps": 1}}, 1).held(),
        pytest.raises(StateDictError, match="another process trains in"),
    ):
        sft(program, data[0][:4], steps=1, checkpoint=tmp_path)


def bootstrap(program: nn.Predict) -> optim.BootstrapFinetune:
    return optim.BootstrapFinetune(
        program, threshold=0.0, max_rounds=1, steps=4, batch_size=2, gradient_checkpointing=True, dtype="bfloat16"
    )


def test_ctrl_c_in_the_training_of_a_run_and_resumed(
    program: nn.Predict, data: Data, tmp_path: Path, counted: Any
) -> None:
    counted.stop = 2
    with pytest.raises(KeyboardInterrupt):
        Trainer(program, bootstrap(program), metric=pocket.metric, run_dir=tmp_path).fit(data[0][:4], data[1][:4])
    optimizer = bootstrap(program)
    Trainer.resume(tmp_path, program, optimizer, pocket.metric)
    assert optimizer.result is not None
    assert (len(optimizer.result.losses), optimizer.result.settings.dtype) == (4, "bfloat16")
    assert counted.done == 4  # those before Ctrl-C, and the rest


def test_a_run_in_a_folder_goes_on_without_training_again(
    program: nn.Predict, data: Data, tmp_path: Path, counted: Any
) -> None:
    train, val = data[0][:4], data[1][:4]
    run_dir = tmp_path / "run"
    trainer = Trainer(program, bootstrap(program), metric=pocket.metric, run_dir=run_dir)
    result = trainer.fit(train, val)
    assert counted.done == 4
    assert (run_dir / "finetune" / "training.json").is_file()
    lines = (run_dir / "journal.jsonl").read_text().splitlines(keepends=True)
    end = next(number for number, line in enumerate(lines) if '"finetuned"' in line)
    (run_dir / "journal.jsonl").write_text("".join(lines[:end]))  # as a kill at the end of the training leaves it
    again = Trainer.resume(run_dir, program, bootstrap(program), pocket.metric)
    assert counted.done == 4
    assert str(again.after) == str(result.after)


def test_runs_that_were_collected_are_not_made_again(program: nn.Predict, data: Data, tmp_path: Path) -> None:
    judged: list[str] = []
    shown = {example.text: example.answer for example in data[0]}

    def odd(example: Example, output: Any) -> float:
        judged.append(example.id)
        return float(len(str(output.answer)) % 2)

    def told(messages: list[dict[str, str]]) -> str:
        return next(answer for text, answer in shown.items() if text in messages[-1]["content"])

    def learned(**more: Any) -> Any:
        given = {"teacher": lm.FunctionLM(told, name="told", adapter="pocket"), "checkpoint": tmp_path / "sft"} | more
        return sft(program, data[0][:12], metric=odd, steps=2, batch_size=4, **given)

    first = learned()
    assert len(judged) == 12
    again = learned()
    assert len(judged) == 12
    assert again.collected == first.collected
    assert same(weights(again), weights(first))
    for more in ({"n": 2}, {"teacher": lm.FunctionLM(told, name="other", adapter="pocket")}, {"threshold": 0.5}):
        with pytest.raises(StateDictError, match="holds the runs of another training"):
            learned(**more)
    program.instruction.data = "answer"
    with pytest.raises(StateDictError, match="differ in program"):
        learned()
    assert len(judged) == 12
    (tmp_path / "sft" / "runs.jsonl").write_text("")
    with pytest.raises(StateDictError, match=r"is not the file that it names.*Remove"):
        learned()


def test_pairs_that_were_collected_are_not_made_again(program: nn.Predict, data: Data, tmp_path: Path) -> None:
    judged: list[str] = []

    def odd(example: Example, output: Any) -> float:
        judged.append(example.id)
        return float(len(str(output.answer)) % 2)

    program.to(lm.pocket(temperature=1.0))
    first = dpo(program, data[0][:8], odd, steps=2, checkpoint=tmp_path / "dpo")
    runs = len(judged)
    again = dpo(program, data[0][:8], odd, steps=2, checkpoint=tmp_path / "dpo")
    assert len(judged) == runs == 32
    assert again.collected == first.collected
    assert same(weights(again), weights(first))
