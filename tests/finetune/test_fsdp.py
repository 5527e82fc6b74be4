"""Weights in shares over two processes (FSDP on a CPU, gloo): the losses and weights of one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from promptgrad import lm, nn
from promptgrad.data import Example
from promptgrad.finetune import Preference, Preferences, labeled, sft

torch = pytest.importorskip("torch")

Data = tuple[list[Example], list[Example], list[Example]]

RANKS = '''
"""Commands in two processes that torch connects, each a fork of this one."""
import copy, os, signal, socket, sys, traceback
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from torch.distributed.fsdp import fully_shard
from torch.optim.optimizer import register_optimizer_step_post_hook

from promptgrad import lm
from promptgrad.finetune.__main__ import main

home = Path(sys.argv[1])
model = str(lm.pocket()._source)
torch.set_num_threads(1)
get_peft_model(copy.deepcopy(lm.pocket().model), LoraConfig(target_modules="all-linear"))  # what loads late, loads once


def run(name, ranks, *flags, die_at=0):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(ranks):
        if (child := os.fork()) == 0:
            try:
                torch.set_num_threads(1)
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
                               "--steps", "3", "--checkpoint-every", "2", "--batch-size", "5", *flags]))
            except Exception:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(9)
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


full, op = ("--fsdp", "full_shard"), ("--fsdp", "shard_grad_op")
small = ("--micro-batch-tokens", "64")  # several passes, and not as many in each process
for name, flags in {
    "alone": (1, "--full", "--lr", "1e-3"),
    "full": (2, "--full", "--lr", "1e-3", *full, *small),
    "op": (2, "--full", "--lr", "1e-3", *op, *small),
    "again": (1, "--lora-r", "4", "--gradient-checkpointing", "--dtype", "bfloat16"),
    "memory": (2, "--lora-r", "4", *full, "--gradient-checkpointing", "--dtype", "bfloat16"),
}.items():
    assert run(name, *flags) == [0] * flags[0], name
assert run("killed", 2, "--full", "--lr", "1e-3", *full, *small, die_at=3) == [-9, -9]
assert run("killed", 2, "--full", "--lr", "1e-3", *full, *small) == [0, 0]
(home / "data.jsonl").write_text((home / "pairs.jsonl").read_text())
assert run("dpo", 1, "--method", "dpo", "--full") == [0]
assert run("dpo-full", 2, "--method", "dpo", "--full", *full, *small) == [0, 0]
'''


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_shares_learn_what_one_process_does(program: nn.Predict, data: Data, tmp_path: Path) -> None:
    labeled(program, data[0][:10]).save(tmp_path / "data.jsonl")
    pairs = [Preference(program.messages(text=e.text), e.answer, "no", "solve") for e in data[0][:7]]
    Preferences(tuple(pairs), 0, 0, 0).save(tmp_path / "pairs.jsonl")
    (tmp_path / "ranks.py").write_text(RANKS)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "ranks.py"), str(tmp_path)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr

    def losses(name: str) -> list[float]:
        state = json.loads((tmp_path / name / "checkpoint" / "training.json").read_text())["state"]
        return list(state["losses"])

    def weights(name: str) -> dict[str, torch.Tensor]:
        return load_file(str(tmp_path / name / "model.safetensors"))

    for alone, shared, rel, atol in (
        ("alone", "full", 1e-4, 1e-4),
        ("alone", "op", 1e-4, 1e-4),
        ("again", "memory", 1e-2, 5e-3),  # bfloat16 has three digits, and AdamW's first steps are as long as the rate
        ("dpo", "dpo-full", 1e-4, 1e-4),
    ):
        assert len(losses(alone)) == 3
        assert losses(shared) == pytest.approx(losses(alone), rel=rel), shared
        one, two = weights(alone), weights(shared)
        assert one.keys() == two.keys()
        assert all(torch.allclose(tensor, two[name], atol=atol) for name, tensor in one.items()), shared
    assert losses("killed") == losses("full")
    assert all(torch.equal(tensor, weights("killed")[name]) for name, tensor in weights("full").items())
    assert losses("alone")[-1] < losses("alone")[0]
    loaded = lm.Local(tmp_path / "full", adapter="pocket")
    assert nn.Predict("text -> answer").to(loaded)(text=data[2][0].text).answer


def test_it_takes_a_group_of_processes_and_a_model_of_its_own(program: nn.Predict, data: Data) -> None:
    with pytest.raises(ValueError, match="there is none: start with torchrun"):
        sft(program, labeled(program, data[0][:4]), steps=1, fsdp="full_shard", progress=False)
    with pytest.raises(ValueError, match="fsdp is one of full_shard, shard_grad_op"):
        sft(program, labeled(program, data[0][:4]), steps=1, fsdp="zero", progress=False)
    program.soft_prompt = nn.SoftPrompt(2)
    with pytest.raises(ValueError, match="shares the layers of its base"):
        sft(program, labeled(program, data[0][:4]), steps=1, fsdp="full_shard", progress=False)
