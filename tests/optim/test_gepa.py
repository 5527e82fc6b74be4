"""GEPA in the trainer and in sessions: it improves, merges, and is the same again."""

import json
import random
import re
from types import SimpleNamespace

import pytest

import promptgrad as pg
from promptgrad import aio, lm, nn, optim, run
from promptgrad.search import Candidate, Evidence, Session
from promptgrad.testing import Fields
from tests.search.sessions import session_of, within


def program(world, answer=None):
    return world.Program().to(lm.FunctionLM(answer or world.answer, name="simulated"))


def fit(world, model=None, optimizer=None, run_dir=None, **options):
    model = model or program(world)
    optimizer = optimizer or optim.GEPA(model.parameters(), steps=10, minibatch_size=4)
    trainer = pg.Trainer(model, optimizer, metric=world.metric, seed=5, run_dir=run_dir, **options)
    return trainer.fit(world.examples(24), world.examples(60, seed=1))


def events(path, kind):
    return [event for event in run.Journal(path / "journal.jsonl", readonly=True).events() if event["kind"] == kind]


class TestInTheTrainer:
    def test_it_improves_a_program_of_two_steps_from_the_feedback_alone(self, world, tmp_path):
        critic = lm.FunctionLM(lambda messages: pytest.fail("no critic is asked"), name="critic")
        result = fit(world, run_dir=tmp_path / "run", critic=critic, ship="significant")
        assert result.shipped
        assert result.after.mean == 1.0
        assert result.values["pick.instruction"].endswith("Take the last word.")
        assert result.values["spell.instruction"].endswith("Reverse the word.")
        asked = {event["path"] for event in events(tmp_path / "run", "proposal")}
        assert asked == {"pick.instruction", "spell.instruction"}
        assert [event["holds"] for event in events(tmp_path / "run", "tried")] == [True, True]
        assert events(tmp_path / "run", "stop")[0]["reason"] == "every validation example is right"

    def test_with_critiques_a_critic_divides_the_blame(self, world):
        asked = []

        def critic(messages):
            asked.append(messages)
            return world.answer(messages)

        model = program(world)
        optimizer = optim.GEPA(model.parameters(), steps=10, minibatch_size=4, critique=True)
        result = fit(world, model, optimizer, critic=lm.FunctionLM(critic, name="critic"))
        assert result.shipped
        assert asked

    def test_nothing_is_left_in_the_gradients_and_the_program_is_as_it_was(self, world):
        model = program(world)
        before = model.state_dict()
        optimizer = optim.GEPA(model.parameters(), steps=3, rules=optim.Rules(max_tokens=2))
        result = fit(world, model, optimizer)
        assert not result.shipped
        assert model.state_dict() == before
        assert all(parameter.grad is None for parameter in model.parameters())
        assert any(re.match(r"\d+ proposals refused: \d+x it has", note) for note in result.notes), result.notes

    def test_what_was_tried_is_told_to_the_writer(self, world):
        shown = []

        def answer(messages):
            if "`rows` are runs" in messages[0]["content"]:
                shown.append(world.sections(messages[-1]["content"])["attempts"])
                return f"[[ ## new_instruction ## ]]\nBe careful {len(shown)}.\n\n[[ ## completed ## ]]"
            return world.answer(messages)

        model = program(world, answer)
        result = fit(world, model, optim.GEPA(model.parameters(), steps=4, components="round_robin"))
        assert not result.shipped
        assert '"text":"Be careful 1.","score":0.0,"rows":' in shown[6]

    def test_the_writer_is_shown_every_run_of_the_parent(self, world):
        shown = []

        def answer(messages):
            if "`rows` are runs" in messages[0]["content"]:
                shown.append(json.loads(world.sections(messages[-1]["content"])["rows"]))
                return "[[ ## new_instruction ## ]]\nBe careful.\n\n[[ ## completed ## ]]"
            return world.answer(messages)

        model = program(world, answer)
        turns = optim.GEPA(model.parameters(), steps=2, minibatch_size=6, components="round_robin")
        trainer = pg.Trainer(model, turns, metric=world.metric, seed=5)
        train = world.examples(40)
        known = {example.id for example in train}
        trainer.fit(train, [example for example in world.examples(20, seed=2) if example.id not in known])
        assert [len(rows) for rows in shown] == [24, 24, 24, 30, 30, 30]

    def test_a_child_that_is_worse_on_a_minibatch_is_not_run_on_validation_examples(self, world, tmp_path):
        def answer(messages):
            if "new_instruction" in messages[0]["content"]:
                return "[[ ## analysis ## ]]\nnone\n\n[[ ## new_instruction ## ]]\nBe careful."
            return world.answer(messages)

        model = program(world, answer)
        model.pick.instruction.data += " Take the last word."
        model.spell.instruction.data += " Reverse the word."
        train, val = world.examples(24), world.examples(8, seed=1)
        wrong = {example.id for example in [*train[:3], val[0]]}

        def metric(example, output):
            return 0.0 if example.id in wrong else world.metric(example, output)

        turns = optim.GEPA(model.parameters(), steps=1, components="round_robin")
        trainer = pg.Trainer(model, turns, metric=metric, seed=5, run_dir=tmp_path / "run")
        trainer.fit(train, val)
        assert [event["holds"] for event in events(tmp_path / "run", "tried")] == [False]
        assert events(tmp_path / "run", "race") == []

    @pytest.mark.parametrize("calls", [150, 200])
    def test_a_budget_ends_it(self, world, calls):
        result = fit(world, budget=pg.Budget(calls=calls))
        assert result.calls <= calls

    def test_where_nothing_new_comes_it_ends_before_the_budget(self, world):
        train = world.examples(24)
        known = {example.id for example in train}
        val = [example for example in world.examples(60, seed=1) if example.id not in known]
        model = program(world)
        trainer = pg.Trainer(
            model,
            optim.GEPA(model.parameters()),
            metric=lambda example, output: float(example.id in known),
            budget=pg.Budget(calls=1000),
            seed=5,
        )
        result = trainer.fit(train, val)
        assert result.calls < 1000
        assert "the search ended after 10 steps in a row that brought nothing new" in result.notes

    def test_no_proposal_for_a_parent_is_asked_for_twice(self, world):
        asked = []

        def answer(request):
            if "new_instruction" in request.messages[0].content:
                asked.append((request.messages[-1].content, request.replicate))
            return world.answer(request.messages)

        model = program(world, answer)
        rules = optim.Rules(max_tokens=2)  # nothing comes of it, so that the start stays the parent
        optimizer = optim.GEPA(model.parameters(), steps=5, components="round_robin", rules=rules)
        fit(world, model, optimizer)
        assert len(asked) == len(set(asked)) == 15

    @pytest.mark.parametrize(("parity", "steps", "more"), [(False, None, True), (False, 10, False), (True, None, True)])
    def test_without_a_number_of_steps_it_goes_on_until_the_budget_ends(self, world, parity, steps, more):
        written = 0

        def answer(messages):
            nonlocal written
            if "new_instruction" in messages[0]["content"]:
                written += 1
                return f"[[ ## analysis ## ]]\nnone\n\n[[ ## new_instruction ## ]]\nBe careful {written}."
            return world.answer(messages)

        model = program(world, answer)
        optimizer = optim.GEPA(
            model.parameters(), steps=steps, minibatch_size=4, components="round_robin", parity=parity
        )
        result = fit(world, model, optimizer, budget=pg.Budget(calls=1500))
        spent = any("brought nothing new" in note for note in result.notes)
        assert (written > 30 or spent) is more
        assert result.calls <= 1500

    def test_the_same_seed_makes_the_same_search_at_any_concurrency(self, world, tmp_path):
        def digest(name, **options):
            fit(world, run_dir=tmp_path / name, **options)
            return run.Journal(tmp_path / name / "journal.jsonl", readonly=True).digest()

        assert digest("one", concurrency=1) == digest("many", concurrency=32)

    def test_the_plan_is_an_upper_bound(self, world):
        model = program(world)
        optimizer = optim.GEPA(model.parameters(), steps=10, minibatch_size=4)
        trainer = pg.Trainer(model, optimizer, metric=world.metric, seed=5)
        plan = trainer.plan(world.examples(24), world.examples(60, seed=1))
        assert [phase.name for phase in plan.phases if phase.name.startswith(("mini", "prop", "crit", "full"))] == [
            "minibatches",
            "proposals",
            "full validations and merges",
        ]
        assert fit(world, model, optimizer).calls <= plan.calls


