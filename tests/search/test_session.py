"""Sessions: a search starts from a base, and keeps what it does not change of it."""

import threading

import pytest

import promptgrad as pg
from promptgrad import data, lm, nn, optim
from promptgrad.errors import LMConnectionError
from promptgrad.search import Candidate, Measured, show_value
from tests.search import sessions
from tests.search.sessions import within
from tests.waiting import turns

FOUND = {"pick.instruction": "Take the last word."}
"""What an earlier phase has found."""


def program(world, answer=None):
    return world.Program().to(lm.FunctionLM(answer or world.answer, name="simulated"))


def session_of(world, model, train=24, val=30, metric=None, **options):
    data = world.examples(train), world.examples(val, seed=1)
    return sessions.session_of(model, metric or world.metric, *data, **options)


def search(session, optimizer, base):
    async def work():
        part = await session.phase("second", base, parameters=optimizer.parameters())
        await optimizer.fit(part)
        return part

    return within(session, work)


def small_mipro(params):
    return optim.MIPRO(params, num_candidates=3, num_demo_sets=2, num_trials=9, minibatch_size=10, full_eval_every=3)


class TestBase:
    @pytest.mark.parametrize(
        "make",
        [
            small_mipro,
            lambda params: optim.TGD(params, steps=2, batch_size=6, proposals=2),
            lambda params: optim.BootstrapFewShot(params, max_labeled_demos=2, threshold=0.5),
        ],
    )
    def test_what_an_earlier_phase_found_is_kept(self, world, make):
        """0.1: every finalist of the second optimizer had lost what the first had found."""
        model = program(world)
        part = search(session_of(world, model), make(model.spell.parameters()), Candidate(FOUND))
        tried = [trial.candidate for trial in part.history]
        assert part.finalists
        assert {candidate.values["pick.instruction"] for candidate in tried} == {"Take the last word."}
        assert {entry.candidate.values["pick.instruction"] for entry in part.finalists} == {"Take the last word."}
        assert model.pick.instruction.data.startswith("Given the fields")

    def test_labelled_demos_lie_beside_it(self, world):
        model, _ = world.single()
        model.to(lm.FunctionLM(world.answer))
        session = session_of(world, model)
        session.train = world.single()[1][:20]
        session.val = world.single()[1][20:40]
        part = search(session, optim.LabeledFewShot(model.parameters(), k=2), Candidate({"instruction": "Reverse it."}))
        assert part.finalists[0].candidate.values["instruction"] == "Reverse it."
        assert len(part.finalists[0].candidate.values["demos"]) == 2

    def test_proposals_start_from_it(self, world):
        shown = []

        def spying(messages):
            if "[[ ## tip ## ]]" in messages[-1].content:
                shown.append(world.sections(messages[-1].content)["instruction"])
            return world.answer(messages)

        model = program(world, spying)
        part = search(session_of(world, model), small_mipro(model.parameters()), Candidate(FOUND))
        assert shown[:3] == ["Take the last word."] * 3  # another round may follow
        assert len(shown) >= 6
        assert part.baseline.candidate.values == FOUND
        assert part.baseline.mean == 0.5

    def test_demos_of_the_base_are_a_choice_and_the_teacher_keeps_them(self, world):
        demo = pg.Example(word="red", answer="der").with_inputs("word")
        model = program(world)
        session = session_of(world, model, metric=lambda example, output: 0.5)  # a perfect score would end it early
        part = search(session, small_mipro(model.parameters()), Candidate({"spell.demos": (demo,)}))
        sets = {trial.candidate.values.get("spell.demos") for trial in part.history}
        assert {(demo,), ()} <= sets

    def test_value_and_program(self, world):
        model = program(world)
        session = session_of(world, model)
        other = world.Program()
        other.pick.instruction.data = "Of another program."
        swapped = Candidate({}, "other", other, "o")
        assert session.value("pick.instruction").startswith("Given the fields")
        assert session.value("pick.instruction", Candidate(FOUND)) == "Take the last word."
        assert session.value("pick.instruction", swapped) == "Of another program."
        assert session.program(swapped) is other
        assert session.program() is model
        with pytest.raises(AttributeError, match=r"pick\.instruction"):
            session.value("pick.instructions")


