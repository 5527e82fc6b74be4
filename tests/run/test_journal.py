import json
import os
import signal
import subprocess
import sys
import textwrap

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import promptgrad as pg
from promptgrad.errors import JournalError
from promptgrad.run import Journal
from tests.waiting import until


def reply(text, usd=0.001):
    return {"text": text, "usage": {"input_tokens": 3, "output_tokens": 2, "usd": usd, "seconds": 0.3}}


def fill(journal):
    journal.append("decision", step=0, score=0.5)
    journal.call("k1", "", reply("one"))
    journal.append("decision", step=1, score=0.75)
    journal.call("k2", "", reply("two"))
    journal.record("cell", "e1/0", score=1.0)


def test_events_come_back_as_written(tmp_path):
    with Journal(tmp_path / "deep" / "j.jsonl") as journal:
        fill(journal)
        journal.note("started", host="here")
        kinds = [event["kind"] for event in journal.events()]
    assert kinds == ["header", "decision", "call", "decision", "call", "cell", "started"]
    again = Journal(tmp_path / "deep" / "j.jsonl", readonly=True)
    assert again.reply("k2") == reply("two")
    assert again.reply("k3") is None
    assert again.paid == 2
    assert again.totals == (2, 10, 2_000_000_000, 0)
    assert list(again.events())[1]["score"] == 0.5


def test_every_event_is_in_the_file_at_once(tmp_path):
    journal = Journal(tmp_path / "j")
    journal.append("decision", step=0)
    assert b'"step":0' in (tmp_path / "j").read_bytes()


@given(cut=st.integers(min_value=0))
@settings(max_examples=60, deadline=None)
def test_a_file_cut_at_any_byte_opens_and_goes_on_to_the_same_canonical_journal(tmp_path_factory, cut):
    folder = tmp_path_factory.mktemp("cut")
    with Journal(folder / "whole") as journal:
        fill(journal)
        wanted = journal.canonical()
    data = (folder / "whole").read_bytes()
    (folder / "cut").write_bytes(data[: cut % (len(data) + 1)])
    with Journal(folder / "cut") as journal:
        fill(journal)
        assert journal.canonical() == wanted
        assert journal.digest() == Journal(folder / "whole", readonly=True).digest()
    for line in (folder / "cut").read_bytes().splitlines():
        json.loads(line)


def test_damage_before_the_last_line_is_told_and_nothing_is_cut(tmp_path):
    with Journal(tmp_path / "j") as journal:
        fill(journal)
    lines = (tmp_path / "j").read_bytes().splitlines(keepends=True)
    lines[2] = b"garbage\n"
    (tmp_path / "j").write_bytes(b"".join(lines))
    with pytest.raises(JournalError, match="damaged at byte"):
        Journal(tmp_path / "j")
    assert (tmp_path / "j").read_bytes() == b"".join(lines)


@given(place=st.integers(min_value=0), bit=st.integers(min_value=0, max_value=7))
@settings(max_examples=200, deadline=None)
def test_a_flipped_bit_anywhere_is_told_with_its_line(tmp_path_factory, place, bit):
    folder = tmp_path_factory.mktemp("flip")
    with Journal(folder / "j") as journal:
        fill(journal)
    data = bytearray((folder / "j").read_bytes())
    data[place % len(data)] ^= 1 << bit
    (folder / "j").write_bytes(data)
    for readonly in (False, True):
        with pytest.raises(JournalError, match=r"line \d+: .|is not a journal"):
            Journal(folder / "j", readonly=readonly)
    assert (folder / "j").read_bytes() == data


def test_line_ends_of_windows_are_read_and_what_else_changed_is_told(tmp_path):
    """As git or an editor makes them."""
    with Journal(tmp_path / "j") as journal:
        fill(journal)
        journal.append("end", text="one\r\ntwo")
        canonical = journal.canonical()
    data = (tmp_path / "j").read_bytes().replace(b"\n", b"\r\n")
    (tmp_path / "j").write_bytes(data)
    with Journal(tmp_path / "j") as journal:
        fill(journal)
        journal.append("end", text="one\r\ntwo")
        assert journal.canonical() == canonical
        journal.append("more")
    with Journal(tmp_path / "j", readonly=True) as journal:
        assert [event["kind"] for event in journal.canonical()].count("more") == 1
    (tmp_path / "j").write_bytes(data.replace(b"one", b"two"))
    with pytest.raises(JournalError, match="its checksum does not fit"):
        Journal(tmp_path / "j")


