"""Arms: what they make of a candidate, and how what they paid decides which is pulled next."""

import pytest

from promptgrad import aio, lm, nn, run
from promptgrad.data import Example
from promptgrad.search import (
    Arm,
    Attempts,
    ChoiceArm,
    DemosArm,
    Edit,
    MergeArm,
    Rewriter,
    Session,
    TextArm,
    meet,
)


class Word(nn.Module):
    """Spell a word, in a tone that is a choice."""

    def __init__(self):
        super().__init__()
        self.spell = nn.Predict("word -> answer", instruction="Copy it.")
        self.tone = nn.Parameter("flat", "choice", options=("flat", "glad", "sad")).requires_grad_()

    def forward(self, word):
        return self.spell(word=word)


def rows(count, start=0):
    words = [f"word{number}x" for number in range(start, start + count)]
    return [Example(word=word, answer=word[::-1]).with_inputs("word") for word in words]


def answer(messages):
    """Reverse if told so, else copy; words that end in "9x" come out right in any case."""
    word = messages[-1]["content"].split("\n")[1]
    right = "everse" in messages[0]["content"].split("\n\nYou are given")[0] or "9x" in word
    return f"[[ ## answer ## ]]\n{word[::-1] if right else word}\n\n[[ ## completed ## ]]"


def metric(example, output):
    return float(output.answer == example.answer)


@pytest.fixture
def make_session():
    """Make a session of a program, in whose run the test is."""
    journal = run.Journal()
    ledger = run.Ledger(run.Budget(), journal)

    def make(model):
        return Session(
            model=model.to(lm.FunctionLM(answer, name="speller")),
            train=rows(12),
            val=rows(40, 100),
            metric=metric,
            seed=1,
            journal=journal,
            ledger=ledger,
            progress=False,
        )

    with run.active(journal=journal, ledger=ledger):
        yield make


@pytest.fixture
def session(make_session):
    return make_session(Word())


def step_of(session, count=1):
    return next(iter(session.steps(count, "test")))


def place_of(session, path):
    return next(place for place in session.places() if place.path == path)


class TestWhatPays:
    def test_gain_per_call_decides_and_the_old_fades(self):
        first, second = Arm("first", gain=0.3), Arm("second", gain=0.2)
        assert first.rate > second.rate
        first.credit(0.0, 60)
        assert second.rate > first.rate
        second.credit(0.0, 60)
        second.credit(0.0, 60)
        assert first.rate > second.rate
        second.credit(0.5, 30)
        assert second.rate > first.rate
        assert second.pulls == 3


class Writer(Rewriter):
    """A rewriter that keeps what it is asked, and writes what it is told."""

    def __init__(self, text="Reverse it."):
        super().__init__(Attempts({}, 4))
        self.text, self.seen = text, []

    async def rewrite(self, step, evidence):
        self.seen += evidence
        return [Edit(each.path, each.text, f"{self.text} {len(self.seen)}.{each.variant}") for each in evidence]


