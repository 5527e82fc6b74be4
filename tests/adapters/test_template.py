"""Prompts in the user's own words: places, rules of reading, and what is refused at once."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from promptgrad import nn
from promptgrad.adapters import get_adapter, template
from promptgrad.data import Example
from promptgrad.errors import InputError, ParseError, SignatureError
from promptgrad.lm import HTTP, FunctionLM
from promptgrad.signature import Field, Signature, make_signature
from promptgrad.testing import LoopbackLM
from tests.adapters.test_roundtrip import CASES, same
from tests.counting import steps

QA = make_signature("question -> answer", "Be brief.")
COT = make_signature("question, notes: list[str] -> reasoning, answer: int")
STEPS = template("{notes}\nQ: {question}", reply="Thought: {reasoning}\nAnswer: {answer}")


def contents(
    adapter: Any, sig: Signature, inputs: dict[str, Any], demos: tuple[Any, ...] = ()
) -> list[tuple[str, str]]:
    return [(m.role, m.text) for m in adapter.compile(sig, None, demos).messages(inputs)]


def test_the_words_are_the_users() -> None:
    inputs = {"question": "a {b} {question}?"}
    assert contents(template("Q: {question}\nA:"), QA, inputs) == [
        ("system", "Be brief."),
        ("user", "Q: a {b} {question}?\nA:"),
    ]
    assert contents(template("{{x}} {question}", system=""), QA, inputs) == [("user", "{x} a {b} {question}?")]
    assert contents(template("{question}", system="Task: {instruction}!"), QA, inputs)[0] == (
        "system",
        "Task: Be brief.!",
    )
    alpaca = template("### Instruction:\n{instruction}\n\n### Input:\n{question}\n\n### Response:")
    assert contents(alpaca, QA, {"question": "x"}) == [
        ("user", "### Instruction:\nBe brief.\n\n### Input:\nx\n\n### Response:")
    ]
    assert alpaca.compile(QA, "Be long.").messages({"question": "x"})[0].text.startswith("### Instruction:\nBe long.")
    given_one = make_signature("instruction -> answer")
    assert contents(template("{instruction}", system=""), given_one, {"instruction": "x"}) == [("user", "x")]


def test_demos_and_typed_inputs() -> None:
    demos = (
        Example(question="1+1", notes=["a"], reasoning="easy", answer=2),
        Example(question="2+2", answer=4),
    )
    assert contents(STEPS, COT, {"question": "3+3", "notes": []}, demos)[1:] == [
        ("user", "\nQ: 2+2\n\n(In this example, leave out `reasoning`.)"),
        ("assistant", "Thought: \nAnswer: 4"),
        ("user", '["a"]\nQ: 1+1'),
        ("assistant", "Thought: easy\nAnswer: 2"),
        ("user", "[]\nQ: 3+3"),
    ]


@pytest.mark.parametrize(
    "reply",
    [
        "Thought: easy\nAnswer: 6",
        "easy\nAnswer: 6",
        "thought:  easy\n\n  ANSWER:  six is 6",
        "Sure.\n\nThought: easy\n\nAnswer: 6.",
    ],
)
def test_replies_by_their_template(reply: str) -> None:
    assert STEPS.parse(COT, reply) == {"reasoning": "easy", "answer": 6}


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("6", "'Answer:' is missing"),
        ("Thought: a\nAnswer: 5\nAnswer: 6", "'Answer:' comes twice"),
        ("Thought: easy\nAnswer: none", "`answer`"),
    ],
)
def test_replies_that_are_asked_again(reply: str, reason: str) -> None:
    with pytest.raises(ParseError, match=reason):
        STEPS.parse(COT, reply)


def test_rules_of_reading() -> None:
    by_pattern = template("{question}", parse=r"(?m)^Final: (?P<answer>.*)$")
    assert by_pattern.parse(QA, "so\nFinal: Paris\nFinal: Paris") == {"answer": "Paris"}
    with pytest.raises(ParseError, match="holds 2 different values"):
        by_pattern.parse(QA, "Final: Paris\nFinal: Rome")
    with pytest.raises(ParseError, match="not what the pattern"):
        by_pattern.parse(QA, "Paris")
    number = make_signature("question -> answer: int")
    by_function = template("{question}", parse=lambda text: text.rpartition("####")[2])
    assert by_function.parse(number, "2 + 3\n#### 5") == {"answer": 5}
    with pytest.raises(ParseError, match="`answer`"):
        by_function.parse(number, "2 + 3 #### many")
    typed = template("{question}", parse=lambda text: {"answer": len(text)})
    assert typed.parse(number, "abc") == {"answer": 3}
    with pytest.raises(ParseError, match="found nothing"):
        template("{question}", parse=lambda text: None).parse(QA, "x")
    two = template("{question}{notes}", parse=lambda text: {"reasoning": "", "answer": text})
    with pytest.raises(InputError, match="cannot show demos: pass reply="):
        two.compile(COT, None, (Example(question="a", notes=[], reasoning="b", answer=1),))


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: template("Q: {question"), ValueError, "no template: expected '}'"),
        (lambda: template("Q: {}"), ValueError, "name of a field alone"),
        (lambda: template("Q: {question:>5}"), ValueError, "{question:>5}"),
        (lambda: template("Q: {question.x}"), ValueError, "name of a field alone"),
        (lambda: template("Q: {question}", system="{question}"), ValueError, "same in every call"),
        (lambda: template("x", reply="Answer:"), ValueError, "no place for an output"),
        (lambda: template("x", reply="{a} {b}"), ValueError, "nothing between {a} and {b}"),
        (lambda: template("x", reply="{a}, {a}"), ValueError, "place twice"),
        (lambda: template("x", parse="("), ValueError, "no regular expression"),
        (lambda: template("x", parse="(a)"), ValueError, "no named group"),
        (lambda: nn.Predict(QA, adapter=template("{qestion}")), SignatureError, r"did you mean {question}\?"),
        (lambda: nn.Predict(QA, adapter=template("Q:")), SignatureError, "no place for the input `question`"),
        (lambda: nn.Predict(COT, adapter=template("{notes}{question}")), SignatureError, "pass reply='reasoning"),
        (lambda: nn.Predict(QA, adapter=template("{question}", reply="{nswer}")), SignatureError, "did you mean {ans"),
        (lambda: nn.Predict(QA, adapter=template("{question}", parse="(?P<x>.)")), SignatureError, "place {x}"),
        (lambda: get_adapter("template"), ValueError, "promptgrad.adapters.template"),
    ],
)
def test_mistakes_are_told_at_once(make: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        make()


def test_a_demo_that_cannot_be_shown_is_refused() -> None:
    demo = Example(question="a", notes=[], reasoning="x\nAnswer: 3", answer=4)
    with pytest.raises(InputError, match="cannot show the reply of a demo"):
        STEPS.compile(COT, None, (demo,))


@pytest.mark.parametrize(("annotation", "strategy"), CASES)
@given(data=st.data())
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_values_come_back_or_are_refused(
    annotation: Any, strategy: st.SearchStrategy[Any], data: st.DataObject
) -> None:
    sig = Signature([Field("q"), Field("first", annotation, role="output"), Field("answer", annotation, role="output")])
    adapter = template("{q}", reply="<<1>> {first}\n<<2>> {answer}")
    values = {"first": data.draw(strategy), "answer": data.draw(strategy)}
    try:
        compiled = adapter.compile(sig, None, (Example(q="x", **values),))
    except InputError:
        shown = [str(value) for value in values.values()]
        assert any("<<" in text or not text.strip() for text in shown) or any(
            value != value for value in values.values()
        )
        return
    read = compiled.parse(compiled.prefix.messages[-1].text)
    assert all(same(read[name], value) for name, value in values.items())


def test_the_work_grows_no_faster_than_the_reply() -> None:
    def read(reply: str) -> None:
        with pytest.raises(ParseError):
            STEPS.parse(COT, reply)

    for piece in ("Answer:\n", "\n", " ", "Answer ", "Thought: ", "\n Answer:"):
        short, long = (steps(partial(read, piece * (size // len(piece)))) for size in (2_000, 8_000))
        assert long <= 5 * short + 2_000, piece
        read(piece * (100_000 // len(piece)))


def test_a_program_asks_and_asks_again() -> None:
    with LoopbackLM() as server:
        server.script("six", "Thought: easy\nAnswer: 6")
        predict = nn.Predict(COT, adapter=STEPS, lm=HTTP("m", server.url))
        assert predict(question="3+3", notes=[]).answer == 6
        again = server.requests[-1].messages[-1]["content"]
    assert again.endswith("Reply again, in full, in this form:\nThought: {reasoning}\nAnswer: {answer}")


@pytest.mark.parametrize("reply", [None, "Here: {code}"])
def test_a_fence_around_code_is_taken_off(reply: str | None) -> None:
    step = nn.Predict('task -> code: Code["python"]', adapter=template("{task}", reply=reply), retries=0)
    said = "```python\nx = 1\n```"
    said = said if reply is None else reply.replace("{code}", said)

    async def pieces(messages: Any) -> Any:
        for sign in said:
            yield sign

    events = list(step.stream_sync(task="?", lm=FunctionLM(pieces)))
    assert events[-1].code == "x = 1"
    assert not any(isinstance(event, nn.Voided) for event in events)
    assert step(task="?", lm=FunctionLM(lambda messages: said)).code == "x = 1"
