"""A million signs of one kind, as models write that have lost themselves: the time grows with their number."""

import json
from functools import partial

import pydantic
import pytest

from promptgrad import Example, metrics
from promptgrad.adapters import ChatAdapter, CompactAdapter, JSONAdapter, PocketAdapter, XMLAdapter, template
from promptgrad.autograd._rules import quoted
from promptgrad.content import Code
from promptgrad.errors import ParseError
from promptgrad.lm import Completion, without_thinking
from promptgrad.lm._local_tools import read_calls
from promptgrad.signature import Field, Signature
from tests.counting import steps
from tests.waiting import ends

LENGTH = 1_000_000


class Named(pydantic.BaseModel):
    name: str
    day: bool = True


ADAPTERS = {
    "chat": ChatAdapter(),
    "json": JSONAdapter(),
    "xml": XMLAdapter(),
    "compact": CompactAdapter(),
    "pocket": PocketAdapter(),
    "template": template("{question}"),
}
RUNS = {
    "blanks behind half a marker": lambda length: "[[" + " " * length + "x!",
    "blanks in a marker without a name": lambda length: "[[ ##" + " " * length + "a",
    "blanks behind a thought": lambda length: "<think>a</think>b" + " " * length + "c",
    "lines behind a thought": lambda length: "<think>a</think>b" + "\n" * length + "c",
    "quotes before a letter": lambda length: "a" + "`" * length + "b",
    "quotes that open": lambda length: "\N{LEFT DOUBLE QUOTATION MARK}" * length,
    "boxes behind a thought": lambda length: "<think>a</think>" + "<|begin_of_box|>" * (length // 16),
}


def reads(adapter, annotation, text):
    """All that happens to a reply; None where it is asked for again."""
    signature = Signature([Field("question"), Field("answer", annotation, role="output")])
    try:
        return adapter.parse(signature, without_thinking(Completion(text)))["answer"]
    except ParseError as error:
        adapter.repair_messages(Completion(text), error)
        return None


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("run", RUNS)
def test_a_run_of_one_sign_is_read_in_linear_time(adapter, run):
    ends(partial(reads, ADAPTERS[adapter], str, RUNS[run](LENGTH)))


@pytest.mark.parametrize("sign", ["~", "`"])
def test_a_long_fence_around_code_is_read_in_linear_time(sign):
    for text in (sign * LENGTH + "#", sign * LENGTH + "\nx\n", f"{sign * 3}\n" * (LENGTH // 4) + "x"):
        ends(partial(reads, ADAPTERS["json"], Code["python"], json.dumps({"answer": text})))


@pytest.mark.parametrize("run", RUNS)
def test_so_it_is_by_those_who_read_texts_otherwise(run):
    text = RUNS[run](LENGTH)
    row = Example(answer="42")
    assert ends(partial(metrics.numeric_match, row, text)) == 0
    assert ends(partial(read_calls, f"<tool_call>{{{text}", "1")) == f"<tool_call>{{{text}"
    assert ends(partial(quoted, text)) == []


def test_calls_that_do_not_end_are_sought_in_linear_time():
    text = "<tool_call>{" * (LENGTH // 12)
    assert ends(partial(read_calls, text, "1")) == text


def test_matches_of_a_pattern_are_compared_in_linear_time():
    adapter = template("{question}", parse=r"answer: (?P<answer>.*)")
    ends(partial(reads, adapter, str, "".join(f"answer: {number}\n" for number in range(300_000))))


def test_a_long_key_is_no_name_and_is_not_taken_apart():
    short, long = (json.dumps({"answer": {"name": "a", "word " * count: 1}}) for count in (100, 100_000))
    work = [steps(partial(reads, ADAPTERS["json"], Named, reply)) for reply in (short, short, long)]
    assert work[2] < 2 * work[1]