def test_a_line_that_changed_while_it_was_open_is_told(tmp_path):
    with Journal(tmp_path / "j") as journal:
        fill(journal)
        data = (tmp_path / "j").read_bytes()
        (tmp_path / "j").write_bytes(data.replace(b'"text":"one"', b'"text":"two"'))
        assert journal.reply("k2") == reply("two")
        with pytest.raises(JournalError, match="line 3: its checksum does not fit"):
            journal.reply("k1")
        with pytest.raises(JournalError, match="line 3"):
            journal.canonical()


def unsealed(path):
    """The lines of a journal as version 2 wrote them, without checksums."""
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    lines[0]["schema"] = 2
    return [json.dumps({k: v for k, v in line.items() if k != "#"}, separators=(",", ":")) for line in lines]


def test_a_journal_without_checksums_goes_on_with_them(tmp_path):
    with Journal(tmp_path / "j") as journal:
        fill(journal)
        digest = journal.digest()
    (tmp_path / "j").write_text("\n".join(unsealed(tmp_path / "j")) + "\n")
    with Journal(tmp_path / "j") as journal:
        assert journal.resumed
        fill(journal)
        assert journal.digest() == digest
        journal.call("k3", "", reply("three"))
    data = (tmp_path / "j").read_bytes()
    (tmp_path / "j").write_bytes(data.replace(b'"text":"three"', b'"text":"threw"'))
    with pytest.raises(JournalError, match="checksum"):
        Journal(tmp_path / "j")


@pytest.mark.parametrize(
    "line",
    [
        '{"kind":"call"}',
        '{"kind":"call","key":"k","scope":"","reply":"x"}',
        '{"kind":"call","key":["k"],"scope":"","reply":{}}',
        '{"kind":"call","key":"k","scope":"","reply":{"usage":[1]}}',
        '{"kind":"call","key":"k","scope":"","reply":{"usage":{"input_tokens":"x"}}}',
        '{"kind":"call","key":"k","scope":"","reply":{"usage":{"output_tokens":-5}}}',
        '{"kind":"call","key":"k","scope":"","reply":{"usage":{"usd":NaN}}}',
        '{"kind":"use","key":"k"}',
        '{"kind":"send"}',
        '{"kind":"fail","key":{}}',
        '{"kind":"scope","scope":"a"}',
        '{"kind":"scope","scope":"a","event":"shut"}',
        '{"kind":"process","schema":"2"}',
        '{"kind":"process"}',
        '{"kind":"cell","key":1,"scope":""}',
        '{"kind":"cell","scope":""}',
        '{"kind":"decision","seq":"0"}',
        '{"kind":"decision","seq":0,"t":"soon"}',
        '{"kind":"decision","seq":0,"t":1e999}',
        '{"kind":7}',
        "[]",
        '{"kind":"decision","seq":0,"x":' + "[" * 100_000 + "]" * 100_000 + "}",
        "garbage",
        "\x00",
    ],
)
def test_a_malformed_event_is_told_with_its_line_and_nothing_is_cut(tmp_path, line):
    text = '{"kind":"header","schema":2}\n{"kind":"started"}\n' + line + "\n"
    (tmp_path / "j").write_text(text)
    for readonly in (False, True):
        with pytest.raises(JournalError, match=r"line 3: .+"):
            Journal(tmp_path / "j", readonly=readonly)
    assert (tmp_path / "j").read_text() == text


def test_a_missing_ordered_event_is_damage(tmp_path):
    with Journal(tmp_path / "j") as journal:
        fill(journal)
    lines = (tmp_path / "j").read_bytes().splitlines(keepends=True)
    (tmp_path / "j").write_bytes(b"".join(line for line in lines if b'"seq":0' not in line))
    with pytest.raises(JournalError, match="event 0 is missing"):
        Journal(tmp_path / "j")


@pytest.mark.parametrize(
    "text", ["hello\n", '{"a": 1}\n', '{"kind": "decision"}\n', "hello\nworld\n", "hello", "{}", "\x00"]
)
def test_a_file_that_is_no_journal_is_left_alone(tmp_path, text):
    (tmp_path / "notes.txt").write_text(text)
    with pytest.raises(JournalError, match=r"is not a journal|damaged"):
        Journal(tmp_path / "notes.txt")
    assert (tmp_path / "notes.txt").read_text() == text


