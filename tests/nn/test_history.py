"""The history is bounded by calls and by bytes."""

import pytest

import promptgrad as pg
from promptgrad import nn
from promptgrad.lm import FunctionLM


@pytest.fixture
def qa():
    yield nn.Predict("question -> answer").to(FunctionLM(lambda messages: "[[ ## answer ## ]]\nx"))
    nn.keep_history()


def questions(history):
    return [call.request.tail[0].content for call in history]


def test_it_is_bounded_by_calls(qa):
    nn.keep_history(3)
    for number in range(5):
        qa(question=f"number {number}")
    kept = questions(pg.inspect_history(10))
    assert ["number 2" in kept[0], "number 4" in kept[2], len(kept)] == [True, True, 3]
    nn.keep_history(1)
    assert len(pg.inspect_history(10)) == 1


def test_it_is_bounded_by_bytes(qa):
    nn.keep_history(0)
    nn.keep_history(100, max_bytes=40_000)
    for number in range(5):
        qa(question=f"{number}" * 12_000)
    assert 2 <= len(pg.inspect_history(10)) <= 3
    qa(question="x" * 50_000)  # more than there is room for
    assert len(pg.inspect_history(10)) == 0
    qa(question="short")
    assert len(pg.inspect_history(10)) == 1


def test_images_count_with_their_data(qa):
    image = pg.lm.ImagePart(b"\x89PNG" + bytes(30_000), "image/png")
    assert pg.lm.Request.of([pg.lm.Message("user", (image,))]).nbytes > 30_000


def test_none_is_kept(qa):
    nn.keep_history(0)
    qa(question="a secret")
    assert len(pg.inspect_history(10)) == 0
    with pytest.raises(ValueError, match="at least 0"):
        nn.keep_history(-1)
