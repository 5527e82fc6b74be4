"""Records: filters that count what they drop, and files that are read back as the same records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptgrad import lm, nn
from promptgrad.content import Document
from promptgrad.data import Example
from promptgrad.errors import DataError
from promptgrad.finetune import (
    Collected,
    Conversation,
    Preference,
    Preferences,
    collect,
    labeled,
    load_conversations,
    load_preferences,
    sft,
)
from promptgrad.metrics import exact_match

EXAMPLES = [Example(question=q, answer=q.upper()).with_inputs("question") for q in "abcd"]


def upper(messages: Any) -> str:
    question = messages[-1]["content"].split("\n")[1]
    if question == "c":
        raise ValueError("no")
    return f"[[ ## answer ## ]]\n{question.upper() if question != 'b' else 'wrong'}"


def collected(**how: Any) -> Collected:
    return collect(nn.Predict("question -> answer").to(lm.FunctionLM(upper)), EXAMPLES, exact_match, **how)


def talk(reply: str, *, path: str = "", question: str = "?", **more: Any) -> Conversation:
    return Conversation((lm.Message("system", "Be brief."), lm.Message("user", question)), reply, path, **more)


def made(*samples: Conversation) -> Collected:
    return Collected(samples, len(samples), len(samples), 0)


# ------------------------------------------------------------------------------------------------------ filters


def test_each_run_that_gives_nothing_is_counted_with_its_reason() -> None:
    found = collected(n=2)
    assert (len(found), found.runs, found.right, found.errors) == (4, 8, 4, 2)
    assert found.dropped == {"run below the threshold": 2, "failed run": 2}
    assert [sample.score for sample in found] == [1.0] * 4
    assert collected(threshold=0.0).dropped == {"failed run": 1}


def test_filters_keep_the_order_and_add_up() -> None:
    found = collected(n=2)
    fewer = found.dedup().filter(lambda sample: "\nd" not in sample.messages[-1].text, "too easy")
    assert [sample.example_id for sample in fewer] == [EXAMPLES[0].id]
    assert fewer.dropped == {"run below the threshold": 2, "failed run": 2, "duplicate": 2, "too easy": 1}
    assert repr(fewer) == "Collected(1 samples of 4 of 8 runs, 2 errors; left out: 2 x duplicate, 1 x too easy)"
    assert found.dropped == {"run below the threshold": 2, "failed run": 2}  # as it was
    assert fewer.filter(lambda sample: True) == fewer


def test_what_makes_a_duplicate() -> None:
    found = made(talk("x"), talk("x", path="other"), talk("y"), talk("x", score=0.5, example_id="e"))
    assert [(s.path, s.reply) for s in found.dedup()] == [("", "x"), ("other", "x"), ("", "y")]
    assert [s.reply for s in found.dedup(lambda sample: sample.messages)] == ["x"]


def test_labels_without_the_fields_are_counted() -> None:
    one = nn.Predict("question -> answer").to(lm.FunctionLM(upper))
    assert labeled(one, [*EXAMPLES, Example(question="e")]).dropped == {"example without the fields of a module": 1}
    assert labeled(one, EXAMPLES).dropped == {}


def test_a_limit_of_tokens_is_the_one_of_the_training() -> None:
    pytest.importorskip("torch")
    local = lm.pocket()
    found = made(talk("red"), talk("red " * 9))
    short = found.limit(12, local)
    assert ([s.reply for s in short], short.dropped) == (["red"], {"longer than 12 tokens": 1})
    assert len(found.limit(500, local)) == 2
    with pytest.raises(ValueError, match="at least 1"):
        found.limit(0, local)
    program = nn.Predict("text -> answer").to(local)
    result = sft(program, found, max_length=12, skip_long=True, steps=1, progress=False)
    assert result.collected.dropped == {"longer than 12 tokens": 1}


def test_a_training_counts_what_it_cannot_use() -> None:
    pytest.importorskip("torch")
    pytest.importorskip("peft")
    program = nn.ModuleDict({"solve": nn.Predict("text -> answer").to(lm.pocket())})
    found = made(talk("red", path="solve"), talk(" ", path="solve"), talk("blue", path="other"), talk("green"))
    result = sft(program, found, steps=1, progress=False)
    assert result.samples == 2  # what comes from no module trains the model of any
    lost = {"call of a module that is not on the local model": 1, "empty reply": 1}
    assert result.collected.dropped == lost
    assert "; left out: 1 x call of a module that is not on the local model, 1 x empty reply)" in repr(result)
    with pytest.raises(DataError, match=r"nothing to learn: .* \(left out: 1 x call of a module"):
        sft(program, made(talk("blue", path="other")), steps=1)


def test_nothing_left_is_said_with_the_counts_and_nothing_is_written(tmp_path: Path) -> None:
    none = collected().filter(lambda sample: False, "not mine")
    with pytest.raises(DataError, match=r"nothing to save: 2 of 4 runs went right, 1 failed.*left out: 2 x not mine"):
        none.save(tmp_path / "x.jsonl")
    assert list(tmp_path.iterdir()) == []
    file = made(talk("x")).save(tmp_path / "x.jsonl")
    before = file.read_text()
    with pytest.raises(ValueError, match="the forms of Conversations are chat, prompt-completion, openai, trl, not"):
        made(talk("y")).save(file, format="csv")
    picture = lm.Message("user", (lm.TextPart("What?"), lm.ImagePart(b"png", "image/png")))
    with pytest.raises(DataError, match="record 2 cannot be written as 'trl': it holds What"):
        made(talk("y"), Conversation((picture,), "a cat")).save(file, format="trl")
    assert file.read_text() == before
    assert [path.name for path in tmp_path.iterdir()] == ["x.jsonl"]


# -------------------------------------------------------------------------------------------------------- files

TEXT = st.text(max_size=12) | st.sampled_from(["", "\n\r\u2028\x85", '"', "\ud83d", "😀"])
MESSAGE = st.builds(lm.Message, st.sampled_from(["system", "user", "assistant", "developer", "tool"]), TEXT)
PICTURE = st.just(lm.Message("user", (lm.TextPart("What?"), lm.ImagePart(b"\x00png", "image/png"))))
MESSAGES = st.lists(MESSAGE, min_size=1, max_size=4).map(tuple)
RICH = st.lists(MESSAGE | PICTURE, min_size=1, max_size=4).map(tuple)
SCORE = st.none() | st.floats(0, 1)
CONVERSATIONS = st.lists(st.builds(Conversation, RICH, TEXT, TEXT, TEXT, SCORE), min_size=1, max_size=3)
PREFERENCES = st.lists(st.builds(Preference, RICH, TEXT, TEXT, TEXT, TEXT), min_size=1, max_size=3)


@settings(max_examples=25, deadline=None)
@given(CONVERSATIONS, st.sampled_from(["", "chat", "prompt-completion"]))
def test_conversations_are_read_back(tmp_path_factory: Any, samples: list[Conversation], form: str) -> None:
    file = made(*samples).save(tmp_path_factory.mktemp("f") / "x.jsonl", format=form)
    assert list(load_conversations(file)) == samples


@settings(max_examples=25, deadline=None)
@given(PREFERENCES)
def test_preferences_are_read_back(tmp_path_factory: Any, samples: list[Preference]) -> None:
    file = Preferences(tuple(samples), 1, 0, 0).save(tmp_path_factory.mktemp("f") / "x.jsonl")
    assert list(load_preferences(file)) == samples


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(MESSAGES, TEXT, TEXT), min_size=1, max_size=3), st.sampled_from(["openai", "trl"]))
def test_the_forms_of_others_are_read_back(tmp_path_factory: Any, rows: list[Any], form: str) -> None:
    folder = tmp_path_factory.mktemp("f")
    talks = [Conversation(messages, reply) for messages, reply, _ in rows]
    assert list(load_conversations(made(*talks).save(folder / "c", format=form))) == talks
    pairs = [Preference(*row) for row in rows]
    assert list(load_preferences(Preferences(tuple(pairs), 1, 0, 0).save(folder / "p", format=form))) == pairs


def test_what_others_find_in_a_file(tmp_path: Path) -> None:
    demo = (lm.Message("user", "1"), lm.Message("assistant", "one"), lm.Message("user", "2"))
    found = made(Conversation(demo, "two", "count", "e1", 1.0))

    def first(form: str) -> Any:
        return json.loads(found.save(tmp_path / "x", format=form).read_text())

    user, reply, last = (
        {"role": "user", "content": "1"},
        {"role": "assistant", "content": "one"},
        {"role": "user", "content": "2"},
    )
    two = {"role": "assistant", "content": "two"}
    assert first("openai") == {"messages": [user, {**reply, "weight": 0}, last, two]}  # the demo is not learned
    assert first("trl") == {"prompt": [user, reply, last], "completion": [two]}
    origin = {"promptgrad": {"path": "count", "example_id": "e1", "score": 1.0}}
    assert first("chat") == {**first("openai"), **origin}
    assert first("prompt-completion") == {**first("trl"), **origin}
    pairs = Preferences((Preference(demo, "two", "three"),), 1, 0, 0)
    wanted = {"prompt": [user, reply, last], "chosen": [two], "rejected": [{**two, "content": "three"}]}
    assert json.loads(pairs.save(tmp_path / "y", format="trl").read_text()) == wanted
    assert json.loads(pairs.save(tmp_path / "y", format="openai").read_text()) == {
        "input": {"messages": [user, reply, last]},
        "preferred_output": [two],
        "non_preferred_output": [{**two, "content": "three"}],
    }


def written(folder: Path, *rows: Any) -> Path:
    file = folder / "rows.jsonl"
    file.write_text("\n\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), "utf-8")
    return file


USER, BOT = {"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}
CALL = {"id": "x", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}


def test_a_conversation_with_tools_makes_a_record_of_each_turn(tmp_path: Path) -> None:
    calling = {"role": "assistant", "content": "Let me see.", "tool_calls": [CALL, {**CALL, "id": "y"}]}
    results = [{"role": "tool", "tool_call_id": name, "content": name} for name in "xy"]
    declared = [{"type": "function", "function": {"name": "f"}}]
    found = load_conversations(written(tmp_path, {"messages": [USER, calling, *results, BOT], "tools": declared}))
    first, second = found
    assert (first.reply, [call.id for call in first.calls]) == ("Let me see.", ["call_1", "call_2"])
    assert second.messages[2] == lm.Message("tool", (lm.ToolResult("x", "x"), lm.ToolResult("y", "y")))
    assert (second.reply, second.calls, second.tools) == ("!", (), first.tools)
    for form in ("chat", "prompt-completion", "openai", "trl"):
        assert list(load_conversations(found.save(tmp_path / f"{form}.jsonl", form))) == [first, second]
    with pytest.raises(DataError, match="it has 'tools', and a pair holds texts alone"):
        load_preferences(written(tmp_path, {"prompt": "x", "chosen": "y", "rejected": "z", "tools": declared}))
    with pytest.raises(DataError, match="'chosen' has 'tool_calls'"):
        load_preferences(written(tmp_path, {"prompt": "x", "chosen": [calling], "rejected": "z"}))


def test_files_of_others(tmp_path: Path) -> None:
    talks = load_conversations(
        written(
            tmp_path,
            {"messages": [USER, BOT, USER, {**BOT, "content": "!!"}], "tools": [], "id": 7},
            {"messages": [USER, {**BOT, "weight": 0}]},
            {"messages": [USER, {"role": "assistant", "content": [{"type": "text", "text": "!"}], "tool_calls": None}]},
            {"prompt": "The sky is", "completion": " blue."},
        )
    )
    assert [(len(t.messages), t.reply) for t in talks] == [(1, "!"), (3, "!!"), (1, "!"), (1, " blue.")]
    assert talks.dropped == {"line whose replies all have weight 0": 1}
    assert talks.samples[-1].messages == (lm.Message("user", "The sky is"),)
    pairs = load_preferences(
        written(
            tmp_path,
            {"prompt": "The sky is", "chosen": " blue.", "rejected": " green."},
            {"chosen": [USER, BOT], "rejected": [USER, {**BOT, "content": "no"}]},
        )
    )
    assert [(len(p.messages), p.chosen, p.rejected) for p in pairs] == [(1, " blue.", " green."), (1, "!", "no")]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", "not JSON"),
        ("[1]", "it is no JSON object"),
        ({"text": "x"}, "'messages', or 'prompt' and 'completion'.*this one has the keys 'text'"),
        ({"prompt": "x"}, "this one has the keys 'prompt'"),
        ({"messages": "x"}, "'messages' is a list of messages, not a text"),
        ({"messages": []}, "the last of 'messages' is the reply, of 'assistant'; it is missing"),
        ({"messages": [BOT, USER]}, "it is of 'user'"),
        ({"messages": [BOT]}, "the first of 'messages' is a reply, to nothing"),
        ({"messages": [USER, 3]}, "message 2 of 'messages' is an object with 'role' and 'content', not a number"),
        ({"messages": [{**USER, "role": "human"}, BOT]}, "message 1 of 'messages' has the role 'human'; a role is one"),
        ({"messages": [USER, {"role": "assistant"}]}, "message 2 of 'messages' has no 'content'"),
        ({"messages": [USER, {**BOT, "content": 3}]}, "message 2 of 'messages' cannot be read: 'content'"),
        ({"messages": [USER, {**BOT, "weight": 2}]}, "'weight' of message 2 is 0 or 1, not 2"),
        ({"messages": [USER, {**BOT, "tool_calls": [{}]}]}, "message 2 of 'messages' has 'tool_calls' that cannot be"),
        ({"messages": [{**USER, "tool_calls": [CALL]}, BOT]}, "'tool_calls', which are an assistant's, and is of"),
        (
            {"messages": [USER, {**BOT, "function_call": {"name": "f"}}]},
            "the form of tools is 'tools' and 'tool_calls'",
        ),
        ({"messages": [USER, {"role": "tool", "tool_call_id": 3, "content": "x"}, BOT]}, "the id of its call"),
        ({"messages": [USER, BOT], "tools": [{}]}, "'tools' is a list of objects such as"),
        ({"messages": [USER, BOT], "tools": {"a": 1}}, "'tools' is a list of messages|'tools' is a list"),
        ({"messages": [USER, BOT], "functions": [{}]}, "it has 'functions', and the form of tools is"),
        ({"prompt": [], "completion": "x"}, "there is no message before the reply"),
        ({"prompt": "x", "completion": [USER]}, "'completion' is one message of 'assistant', not 'user'"),
        ({"prompt": "x", "completion": 3}, "'completion' is a list of messages, not a number"),
        ({"prompt": "x", "chosen": "y", "rejected": "z"}, "a pair of replies: read it with load_preferences"),
        ({"messages": [USER, BOT], "promptgrad": {"score": "x"}}, "'score' of 'promptgrad' is 'x'"),
        ({"messages": [USER, BOT], "promptgrad": {"scores": 1}}, "'promptgrad' is an object with path, example_id"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(tmp_path: Path, row: Any, message: str) -> None:
    file = written(tmp_path, {"prompt": "x", "completion": "y"}, row)
    with pytest.raises(DataError, match=rf"rows\.jsonl:3: .*{message}"):
        load_conversations(file)
    assert load_conversations(file, skip_bad=True).dropped == {"line that cannot be read": 1}
    with pytest.raises(DataError, match="has no records: 1 x line that cannot be read"):
        load_conversations(written(tmp_path, row), skip_bad=True)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "x", "completion": "y"}, "one reply and no pair: read it with load_conversations"),
        ({"input": [], "preferred_output": "x", "non_preferred_output": "y"}, "'input' is an object with 'messages'"),
        ({"input": {"messages": [USER]}, "preferred_output": [], "non_preferred_output": []}, "not nothing"),
        ({"chosen": [USER, BOT], "rejected": [BOT]}, "differ before their last message"),
        ({"chosen": [BOT], "rejected": [BOT]}, "no message before the reply"),
    ],
)
def test_a_pair_that_cannot_be_read_is_named(tmp_path: Path, row: Any, message: str) -> None:
    with pytest.raises(DataError, match=rf"rows\.jsonl:1: .*{message}"):
        load_preferences(written(tmp_path, row))


def test_an_empty_file(tmp_path: Path) -> None:
    for load in (load_conversations, load_preferences):
        with pytest.raises(DataError, match="has no records"):
            load(written(tmp_path))
        with pytest.raises(FileNotFoundError):
            load(tmp_path / "none.jsonl")


def test_documents_that_may_be_cited_are_texts_in_records(tmp_path: Path) -> None:
    cited = '[{"document": 1, "quote": "Emma"}]'
    said = f"[[ ## answer ## ]]\nEmma\n\n[[ ## citations ## ]]\n{cited}\n\n[[ ## completed ## ]]"
    program = nn.Predict("documents: list[Document], question -> answer, citations: list[Citation]")
    program.to(lm.FunctionLM(lambda messages: said))
    rows = [Example(documents=[Document("Emma", str(n))], question="?", answer="Emma") for n in range(2)]
    found = collect(program, [row.with_inputs("documents", "question") for row in rows], exact_match(field="answer"))
    assert len(found) == 2
    for form in ("chat", "openai", "trl"):
        assert "document 1: 0\\nEmma" in found.save(tmp_path / form, form).read_text()