def test_a_newer_schema_is_refused(tmp_path):
    (tmp_path / "j").write_text('{"kind": "header", "schema": 99}\n')
    with pytest.raises(JournalError, match="upgrade"):
        Journal(tmp_path / "j")


def test_a_second_writer_is_refused_and_a_reader_is_not(tmp_path):
    first = Journal(tmp_path / "j")
    first.append("decision", step=0)
    with pytest.raises(JournalError, match="has a writer already"):
        Journal(tmp_path / "j")
    assert len(Journal(tmp_path / "j", readonly=True)) == 2
    code = f"from promptgrad.run import Journal; Journal({str(tmp_path / 'j')!r})"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "has a writer already" in other.stderr
    first.close()
    Journal(tmp_path / "j").close()


def test_a_reader_sees_no_torn_line_and_cuts_nothing(tmp_path):
    with Journal(tmp_path / "j") as journal:
        journal.append("decision", step=0)
    with (tmp_path / "j").open("ab") as file:
        file.write(b'{"kind":"decis')
    size = (tmp_path / "j").stat().st_size
    reader = Journal(tmp_path / "j", readonly=True)
    assert [event["kind"] for event in reader.events()] == ["header", "decision", "closed"]
    assert (tmp_path / "j").stat().st_size == size
    with pytest.raises(JournalError, match="reading only"):
        reader.append("decision", step=1)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_neither_writes_nor_keeps_the_lock(tmp_path):
    journal = Journal(tmp_path / "j")
    ready, go = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        try:
            journal.append("decision", step=0)
        except JournalError:
            os.write(ready[1], b"refused")
        os.read(go[0], 1)
        os._exit(0)
    try:
        assert os.read(ready[0], 7) == b"refused"
        journal.close()
        Journal(tmp_path / "j").close()
    finally:
        os.write(go[1], b"x")
        os.waitpid(child, 0)


def test_a_resumed_run_repeats_its_events_and_then_goes_on(tmp_path):
    with Journal(tmp_path / "j") as journal:
        journal.append("decision", step=0, score=0.5, seconds=1.0)
        assert not journal.replaying
    with Journal(tmp_path / "j") as journal:
        assert journal.resumed
        assert journal.replaying
        journal.append("decision", step=0, score=0.5, seconds=7.0)
        assert not journal.replaying
        journal.append("decision", step=1, score=0.75, seconds=1.0)
        assert [event["step"] for event in journal.canonical()] == [0, 1]


def test_a_resumed_run_that_takes_another_way_is_told(tmp_path):
    with Journal(tmp_path / "j") as journal:
        journal.append("decision", chosen="a", score=0.5)
    with (
        Journal(tmp_path / "j") as journal,
        pytest.raises(JournalError, match="diverges from the recorded one at event 0") as caught,
    ):
        journal.append("decision", chosen="b", score=0.5)
    assert '"chosen": "a"' in str(caught.value)
    assert '"chosen": "b"' in str(caught.value)


def test_a_run_that_another_version_began_diverges_because_of_that(tmp_path, monkeypatch):
    with monkeypatch.context() as earlier:
        earlier.setattr(pg, "__version__", "0.1.0")
        with Journal(tmp_path / "j") as journal:
            journal.append("run", source="a")
    with Journal(tmp_path / "j") as journal, pytest.raises(JournalError, match=r"at event 0 \(run\)") as caught:
        journal.append("run", source="b")
    assert f"promptgrad 0.1.0 began the run, and this is {pg.__version__}" in str(caught.value)
    assert "resume it with that version, or start a new run in another folder" in str(caught.value)
    assert "seed" not in str(caught.value)


def test_only_what_differs_is_told(tmp_path):
    with Journal(tmp_path / "j") as journal:
        journal.append("run", program="x" * 500, settings={"steps": 3, "tip": "y" * 500}, seed=1)
    with Journal(tmp_path / "j") as journal, pytest.raises(JournalError) as caught:
        journal.append("run", program="x" * 500, settings={"steps": 4, "tip": "y" * 500}, metric="m")
    assert (
        'event 0 (run): recorded was {"seed": 1, "settings": {"steps": 3}}, '
        'now it is {"metric": "m", "settings": {"steps": 4}}. What changed: '
        "the metric's code, or a value that it closes over, the seed, the settings: resume with" in str(caught.value)
    )