class TestPlaces:
    def test_only_what_the_optimizer_was_given_in_its_order(self, world):
        model = program(world)
        session = session_of(world, model, parameters=[model.spell.demos, model.spell.instruction])
        assert [place.path for place in session.places()] == ["spell.demos", "spell.instruction"]
        assert [place.path for place in session.places(("instruction",))] == ["spell.instruction"]

    def test_what_requires_no_gradient_is_left_out_unless_asked_for(self, world):
        model = program(world)
        model.pick.requires_grad_(False)
        session = session_of(world, model)
        assert [place.path for place in session.places(("instruction",))] == ["spell.instruction"]
        every = session.places(("instruction",), requires_grad=None)
        assert [place.path for place in every] == ["pick.instruction", "spell.instruction"]

    def test_paths_are_from_the_root_of_the_program(self, world):
        inner = program(world)
        session = session_of(world, nn.Sequential(inner))
        assert session.path_of(inner.pick.instruction) == "0.pick.instruction"
        assert session.path_of(pg.Parameter("x")) is None
        assert session_of(world, inner.pick).places(("instruction",))[0].path == "instruction"

    def test_of_another_program_they_are_its_own(self, world):
        model, other = program(world), program(world)
        session = session_of(world, model, parameters=[model.pick.instruction])
        session.base = Candidate({}, "other weights", other, "w")
        assert [place.parameter for place in session.places()] == [other.pick.instruction]


class TestPhase:
    def test_it_has_chance_finalists_and_incumbent_of_its_own_and_shares_the_record(self, world):
        session = session_of(world, program(world))

        async def work():
            one = await session.phase("one", Candidate(FOUND))
            two = await one.phase("two")
            found = await two.evaluate(
                two.base.child({"spell.instruction": "Reverse the word."}, "x"), two.val, scope="a"
            )
            two.trial(found)
            two.offer(found)
            two.promote(found)
            return one, two, await two.phase("three"), found

        one, two, three, found = within(session, work)
        assert session.seed != one.seed != two.seed
        assert [part.finalists for part in (session, one, two, three)] == [[], [], [found], []]
        assert session.history == two.history
        assert session.history[0].number == 0
        assert (one.incumbent, two.incumbent) == (one.base, found.candidate)
        assert found.scope == "one/two/a"
        assert two.gain(found) == pytest.approx(15 / 30)  # the run's start was not measured: as it was measured
        assert two.standings is session.standings
        events = [event for event in session.journal.canonical() if event["kind"] == "phase"]
        assert [event["name"] for event in events] == ["one", "one/two", "one/two/three"]

    def test_measuring_a_base_again_costs_nothing(self, world):
        calls = []
        model = program(world, lambda messages: calls.append(messages) or world.answer(messages))
        session = session_of(world, model)

        async def work():
            first = await session.phase("one", Candidate(FOUND))
            count = len(calls)
            second = await session.phase("two", first.baseline)
            assert second.baseline is first.baseline
            third = await session.phase("three", Candidate(FOUND))
            assert third.baseline.scores == first.baseline.scores
            part = await session.phase("four", first.baseline, val=session.val[:4])
            assert len(part.baseline.ids) == 4
            assert len(calls) == count

        within(session, work)

    def test_a_base_without_validation_data_is_not_measured(self, world):
        session = session_of(world, program(world))
        part = within(session, lambda: session.phase("one", Candidate(FOUND), val=[]))
        assert part.baseline is None
        assert part.base.values == FOUND


