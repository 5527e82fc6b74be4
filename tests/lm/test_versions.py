"""Files of 0.1, which knew text alone, are read; files of later versions are refused with what to do."""

import json
import shutil
import sqlite3
from pathlib import Path

import pytest

from promptgrad import run
from promptgrad.errors import JournalError, ReplayError
from promptgrad.lm import (
    Cache,
    Completion,
    FunctionLM,
    ImagePart,
    Message,
    Request,
    TextPart,
    ToolCall,
    Usage,
    record,
    replay,
    track_usage,
)

CAPITALS = Path(__file__).parent / "cassettes" / "capitals.jsonl"
OLD_USAGE = {"calls": 1, "input_tokens": 9, "output_tokens": 2, "usd": 0.25, "cached": 0, "seconds": 0.5}
OLD_REPLY = {"text": "Paris", "usage": OLD_USAGE, "model": "m", "finish_reason": "length"}
HI = Request.of("hi")
RICH = Completion((TextPart("x"), ToolCall("c", "f", "{}")), Usage(1, 1, 1), "m", "tool_calls")


def unasked(messages):
    raise AssertionError("the model was asked")


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_completion_of_an_old_file():
    assert Completion.from_dict(OLD_REPLY) == Completion("Paris", Usage(**OLD_USAGE), "m", "length")
    hit = {**OLD_REPLY, "usage": {**OLD_USAGE, "calls": 0, "cached": 1}}
    assert Completion.from_dict(hit).cached
    with pytest.raises(ValueError, match="'mood' is not among its fields"):
        Completion.from_dict({**OLD_REPLY, "mood": "glad"})


def test_a_journal_of_0_1_is_resumed_and_goes_on_in_the_new_shape(tmp_path):
    lm = FunctionLM(unasked, name="f")
    call = {"kind": "call", "key": HI.digest("f"), "scope": "", "reply": OLD_REPLY, "t": 1.0}
    path = tmp_path / "journal.jsonl"
    path.write_text('{"kind":"header","schema":1}\n' + json.dumps(call) + "\n")
    with run.Journal(path) as journal, run.active(journal=journal) as session:
        assert lm("hi") == Completion.from_dict(OLD_REPLY)
        assert session.ledger.spent.tokens == 11
        assert FunctionLM(lambda messages: RICH, name="g")("hi").tool_calls
    assert [event["schema"] for event in lines(path) if event["kind"] in ("header", "process")] == [1, 6]
    with run.Journal(path) as journal, run.active(journal=journal):
        assert FunctionLM(unasked, name="g")("hi").content == RICH.content


def test_a_journal_that_a_later_version_has_gone_on_with_is_refused(tmp_path):
    path = tmp_path / "journal.jsonl"
    path.write_text('{"kind":"header","schema":1}\n{"kind":"process","schema":99,"lost":0}\n')
    with pytest.raises(JournalError, match="schema 99 and this version reads up to 6: upgrade promptgrad"):
        run.Journal(path)


def test_a_cassette_of_0_1_is_replayed_and_may_be_added_to(tmp_path):
    path = tmp_path / "capitals.jsonl"
    shutil.copy(CAPITALS, path)
    with record(path, append=True):
        FunctionLM(lambda messages: RICH, name="g")([Message("user", (ImagePart(b"x", "image/png"),))])
    assert [line["schema"] for line in lines(path) if line["kind"] == "cassette"] == [1, 4]
    old = lines(CAPITALS)[2]
    with replay(path) as cassette:
        said = cassette.lm("gpt-4o-mini")(old["request"]["messages"])
        assert said.text == old["reply"]["text"]
        rich = cassette.lm("g")([Message("user", (ImagePart(b"x", "image/png"),))])
        assert rich.content == RICH.content
    with record(path, append=True):
        FunctionLM(lambda messages: "more", name="g")("more")
    assert len([line for line in lines(path) if line["kind"] == "cassette"]) == 2


def test_an_unknown_request_with_an_image_is_shown_without_its_bytes(tmp_path):
    image = ImagePart(bytes(9_000), "image/png")
    with record(tmp_path / "c.jsonl"):
        FunctionLM(lambda messages: "x", name="g")([Message("user", (TextPart("a"), image))])
    with pytest.raises(ReplayError) as caught, replay(tmp_path / "c.jsonl") as cassette:
        cassette.lm()([Message("user", (TextPart("b"), image))])
    assert "<image png, 9 kB>" in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_a_cache_of_0_1_is_read_and_goes_on_in_the_new_shape(tmp_path):
    path = tmp_path / "lm.db"
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE completion (key BLOB PRIMARY KEY, reply TEXT NOT NULL) WITHOUT ROWID")
    row = json.dumps(["Paris", "m", "length", 9, 2, 0.25, 0.5])
    database.execute("INSERT INTO completion VALUES (?, ?)", (bytes.fromhex(HI.digest("f")), row))
    database.execute("PRAGMA user_version=1")
    database.commit()
    database.close()
    lm = Cache(FunctionLM(unasked, name="f"), path)
    with track_usage() as usage:
        assert lm("hi") == Completion("Paris", model="m", finish_reason="length").as_cached()
    assert (usage.calls, usage.cached) == (0, 1)
    lm.close()
    new = Cache(FunctionLM(lambda messages: RICH, name="g"), path)
    new("hi")
    new.close()
    again = Cache(FunctionLM(unasked, name="g"), path)
    assert again("hi").content == RICH.content
    again.close()
    database = sqlite3.connect(path)
    assert database.execute("PRAGMA user_version").fetchone() == (3,)
    database.close()


def test_a_journal_and_a_cassette_with_images_in_the_replies_are_read(tmp_path):
    """Before version 5 and 4, the bytes of an image stood in each reply."""
    drawn = Completion((TextPart("x"), ImagePart(bytes(3_000), "image/png")), Usage(1, 1, 1), "m")
    lm = FunctionLM(unasked, name="f")
    call = {"kind": "call", "key": HI.digest("f"), "scope": "", "reply": drawn.to_dict(), "t": 1.0}
    path = tmp_path / "journal.jsonl"
    path.write_text('{"kind":"header","schema":2}\n' + json.dumps(call) + "\n")
    with run.Journal(path) as journal, run.active(journal=journal):
        assert lm("hi").content == drawn.content
        again = FunctionLM(lambda messages: drawn, name="g")
        assert (again("hi").content, again("you").content) == (drawn.content, drawn.content)
    assert path.read_text().count("AAAA" * 700) == 2  # the old one, and one for both new replies
    with run.Journal(path) as journal, run.active(journal=journal):
        assert FunctionLM(unasked, name="g")("you").content == drawn.content
    tape = tmp_path / "tape.jsonl"
    told = {"kind": "lm", "name": "f", "identity": "f", "adapter": "chat", "prices": None}
    line = {
        "kind": "call",
        "key": HI.digest("f"),
        "lm": 0,
        "request": HI.to_dict(),
        "turn": 0,
        "reply": drawn.to_dict(),
    }
    tape.write_text("\n".join(map(json.dumps, [{"kind": "cassette", "schema": 3}, told, line])) + "\n")
    with record(tape, append=True):
        looked = FunctionLM(lambda messages: drawn, name="g")
        looked([Message("user", (drawn.parts[1],))])
        looked("more")
    assert tape.read_text().count("AAAA" * 700) == 2  # the old one, and one for a request and two replies
    with replay(tape) as cassette:
        assert cassette.lm("f")("hi").content == drawn.content
        assert cassette.lm("g")("more").content == drawn.content
