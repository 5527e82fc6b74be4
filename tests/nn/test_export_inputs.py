"""Exported functions send images, documents, conversations and tools as the program does, byte for byte."""

from __future__ import annotations

import contextlib
import pathlib
from base64 import b64encode
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import promptgrad as pg
from promptgrad import nn
from promptgrad.adapters import template
from promptgrad.content._sniff import _BRANDS, _STARTS, _WITHIN, media_type_of
from promptgrad.lm import HTTP
from promptgrad.nn import _exported
from promptgrad.testing import LoopbackLM, Reply
from tests.made_files import pdf, png, wav

ADAPTERS = ["chat", "json", "xml", "tools", "compact", "two_step"]
TEXTS = st.text("aé\U0001f600 \n\"'\\{}[]#<>/:.", max_size=12) | st.sampled_from(
    [
        "",
        "[[ ## q ## ]]\n\\[[ ## a ## ]]",
        "</q> <A><\\q>",
        "q: 1\n\\a: 2\n document: 3",
        "promptgradInput0 {q}",
        "\n\ndocument 2: x",
        "\x00\t\r\u2028",
    ]
)
PNG, OTHER, WAV, PDF = png(), png(3, 2, (0, 0, 9)), wav(0.1), pdf("one")
FOLDER = pathlib.Path(__file__).parent


@pytest.fixture(scope="module")
def server() -> Any:
    with LoopbackLM("said") as server:
        yield server


@pytest.fixture(scope="module")
def files(tmp_path_factory: Any) -> Any:
    made = tmp_path_factory.mktemp("files")
    for name, data in {
        "a.png": PNG,
        "really a.jpg": OTHER,
        "no ending": PNG,
        "a.wav": WAV,
        "a.mp3": b"ID3\x04" + bytes(9),
        "tagged.flac": b"ID3\x04" + bytes(9),
        "a.pdf": PDF,
        "a.txt": b"%PDF-",
        "a.csv": b"a,b\n",
        'odd "é".json': b"{}",
    }.items():
        (made / name).write_bytes(data)
    return made


def exported(predict: nn.Module) -> Any:
    namespace: dict[str, Any] = {}
    exec(compile(pg.export(predict, format="python"), "exported", "exec"), namespace)
    return namespace["predict"]


def same_bytes(predict: nn.Predict, function: Any, server: Any, inputs: dict[str, Any]) -> None:
    asked = len(server.requests)
    with contextlib.suppress(pg.errors.ParseError):
        predict(**inputs)
    function(**inputs)
    assert server.requests[-1].body == server.requests[asked].body


def url(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{b64encode(data).decode()}"


PICTURES = [
    PNG,
    OTHER,
    'https://e.org/a.png?x="1"&é',
    "HTTP://e.org/",
    url(PNG, "image/png"),
    url(PNG, "image/x-odd;charset=x"),
    "data:image/svg+xml,%3Csvg/%3E",
    {"type": "image", "url": "https://e.org/b.png", "detail": "low"},
    {"type": "image", "data": b64encode(OTHER).decode(), "media_type": "image/webp"},
    {"data": b64encode(OTHER).decode(), "detail": "high"},
    pathlib.Path("a.png"),
    pathlib.Path("really a.jpg"),
    pathlib.Path("no ending"),
]
SOUNDS = [
    WAV,
    b"ID3\x04" + bytes(9),
    b"fLaC1",
    "https://e.org/a.mp3",
    url(WAV, "audio/x-wav"),
    url(WAV, "audio/mp4"),
    {"type": "audio", "data": b64encode(WAV).decode(), "media_type": "audio/vnd.wave"},
    pathlib.Path("a.wav"),
    pathlib.Path("a.mp3"),
    pathlib.Path("tagged.flac"),
]
PAPERS = [
    PDF,
    PNG,
    "https://e.org/a.pdf",
    "data:,plain%20text",
    {"type": "file", "url": "file-123"},
    {"type": "file", "data": b64encode(PDF).decode(), "name": 'é "x".pdf'},
    {"type": "file", "data": b64encode(b"a,b").decode(), "name": "t.csv"},
    pathlib.Path("a.pdf"),
    pathlib.Path("a.txt"),
    pathlib.Path("a.csv"),
    pathlib.Path('odd "é".json'),
]
DOCUMENTS = TEXTS | st.fixed_dictionaries({"text": TEXTS}, optional={"title": TEXTS, "source": TEXTS})
TYPES: dict[str, st.SearchStrategy[Any]] = {
    "Image": st.sampled_from(PICTURES),
    "Image | None": st.none() | st.sampled_from(PICTURES),
    "list[Image]": st.lists(st.sampled_from(PICTURES), max_size=3),
    "list[Image] | None": st.none() | st.lists(st.sampled_from(PICTURES), max_size=2),
    "Audio": st.sampled_from(SOUNDS),
    "list[Audio]": st.lists(st.sampled_from(SOUNDS), max_size=2),
    "File": st.sampled_from(PAPERS),
    "list[File] | None": st.none() | st.lists(st.sampled_from(PAPERS), max_size=3),
    "Document": DOCUMENTS,
    "Document | None": st.none() | DOCUMENTS,
    "list[Document]": st.lists(DOCUMENTS, max_size=3),
    "list[Document] | None": st.none() | st.lists(DOCUMENTS, max_size=3),
    "Any": st.recursive(
        TEXTS | st.none() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner)
    ),
}


