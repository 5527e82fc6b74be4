"""Steps, and the rewriter in them."""

import json
from collections import defaultdict

import pytest

import promptgrad as pg
from promptgrad import lm, run
from promptgrad.errors import BudgetExceeded
from promptgrad.search import Attempts, Feedback, Measured, Rewriter, Rules, unblamed
from tests.search import sessions
from tests.search.sessions import within


def session_of(world, answer=None, train=24, val=20, metric=None, **options):
    model = world.Program().to(lm.FunctionLM(answer or world.answer, name="simulated"))
    data = world.examples(train), world.examples(val, seed=1)
    return sessions.session_of(model, metric or world.metric, *data, **options)


def events(session, kind):
    return [event for event in session.journal.events() if event["kind"] == kind]


class TestTheLoop:
    def test_every_epoch_has_all_examples_in_an_order_of_its_own(self, world):
        def batches(**options):
            steps = session_of(world, train=7).steps(6, "Search", batch_size=3, **options)
            return [[example.text for example in step.minibatch()] for step in steps]

        shown = batches()
        assert [len(batch) for batch in shown] == [3, 3, 1, 3, 3, 1]
        first, second = ([text for batch in part for text in batch] for part in (shown[:3], shown[3:]))
        assert sorted(first) == sorted(second) == sorted(example.text for example in world.examples(7))
        assert first != second
        assert batches() == shown
        assert [len(batch) for batch in batches(drop_last=True)] == [3] * 6

    def test_chance_depends_on_the_seed_the_name_and_the_number(self, world):
        def drawn(name):
            return [step.rng.random() for step in session_of(world).steps(3, name)]

        def shown(name, seed=5):
            session = session_of(world)
            session.seed = seed
            return [example.id for step in session.steps(1, name, batch_size=24) for example in step.minibatch()]

        assert drawn("One") == drawn("One")
        assert len({*drawn("One"), *drawn("Two")}) == 6
        assert shown("One") == shown("One")
        assert shown("One") != shown("Two")
        assert shown("One") != shown("One", seed=6)

    def test_evaluations_are_counted_apart_in_each_part_of_a_step(self, world):
        session = session_of(world)
        (step,) = session.steps(1, "Search")

        async def work():
            for names in ("", "", "a", "bc"):
                part = step
                for name in names:
                    part = part.part(name)
                await part.evaluate(session.base, session.val[:1])

        within(session, work)
        places = [event["at"] for event in events(session, "evaluation")]
        assert places == [f"step/0/{where}" for where in ("evaluate/0", "evaluate/1", "a/evaluate/0", "b/c/evaluate/0")]

    def test_it_ends_after_steps_without_a_gain(self, world):
        session = session_of(world)
        taken = []
        for step in session.steps(9, "Search", patience=2):
            taken.append(step.number)
            if step.number == 1:
                session.incumbent = session.base.child({}, "better")
        assert taken == [0, 1, 2, 3]
        assert events(session, "stop")[0]["reason"] == "2 steps without a gain"

    def test_it_ends_where_nothing_can_be_better(self, world):
        session = session_of(world)
        right = session.base.child(
            {"pick.instruction": "Take the last word.", "spell.instruction": "Reverse the word."}, "right"
        )

        async def search():
            taken = 0
            for step in session.steps(9, "Search"):
                taken += 1
                session.promote(await step.evaluate(right, session.val))
            return taken

        assert within(session, search) == 1
        assert events(session, "stop")[0]["reason"] == "every validation example is right"

    def test_turns(self, world):
        session = session_of(world)
        places = session.places(("instruction",))
        child = session.base.child({"pick.instruction": "x"}, "child")
        steps = list(session.steps(4, "Search"))
        assert [step.turn(places).path for step in steps] == ["pick.instruction", "spell.instruction"] * 2
        assert steps[0].turn(places, session.base).path == "pick.instruction"
        assert [steps[0].turn(places, child).path for _ in range(2)] == ["spell.instruction", "pick.instruction"]
        assert steps[0].turn(places, session.base).path == "spell.instruction"


class TestGradients:
    def test_they_are_values_and_nothing_is_left_in_grad(self, world):
        session = session_of(world)
        places = session.places(("instruction",))

        async def search():
            for step in session.steps(1, "Search", batch_size=4):
                return await step.gradients(session.base, step.minibatch(), places)

        loss, gradients = within(session, search)
        assert list(gradients) == ["pick.instruction", "spell.instruction"]
        assert gradients["pick.instruction"].critiques[0].text == "Take the last word."
        assert all(parameter.grad is None for parameter in session.model.parameters())
        (event,) = events(session, "gradient")
        assert (event["step"], event["loss"], event["parameters"], event["skipped"]) == (0, 1.0, 2, 0)
        assert loss.report.failed == 4

    def test_of_a_candidate_that_is_right_they_are_empty(self, world):
        session = session_of(world)
        values = {"pick.instruction": "Take the last word.", "spell.instruction": "Reverse the word."}

        async def search():
            for step in session.steps(1, "Search", batch_size=4):
                right = session.base.child(values, "right")
                return await step.gradients(right, step.minibatch(), session.places(("instruction",)))

        loss, gradients = within(session, search)
        assert [len(gradient) for gradient in gradients.values()] == [0, 0]
        assert unblamed(loss) == []

    def test_a_critic_of_ones_own_divides_the_blame(self, world):
        class Blames:
            async def critique(self, failure):
                return {target.name: "; ".join(failure.feedback) for target in failure.targets}

        session = session_of(world)

        async def search():
            for step in session.steps(1, "Search", batch_size=2):
                batch = step.minibatch()
                _, found = await step.gradients(session.base, batch, session.places(("instruction",)), critic=Blames())
                return batch, found

        batch, found = within(session, search)
        told = [critique.text for critique in found["pick.instruction"].critiques]
        assert told == [f"the answer should be {example.answer}" for example in batch]

    @pytest.mark.parametrize("engine", ["joint", "local"])
    def test_where_the_budget_ends_in_the_critics_calls_the_search_ends_and_nobody_is_warned(self, world, engine):
        session = session_of(world, engine=engine)
        session.ledger.budget = run.Budget(calls=8)  # the forwards of four examples

        async def search():
            for step in session.steps(1, "Search", batch_size=4):
                await step.gradients(session.base, step.minibatch(), session.places(("instruction",)))

        with pytest.raises(BudgetExceeded, match="the budget of 8 calls"):
            within(session, search)