class TestTextArm:
    def test_it_asks_for_variants_of_one_evidence_with_other_tips(self, session):
        writer, step = Writer(), step_of(session)
        arm = TextArm(place_of(session, "spell.instruction"), writer, gain=0.3)
        assert aio.run(arm.make(step, session.base, 3)) == []
        aio.run(session.forward(session.base, session.train[:4], scope="look"))
        made = aio.run(arm.make(step, session.base, 3))
        assert len(made) == 3
        asked = list(writer.seen)
        assert [evidence.variant for evidence in asked] == [0, 1, 2]
        assert asked[0].tip == ""
        assert len({evidence.tip for evidence in asked}) == 3
        assert {len(evidence.rows) for evidence in asked} == {4}
        aio.run(arm.make(step, session.base, 1))
        assert writer.seen[-1].tip not in {evidence.tip for evidence in asked}
        assert writer.seen[-1].variant == 3
        other = session.base.child({"tone": "glad"}, "other")
        aio.run(arm.make(step, other, 1))
        assert (writer.seen[-1].tip, writer.seen[-1].variant) == ("", 0)

    def test_it_tells_the_place_in_the_program_and_what_is_worse_apart_from_what_is_promising(self, session):
        good, also, bad = (
            session.base.child({"spell.instruction": text}, text) for text in ("Reverse it.", "Reverse it!", "Copy!")
        )
        aio.run(session.evaluate_all([session.base, good, also, bad], session.val, scope="known"))
        evidence = Rewriter(Attempts({}, 4)).evidence(session, good, place_of(session, "spell.instruction"))
        assert evidence.program == "Word\nspell: word -> answer"
        assert [(tried["text"], tried["score"], tried["rows"]) for tried in evidence.attempts] == [
            ("Reverse it.", 1.0, 40),
            ("Reverse it!", 1.0, 40),
        ]
        assert [tried.get("present") for tried in evidence.attempts] == [True, None]
        assert {tried["text"]: tried["score"] for tried in evidence.worse} == {"Copy it.": 0.1, "Copy!": 0.1}

    def test_labels_of_examples_that_were_not_run_are_rows_too(self, session):
        rewriter = Rewriter(Attempts({}, 4), labeled=session.train)
        evidence = rewriter.evidence(session, session.base, place_of(session, "spell.instruction"))
        assert [row.unrun for row in evidence.rows] == [True] * 12
        assert evidence.rows[0].expected == {"answer": session.train[0].answer}
        aio.run(session.forward(session.base, session.train[:4], scope="look"))
        evidence = rewriter.evidence(session, session.base, place_of(session, "spell.instruction"))
        assert [row.unrun for row in evidence.rows] == [False] * 4 + [True] * 8


class TestDemosArm:
    def test_it_draws_labelled_examples_in_other_sizes(self, session):
        arm = DemosArm(session, [place_of(session, "spell.demos")], (2, 4), gain=0.1)
        made = aio.run(arm.make(step_of(session), session.base, 2))
        assert [len(child.values["spell.demos"]) for child in made] == [2, 4]
        shown = arm.shown(made[0].values["spell.demos"])
        words = {demo.word for demo in made[0].values["spell.demos"]}
        assert {example.word for example in session.train if example.id in shown} == words
        assert arm.shown(()) == frozenset()

    def test_in_its_second_turn_failures_come_first(self, session):
        aio.run(session.forward(session.base, session.train, scope="look"))
        arm = DemosArm(session, [place_of(session, "spell.demos")], (11,), gain=0.1)
        step = step_of(session)
        aio.run(arm.make(step, session.base, 1))
        (hard,) = aio.run(arm.make(step, session.base, 1))
        assert "word9x" not in {demo.word for demo in hard.values["spell.demos"]}


class Twice(nn.Module):
    """Two steps that both call their answer `answer`."""

    def __init__(self):
        super().__init__()
        self.turn = nn.Predict("word -> answer", instruction="Reverse it.")
        self.copy = nn.Predict("word -> answer", instruction="Copy it.")

    def forward(self, word):
        return self.copy(word=self.turn(word=word).answer)


class TestDemosOfSeveralSteps:
    def test_a_step_is_not_shown_the_labels_of_another_but_what_it_did_in_runs_that_went_right(self, make_session):
        session = make_session(Twice())
        spots = [place_of(session, "turn.demos"), place_of(session, "copy.demos")]
        arm, step = DemosArm(session, spots, (2,), gain=0.1), step_of(session)
        assert aio.run(arm.make(step, session.base, 1)) == []
        aio.run(session.forward(session.base, session.train[:4], scope="look"))
        other = session.base.child({"turn.instruction": "Reverse it all."}, "other")
        (made,) = aio.run(arm.make(step, other, 1))
        assert all(demo.answer == demo.word[::-1] for demo in made.values["turn.demos"])
        assert all(demo.answer == demo.word for demo in made.values["copy.demos"])


