"""What it takes to read a reply of 100,000 hostile characters, in every adapter and type and by every metric.

Shapes are pieces that repeat, some behind a head or before a tail: brackets, fences, tags, quotes, marks, numbers,
blanks, letters of other scripts. `--more` has 778 of other kinds (`_hostile_shapes.py`): nested and numbered ones, and
one sign again and again in a marker, a tag, a text, a fence, a thought. A row is an adapter with a type: the longest
time of all shapes, the shape, and the most that the time grows from 50,000 to 100,000 characters (2 is linear; shapes
that take more than 5 ms count; where half of a shape is read in another way, as an odd number of fences is, a quarter
of it says how the time grows). `--streams` reads them in pieces of 3 characters as they are written, by the readers of
streams. Times are those of the process on the CPU, so that other work on the machine matters less.
"""

from __future__ import annotations

import argparse
import enum
import time
from collections.abc import Callable, Iterator
from datetime import date
from typing import Any, Literal

import pydantic
from _hostile_shapes import shapes
from _side_by_side import header, say

import promptgrad as pg
from promptgrad.adapters import (
    Adapter,
    ChatAdapter,
    CompactAdapter,
    JSONAdapter,
    PocketAdapter,
    ToolsAdapter,
    XMLAdapter,
    template,
)
from promptgrad.errors import ParseError
from promptgrad.lm import Completion, ToolCall, without_thinking
from promptgrad.signature import Field, Signature

SIZE = 100_000
LIMIT_MS = 100.0


class Color(enum.Enum):
    """A choice."""

    RED = "red"
    BLUE = "very blue"


class Item(pydantic.BaseModel):
    """A record."""

    name: str
    price: float
    count: int | None = None
    tags: list[str] = []
    day: date | None = None


TYPES: dict[str, Any] = {
    "str": str,
    "str | None": str | None,
    "int": int,
    "float | None": float | None,
    "bool": bool,
    "Literal": Literal["low", "high", "very high"],
    "Literal | None": Literal["low", "high", 3] | None,
    "Enum": Color,
    "date": date,
    "list[str]": list[str],
    "list[int]": list[int],
    "list[Literal]": list[Literal["low", "high"]],
    "dict": dict[str, float],
    "tuple": tuple[int, str],
    "model": Item,
    "list[model]": list[Item],
    "int | str": int | str,
    "Any": Any,
    "Code": pg.Code["python"],
}
PIECES = [
    *("{", "[", "}", "]", "(", ")", "[]", "{}", "[{", '{"x":', '{"x":[', '["', "[1,", "[[1],", '{"x":1}', '{"x":1},'),
    *('{"x":1}\n', "{'x':1} ", "{x:1", "{1:", "[a] ", "[1] ", "[1]\n", "[x](y) ", "[[", "[[ ", "[[ ##", "[[ ## x"),
    *("[[ ## x ## ]]\n", "[[ ## x ## ]] 1\n", "[[ ## y ## ]]\na\n", "[[ ## completed ## ]]\n", "\\[[ ## x ## ]]\n"),
    *(
        "```",
        "``` ",
        "```\n",
        "```json\n",
        "```json\n[1]\n```\n",
        "```\n{",
        "`",
        "`x` ",
        "~~~\n",
        "~",
        "**",
        "*",
        "**x",
    ),
    *("**x** ", "**x:** ", "**x**: 1\n", "x: 1\n", "x:", "x = ", "### x\n", "# ", "#", "_", "__x__", "> ", ">", "- "),
    *("- x\n", "1. ", "1. x\n", "* a\n  * b\n", "|", "| a | b |\n", "|---|", "---\n", "<", "<x>", "</x>", "<x></x>"),
    *("<x>1</x>", "<x ", "<think>", "</think>", "<think>a</think>", "<think>a</think>\n", "<thinking ", "[THINK]"),
    *("[/THINK]", "<|channel|>", "<|channel|>final<|message|>", "<|channel|>analysis<|message|>a<|end|>", "analysis"),
    *("</reasoning>.\n", "<answer>", "</answer>", "<!--", "-->", "&lt;", '"', "'", '\\"', "\\", "\\n", "\\u", "\\u00"),
    *("\\ud83d", '"a" ', "'a' ", "''", '""', "\u201c", "\u201d", "//", "// x\n", "/*", "/* */", "a/*", "*/", "9", "0"),
    *(
        "1 ",
        "9,",
        "9.",
        "9,999,",
        "9.999.",
        "1 000 ",
        "1'000",
        "1_",
        "1e",
        "1e9",
        "1e9 ",
        "-",
        "--",
        "- 1",
        "+1",
        "\u2212",
    ),
    *(
        "1/2 ",
        "1-2 ",
        "50% ",
        "$",
        "$1 ",
        "USD ",
        "1 million ",
        "1.5k",
        "(1) ",
        "=1 ",
        "= 1\n",
        "1\n",
        "0x1",
        "\u0661",
        "\u00b2",
    ),
    *(
        "yes ",
        "no ",
        "not ",
        "yes, no. ",
        "true",
        "true ",
        "low ",
        "very ",
        "very high ",
        "low, high ",
        "red\n",
        "null ",
    ),
    *(
        "N/A ",
        "None",
        "not low ",
        "n't ",
        "2020-01-01 ",
        "2020-",
        "12:00:",
        "a",
        "a ",
        "a b c ",
        "a\n",
        "A.",
        ". ",
        ", ",
    ),
    *(",", ":", ": ", "answer: ", "Answer: 1\n", "The answer is ", "x ", " ", "\t", "\n", "\r", "\r\n", "\n\n", " \n"),
    *("\u00a0", "\u2003", "\u200b", "\u2028", "\u3000", "\u202f1", "\ufeff", "\u2423", " \u2423", "\u00e9", "e\u0301"),
    *(
        "\u4e2d",
        "\u3002",
        "\U0001f600",
        "\U0001f468\u200d\U0001f469\u200d\U0001f467 ",
        "\ud83d",
        "\x00",
        "\x1b[0m",
        "\u0130",
    ),
]
HEADS = [
    "",
    "{",
    "[",
    '{"x": ',
    '{"x": "',
    "<think>",
    "```json\n",
    "The answer is ",
    "1",
    "[[ ## x ## ]]\n",
    "- ",
    '["',
]
TAILS = ["", "}", "]", '"}', "```", "</think>", "\n[[ ## x ## ]]\n1", "\n[[ ## completed ## ]]", "x", "1", "\n\n{"]


