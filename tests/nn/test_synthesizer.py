"""`Synthesizer`: rows that fit, differ, are agreed with, and say where they come from."""

import json
import random
from typing import Literal

import pytest

import promptgrad as pg
from promptgrad import lm, nn
from promptgrad.errors import DataError, LMConnectionError, SignatureError
from promptgrad.testing import Fields

SEEDS = [
    {"text": "I lost my card yesterday in the city", "kind": "card", "urgent": True},
    {"text": "What is the rate for dollars today?", "kind": "rate", "urgent": False},
]


WORDS = [
    "loan",
    "house",
    "river",
    "stone",
    "paper",
    "winter",
    "yellow",
    "dance",
    "bridge",
    "candle",
    "forest",
    "engine",
    "marble",
    "pocket",
    "silver",
]


class Sort(pg.Signature):
    """Sort a question to a bank."""

    text: str = pg.Input()
    kind: Literal["card", "rate", "other"] = pg.Output()
    urgent: bool = pg.Output()


class Writer:
    """Writes rows of its own for each aspect, and notes what it was asked."""

    def __init__(self, rows=None):
        self.rows = rows
        self.asked = []

    def examples(self, inputs):
        self.asked.append(inputs)
        if self.rows is not None:
            return json.dumps(self.rows)
        words = random.Random(len(self.asked))
        made = [
            {"text": " ".join(words.choices(WORDS, k=9)), "kind": "other", "urgent": False}
            for _ in range(int(inputs["count"]))
        ]
        return json.dumps(made)

    def lm(self):
        return lm.FunctionLM(Fields(aspects='["loans", "fees", "loans"]', new_examples=self.examples), name="writer")


def test_rows_cover_the_aspects_and_say_how_they_were_made():
    writer = Writer()
    made = nn.Synthesizer(Sort, lm=writer.lm(), difficulty=["easy", "hard"], batch=3)(SEEDS, n=12)
    assert len(made) == 12
    assert made.aspects == ("loans", "fees")
    assert {(row.synthetic["aspect"], row.synthetic["difficulty"]) for row in made} == {
        (aspect, level) for aspect in ("loans", "fees") for level in ("easy", "hard")
    }
    assert made[0].synthetic["lm"] == "writer"
    assert made[0].inputs().keys() == {"text"}
    assert all(nn.is_synthetic(row) and row.urgent is False for row in made)
    assert len(writer.asked) == 4
    assert "I lost my card" in writer.asked[0]["examples"]
    assert "output `kind`: one of" in writer.asked[0]["interface"]


def test_a_few_examples_are_of_all_levels_and_of_many_aspects():
    made = nn.Synthesizer(Sort, lm=Writer().lm(), aspects=["a", "b", "c"], batch=5)(SEEDS, n=15)
    assert {row.synthetic["difficulty"] for row in made} == {"easy", "typical", "hard"}
    assert {row.synthetic["aspect"] for row in made} == {"a", "b", "c"}
    more = nn.Synthesizer(Sort, lm=Writer().lm(), aspects=["a", "b", "c"], batch=1)(SEEDS, n=9)
    assert len({(row.synthetic["aspect"], row.synthetic["difficulty"]) for row in more}) == 9


def test_a_label_of_the_name_is_no_mark():
    assert not nn.is_synthetic(pg.Example(text="a", synthetic=True))
    with pytest.raises(SignatureError, match="'synthetic' is where an example says how it was made"):
        nn.Synthesizer("text -> synthetic: bool")


def test_what_does_not_fit_or_repeats_is_dropped_with_its_reason():
    good = {"text": "How do I open an account for my son?", "kind": "other", "urgent": False}
    rows = [
        good,
        {**good, "text": "How do I open an account for my son"},
        {**good, "text": SEEDS[0]["text"].upper()},
        {**good, "text": "Which kind?", "kind": "loan"},
        {"text": "no labels"},
        {**good, "text": "  "},
    ]
    made = nn.Synthesizer(Sort, lm=Writer(rows).lm(), aspects=["one"], difficulty="easy", batch=6)(SEEDS, n=3)
    assert [row.text for row in made] == [good["text"]]
    # a second round brings the same again, and is the last
    assert made.dropped == {"repeats another": 2 + 3, "does not fit a field": 2, "lacks a field": 2, "is empty": 2}
    assert "dropped: " in repr(made)


