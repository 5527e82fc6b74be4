"""Replies while they are written: whatever the cuts, what is given is what the whole reply says, and no marker."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, NamedTuple

import pydantic
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from promptgrad.adapters import ChatAdapter, FieldPiece, Format, JSONAdapter, ReplyFeed, get_adapter, template
from promptgrad.errors import ParseError
from promptgrad.signature import make_signature

TWO = make_signature("question -> reasoning, answer")
TAGS = make_signature("question -> note, tags: list[str], answer")
ADAPTERS = [ChatAdapter(), JSONAdapter()]
COMPACT = get_adapter("compact")
ENDED = [*ADAPTERS, get_adapter("xml")]  # whose replies have an end of their own
ALL = [*ENDED, COMPACT]

PIECES = [
    *("[[ ## answer ## ]]", "[[ ## reasoning ## ]]", "[[ ## completed ## ]]", "[[ ## question ## ]]", "[[ ## x ## ]]"),
    *("[[", "]]", "[", "##", "[[ ##", "[[answer]]", "\\", "\\[[ ## answer ## ]]", "\\\\", "\\n", "\\u00e9", "\\ud83d"),
    *("␣", "␣ ", " ␣", " ", "\n", "\n\n", "\r\n", "\t", "\u2028", "\xa0", "```", "```json\n", "**", "***", "- ", "> "),
    *(
        "<think>",
        "</think>",
        "<",
        "<answer>",
        "# answer",
        "answer: ",
        "**answer:**",
        '"',
        "'",
        "{",
        "}",
        '{"answer": "',
    ),
    *("é", "\U0001f600", "\U0001d518", "e\u0301", "word ", "a", "0", ".", ","),
]
texts = st.text(max_size=8) | st.lists(st.sampled_from(PIECES), max_size=6).map("".join)
encodable = texts.filter(lambda text: "\ufffd" not in text.encode("utf-8", "replace").decode())


def read(adapter, signature, pieces):
    """What a feed gives for a reply that comes in these pieces."""
    feed = adapter.format(signature).feed()
    return [piece for text in pieces for piece in feed.feed(text)]


def given_by(pieces):
    """The text that was given of each field, the parts, and the values; a field has one value at most, at its end."""
    told: dict[str, str] = {}
    parts: dict[str, list[Any]] = {}
    values: dict[str, Any] = {}
    for kind, field, value in pieces:
        assert field not in values
        if kind == "delta":
            assert value
            told[field] = told.get(field, "") + value
        elif kind == "partial":
            parts.setdefault(field, []).append(value)
        else:
            values[field] = value
    return told, parts, values


def cuts(text):
    """The reply in two pieces, cut at every place; character by character; and at once."""
    for at in range(len(text) + 1):
        yield text[:at], text[at:]
    yield tuple(text)
    yield (text,)


@settings(max_examples=15, deadline=None)
@given(reasoning=encodable, answer=encodable)
@example("It is **bold**\n\n```python\nx = [[1]]\n```\n- a\n- b", "[[ ## answer ## ]]\n\\[[ ## completed ## ]]")
@example(" ␣ a", "a ␣ ")
@example("**[[ ## answer ## ]]**", "\U0001f600 \\ud83d\\ude00")
@example("<think>not a thought", "[THINK")
@example("- [[ ## answer ## ]] is next", "***")
@example("answer: no\n Answer : \\\nreasoning\t:", "a\n\\question: b\n\\\\answer:")
@pytest.mark.parametrize("adapter", ALL, ids=lambda adapter: adapter.name)
def test_what_is_given_of_a_reply_as_asked_for_is_its_text(adapter, reasoning, answer):
    outputs = {"reasoning": reasoning, "answer": answer}
    reply = adapter.format(TWO).assistant(outputs)
    try:
        found = adapter.format(TWO).read(reply)
    except ParseError:  # a text that is all thought
        return
    for pieces in cuts(reply):
        told, parts, values = given_by(read(adapter, TWO, pieces))
        assert not parts
        for name, text in found.items():
            assert text.startswith(told.get(name, "")), (pieces, told)
            if name in values:
                assert values[name] == told.get(name, "") == text


PLAIN = st.lists(
    st.sampled_from(
        ["word", "é", "\U0001f600", " ", "\n", "- a", "**b**", "```\nx = 1\n```", "a [1] b", "C#", "<b>", "."]
    ),
    min_size=1,
    max_size=7,
).map(lambda parts: ("x" + "".join(parts)).strip())


@settings(max_examples=15, deadline=None)
@given(reasoning=PLAIN, answer=PLAIN)
@pytest.mark.parametrize("adapter", ENDED, ids=lambda adapter: adapter.name)
def test_all_of_a_usual_reply_is_given_field_by_field_before_its_end(adapter, reasoning, answer):
    reply = adapter.format(TWO).assistant({"reasoning": reasoning, "answer": answer})
    for pieces in cuts(reply):
        got = read(adapter, TWO, pieces)
        told, _, values = given_by(got)
        assert values == told == {"reasoning": reasoning, "answer": answer}
        fields = [piece.field for piece in got]
        assert fields == sorted(fields, key=["reasoning", "answer"].index)


@settings(max_examples=15, deadline=None)
@given(reasoning=PLAIN, answer=PLAIN)
def test_lines_are_given_field_by_field_and_the_last_one_to_its_last_word(reasoning, answer):
    reply = COMPACT.format(TWO).assistant({"reasoning": reasoning, "answer": answer})
    for pieces in cuts(reply):
        told, _, values = given_by(read(COMPACT, TWO, pieces))
        assert values == {"reasoning": reasoning}
        assert told == {"reasoning": reasoning, "answer": answer.rstrip("`").rstrip()}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from(PIECES) | st.sampled_from(["reasoning:", "answer :", "question: q", "\nAnswer:", "\n"]))
)
@example(["reasoning: a\nquestion: q\n question\t: b\nanswer: c\nquestion: d\nanswer: e"])
@example(["```\nreasoning: a\nanswer: b\n```"])
@example(["Sure:\nreasoning: a\nanswer: b"])
@example(["For example:\nreasoning: a\nanswer: b"])
@example(["reasoning:\nanswer: x\nreasoning: a"])
def test_whatever_lines_come_what_is_given_of_them_stands_in_the_whole(parts):
    reply = "reasoning: " * (parts[:1] == ["\\"]) + "".join(parts)
    try:
        found = COMPACT.format(TWO).read(reply)
    except ParseError:
        return
    for pieces in cuts(reply):
        told, _, values = given_by(read(COMPACT, TWO, pieces))
        assert all(found[name].startswith(text) for name, text in told.items()), (pieces, told)
        assert all(found[name] == value for name, value in values.items())


def test_lists_in_lines_come_by_their_parts():
    reply = 'note: n\ntags: ["a", "b"]\nanswer: x'
    told, parts, values = given_by(read(COMPACT, TAGS, tuple(reply)))
    assert (told, values) == ({"note": "n", "answer": "x"}, {"note": "n", "tags": ["a", "b"]})
    assert parts["tags"] == [["a"], ["a", "b"]]


FORMS = {
    "bold": "**[[ ## reasoning ## ]]**\n{a}\n\n**[[ ## answer ## ]]**\n{b}\n\n**[[ ## completed ## ]]**",
    "heading": "### [[ ## reasoning ## ]]\n{a}\n\n### [[ ## answer ## ]]\n{b}\n\n### [[ ## completed ## ]]",
    "cut-down": "[[ reasoning ]]\n{a}\n\n[[ answer ]]\n{b}\n\n[[ completed ]]",
    "fenced": "```\n[[ ## reasoning ## ]]\n{a}\n\n[[ ## answer ## ]]\n{b}\n\n[[ ## completed ## ]]\n```",
    "fenced and bold": "```md\n**[[ ## reasoning ## ]]**\n{a}\n**[[ ## answer ## ]]**\n{b}\n**[[completed]]**\n```",
    "prose before": "Sure! Here:\n\n[[ ## reasoning ## ]]\n{a}\n\n[[ ## answer ## ]]\n{b}\n\n[[ ## completed ## ]]",
    "in capitals": "[[ ## Reasoning ## ]]\n{a}\n\n[[ ## ANSWER ## ]]\n{b}\n\n[[ ## completed ## ]]",
    "on one line": "[[ ## reasoning ## ]] {a}\n[[ ## answer ## ]] {b}\n[[ ## completed ## ]]",
}
SIMPLE = st.lists(
    st.sampled_from(["word", " é", "\U0001f600", " **b** ", "\nline", ", ", "(1)"]), min_size=1, max_size=5
)


@settings(max_examples=6, deadline=None)
@given(a=SIMPLE, b=SIMPLE)
@pytest.mark.parametrize("form", FORMS)
def test_what_models_write_instead_is_streamed_too_and_gives_no_marker(form, a, b):
    adapter = ADAPTERS[0]
    said, answer = ("x" + "".join(a) + "x", "x" + "".join(b) + "x")
    reply = FORMS[form].format(a=said, b=answer)
    assert adapter.format(TWO).read(reply) == {"reasoning": said, "answer": answer}
    for pieces in cuts(reply):
        told, _, values = given_by(read(adapter, TWO, pieces))
        assert told == values == {"reasoning": said, "answer": answer}


@pytest.mark.parametrize(
    "reply",
    [
        "[[ ## reasoning ## ]]\nso\n\n**[[ ## answer ## ]]**\nParis",
        "[[ ## reasoning ## ]]\nso\n\n**[[ ## answer ## ]]**\nParis\n\n[[ ## completed ## ]]",
        "[[ ## reasoning ## ]] so [[ ## answer ## ]] Paris [[ ## completed ## ]]",
        "**Reasoning:** so\n\n**Answer:** Paris",
        "## reasoning\nso\n\n## answer\nParis",
        "<reasoning>so</reasoning><answer>Paris</answer>",
        "[[ ## reasoning ## ]]\nso\n\n[[ ## answer ## ]]\nParis\n\n[[ ## comp",
        "```\n[[ ## reasoning ## ]]\nso\n\n[[ ## answer ## ]]\nParis\n```",
        "First [[ ## reasoning ## ]].\n[[ ## reasoning ## ]]\nso\n[[ ## answer ## ]]\nParis\n[[ ## completed ## ]]",
    ],
)
def test_of_other_forms_nothing_is_given_that_the_whole_takes_back(reply):
    found = ADAPTERS[0].format(TWO).read(reply)
    assert found == {"reasoning": "so", "answer": "Paris"}
    for pieces in cuts(reply):
        told, _, values = given_by(read(ADAPTERS[0], TWO, pieces))
        assert all(found[name].startswith(text) for name, text in told.items()), (pieces, told)
        assert all(found[name] == value for name, value in values.items())


@pytest.mark.parametrize(
    "reply",
    [
        "<reasoning>so</reasoning><answer>Paris</answer>",
        "Sure:\n```xml\n<reasoning>\nso\n</reasoning>\n<answer>Paris</answer>\n```",
        "<Reasoning >so</Reasoning >\n<ANSWER>Paris</ANSWER>",
        "<reasoning>so</reasoning>\n<answer>Paris",
        "<reasoning>so\n<answer>Paris</answer>",
        "<reasoning><![CDATA[so]]></reasoning><answer>Paris</answer>",
        "[[ ## reasoning ## ]]\nso\n\n[[ ## answer ## ]]\nParis\n\n[[ ## completed ## ]]",
        '{"reasoning": "so", "answer": "Paris"}',
    ],
)
def test_fields_between_tags_are_streamed_as_far_as_they_are_sure(reply):
    adapter = ALL[2]
    found = adapter.format(TWO).read(reply)
    assert found == {"reasoning": "so", "answer": "Paris"}
    for pieces in cuts(reply):
        told, _, values = given_by(read(adapter, TWO, pieces))
        assert all(found[name].startswith(text) for name, text in told.items()), (pieces, told)
        assert all(found[name] == value for name, value in values.items())
        if reply.count("<") == 4 and "CDATA" not in reply:
            assert told == values == found


def test_the_places_of_a_template_are_streamed():
    form = template("{question}", reply="Why: {reasoning}\nAnswer: {answer}\nEnd.")
    for reply in (
        "Why: so it\nis. An Answer\n  answer:  Paris, Answ\nEnd.",
        "Well. why:\nso it\nis. An Answer\nAnswer: Paris, Answ\n\nEnd. Bye",
        "Why: so it\nis. An Answer\nAnswer: Paris, Answ",
    ):
        found = form.format(TWO).read(reply)
        assert found == {"reasoning": "so it\nis. An Answer", "answer": "Paris, Answ"}
        for pieces in cuts(reply):
            told, _, values = given_by(read(form, TWO, pieces))
            assert all(found[name].startswith(text) for name, text in told.items()), (pieces, told)
            assert all(found[name] == value for name, value in values.items())
            if "End" in reply:
                assert told == values == found


def test_a_whole_reply_is_streamed_where_it_is_the_only_output():
    signature = make_signature("question -> answer")
    told, _, values = given_by(read(template("{question}"), signature, tuple("  It is\nParis. \n")))
    assert (told, values) == ({"answer": "It is\nParis."}, {})
    assert template("{question}", parse="(?P<answer>.*)").format(signature).feed() is None


def test_a_marker_that_a_text_speaks_of_is_given_once_the_next_field_shows_that_it_is_text():
    reply = ADAPTERS[0].format(TWO).assistant({"reasoning": "below [[ ## answer ## ]] it stands", "answer": "Paris"})
    told, _, values = given_by(read(ADAPTERS[0], TWO, tuple(reply)))
    assert told == values == {"reasoning": "below [[ ## answer ## ]] it stands", "answer": "Paris"}


@pytest.mark.parametrize(
    "reply",
    [
        '```json\n{"reasoning": "so", "answer": "Paris"}\n```',
        'Here it is: {"reasoning": "so", "answer": "Paris"} I hope it helps.',
        '{"Reasoning": "so", "more": {"answer": ["no"]}, "ANSWER": "Paris"}',
        '{"reasoning": "so", "answer": "Paris",}',
        "{'reasoning': 'so', 'answer': 'Paris'}",
        '{"reasoning": "so", "answer": "Paris", "answer": "Paris"}',
        '  \n{\n  "reasoning" : "so" ,\n  "answer" : "Paris"\n}\n',
    ],
)
@pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda adapter: adapter.name)
def test_an_object_is_streamed_in_any_dress(adapter, reply):
    found = adapter.format(TWO).read(reply)
    assert found == {"reasoning": "so", "answer": "Paris"}
    streams = '"reasoning"' in reply.lower()
    for pieces in cuts(reply):
        told, _, values = given_by(read(adapter, TWO, pieces))
        assert all(found[name].startswith(text) for name, text in told.items()), (pieces, told)
        assert all(found[name] == value for name, value in values.items())
        if streams and not (adapter.name == "chat" and reply.startswith("Here")):
            assert told == found


def test_escapes_are_given_when_they_are_complete():
    adapter = ADAPTERS[1]
    text = 'a "b" \\ / \b\f\n\r\t é \U0001f600 \u2028'
    for ensure_ascii in (True, False):
        import json

        reply = json.dumps({"reasoning": text, "answer": "x"}, ensure_ascii=ensure_ascii)
        for pieces in cuts(reply):
            told, _, _ = given_by(read(adapter, TWO, pieces))
            assert told == {"reasoning": text, "answer": "x"}


@pytest.mark.parametrize("bad", ["\\x", "\\ud83d!", "\\ude00", "\\u12", 'a" b'])
def test_text_that_is_no_json_ends_the_stream(bad):
    reply = '{"reasoning": "so ' + bad + '", "answer": "Paris"}'
    told, _, values = given_by(read(ADAPTERS[1], TWO, tuple(reply)))
    assert told in ({"reasoning": "so "}, {"reasoning": "so a"})
    assert values == {}


def test_a_field_that_may_be_a_thought_waits_for_the_whole():
    chat, as_json = ADAPTERS
    reply = "[[ ## reasoning ## ]]\n<think>hm</think>so\n\n[[ ## answer ## ]]\nParis\n\n[[ ## completed ## ]]"
    assert chat.format(TWO).read(reply)["reasoning"] == "so"
    assert given_by(read(chat, TWO, tuple(reply)))[2] == {"answer": "Paris"}
    reply = '{"reasoning": "<think>hm</think>so", "answer": "<b>"}'
    assert as_json.format(TWO).read(reply)["reasoning"] == "so"
    assert given_by(read(as_json, TWO, tuple(reply)))[2] == {"answer": "<b>"}


def test_fields_of_other_types_come_when_they_are_complete():
    signature = make_signature("question -> sure: bool, count: int, kind: Literal['a', 'b'], answer")
    outputs = {"sure": True, "count": 12, "kind": "b", "answer": "x"}
    for adapter in ADAPTERS:
        reply = adapter.format(signature).assistant(outputs)
        for pieces in cuts(reply):
            told, parts, values = given_by(read(adapter, signature, pieces))
            assert (told, parts, values) == ({"answer": "x"}, {}, outputs)


class Step(pydantic.BaseModel):
    title: str
    minutes: int = pydantic.Field(gt=0)


class Plan(pydantic.BaseModel):
    name: str
    steps: list[Step]


@dataclasses.dataclass
class Point:
    x: int
    y: int


class Pair(NamedTuple):
    left: int
    right: str


TYPES = {"Step": Step, "Plan": Plan, "Point": Point, "Pair": Pair}


def parts_of(kind, value, adapter=ADAPTERS[1]):
    signature = make_signature(f"question -> out: {kind}", types=TYPES)
    reply = adapter.format(signature).assistant({"out": value})
    _, parts, values = given_by(read(adapter, signature, tuple(reply)))
    assert values == {"out": value}
    return parts.get("out", [])


@pytest.mark.parametrize("adapter", ENDED, ids=lambda adapter: adapter.name)
def test_lists_and_objects_come_by_their_parts(adapter):
    assert parts_of("list[str]", ["a", "b, c]", 'd"'], adapter) == [["a"], ["a", "b, c]"], ["a", "b, c]", 'd"']]
    assert parts_of("list[int]", [1, 23], adapter) == [[1]]
    assert parts_of("list[str]", [], adapter) == []
    assert parts_of("dict[str, int]", {"a": 1, "b": 22}, adapter) == [{"a": 1}]
    assert parts_of("Step", Step(title="t", minutes=1), adapter) == [{"title": "t"}]
    first, second = Step(title="one", minutes=1), Step(title="two", minutes=2)
    assert parts_of("Plan", Plan(name="p", steps=[first, second]), adapter) == [
        {"name": "p"},
        {"name": "p", "steps": [{"title": "one"}]},
        {"name": "p", "steps": [first]},
        {"name": "p", "steps": [first, {"title": "two"}]},
        {"name": "p", "steps": [first, second]},
    ]
    assert parts_of("list[Point]", [Point(1, 2), Point(3, 4)], adapter) == [
        [{"x": 1}],
        [Point(1, 2)],
        [Point(1, 2), {"x": 3}],
        [Point(1, 2), Point(3, 4)],
    ]
    assert parts_of("list[list[int]]", [[1, 2], [3]], adapter) == [[[1]], [[1, 2]], [[1, 2], [3]]]
    assert parts_of("tuple[int, str, int]", (1, "a", 3), adapter) == [[1], [1, "a"]]
    assert parts_of("list[str] | None", ["a", "b"], adapter) == [["a"], ["a", "b"]]


def test_parts_that_do_not_fit_are_not_given():
    signature = make_signature("question -> out: list[Step]", types=TYPES)
    reply = '{"out": [{"title": "one", "minutes": 1}, {"title": "two", "minutes": 0}, {"title": "c", "minutes": 3}]}'
    _, parts, values = given_by(read(ADAPTERS[1], signature, tuple(reply)))
    assert parts["out"] == [
        [{"title": "one"}],
        [Step(title="one", minutes=1)],
        [Step(title="one", minutes=1), {"title": "two"}],
    ]
    assert values == {}


def test_a_list_as_no_json_comes_whole():
    reply = "[[ ## note ## ]]\nn\n\n[[ ## tags ## ]]\n- a\n- b\n\n[[ ## answer ## ]]\nx\n\n[[ ## completed ## ]]"
    told, parts, values = given_by(read(ADAPTERS[0], TAGS, tuple(reply)))
    assert (told, parts) == ({"note": "n", "answer": "x"}, {})
    assert values == {"note": "n", "tags": ["a", "b"], "answer": "x"}


def test_the_work_for_a_long_list_grows_little_faster_than_the_list():
    from promptgrad.adapters._partial import PartialReader

    field = make_signature("question -> out: list[int]").outputs["out"]

    def parts(count):
        reader = PartialReader.of(field)
        return sum(1 for sign in f"[{', '.join(['1234'] * count)}]" for _ in reader.feed(sign))

    few, many, most = parts(500), parts(5_000), parts(10_000)
    assert few == 499
    assert many < 2_800
    assert most - many < 60


def test_a_long_piece_is_read_as_many_short_ones():
    reply = ADAPTERS[0].format(TWO).assistant({"reasoning": "line [x]\n" * 2_000 + "end", "answer": "y " * 3_000 + "z"})
    whole, _, values = given_by(read(ADAPTERS[0], TWO, (reply,)))
    assert whole == values == ADAPTERS[0].format(TWO).read(reply)


def test_an_adapter_without_a_feed_gives_none():
    class Whole(Format):
        pass

    assert Whole(TWO).feed() is None
    with pytest.raises(NotImplementedError, match="ReplyFeed does not define feed"):
        ReplyFeed().feed("x")
    assert FieldPiece("delta", "answer", "x") == ("delta", "answer", "x")


def test_the_embedded_model_streams_words():
    adapter = get_adapter("pocket")
    signature = make_signature("question -> reasoning, answer")
    reply = "the cat sat  [[answer]] red\ndog"
    found = adapter.format(signature).read(reply)
    for pieces in cuts(reply):
        told, _, values = given_by(read(adapter, signature, pieces))
        assert all(found[name].startswith(text) for name, text in told.items()), (pieces, told)
        assert values == {"reasoning": "the cat sat"}
        assert told == {"reasoning": "the cat sat", "answer": "red dog"} or len(pieces) != 1


HELD = [
    *((" ", ""), ("\t", ""), ("\n", ""), ("\x85", ""), ("a", "```"), ("\n", "```json\n"), (" ", "```json"), ("[", "")),
    *(
        (" ", "[[ ## tags ## ]]\n"),
        ("\\", "[[ ## tags ## ]]\n"),
        (" ", "[[ ## tags ## ]]\n\n"),
        (" ", "[["),
        ("#", "[["),
    ),
    *((" ", '{"note":'), (" ", '{"note": "a"'), (" ", '{"x": 1'), ("\\", '{"note": "'), ("a", '{"'), (" ", '{"note"')),
    *(
        (" ", "<note>"),
        ("\\", "<note>a<"),
        ("a", "<note>a<"),
        (" ", "<note>a<note "),
        (" ", "<tags>"),
        ("a", "<tags>```"),
    ),
    *((" ", "Tags:"), ("a", "Note"), ("a ", "Yes\n"), (" ", "a\nTags"), ("a", "[[")),
]


@pytest.mark.parametrize(
    "adapter", [*ENDED, template("{question}", reply="{note}\nTags: {tags}\nAnswer: {answer}")], ids=repr
)
@pytest.mark.parametrize(("piece", "head"), HELD)
def test_what_is_held_of_a_hostile_reply_is_short(adapter: Any, piece: str, head: str) -> None:
    """As all that is held is looked at again with each piece that comes."""
    form = adapter.format(TAGS)
    feed, longest = form.feed(), 0
    for text in (head, *[piece * 40] * 100):
        list(feed.feed(text))
        nested = [getattr(feed, "_object", None), getattr(getattr(feed, "_body", None), "_parts", None)]
        for one in (feed, *filter(None, nested)):
            longest = max(longest, *(len(getattr(one, name, "")) for name in ("_text", "_head")))
    assert longest <= 700


@pytest.mark.parametrize("ascii", [True, False])
def test_arguments_of_a_call_stream_wherever_they_are_cut(ascii):
    said = {"note": 'a "b"\n\u00e9\U0001f600\\', "tags": ["x", "y", "z"], "answer": "ok"}
    text = json.dumps(said, ensure_ascii=ascii)
    for cut in range(len(text) + 1):
        feed = get_adapter("tools").format(TAGS).feed()
        found = [*feed.feed("Well. "), *feed.feed_call(0, "other", text), *feed.feed_call(1, "reply", text[:cut])]
        found += [*feed.feed_call(0, "", "}"), *feed.feed_call(1, "", text[cut:]), *feed.feed_call(2, "reply", text)]
        told, _, values = given_by(found)
        assert values == said
        assert told == {"note": said["note"], "answer": "ok"}