def replies(size: int, *, all_of_them: bool) -> Iterator[tuple[tuple[str, str, str], str]]:
    """The shapes, each as head, piece and tail, with its text."""
    for piece in PIECES:
        body = piece * (size // len(piece))
        for head in HEADS if all_of_them else HEADS[:1]:
            yield (head, piece, ""), head + body
        for tail in TAILS[1:] if all_of_them else ():
            yield ("", piece, tail), body + tail
        if all_of_them:
            half = piece * (size // len(piece) // 2)
            yield (piece, "x", piece), f"{half}x{half}"


def more(size: int) -> Iterator[tuple[tuple[str, str, str], str]]:
    """The shapes of other kinds, each as its name, with its text."""
    for name, make in shapes():
        yield (name, "", ""), make(size)


def metrics() -> dict[str, Callable[[str], Any]]:
    """What each metric says of a text."""
    row = pg.Example(question="q", answer="42 very high").with_inputs("question")
    made: dict[str, Any] = {
        "exact_match": pg.metrics.exact_match,
        "contains": pg.metrics.contains,
        "f1": pg.metrics.f1,
        "recall": pg.metrics.recall,
        "numeric_match": pg.metrics.numeric_match,
    }
    return {name: lambda text, metric=metric: metric(row, text) for name, metric in made.items()}


def readers() -> dict[tuple[str, str], Callable[[str], Any]]:
    """What reads a reply, by adapter and type."""
    found: dict[tuple[str, str], Callable[[str], Any]] = {}
    adapters = (ChatAdapter(), JSONAdapter(), XMLAdapter(), CompactAdapter(), ToolsAdapter(), PocketAdapter())
    for adapter in adapters:
        for name, kind in TYPES.items():
            if adapter.name == "pocket" and name not in ("str", "bool", "Literal", "list[str]"):
                continue
            field = "answer" if adapter.name == "pocket" else "x"
            both = [Field("question"), Field(field, kind, role="output")]
            found[adapter.name, name] = whole(adapter, Signature(both))
            if adapter.name != "pocket":
                found[adapter.name, f"{name}, str"] = whole(adapter, Signature([*both, Field("y", role="output")]))
    for name in ("str", "int", "list[str]"):
        one = [Field("question"), Field("x", TYPES[name], role="output")]
        two = Signature([*one, Field("y", role="output")])
        found["template", name] = whole(template("{question}"), Signature(one))
        found["template", f"{name}, str"] = whole(template("{question}", reply="{x}\nFinal answer: {y}"), two)
        found["template", f"{name}, pattern"] = whole(
            template("{question}", parse=r"Final answer: (?P<x>.*)"), Signature(one)
        )
    for name, metric in metrics().items():
        found["metric", name] = metric
    return found


def whole(adapter: Adapter, signature: Signature) -> Callable[[str], Any]:
    """All that happens to a reply: thoughts are split off, it is read, and where it cannot be, asked for again."""

    def read(text: str) -> None:
        said: Any = (ToolCall("1", "reply", text),) if isinstance(adapter, ToolsAdapter) else text
        completion = without_thinking(Completion(said), prompt="What is it? Think <reasoning> first.")
        try:
            adapter.parse(signature, completion)
        except ParseError as error:
            adapter.repair_messages(completion, error)

    read("warm")
    return read


def streamed() -> dict[tuple[str, str], Callable[[str], Any]]:
    """What reads a reply as it is written, by adapter and type."""
    found: dict[tuple[str, str], Callable[[str], Any]] = {}
    fields = [Field("question"), Field("y", role="output")]
    marked = template("{question}", reply="{x}\nFinal answer: {y}")
    for adapter in (ChatAdapter(), JSONAdapter(), XMLAdapter(), marked):
        for name in ("str", "list[str]", "model"):
            form = adapter.format(Signature([fields[0], Field("x", TYPES[name], role="output"), fields[1]]))

            def read(text: str, form: Any = form) -> None:
                feed = form.feed()
                for at in range(0, len(text), 3):
                    for _ in feed.feed(text[at : at + 3]):
                        pass

            found[f"{adapter.name}, stream", name] = read
    return found


def timed(read: Callable[[str], Any], text: str, best_of: int = 1) -> float:
    """Milliseconds of CPU."""
    times = []
    for _ in range(best_of):
        started = time.process_time()
        read(text)
        times.append(time.process_time() - started)
    return 1e3 * min(times)


def main() -> None:
    """Measure every reader."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few shapes and small ones, to see that it runs")
    parser.add_argument("--wide", action="store_true", help="every piece with every head and tail, which takes minutes")
    parser.add_argument("--more", action="store_true", help="the shapes of other kinds")
    parser.add_argument("--streams", action="store_true", help="as they are written, in pieces of 3 characters")
    parser.add_argument("--only", default="", help="adapters or metrics whose name contains this")
    parser.add_argument("--blocks", type=int, default=1, help="not used")
    chosen = parser.parse_args()
    header("hostile")
    size = SIZE // 50 if chosen.quick else SIZE
    made = more if chosen.more else lambda size: replies(size, all_of_them=chosen.wide)
    for (who, kind), read in (streamed() if chosen.streams else readers()).items():
        if chosen.only not in who or (chosen.quick and kind not in ("str", "model", "f1")):
            continue
        slowest, worst, growth, grows, count = 0.0, ("", "", ""), 0.0, ("", "", ""), 0
        for (shape, text), (_, half), (_, quarter) in zip(made(size), made(size // 2), made(size // 4), strict=True):
            took = timed(read, text)
            count += 1
            if took > slowest:
                took = timed(read, text, best_of=3)
                slowest, worst = (took, shape) if took > slowest else (slowest, worst)
            if took > 5:
                factor = timed(read, text, best_of=3) / max(1e-6, timed(read, half, best_of=3))
                if factor > 3:
                    factor = min(factor, (timed(read, text, best_of=3) / timed(read, quarter, best_of=3)) ** 0.5)
                growth, grows = (factor, shape) if factor > growth else (growth, grows)
        say(
            bench="hostile",
            case=f"{size:,} characters, {count} shapes",
            who=f"promptgrad {who}",
            reads=kind,
            most_ms=round(slowest, 1),
            shape=worst,
            grows=round(growth, 2),
            where=grows,
            **({} if chosen.streams else {"target": f"<= {LIMIT_MS:g} ms", "meets": slowest <= LIMIT_MS}),
        )


if __name__ == "__main__":
    main()
