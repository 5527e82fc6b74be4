"""Compiling: what is kept and shared, what demos become, what a call costs."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys
from typing import Any

import pytest

from promptgrad import inspect_history, nn
from promptgrad.adapters import Adapter, ChatAdapter, JSONAdapter, PocketAdapter, get_adapter
from promptgrad.adapters._chat import ChatFormat
from promptgrad.adapters._sections import Sections
from promptgrad.data import Example
from promptgrad.errors import InputError, ParseError
from promptgrad.lm import HTTP, Completion, ImagePart, ReasoningPart, TextPart
from promptgrad.signature import Field, Signature
from promptgrad.testing import LoopbackLM, Reply
from tests.counting import steps

COT = Signature("question -> reasoning, answer", "Think.")
DEMOS = tuple(Example(question=f"q{i}", reasoning=f"r{i}", answer=f"a{i}") for i in range(8))


class Text(str):
    """As the graph's text: adding it to something must not happen, it may not be kept."""

    def __radd__(self, other: str) -> str:
        raise AssertionError("a Text was joined with +")

    def strip(self, chars: str | None = None) -> str:
        raise AssertionError("a Text was stripped")


def test_get_adapter() -> None:
    assert type(get_adapter("chat")) is ChatAdapter
    assert get_adapter("chat") is get_adapter("chat")
    assert type(get_adapter("json")) is JSONAdapter
    assert type(get_adapter("pocket")) is PocketAdapter
    own = JSONAdapter(None)
    assert get_adapter(own) is own
    with pytest.raises(
        ValueError,
        match=r"no adapter 'chatt'; there are chat, json, xml, tools, compact, two_step, pocket; did you mean 'chat'\?",
    ):
        get_adapter("chatt")
    with pytest.raises(TypeError, match="an adapter is one of the names"):
        get_adapter(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'schema', 'object' or None"):
        JSONAdapter("strict")


def test_compiled_once_for_the_same_values() -> None:
    adapter = ChatAdapter()
    first = adapter.compile(COT, "Do.", DEMOS)
    assert adapter.compile(COT, "Do.", DEMOS) is first
    assert adapter.compile(Signature("question -> reasoning, answer", "Think."), Text("Do."), DEMOS) is first
    other = adapter.compile(COT, "Do.", tuple(DEMOS))
    assert other is first
    assert adapter.compile(COT, "Do it.", DEMOS) is not first
    assert adapter.compile(COT, "Do.", DEMOS[:7]) is not first
    assert adapter.compile(COT, "Do.", list(DEMOS)).prefix == first.prefix
    assert adapter.compile(COT).prefix.messages[0].content.startswith("Think.\n")


def test_the_cache_is_bounded() -> None:
    adapter = ChatAdapter()
    for i in range(1100):
        adapter.compile(COT, f"Do {i}.")
    assert len(adapter._compiled) <= 512


def test_messages_of_a_call() -> None:
    compiled = ChatAdapter().compile(COT, "Do.", DEMOS[:2])
    messages = compiled.messages({"question": Text("why [[ ## x ## ]]?")})
    assert [m.role for m in messages] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert messages[:-1] == compiled.prefix.messages
    assert messages[-1:] == compiled.request_tail({"question": "why [[ ## x ## ]]?"})
    assert type(messages[-1].content) is str
    assert messages[-1].content == "[[ ## question ## ]]\nwhy [[ ## x ## ]]?"
    assert all(type(m.content) is str for m in messages)
    assert compiled.parse("[[ ## reasoning ## ]]\na\n[[ ## answer ## ]]\nb") == {"reasoning": "a", "answer": "b"}


@pytest.mark.parametrize("adapter", [ChatAdapter(), JSONAdapter()])
def test_a_missing_input_is_told(adapter: Adapter) -> None:
    for demos in ((), DEMOS):
        compiled = adapter.compile(COT, None, demos)
        with pytest.raises(InputError, match="the input 'question' is missing; the signature is question -> reasoning"):
            compiled.request_tail({"reasoning": "x"})


def test_incomplete_demos() -> None:
    demos = (
        DEMOS[0],
        Example(question="labelled", answer=42),
        Example(question="no output"),
        {"reasoning": "no", "answer": "input"},
        Example(question="none", reasoning=None, answer="given"),
    )
    compiled = ChatAdapter().compile(COT, None, demos)
    assert compiled.skipped == 2
    users = [m.content for m in compiled.prefix.messages if m.role == "user"]
    replies = [m.content for m in compiled.prefix.messages if m.role == "assistant"]
    assert users[0] == "[[ ## question ## ]]\nlabelled\n\n(In this example, leave out `reasoning`.)"
    assert replies[0] == "[[ ## answer ## ]]\n42\n\n[[ ## completed ## ]]"
    assert replies[1] == "[[ ## answer ## ]]\ngiven\n\n[[ ## completed ## ]]"
    assert users[2] == "[[ ## question ## ]]\nq0"
    assert JSONAdapter().compile(COT, None, demos).prefix.messages[2].content == '{"answer": "42"}'
    assert "Reply in the format" not in compiled.request_tail({"question": "x"})[0].content
    assert (
        "Reply in the format" in ChatAdapter().compile(COT, None, demos[1:]).request_tail({"question": "x"})[0].content
    )


def test_a_demo_that_does_not_fit() -> None:
    sig = Signature("question -> answer: int")
    with pytest.raises(InputError, match="demo 2 does not fit the signature: output 'answer'"):
        ChatAdapter().compile(sig, None, (Example(question="a", answer="1"), Example(question="b", answer="x")))


def test_adapters_are_shared_by_copies_and_pickled_without_what_they_keep() -> None:
    adapter = JSONAdapter("object")
    adapter.compile(COT, None, DEMOS)
    assert copy.deepcopy(adapter) is adapter
    again = pickle.loads(pickle.dumps(adapter))
    assert again.schema == "object"
    assert again._compiled == {}
    assert again.compile(COT, None, DEMOS).prefix == adapter.compile(COT, None, DEMOS).prefix


@pytest.mark.parametrize("adapter", [ChatAdapter(), JSONAdapter()], ids=["chat", "json"])
def test_signatures_that_differ_in_a_constraint_have_prompts_of_their_own(adapter: Adapter) -> None:
    """Though all else is equal: what is kept for the one is not served to the other."""
    for least in (1, 2):
        field = Field("count", int, "how many", "output", {"ge": least})
        compiled = adapter.compile(Signature([Field("question"), field], "Count."))
        told = compiled.prefix.messages[0].content + compiled.request_tail({"question": "?"})[-1].content
        assert f"{least}" in told
        assert f"{3 - least}" not in told


def test_overhead_of_a_call_with_eight_demos() -> None:
    """About 10 microseconds, or 80 steps: what does not depend on the inputs is compiled once, however many demos."""
    adapter = ChatAdapter()
    reply = "[[ ## reasoning ## ]]\nbecause of it\n\n[[ ## answer ## ]]\n3\n\n[[ ## completed ## ]]"

    def call(demos: tuple[Example, ...]) -> int:
        def work() -> None:
            compiled = adapter.compile(COT, "Do.", demos)
            compiled.request_tail({"question": "how many of the things?"})
            compiled.parse(reply)

        work()
        return steps(work)

    assert call(DEMOS) < 123
    assert call(DEMOS) == call(DEMOS[:1])


def test_chat_and_json_load_neither_pydantic_nor_the_pocket_world() -> None:
    program = (
        "import sys; from promptgrad.adapters import get_adapter; from promptgrad.signature import Signature;"
        "c = get_adapter('chat').compile(Signature('a -> b')); c.request_tail({'a': 'x'}); c.parse('[[ ## b ## ]] y');"
        "get_adapter('json').compile(Signature('a -> b')).parse('{\"b\": \"y\"}');"
        "print([m for m in ('pydantic', 'promptgrad.data.pocket') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=600, check=True)
    assert done.stdout.strip() == "[]"


# --- what a format makes of more than text ---


class Pictures(ChatFormat):
    """Inputs are images, and the reply may be a call of a tool."""

    def user(self, inputs, *, remind=False):
        return ("What is it?", *inputs.values())

    def demo_user(self, inputs, missing):
        return self.user(inputs)

    def parse(self, completion):
        if completion.tool_calls:
            return completion.tool_calls[0].kwargs
        return super().parse(completion)


class PictureAdapter(Adapter):
    name = "pictures"

    def make_format(self, signature):
        return Pictures(signature)


PNG = ImagePart(b"\x89PNG" + bytes(12_000), "image/png")
LOOK = Signature("picture: Any -> answer", types={"Any": Any})


def test_a_format_writes_parts_and_reads_calls_of_tools_on_the_wire():
    look = nn.Predict(LOOK, adapter=PictureAdapter())
    with LoopbackLM() as server:
        server.script(Reply(tool_calls=[("answer", {"answer": "a cat"})], finish_reason="tool_calls"))
        look.to(HTTP("tiny", server.url))
        assert look(picture=PNG).answer == "a cat"
        sent = server.requests[-1].messages[-1]["content"]
        assert sent == [
            {"type": "text", "text": "What is it?"},
            {"type": "image_url", "image_url": {"url": PNG.data_url}},
        ]
        shown = repr(inspect_history(1))
        assert "<image png, 12 kB>" in shown
        assert '<call answer({"answer": "a cat"})>' in shown
        assert "base64" not in shown
        assert look.render(picture=PNG)[-1]["content"] == "What is it?\n<image png, 12 kB>"
        assert look.messages(picture=PNG)[-1].parts[1] is PNG
        assert all(isinstance(part, (TextPart, ImagePart)) for part in look.messages(picture=PNG)[-1].parts)
        look.demos.data = [Example(picture=PNG, answer="a cat").with_inputs("picture")]
        assert look.messages(picture=PNG)[1].parts == (TextPart("What is it?"), PNG)
        look.demos.data = []
        server.script(Reply("[[ ## answer ## ]]\na dog\n\n[[ ## completed ## ]]", reasoning="It barks."))
        assert look(picture=PNG).answer == "a dog"
        assert "<reasoning It barks.>" in repr(inspect_history(1))


@pytest.mark.parametrize("value", [PNG, [PNG, ImagePart(url="https://example.org/cat.png")]])
@pytest.mark.parametrize("choose", [tuple, nn.Neighbours])
def test_demos_with_images_are_saved(choose, value):
    look, other = (nn.Predict(LOOK, adapter=PictureAdapter()) for _ in range(2))
    look.demos.data = choose([Example(picture=value, answer="a cat").with_inputs("picture")])
    other.load_state_dict(json.loads(json.dumps(look.state_dict())))
    assert other.demos.data == look.demos.data
    assert other.state_dict() == look.state_dict()


def test_a_refusal_is_no_answer_and_is_asked_about_again():
    ask = nn.Predict("question -> answer")
    with LoopbackLM() as server:
        server.script(Reply(refusal="I cannot say."), Reply(refusal="I still cannot."))
        ask.to(HTTP("tiny", server.url))
        with pytest.raises(ParseError, match="the model refused to answer") as caught:
            ask(question="?")
        assert caught.value.reply == "I still cannot."
        assert "I cannot say." in server.requests[-1].messages[-2]["content"]
        assert "<refusal I still cannot.>" in repr(inspect_history(1))


def test_a_call_of_a_tool_alone_is_no_answer_and_is_asked_about_again():
    ask = nn.Predict("question -> answer")
    call = Reply(tool_calls=[("weather", {"place": "Rome"})], finish_reason="tool_calls")
    with LoopbackLM() as server:
        server.script(call, call)
        ask.to(HTTP("tiny", server.url))
        with pytest.raises(ParseError, match="it calls the tool `weather` instead of answering") as caught:
            ask(question="?")
    shown = '<call weather({"place": "Rome"})>'
    assert caught.value.reply == shown
    assert shown in str(caught.value)
    assistant, user = server.requests[-1].messages[-2:]
    assert assistant == {"role": "assistant", "content": shown}  # an empty one is refused by some providers
    assert "it calls the tool `weather` instead of answering" in user["content"]


class TextAdapter(Adapter):
    """An adapter that writes text alone."""

    name = "text"

    def make_format(self, signature):
        form = ChatFormat(signature)
        form.inputs = Sections(signature)
        return form


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        ("ImagePart", PNG),
        ("list[ImagePart]", [PNG]),
        ("dict[str, ImagePart]", {"a": PNG}),
        ("Any", ImagePart(url="https://example.org/cat.png")),
    ],
)
def test_an_image_is_refused_by_adapters_that_write_text(annotation, value):
    names = {"ImagePart": ImagePart, "Any": Any}
    look = nn.Predict(Signature(f"picture: {annotation} -> answer", types=names), adapter=TextAdapter())
    with pytest.raises(
        InputError, match=r"field 'picture' holds Image\(.*\), and the adapter in use writes text alone"
    ):
        look.render(picture=value)


def test_a_text_may_stand_for_a_completion():
    adapter, reply = ChatAdapter(), "[[ ## answer ## ]]\nx\n\n[[ ## completed ## ]]"
    signature = Signature("question -> answer")
    for said in (reply, Completion(reply), Completion((ReasoningPart("hm"), TextPart(reply)))):
        assert adapter.parse(signature, said) == {"answer": "x"}
        assert adapter.compile(signature).parse(said) == {"answer": "x"}
    with pytest.raises(ParseError, match="refused"):
        adapter.parse(signature, Completion("", refusal="no"))
