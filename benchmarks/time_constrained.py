"""Time of replies held to a JSON schema beside free ones of the same lengths, and of two libraries that compute masks.

The embedded model's layers under byte pairs (`random_schemas.py`) answer 64 requests at once, drawn at temperature 1,
each held to one of some random schemas; then the same requests free, each as long as its reply was. In turns, medians
of the CPU seconds of this process, whose model has one thread. A row for each library says what a grammar costs to
compile, what a mask costs for one row and step, and how many of the texts that it lets end fit the schema, with the
vocabulary of the model and with the 65,000 tokens that come with litellm; a library that is not installed is skipped.
Prints JSON lines.

    python benchmarks/time_constrained.py --requests 64 --rounds 5
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import random_schemas as schemas
import torch
from transformers import __version__

from promptgrad import aio
from promptgrad.adapters import get_adapter
from promptgrad.lm import Local, Request, json_grammar

CLASSES = 8


def asked(count: int, seed: int, max_tokens: int) -> list[Request]:
    """Requests in the JSON adapter, each of some schemas as often as the others."""
    draw = random.Random(seed)
    adapter = get_adapter("json")
    made = []
    for number in range(CLASSES):
        signature = schemas.random_signature(draw, number)
        compiled = adapter.compile(signature)
        tail = compiled.request_tail({"question": "which one is the red one"})
        form = compiled.response_format
        made.append(Request(compiled.prefix, tail, 1.0, max_tokens, response_format=form))
    return [made[number % CLASSES].replace(replicate=number) for number in range(count)]


def library_rows(vocabulary: str, tokenizer: Any, size: int, count: int, seed: int) -> list[dict[str, Any]]:
    """Compile, mask and validity of each library on random schemas and texts that fit them."""
    draw = random.Random(seed)
    cases = []
    for number in range(count):
        signature = schemas.random_signature(draw, number)
        form = get_adapter("json").response_format(signature)
        cases.append(json.loads(form or "{}")["json_schema"]["schema"])
    return [
        {
            "who": name,
            "vocabulary": vocabulary,
            "tokens": size,
            "schemas": count,
            **measure(tokenizer, size, cases, seed),
        }
        for name, measure in (("llguidance", measure_llguidance), ("xgrammar", measure_xgrammar))
    ]


def measure_llguidance(tokenizer: Any, size: int, cases: list[Any], seed: int) -> dict[str, Any]:
    """Figures of llguidance, as `lm.Local` uses it."""
    try:
        from promptgrad.lm._grammar import Grammars

        begun = perf_counter()
        grammars = Grammars(tokenizer, size, [tokenizer.eos_token_id], "bench")
    except ImportError as error:
        return {"skipped": f"not installed: {error}"}
    made = perf_counter() - begun

    def begin(schema: Any) -> Any:
        return grammars.constraint(json_grammar(schema)).matcher

    def fill(matcher: Any, bits: Any) -> None:
        grammars._fill(matcher, bits, 0)

    words = (grammars._vocabulary.vocab_size + 31) // 32
    return {"vocabulary_s": round(made, 2), **walk(begin, fill, "consume_token", words, size, tokenizer, cases, seed)}


def measure_xgrammar(tokenizer: Any, size: int, cases: list[Any], seed: int) -> dict[str, Any]:
    """Figures of xgrammar, with compact JSON as it writes it."""
    try:
        import xgrammar
    except ImportError as error:
        return {"skipped": f"not installed: {error}"}
    begun = perf_counter()
    told = xgrammar.TokenizerInfo.from_huggingface(tokenizer, vocab_size=size, stop_token_ids=[tokenizer.eos_token_id])
    compiler = xgrammar.GrammarCompiler(told, max_threads=1)
    made = perf_counter() - begun

    def begin(schema: Any) -> Any:
        text = json.dumps(schema)
        return xgrammar.GrammarMatcher(compiler.compile_json_schema(text, any_whitespace=False, strict_mode=True))

    def fill(matcher: Any, bits: Any) -> None:
        matcher.fill_next_token_bitmask(torch.from_numpy(bits))

    words = (size + 31) // 32
    return {"vocabulary_s": round(made, 2), **walk(begin, fill, "accept_token", words, size, tokenizer, cases, seed)}


def walk(
    begin: Any, fill: Any, accept: str, words: int, size: int, tokenizer: Any, cases: list[Any], seed: int
) -> dict[str, Any]:
    """Draw replies by the masks alone, and see what came."""
    import numpy

    draw = numpy.random.default_rng(seed)
    compiled: list[float] = []
    masks: list[float] = []
    ended = valid = refused = 0
    for schema in cases:
        begun = perf_counter()
        try:
            matcher = begin(schema)
        except Exception:  # noqa: BLE001 - each library has kinds of its own
            refused += 1
            continue
        compiled.append(perf_counter() - begun)
        ids: list[int] = []
        while len(ids) < 400:
            bits = numpy.zeros((1, words), numpy.int32)
            begun = perf_counter()
            fill(matcher, bits)
            masks.append(perf_counter() - begun)
            allowed = numpy.flatnonzero(numpy.unpackbits(bits.view(numpy.uint8), bitorder="little")[:size])
            token = int(draw.choice(allowed)) if len(allowed) else tokenizer.eos_token_id
            if token == tokenizer.eos_token_id:
                ended += 1
                valid += fits(tokenizer.decode(ids), schema)
                break
            getattr(matcher, accept)(token)
            ids.append(token)
    return {
        "refused": refused,
        "compile_ms": round(1e3 * statistics.median(compiled), 2),
        "mask_us": round(1e6 * statistics.median(masks), 1),
        "mask_us_99": round(1e6 * sorted(masks)[int(0.99 * len(masks))], 1),
        "ended": ended,
        "valid": valid,
    }


def fits(text: str, schema: Any) -> bool:
    """Whether a text is JSON that fits a schema, as jsonschema sees it."""
    import jsonschema

    try:
        jsonschema.validate(json.loads(text), schema)
    except (ValueError, jsonschema.ValidationError):
        return False
    return True


def large_tokenizer() -> Any:
    """The 65,000 tokens that come with litellm."""
    import litellm
    from transformers import PreTrainedTokenizerFast

    path = Path(litellm.__file__).parent / "litellm_core_utils" / "tokenizers" / "anthropic_tokenizer.json"
    return PreTrainedTokenizerFast(tokenizer_file=str(path), eos_token="<EOT>")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--schemas", type=int, default=100, help="schemas for the rows of the libraries")
    parser.add_argument("--quick", action="store_true", help="few requests, one round: whether it runs, no figure")
    given = parser.parse_args()
    if given.quick:
        given.requests, given.rounds, given.max_tokens, given.schemas = 4, 1, 16, 4
    torch.set_num_threads(1)
    tokenizer = schemas.byte_tokenizer()
    model = schemas.byte_model(tokenizer)
    held, free = (Local(model, tokenizer, name="bytes", constrain=constrain) for constrain in (True, False))
    requests = asked(given.requests, given.seed, given.max_tokens)

    def answer(local: Local, these: list[Request]) -> list[int]:
        async def all_of_them() -> list[int]:
            made = await asyncio.gather(*[local.sample(one) for one in these])
            return [len(one.ids) for one in made]

        return aio.run(all_of_them())

    sizes = answer(held, requests)
    same = [one.replace(max_tokens=size) for one, size in zip(requests, sizes, strict=True)]
    tokens = {"held": sum(sizes), "free": sum(answer(free, same))}  # a free one may end before
    seconds: dict[str, list[float]] = {"held": [], "free": []}
    for _ in range(given.rounds):
        for name, local, these in (("held", held, requests), ("free", free, same)):
            begun = process_time()  # one thread: what other load takes does not count
            answer(local, these)
            seconds[name].append(process_time() - begun)
    median = {name: statistics.median(times) for name, times in seconds.items()}
    header = {"bench": "constrained", "torch": torch.__version__, "transformers": __version__, **vars(given)}
    print(json.dumps({**header, "classes": CLASSES, "output_tokens": tokens, "vocabulary": len(tokenizer)}))
    for name, value in median.items():
        speed = {"cpu_seconds": round(value, 3), "tokens_per_second": round(tokens[name] / value)}
        print(json.dumps({"who": f"promptgrad {name}", **speed}))
    ratio = round(tokens["held"] / median["held"] * median["free"] / tokens["free"], 2)
    print(json.dumps({"who": "promptgrad held beside free", "ratio": ratio, "target": 0.8, "meets": ratio >= 0.8}))
    rows = library_rows("byte pairs", tokenizer, len(tokenizer), given.schemas, given.seed)
    if not given.quick:
        large = large_tokenizer()
        rows += library_rows("litellm's", large, len(large), given.schemas, given.seed)
    for row in rows:
        print(json.dumps(row))
    held.close()
    free.close()


if __name__ == "__main__":
    main()
