import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptgrad.errors import ParseError
from promptgrad.lm import (
    AudioPart,
    Completion,
    FilePart,
    ImagePart,
    Message,
    Prefix,
    ReasoningPart,
    Request,
    TextPart,
    TokenLogprob,
    ToolCall,
    ToolResult,
    Usage,
)
from tests.made_files import png

PNG = ImagePart(b"\x89PNG" + bytes(12_000), "image/png")
leaves = st.one_of(
    st.builds(TextPart, st.text()),
    st.builds(ImagePart, st.binary(min_size=1), st.just("image/png"), detail=st.sampled_from(["", "low"])),
    st.builds(ImagePart, url=st.just("https://example.org/cat.png")),
    st.builds(AudioPart, st.binary(min_size=1), st.just("audio/wav")),
    st.builds(FilePart, st.binary(min_size=1), st.just("application/pdf"), name=st.text(max_size=3)),
    st.builds(ToolCall, st.text(), st.text(), st.text(), st.text()),
    st.builds(ReasoningPart, st.text(), st.text(), st.text()),
)
contents = st.text() | st.lists(
    leaves | st.builds(ToolResult, st.text(), st.text() | st.lists(leaves, max_size=2).map(tuple), st.booleans()),
    max_size=4,
).map(tuple)
messages = st.lists(
    st.builds(Message, st.sampled_from(["user", "assistant", "tool"]), contents), min_size=1, max_size=4
)


@given(messages)
def test_messages_come_back_from_json(talk):
    plain = json.loads(json.dumps(Request.of(talk).to_dict()))
    assert Request.of(plain["messages"]) == Request.of(talk)


@given(messages, messages, st.data())
def test_digests_tell_contents_apart_wherever_prefix_and_tail_meet(one, other, data):
    assert (Request.of(one).digest() == Request.of(other).digest()) == (one == other)
    cut = data.draw(st.integers(0, len(one)))
    assert Request(Prefix(one[:cut]), tuple(one[cut:])).digest() == Request.of(one).digest()


@given(contents, st.text(), st.lists(st.builds(TokenLogprob, st.text(), st.floats(-9, 0)), max_size=2))
def test_completions_come_back_from_json(content, refusal, logprobs):
    made = Completion(content, Usage(1, 2, 3, None), "m", "length", refusal=refusal, logprobs=tuple(logprobs))
    assert Completion.from_dict(json.loads(json.dumps(made.to_dict()))) == made
    assert pickle.loads(pickle.dumps(made)) == made
    assert hash(made) == hash(pickle.loads(pickle.dumps(made)))


def test_a_completion_shows_each_kind_of_part():
    call = ToolCall("c1", "search", {"q": "cat"})
    made = Completion((ReasoningPart("hm, "), ReasoningPart("a cat"), TextPart("Let me "), TextPart("see."), call))
    assert made.text == "Let me see."
    assert made.reasoning == "hm, a cat"
    assert made.tool_calls == (call,)
    assert made.message == Message("assistant", made.content)
    assert made.message.tool_calls == (call,)
    assert made.message.text == "Let me see."
    plain = Completion("hi", refusal="")
    assert (plain.parts, plain.reasoning, plain.tool_calls) == ((TextPart("hi"),), "", ())
    assert Completion("").parts == ()


def test_a_call_of_a_tool_without_text_is_not_lost():
    made = Completion((ToolCall("c1", "search", '{"q":"cat"}'),), finish_reason="tool_calls")
    assert made.text == ""
    assert made.tool_calls[0].kwargs == {"q": "cat"}


@pytest.mark.parametrize(
    ("arguments", "reason"), [('{"q":', "not JSON"), ("[1]", "not a JSON object"), ("[" * 10**5, "not JSON")]
)
def test_arguments_that_are_no_object_raise_with_what_was_written(arguments, reason):
    with pytest.raises(ParseError, match=reason) as caught:
        _ = ToolCall("c", "search", arguments).kwargs
    assert caught.value.reply == arguments


def test_bytes_are_never_shown():
    assert str(PNG) == "<image png, 12 kB>"
    assert repr(PNG) == "Image(png, 12 kB)"
    assert str(AudioPart(b"abc", "audio/wav")) == "<audio wav, 3 bytes>"
    assert str(FilePart(bytes(2_500_000), "application/pdf")) == "<file pdf, 2.5 MB>"
    message = Message("user", ("What is it?", PNG))
    request = Request.of([message])
    assert request.messages[0].preview == "What is it?\n<image png, 12 kB>"
    assert len(repr(request)) < 400


def test_secrets_in_addresses_are_never_shown():
    image = ImagePart(url="https://me:pass@example.org/a/cat.png?sig=SECRET#frag")
    assert str(image) == "<image https://example.org/a/cat.png>"
    assert "SECRET" not in repr(image)
    assert "pass" not in repr(Request.of([Message("user", (image,))]))


def test_the_same_bytes_are_the_same_part():
    assert ImagePart(url="data:image/png;base64,YWJj") == ImagePart(b"abc", "image/png")
    assert ImagePart(bytearray(b"abc"), "image/png") == ImagePart(url=ImagePart(b"abc", "image/png").data_url)
    assert FilePart(url="data:text/plain,a%20b") == FilePart(b"a b", "text/plain")


def test_a_part_may_be_read_from_a_file(tmp_path):
    path = tmp_path / "cat.png"
    path.write_bytes(png())
    assert ImagePart.read(path, detail="low") == ImagePart(png(), "image/png", detail="low")
    with pytest.raises(ValueError, match="media_type of Audio begins with 'audio/', not 'image/png'"):
        AudioPart.read(path)
    (tmp_path / "x.unknown-kind").write_bytes(b"abc")
    with pytest.raises(ValueError, match="not known from its name"):
        FilePart.read(tmp_path / "x.unknown-kind")


@pytest.mark.parametrize(
    ("given_", "error", "match"),
    [
        ({}, ValueError, "needs bytes or an address"),
        ({"data": b"a", "media_type": "image/png", "url": "https://x"}, ValueError, "either"),
        ({"data": b"a"}, ValueError, "needs a media_type"),
        ({"data": "a", "media_type": "image/png"}, ValueError, r"Image.read\('a'\) reads a file"),
        ({"data": b"a", "media_type": "text/plain"}, ValueError, "begins with 'image/'"),
        ({"url": "data:image/png"}, ValueError, "comma"),
    ],
)
def test_media_that_cannot_be_are_refused(given_, error, match):
    with pytest.raises(error, match=match):
        ImagePart(**given_)


@pytest.mark.parametrize(
    ("content", "error", "match"),
    [
        (3, TypeError, "a str or a sequence of parts, not int"),
        (b"abc", TypeError, "not bytes"),
        ({"type": "text", "text": "x"}, TypeError, "not dict"),
        ([3], TypeError, "a part is one of TextPart, Image"),
        ([{"type": "image_url"}], ValueError, "one of the types text, image, audio, file, tool_call"),
    ],
)
def test_contents_that_cannot_be_are_refused(content, error, match):
    with pytest.raises(error, match=match):
        Request.of([{"role": "user", "content": content}])


def test_texts_among_parts_become_parts():
    message = Request.of([{"role": "user", "content": ["a", PNG, {"type": "text", "text": "b"}]}]).messages[0]
    assert message.content == (TextPart("a"), PNG, TextPart("b"))
    assert ToolResult("c", ["a"]).content == (TextPart("a"),)
    assert Request.of([Message("user", [TextPart("x")])]).messages[0].content == (TextPart("x"),)