class TestOffers:
    def test_a_candidate_is_a_finalist_once_with_its_newest_measurement(self, world):
        session = session_of(world, program(world))
        candidate = Candidate(FOUND, "first")
        session.offer(Measured(candidate, ("a",), (0.5,)))
        session.offer(Measured(Candidate({"spell.instruction": "x"}), ("a",), (0.25,)))
        newest = Measured(Candidate(FOUND, "again"), ("a", "b"), (0.5, 1.0))
        session.offer(newest)
        assert len(session.finalists) == 2
        assert session.finalists[-1] is newest

    def test_the_base_is_no_candidate(self, world):
        session = session_of(world, program(world))
        session.offer(Measured(Candidate(), ("a",), (1.0,)))
        assert session.finalists == []
        session.base = Candidate(FOUND)
        session.offer(Measured(Candidate(FOUND), ("a",), (1.0,)))
        assert session.finalists == []
        session.offer(Measured(Candidate(), ("a",), (1.0,)))  # a way back
        assert len(session.finalists) == 1

    def test_candidates_are_compared_by_all_that_is_known_of_them(self, world):
        session = session_of(world, program(world))
        ids = tuple(example.id for example in session.val)
        session.standings.add(Measured(session.base, ids, (0.0,) * 30))
        lucky = Measured(Candidate(FOUND), ids[:2], (1.0, 1.0))
        steady = Measured(Candidate({"spell.instruction": "x"}), ids, (1.0,) * 18 + (0.0,) * 12)
        others = [Measured(Candidate({"spell.instruction": str(n)}), ids, (0.0,) * 30) for n in range(6)]
        for measured in (lucky, steady, *others):
            session.standings.add(measured)
            session.offer(measured)
        assert lucky.mean > steady.mean > session.gain(steady) > session.gain(lucky) > session.gain(others[0])
        assert session.ranked()[:2] == [steady, lucky]
        session.consider(lucky)
        assert (session.incumbent, session.gain_of_incumbent()) == (lucky.candidate, session.gain(lucky))
        session.standings.add(Measured(lucky.candidate, ids, (1.0, 1.0) + (0.0,) * 28))
        assert session.gain_of_incumbent() < session.gain(steady)

    def test_it_is_perfect_when_the_incumbent_is_right_on_every_validation_example(self, world):
        session = session_of(world, program(world))
        ids = tuple(example.id for example in session.val)
        assert not session.perfect()
        session.standings.add(Measured(session.base, ids[1:], (1.0,) * 29))
        assert not session.perfect()
        session.standings.add(Measured(session.base, ids, (1.0,) * 30))
        assert session.perfect()
        session.standings.add(Measured(session.base, ids[:1], (0.0,)), replicate=1)
        assert not session.perfect()

    def test_a_phase_on_other_validation_examples_has_standings_of_its_own(self, world):
        session = session_of(world, program(world))

        async def work():
            same = await session.phase("same", val=session.val[:10])
            other = await session.phase("other", val=session.train[:10])
            found = await other.evaluate(other.base.child(FOUND, "x"), other.val, scope="a")
            return same, other, found

        same, other, found = within(session, work)
        assert same.standings is session.standings is not other.standings
        assert other.standings.of(found.candidate).scores == found.scores
        assert session.standings.of(found.candidate) is None


class TestMeasured:
    def test_parts_feedback_and_outputs_reach_the_optimizer(self, world):
        """0.1: a cell had no parts, and what was measured neither feedback nor outputs."""

        def metric(example, output):
            right = output.answer == example.answer
            parts = {"right": float(right), "short": 1.0 - len(output.answer) / 10}
            return data.Score(float(right), feedback=f"not {output.answer}", parts=parts)

        calls = []
        model = program(world, lambda messages: calls.append(messages) or world.answer(messages))
        session = session_of(world, model, val=4, metric=metric)

        async def work():
            first = await session.evaluate(session.base, session.val, scope="a")
            count = len(calls)
            return first, await session.evaluate(session.base, session.val[::-1], scope="b"), count

        first, again, count = within(session, work)
        assert len(calls) == count  # from the stored cells
        words = [example.text.split()[0] for example in session.val]
        assert [output.answer for output in first.outputs] == words
        assert first.feedback == tuple(f"not {word}" for word in words)
        assert first.parts == {"right": (0.0,) * 4, "short": tuple(1.0 - len(word) / 10 for word in words)}
        assert again.feedback == first.feedback[::-1]
        assert again.parts["short"] == first.parts["short"][::-1]
        assert [output.answer for output in again.outputs] == words[::-1]

    def test_what_failed_counts_nothing_and_has_no_output(self, world):
        class Broken(nn.Module):
            def forward(self, text):
                raise ValueError(text)

        session = session_of(world, Broken(), val=3)
        measured = within(session, lambda: session.evaluate(session.base, session.val, scope="a"))
        assert (measured.errors, measured.outputs, measured.scores) == (3, (None,) * 3, (0.0,) * 3)
        assert isinstance(measured.failure, ValueError)

    def test_sums_and_parts_of_it(self):
        one = Measured(Candidate(), ("a", "b"), (1.0, None), parts={"x": (0.5, None)}, feedback=("good", ""))
        two = Measured(Candidate(), ("c",), (0.5,), outputs=("out",), parts={"y": (1.0,)}, feedback=("bad",))
        both = one + two
        assert (both.total, both.mean) == (1.5, 0.75)
        assert both.parts == {"x": (0.5, None, None), "y": (None, None, 1.0)}
        assert both.feedback == ("good", "", "bad")
        assert both.outputs == (None, None, "out")
        rest = both.without(["a"])
        assert (rest.ids, rest.scores, rest.outputs) == (("b", "c"), (None, 0.5), (None, "out"))
        assert rest.parts == {"x": (None, None), "y": (None, 1.0)}


