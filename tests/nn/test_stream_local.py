"""Programs on a local model, streamed: tokens of several calls in one batch, and characters of several tokens."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any, Literal

import pytest

import promptgrad as pg
from promptgrad import lm, nn

pytest.importorskip("torch")
pytest.importorskip("llguidance")

TYPES = {"Kind": Literal["ham", "größer", "日本語", "👍🏽 ok"]}


@pytest.fixture(scope="module")
def wide() -> Any:
    """A model of random words, whose tokens are pieces of characters and of several words; held to forms."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
    try:
        import random_schemas
    finally:
        sys.path.pop(0)
    tokenizer = random_schemas.byte_tokenizer(500)
    made = lm.Local(random_schemas.byte_model(tokenizer), tokenizer, constrain=True, temperature=1.0, threads=1)
    yield made
    made.close()


def told(events: list[Any]) -> tuple[dict[Any, str], dict[Any, Any], Counter[Any]]:
    """Texts, values and numbers of deltas, by call and field."""
    texts: dict[Any, str] = {}
    values: dict[Any, Any] = {}
    deltas: Counter[Any] = Counter()
    for event in events:
        if isinstance(event, nn.FieldDelta):
            key = (event.path, event.call, event.field)
            assert key not in values
            texts[key] = texts.get(key, "") + event.delta
            deltas[key] += 1
        elif isinstance(event, nn.FieldFinished):
            values[event.path, event.call, event.field] = event.value
        assert not isinstance(event, nn.Voided)
    return texts, values, deltas


@pytest.mark.parametrize("adapter", ["chat", "json", "xml", "compact"])
def test_the_tokens_of_a_field_are_its_text(wide: lm.Local, adapter: str) -> None:
    step = nn.Predict("text -> tags: list[Kind], kind: Kind", types=TYPES, adapter=adapter, max_tokens=200, retries=0)
    finished = 0
    for seed in range(3):
        try:
            events = list(step.stream_sync(text="a", lm=wide, config={"seed": seed}))
        except pg.errors.CutReplyError:
            continue
        finished += 1
        _, values, _ = told(events)
        assert values == {("", 0, "tags"): events[-1].tags, ("", 0, "kind"): events[-1].kind}
        parts = [event.value for event in events if isinstance(event, nn.PartialValue)]
        assert all(part == events[-1].tags[: len(part)] for part in parts)
        assert "\ufffd" not in str(events)
    assert finished >= 1


class Sides(nn.Module):
    """Three calls side by side, and one on their replies."""

    def __init__(self) -> None:
        super().__init__()
        self.side = nn.Predict("text, number: int -> note", adapter=pg.adapters.template("{text} {number}"))
        self.judge = nn.Predict("notes: list[str] -> note", adapter=pg.adapters.template("{notes}"))

    def forward(self, text: str) -> Any:
        sides = self.side.map([{"text": text, "number": number} for number in range(3)])
        return self.judge(notes=[side.note for side in sides])


def test_calls_of_one_batch_are_told_apart_token_by_token(wide: lm.Local) -> None:
    program = Sides().to(lm.Local(wide.model, wide.tokenizer, constrain=False, temperature=1.0, threads=1, seed=1))
    for module in (program.side, program.judge):
        module.options.update(max_tokens=40)
        module.allow_cut = True
    with pytest.warns(UserWarning, match="ran out of tokens"):
        events = list(program.stream_sync(text="go on"))
    texts, values, deltas = told(events)
    begun = [event.path for event in events if isinstance(event, nn.CallBegun)]
    assert begun == ["side", "side", "side", "judge"]
    assert values == {**texts, ("judge", 3, "note"): events[-1].note}
    assert {key[:2] for key in values} == {("side", 0), ("side", 1), ("side", 2), ("judge", 3)}
    assert min(deltas.values()) > 5  # the reply itself is the value: each token is a delta


class OneByOne(lm.Transport):
    """Gives a text to the listener as a local model's feed does, some tokens at a time."""

    in_place = True

    def __init__(self, local: lm.Local, text: str, step: int) -> None:
        super().__init__("tokens")
        self.local, self.reply, self.step = local, text, step

    async def _send(self, request: lm.Request, key: str) -> lm.Completion:
        from promptgrad.lm._stream import TokenFeed

        engine = self.local._load()
        ids = self.local.tokenizer(self.reply, add_special_tokens=False)["input_ids"]
        assert request.listener is not None
        feed = TokenFeed(request.listener, engine.decode, ("STOP",), None)
        for end in range(self.step, len(ids) + self.step, self.step):
            feed(ids[:end])
        feed.finish(self.reply)
        return lm.Completion(self.reply, lm.Usage(1, 1, len(ids)))


@pytest.mark.parametrize("tokens", [1, 2, 3, 7, 1_000])
@pytest.mark.parametrize("adapter", ["chat", "json", "xml", "compact"])
def test_any_number_of_tokens_may_come_at_once(wide: lm.Local, adapter: str, tokens: int) -> None:
    step = nn.Predict("text -> why, tags: list[str], note", adapter=adapter)
    wanted = {"why": "größer als 日本語 👍🏽\n\nS TO P", "tags": ["é", "\U0001d518"], "note": "so.\nAnd STO on"}
    reply = step.adapter.format(step.signature).assistant(wanted)
    events = list(step.stream_sync(text="a", lm=OneByOne(wide, reply, tokens)))
    texts, values, deltas = told(events)
    assert values == {("", 0, name): value for name, value in wanted.items()}
    assert texts == {("", 0, name): wanted[name] for name in ("why", "note")}
    if tokens == 1:
        assert deltas["", 0, "why"] > 5
