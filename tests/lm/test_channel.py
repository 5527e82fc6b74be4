"""The chain of answerers: who stands before whom, and that nobody else knows them."""

import ast
import itertools
from pathlib import Path

import pytest

from promptgrad import lm, run
from promptgrad.errors import RateLimitError
from promptgrad.lm import _channel as channel
from promptgrad.testing import LoopbackLM, Status

ROOM = Path(lm.__file__).parent


def links():
    """Names of the links, here and now, the first one first."""
    (link, _), found = channel.answerer(), []
    while link is not None:
        found.append(type(link).__name__)
        link = getattr(link, "next", None)
    return found


@pytest.fixture
def numbers():
    count = itertools.count(1)
    return lm.FunctionLM(lambda messages: f"{messages[-1].content} {next(count)}", name="numbers")


def test_each_block_puts_its_link_in_front_and_a_run_stands_before_all(tmp_path, numbers):
    assert links() == ["_Direct"]
    with lm.record(tmp_path / "one"):
        numbers("a")
        assert links() == ["Recorded", "_Direct"]
        with run.active():
            assert links() == ["Journalled", "Recorded", "_Direct"]
            with lm.replay(tmp_path / "one"):
                assert links() == ["Journalled", "Replayed", "Recorded", "_Direct"]
        assert links() == ["Recorded", "_Direct"]
    assert links() == ["_Direct"]


@pytest.mark.parametrize("name", ["_transport", "_cache", "_retry", "_configure", "_limit", "_layer", "_function"])
def test_transports_layers_and_settings_know_no_cassette_and_no_run(name):
    names = {
        word
        for node in ast.walk(ast.parse((ROOM / f"{name}.py").read_text()))
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for word in [getattr(node, "module", "") or "", *(alias.name for alias in node.names)]
    }
    assert {
        word for word in names if any(part in word for part in ("cassette", "replay", "run", "Journalled"))
    } == set()


def test_what_a_replay_answers_can_be_recorded(tmp_path, numbers):
    with lm.record(tmp_path / "old"):
        numbers("a"), numbers("b")
    with lm.replay(tmp_path / "old"), lm.record(tmp_path / "new"):
        assert numbers("b").text == "b 2"
    with lm.replay(tmp_path / "new") as cassette:
        assert len(cassette) == 1
        assert numbers("b").text == "b 2"


def test_what_is_not_on_record_can_be_recorded_beside_a_replay(tmp_path, numbers):
    with lm.record(tmp_path / "old"):
        numbers("a")
    with lm.record(tmp_path / "new") as new, lm.replay(tmp_path / "old", strict=False):
        assert (numbers("a").text, numbers("b").text) == ("a 1", "b 2")
    assert len(new) == 1
    with lm.replay(tmp_path / "new"):
        assert numbers("b").text == "b 2"


def test_what_a_model_really_refuses_in_a_replay_is_tried_again(tmp_path, numbers):
    waits = []

    async def no_sleep(seconds):
        waits.append(seconds)

    with lm.record(tmp_path / "old"):
        numbers("a")
    with LoopbackLM() as server, lm.replay(tmp_path / "old", strict=False):
        model = lm.Retry(lm.HTTP("m", server.url, "key"), attempts=2, sleep=no_sleep)
        server.script(Status(429), "yes")
        assert model("b").text == "yes"
        model.close()
    assert len(waits) == 1


def test_an_error_on_record_says_that_it_is_replayed(tmp_path):
    def refuse(messages):
        raise RateLimitError("too fast", status=429)

    model = lm.Retry(lm.FunctionLM(refuse, name="refusing"), attempts=1)
    with lm.record(tmp_path / "old"), pytest.raises(RateLimitError) as first:
        model("a")
    with lm.replay(tmp_path / "old"), pytest.raises(RateLimitError) as again:
        model("a")
    assert (first.value.replayed, again.value.replayed) == (False, True)


def test_a_cache_in_a_replay_remembers_for_the_length_of_the_block(tmp_path, numbers):
    cached = lm.Cache(numbers)
    with lm.record(tmp_path / "old"):
        cached("a")
    for _ in range(2):
        with lm.replay(tmp_path / "old") as cassette, lm.track_usage() as usage:
            assert [cached("a").cached, cached("a").cached] == [False, True]
            assert cassette.unused == ()
        assert (usage.calls, usage.cached) == (1, 1)
    assert cached("a").text == "a 1"
