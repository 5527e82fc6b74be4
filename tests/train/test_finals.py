"""The decision by the posterior: what ships without data set aside, what is measured for it, and what is reported."""

import math
from hashlib import sha256
from types import SimpleNamespace

import pytest

from promptgrad import Budget, Trainer, lm, nn, optim
from promptgrad.data import Example
from promptgrad.errors import DataError
from promptgrad.metrics import exact_match
from promptgrad.run._event import encode, parse
from promptgrad.search import Candidate, Measured
from promptgrad.train._ending import Ending
from promptgrad.train._finals import Finals

pytestmark = pytest.mark.usefixtures("overlap_is_known")

BETTER = {"pick.instruction": "Take the last word.", "spell.instruction": "Reverse the word."}
WORSE = {"pick.instruction": "Take the first word, please."}


@pytest.fixture
def data(world):
    return world.examples(24), world.examples(40, seed=1), world.examples(30, seed=2)


def program(world, answer=None):
    return world.Program().to(lm.FunctionLM(answer or world.answer, name="simulated"))


class Fixed(optim.Search):
    """Offers the given values as they are, measured on the first rows of the validation data."""

    kinds = ("instruction",)

    def __init__(self, params, *values, rows=None):
        super().__init__(params)
        self._values, self._rows = values, rows

    async def fit(self, session):
        for number, values in enumerate(self._values):
            candidate = Candidate(values, f"value {number}")
            measured = await session.evaluate(candidate, session.val[: self._rows], scope=f"fixed/{number}")
            session.trial(measured)
            session.offer(measured)


class Single(Fixed):
    """Makes a single candidate, and leaves all validation data to the decision."""

    selects = False

    async def fit(self, session):
        from promptgrad.search import Measured

        session.offer(Measured(Candidate(self._values[0], "the one"), (), ()))


class Sampling:
    """A model whose word is right with some probability for each instruction, drawn anew for each replicate, if any."""

    def __init__(self, rates, *, fixed=False):
        self.rates, self.fixed, self.asked = rates, fixed, 0

    def __call__(self, request):
        self.asked += 1
        messages, replicate = request.prefix.messages + request.tail, 0 if self.fixed else request.replicate
        asked = messages[-1].content
        if "[[ ## text ## ]]" in asked:
            return f"[[ ## word ## ]]\n{asked.splitlines()[1]}\n\n[[ ## completed ## ]]"
        rate = next((rate for text, rate in self.rates.items() if text in messages[0].content), 0.4)
        drawn = sha256(f"{replicate}{messages[0].content}{asked}".encode()).digest()[0]
        return f"[[ ## answer ## ]]\n{'yes' if drawn < 256 * rate else 'no'}\n\n[[ ## completed ## ]]"


