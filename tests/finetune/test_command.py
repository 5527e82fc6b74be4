"""`python -m promptgrad.finetune`, alone and in two processes."""

from __future__ import annotations

import copy
import inspect
import json
import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from promptgrad import lm, nn
from promptgrad.data import Example
from promptgrad.finetune import Preference, Preferences, TuneSettings, dpo, labeled, sft
from promptgrad.finetune.__main__ import _SAME, main, parser
from promptgrad.finetune._dpo import Pair, preferring
from promptgrad.finetune._ranks import add_up, rank_and_ranks, seed_of
from promptgrad.finetune._train import likelihood
from promptgrad.finetune._training import Share
from promptgrad.lm import Tokens

Data = tuple[list[Example], list[Example], list[Example]]
MODEL = str(lm.pocket()._source)


@pytest.fixture
def records(program: nn.Predict, data: Data, tmp_path: Path) -> Path:
    path = tmp_path / "data.jsonl"
    labeled(program, data[0][:10]).save(path)
    return path


def written(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(str(folder / "model.safetensors"))


def test_it_writes_the_model_that_sft_makes(
    program: nn.Predict, data: Data, records: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "tuned"
    flags = [MODEL, str(records), "--output", str(out), "--steps", "3", "--batch-size", "4", "--lora-r", "4"]
    flags += ["--lr", "0.01", "--weight-decay", "0.1", "--seed", "2", "--device", "cpu", "--checkpoint-every", "2"]
    assert main(flags) == 0
    assert f"promptgrad.lm.Local('{out}')" in capsys.readouterr().out
    same = sft(program, labeled(program, data[0][:10]), steps=3, batch_size=4, lora={"r": 4}, lr=0.01, seed=2)
    other = sft(
        program, labeled(program, data[0][:10]), steps=3, batch_size=4, lora={"r": 4}, lr=0.01, seed=2, weight_decay=0.1
    )
    found = written(out)
    wanted, without = (result.lm.model.state_dict() for result in (other, same))
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in found.items())
    assert not all(torch.equal(tensor, without[name]) for name, tensor in found.items())
    again = nn.Predict("text -> answer", instruction=str(program.instruction)).to(lm.Local(out, adapter="pocket"))
    assert again(text=data[2][0].text).answer == other.program(text=data[2][0].text).answer

    (out / "model.safetensors").unlink()
    assert main(flags) == 0  # it is over, and is written again
    assert torch.equal(written(out)["model.norm.weight"], found["model.norm.weight"])
    assert main([*flags, "--lora-alpha", "4"]) == 1
    assert "StateDictError" in (said := capsys.readouterr().err)
    assert "holds the training of" in said


def test_preferences_and_all_weights(program: nn.Predict, data: Data, tmp_path: Path) -> None:
    pairs = [Preference(program.messages(text=e.text), e.answer, "no", "solve") for e in data[0][:4]]
    Preferences(tuple(pairs), 0, 0, 0).save(tmp_path / "pairs.jsonl")
    flags = [MODEL, str(tmp_path / "pairs.jsonl"), "--output", str(tmp_path / "out"), "--method", "dpo"]
    assert main([*flags, "--full", "--steps", "2", "--batch-size", "2", "--device", "cpu", "--beta", "0.3"]) == 0
    same = dpo(
        program,
        [Preference(p.messages, p.chosen, p.rejected) for p in pairs],
        steps=2,
        batch_size=2,
        lora=None,
        beta=0.3,
    )
    wanted = same.lm.model.state_dict()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in written(tmp_path / "out").items())