class Marks(nn.Module):
    """Two texts that a writer improves only while the other one is as it was, so that a merge alone has both.

    The first module writes a mark: "new" if its instruction says "X1", else "old". The second one is right about an
    example of group "g" if the mark is new, of group "h" if its own instruction says "Y1", of group "k" if neither is.
    """

    def __init__(self):
        super().__init__()
        self.mark = nn.Predict("text -> mark", instruction="X0.")
        self.word = nn.Predict("text, mark -> word", instruction="Y0.")
        self.to(lm.FunctionLM(answer, name="simulated"))

    def forward(self, text):
        return self.word(text=text, mark=self.mark(text=text).mark)


def answer(messages):
    system = messages[0].content

    def word(inputs):
        said = "Y1" if "Y1." in system else "Y0"
        new = inputs["mark"] == "new"
        right = {"g": new, "h": said == "Y1", "k": not new and said == "Y0"}[inputs["text"][0]]
        return "right" if right else f"wrong with {said}"

    def write(inputs):
        if inputs["instruction"].startswith("X"):
            return "X1." if "Y1" not in inputs["rows"] else "X, nothing new."
        failed = [row for row in json.loads(inputs["rows"]) if row["score"] < 1]
        return "Y1." if "new" not in str(failed) else "Y, nothing new."

    return Fields(mark="new" if "X1." in system else "old", word=word, new_instruction=write)(messages)