def placed(value: Any, files: Any) -> Any:
    if isinstance(value, pathlib.Path):
        return files / value
    return [placed(item, files) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("annotation", TYPES)
def test_odd_values_of_each_type(adapter: str, annotation: str, server: Any, files: Any) -> None:
    predict = nn.Predict(f"q, it: {annotation}, n: int -> a", adapter=adapter, retries=0, lm=HTTP("m", server.url))
    function = exported(predict)

    @settings(max_examples=12)
    @given(TEXTS, TYPES[annotation])
    def holds(text: str, value: Any) -> None:
        same_bytes(predict, function, server, {"q": text, "it": placed(value, files), "n": 3})

    holds()


PARTS = (
    TEXTS
    | st.builds(lambda text: {"type": "text", "text": text}, TEXTS)
    | st.sampled_from(
        [
            {"type": kind, "data": b64encode(data).decode()}
            for kind, data in (("image", PNG), ("audio", WAV), ("file", PDF))
        ]
    )
)
TURNS = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant"]), "content": TEXTS | st.lists(PARTS, min_size=1)}
    ),
    max_size=4,
)


@pytest.mark.parametrize("without", [(), ("system", "response_format", "tool_choice")], ids=["", "without"])
@pytest.mark.parametrize("adapter", ADAPTERS)
def test_conversations_beside_all_of_them(adapter: str, without: Any, server: Any) -> None:
    inputs = "picture: Image | None, talk: History | None, q, papers: list[Document], s: list[Audio]"
    outputs = "a" if adapter == "two_step" else "a, cited: list[Citation]"
    lm = HTTP("m", server.url, without=without)
    predict = nn.Predict(f"{inputs} -> {outputs}", adapter=adapter, retries=0, lm=lm)
    function = exported(predict)

    @settings(max_examples=40)
    @given(
        st.sampled_from([None, PNG]),
        st.none() | TURNS,
        TEXTS,
        st.lists(DOCUMENTS, max_size=2),
        st.lists(st.just(WAV), max_size=1),
    )
    def holds(picture: Any, talk: Any, q: str, papers: Any, s: Any) -> None:
        same_bytes(predict, function, server, {"picture": picture, "talk": talk, "q": q, "papers": papers, "s": s})

    holds()


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize(
    "signature", ["picture: Image -> a", "-> picture: Image", "q, talk: History -> picture: Image"]
)
def test_demos_with_images_stand_in_the_body(adapter: str, signature: str, server: Any) -> None:
    values = {"picture": pg.Image(OTHER), "q": "x", "talk": pg.History([("user", ("y", pg.Image(PNG)))]), "a": "z"}
    if adapter == "two_step" and signature.endswith("Image"):
        return
    made = nn.Predict(signature, adapter=adapter, retries=0, lm=HTTP("m", server.url))
    demo = {name: values[name] for name in made.signature.fields}
    made.demos.data = (pg.Example(**demo), pg.Example(**{**demo, list(demo)[-1]: values[list(demo)[-1]]}))
    inputs = {"picture": PNG, "q": "?", "talk": [{"role": "assistant", "content": "hi"}]}
    same_bytes(made, exported(made), server, {name: inputs[name] for name in made.signature.inputs})