class TestCandidate:
    def test_a_child_keeps_what_it_does_not_replace_and_knows_its_parents(self, world):
        other = world.Program()
        parent = Candidate({"a": "1", "b": "2"}, "first", other, "w")
        side = Candidate({"a": "3"}, "second")
        child = parent.child({"b": "4"}, "merge", side)
        assert child.values == {"a": "1", "b": "4"}
        assert (child.program, child.label, child.origin) == (other, "w", "merge")
        assert child.parents == (parent, side)
        assert parent.parents == ()
        assert "parents" not in repr(child)

    def test_the_key_is_of_the_content_alone(self):
        alone = Candidate({"a": "1"}, "alone")
        assert Candidate().child({"a": "1"}, "bred").key == alone.key
        assert Candidate({"a": "1"}, "alone", None, "w").key != alone.key

    def test_a_value_is_shown_in_one_short_line(self):
        assert [show_value((1,) * count) for count in range(3)] == ["0 demos", "1 demo", "2 demos"]
        assert show_value("x" * 58) == f"'{'x' * 58}'"
        assert show_value("x" * 59) == f"'{'x' * 56}..."


class TestNeedsCritic:
    """Whether a language model has to divide the blame."""

    def needed(self, world, model, **options):
        session = session_of(world, model, **options)
        return session.needs_critic(session.places(("is_text",)))

    def test_not_where_one_module_is_trained(self, world):
        model, _ = world.single()
        model.to(lm.FunctionLM(world.answer))
        assert not self.needed(world, model)
        assert self.needed(world, program(world))
        frozen = program(world)
        frozen.spell.requires_grad_(requires_grad=False)
        assert not self.needed(world, frozen)

    def test_it_is_about_the_program_not_about_whose_turn_it_is(self, world):
        session = session_of(world, program(world))
        assert session.needs_critic(session.places(("is_text",))[:1])

    def test_where_a_critic_is_named(self, world):
        model, _ = world.single()
        model.to(lm.FunctionLM(world.answer))
        assert self.needed(world, model, critic=model.lm)

    def test_where_a_model_that_knows_only_its_own_tasks_has_no_labels_to_write_from(self, world):
        class Two(nn.Module):
            def __init__(self, first):
                super().__init__()
                self.first, self.second = nn.Predict(first), nn.Predict("text -> answer")
                self.second.requires_grad_(requires_grad=False)

        narrow = lm.FunctionLM(world.answer, adapter="pocket")
        assert not self.needed(world, nn.Predict("text -> answer").to(narrow))
        assert self.needed(world, nn.Predict("text -> answer").to(narrow), critic=narrow)
        assert self.needed(world, nn.Predict("text -> question").to(narrow))  # the examples have no question
        assert self.needed(world, Two("text -> answer").to(narrow))  # the answer is that of the second module

    @pytest.mark.filterwarnings("ignore:the pocket model does not know")
    def test_then_its_runs_go_without_critiques_and_else_with(self, world):
        asked = []

        def spying(messages):
            asked.append(messages[-1].text)
            return "nothing"

        def runs(model):
            model.to(lm.FunctionLM(spying, adapter="pocket"))
            session = session_of(world, model, metric=lambda example, output: data.Score(0.0, feedback="it is wrong"))
            batch, instruction = session.train[:2], model.instruction

            async def work():
                loss = await session.forward(session.base, batch, scope="a")
                del asked[:]
                return await session.gradients(loss, [instruction])

            return within(session, work), instruction

        found, instruction = runs(nn.Predict("text -> answer"))
        assert not asked
        assert [critique.text for critique in found[instruction].critiques] == ["it is wrong"] * 2
        runs(nn.Predict("text -> question"))
        assert len(asked) == 2
        assert all("[[critique]]" in text for text in asked)

    def test_where_a_forward_called_the_module_twice(self, world):
        class Twice(nn.Module):
            def __init__(self):
                super().__init__()
                self.spell = nn.Predict("word -> answer")

            def forward(self, text):
                return self.spell(word=self.spell(word=text).answer)

        session = session_of(world, Twice().to(lm.FunctionLM(world.answer)))
        places = session.places(("is_text",))
        assert not session.needs_critic(places)
        within(session, lambda: session.forward(session.base, session.train[:2], scope="forward"))
        assert session.needs_critic(places)


def test_critic_calls_of_a_search_keep_to_the_bound_of_the_context(world):
    class Crowd:
        now = most = 0

        async def critique(self, failure):
            self.now += 1
            self.most = max(self.most, self.now)
            await turns(3)
            self.now -= 1
            return {}

    def most(**bound):
        crowd = Crowd()
        session = session_of(world, program(world), critic=crowd, engine="local")

        async def work():
            loss = await session.forward(session.base, session.train[:5], scope="a")
            await session.gradients(loss, list(session.model.parameters()))

        with pg.context(**bound):
            within(session, work)
        return crowd.most

    assert most(concurrency=1) == 1
    assert most() > 1


