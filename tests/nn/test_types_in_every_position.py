"""Every type of content in every position: as it is, optional, in a list, a dict, a model; given, shown, saved."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, Optional

import pydantic
import pytest

import promptgrad as pg
from promptgrad import lm, nn
from promptgrad.content import Audio, Citation, Document, File, Image
from promptgrad.errors import SignatureError
from promptgrad.signature import Field, Signature
from tests.made_files import pdf, png, wav

VALUES: dict[str, tuple[Any, list[Any]]] = {
    "Image": (Image, [Image(png()), Image(url="https://example.org/a.png"), Image(png(9, 8), detail="low")]),
    "Audio": (Audio, [Audio(wav()), Audio(wav(0.02))]),
    "File": (File, [File(pdf("one"), name="one.pdf"), File(pdf("two"))]),
    "Document": (Document, [Document("It is green.", "Grass", "https://example.org"), Document("[[ ## a ## ]]")]),
    "Citation": (Citation, [Citation(1, "green"), Citation(0, "", source="https://example.org", said="so")]),
    "Code": (pg.Code["python"], ["x = 1", "x = '[[ ## note ## ]]'\ny = '```'"]),
    "ToolCall": (pg.ToolCall, [pg.ToolCall("1", "look", '{"word": "a"}'), pg.ToolCall("", "look", "{}")]),
}
ADAPTERS = ["chat", "json", "xml", "compact", "tools"]


def positions(kind: Any, values: list[Any]) -> dict[str, tuple[Any, list[Any]]]:
    """A type and values in each position."""
    model = pydantic.create_model("Card", item=(kind, ...), more=(list[kind], []), note=(str, ""))  # type: ignore[valid-type]
    record = dataclasses.make_dataclass("Row", [("item", kind), ("maybe", Optional[kind], None)])  # noqa: UP045
    first, last = values[0], values[-1]
    return {
        "itself": (kind, values),
        "optional": (Optional[kind], [first, None]),  # noqa: UP045 - `|` takes no annotated type in 3.10
        "list": (list[kind], [values, [first], []]),
        "tuple": (tuple[kind, str], [(first, "a"), (last, "image 1")]),
        "dict": (dict[str, kind], [{"a": first, "b": last}, {}]),
        "model": (model, [model(item=first, more=values, note="image 1"), model(item=last)]),
        "models": (list[model], [[model(item=first), model(item=last)], []]),
        "record": (record, [record(first), record(last, first)]),
    }


CASES = [(name, place) for name, (kind, values) in VALUES.items() for place in positions(kind, values)]


def media_of(value: Any) -> list[Any]:
    if isinstance(value, (Image, Audio, File)):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return [found for item in value for found in media_of(item)]
    return media_of(list(vars(value).values())) if hasattr(value, "__dict__") else []


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize(("name", "place"), CASES, ids=lambda part: part)
def test_given_and_shown_it_is_saved_and_asks_the_same(name: str, place: str, adapter: str) -> None:
    kind, values = positions(*VALUES[name])[place]
    fields = [Field("given", kind), Field("note"), Field("answer", str, role="output")]
    program = nn.Predict(Signature(fields, "Look."), adapter=adapter)
    program.demos.data = [pg.Example(given=value, note="n", answer="a") for value in values]
    http = lm.HTTP("m", "http://127.0.0.1:1")
    other = nn.Predict(Signature(fields, "?"), adapter=adapter)
    other.load_state_dict(json.loads(json.dumps(program.state_dict())))
    for value in values:
        request = program.request(given=value, note="n")
        again = other.request(given=value, note="n")
        assert again.digest() == request.digest()
        assert http.body(again) == http.body(request)
        sent = [part for m in request.messages if not isinstance(m.content, str) for part in m.content]
        shown = [part for part in sent if part.kind in ("image", "audio", "file")]
        wanted = [found for each in [*values, value] for found in media_of(each)]
        assert all(part in shown for part in wanted)
        assert all(part in wanted for part in shown)


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize(
    ("name", "place"), [case for case in CASES if case[0] in ("Document", "Citation", "Code")], ids=lambda part: part
)
def test_as_an_output_it_comes_back_from_a_reply_and_from_a_state(name: str, place: str, adapter: str) -> None:
    kind, values = positions(*VALUES[name])[place]
    fields = [Field("question"), Field("found", kind, role="output"), Field("note", str, role="output")]
    form = pg.adapters.get_adapter(adapter).format(Signature(fields))
    program, other = (nn.Predict(Signature(fields), adapter=adapter) for _ in "ab")
    program.demos.data = [pg.Example(question="?", found=value, note="n") for value in values]
    other.load_state_dict(json.loads(json.dumps(program.state_dict())))
    assert other.request(question="?").digest() == program.request(question="?").digest()
    for value in values:
        reply = form.assistant({"found": value, "note": "n"})
        assert form.parse_whole(lm.Completion(reply)) == {"found": value, "note": "n"}


@pytest.mark.parametrize("name", ["Image", "Audio", "File"])
@pytest.mark.parametrize("place", ["tuple", "dict", "model", "models", "record"])
def test_media_inside_of_an_output_are_refused_when_the_prompt_is_made(name: str, place: str) -> None:
    kind, _ = positions(*VALUES[name])[place]
    program = nn.Predict(Signature([Field("question"), Field("found", kind, role="output")]))
    with pytest.raises(SignatureError, match="make them an output of their own"):
        program.request(question="?")