def metric(example, output):
    return pg.Score(output.word == "right", feedback=f"it is {output.word}")


def search(seed, **options):
    """What a search of the two texts found: the best mean, the decisions about merges, and the instructions."""
    model, journal = Marks(), run.Journal()
    groups = "gggkhhh"
    rows = [pg.Example(text=f"{groups[n % 7]}{n}").with_inputs("text") for n in range(42)]
    session = Session(
        model=model,
        train=rows[:21],
        val=rows[21:],
        metric=metric,
        seed=seed,
        journal=journal,
        ledger=run.Ledger(run.Budget(), journal),
        progress=False,
    )

    async def work():
        with run.active(journal=journal, ledger=session.ledger):
            session.baseline = await session.evaluate(session.base, session.val, scope="baseline")
            optimizer = optim.GEPA(model.parameters(), steps=16, minibatch_size=7, components="round_robin", **options)
            await optimizer.fit(session)

    aio.run(work())
    merges = [event for event in journal.events() if event["kind"] == "merge"]
    values = [session.value(place.path, session.incumbent) for place in session.places(("instruction",))]
    return max(trial.score for trial in session.history), merges, values


class TestMerging:
    @pytest.mark.parametrize("seed", [1, 2, 3])
    def test_a_merge_finds_what_no_reflection_does(self, seed):
        best, merges, values = search(seed)
        alone, none, _ = search(seed, max_merges=0)
        assert none == []
        assert alone == pytest.approx(3 / 7)
        assert best == pytest.approx(6 / 7)
        assert values == ["X1.", "Y1."]
        assert [event["holds"] for event in merges] == [True]
        assert len(set(merges[0]["sides"])) == 2

    def test_with_another_split_of_examples_it_is_tried_on_more(self):
        (merge,) = search(1, merge_examples=9)[1]
        assert merge["after"] >= max(merge["before"])

    def test_fronts_of_parts_are_an_option(self):
        assert search(1, fronts="both")[0] == pytest.approx(6 / 7)