def test_a_teacher_or_a_judge_filters():
    teacher = nn.Predict(Sort).to(
        lm.FunctionLM(Fields(kind="other", urgent=lambda i: str("z" in i["text"]).lower()), name="t")
    )
    rows = [
        {"text": "a loan for a house with two floors", "kind": "other", "urgent": False},
        {"text": "the fee was charged thrice: zero left!", "kind": "other", "urgent": False},
    ]
    writer = nn.Synthesizer(Sort, lm=Writer(rows).lm(), aspects=["one"], difficulty="easy", batch=2)
    assert [row.text for row in writer([], n=2, teacher=teacher)] == [rows[0]["text"]]
    judged = writer([], n=2, metric=lambda example, output: "fee" in example.text and output.kind == "other")
    assert [row.text for row in judged] == [rows[1]["text"]]
    assert judged.dropped["not agreed with"] >= 1


def test_failures_of_single_calls_are_counted_and_of_all_raised():
    calls = []

    def sometimes(messages):
        calls.append(1)
        if len(calls) == 1:
            raise LMConnectionError("gone")
        return Fields(
            new_examples=json.dumps(
                [{"text": f"unique words {'abcdefgh'[len(calls)] * 9}", "kind": "other", "urgent": True}]
            )
        )(messages)

    made = nn.Synthesizer(Sort, lm=lm.FunctionLM(sometimes, name="s"), aspects=["x", "y"], difficulty="easy", batch=1)(
        [], n=2
    )
    assert made.dropped["the writer failed"] == 1
    assert len(made) >= 1

    def never(messages):
        raise LMConnectionError("gone")

    with pytest.raises(LMConnectionError):
        nn.Synthesizer(Sort, lm=lm.FunctionLM(never, name="n"), aspects=["x"])([], n=2)


def test_what_is_to_be_avoided_is_neither_shown_nor_written():
    writer = Writer([{"text": "which fee is due for a loan abroad", "kind": "other", "urgent": False}])
    held = [{"text": "Which fee is due for a loan abroad?"}]
    made = nn.Synthesizer(Sort, lm=writer.lm(), aspects=["one"], difficulty="easy", batch=1)(SEEDS, n=1, avoid=held)
    assert (len(made), made.dropped) == (0, {"is to be avoided": 1})
    assert not any("fee" in inputs["examples"] + inputs["written"] for inputs in writer.asked)


@pytest.mark.parametrize(
    ("aspects", "levels", "batch", "n"), [(1, 1, 5, 23), (4, 1, 1, 5), (6, 3, 5, 9), (2, 2, 3, 40)]
)
def test_the_calls_are_bounded_by_what_it_says(aspects, levels, batch, n):
    names = json.dumps([f"aspect {number}" for number in range(aspects)])
    asked = []

    def answer(messages):
        asked.append(messages)
        words = json.dumps(
            [{"text": "w" * (len(asked) * 9), "kind": "loan" if len(asked) % 9 else "other", "urgent": True}]
        )
        return Fields(aspects=names, new_examples=words)(messages)

    made = nn.Synthesizer(
        Sort, lm=lm.FunctionLM(answer, name="w"), aspects=aspects, difficulty=["x"] * levels, batch=batch
    )
    made(SEEDS, n=n)
    assert 2 <= len(asked) <= made.most_calls(n) == 1 + 3 * -(-n // batch)


def test_what_it_takes_is_checked():
    with pytest.raises(ValueError, match="batch and aspects are at least 1"):
        nn.Synthesizer(Sort, batch=0)
    writer = nn.Synthesizer(Sort, lm=Writer().lm())
    with pytest.raises(DataError, match="seed 0 lacks 'urgent'"):
        writer([{"text": "x", "kind": "card"}])
    with pytest.raises(ValueError, match="n is at least 1"):
        writer([], n=0)
