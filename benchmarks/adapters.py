"""Tokens and parse rates of all adapters, on 24 signatures with values: no model takes part.

Tokens are those of tiktoken's cl100k_base, in the contents of the messages (roles and frames are not counted), in calls
of tools, and in the tools and the schema that go beside the messages. A prompt is that of one call without demos, and
with two. `two_step` has two prompts and two replies, which are added.

Replies are read as each adapter asks for them and in the dress in which models send them: with prose around them, in a
fence, in another case, with bold marks, behind thoughts, with Windows' line ends, without their last sign, as the value
alone, in the chat adapter's form, as JSON, and with a field too many. A reply is read right, read as something else, or
refused (and then asked for again). The template is what a user would write: a line for each field.

    python benchmarks/adapters.py                # a line of JSON for each adapter, and one for each dress
    python benchmarks/adapters.py --table        # as tables
"""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import pydantic
from _side_by_side import header, say

import promptgrad as pg
from promptgrad import nn
from promptgrad.adapters import Adapter, get_adapter, template
from promptgrad.errors import ParseError
from promptgrad.lm import Completion, Message, ToolCall
from promptgrad.signature import Signature, make_signature


class Person(pydantic.BaseModel):
    """A record."""

    name: str
    age: int | None = None


class Line(pydantic.BaseModel):
    """A line of an invoice."""

    item: str = pydantic.Field(description="as printed")
    quantity: int
    price: float


class Invoice(pydantic.BaseModel):
    """A record in records."""

    number: str
    lines: list[Line]
    paid: bool = False


TYPES: dict[str, Any] = {
    "Person": Person,
    "Invoice": Invoice,
    "Line": Line,
    "Mood": Literal["positive", "neutral", "negative"],
    "Topic": Literal["billing", "delivery", "account", "other"],
}
LETTER = (
    "Dear team,\n\nthe parcel 4711 came two days late, and the lamp in it was broken: its shade has a crack.\n"
    "Please send a new one, or give me my money back. My number is +49 170 555 0100.\n\nYours, Ann Lee"
)
Case = tuple[str, dict[str, Any], dict[str, Any]]
CASES: list[Case] = [
    ("question -> answer", {"question": "What is the capital of France?"}, {"answer": "Paris"}),
    (
        "question -> reasoning, answer",
        {"question": "A train leaves at 9:40 and takes 85 minutes. When does it arrive?"},
        {"reasoning": "85 minutes are an hour and 25 minutes. 9:40 and 1:25 make 11:05.", "answer": "11:05"},
    ),
    ("review -> mood: Mood", {"review": "The lamp is fine, the shop was slow."}, {"mood": "neutral"}),
    ("letter -> topic: Topic, urgent: bool", {"letter": LETTER}, {"topic": "delivery", "urgent": True}),
    ("letter -> people: list[Person]", {"letter": LETTER}, {"people": [Person(name="Ann Lee")]}),
    ("letter -> summary", {"letter": LETTER}, {"summary": "A lamp came late and broken; she wants a new one."}),
    ("question -> answer: float", {"question": "What is 17 percent of 250?"}, {"answer": 42.5}),
    ("question -> answer: int", {"question": "How many legs have three spiders?"}, {"answer": 24}),
    ("text -> tags: list[str]", {"text": "A red lamp from Turin, 1970s."}, {"tags": ["lamp", "red", "Italy", "1970s"]}),
    ("text, language -> translation", {"text": "Good morning!", "language": "French"}, {"translation": "Bonjour !"}),
    (
        "question, context: list[str] -> answer, used: list[int]",
        {"question": "Who wrote it?", "context": ["The book is of 1818.", "Mary Shelley wrote it."]},
        {"answer": "Mary Shelley", "used": [2]},
    ),
    (
        "scan -> invoice: Invoice",
        {"scan": "INVOICE 2024-17\n2 lamp 19.90\n1 shade 7.50\nPAID"},
        {
            "invoice": Invoice(
                number="2024-17",
                lines=[Line(item="lamp", quantity=2, price=19.9), Line(item="shade", quantity=1, price=7.5)],
                paid=True,
            )
        },
    ),
    ("claim, evidence -> supported: bool", {"claim": "It is blue.", "evidence": "It is red."}, {"supported": False}),
    ("text -> counts: dict[str, int]", {"text": "a b a c a"}, {"counts": {"a": 3, "b": 1, "c": 1}}),
    ("text -> keyword, weight: float", {"text": "Lamps, lamps."}, {"keyword": "lamps", "weight": 0.75}),
    (
        "topic -> title, body",
        {"topic": "lamps"},
        {"title": "On lamps", "body": "A lamp gives light.\n\n- It has a shade.\n- It has a bulb.\n\nThat is all."},
    ),
    ("dish -> steps: list[str], minutes: int", {"dish": "tea"}, {"steps": ["boil", "pour", "wait"], "minutes": 5}),
    ("text -> corrected", {"text": "he go home"}, {"corrected": "He goes home."}),
    ("text -> span: tuple[int, int]", {"text": "the red lamp"}, {"span": (4, 7)}),
    (
        "question -> plan: list[str], first_query",
        {"question": "Who is older?"},
        {"plan": ["a", "b"], "first_query": "age of A"},
    ),
    ("a, b -> better: Literal['a', 'b'], why", {"a": "x", "b": "y"}, {"better": "b", "why": "It is shorter."}),
    ("text -> person: Person | None", {"text": "Nobody is named here."}, {"person": None}),
    ("problem -> code", {"problem": "Add two numbers."}, {"code": "def add(a, b):\n    return a + b"}),
    (
        "notes: list[str], draft -> critique, score: int, revised",
        {"notes": ["too long", "no example"], "draft": "Lamps are lamps."},
        {"critique": "It says nothing.", "score": 2, "revised": "A lamp gives light, as the one on my desk."},
    ),
]


