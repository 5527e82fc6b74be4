"""A contract suite for adapters: what they write they read, and what they cannot read they say, as tests for your own.

```python
from promptgrad.testing.adapters import AdapterContract

class TestMine(AdapterContract):
    def make(self):
        return MyAdapter()
```

It needs pytest, which is not a dependency of promptgrad; nothing else in the package imports this module.
"""

from __future__ import annotations

import copy
import enum
import pickle
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import pydantic

from promptgrad import nn
from promptgrad.adapters import Adapter
from promptgrad.data import Example
from promptgrad.errors import MissingExtraError, ParseError
from promptgrad.lm import Completion, FunctionLM, Request
from promptgrad.signature import Field, Signature
from promptgrad.testing._promise import must, raised

try:
    import pytest
except ImportError as error:
    raise MissingExtraError(
        "promptgrad.testing.adapters is a suite of pytest, which is not installed: pip install pytest", extra="dev"
    ) from error

__all__ = ["AdapterContract"]


class _Colour(enum.Enum):
    RED = "red"
    DARK_BLUE = "dark blue"


class _Place(pydantic.BaseModel):
    city: str
    size: int = 0


VALUES: tuple[tuple[Any, Any], ...] = (
    (str, "Paris"),
    (str, "two\nlines: with a colon"),
    (str, "naïve 東京 \N{GRINNING FACE}"),
    (int, -7),
    (int, 12_345_678),
    (float, 0.25),
    (bool, False),
    (bool, True),
    (int | None, None),
    (int | None, 3),
    (Literal["yes", "no"], "no"),
    (_Colour, _Colour.DARK_BLUE),
    (list[str], ["a, b", "c"]),
    (list[int], []),
    (dict[str, int], {"a": 1, "b c": 2}),
    (_Place, _Place(city="Oslo", size=7)),
    (list[_Place], [_Place(city="Oslo"), _Place(city="Bergen", size=3)]),
)
GARBAGE = ("", " \n ", "I think it is four.", "{", "[[ ## ", "<", "answer", "null", "[]", "```\n", "\x00", ": \n: \n")


