"""A run of a program with images in inputs, demos and replies: killed, resumed, and the same in the end."""

import base64
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import promptgrad as pg
from promptgrad.run import Journal
from promptgrad.testing import LoopbackLM, Reply
from tests.made_files import png, read_png
from tests.train.seeing_run import COLOURS, Sketch, examples, run

ROOT = Path(__file__).resolve().parents[2]
NOISE = bytes(range(256)) * 8


def colours(message):
    """The colours of the images of a message, whose bytes are decoded."""
    for part in [] if isinstance(message["content"], str) else message["content"]:
        if part["type"] == "image_url":
            data = base64.b64decode(part["image_url"]["url"].partition(";base64,")[2], validate=True)
            yield next(name for name, colour in COLOURS.items() if colour == read_png(data)[2])


def sees(messages):
    """Draws, and names what it sees; without a demo it knows red alone."""
    seen = [*colours(messages[-1])]
    if len(seen) == 1:
        drawn = base64.b64encode(png(20, 20, COLOURS[seen[0]], comment=NOISE)).decode()
        return Reply(more={"images": [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{drawn}"}}]})
    assert len(set(seen)) == 1
    taught = any(True for message in messages[:-1] for _ in colours(message))
    named = seen[0] if taught or seen[0] == "red" else "dark"
    return f"[[ ## answer ## ]]\n{named}\n\n[[ ## completed ## ]]"


def begin(server, folder):
    code = "from tests.train.seeing_run import main; main()"
    command = [sys.executable, "-c", code, server.url, str(folder), str(folder.parent / "told.json")]
    return subprocess.Popen(command, cwd=ROOT)


def facts(folder):
    with Journal(folder / "journal.jsonl", readonly=True) as journal:
        return [*journal.events()], journal.canonical()


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_it_ends_as_one_that_never_was(tmp_path):
    with LoopbackLM(sees, record=False) as server:
        told = run(server.url, tmp_path / "whole")
        whole = server.received
        child = begin(server, tmp_path / "killed")
        server.wait_for(whole + 20)
        child.send_signal(signal.SIGKILL)
        child.wait(timeout=600)
        assert begin(server, tmp_path / "killed").wait(timeout=600) == 0
    again = json.loads((tmp_path / "told.json").read_text())
    assert (told["outcome"], again["outcome"]) == ("shipped", "shipped")
    assert (again["calls"], again["lost"] > 0) == (told["calls"], True)
    assert server.received - whole <= whole + again["lost"]
    events, canonical = facts(tmp_path / "killed")
    paid = set()
    for event in events:  # nothing is sent after its reply is in the journal
        paid |= {event["key"]} if event["kind"] == "call" else set()
        assert event["kind"] != "send" or event["key"] not in paid
    assert canonical == facts(tmp_path / "whole")[1]
    assert (tmp_path / "killed" / "state.json").read_text() == (tmp_path / "whole" / "state.json").read_text()
    blobs = Counter(event["key"] for event in events if event["kind"] == "blob")
    assert set(blobs.values()) == {1}  # each sketch once, however many calls drew it
    assert len(blobs) == 3
    program = Sketch()
    program.load_state_dict(pg.load(tmp_path / "killed" / "state.json"))
    (demo,) = program.name.demos.data
    assert {read_png(demo[name].data)[2] for name in ("picture", "sketch")} == {COLOURS[demo.answer]}


def test_a_finished_run_is_resumed_without_a_request(tmp_path):
    with LoopbackLM(sees, record=False) as server:
        run(server.url, tmp_path)
        before = server.received
        run(server.url, tmp_path)
        assert server.received == before
    assert pg.evaluate(lambda picture: "red", examples(30, 3), pg.metrics.exact_match).score == pytest.approx(1 / 3)