def own_template(signature: Signature) -> Adapter:
    """What a user would write: a line for each field."""
    asked = "\n".join(f"{name}: {{{name}}}" for name in signature.inputs)
    if len(signature.outputs) == 1:
        return template(f"{asked}\n{next(iter(signature.outputs))}:")
    return template(asked, reply="\n".join(f"{name}: {{{name}}}" for name in signature.outputs))


Made = Callable[[Signature], Adapter]
ADAPTERS: dict[str, Made] = {
    **{
        name: (lambda _, name=name: get_adapter(name))
        for name in ("chat", "json", "xml", "tools", "compact", "two_step")
    },
    "template": own_template,
}


def counter() -> tuple[str, Callable[[str], int]]:
    """What counts tokens: tiktoken with the vocabulary that comes with litellm, else the library's estimate."""
    found = find_spec("litellm")
    if found is not None and found.origin and find_spec("tiktoken") is not None:
        os.environ["TIKTOKEN_CACHE_DIR"] = str(Path(found.origin).parent / "litellm_core_utils" / "tokenizers")
        import tiktoken

        coding = tiktoken.get_encoding("cl100k_base")
        return "cl100k_base", lambda text: len(coding.encode(text, disallowed_special=()))
    return "estimate", lambda text: pg.lm.expected_tokens(text)


def told(messages: tuple[Message, ...]) -> str:
    """All that stands in messages."""
    return "\n".join(
        f"{part.name}{part.arguments}" if isinstance(part, ToolCall) else getattr(part, "text", "")
        for message in messages
        for part in message.parts
    )


def tokens_of(make: Made, count: Callable[[str], int]) -> dict[str, float]:
    """Mean tokens over all cases: of a prompt, of one with two demos, of what goes beside it, and of a reply."""
    sums: Counter[str] = Counter()
    for text, inputs, outputs in CASES:
        signature = make_signature(text, types=TYPES)
        adapter = make(signature)
        calls = [(adapter, signature, inputs, outputs)]
        if adapter.first_outputs is not None:
            free = adapter.format(signature).assistant(outputs)
            second = adapter.second_step(signature)  # type: ignore[attr-defined]
            calls.append((get_adapter("chat"), second, {next(iter(second.inputs)): free}, outputs))
        for place, (own, asked, given, wanted) in enumerate(calls):
            for name, demos in (("prompt", ()), ("with two demos", ({**given, **wanted},) * 2)):
                step = nn.Predict(asked, adapter=own, demos=demos if place == 0 or name == "prompt" else ())
                sums[name] += count(told(step.messages(**given)))
            compiled = own.compile(asked)
            form = own.format(asked)
            sums["beside"] += count(compiled.response_format or "") + sum(
                count(v) for v in form.options(given).values()
            )
            sums["reply"] += count(told((Message("assistant", form.assistant(wanted)),)))
    return {name: round(total / len(CASES), 1) for name, total in sums.items()}


Dress = Callable[[str, Signature, dict[str, Any]], "str | None"]


def _alone(reply: str, signature: Signature, outputs: dict[str, Any]) -> str | None:
    (name, *more), form = [*signature.outputs], get_adapter("chat").format(signature)
    return None if more else form.write(name, outputs[name])


def _as_object(reply: str, signature: Signature, outputs: dict[str, Any]) -> str:
    return str(get_adapter("json").format(signature).assistant(outputs))


def _as_sections(reply: str, signature: Signature, outputs: dict[str, Any]) -> str:
    return str(get_adapter("chat").format(signature).assistant(outputs))


def _renamed(change: Callable[[str], str]) -> Dress:
    def dress(reply: str, signature: Signature, outputs: dict[str, Any]) -> str:
        for name in signature.outputs:
            for before, after in ((f"[[ ## {name}", " ##"), (f'"{name}', '"'), (f"<{name}", ">"), (f"</{name}", ">")):
                reply = reply.replace(before + after, before.replace(name, change(name)) + after)
            lines = [
                change(name) + line[len(name) :] if line.startswith(f"{name}:") else line for line in reply.split("\n")
            ]
            reply = "\n".join(lines)
        return reply

    return dress