class AdapterContract:
    """The promises of every adapter. Subclass it in a test file, as a class `Test...` with `make`.

    Each test method is one promise, stated in its docstring; a failure names what was found and what is expected.

    Cost: no call of a real language model; about a tenth of a second.

    Attributes:
        hard: Texts that the form cannot carry, such as several lines for one that has a line for each field; they are
            not tried.
    """

    hard: Sequence[str] = ()

    def make(self) -> Adapter:
        """Make the adapter. It is called for each test, several times in some."""
        raise NotImplementedError(f"{type(self).__name__} does not define make(), which gives the adapter")

    # ---- replies

    @pytest.mark.parametrize(("annotation", "value"), VALUES, ids=lambda given: repr(given)[:40])
    def test_a_reply_that_it_writes_it_reads(self, annotation: Any, value: Any) -> None:
        """The values of a demo's reply come back from it, equal and of their types."""
        if value in self.hard:
            pytest.skip("the form cannot carry it")
        signature = Signature([Field("question"), Field("found", annotation, role="output"), _ANSWER])
        form = self.make().format(signature)
        reply = form.assistant({"found": value, "answer": "yes"})
        read = form.parse_whole(Completion(reply))
        must(list(read) == ["found", "answer"], f"of a reply with found and answer it reads {list(read)}: {reply!r}")
        same = read["found"] == value and type(read["found"]) is type(value)
        must(same, f"it writes {value!r} as {reply!r}, and reads {read['found']!r}")
        must(read["answer"] == "yes", f"it writes 'yes' as {reply!r}, and reads {read['answer']!r}")

    @pytest.mark.parametrize("reply", GARBAGE, ids=repr)
    def test_a_reply_that_it_cannot_read_is_a_parse_error(self, reply: str) -> None:
        """What does not hold the outputs is a `ParseError` with a reason, and never another exception or a guess."""
        signature = Signature([Field("question"), Field("count", int, role="output"), _ANSWER])
        error = raised(lambda: self.make().parse(signature, reply), ParseError, f"reading {reply!r}")
        must(bool(getattr(error, "reason", "")), f"the error of {reply!r} has no reason, which the model is told")

    def test_a_value_of_another_type_is_a_parse_error(self) -> None:
        """A value that does not fit its field is not taken."""
        text = Signature([Field("question"), Field("count", role="output"), _ANSWER])
        number = Signature([Field("question"), Field("count", int, role="output"), _ANSWER])
        adapter = self.make()
        reply = adapter.format(text).assistant({"count": "many", "answer": "yes"})
        raised(lambda: adapter.parse(number, Completion(reply)), ParseError, f"reading a number from {reply!r}")

    def test_a_model_that_slips_is_asked_again(self) -> None:
        """After a reply that cannot be read the next request holds it and the reason, and a right one counts."""
        adapter, asked = self.make(), list[Request]()
        signature = Signature("question -> count: int")
        right = adapter.format(signature).assistant({"count": 4})

        def respond(request: Request) -> Completion:
            asked.append(request)
            return Completion("I think it is many." if len(asked) == 1 else right)

        found = nn.Predict(signature, adapter=adapter, lm=FunctionLM(respond, name="slips"))(question="2+2")
        must(found.count == 4, f"the second reply {right!r} gives {found!r}")
        must(len(asked) == 2, f"one reply cannot be read, and {len(asked)} requests were sent")
        more = len(asked[1].messages) - len(asked[0].messages)
        must(more > 0, "the second request is the first one again: `repair_messages` adds nothing")

    # ---- prompts

    def test_a_prompt_has_the_instruction_the_inputs_and_the_demos_in_order(self) -> None:
        """A request holds all that the model must know."""
        signature = Signature("question, note -> answer", "Say which town.")
        demos = tuple(
            Example(question=f"question {n}", note=f"note {n}", answer=f"answer {n}").with_inputs("question", "note")
            for n in range(3)
        )
        sent = self._sent(signature, demos, {"question": "question 9", "note": "note 9"})
        expected = ["Say which town.", *(f"{what} {n}" for n in (0, 1, 2) for what in ("question", "note", "answer"))]
        expected += ["question 9", "note 9"]
        places = [sent.find(part) for part in expected]
        lost = [part for part, place in zip(expected, places, strict=True) if place < 0]
        must(not lost, f"a prompt lacks {lost}: {sent!r}")
        demo_places = [sent.find(f"question {n}") for n in (0, 1, 2, 9)]
        must(demo_places == sorted(demo_places), "the demos are not in their order before the call")

    def test_a_demo_that_lacks_an_input_and_an_output_is_written(self) -> None:
        """Traces and labels lack fields: a demo shows those that it has."""
        signature = Signature("question, note -> reasoning, answer")
        demos = (Example(question="question 0", answer="answer 0").with_inputs("question"),)
        sent = self._sent(signature, demos, {"question": "question 9", "note": "note 9"})
        for part in ("question 0", "answer 0", "question 9"):
            must(part in sent, f"a prompt with a demo without note and reasoning lacks {part!r}: {sent!r}")

    def test_equal_calls_make_equal_requests(self) -> None:
        """Two adapters make one prompt, so that caches, journals and shared prefixes hold."""
        signature, inputs = Signature("question -> answer, tags: list[str]"), {"question": "which?"}
        demos = (Example(question="a", answer="b", tags=["c"]).with_inputs("question"),)
        first, again = (self._sent(signature, demos, inputs) for _ in range(2))
        must(first == again, f"the same call is sent as {first!r} and as {again!r}")

    # ---- streams

    def test_what_a_stream_gives_stands_in_the_whole(self) -> None:
        """However a reply is cut, the pieces of a text are the beginning of what is read at the end."""
        signature = Signature("question -> reasoning, answer, tags: list[str]")
        values = {"reasoning": "First this.", "answer": "Paris, I think", "tags": ["a", "b"]}
        form = self.make().format(signature)
        reply = form.assistant(values)
        if not isinstance(reply, str) or form.feed() is None:
            pytest.skip("its fields come whole, at the end")
        for pieces in _cuts(reply):
            feed, told = form.feed(), dict[str, str]()
            for text in pieces:
                for piece in feed.feed(text) if feed is not None else ():
                    if piece.kind == "delta":
                        told[piece.field] = told.get(piece.field, "") + piece.value
            wrong = {name: text for name, text in told.items() if not str(values[name]).startswith(text)}
            must(not wrong, f"cut as {pieces!r} the stream gives {wrong!r}, and the whole is {values!r}")

    # ---- what it is

    def test_it_is_copied_and_pickled_with_a_program(self) -> None:
        """A copy writes what the adapter writes."""
        signature, adapter = Signature("question -> answer"), self.make()
        written = adapter.format(signature).assistant({"answer": "x"})
        for how, other in (("deepcopy", copy.deepcopy(adapter)), ("pickle", pickle.loads(pickle.dumps(adapter)))):
            found = other.format(signature).assistant({"answer": "x"})
            must(found == written, f"after {how} it writes {found!r} instead of {written!r}")

    def test_it_has_a_name(self) -> None:
        """Reports and caches tell adapters apart by `name`."""
        must(bool(self.make().name), "its name is empty")

    def _sent(self, signature: Signature, demos: tuple[Example, ...], inputs: Mapping[str, Any]) -> str:
        """All that the messages of a call say."""
        predict = nn.Predict(signature, adapter=self.make(), demos=demos)
        return "\n".join(str(message["content"]) for message in predict.render(**inputs))


_ANSWER = Field("answer", role="output")


def _cuts(text: str) -> Iterator[tuple[str, ...]]:
    """The text in two pieces, cut anywhere; sign by sign; and at once."""
    for at in range(len(text) + 1):
        yield text[:at], text[at:]
    yield tuple(text)
    yield (text,)