def test_a_run_of_the_same_things_that_takes_another_way_is_told_what_may_draw(tmp_path):
    with Journal(tmp_path / "j") as journal:
        journal.append("run", program="x")
        journal.append("evaluation", mean=0.5)
    with Journal(tmp_path / "j") as journal:
        journal.append("run", program="x")
        with pytest.raises(JournalError, match=r"at event 1 \(evaluation\).*that draws at random, keeps a state"):
            journal.append("evaluation", mean=0.25)


def test_sets_are_written_as_sorted_lists():
    letters = "qwertyuiopasdfghjklzxcvbnm"
    with Journal() as journal:
        journal.append("run", chosen={*letters}, fixed=frozenset(letters))
        event = journal.canonical()[0]
    assert (event["chosen"], event["fixed"]) == (sorted(letters), sorted(letters))


def test_keyed_events_are_kept_once_and_sorted(tmp_path):
    with Journal(tmp_path / "j") as journal:
        assert journal.record("cell", "b", score=1)
        assert journal.record("cell", "a", score=0)
        assert not journal.record("cell", "b", score=1)
    with Journal(tmp_path / "j") as journal:
        assert not journal.record("cell", "a", score=0)
        assert [event["key"] for event in journal.canonical()] == ["a", "b"]


def test_canonical_has_no_times_and_leaves_unfinished_scopes_apart():
    journal = Journal()
    journal.mark("trial/1", "open", 1)
    journal.call("k1", "trial/1", reply("one"))
    journal.mark("trial/1/inner", "open", 1)
    journal.call("k2", "trial/1/inner", reply("two"))
    journal.mark("trial/1/inner", "close", 1)
    assert journal.canonical() == []
    assert [event["key"] for event in journal.unfinished()] == ["k1", "k2"]
    journal.mark("trial/1", "close", 1)
    calls = journal.canonical()
    assert [event["key"] for event in calls] == ["k1", "k2"]
    assert calls[0]["reply"]["usage"] == {"input_tokens": 3, "output_tokens": 2, "usd": 0.001}
    assert "t" not in calls[0]


def test_secrets_are_not_written(tmp_path):
    with Journal(tmp_path / "j") as journal:
        journal.append(
            "run", lm={"name": "m", "api_key": "sk-123", "Authorization": "Bearer sk-123"}, password="sk-123"
        )
    text = (tmp_path / "j").read_text()
    assert "sk-123" not in text
    assert '"name":"m"' in text


def test_any_text_round_trips(tmp_path):
    texts = ["ünï", "\ud800 lone", "line\nbreak\r\u2028", "\x00", "😀"]
    with Journal(tmp_path / "j") as journal:
        for number, text in enumerate(texts):
            journal.call(str(number), "", reply(text))
    again = Journal(tmp_path / "j", readonly=True)
    assert [again.reply(str(number))["text"] for number in range(len(texts))] == texts


def test_numbers_that_json_cannot_write_are_words():
    journal = Journal()
    journal.append("decision", low=float("-inf"), score=float("nan"), options=(1, {2}), n=None)
    event = journal.canonical()[0]
    assert event["low"] == "-inf"
    assert event["score"] == "nan"
    assert event["options"] == [1, [2]]


def test_own_words_of_the_journal_are_refused():
    journal = Journal()
    with pytest.raises(ValueError, match="'call' is a kind"):
        journal.append("call")
    with pytest.raises(ValueError, match="'seq' is a field"):
        journal.append("decision", seq=1)
    with pytest.raises(TypeError, match="object is none of these"):
        journal.append("decision", what=object())


def test_a_closed_journal_still_reads(tmp_path):
    journal = Journal(tmp_path / "j")
    journal.call("k", "", reply("one"))
    journal.close()
    assert journal.reply("k") == reply("one")
    with pytest.raises(JournalError, match="closed"):
        journal.append("decision")


def test_elapsed_goes_on_where_the_last_process_stopped(tmp_path):
    (tmp_path / "j").write_text('{"kind":"header","schema":1}\n{"kind":"decision","seq":0,"t":100.0}\n')
    assert 100.0 <= Journal(tmp_path / "j").elapsed < 110.0


