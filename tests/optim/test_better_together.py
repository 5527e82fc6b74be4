"""BetterTogether: optimizers one after another."""

import copy

import pytest

import promptgrad as pg
from promptgrad import Trainer, lm, nn, optim, run
from promptgrad.errors import DataError, GraphError
from promptgrad.search import Candidate
from tests.waiting import interrupted


def program(world, answer=None):
    return world.Program().to(lm.FunctionLM(answer or world.answer, name="simulated"))


SKILLS = {"last": ("[[ ## text ## ]]", "Take the last word. "), "turn": ("[[ ## word ## ]]", "Reverse the word. ")}


class Trained(optim.Search):
    """Stands for the training of weights: the program on an LM that can do one of the steps by itself."""

    def __init__(self, params, world, skill, answer=None):
        super().__init__(params)
        self.skill, self._answer = skill, answer or world.answer

    def skilled(self, messages):
        field, hint = SKILLS[self.skill]
        rows = [{"role": m.role, "content": m.content} for m in messages]
        if rows[-1]["content"].startswith(field):
            rows[0]["content"] = hint + rows[0]["content"]
        return self._answer(rows)

    async def fit(self, session):
        other = copy.deepcopy(session.program()).to(lm.FunctionLM(self.skilled, name="trained"))
        candidate = Candidate(session.base.values, "other weights", other, "w", (session.base,))
        measured = await session.evaluate(candidate, session.val, scope="weights")
        session.trial(measured)
        session.offer(measured)

    def expected_calls(self, plan):
        return [("train", 7, True)]


class Fixed(optim.Search):
    """Offers given values over the base, as they are."""

    kinds = ("instruction",)

    def __init__(self, params, *values, error=None):
        super().__init__(params)
        self._values, self._error, self.bases = values, error, []

    async def fit(self, session):
        self.bases.append(session.base)
        if self._error is not None:
            raise self._error
        for number, values in enumerate(self._values):
            candidate = session.base.child(values, f"value {number}")
            measured = await session.evaluate(candidate, session.val, scope=f"fixed/{number}")
            session.trial(measured)
            session.offer(measured)


LAST = {"pick.instruction": "Take the last word."}
TURN = {"spell.instruction": "Reverse the word."}
WORSE = {"pick.instruction": "Take the first word, please.", "spell.instruction": "Shuffle."}


def mipro(module):
    options = {"num_candidates": 3, "num_demo_sets": 0, "num_trials": 4, "minibatch_size": 10, "full_eval_every": 2}
    return optim.MIPRO(module.parameters(), **options)


def together(world, model, strategy="p -> w", answer=None):
    """The optimizer that comes first does the first step, and the other one the second."""
    module, skill = (model.pick, "turn") if strategy.startswith("p") else (model.spell, "last")
    weights = Trained(model.parameters(), world, skill, answer)
    return optim.BetterTogether(strategy, p=mipro(module), w=weights)


def fit(world, model, opt, **options):
    options = {"metric": world.metric, "seed": 5, "ship": "significant", **options}
    return Trainer(model, opt, **options).fit(world.examples(24), world.examples(60, seed=1))


