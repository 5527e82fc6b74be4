"""Time of many ragged requests that begin alike: `lm.Local` beside transformers' own `generate`, in turns.

A small Llama with random weights answers 64 requests, greedily: one long beginning, then 1 to 40 words, and replies of
4 to 48 tokens. `generate` gets them in batches padded on the left, each batch to its longest reply, in the order given
and, as its best case, sorted by the length of the reply. Both run on the threads that torch has. Prints JSON lines.

    python benchmarks/time_generate.py --requests 64 --rounds 3
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
from time import perf_counter

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, __version__

from promptgrad import aio
from promptgrad.lm import Local, Message, Prefix, Request


def tokenizer(size: int) -> PreTrainedTokenizerFast:
    names = ["<pad>", "<unk>", "<end>", *(f"w{i}" for i in range(size - 3))]
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(names)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", pad_token="<pad>", eos_token="<end>")
    made.padding_side = "left"
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prefix", type=int, default=300)
    parser.add_argument("--batch", type=int, default=16, help="rows of a batch of generate")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="few requests, one round: whether it runs, no figure")
    given = parser.parse_args()
    if given.quick:
        given.requests, given.rounds, given.prefix = 4, 1, 40
    if given.threads:
        torch.set_num_threads(given.threads)
    torch.manual_seed(given.seed)
    draw, words = random.Random(given.seed), tokenizer(1000)
    config = LlamaConfig(
        vocab_size=1000, hidden_size=256, intermediate_size=704, num_hidden_layers=4, num_attention_heads=8,
        num_key_value_heads=4, max_position_embeddings=1024, pad_token_id=0, bos_token_id=None, eos_token_id=2,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval().requires_grad_(requires_grad=False)
    model.generation_config.eos_token_id = None  # every reply has the length that is asked for

    def text(count: int) -> str:
        return " ".join(f"w{draw.randrange(900)}" for _ in range(count))

    begin = Prefix([Message("system", text(given.prefix))])
    asked = [
        Request(begin, (Message("user", text(draw.randint(1, 40))),), 0.0, draw.randint(4, 48))
        for _ in range(given.requests)
    ]
    lm = Local(model, words, name="bench", max_batch=64)

    def ours() -> list[list[int]]:
        lm._load().decoder.prefixes.clear()  # as for the first time

        async def all_of_them() -> list[list[int]]:
            made = await asyncio.gather(*[lm.sample(one) for one in asked])
            return [list(one.ids) for one in made]

        return aio.run(all_of_them())

    prompts = [lm.encode(one) for one in asked]

    def theirs(order: list[int]) -> list[list[int]]:
        replies: dict[int, list[int]] = {}
        for first in range(0, len(order), given.batch):
            rows = order[first : first + given.batch]
            batch = words.pad({"input_ids": [prompts[row] for row in rows]}, return_tensors="pt")
            most = max(asked[row].max_tokens or 0 for row in rows)
            out = model.generate(
                input_ids=batch["input_ids"],
                attention_mask=batch["attention_mask"],
                max_new_tokens=most,
                do_sample=False,
            )
            for row, ids in zip(rows, out[:, batch["input_ids"].shape[1] :].tolist(), strict=True):
                replies[row] = ids[: asked[row].max_tokens]
        return [replies[row] for row in range(len(order))]

    given_order = list(range(len(asked)))
    by_length = sorted(given_order, key=lambda row: asked[row].max_tokens or 0)
    ways = {"local": ours, "generate": lambda: theirs(given_order), "generate_sorted": lambda: theirs(by_length)}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    replies = {name: way() for name, way in ways.items()}  # warm-up, and the proof that they do the same
    for _ in range(given.rounds):
        for name, way in ways.items():
            begun = perf_counter()
            way()
            seconds[name].append(perf_counter() - begun)
    median = {name: statistics.median(times) for name, times in seconds.items()}
    tokens = sum(one.max_tokens or 0 for one in asked)
    same = [sum(a == b for a, b in zip(replies["local"], replies[name], strict=True)) for name in ways]
    header = {"bench": "generate", "torch": torch.__version__, "transformers": __version__}
    header |= {"threads": torch.get_num_threads(), **vars(given), "output_tokens": tokens}
    print(json.dumps({**header, "equal_replies": dict(zip(ways, same, strict=True))}))
    who = {"local": "promptgrad lm.Local", "generate": "generate", "generate_sorted": "generate, by length"}
    for name, value in median.items():
        print(json.dumps({"who": who[name], "seconds": round(value, 3), "tokens_per_second": round(tokens / value)}))
    for name in ("generate", "generate_sorted"):
        ratio = round(median[name] / median["local"], 2)
        print(
            json.dumps({"who": f"promptgrad beside {who[name]}", "ratio": ratio, "target": 2.0, "meets": ratio >= 2.0})
        )
    lm.close()


if __name__ == "__main__":
    main()
