"""Replies in the ways in which models write them, each with the value that is meant, or asked again.

The rule of them all: a value is read where it is the only reading. One that nobody meant is worse than an error.
"""

from __future__ import annotations

import datetime
import enum
from typing import Any, Literal

import pydantic
import pytest

from promptgrad import nn
from promptgrad.adapters import Adapter, ChatAdapter, CompactAdapter, JSONAdapter, ToolsAdapter, XMLAdapter
from promptgrad.errors import ParseError
from promptgrad.lm import Completion, FunctionLM, ReasoningPart, TextPart, ToolCall, without_thinking
from promptgrad.signature import Field, Signature

CHAT, JSON, XML, COMPACT, TOOLS = ChatAdapter(), JSONAdapter(), XMLAdapter(), CompactAdapter(), ToolsAdapter()
MARKED: Any = None
"""In its section, as it was asked for."""
AGAIN: Any = object()
YesNo = Literal["yes", "no"]
LONG = "The capital is well known and has been so for ages. " * 6


class Rating(enum.Enum):
    POOR = 1
    GOOD = 2


class Item(pydantic.BaseModel):
    name: str
    price: float
    count: int | None = None
    tags: list[str] = []


REPLIES: list[tuple[Any, Any, str, Any]] = [
    (CHAT, str, 'Sure!\n{"answer": "Paris"}', "Paris"),
    (CHAT, str, 'Sure!\n\n```json\n{"answer": "Paris"}\n```', "Paris"),
    (CHAT, str, 'Of course. Here you go\n{"answer": "Paris"}', "Paris"),
    (CHAT, str, 'Certainly! {"answer": "Paris"}', "Paris"),
    (CHAT, str, '{"answer": "Paris"}\n\nLet me know if you need anything else!', "Paris"),
    (CHAT, str, '{"answer": "Paris"}\nHope this helps!', "Paris"),
    (CHAT, str, LONG + '\n{"answer": "Paris"}', AGAIN),
    (CHAT, str, "{'answer': 'Paris'}", "Paris"),
    (CHAT, str, "Sure!\n<answer>Paris</answer>", "Paris"),
    (CHAT, str, "Sure!\nanswer: Paris", "Paris"),
    (CHAT, str, "Sure!\n**Answer:** Paris", "Paris"),
    (CHAT, str, "Sure! Paris", "Sure! Paris"),
    (CHAT, str, 'POST {"answer": "yes"} to /x to answer.', 'POST {"answer": "yes"} to /x to answer.'),
    (CHAT, int, 'Sure!\n{"answer": 42}', 42),
    (CHAT, list[str], 'Sure!\n{"answer": ["a","b"]}', ["a", "b"]),
    (CHAT, Item, 'Sure!\n{"name": "a", "price": 1.5}', Item(name="a", price=1.5)),
    (CHAT, bool, 'Sure!\n{"answer": true}', True),
    (CHAT, YesNo, 'Sure!\n{"answer": "yes"}', "yes"),
    (JSON, str, 'Sure!\n{"answer": "Paris"}', "Paris"),
    (COMPACT, str, 'Sure!\n{"answer": "Paris"}', "Paris"),
    (XML, str, 'Sure!\n{"answer": "Paris"}', "Paris"),
    (CHAT, str, "[[ ## answer ## ]]\nParis\n\n[[ ## completed ## ]]\n\nLet me know!", "Paris"),
    (MARKED, str, "Paris\n\n[[ ## completed ## ]]\n[[ ## answer ## ]]\nLyon", AGAIN),
    (MARKED, int, "about 40 to 50", AGAIN),
    (MARKED, int, "42 (forty-three)", AGAIN),
    (MARKED, int, "4 2", AGAIN),
    (MARKED, int, "٤٢", AGAIN),
    (MARKED, int, "forty-two", AGAIN),
    (MARKED, int, "42.0", 42),
    (MARKED, int, "42.5", AGAIN),
    (MARKED, int, "1e3", 1000),
    (MARKED, int, "10^3", AGAIN),
    (MARKED, int, "2**10", AGAIN),
    (MARKED, int, "0x2A", AGAIN),
    (MARKED, int, "$\\boxed{42}$", 42),
    (MARKED, int, "\\(42\\)", 42),
    (MARKED, int, "42 apples and 3 pears", AGAIN),
    (MARKED, int, "#42", AGAIN),
    (MARKED, int, "No. 42", AGAIN),
    (MARKED, int, "-\u200b42", -42),
    (MARKED, int, "\u2013 42", AGAIN),
    (MARKED, int, "(42)", AGAIN),
    (MARKED, float, "1,5 Millionen", 1500000.0),
    (MARKED, float, "1.5M", 1500000.0),
    (MARKED, float, "50%", AGAIN),
    (MARKED, float, "1/2", AGAIN),
    (MARKED, float, "½", AGAIN),
    (MARKED, float, "3½", AGAIN),
    (MARKED, float, "3 1/2", AGAIN),
    (MARKED, float, "3²", AGAIN),
    (MARKED, float, "~3.2 ± 0.1", AGAIN),
    (MARKED, float, "3.2 +/- 0.1", AGAIN),
    (MARKED, float, "> 3", AGAIN),
    (MARKED, float, "less than 3", AGAIN),
    (MARKED, float, "at least 3", AGAIN),
    (MARKED, float, "3 or more", AGAIN),
    (MARKED, float, "3+", AGAIN),
    (MARKED, float, "3-ish", AGAIN),
    (MARKED, float, "between 3 and 4", AGAIN),
    (MARKED, float, "not 3", AGAIN),
    (MARKED, float, "3e", AGAIN),
    (MARKED, float, "3,", 3.0),
    (MARKED, float, "3.", 3.0),
    (MARKED, float, "1 234 567,89", 1234567.89),
    (MARKED, float, "1'234.5", 1234.5),
    (MARKED, float, "12:30", AGAIN),
    (MARKED, float, "5 feet 3 inches", AGAIN),
    (MARKED, float, "5'3\"", AGAIN),
    (MARKED, float, "2020-01-01", AGAIN),
    (MARKED, float, "infinity", AGAIN),
    (MARKED, float, "1.2.3", AGAIN),
    (MARKED, float, "negative 5", -5.0),
    (MARKED, float, "minus five", AGAIN),
    (MARKED, float, "5 below zero", AGAIN),
    (MARKED, float, "(5)", AGAIN),
    (MARKED, float, "5-", AGAIN),
    (MARKED, float, "5 thousand 300", AGAIN),
    (MARKED, float, "5 million and 300 thousand", AGAIN),
    (MARKED, float, "a dozen", AGAIN),
    (MARKED, float, "5 dozen", AGAIN),
    (MARKED, float, "5 pairs", 5.0),
    (MARKED, float, "5k-6k", AGAIN),
    (MARKED, float, "~~4~~ 5", AGAIN),
    (MARKED, float, "<s>4</s> 5", AGAIN),
    (MARKED, float, "4 → 5", AGAIN),
    (MARKED, float, "4 -> 5", AGAIN),
    (MARKED, float, "4 = 5", AGAIN),
    (MARKED, float, "2+2=4", AGAIN),
    (MARKED, float, "5 (was 4)", AGAIN),
    (MARKED, float, "4, no, 5", AGAIN),
    (MARKED, int | None, "unknown", AGAIN),
    (MARKED, int | None, "-", AGAIN),
    (MARKED, int | None, "0 (none found)", AGAIN),
    (MARKED, int | None, "none of the 3", AGAIN),
    (MARKED, int | None, "Nil.", None),
    (MARKED, int | None, "null // 3", AGAIN),
    (MARKED, int | None, "", AGAIN),
    (MARKED, bool, "Yes and no", AGAIN),
    (MARKED, bool, "Yes, but not always", AGAIN),
    (MARKED, bool, "Not true", AGAIN),
    (MARKED, bool, "untrue", AGAIN),
    (MARKED, bool, "Falsely claimed", AGAIN),
    (MARKED, bool, "not false", AGAIN),
    (MARKED, bool, "True.\n\nActually, False.", AGAIN),
    (MARKED, bool, "✅", AGAIN),
    (MARKED, bool, "❌", AGAIN),
    (MARKED, bool, "Yes?", AGAIN),
    (MARKED, bool, "2", AGAIN),
    (MARKED, bool, "1.0", True),
    (MARKED, bool, "0 problems", AGAIN),
    (MARKED, bool, "yes (95% sure it is not)", AGAIN),
    (MARKED, bool, "No doubt", AGAIN),
    (MARKED, bool, "no question about it: yes", AGAIN),
    (MARKED, bool, "I would say yes", AGAIN),
    (MARKED, bool, "Nope", AGAIN),
    (MARKED, bool, "~~true~~ false", AGAIN),
    (MARKED, YesNo, "yes/no", AGAIN),
    (MARKED, YesNo, "yes|no", AGAIN),
    (MARKED, YesNo, '"yes"', "yes"),
    (MARKED, YesNo, "yes\n\nno", AGAIN),
    (MARKED, YesNo, "eyes", AGAIN),
    (MARKED, YesNo, "no way to know", AGAIN),
    (MARKED, YesNo, "no idea", AGAIN),
    (MARKED, YesNo, "no comment", AGAIN),
    (MARKED, YesNo, "No answer", AGAIN),
    (MARKED, YesNo, "no: yes", AGAIN),
    (MARKED, YesNo, "Answer: yes", "yes"),
    (MARKED, YesNo, "The answer is not no", AGAIN),
    (MARKED, YesNo, "YES!!!", "yes"),
    (MARKED, YesNo, "yes\xa0", "yes"),
    (MARKED, YesNo, "\uff59\uff45\uff53", AGAIN),
    (MARKED, Rating, "Rating.GOOD", Rating.GOOD),
    (MARKED, Rating, "<Rating.GOOD: 2>", AGAIN),
    (MARKED, Rating, "GOOD (2)", Rating.GOOD),
    (MARKED, Rating, "2 - GOOD", Rating.GOOD),
    (MARKED, Rating, "2 - POOR", AGAIN),
    (MARKED, Rating, "GOOD = 1", AGAIN),
    (MARKED, Rating, "2/2", AGAIN),
    (MARKED, Rating, "1 or 2", AGAIN),
    (MARKED, Rating, "not GOOD", AGAIN),
    (MARKED, Rating, "3", AGAIN),
    (MARKED, list[int], "1, 2, 3", AGAIN),
    (MARKED, list[int], "[1, 2, 3] (see [4])", AGAIN),
    (MARKED, list[int], "[1, 2, ...]", AGAIN),
    (MARKED, list[int], "[1, 2, 3", AGAIN),
    (MARKED, list[int], "- 1\n- 2\n- 3", [1, 2, 3]),
    (MARKED, list[int], "1. 10\n2. 20", [10, 20]),
    (MARKED, list[int], "10. 20. 30.", AGAIN),
    (MARKED, list[int], "1\n2\n3", AGAIN),
    (MARKED, list[int], "{1, 2}", AGAIN),
    (MARKED, list[int], "(1, 2)", AGAIN),
    (MARKED, list[int], '["1", "2"]', [1, 2]),
    (MARKED, list[int], "[1,2]\n[3]", AGAIN),
    (MARKED, list[int], "[[1,2]]", AGAIN),
    (MARKED, list[int], '{"answer": [1]}', AGAIN),
    (MARKED, list[int], '{"0": 1, "1": 2}', AGAIN),
    (MARKED, list[int], "[1_000, 2]", [1000, 2]),
    (MARKED, list[int], "[1,000, 2]", AGAIN),
    (MARKED, list[int], "[01, 02]", [1, 2]),
    (MARKED, list[int], "[]", []),
    (MARKED, list[int], "None", AGAIN),
    (MARKED, list[int], "empty", AGAIN),
    (MARKED, list[str], '["a", "b"', AGAIN),
    (MARKED, list[str], '["a" "b"]', AGAIN),
    (MARKED, list[str], '["a", "b"],', ["a", "b"]),
    (MARKED, list[str], "a, b", AGAIN),
    (MARKED, list[str], '["a, b"]', ["a, b"]),
    (MARKED, list[str], "- a\n  - b\n- c", AGAIN),
    (MARKED, list[str], "* a\n* b\n\nNote: c is excluded", AGAIN),
    (MARKED, list[str], "1. a\n3. b", AGAIN),
    (MARKED, list[str], "- [x] a\n- [ ] b", ["[x] a", "[ ] b"]),
    (MARKED, list[str], '["a", // first\n "b"]', ["a", "b"]),
    (MARKED, list[str], '["http://a", "b"]', ["http://a", "b"]),
    (MARKED, list[str], "[\"it's\", 'b']", ["it's", "b"]),
    (MARKED, list[str], "[“a”, “b”]", ["a", "b"]),
    (MARKED, list[str], '["a\\x41"]', ["a\\x41"]),
    (MARKED, list[str], '["C:\\new"]', ["C:\new"]),
    (MARKED, dict[str, float], '{"a": 1,5}', AGAIN),
    (MARKED, dict[str, float], "a: 1\nb: 2", AGAIN),
    (MARKED, dict[str, float], '{"a": "1,234"}', AGAIN),
    (MARKED, dict[str, float], '{"a": null}', AGAIN),
    (MARKED, dict[str, float], '{"a": 1, "a": 2}', AGAIN),
    (MARKED, Item, '{"name": "a", "price": "1,50 €"}', Item(name="a", price=1.5)),
    (MARKED, Item, '{"name": "a", "price": "$1.50"}', Item(name="a", price=1.5)),
    (MARKED, Item, '{"Name": "a", "Price": 1.5}', Item(name="a", price=1.5)),
    (MARKED, Item, '{"name": "a", "price": 1.5, "extra": 1}', Item(name="a", price=1.5)),
    (MARKED, Item, '{"name": "a"}\n{"price": 1.5}', AGAIN),
    (MARKED, Item, '{"name": "a", "price": 1.5, "tags": "x"}', AGAIN),
    (MARKED, Item, '{"name": "a", "price": 1.5, "count": "N/A"}', Item(name="a", price=1.5)),
    (MARKED, Item, '{"name": "a", "price": 1.5, "count": true}', AGAIN),
    (MARKED, Item, '{"name": 5, "price": 1.5}', AGAIN),
    (MARKED, Item, '[{"name": "a", "price": 1.5}]', AGAIN),
    (MARKED, Item, '{"item": {"name": "a", "price": 1.5}}', AGAIN),
    (MARKED, Item, 'Item(name="a", price=1.5)', AGAIN),
    (MARKED, Item, "name: a\nprice: 1.5", AGAIN),
    (MARKED, Item, '{"name": "a", "price": 1.5}}', Item(name="a", price=1.5)),
    (MARKED, list[str], 'keywords I rejected: ["x"]', AGAIN),
    (MARKED, list[str], 'Remove: ["x"]', AGAIN),
    (MARKED, list[str], '["x"] was considered but dropped', AGAIN),
    (MARKED, list[str], "Excluded:\n- a\n- b", AGAIN),
    (MARKED, list[str], "- a\n- ...\n- z", AGAIN),
    (MARKED, list[str], "- a\n- (more)", AGAIN),
    (MARKED, list[str], "- a\n- more", ["a", "more"]),
    (MARKED, list[int], "It is [1](https://example.org)", AGAIN),
    (MARKED, list[int], "[1, 2, 3][:2]", AGAIN),
    (MARKED, list[int], "[1]*3", AGAIN),
    (MARKED, list[int], "[1] + [2]", AGAIN),
    (MARKED, list[int], "**[1]**", [1]),
    (MARKED, list[int], "The values are [1, 2].", [1, 2]),
    (MARKED, list[float], "[0,5, 1,5]", AGAIN),
    (MARKED, list[float], "[0,5,1,5]", [0.0, 5.0, 1.0, 5.0]),
    (MARKED, dict[str, int], '{"a": 1} but "a" may be 2', AGAIN),
    (MARKED, float | None, "N/A - about 3.5", AGAIN),
    (MARKED, bool | None, "N/A (no)", AGAIN),
    (MARKED, bool | None, "No (N/A)", AGAIN),
    (MARKED, int | bool, "yes, 5", AGAIN),
    (MARKED, int | bool, "5, yes", AGAIN),
    (MARKED, int | bool, "yes.", True),
    (MARKED, int | bool, "5 apples", 5),
    (MARKED, Literal["low"] | int, "low (5)", AGAIN),
    (MARKED, Literal["low"] | int, "5 (low)", AGAIN),
    (MARKED, Literal["v2", "v3"] | int, "V2", "v2"),
    (MARKED, datetime.time, "10:30-11:30", AGAIN),
    (MARKED, datetime.datetime, "2024-03-05 10:30 - 11:30", AGAIN),
    (MARKED, YesNo, "yes (draft)", AGAIN),
    (MARKED, YesNo, "yes*", AGAIN),
    (MARKED, YesNo, "*yes*", "yes"),
    (MARKED, Literal["1.0", "2.0"], ">=1.0", AGAIN),
    (MARKED, Literal["1.0", "2.0"], "-> 1.0", "1.0"),
    (MARKED, Literal["1.0", "2.0"], "!= 2.0", AGAIN),
    (MARKED, Rating | None, "None, it is good", AGAIN),
    (MARKED, Rating | None, "None (nobody rated it)", None),
    (MARKED, Literal["a", "b", None], "N/A, b at most", AGAIN),
    (MARKED, bool, "No (not sure)", AGAIN),
    (MARKED, bool, "Yes, sort of.", AGAIN),
    (MARKED, bool, "Yes, in theory.", AGAIN),
    (MARKED, bool, "True, in most cases.", AGAIN),
    (MARKED, bool, "Yes, provided that A holds.", AGAIN),
    (MARKED, bool, "Yes, assuming A.", AGAIN),
    (MARKED, bool, "It used to be true", AGAIN),
    (MARKED, bool, "too good to be true", AGAIN),
    (MARKED, bool, "No, because it is far from certain ones.", False),
    (MARKED, bool, "Yes, I'm 90% sure", True),
    (MARKED, datetime.date, "2024-02-30", AGAIN),
    (MARKED, datetime.date, "03/04/2024", AGAIN),
    (MARKED, datetime.date, "March 3, 2024", AGAIN),
    (MARKED, datetime.date, "20240303", AGAIN),
    (MARKED, datetime.date, "1709424000", AGAIN),
    (MARKED, datetime.date, "today", AGAIN),
    (MARKED, datetime.date, "2024-03-03T00:00:00Z", datetime.date(2024, 3, 3)),
    (JSON, str, '{"answer": "Paris"} {"answer": "Lyon"}', AGAIN),
    (JSON, str, '{"answer": {"text": "Paris"}}', '{"text": "Paris"}'),
    (JSON, str, '{"answer": ["Paris"]}', '["Paris"]'),
    (JSON, str, '{"answer": 42}', "42"),
    (JSON, str, '{"answer": true}', "true"),
    (JSON, str, '{"Answer": "Paris", "answer": "Lyon"}', AGAIN),
    (JSON, str, '{"response": {"answer": "Paris"}}', AGAIN),
    (JSON, str, '[{"answer": "Paris"}]', AGAIN),
    (JSON, str, '"{\\"answer\\": \\"Paris\\"}"', "Paris"),
    (JSON, str, '{"answer": "Paris"', "Paris"),
    (JSON, str, '{"answer": "Par', AGAIN),
    (JSON, str, '{"answer": "Paris",}', "Paris"),
    (JSON, str, 'json\n{"answer": "Paris"}', "Paris"),
    (JSON, str, '```json\n{"answer": "Paris"}', "Paris"),
    (JSON, str, '{"answer": "line\nbreak"}', "line\nbreak"),
    (JSON, str, '{"answer": "a "quoted" word"}', AGAIN),
    (JSON, str, '{"answer": "<think>hm</think>Paris"}', "Paris"),
    (JSON, str, '{"thought": "Lyon? no", "answer": "Paris"}', "Paris"),
    (JSON, str, '{"answer": "Paris", "note": "Wait, I meant Lyon"}', AGAIN),
    (JSON, str, '{"answer": ""}', ""),
    (JSON, str, "{}", AGAIN),
    (JSON, str, "null", AGAIN),
    (JSON, int, '{"answer": "42"}', 42),
    (JSON, int, '{"answer": 42.0}', 42),
    (JSON, int, '{"answer": [42]}', AGAIN),
    (JSON, int, '{"answer": {"value": 42}}', AGAIN),
    (JSON, int, "42", 42),
    (JSON, int, '{"answer": null}', AGAIN),
    (JSON, int, '{"answer": "I cannot say, maybe 3"}', AGAIN),
    (XML, str, "<answer>Paris</answer><answer>Lyon</answer>", AGAIN),
    (XML, str, "<answer>Paris", "Paris"),
    (XML, str, "Paris</answer>", "Paris"),
    (XML, str, "<Answer>Paris</Answer>", "Paris"),
    (XML, str, '<answer type="city">Paris</answer>', "Paris"),
    (XML, str, "<response><answer>Paris</answer></response>", "Paris"),
    (XML, str, "&lt;answer&gt;Paris&lt;/answer&gt;", AGAIN),
    (XML, str, "<answer>A &amp; B</answer>", "A &amp; B"),
    (XML, str, "<answer/>", AGAIN),
    (XML, str, "```xml\n<answer>Paris</answer>\n```", "Paris"),
    (XML, str, "<answer>Paris</answer> Wait, it is Lyon.", AGAIN),
    (XML, int, "<answer>The answer is 42.</answer>", 42),
    (XML, int, "<answer>40-42</answer>", AGAIN),
    (COMPACT, str, "answer: Paris", "Paris"),
    (COMPACT, str, "Answer - Paris", "Answer - Paris"),
    (COMPACT, str, "answer: Paris\nanswer: Lyon", AGAIN),
    (COMPACT, str, "answer:\nParis", "Paris"),
    (COMPACT, str, "**answer:** Paris", "Paris"),
    (COMPACT, int, "answer: 42\nWait, 43", AGAIN),
    (COMPACT, int, "answer: 42\nquestion: what?\nanswer: 43", 42),
    (TOOLS, str, '{"answer": "Paris"}', "Paris"),
    (TOOLS, str, "Paris", "Paris"),
    (TOOLS, int, '{"answer": "42"}', 42),
    (TOOLS, int, "{'answer': 42}", 42),
    (TOOLS, int, '{"answer": 42}{"answer": 42}', 42),
    (TOOLS, int, '{"reply": {"answer": 42}}', AGAIN),
    (TOOLS, int, "", AGAIN),
    (CHAT, str, "<think>Lyon?</think>", AGAIN),
    (JSON, str, "<think>Lyon?</think>", AGAIN),
    (XML, str, "<think>Lyon?</think>", AGAIN),
    (COMPACT, str, "<think>Lyon?</think>", AGAIN),
    (CHAT, str, "<think>Lyon?</think>\n\n[[ ## answer ## ]]\nParis\n\n[[ ## completed ## ]]", "Paris"),
    (CHAT, str, "<Thinking>Lyon?</Thinking>\nParis", "Paris"),
    (CHAT, str, "<thought>Lyon?</thought>Paris", "Paris"),
    (CHAT, str, "<|thinking|>Lyon?<|/thinking|>Paris", "Paris"),
    (CHAT, str, "[THINK]Lyon?[/THINK]Paris", "Paris"),
    (CHAT, str, "Thinking: Lyon?\n\nAnswer: Paris", "Paris"),
    (CHAT, str, "**Reasoning**: Lyon?\n**Answer**: Paris", "Paris"),
    (CHAT, str, "<think>\nLyon?\n</think>\n<answer>Paris</answer>", "Paris"),
    (CHAT, str, "<think>Lyon?</think><think>Nice?</think>Paris", "Paris"),
    (CHAT, str, "Okay. Lyon?\n</think>\n\nParis", "Paris"),
    (CHAT, str, "<details><summary>Thoughts</summary>Lyon?</details>\nParis", "Paris"),
    (CHAT, str, "```thinking\nLyon?\n```\nParis", "Paris"),
    (CHAT, str, "<seed:think>Lyon?</seed:think>Paris", "Paris"),
    (CHAT, str, "<think>Lyon?</thinking>Paris", AGAIN),
    (CHAT, str, "<think>Lyon? </ think>Paris", AGAIN),
    (CHAT, str, "<think >Lyon?</think >Paris", "Paris"),
    (CHAT, str, "<THINK>Lyon?</THINK>Paris", "Paris"),
    (CHAT, str, "◁think▷Lyon?◁/think▷Paris", "Paris"),
    (
        CHAT,
        str,
        "<|channel|>analysis<|message|>Lyon?<|end|><|start|>assistant<|channel|>final<|message|>Paris",
        "Paris",
    ),
    (CHAT, str, "<reflection>Lyon?</reflection>\n<output>Paris</output>", "Paris"),
]