class TestPhases:
    @pytest.mark.parametrize("strategy", ["p -> w", "w -> p", "w -> p -> w"])
    def test_prompts_and_weights_together_solve_what_neither_does_alone(self, world, strategy):
        for alone in ("p", "w"):
            model = program(world)
            opt = together(world, model, strategy).optimizers[alone]
            assert fit(world, model, opt).after.mean <= 0.5
        model = program(world)
        result = fit(world, model, together(world, model, strategy))
        assert result.shipped
        assert result.after.mean == 1.0
        (path,) = result.values
        assert model.get_parameter(path).data == result.values[path]
        assert model.pick.lm.name == "trained"
        assert result.program is model

    def test_each_phase_starts_from_the_best_so_far_and_keeps_it(self, world):
        model = program(world)
        first, worse, last = Fixed([model.pick.instruction], LAST), Fixed(model.parameters(), WORSE), None
        last = Fixed([model.spell.instruction], TURN)
        opt = optim.BetterTogether("a -> b -> c", a=first, b=worse, c=last)
        result = fit(world, model, opt)
        assert [base.values for each in (first, worse, last) for base in each.bases] == [{}, LAST, LAST]
        assert result.values == {**LAST, **TURN}
        assert result.candidate.parents[0].values == LAST
        assert result.candidate.parents[0].parents[0].values == {}

    def test_gradients_are_of_the_trained_program(self, world):
        model = program(world)
        tgd = optim.TGD(model.parameters(), steps=2, batch_size=6, proposals=2)
        result = fit(world, model, optim.BetterTogether("w -> t", w=Trained(model.parameters(), world, "last"), t=tgd))
        assert result.shipped
        assert result.after.mean == 1.0
        assert all(parameter.grad is None for parameter in model.parameters())

    def test_it_ends_when_all_is_right(self, world):
        model = program(world)
        never = Fixed(model.parameters(), WORSE)
        opt = optim.BetterTogether("a -> b", a=Fixed(model.parameters(), {**LAST, **TURN}), b=never)
        assert fit(world, model, opt).shipped
        assert never.bases == []

    def test_a_name_may_come_again_with_chance_of_its_own(self, world):
        model = program(world)
        seeds = []

        class Noting(Fixed):
            async def fit(self, session):
                seeds.append(session.seed)
                await super().fit(session)

        fit(world, model, optim.BetterTogether("a -> a", a=Noting(model.parameters(), WORSE)))
        assert len(set(seeds)) == 2

    def test_the_best_of_each_phase_is_confirmed_also_where_the_budget_ends_in_one(self, world):
        model = program(world)
        many = [{"spell.instruction": f"Copy {number}."} for number in range(40)]
        opt = optim.BetterTogether(
            "a -> b", a=Fixed(model.parameters(), LAST), b=Fixed(model.parameters(), {**LAST, **TURN}, *many)
        )
        result = fit(world, model, opt, budget=pg.Budget(calls=500))
        assert any("the search ended" in note for note in result.notes)
        assert result.shipped
        assert result.values == {**LAST, **TURN}

    def test_after_a_first_phase_that_cannot_learn_the_next_one_runs(self, world):
        model = program(world)
        broken = Fixed(model.parameters(), error=DataError("no example has the fields"))
        found = Fixed(model.parameters(), LAST)
        result = fit(world, model, optim.BetterTogether("b -> a", b=broken, a=found))
        assert "phase 1-b found nothing: no example has the fields" in result.notes
        assert result.values == LAST

    def test_where_no_phase_can_learn_the_first_reason_is_raised(self, world):
        model = program(world)
        first, second = (Fixed(model.parameters(), error=DataError(why)) for why in ("no label", "no run went right"))
        with pytest.raises(DataError, match="no label"):
            fit(world, model, optim.BetterTogether("a -> b", a=first, b=second))

    def test_a_phase_that_cannot_learn_is_noted(self, world):
        model = program(world)
        found, broken = Fixed(model.parameters(), LAST), Fixed(model.parameters(), error=DataError("no run went right"))
        result = fit(world, model, optim.BetterTogether("a -> b", a=found, b=broken))
        assert "phase 2-b found nothing: no run went right" in result.notes
        assert result.values == LAST
        model = program(world)
        broken = Fixed(model.parameters(), error=DataError("no run went right"))
        with pytest.raises(DataError, match="no run went right"):
            fit(world, model, optim.BetterTogether("b", b=broken))

    def test_another_structure_has_none_of_the_parameters(self, world):
        model = program(world)
        first = optim.Ensemble(Either([model.pick.instruction]), size=6)
        result = fit(world, model, optim.BetterTogether("e -> p", e=first, p=mipro(model.spell)))
        if isinstance(result.candidate.program, nn.Ensemble):
            assert any("2-p was left out" in note for note in result.notes)


class Either(Fixed):
    """One of two instructions, by chance."""

    async def fit(self, session):
        self._values = ({"pick.instruction": f"Take the last word{session.rng('either').choice('.!')}"},)
        await super().fit(session)


class TestResume:
    @pytest.mark.parametrize("after", [70, 110, 150])
    def test_a_run_that_stopped_goes_on_to_the_same_journal(self, world, tmp_path, after):
        asked = []

        def stopping(messages):
            asked.append(messages)
            if len(asked) == after:
                return interrupted()
            return world.answer(messages)

        model = program(world, stopping)
        with pytest.raises(KeyboardInterrupt):
            fit(world, model, together(world, model, "w -> p -> w", stopping), run_dir=tmp_path / "stopped")
        model = program(world)
        whole = fit(world, model, together(world, model, "w -> p -> w"), run_dir=tmp_path / "whole")
        model = program(world)
        opt = together(world, model, "w -> p -> w")
        resumed = Trainer.resume(tmp_path / "stopped", model, opt, world.metric)
        assert (resumed.outcome, resumed.values, resumed.calls) == ("shipped", whole.values, whole.calls)
        names = ("stopped", "whole")
        digests = {run.Journal(tmp_path / name / "journal.jsonl", readonly=True).digest() for name in names}
        assert len(digests) == 1


class TestSettings:
    def test_the_plan_names_the_phases(self, world):
        model = program(world)
        plan = Trainer(model, together(world, model, "p -> w"), metric=world.metric).plan(
            world.examples(24), world.examples(60, seed=1)
        )
        names = [phase.name for phase in plan.phases]
        assert "1-p: propose" in names
        assert "2-w: train" in names

    def test_config_holds_the_optimizers(self, world):
        model = program(world)
        config = together(world, model).config()
        assert config["strategy"] == "p -> w"
        assert config["optimizers"]["p"]["num_candidates"] == 3
        assert config["optimizers"]["w"]["optimizer"] == "Trained"
        assert config == together(world, program(world)).config()
        assert "strategy='p -> w'" in repr(together(world, model))

    def test_what_does_not_fit_is_refused(self, world):
        model = program(world)
        with pytest.raises(ValueError, match=r"not given: w; not in the strategy: x"):
            optim.BetterTogether("p -> w", p=mipro(model.spell), x=mipro(model.spell))
        with pytest.raises(ValueError, match=r"not given: \(nothing\)"):
            optim.BetterTogether("p ->", p=mipro(model.spell))
        with pytest.raises(TypeError, match="p= is an optimizer"):
            optim.BetterTogether("p", p=optim.MIPRO)
        model.requires_grad_(False)
        with pytest.raises(GraphError, match="MIPRO has nothing to train"):
            fit(world, model, together(world, model))