class TestHabits:
    @pytest.mark.parametrize(
        ("argument", "hint"),
        [
            ("auto", "Budget"),
            ("max_metric_calls", "Budget"),
            ("reflection_lm", "lm="),
            ("reflection_minibatch_size", "minibatch_size="),
            ("use_merge", "max_merges="),
            ("candidate_selection_strategy", "drawn by the number of its fronts"),
            ("metric", "Trainer"),
            ("seed", "Trainer"),
        ],
    )
    def test_what_users_of_dspy_write_gets_a_hint(self, world, argument, hint):
        with pytest.raises(TypeError, match=f"GEPA has no argument '{argument}': write .*{re.escape(hint)}"):
            optim.GEPA(program(world).parameters(), **{argument: 1})

    def test_other_arguments_are_unknown(self, world):
        with pytest.raises(TypeError, match=r"GEPA has no argument 'stepps': did you mean 'steps'"):
            optim.GEPA(program(world).parameters(), stepps=1)

    @pytest.mark.parametrize("options", [{"steps": 0}, {"minibatch_size": 0}, {"max_merges": -1}, {"fronts": "all"}])
    def test_options_out_of_range(self, world, options):
        with pytest.raises(ValueError, match="not"):
            optim.GEPA(program(world).parameters(), **options)

    def test_what_is_left_open_is_that_of_the_package_where_its_sequence_is_wanted(self, world):
        ours, package = (optim.GEPA(program(world).parameters(), parity=parity) for parity in (False, True))
        assert (ours.minibatch_size, ours.components) == (8, "blamed")
        assert (package.minibatch_size, package.components) == (3, "round_robin")
        with pytest.raises(ValueError, match="the package blames no component"):
            optim.GEPA(program(world).parameters(), parity=True, components="blamed")

    def test_its_settings_are_known_to_a_resumed_run(self, world, tmp_path):
        model = program(world)
        fit(world, model, optim.GEPA(model.parameters(), steps=2), run_dir=tmp_path / "run")
        again = program(world)
        other = optim.GEPA(again.parameters(), steps=2, rules=optim.Rules(max_tokens=9))
        with pytest.raises(pg.errors.JournalError):
            pg.Trainer.resume(tmp_path / "run", again, other, world.metric)


@pytest.mark.asyncio
@pytest.mark.parametrize(("room", "count"), [(47, 3), (46, 2), (33, 2), (32, 1), (0, 1)])
async def test_as_many_proposals_are_made_as_the_budget_pays_for_trying(room, count):
    model = nn.Predict("text -> answer")
    optimizer = optim.GEPA(model.parameters(), minibatch_size=4)
    rows = SimpleNamespace(known=lambda parent: (), measured=lambda parent, sample: None)
    affords = lambda examples, calls: examples <= room  # noqa: E731
    session = SimpleNamespace(val=[None] * 5, train=[], rows=rows, affords=affords)
    asked = []

    class Rewriter:
        def evidence(self, session, parent, place):
            return Evidence(model.instruction, "instruction", "Answer.", "", [SimpleNamespace(right=False)])

        def numbered(self, parent, texts, count):
            return 7

        async def rewrite(self, step, evidence):
            asked.extend(one.variant for one in evidence)
            return []

    step = SimpleNamespace(session=session, number=1, rng=random.Random(0))
    await optimizer._tried(step, Rewriter(), None, Candidate(), [None], set())
    assert asked == [7, 8, 9][:count]


@pytest.mark.parametrize(("calls", "promoted"), [(1000, True), (100, False)])
def test_training_examples_say_who_is_the_incumbent_where_the_budget_pays_for_it(calls, promoted):
    rows = [pg.Example(word=f"word{n}", answer=f"word{n}"[::-1]).with_inputs("word") for n in range(30)]
    known = {example.id for example in rows[:20]}

    def metric(example, output):
        return float(output.answer == example.answer) if example.id in known else 0.5

    def reply(messages):
        word = re.findall(r"word\d+", messages[-1].content)[-1]
        return f"[[ ## answer ## ]]\n{word[::-1] if 'Reverse it.' in messages[0].content else word}"

    model = nn.Predict("word -> answer", instruction="Copy it.").to(lm.FunctionLM(reply, name="s"))
    session = session_of(model, metric, rows[:20], rows[20:])
    session.ledger.budget = run.Budget(calls=calls)
    child, optimizer = session.base.child({"instruction": "Reverse it."}, "child"), optim.GEPA(model.parameters())

    async def promote():
        _, ended = await session.evaluate_all([session.base, child], session.val, scope="both")
        await optimizer._promote(next(iter(session.steps(1, "GEPA"))), [ended])

    within(session, promote)
    assert (session.incumbent is child) == promoted