class TestChoiceArm:
    def test_options_take_turns(self, session):
        arm = ChoiceArm(place_of(session, "tone"), gain=0.1)
        step = step_of(session)
        tried = [aio.run(arm.make(step, session.base, 1))[0].values["tone"] for _ in range(3)]
        assert tried == ["glad", "sad", "glad"]


class TestMergeArm:
    def test_it_takes_over_what_another_candidate_has(self, session):
        arm = MergeArm([place_of(session, "spell.instruction"), place_of(session, "tone")], gain=0.03)
        step = step_of(session)
        assert aio.run(arm.make(step, session.base, 2)) == []
        one = session.base.child({"spell.instruction": "Reverse it."}, "one")
        other = session.base.child({"tone": "glad"}, "other")
        aio.run(session.evaluate_all([session.base, one, other], session.val, scope="all"))
        (merged,) = aio.run(arm.make(step, other, 2))
        assert merged.values == {"tone": "glad", "spell.instruction": "Reverse it."}
        assert merged.parents == (other, one)


class TestMeet:
    def test_the_hopeless_leave_after_a_block_and_the_better_stay(self, session):
        good = session.base.child({"spell.instruction": "Reverse it."}, "good")
        same = session.base.child({"spell.instruction": "Copy it, please."}, "same")
        kept = aio.run(meet(session, [same, good], scope="meet"))
        assert kept == [good]
        known = {measured.candidate.key: len(measured.ids) for measured in session.standings}
        assert known == {session.base.key: 40, good.key: 40, same.key: 10}

    def test_after_each_block_the_better_half_goes_on(self, session):
        alike = [session.base.child({"spell.instruction": f"Reverse it{'!' * n}"}, f"one {n}") for n in range(9)]
        kept = aio.run(meet(session, alike, scope="meet"))
        known = sorted(len(session.standings.of(one).ids) for one in alike)
        assert known == [10, 10, 10, 10, 20, 20, 30, 40, 40]
        assert len(kept) == 2

    def test_it_goes_as_deep_as_it_is_told(self, session):
        good = session.base.child({"spell.instruction": "Reverse it."}, "good")
        aio.run(meet(session, [good], scope="meet", depth=20))
        assert len(session.standings.of(good).ids) == 20

    def test_each_block_has_its_share_of_what_the_incumbent_gets_right(self, session):
        aio.run(session.evaluate(session.base, session.val, scope="base"))
        right = {key for key, score in session.standings.of(session.base).by_id().items() if score}
        assert len(right) == 4
        good = session.base.child({"spell.instruction": "Reverse it."}, "good")
        aio.run(meet(session, [good], scope="meet", depth=10))
        assert len(right & set(session.standings.of(good).ids)) == 1

    def test_it_ends_before_a_block_that_the_budget_does_not_pay(self, session):
        session.ledger.budget = run.Budget(calls=35)
        good = session.base.child({"spell.instruction": "Reverse it."}, "good")
        also = session.base.child({"spell.instruction": "Reverse it all."}, "also")
        kept = aio.run(meet(session, [good, also], scope="meet"))
        assert kept[0] in (good, also)
        assert session.ledger.spent.calls <= 35

    def test_others_leave_before_the_budget_does_not_pay_the_best_its_way_to_the_end(self, session):
        aio.run(session.evaluate(session.base, session.val, scope="base"))
        session.ledger.budget = run.Budget(calls=session.ledger.spent.calls + 55)
        good = session.base.child({"spell.instruction": "Reverse it."}, "good")
        also = session.base.child({"spell.instruction": "Reverse it all."}, "also")
        (kept,) = aio.run(meet(session, [good, also], scope="meet"))
        known = {measured.candidate.key: len(measured.ids) for measured in session.standings}
        assert known[kept.key] == 40
        assert sorted(known.values()) == [10, 40, 40]