@pytest.mark.parametrize(("adapter", "annotation", "reply", "wanted"), REPLIES)
def test_the_meant_value_or_asked_again(adapter: Adapter | None, annotation: Any, reply: str, wanted: Any) -> None:
    sig = Signature([Field("question"), Field("answer", annotation, role="output")])
    if adapter is None:
        adapter, reply = CHAT, f"[[ ## answer ## ]]\n{reply}\n\n[[ ## completed ## ]]"
    completion = Completion((ToolCall("1", "reply", reply),) if adapter is TOOLS else reply)
    try:
        found = adapter.parse(sig, without_thinking(completion, prompt="q"))["answer"]
    except ParseError:
        found = AGAIN
    assert found is wanted or (type(found) is type(wanted) and found == wanted)


def test_a_tag_around_the_answer_goes_where_the_thoughts_were_split_off_before() -> None:
    reply = "<think>Lyon?</think>\n<output>Paris</output>"
    assert nn.Predict("question -> answer").to(FunctionLM(lambda messages: reply))(question="?").answer == "Paris"
    apart = Completion((ReasoningPart("Lyon?"), TextPart("<answer>Paris</answer>")))
    assert without_thinking(apart, ["city"]).text == "Paris"
    assert without_thinking(apart, ["answer"]) is apart
    assert without_thinking(apart) is apart