def _bold(reply: str, signature: Signature, outputs: dict[str, Any]) -> str:
    lines = []
    for line in reply.split("\n"):
        name = next((name for name in signature.outputs if line.startswith(f"{name}:")), None)
        marked = line.startswith("[[ ## ")
        lines.append(f"**{line}**" if marked else line if name is None else f"**{name}:**{line[len(name) + 1 :]}")
    return "\n".join(lines)


DRESSES: dict[str, Dress] = {
    "as asked for": lambda reply, s, o: reply,
    "prose before": lambda reply, s, o: f"Sure! Here is what you asked for:\n\n{reply}",
    "prose after": lambda reply, s, o: f"{reply}\n\nI hope this helps. Let me know if you need anything else!",
    "in a fence": lambda reply, s, o: f"```\n{reply}\n```",
    "behind thoughts": lambda reply, s, o: f"<think>\nLet me see. It may be this, or that.\n</think>\n\n{reply}",
    "names in capitals": _renamed(str.upper),
    "bold names": _bold,
    "line ends of Windows": lambda reply, s, o: reply.replace("\n", "\r\n"),
    "last 12 signs missing": lambda reply, s, o: reply[:-12] if len(reply) > 24 else None,
    "the value alone": _alone,
    "as a JSON object": _as_object,
    "in sections": _as_sections,
}


MORE = "a field too many"


def outcome(adapter: Adapter, signature: Signature, reply: Completion, wanted: dict[str, Any]) -> str:
    """What becomes of a reply: right, other or refused."""
    try:
        found = adapter.format(signature).parse_whole(reply)
    except ParseError:
        return "refused"
    return "right" if {**found} == wanted else "other"


def _with_another(adapter: Adapter, signature: Signature, outputs: dict[str, Any]) -> Any:
    """The reply with a field more than was asked for."""
    more = signature.append(pg.signature.Field("confidence", str, "", "output"))
    if adapter.name == "template":
        return f"{adapter.format(signature).assistant(outputs)}\nconfidence: high"
    return adapter.format(more).assistant({**outputs, "confidence": "high"})


def rates(make: Made) -> dict[str, Counter[str]]:
    """What becomes of all replies, by their dress."""
    found: dict[str, Counter[str]] = {}
    for text, _, outputs in CASES:
        signature = make_signature(text, types=TYPES)
        adapter = make(signature)
        if adapter.first_outputs is not None:
            continue  # its first reply is free, and the second one is the chat adapter's
        plain = adapter.format(signature).assistant(outputs)
        for name, dress in DRESSES.items():
            call = plain[0] if isinstance(plain, tuple) else None  # whose arguments are dressed
            made = dress(str(plain) if call is None else call.arguments, signature, outputs)
            if made is not None:
                reply = Completion(made if call is None else (ToolCall("1", call.name, made),))
                found.setdefault(name, Counter())[outcome(adapter, signature, reply, outputs)] += 1
        reply = Completion(_with_another(adapter, signature, outputs))
        found.setdefault(MORE, Counter())[outcome(adapter, signature, reply, outputs)] += 1
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args()
    coding, count = counter()
    rows = []
    for name, make in ADAPTERS.items():
        seen = rates(make)
        total: Counter[str] = sum(seen.values(), Counter())
        rows.append(
            {"adapter": name, **tokens_of(make, count), **{what: total[what] for what in ("right", "other", "refused")}}
        )
        rows[-1]["by dress"] = {dress: {**counts} for dress, counts in seen.items()}
    if given.table:
        show(rows)
        return
    header("adapters", cases=len(CASES), tokens=coding)
    for row in rows:
        say(**row)


def show(rows: list[dict[str, Any]]) -> None:
    """The rows as tables."""
    names = ["prompt", "with two demos", "beside", "reply", "right", "other", "refused"]
    print("| adapter |", " | ".join(names), "|\n|---|" + "---|" * len(names))
    for row in rows:
        print("|", row["adapter"], "|", " | ".join(str(row.get(name, "")) for name in names), "|")
    print("\n| dress |", " | ".join(str(row["adapter"]) for row in rows if row["by dress"]), "|")
    print("|---|" + "---|" * sum(bool(row["by dress"]) for row in rows))
    for dress in (*DRESSES, MORE):
        cells = []
        for row in rows:
            if row["by dress"]:
                counts = row["by dress"].get(dress, {})
                of = sum(counts.values())
                cells.append(
                    f"{counts.get('right', 0)} of {of}" + (f", {counts['other']} other" if counts.get("other") else "")
                )
        print("|", dress, "|", " | ".join(cells), "|")


if __name__ == "__main__":
    main()