class TestDecision:
    def test_what_is_likely_better_ships_on_all_validation_data(self, world, data):
        model = program(world)
        result = Trainer(model, Fixed(model.parameters(), WORSE, BETTER), metric=world.metric).fit(*data)
        assert result.outcome == "shipped"
        assert result.values == BETTER
        assert model.pick.instruction.data == "Take the last word."
        assert result.gain.pairs == 40
        assert result.gain.chance > 0.99
        assert math.isnan(result.gain.p)
        assert 0.7 < result.gain.low < result.gain.mean <= 1.0
        assert result.before.mean == 0.0
        assert result.after.mean == pytest.approx(result.gain.mean)
        assert (result.test_before.mean, result.test_after.mean) == (0.0, 1.0)
        assert result.measured.mean == 1.0
        text = repr(result)
        assert "measured     0.000 -> 1.000 on 40 validation examples that the search also chose on\n" in text
        assert f"gain         {result.gain.amount} (expected: shrunken, 95% interval corrected for the choice)" in text
        assert text.count(f"{result.gain.mean:+.3f}") == 1, "the gain is said once"
        assert text.count("better than the start with P = ") == 1

    @pytest.mark.parametrize("ship", [0.9, "significant"])
    def test_what_is_not_better_does_not(self, world, data, ship):
        model = program(world)
        before = model.state_dict()
        result = Trainer(model, Fixed(model.parameters(), WORSE), metric=world.metric, ship=ship).fit(*data[:2])
        assert result.outcome == ("no significant gain" if ship == "significant" else "no likely gain")
        assert model.state_dict() == before
        assert (result.values, result.best) == ({}, WORSE)
        assert "not shipped" in repr(result)

    def test_a_gain_that_confirmation_on_half_of_the_data_would_miss(self, world):
        def decide(ship):
            model = program(world)
            trainer = Trainer(model, Fixed(model.parameters(), BETTER), metric=world.metric, ship=ship, finalists=1)
            return trainer.fit(world.examples(24), world.examples(8, seed=1))

        assert decide("significant").outcome == "no significant gain"
        assert decide(0.9).outcome == "shipped"

    @pytest.mark.parametrize("ship", [0.9, "significant"])
    def test_luck_does_not_ship(self, world, data, ship):
        """Of candidates that are equally good, the luckiest is no better on other data."""

        def noisy(example, output):
            return sha256(f"{example.text} {output.answer}".encode()).digest()[0] % 2

        def chatty(messages):
            instruction = messages[0]["content"].split("\n")[0]
            word = sha256((instruction + messages[-1]["content"]).encode()).hexdigest()[:6]
            name = "word" if "[[ ## text ## ]]" in messages[-1]["content"] else "answer"
            return f"[[ ## {name} ## ]]\n{word}\n\n[[ ## completed ## ]]"

        shipped = 0
        for seed in range(6):
            model = world.Program().to(lm.FunctionLM(chatty))
            values = [{"spell.instruction": f"Way {seed} {number}."} for number in range(8)]
            search = Fixed(model.parameters(), *values)
            result = Trainer(model, search, metric=noisy, seed=seed, ship=ship).fit(*data[:2])
            shipped += result.shipped
            start, *tried = [trial.score for trial in result.history]
            assert max(tried) > start  # there was luck to fall for
        assert shipped <= 1

    def test_an_optimizer_that_makes_no_choice(self, world, data):
        model = program(world)
        result = Trainer(model, Single(model.parameters(), BETTER), metric=world.metric).fit(*data[:2])
        assert result.shipped
        assert result.gain.source == "on 40 examples"

    def test_one_example_is_enough_to_run_and_not_to_ship(self, world):
        model = program(world)
        result = Trainer(model, Fixed(model.parameters(), BETTER), metric=world.metric).fit(
            world.examples(4), world.examples(1, seed=1)
        )
        assert result.outcome == "no likely gain"

    def test_nothing_to_decide_on(self, world, data):
        model = program(world)
        assert Trainer(model, Fixed(model.parameters()), metric=world.metric).fit(*data[:2]).outcome == "no candidate"
        with pytest.raises(DataError, match="valset is empty"):
            Trainer(model, Fixed(model.parameters()), metric=world.metric).fit(data[0], [])


class TestRows:
    def test_finalists_are_measured_on_the_rows_that_they_lack(self, world, data):
        model = program(world)
        optimizer = Fixed(model.parameters(), WORSE, BETTER, rows=10)
        result = Trainer(model, optimizer, metric=world.metric).fit(*data[:2])
        assert result.shipped
        assert result.gain.pairs == 40
        assert result.phases["finals"].calls > 0

    def test_as_many_of_them_as_the_budget_leaves_room_for(self, world, data):
        model = program(world)
        optimizer = Fixed(model.parameters(), BETTER, rows=10)
        plain = Trainer(model, optimizer, metric=world.metric).fit(*data[:2])
        spare = plain.calls - 20
        model = program(world)
        optimizer = Fixed(model.parameters(), BETTER, rows=10)
        result = Trainer(model, optimizer, metric=world.metric, budget=Budget(calls=spare)).fit(*data[:2])
        assert result.calls <= spare
        assert 10 < result.gain.pairs < 40

    def test_nothing_is_run_twice_where_scores_cannot_change_the_decision(self, world, data):
        model = program(world)
        options = {"metric": world.metric, "budget": Budget(calls=1000)}
        result = Trainer(model, Fixed(model.parameters(), BETTER), **options).fit(*data[:2])
        assert "finals" not in result.phases or result.phases["finals"].calls == 0