class TestUnanswered:
    """A few rows without an answer are left out; a language model that is down ends the run."""

    def measured(self, world, *blocks):
        """What is known after blocks of examples, each of as many as (failing, answered) says."""
        down = set()

        def answer(messages):
            if any(text in messages[-1].content for text in down):
                raise LMConnectionError("down")
            return world.answer(messages)

        rows = iter(world.examples(60, seed=3))
        session = session_of(world, program(world, answer))

        async def work():
            known = []
            for number, (failing, answered) in enumerate(blocks):
                part = [next(rows) for _ in range(failing + answered)]
                down.update(example.text for example in part[:failing])
                found = await session.evaluate(session.base, part, scope=f"block {number}")
                known.append(len(found.known))
            return known

        return within(session, work)

    def test_up_to_one_half_of_a_block_however_many(self, world):
        assert self.measured(world, (4, 4), (4, 4)) == [4, 4]
        with pytest.raises(LMConnectionError):
            self.measured(world, (5, 4))

    def test_two_in_a_row_and_not_three(self, world):
        assert self.measured(world, (2, 0)) == [0]
        with pytest.raises(LMConnectionError):
            self.measured(world, (3, 0))
        with pytest.raises(LMConnectionError):
            self.measured(world, (2, 1), (1, 0))

    def test_a_block_that_is_mostly_answered_begins_the_count_anew(self, world):
        assert self.measured(world, (2, 1), (1, 1), (2, 1)) == [1, 1, 1]

    def test_a_call_that_fails_whenever_it_is_sent_does_not_say_that_the_model_is_down(self, world):
        """One prompt of ours met "no such model" each time, and three steps on that row ended every resume."""
        (poor,), rest = world.examples(1, seed=3), world.examples(3, seed=4)

        def answer(messages):
            if any(example.text in messages[-1].content for example in (poor, *lost)):
                raise LMConnectionError("down")
            return world.answer(messages)

        lost: list[pg.Example] = []
        session = session_of(world, program(world, answer))

        async def work():
            for number in range(5):
                loss = await session.forward(session.base, [poor], scope=f"step {number}")
                assert not loss.rows
            lost.extend(rest)
            await session.forward(session.base, rest[:1], scope="another")
            with pytest.raises(LMConnectionError):
                await session.forward(session.base, rest[1:2], scope="and another")

        within(session, work)
        assert session.unanswered.rows(session.base.key) == {poor.id, rest[0].id}

    def test_rows_that_never_get_an_answer_may_be_all_that_a_later_block_has(self, world):
        """The finals run what a finalist lacks, which are the rows that failed in the search: they failed again."""
        rows, fresh = world.examples(12, seed=3), world.examples(3, seed=4)
        poor = rows[:4]

        def answer(messages):
            if any(example.text in messages[-1].content for example in poor):
                raise LMConnectionError("down")
            return world.answer(messages)

        session = session_of(world, program(world, answer))

        async def work():
            await session.evaluate(session.base, rows, scope="search")
            found = await session.evaluate(session.base, rows[:4], scope="finals")
            assert not found.known
            for number, row in enumerate(rows[:4]):  # the last of a budget goes row by row, candidate by candidate
                for name in ("one", "two", "three"):
                    tried = session.base.child({"pick.instruction": f"{name} {number}"}, name)
                    await session.evaluate(tried, [row], scope=f"{name}/{number}")
            poor.extend(fresh)
            with pytest.raises(LMConnectionError):
                await session.evaluate(session.base, rows[:4] + fresh, scope="down")

        within(session, work)

    def test_blocks_side_by_side_count_in_their_order(self, world):
        """The second of three is answered, however late: the first and the last are not in a row."""
        rows = world.examples(2, seed=3)
        slow = threading.Event()

        def answer(messages):
            if "Take the first word." in messages[0].content or "Take no word." in messages[0].content:
                raise LMConnectionError("down")
            if "Take the last word." in messages[0].content:
                assert slow.wait(10)
            return world.answer(messages)

        session = session_of(world, program(world, answer), concurrency=8)
        texts = ["Take the first word.", "Take the last word.", "Take no word."]
        candidates = [Candidate({"pick.instruction": text}) for text in texts]

        async def work():
            session.journal.subscribe(lambda event: slow.set() if event["kind"] == "fail" else None)
            return await session.evaluate_all(candidates, rows, scope="block")

        found = within(session, work)
        assert [len(one.known) for one in found] == [0, 2, 0]
