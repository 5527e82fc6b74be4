"""How many tokens a second a training goes through, beside transformers' Trainer and TRL's SFTTrainer.

The same Llama-shaped model (3.7M weights), the same token ids, the same batches of 32 and the same learning rate for
all; the loss is on the reply alone. A block is some steps of AdamW; what a peer does before its first step is not
counted. Tokens are those of the samples, once each, padding left out. Cases: the calls of one module (88 % and 80 % of
each sample is the instruction and the demos, which all samples share), and ragged samples that share nothing.
"""

from __future__ import annotations

import json
import random
import tempfile
from typing import Any

from _side_by_side import Block, Fed, contest, header, installed, options, report, serve_blocks

BATCH = 32
STEPS = 4
VOCABULARY = 4096


def model() -> Any:
    """A small Llama with the same random weights for all."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=6,
        num_attention_heads=6,
        max_position_embeddings=1024,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    return LlamaForCausalLM(config)


def samples(params: dict[str, Any]) -> list[tuple[list[int], int]]:
    """Token ids and where the reply begins: a common prefix, an input of its own, a reply."""
    rng = random.Random(0)

    def words(number: int) -> list[int]:
        return [rng.randrange(3, VOCABULARY) for _ in range(number)]

    prefix = words(params["prefix"])
    made = []
    for _ in range(params["batch"] * params["steps"]):
        low, high = params["rest"]
        prompt = prefix + words(rng.randint(low, high))
        made.append((prompt + words(rng.randint(4, 8)), len(prompt)))
    return made


def tokens(params: dict[str, Any]) -> int:
    """Tokens of a block."""
    return sum(len(ids) for ids, _ in samples(params))


def ours(params: dict[str, Any]) -> Block:
    """The loop of `finetune.sft`."""
    from promptgrad.finetune._train import TuneSettings, train
    from promptgrad.lm import Tokens

    trained, data = model(), [Tokens(tuple(ids), start) for ids, start in samples(params)]
    settings = TuneSettings(None, params["steps"], 1e-4, params["batch"])

    def block() -> int:
        train(trained, data, settings)
        return tokens(params)

    return block


def plain(params: dict[str, Any]) -> Block:
    """A loop written by hand: padded batches in the order of the data, logits of all places."""
    import torch

    trained, data = model().train(), samples(params)
    optimizer = torch.optim.AdamW(trained.parameters(), lr=1e-4)

    def block() -> int:
        for first in range(0, len(data), params["batch"]):
            rows = data[first : first + params["batch"]]
            width = max(len(ids) for ids, _ in rows)
            ids = torch.tensor([ids + [0] * (width - len(ids)) for ids, _ in rows])
            mask = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids, _ in rows])
            labels = torch.tensor([[-100] * start + ids[start:] + [-100] * (width - len(ids)) for ids, start in rows])
            trained(input_ids=ids, attention_mask=mask, labels=labels).loss.backward()
            torch.nn.utils.clip_grad_norm_(trained.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
        return tokens(params)

    return block


def _arguments(kind: Any, params: dict[str, Any], **more: Any) -> Any:
    return kind(
        output_dir=tempfile.gettempdir(),  # nothing is written there
        per_device_train_batch_size=params["batch"],
        max_steps=params["steps"],
        learning_rate=1e-4,
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        dataloader_pin_memory=False,
        **more,
    )


def trainer(params: dict[str, Any]) -> Block:
    """`transformers.Trainer` with a collator that pads."""
    import torch
    from transformers import Trainer, TrainingArguments

    def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
        width = max(len(row["input_ids"]) for row in rows)

        def padded(name: str, filling: int) -> Any:
            return torch.tensor([row[name] + [filling] * (width - len(row[name])) for row in rows])

        mask = [[1] * len(row["input_ids"]) + [0] * (width - len(row["input_ids"])) for row in rows]
        ids, labels = padded("input_ids", 0), padded("labels", -100)
        return {"input_ids": ids, "attention_mask": torch.tensor(mask), "labels": labels}

    trained = model()
    data = [{"input_ids": ids, "labels": [-100] * start + ids[start:]} for ids, start in samples(params)]

    def feed() -> Any:
        settings = _arguments(TrainingArguments, params, remove_unused_columns=False)
        return Trainer(model=trained, args=settings, train_dataset=data, data_collator=collate)

    def work(prepared: Any) -> int:
        prepared.train()
        return tokens(params)

    return Fed(feed, work)


def trl(params: dict[str, Any]) -> Block:
    """TRL's SFTTrainer on the same ids, told where the replies begin."""
    from datasets import Dataset
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast
    from trl import SFTConfig, SFTTrainer

    words = Tokenizer(WordLevel({str(word): word for word in range(VOCABULARY)}, unk_token="3"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="0", eos_token="2")
    trained = model()
    rows = [
        {"input_ids": ids, "completion_mask": [0] * start + [1] * (len(ids) - start)} for ids, start in samples(params)
    ]

    def feed() -> Any:
        settings = _arguments(SFTConfig, params, completion_only_loss=True, max_length=None)
        return SFTTrainer(
            model=trained, args=settings, train_dataset=Dataset.from_list(rows), processing_class=tokenizer
        )

    def work(prepared: Any) -> int:
        prepared.train()
        return tokens(params)

    return Fed(feed, work)


CONTESTANTS = {"promptgrad": ours, "plain torch": plain, "transformers Trainer": trainer, "trl SFTTrainer": trl}

CASES = {
    "prefix 88 %": ({"prefix": 130, "rest": [9, 13]}, 5.0),
    "prefix 80 %": ({"prefix": 120, "rest": [18, 30]}, 5.0),
    "ragged, nothing shared": ({"prefix": 0, "rest": [8, 300]}, 1.2),
}
QUICK = ("prefix 88 %", "ragged, nothing shared")


def main() -> None:
    """Run the cases."""
    chosen = options(__doc__.splitlines()[0], blocks=5)
    if chosen.child is not None:
        serve_blocks(CONTESTANTS, chosen.child, json.loads(chosen.params))
        return
    header("finetune", stack=installed("torch", "transformers", "trl", "accelerate"))
    names = ["promptgrad"] if chosen.quick else list(CONTESTANTS)
    sizes = {"batch": 4, "steps": 1} if chosen.quick else {"batch": BATCH, "steps": STEPS}
    for case in QUICK if chosen.quick else CASES:
        params, times = CASES[case]
        children = contest(__file__, names, {**params, **sizes}, chosen.blocks, chosen.only)
        target = (f"<= 1 / {times:g} of the Trainer's time", lambda _, ratio, times=times: ratio <= 1 / times)
        report("finetune", case, children, base="transformers Trainer", targets={"promptgrad": target})


if __name__ == "__main__":
    main()