class TestNoise:
    @staticmethod
    def fit(world, rates, budget, run_dir=None, **options):
        model = world.Program().to(lm.FunctionLM(rates, name="sampling", **options))
        optimizer = Fixed(model.parameters(), {"spell.instruction": "Say yes."})
        trainer = Trainer(model, optimizer, metric=says_yes, budget=budget, run_dir=run_dir, seed=3)
        return trainer.fit(world.examples(24), world.examples(40, seed=1))

    @pytest.mark.parametrize(("options", "most"), [({}, 2), ({"temperature": 0}, 0), ({"temperature": 0.0}, 0)])
    def test_a_model_that_repeats_itself_costs_one_row_at_most(self, world, options, most):
        model = Sampling({"Say yes.": 0.55}, fixed=True)
        result = self.fit(world, model, Budget(calls=600), **options)
        assert 0.2 < result.gain.chance < 0.98  # there was something to decide
        assert result.phases["finals"].calls == most if most else "finals" not in result.phases
        assert model.asked == result.calls
        assert not any("scores vary" in note for note in result.notes)

    def test_a_known_temperature_needs_no_probe(self, world):
        model = Sampling({"Say yes.": 0.55})
        result = self.fit(world, model, Budget(calls=2000), temperature=0.7)
        assert result.phases["finals"].calls % 120 == 0  # whole rounds over 40 rows: start and best share a call
        assert result.phases["finals"].calls > 0

    def test_a_sampled_model_whose_scores_do_not_move_is_run_again_once(self, world):
        model = Sampling({"Say yes.": 0.55}, fixed=True)
        result = self.fit(world, model, Budget(calls=600), temperature=0.7)
        assert result.phases["finals"].calls <= 160
        assert not any("scores vary" in note for note in result.notes)

    def test_where_scores_vary_the_rest_of_the_budget_runs_the_finalists_again(self, world, tmp_path):
        model = Sampling({"Say yes.": 0.75})
        result = self.fit(world, model, Budget(calls=600), tmp_path)
        assert "scores vary from run to run, so the finalists were run several times" in result.notes
        assert result.phases["finals"].calls > 40
        assert model.asked == result.calls <= 600
        again = world.Program().to(lm.FunctionLM(counted := Sampling({}), name="sampling"))
        optimizer = Fixed(again.parameters(), {"spell.instruction": "Say yes."})
        resumed = Trainer.resume(tmp_path, again, optimizer, says_yes)
        assert counted.asked == 0
        assert (resumed.outcome, str(resumed.gain)) == (result.outcome, str(result.gain))

    def test_without_a_budget_to_spend_they_do_not(self, world):
        result = self.fit(world, Sampling({"Say yes.": 0.75}), None)
        assert not any("scores vary" in note for note in result.notes)

    @pytest.mark.parametrize("calls", [200, 230, 260, 400])
    def test_the_budget_is_never_exceeded(self, world, calls):
        model = Sampling({"Say yes.": 0.75})
        assert self.fit(world, model, Budget(calls=calls)).calls == model.asked <= calls


def says_yes(example, output):
    return output.answer == "yes"


