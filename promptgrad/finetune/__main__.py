"""`python -m promptgrad.finetune`: train a model's weights on a file of conversations or preferences."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from promptgrad import lm
from promptgrad.errors import PromptgradError
from promptgrad.finetune import TuneResult, dpo, load_conversations, load_preferences, sft
from promptgrad.nn import Predict

_ABOUT = """\
Train the weights of a Hugging Face model on a file of JSON lines, and write the trained model as a folder that
transformers, vLLM and promptgrad.lm.Local load.

A line is {"messages": [...]}, whose last message is the reply to learn, or any other form that
promptgrad.finetune.load_conversations knows; with --method dpo {"prompt", "chosen", "rejected"}.

A training that was killed or stopped goes on with the same command. Under torchrun each process takes its share of
every batch, and the first one writes:

  python -m promptgrad.finetune models/base data.jsonl --output models/tuned
  torchrun --nproc-per-node 2 -m promptgrad.finetune models/base data.jsonl --output models/tuned
"""


_SAME = (
    *("steps", "epochs", "lr", "warmup", "weight_decay", "max_norm", "seed", "dtype", "gradient_checkpointing"),
    *("fsdp", "micro_batch_tokens", "max_length", "skip_long", "checkpoint_every"),
)
"""Flags that `sft` and `dpo` have as arguments of the same name and default."""


def parser() -> argparse.ArgumentParser:
    """The arguments of the command."""
    made = argparse.ArgumentParser(
        "python -m promptgrad.finetune", description=_ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("model", help="folder (or name on the Hub) of the model")
    made.add_argument("data", type=Path, help="file of JSON lines")
    made.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="where the trained model goes")
    made.add_argument(
        "--method", choices=("sft", "dpo"), default="sft", help="what is learned: replies, or preferences"
    )
    made.add_argument("--beta", type=float, default=0.1, help="dpo: how strongly the model is held to its start (0.1)")

    steps = made.add_argument_group("steps")
    length = steps.add_mutually_exclusive_group()
    length.add_argument("--steps", type=int, help="optimizer steps; by default three epochs, and at least 60 steps")
    length.add_argument("--epochs", type=float, help="passes over the data, instead of --steps")
    steps.add_argument("--batch-size", type=int, help="records in a step, of all processes (sft 32, dpo 16)")
    steps.add_argument("--lr", type=float, help="peak learning rate; by default one for the model's size")
    steps.add_argument("--warmup", type=float, default=0.05, help="share of the steps in which the rate rises (0.05)")
    steps.add_argument("--weight-decay", type=float, default=0.0, help="AdamW's (0)")
    steps.add_argument("--max-norm", type=float, default=1.0, help="largest norm of the gradient (1)")
    steps.add_argument(
        "--seed", type=int, default=0, help="of the LoRA's start, the order of the data, and dropout (0)"
    )

    lora = made.add_argument_group("what is trained", "a LoRA, which is merged in the end, or all weights")
    lora.add_argument("--full", action="store_true", help="all weights, and no LoRA")
    lora.add_argument("--lora-r", type=int, default=8, help="rank of the LoRA (8)")
    lora.add_argument("--lora-alpha", type=float, default=16, help="its scale, over the rank (16)")
    lora.add_argument("--lora-dropout", type=float, default=0.0, help="dropout before it (0)")
    lora.add_argument("--lora-target-modules", nargs="+", metavar="NAME", help="layers that have one (all linear ones)")

    memory = made.add_argument_group("memory")
    memory.add_argument("--device", help='"cuda", "mps", "cpu"; by default a GPU if there is one')
    memory.add_argument("--load-dtype", help="type that the weights are loaded in (that of their file)")
    memory.add_argument("--dtype", choices=("bfloat16",), help="compute in it, with trained weights in float32")
    memory.add_argument("--gradient-checkpointing", action="store_true", help="less memory, one more forward pass")
    memory.add_argument("--fsdp", choices=("full_shard", "shard_grad_op"), help="under torchrun: weights in shares")
    memory.add_argument("--micro-batch-tokens", type=int, help="most tokens in the model at once (8192)")
    memory.add_argument("--threads", type=int, help="threads of torch on a CPU")

    data = made.add_argument_group("data")
    data.add_argument("--max-length", type=int, help="most tokens of a record (the model's context)")
    data.add_argument("--skip-long", action="store_true", help="leave longer records out, rather than stop")
    data.add_argument("--skip-bad", action="store_true", help="leave lines out that cannot be read")

    kept = made.add_argument_group("checkpoints")
    kept.add_argument("--checkpoint", type=Path, metavar="FOLDER", help="folder of the checkpoint (OUTPUT/checkpoint)")
    kept.add_argument("--checkpoint-every", type=int, default=50, help="steps between two (50)")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status: 0, 1 after an error, 130 after Ctrl-C."""
    given = parser().parse_args(arguments)
    first = int(os.environ.get("RANK", "0")) == 0
    try:
        with _processes(given) as device:
            result = _train(given, device)
            steps = len(result.losses)
            if first and not result.interrupted:
                result.save(given.output)
    except (PromptgradError, OSError, ValueError) as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("stopped; the same command goes on from the last checkpoint\n")
        return 130
    if result.interrupted:
        sys.stderr.write(
            f"stopped after {steps} of {result.settings.steps} steps; the same command goes on, and {given.output} is "
            "not written before the end\n"
        )
        return 130
    if first:
        sys.stdout.write(f"{result!r}\n{given.output}: load it with promptgrad.lm.Local({str(given.output)!r})\n")
    return 0


@contextlib.contextmanager
def _processes(given: argparse.Namespace) -> Iterator[str]:
    """The device of this process, which is in a group with the others that torchrun started."""
    import torch
    import torch.distributed as dist

    device = given.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield device
        return
    if device == "cuda":
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    try:
        yield device
    finally:
        dist.destroy_process_group()


def _train(given: argparse.Namespace, device: str) -> TuneResult:
    local = lm.Local(given.model, device=device, dtype=given.load_dtype, threads=given.threads)
    program = Predict("prompt -> reply").to(local)
    lora = {"r": given.lora_r, "alpha": given.lora_alpha, "dropout": given.lora_dropout}
    if given.lora_target_modules:
        lora["target_modules"] = given.lora_target_modules
    options: dict[str, Any] = {
        "lora": None if given.full else lora,
        "checkpoint": given.checkpoint or given.output / "checkpoint",
    }
    options |= {name: getattr(given, name) for name in _SAME}
    if given.batch_size is not None:
        options["batch_size"] = given.batch_size
    if given.method == "dpo":
        pairs = load_preferences(given.data, skip_bad=given.skip_bad)
        return dpo(program, [replace(pair, path="") for pair in pairs], beta=given.beta, **options)
    found = load_conversations(given.data, skip_bad=given.skip_bad)
    return sft(program, [replace(sample, path="") for sample in found], **options)


if __name__ == "__main__":
    sys.exit(main())
