"""Random output types, and the embedded model's replies held to their form: how many are read, cut, refused.

The embedded model writes some 460 words and no bracket, so it takes part twice: as it is, with typed fields in its own
adapter; and with its layers under a vocabulary of byte pairs learnt from JSON, whose rows are random, so that it writes
at random whatever the form allows - the hardest case for a form. Types are nested and recursive models, optional and
union types, lists and dicts with sizes, texts with patterns and lengths, numbers with bounds, dates, choices and enums.
One line of JSON for each way.

    python benchmarks/random_schemas.py --schemas 1000 --seed 0
    python benchmarks/random_schemas.py --adapters chat   # that one alone
    python benchmarks/random_schemas.py --accuracy --seed 0       # the embedded model's tasks, held to labels and free
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import datetime
import decimal
import enum
import json
import random
import uuid
import warnings
from collections import Counter
from time import perf_counter
from typing import Annotated, Any, ForwardRef, Literal, Optional

from pydantic import Field as Limits
from pydantic import create_model

from promptgrad import aio, lm, nn
from promptgrad.data import pocket
from promptgrad.errors import BadRequestError, CutReplyError, ParseError
from promptgrad.signature import Field, Signature

PATTERNS = ("^[A-Z]{3}-[0-9]{2,4}$", "^(north|south|east|west)$", "^[a-z]+@[a-z]+[.]com$", "^#[0-9a-f]{6}$", "[0-9]$")
CLAIMS = ["color", "size", "kind", "count", "note", "price", "when", "tags", "parts", "owner", "rank", "unit"]
WAYS = ["json", "chat", "xml", "compact", "tools", "pocket"]


def random_type(draw: random.Random, depth: int = 0) -> Any:
    """A type for an output, with all that a schema may say of it."""
    plain = [_text, _integer, _number, _boolean, _choice, _enumeration, _moment, _patterned, _exact]
    nested = [_list, _mapping, _optional, _union, _record, _tree, _pair, _keyed]
    return draw.choice(plain if depth > 1 or draw.random() < 0.5 else nested)(draw, depth)


def _text(draw: random.Random, depth: int) -> Any:
    low = draw.randrange(4)
    return draw.choice([str, Annotated[str, Limits(min_length=low, max_length=low + draw.randrange(1, 12))]])


def _patterned(draw: random.Random, depth: int) -> Any:
    return Annotated[str, Limits(pattern=draw.choice(PATTERNS))]


def _integer(draw: random.Random, depth: int) -> Any:
    low = draw.randrange(-500, 500)
    bounds = {"ge": low, "le": low + draw.randrange(1, 2000)}
    kept = draw.choice([bounds, {"gt": low}, {"multiple_of": draw.randrange(2, 9)}, {}])
    return Annotated[int, Limits(**kept)] if kept else int


def _number(draw: random.Random, depth: int) -> Any:
    low = round(draw.uniform(-50, 50), 2)
    return Annotated[float, Limits(**draw.choice([{"ge": low, "le": low + 10}, {"gt": low, "lt": low + 0.5}]))]


def _exact(draw: random.Random, depth: int) -> Any:
    kept = draw.choice([{}, {"decimal_places": 2}, {"max_digits": 6, "decimal_places": 2}, {"ge": 0, "le": 100}])
    return Annotated[decimal.Decimal, Limits(**kept)] if kept else decimal.Decimal


def _boolean(draw: random.Random, depth: int) -> Any:
    return bool


def _choice(draw: random.Random, depth: int) -> Any:
    values: list[Any] = draw.sample(pocket.words(), draw.randrange(2, 7))
    return Literal[tuple(draw.choice([values, [1, 2, 3], [*values, 7, None], ['a "quoted" one', "back\\slash", "ü"]]))]


def _enumeration(draw: random.Random, depth: int) -> Any:
    return enum.Enum("Shade", {word.upper().replace("-", "_"): word for word in draw.sample(pocket.words(), 4)})


def _moment(draw: random.Random, depth: int) -> Any:
    return draw.choice([datetime.date, datetime.datetime, datetime.time, datetime.timedelta, uuid.UUID])


def _list(draw: random.Random, depth: int) -> Any:
    low = draw.randrange(3)
    item = random_type(draw, depth + 1)
    return draw.choice([list[item], Annotated[list[item], Limits(min_length=low, max_length=low + draw.randrange(3))]])


def _mapping(draw: random.Random, depth: int) -> Any:
    low = draw.randrange(2)
    item = random_type(draw, depth + 1)
    return draw.choice([dict[str, item], Annotated[dict[str, item], Limits(min_length=low, max_length=low + 2)]])


def _keyed(draw: random.Random, depth: int) -> Any:
    few = Literal["low", "middle", "high"]
    bounded, long = Annotated[int, Limits(ge=1, le=9)], Annotated[str, Limits(min_length=3, max_length=9)]
    keys = draw.choice([few, few, int, bounded, long, bool, decimal.Decimal, datetime.date, uuid.UUID, Literal[1, 2]])
    return dict[keys, random_type(draw, depth + 1)]


def _optional(draw: random.Random, depth: int) -> Any:
    return Optional[random_type(draw, depth + 1)]  # noqa: UP045 - any kind of type


def _union(draw: random.Random, depth: int) -> Any:
    return draw.choice([int | str, bool | list[int], str | dict[str, int], float | bool, None | str | list[str]])


def _pair(draw: random.Random, depth: int) -> Any:
    return tuple[random_type(draw, depth + 1), random_type(draw, depth + 1)]


def _record(draw: random.Random, depth: int) -> Any:
    names = draw.sample(CLAIMS, draw.randrange(1, 5))
    return create_model("Record", **{name: (random_type(draw, depth + 1), ...) for name in names})


def _tree(draw: random.Random, depth: int) -> Any:
    tree: Any = ForwardRef("Tree")
    below = draw.choice([Optional[tree], Annotated[list[tree], Limits(max_length=2)]])  # noqa: UP045 - of no type yet
    model = create_model("Tree", name=(random_type(draw, 2), ...), below=(below, ...))
    model.model_rebuild(_types_namespace={"Tree": model})
    return model


def random_signature(draw: random.Random, number: int, *, texts: bool = True) -> Signature:
    """One input and up to three outputs of random types; without `texts`, no text that only the model can end."""
    outputs = [Field(name, random_type(draw), role="output") for name in draw.sample(CLAIMS, draw.randrange(1, 4))]
    outputs = [output if texts or not output.is_text else output.replace(annotation=list[str]) for output in outputs]
    return Signature([Field("question"), *outputs], "Answer.", name=f"Asked{number}")


def draw_of(seed: int, kind: str, number: int) -> random.Random:
    """What draws one signature, whichever others are drawn."""
    return random.Random(f"{seed} {kind} {number}")


def pocket_signature(draw: random.Random, number: int) -> Signature:
    """Outputs that the embedded model has words for."""
    kinds: list[Any] = [bool, int, Literal[tuple(draw.sample(pocket.words(), draw.randrange(2, 9)))]]
    names = draw.sample(["answer", "verdict", "critique"], draw.randrange(1, 4))
    outputs = [Field(name, draw.choice(kinds), role="output") for name in names]
    if draw.random() < 0.3:
        outputs.insert(0, Field("reasoning", str, role="output"))
    return Signature([Field("text"), *outputs], "name the color of the last word", name=f"Asked{number}")


def random_value(draw: random.Random, depth: int = 0) -> Any:
    """JSON to learn byte pairs from."""
    kind = draw.randrange(5 if depth > 3 else 8)
    if kind < 2:
        return " ".join(draw.sample(pocket.words(), draw.randrange(1, 6)))
    if kind < 5:
        return draw.choice([draw.randrange(-9999, 9999), round(draw.uniform(-99, 99), 3), True, False, None])
    if kind == 5:
        return [random_value(draw, depth + 1) for _ in range(draw.randrange(4))]
    return {name: random_value(draw, depth + 1) for name in draw.sample(CLAIMS, draw.randrange(1, 5))}


def byte_tokenizer(size: int = 1000) -> Any:
    """A tokenizer of byte pairs, learnt from JSON and the words of the world."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    draw = random.Random(0)
    pairs = Tokenizer(models.BPE())
    pairs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pairs.decoder = decoders.ByteLevel()
    special = ["<pad>", "<s>", "<|end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    pairs.train_from_iterator((json.dumps({"answer": random_value(draw)}) for _ in range(150)), trainer)
    made = PreTrainedTokenizerFast(tokenizer_object=pairs, pad_token="<pad>", bos_token="<s>", eos_token="<|end|>")
    made.chat_template = (
        "<s>{% if tools %}{{ 'tools\\n' + tools | tojson + '\\n<tool_call>\\n' }}{% endif %}"
        "{% for m in messages %}{{ m.role + '\\n' + m.content + '<|end|>\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}assistant\\n{% endif %}"
    )
    return made


def byte_model(tokenizer: Any, seed: int = 0) -> Any:
    """The layers of the embedded model under random rows for another vocabulary."""
    import torch

    model = copy.deepcopy(lm.pocket().model)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    with torch.no_grad():
        rows = model.get_input_embeddings().weight
        rows.normal_(0, 0.02, generator=torch.Generator().manual_seed(seed))
    model.config.max_position_embeddings = 8192
    model.config.eos_token_id = model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.max_new_tokens = None
    return model.eval().requires_grad_(requires_grad=False)


async def outcomes(
    signatures: list[Signature], model: lm.LM, adapter: str, question: str, seed: int
) -> tuple[Counter[str], list[str]]:
    """How the calls of some signatures ended, and the replies that could not be read."""
    counts: Counter[str] = Counter()
    bad: list[str] = []
    free = asyncio.Semaphore(64)

    async def call(signature: Signature) -> None:
        step = nn.Predict(signature, adapter=adapter, retries=0, seed=seed)
        inputs = dict.fromkeys(signature.inputs, question)
        async with free:
            try:
                await step.acall(**inputs, lm=model)
                counts["read"] += 1
            except CutReplyError:
                counts["cut"] += 1
            except ParseError as error:
                counts["unparsable"] += 1
                bad.append(f"{signature!r}: {error}"[:600])
            except BadRequestError as error:
                counts["refused"] += 1
                bad.append(f"{signature!r}: {error}"[:600])

    await asyncio.gather(*map(call, signatures))
    return counts, bad


def labelled_tasks(most: int = 8) -> list[tuple[pocket.Task, tuple[str, ...]]]:
    """Tasks whose answers are few words, with these words."""
    found = []
    for name in pocket.tasks():
        if name.startswith("chain-"):
            continue
        task = pocket.task(name)
        train, _, test = task.split(64, 8, 60)
        labels = tuple(sorted({example.answer for example in [*train, *test]}))
        if 2 <= len(labels) <= most:
            found.append((task, labels))
    return found


def accuracy(seed: int, count: int) -> None:
    """Right answers of the embedded model, held to the labels and free, by level of the instruction."""
    from promptgrad import evaluate

    free, held = (lm.pocket(constrain=constrain) for constrain in (False, True))
    chosen = labelled_tasks()[::4]
    for level in pocket.LEVELS:
        rows: dict[str, list[float]] = {"text": [], "free": [], "held": []}
        for task, labels in chosen:
            test = task.split(64, 8, count)[2]
            for name, kind, model in (
                ("text", str, free),
                ("free", Literal[labels], free),
                ("held", Literal[labels], held),
            ):
                fields = [*(Field(name) for name in task.inputs), Field("answer", kind, role="output")]
                step = nn.Predict(Signature(fields, task.instruction(level)), retries=0).to(model)
                report = evaluate(step, test, task.metric, progress=False)
                rows[name].append(sum(row.score for row in report.rows if row.error is None) / len(test))
        means = {name: round(sum(scores) / len(scores), 4) for name, scores in rows.items()}
        print(json.dumps({"bench": "accuracy", "level": level, "tasks": len(rows["held"]), "examples": count, **means}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--schemas", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0, help="number of the first schema, for a run in parts")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max-tokens", type=int, default=300)
    parser.add_argument("--adapters", nargs="+", default=WAYS, choices=WAYS)
    parser.add_argument("--free", action="store_true", help="replies that are held to no form")
    parser.add_argument("--accuracy", action="store_true")
    parser.add_argument("--show", type=int, default=0, help="replies to print that could not be read")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    if given.accuracy:
        accuracy(given.seed, 30)
        return
    end = given.first + given.schemas
    signatures = [random_signature(draw_of(given.seed, "any", number), number) for number in range(given.first, end)]
    typed = [
        random_signature(draw_of(given.seed, "typed", number), number, texts=False)
        for number in range(given.first, end)
    ]
    few = [pocket_signature(draw_of(given.seed, "pocket", number), number) for number in range(given.first, end)]
    tokenizer = byte_tokenizer()
    options: dict[str, Any] = {"temperature": 1.0, "max_tokens": given.max_tokens, "threads": 1}
    wide = lm.Local(byte_model(tokenizer), tokenizer, name="bytes", constrain=not given.free, **options)
    text = " ".join(draw_of(given.seed, "text", 0).sample(pocket.words(), 5))
    ways = [("json", signatures, wide), *((adapter, typed, wide) for adapter in ("chat", "xml", "compact", "tools"))]
    ways += [("pocket", few, lm.pocket(constrain=constrain, temperature=1.0)) for constrain in (True, False)]
    for adapter, asked, model in (way for way in ways if way[0] in given.adapters):
        begun = perf_counter()
        counts, bad = aio.run(outcomes(asked, model, adapter, text, given.seed))
        held = model.constrain is not False
        row = {"bench": "schemas", "adapter": adapter, "held": held, "seed": given.seed, "first": given.first, **counts}
        print(json.dumps({**row, "seconds": round(perf_counter() - begun, 1)}))
        for line in bad[: given.show]:
            print(json.dumps({"bad": line}))


if __name__ == "__main__":
    main()
