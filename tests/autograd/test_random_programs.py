"""Random programs whose true dependencies are known: does the graph find them, and nothing else?"""

import asyncio
import functools
import html
import json
import random
import re
import string
import textwrap
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptgrad.aio import Executor
from promptgrad.autograd import Join, Loss, Text, edges, graph
from promptgrad.autograd._edges import ForwardOutput, joined_sources
from tests.autograd.programs import Call, ScriptedCritic, row, run, texts
from tests.counting import growth

WORDS = [a + b + c for a in ("ba", "ki", "mo", "ru", "te") for b in ("lan", "dor", "fes", "gim") for c in "aeionrst"]


def _note(parts):
    pydantic = pytest.importorskip("pydantic")

    class Note(pydantic.BaseModel):
        first: str
        rest: list[str]

    return Note(first=parts[0], rest=parts[1:])


# What a program may do with what calls returned: with these, exact and content edges find every dependency.
KEEPING = {
    "as it is": lambda parts: parts[0] if len(parts) == 1 else list(parts),
    "in a dict": lambda parts: {f"k{i}": {"v": part} for i, part in enumerate(parts)},
    "in a tuple in a list": lambda parts: [(i, part) for i, part in enumerate(parts)],
    "added": lambda parts: functools.reduce(lambda one, other: one + ", " + other, parts),
    "joined by a text": lambda parts: Text("; ").join(parts),
    "stripped, sliced and in capitals": lambda parts: [part.strip()[:].upper() for part in parts],
    "split and joined": lambda parts: [Text(" ").join(part.split(" ")) for part in parts],
    "format": lambda parts: Text("{} " * len(parts)).format(*parts),
}
SHEDDING = {
    "f-string": lambda parts: f"Of this: {' -- '.join(f'<{part}>' for part in parts)} what holds?",
    "str": lambda parts: [str(part) for part in parts],
    "joined by a str": lambda parts: "\n".join(parts),
    "percent": lambda parts: " ".join("* %s" % part for part in parts),  # noqa: UP031
    "json": json.dumps,
    "json of lines": lambda parts: json.dumps({"all": "\n".join(part.replace(" ", "\n") for part in parts)}),
    "json and back": lambda parts: json.loads(json.dumps({"them": parts})),
    "pydantic": _note,
    "pydantic as json": lambda parts: _note(parts).model_dump_json(),
    "re": lambda parts: [re.sub(r"[aeiou]+$", r"\g<0>", part) for part in parts],
    "the first half of it": lambda parts: [
        " ".join(str(part).split()[: max(3, len(part.split()) // 2)]) for part in parts
    ],
    "bytes and back": lambda parts: b" | ".join(part.encode() for part in parts).decode(),
    "template": lambda parts: [string.Template("see $it here").substitute(it=part) for part in parts],
    "wrapped": lambda parts: textwrap.fill(" ".join(parts), 15),
    "escaped": lambda parts: html.escape(f"<p>{'</p><p>'.join(parts)}</p>"),
    "capitals": lambda parts: f"{parts}".upper(),
    "a numbered list": lambda parts: "".join(f"{i}. {part}\n" for i, part in enumerate(parts)),
}
MODES = ("plain", "thread", "task", "nested", "recursive", "raises")


@dataclass
class Step:
    """One call: of which earlier steps it uses what, how, and where it runs."""

    module: int
    sources: list[int]
    how: str
    mode: str
    length: int


def steps(transformations, lengths, modes=MODES):
    return st.lists(
        st.builds(
            Step,
            st.integers(0, 3),
            st.lists(st.integers(0, 30), max_size=3),
            st.sampled_from(sorted(transformations)),
            st.sampled_from(modes),
            st.integers(*lengths),
        ),
        min_size=1,
        max_size=14,
    )


class Program:
    """Runs steps, and keeps which call truly used which."""

    def __init__(self, plan, seed):
        self.plan = plan
        self.rng = random.Random(seed)
        self.modules = [Call(f"m{i}", self.say) for i in range(4)]
        self.values = []
        self.made = []  # the number of the node of each value, by the order of the calls
        self.truth = set()
        self.next = ""
        self.fails = False

    def say(self, **inputs):
        if self.fails:
            raise ValueError(self.next)
        return self.next

    def call(self, step, value):
        self.next = " ".join(self.rng.choices(WORDS, k=step.length))
        self.fails = step.mode == "raises"
        try:
            return self.modules[step.module](x=value).out
        except ValueError as error:
            return Text(error)

    def deeper(self, step, value, depth):
        return self.deeper(step, value, depth - 1) if depth else self.call(step, value)

    def perform(self, step, value):
        if step.mode == "thread":
            with Executor(1) as pool:
                return pool.submit(self.call, step, value).result()
        if step.mode == "task":

            async def main():
                async def one():
                    return self.call(step, value)

                return await asyncio.create_task(one())

            return asyncio.run(main())
        return self.deeper(step, value, 3 if step.mode == "recursive" else 0)

    def __call__(self):
        for number, step in enumerate(self.plan):
            used = list(dict.fromkeys(source % number for source in step.sources)) if number else []
            parts = [self.values[source] for source in used]
            value = TRANSFORMATIONS[step.how](parts) if parts else "begin"
            self.truth |= {(source, number) for source in used}
            self.values.append(self.perform(step, value))
        self.truth.add((len(self.plan) - 1, len(self.plan)))
        return self.values[-1]


TRANSFORMATIONS = {**KEEPING, **SHEDDING}


def judged(plan, seed):
    """True and found dependencies, and all edges."""
    program = Program(plan, seed)
    _, tape = run(program)
    assert tape.error is None
    assert len(tape.nodes) == len(plan)
    found = set()
    for edge in edges(tape):
        target = len(plan) if isinstance(edge.target, ForwardOutput) else edge.target.order
        if edge.kind in ("exact", "content"):
            found |= {(source.order, target) for source in joined_sources(edge.source)}
    return program.truth, found, edges(tape)


@settings(max_examples=120)
@given(steps(TRANSFORMATIONS, (3, 9)), st.integers(0, 999))
def test_every_dependency_is_found_by_exact_and_content_edges_alone(plan, seed):
    truth, found, _ = judged(plan, seed)
    assert truth <= found


@settings(max_examples=60)
@given(steps(KEEPING, (1, 2), MODES[:-1]), st.integers(0, 999))
def test_of_short_values_too_where_texts_stay_texts(plan, seed):
    truth, found, _ = judged(plan, seed)
    assert truth <= found


@settings(max_examples=60)
@given(steps(TRANSFORMATIONS, (1, 6)), st.integers(0, 999))
def test_a_call_has_at_most_one_control_or_order_edge_and_only_if_nothing_uses_it(plan, seed):
    _, found, all_edges = judged(plan, seed)
    extra = [edge.source for edge in all_edges if edge.kind in ("control", "order")]
    assert len(extra) == len(set(extra))
    assert not {source.order for source in extra} & {source for source, _ in found}
    for edge in all_edges:  # nothing runs backwards in time, so nothing in a ring
        if not isinstance(edge.target, ForwardOutput) and not isinstance(edge.source, Join):
            assert edge.source.finished < edge.target.started


def precision(lengths, programs=150):
    rng = random.Random(0)
    right = wrong = 0
    for seed in range(programs):
        plan = [
            Step(
                rng.randrange(4),
                [rng.randrange(30) for _ in range(rng.randrange(4))],
                rng.choice(sorted(TRANSFORMATIONS)),
                rng.choice(("plain", "plain", "raises")),
                rng.randint(*lengths),
            )
            for _ in range(14)
        ]
        truth, found, _ = judged(plan, seed)
        right += len(found & truth)
        wrong += len(found - truth)
    return right / (right + wrong)


def test_what_is_found_of_values_of_three_words_and_more_is_true(record_property):
    measured = precision((3, 9))
    record_property("precision", measured)
    assert measured >= 0.95


def test_precision_of_shorter_values_is_reported(record_property):
    measured = precision((1, 2))
    record_property("precision", measured)
    assert 0 < measured <= 1


def test_a_router_gets_its_gradient():
    route, left, right = Call("route", lambda q: "left"), Call("left", lambda q: "a"), Call("right", lambda q: "b")
    for program in (
        lambda q: (left if route(q=q).out == "left" else right)(q=q).out,
        lambda q: {"left": left, "right": right}[route(q=q).out](q=q).out,
    ):
        Loss([row(program, None, q="which way")], ScriptedCritic()).backward()
    assert len(texts(route.instruction)) == len(texts(left.instruction)) == 2
    assert len(texts(right.instruction)) == 0


def test_a_caught_exception_shown_to_a_later_call_is_its_source():
    def fail(q):
        raise ValueError("the table has no column called price")

    a, b = Call("a", fail), Call("b", lambda x: "fine")

    def program(q):
        try:
            return a(q=q).out
        except ValueError as error:
            return b(x=f"It failed: {error}. Try again.").out

    loss = Loss([row(program, None, q="x")], ScriptedCritic())
    assert repr(edges(loss.rows[0].tape)[0]) == "<content <Call a[0]> -> <Call b[0]>.x>"
    loss.backward()
    assert len(texts(a.instruction)) == 1


def long_chain(size, how):
    """What there is to do for a chain of so many calls: its graph and its backward pass."""
    call = Call("step", lambda x: f"note {len(x)} of the day {next(numbers)} was {next(numbers)} words long")
    numbers = iter(range(10**9))

    def program():
        text = "begin"
        for _ in range(size):
            text = call(x=how(text)).out
        return text

    loss = Loss([row(program, None)], ScriptedCritic(lambda path, target, feedback: "wrong"))

    def work():
        assert len(graph(loss).nodes) >= size
        loss.backward()
        assert len(texts(call.instruction)) == size

    return work


@pytest.mark.parametrize("how", [lambda text: text, lambda text: f"so far: {text}"], ids=["exact", "content"])
def test_ten_thousand_calls_neither_recurse_nor_go_quadratic(how):
    long_chain(10_000, how)()
    assert growth(lambda size: long_chain(size, how), 100, times=8) < 10  # 8 if linear, 64 if quadratic