class TestArguments:
    @pytest.mark.parametrize("ship", [0.4, 1.0, 2, True, "likely", None])
    def test_no_probability_and_no_rule(self, world, ship):
        model = program(world)
        with pytest.raises(ValueError, match=r'ship is a probability in \[0\.5, 1\) or "significant"'):
            Trainer(model, Fixed(model.parameters()), metric=world.metric, ship=ship)

    def test_setting_data_aside_is_for_the_strict_rule(self, world):
        model = program(world)
        with pytest.raises(ValueError, match=r"which only .*significant.* does"):
            Trainer(model, Fixed(model.parameters()), metric=world.metric, confirm=20)

    def test_a_resumed_run_has_the_rule_of_the_first(self, world, data, tmp_path):
        model = program(world)
        first = Trainer(
            model, Fixed(model.parameters(), BETTER), metric=world.metric, ship="significant", run_dir=tmp_path
        ).fit(*data[:2])
        model = program(world)
        again = Trainer.resume(tmp_path, model, Fixed(model.parameters(), BETTER), world.metric)
        assert (again.gain, again.outcome) == (first.gain, first.outcome)
        assert again.gain.pairs == 20

    def test_the_plan_has_finals_in_place_of_a_confirmation(self, world, data):
        model = program(world)
        plan = Trainer(model, Fixed(model.parameters()), metric=world.metric).plan(*data)
        assert [phase.name for phase in plan.phases] == ["baseline", "finals", "test"]
        assert (plan.val, plan.confirm) == (40, 0)
        assert "40 examples to decide on show gains" in repr(plan)

    def test_the_plan_never_says_more_than_the_budget(self, world, data):
        def first(**options):
            model = program(world)
            made = optim.Auto(model.parameters())
            return repr(Trainer(model, made, metric=world.metric, **options).plan(*data)).splitlines()[0]

        assert first().startswith("Plan: at most about ")
        assert first(budget=Budget(calls=300)).startswith("Plan: at most 300 LM calls (without the budget ")


def test_the_row_to_probe_is_that_on_which_candidates_differ_most():
    base, better = Candidate(), Candidate({"a": "b"}, "child")
    rows = [Example(text=name).with_inputs("text") for name in ("not run", "alike", "a little", "most")]
    ids = tuple(row.id for row in rows[1:])
    session = SimpleNamespace(base=base, val=(), finalists=())
    finals = Finals(session, rows, count=1, ship=0.9)
    finals.standings.add(Measured(base, ids, (1.0, 0.5, 0.0)))
    finals.standings.add(Measured(better, ids, (1.0, 0.7, 1.0)))
    assert sorted(rows, key=finals._contest) == rows
    assert max(rows, key=finals._contest) is rows[-1]


@pytest.mark.parametrize("tried", [0, 1, 5])
def test_where_nothing_is_offered_it_is_said_how_many_were_tried(tried):
    every = sorted((Candidate({"a": str(number)}) for number in range(tried + 1)), key=lambda one: one.key)
    base = every[len(every) // 2]
    ending = Ending.__new__(Ending)
    ending.session = SimpleNamespace(base=base, standings=[Measured(one, ("e",), (1.0,)) for one in every])
    shown = f": {tried}, all fell behind" if tried else "no candidate came so far"
    assert shown in ending._why_none()


def test_a_resumed_run_measures_as_many_rows_as_the_block_that_its_budget_had_left(tmp_path):
    """How far a block came that the budget cut off depends on timing; what was decided on is in the journal."""
    rows = [Example(text=f"w{n}", label="yes").with_inputs("text") for n in range(30)]

    def answer(messages):
        shown = any(message["role"] == "assistant" for message in messages)
        return f"[[ ## label ## ]]\n{'yes' if shown else 'no'}\n\n[[ ## completed ## ]]"

    def made():
        model = nn.Predict("text -> label").to(lm.FunctionLM(answer, name="shown"))
        return model, optim.LabeledFewShot(model.parameters(), k=2)

    model, optimizer = made()
    metric = exact_match
    Trainer(model, optimizer, metric=metric, run_dir=tmp_path, seed=0).fit(rows[:10], rows[10:])
    path = tmp_path / "journal.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    events = [parse(line) for line in lines]
    places = [at for at, event in enumerate(events) if event["kind"] == "evaluation"]
    assert [events[at]["examples"] for at in places] == [20, 20]
    for at in places:
        lines[at] = encode({**events[at], "examples": 7})
    path.write_bytes(b"".join(lines[: places[-1] + 1]))
    model, optimizer = made()
    result = Trainer.resume(tmp_path, model, optimizer, metric)
    assert (result.after.examples, result.spent.calls) == (7, 40)