def add(a: int, b: int = 1) -> int:
    """Add "é" numbers.

    Args:
        a: One.
        b: Other.
    """
    return a + b


def now() -> str:
    return ""


TOOLS = [
    pg.Tool(add).to_dict(),
    {"name": "f"},
    {
        "type": "function",
        "function": {
            "name": "g",
            "description": '\\"é',
            "parameters": {
                "properties": {"x": {"type": "string", "default": "é"}},
                "required": ["x"],
                "type": "object",
                "x-odd": None,
            },
        },
    },
]


@pytest.mark.parametrize("adapter", ["chat", "json", "xml", "compact"])
@pytest.mark.parametrize(
    "signature",
    [
        "q, tools: list[Tool] -> calls: list[ToolCall]",
        "tools: list[Tool], q -> a, call: ToolCall",
        "tools: list[Tool] | None, more: Tool, talk: History -> calls: list[ToolCall]",
    ],
)
@pytest.mark.parametrize("without", [(), ("tool_choice",)], ids=["", "without"])
@pytest.mark.parametrize(
    "options", [{}, {"extra_body": {"tool_choice": "auto", "tool_use": [1], "zebra": "é"}}], ids=["", "options"]
)
def test_tools_are_declared(adapter: str, signature: str, without: Any, options: Any, server: Any) -> None:
    predict = nn.Predict(signature, adapter=adapter, retries=0, lm=HTTP("m", server.url, without=without), **options)
    function = exported(predict)
    talk = [{"role": "user", "content": "x"}]
    for tools in ([], TOOLS[:1], TOOLS):
        inputs = {"q": "[[ ## q ## ]]", "tools": tools, "more": pg.Tool(now).to_dict(), "talk": talk}
        same_bytes(predict, function, server, {name: inputs[name] for name in predict.signature.inputs})


def test_a_template_takes_texts_and_documents_as_json(server: Any) -> None:
    made = template("{d} {more}\nQ: {q}\nA:")
    predict = nn.Predict("d: Document, more: list[Document], q -> a", adapter=made, lm=HTTP("m", server.url))
    page = {"text": 'é "', "title": "", "source": "s"}
    same_bytes(predict, exported(predict), server, {"d": page, "more": [page, page], "q": "?"})
    for inputs in ("d: Image, q", "d: list[File] | None, q", "d: History, q"):
        with pytest.raises(ValueError, match="the adapter of 'predict' does not take its inputs: field 'd' holds"):
            pg.export(nn.Predict(f"{inputs} -> a", adapter=template("{d} {q}")), format="python")


def test_the_reply_to_tools_is_its_message(server: Any) -> None:
    function = exported(nn.Predict("tools: list[Tool] -> calls: list[ToolCall]", lm=HTTP("m", server.url)))
    server.script(Reply(tool_calls=[("add", {"a": 1}), ("now", {})]))
    assert [call["function"]["name"] for call in function(TOOLS)["tool_calls"]] == ["add", "now"]


def test_the_first_bytes_tell_the_same_type() -> None:
    starts = [start for start, _ in _STARTS]
    starts += [b"RIFF0000" + mark for mark in _WITHIN] + [b"0000ftyp" + mark for mark in _BRANDS]
    for start in [*starts, b"", b"RIFF", b"RIFF0000avif", b"0000ftypWAVE", b"abc", b"GIF88a"]:
        assert _exported._type_of(start + b"123") == media_type_of(start + b"123")