class TestTheRewriter:
    def rewrite(self, world, answer=None, *, rules=Rules(), state=None, critic=None, variants=1, **options):  # noqa: B008
        session = session_of(world, answer, **options)
        state = defaultdict(dict) if state is None else state
        rewriter = Rewriter(Attempts(state, 8), rules=rules)
        place = session.places(("instruction",))[0]

        async def search():
            for step in session.steps(1, "Search", batch_size=4):
                await step.gradients(session.base, step.minibatch(), [place], critic=critic)
                return await rewriter(step, session.base, place, variants=variants)

        return session, place, state, within(session, search)

    def test_evidence_in_and_checked_text_out(self, world):
        session, place, _, (edit,) = self.rewrite(world)
        assert edit.text == "Given the fields `text`, produce the fields `word`. Take the last word."
        assert (edit.path, edit.old, edit.usage.calls) == ("pick.instruction", place.parameter.data, 1)
        (event,) = events(session, "proposal")
        assert (event["path"], event["text"], event["refused"]) == ("pick.instruction", edit.text, None)
        assert session.model.pick.instruction.data == edit.old

    def test_a_refused_one_is_journalled_counted_and_remembered_and_never_returned(self, world):
        session, place, state, edits = self.rewrite(world, rules=Rules(max_tokens=5))
        assert edits == []
        (event,) = events(session, "proposal")
        assert event["refused"] == "it has 19 tokens, more than max_tokens=5"
        assert session.refused == {event["refused"]: 1}
        assert state[place.parameter]["rejected"][0]["effect"] == f"refused: {event['refused']}"
        session.note_refusals()
        assert session.notes == [f"1 proposal refused: 1x {event['refused']}"]

    def test_an_edit_that_lost_is_remembered_and_one_that_is_as_good_holds(self, world):
        session, place, state, (edit,) = self.rewrite(world)
        rewriter, ids = Rewriter(Attempts(state, 8)), ("a", "b")
        before = Measured(session.base, ids, (1.0, 0.0))
        step = next(iter(session.steps(1, "Search")))
        held = [
            rewriter.holds(step, place, edit, before, Measured(session.base, ids, scores))
            for scores in ((0.0, 1.0), (0.0, 0.0))
        ]
        assert held == [True, False]
        assert [event["holds"] for event in events(session, "tried")] == held
        assert [old["effect"] for old in state[place.parameter]["rejected"]] == ["1 in sum became 0 on 2 examples"]
        assert session.refused == {"it was worse on the examples of its step": 1}

    def test_rows_are_enough(self, world):
        asked = []

        def answer(messages):
            if "`rows` are runs" in messages[0]["content"]:
                asked.append(json.loads(world.sections(messages[-1]["content"])["rows"]))
            return world.answer(messages)

        edits = self.rewrite(world, answer, critic=Feedback(), variants=3)[-1]
        assert [edit.variant for edit in edits] == [0, 1, 2]
        assert asked[0] == asked[1] == asked[2], "every variant sees the whole evidence"
        assert [row["score"] for row in asked[0]] == [0.0] * 4
        assert not any("critique" in row for row in asked[0])

    def test_where_nothing_failed_nothing_is_asked(self, world):
        session, *_, edits = self.rewrite(world, metric=lambda example, output: True)
        assert edits == []
        assert events(session, "proposal") == []

    def test_after_a_call_without_an_answer_the_others_count(self, world):
        asked = []

        def answer(messages):
            if "`rows` are runs" in messages[0]["content"]:
                asked.append(messages)
                if len(asked) == 1:
                    raise pg.errors.LMConnectionError("down")
            return world.answer(messages)

        session, *_, edits = self.rewrite(world, answer, critic=Feedback(), variants=3)
        assert [edit.variant for edit in edits] == [1, 2]
        assert [event["variant"] for event in events(session, "proposal")] == [1, 2]
        assert session.refused["the language model gave no answer"] == 1

    def test_a_call_without_an_answer_is_no_text_and_three_of_them_end_the_run(self, world):
        def answer(messages):
            if "`rows` are runs" in messages[0]["content"]:
                raise pg.errors.LMConnectionError("down")
            return world.answer(messages)

        session, *_, edits = self.rewrite(world, answer)
        assert edits == []
        assert session.refused == {"the language model gave no answer": 1}
        assert len(events(session, "unanswered")) == 1
        model = world.Program().to(lm.FunctionLM(answer))
        trainer = pg.Trainer(
            model, pg.optim.GEPA(model.parameters(), steps=9, components="round_robin"), metric=world.metric, seed=5
        )
        with pytest.raises(pg.errors.LMConnectionError):
            trainer.fit(world.examples(24), world.examples(60, seed=1))
        assert len(trainer.result.history) == 1