def test_thoughts_that_a_prompt_asks_for_stay() -> None:
    for reply, prompt in (
        ("<details><summary>Thoughts</summary>a</details>b", "Put your thoughts into <details>."),
        ("```thinking\na\n```\nb", "Use ```thinking fences."),
        ("<details><summary>More</summary>a</details>b", ""),
        ("```thinking\nit does not end", ""),
    ):
        completion = Completion(reply)
        assert without_thinking(completion, prompt=prompt) is completion
    folded = '<details type="reasoning" done="true">\n<summary>Some seconds</summary>\na\n</details>\nb'
    assert (without_thinking(Completion(folded)).reasoning, without_thinking(Completion(folded)).text) == ("a", "b")


def test_why_an_object_beside_other_text_is_asked_for_again() -> None:
    sig = Signature([Field("question"), Field("answer", str, role="output")])
    for adapter in (CHAT, XML, COMPACT):
        with pytest.raises(ParseError, match="give the object or the field alone"):
            adapter.parse(sig, f'{LONG}\n{{"answer": "Paris"}}')
    with pytest.raises(ParseError, match="the key `answer` is missing"):
        JSON.parse(sig, '{"response": {"text": "Paris"}}')
    with pytest.raises(ParseError, match="commas that may stand within its numbers"):
        JSON.parse(Signature("question -> answer: list[int]"), '{"answer": [1,234, 5,678]}')
    assert JSON.parse(Signature("question -> answer: list[int]"), '{"answer": [1,234,567]}') == {
        "answer": [1, 234, 567]
    }
    assert CHAT.parse(Signature("q -> answer: list[str]"), '["1,234", "a 1, 2"]') == {"answer": ["1,234", "a 1, 2"]}