def test_a_full_disk_is_told_and_leaves_no_torn_line(tmp_path, monkeypatch):
    journal = Journal(tmp_path / "j")
    write = os.write

    def half(fd, data):
        write(fd, bytes(data)[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", half)
    with pytest.raises(JournalError, match="No space left"):
        journal.append("decision", step=0)
    monkeypatch.undo()
    journal.append("decision", step=0)
    assert [event["kind"] for event in journal.events()] == ["header", "decision"]


@pytest.mark.parametrize("whole", [True, False])
def test_a_write_interrupted_by_ctrl_c_is_kept_whole_or_cut(tmp_path, monkeypatch, whole):
    journal = Journal(tmp_path / "j")
    write = os.write

    def interrupted(fd, data):
        write(fd, bytes(data) if whole else bytes(data)[:10])
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        journal.append("decision", step=0)
    monkeypatch.undo()
    journal.append("stopped")
    journal.close()
    events = [event["kind"] for event in Journal(tmp_path / "j", readonly=True).events()]
    assert events == ["header", *(["decision"] if whole else []), "stopped", "closed"]


WRITER = """
import sys
from promptgrad.run import Journal
with Journal(sys.argv[1]) as journal:
    print("ready", flush=True)
    for number in range(10**6):
        if journal.has(str(number)):
            continue
        journal.sending(str(number))
        journal.call(str(number), "", {"text": "x" * (number % 977), "usage": {"input_tokens": 1}})
"""


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_kill_9_loses_at_most_the_call_in_flight(tmp_path):
    path = tmp_path / "j"
    lost = 0
    for round_ in range(3):
        child = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE)
        child.stdout.readline()
        grown = path.stat().st_size + 40_000 * (round_ + 1)
        until(lambda grown=grown, child=child: path.stat().st_size >= grown or child.poll() is not None)
        assert child.poll() is None
        child.send_signal(signal.SIGKILL)
        child.wait(timeout=600)
        child.stdout.close()
        reader = Journal(path, readonly=True)
        sent = {event["key"] for event in reader.events() if event["kind"] == "send"}
        assert len(sent) - reader.paid <= 1
        lost += len(sent) - reader.paid
    with Journal(path) as journal:
        assert journal.lost == lost
        assert journal.paid > 100


def test_memory_stays_flat_in_file_mode(tmp_path):
    code = textwrap.dedent(
        """
        import resource, sys
        from promptgrad.run import Journal
        journal = Journal(sys.argv[1])
        journal.call("first", "", {"text": "x"})
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for number in range(3000):
            journal.call(str(number), "", {"text": "x" * 10_000})
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
        """
    )
    out = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "j")], capture_output=True, text=True, check=True
    ).stdout
    assert int(out) < 10_000  # kB; the replies themselves are 30 MB


def drawing(data):
    return {"content": [{"type": "text", "text": "x"}, {"type": "image", "data": data, "media_type": "image/png"}]}


@pytest.mark.parametrize("in_memory", [True, False])
def test_an_image_of_several_replies_is_written_once(tmp_path, in_memory):
    path = None if in_memory else tmp_path / "j"
    large, small = "QUJD" * 600, "QUJD"
    with Journal(path) as journal:
        for number in range(3):
            journal.call(str(number), "", drawing(large))
        journal.call("small", "", drawing(small))
        journal.call("text", "", {"text": large})
        kinds = [event["kind"] for event in journal.events()]
        assert kinds == ["header", "blob", "call", "call", "call", "call", "call"]
        assert journal.reply("2") == drawing(large)
        assert (journal.reply("small"), journal.reply("text")) == (drawing(small), {"text": large})
        assert {event["kind"] for event in journal.canonical()} == {"call"}
        before = journal.canonical()
    if in_memory:
        return
    with Journal(path) as journal:
        assert journal.reply("0") == drawing(large)
        journal.call("more", "", drawing(large))
        assert sum(event["kind"] == "blob" for event in journal.events()) == 1
        assert [event for event in journal.canonical() if event["key"] != "more"] == before
    assert path.read_text().count(large) == 2  # once as an image, once as a text


def test_an_image_whose_bytes_are_not_there_is_a_damaged_reply(tmp_path):
    path = tmp_path / "j"
    with Journal(path) as journal:
        journal.call("0", "", drawing("QUJD" * 600))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(line for line in lines if b'"blob","key"' not in line))
    with Journal(path) as journal:
        assert "data" not in journal.reply("0")["content"][1]