def test_what_is_wrong_is_said_in_a_line(records: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--output", str(tmp_path / "out"), "--device", "cpu"]
    (tmp_path / "bad.jsonl").write_text('{"messages": 3}\n')
    for flags, said in (
        ([MODEL, str(tmp_path / "none.jsonl")], "none.jsonl"),
        ([MODEL, str(tmp_path / "bad.jsonl")], "bad.jsonl:1"),
        ([str(tmp_path / "nowhere"), str(records)], "there is no folder"),
        ([MODEL, str(records), "--batch-size", "0"], "batch_size is at least 1"),
    ):
        assert main([*flags, *out]) == 1
        assert said in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([MODEL, str(records), *out, "--steps", "1", "--epochs", "1"])
    assert not (tmp_path / "out" / "model.safetensors").exists()


def test_ctrl_c_writes_no_model_and_the_command_goes_on(
    records: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from torch.optim.optimizer import register_optimizer_step_post_hook

    out = tmp_path / "out"
    flags = [MODEL, str(records), "--output", str(out), "--steps", "4", "--device", "cpu"]
    steps: list[int] = []

    def stop(*_: Any) -> None:
        import signal

        steps.append(1)
        if len(steps) == 2:
            signal.raise_signal(signal.SIGINT)

    hook = register_optimizer_step_post_hook(stop)
    try:
        assert main(flags) == 130
        assert "stopped after 2 of 4 steps; the same command goes on" in capsys.readouterr().err
        assert not (out / "model.safetensors").exists()
        assert main(flags) == 0
    finally:
        hook.remove()
    assert len(steps) == 4


def test_every_setting_has_a_flag_with_the_default_of_the_function() -> None:
    flags = {action.dest: action for action in parser()._actions}
    assert {field.name for field in fields(TuneSettings)} - {"lora"} <= flags.keys()
    for function in (sft, dpo):
        arguments = inspect.signature(function).parameters
        assert {name: flags[name].default for name in _SAME} == {name: arguments[name].default for name in _SAME}
        assert flags.keys() >= arguments.keys() - {
            *(
                "program",
                "metric",
                "teacher",
                "n",
                "threshold",
                "lora",
                "concurrency",
                "progress",
            )  # of runs and of Python
        }
    assert all(action.help for action in flags.values())


RANKS = '''
"""One command in two processes that torch connects, each a fork of this one."""
import contextlib, copy, os, random, signal, socket, sys
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from torch.optim.optimizer import register_optimizer_step_post_hook

from promptgrad import lm
from promptgrad.finetune.__main__ import main

home = Path(sys.argv[1])
model = str(lm.pocket()._source)
torch.set_num_threads(1)
get_peft_model(copy.deepcopy(lm.pocket().model), LoraConfig(target_modules="all-linear"))  # what loads late, loads once


def unused():
    """A port below those that connections are given, so that none takes it before the ranks do."""
    while True:
        with socket.socket() as free, contextlib.suppress(OSError):
            free.bind(("127.0.0.1", port := random.SystemRandom().randrange(15_000, 32_000)))
            return port


def run(name, ranks, *flags, die_at=0):
    port = unused()
    children = []
    for rank in range(ranks):
        if (child := os.fork()) == 0:
            try:
                torch.set_num_threads(1)  # the pool is made anew after a fork, and not by two threads at once
                if ranks > 1:
                    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(ranks),
                                      MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
                left = [die_at]

                def step(*_):
                    left[0] -= 1
                    if left[0] == 0:
                        os.kill(os.getpid(), signal.SIGKILL)

                register_optimizer_step_post_hook(step)
                os._exit(main([model, str(home / "data.jsonl"), "--output", str(home / name), "--device", "cpu",
                               "--steps", "3", "--checkpoint-every", "2", *flags]))
            finally:
                os._exit(9)
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


assert run("two", 2, "--batch-size", "5", "--full", "--lr", "1e-3") == [0, 0]
dropout = ("--batch-size", "4", "--lora-dropout", "0.5")
assert run("whole", 2, *dropout) == [0, 0]
assert run("killed", 2, *dropout, die_at=3) == [-9, -9]
assert not (home / "killed" / "model.safetensors").exists()
assert run("killed", 2, *dropout) == [0, 0]
'''


def test_a_process_without_a_sample_has_no_part_in_the_sum(tmp_path: Path) -> None:
    import torch.distributed as dist

    share = Share(rank=1, ranks=2)
    model = copy.deepcopy(lm.pocket().model).requires_grad_(True)
    batch = [Tokens((2, 3, 20, 30, 4), 3)]
    assert likelihood(model, batch, share) == 0.0
    assert preferring(model, [Pair(*batch, *batch)], beta=0.1)(model, [Pair(*batch, *batch)], share) == 0.0
    assert share.of(range(5)) == range(1, 5, 2)
    dist.init_process_group("gloo", store=dist.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1)
    try:
        assert rank_and_ranks() == (0, 1)
        assert add_up(model.parameters(), 0.25) == 0.25
        assert all(torch.equal(weight.grad, torch.zeros_like(weight)) for weight in model.parameters())
    finally:
        dist.destroy_process_group()
    assert seed_of(0, 1, 0) != seed_of(0, 1, 1) != seed_of(0, 0, 1)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_two_processes_learn_what_one_does(program: nn.Predict, data: Data, records: Path, tmp_path: Path) -> None:
    (tmp_path / "ranks.py").write_text(RANKS)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "ranks.py"), str(tmp_path)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr

    def losses(name: str) -> list[float]:
        state = json.loads((tmp_path / name / "checkpoint" / "training.json").read_text())["state"]
        return list(state["losses"])

    alone = sft(program, labeled(program, data[0][:10]), steps=3, batch_size=5, lora=None, lr=1e-3)
    assert losses("two") == pytest.approx(alone.losses, rel=1e-4)
    one, two = alone.lm.model.state_dict(), written(tmp_path / "two")
    assert all(torch.allclose(tensor, one[name], atol=1e-4) for name, tensor in two.items())
    assert losses("killed") == losses("whole")
    whole, killed = written(tmp_path / "whole"), written(tmp_path / "killed")
    assert all(torch.equal(tensor, killed[name]) for name, tensor in whole.items())
