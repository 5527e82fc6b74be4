"""One new field visits one place: its declaration."""

from __future__ import annotations

import inspect
import json
from dataclasses import MISSING, FrozenInstanceError, dataclass, field, fields, is_dataclass, replace

import pytest

from promptgrad import lm
from promptgrad._frozen import changer
from promptgrad.lm import Completion, Message, Request, Usage
from promptgrad.lm._codec import codec_of, digested, from_plain, to_plain

RECORDS = [
    made
    for name in lm.__all__
    if isinstance(made := getattr(lm, name), type)
    and is_dataclass(made)
    and made not in (Request, lm.Settings, lm.Generation, lm.Scored)
]


@dataclass(frozen=True, slots=True)
class MoreCompletion(Completion):
    mood: str = "calm"
    scores: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class MoreRequest(Request):
    effort: str | None = None


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.__name__)
def test_every_field_of_every_record_has_a_codec(record):
    assert list(codec_of(record).names) == [entry.name for entry in fields(record) if entry.compare]


def test_a_field_that_json_has_no_form_for_is_refused_by_name():
    @dataclass(frozen=True)
    class Odd:
        names: set[str] = field(default_factory=set)

    with pytest.raises(TypeError, match=r"Odd\.names is a set\[str\], which has no form in JSON"):
        to_plain(Odd())


def test_alternatives_that_look_alike_in_json_are_refused():
    @dataclass(frozen=True)
    class Odd:
        data: bytes | str = ""

    with pytest.raises(TypeError, match="JSON forms cannot be distinguished"):
        to_plain(Odd())


def test_a_new_field_of_a_completion_goes_everywhere_by_being_declared():
    made = MoreCompletion("hi", Usage(1), mood="glad", scores=(("a", 0.5),))
    assert MoreCompletion.from_dict(json.loads(json.dumps(made.to_dict()))) == made
    assert made.as_cached().mood == "glad"
    assert made != MoreCompletion("hi", Usage(1))


def test_a_new_field_of_a_request_is_in_its_digest_where_it_is_set_and_only_there():
    old, new = Request.of("hi", temperature=1), MoreRequest.of("hi", temperature=1)
    assert new.digest() == old.digest()
    high = MoreRequest.of("hi", temperature=1, effort="high")
    assert high.effort == "high"
    assert high.digest() != old.digest()
    assert high.replace(seed=1).effort == "high"
    assert high.options() == {"temperature": 1.0, "effort": "high"}
    assert new.with_defaults({"effort": "low"}).effort == "low"
    assert high.with_defaults({"effort": "low"}).effort == "high"
    assert high.to_dict()["effort"] == "high"


def test_digests_of_text_are_those_of_every_version():
    request = Request.of([Message("system", "Be brief."), Message("user", "ü")], temperature=0.5, stop="x", top_k=4)
    assert request.digest("m") == "4b64264e5278a884039906c8aee70376"


def test_what_has_its_default_is_not_written():
    assert to_plain(lm.ImagePart(b"abc", "image/png")) == {"type": "image", "data": "YWJj", "media_type": "image/png"}
    assert Completion("hi").to_dict() == {"text": "hi"}
    assert Completion("hi", Usage(1)).to_dict() == {"text": "hi", "usage": {**Usage().to_dict(), "calls": 1}}
    always = [name for name in Usage.__slots__ if name not in Usage.written_if_set]  # whoever adds them up
    assert Usage().to_dict() == {name: getattr(Usage(), name) for name in always}
    assert Usage(1, 9, cached_input_tokens=3).to_dict()["cached_input_tokens"] == 3


def test_bytes_may_be_written_as_their_digest():
    plain = to_plain(lm.ImagePart(b"abc", "image/png"), digested)
    assert len(plain["data"]) == 32
    assert plain["data"] != to_plain(lm.ImagePart(b"abd", "image/png"), digested)["data"]


def test_what_is_no_record_is_refused_with_its_fields():
    with pytest.raises(ValueError, match="'size' is not among its fields"):
        from_plain(lm.TextPart, {"type": "text", "text": "x", "size": 3})
    with pytest.raises(ValueError, match="no TextPart, whose fields are text"):
        from_plain(lm.TextPart, {})
    with pytest.raises(ValueError, match="the type 'video' is not known; the types are text, image"):
        from_plain(Message, {"role": "user", "content": [{"type": "video"}]})


def test_a_field_may_have_any_name_and_a_record_may_hold_another_and_have_no_default():
    @dataclass(frozen=True)
    class Inner:
        value: int
        data: str = ""

    @dataclass(frozen=True)
    class Outer:
        left: Inner
        record: tuple[Inner, ...] = ()
        hidden: int = field(default=0, compare=False)
        blob: list[int] | None = field(default=None, compare=False)
        plain: str = field(default="x", kw_only=True)

    globals().update(Inner=Inner)  # where the annotations are looked up
    made = Outer(Inner(1), (Inner(2, "b"),), 7, plain="y")
    plain = {"left": {"value": 1}, "record": [{"value": 2, "data": "b"}], "plain": "y"}
    assert to_plain(made) == plain
    assert from_plain(Outer, plain) == made
    with pytest.raises(
        ValueError, match=r"no Outer, whose fields are left, record, plain: this is no Inner.*'value' is"
    ):
        from_plain(Outer, {"left": {}})


def test_text_goes_by_its_own_name_in_json_and_parts_by_that_of_the_field():
    parts = Completion((lm.TextPart("a"),))
    assert parts.to_dict() == {"content": [{"type": "text", "text": "a"}]}
    assert Completion.from_dict(parts.to_dict()) == parts
    assert Completion.from_dict({"content": "a"}) == Completion.from_dict({"text": "a"}) == Completion("a")
    with pytest.raises(ValueError, match="under both of its names"):
        Completion.from_dict({"text": "a", "content": "b"})


@pytest.mark.parametrize("record", [Message, Request, Usage, Completion], ids=lambda record: record.__name__)
def test_an_init_written_by_hand_has_the_fields_and_defaults_of_the_record(record):
    taken = list(inspect.signature(record).parameters.values())
    assert [entry.name for entry in taken] == [entry.name for entry in fields(record)]
    for entry, argument in zip(fields(record), taken, strict=True):
        assert argument.annotation == entry.type
        assert argument.default is (inspect.Parameter.empty if entry.default is MISSING else entry.default)
    values = [object() for _ in taken]
    made = record(*values)
    assert [getattr(made, entry.name) for entry in fields(record)] == values


def test_a_record_is_frozen_and_takes_its_own_fields_alone():
    assert str(inspect.signature(Usage)).startswith("(calls: 'int' = 0, input_tokens: 'int' = 0")
    made = Completion("x", trace=object())
    assert made == Completion("x")
    assert "trace" not in repr(made)
    with pytest.raises(FrozenInstanceError):
        made.usage = Usage()  # type: ignore[misc]
    with pytest.raises(TypeError, match="content"):
        Completion()
    with pytest.raises(TypeError, match="unexpected keyword"):
        Completion("x", color=1)


def test_a_changer_keeps_every_field_that_it_is_not_given():
    change = changer(MoreCompletion, "usage", "mood")
    made = MoreCompletion("hi", Usage(1), model="m", logprobs=(lm.TokenLogprob("hi", -0.1),), scores=(("a", 0.5),))
    assert change(made, Usage(2), "glad") == replace(made, usage=Usage(2), mood="glad")
