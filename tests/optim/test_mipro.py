import pytest

import promptgrad as pg
from promptgrad import Trainer, lm, nn, optim, run
from promptgrad.errors import NoLMError

SMALL = {"num_candidates": 3, "num_demo_sets": 2, "minibatch_size": 8, "full_eval_every": 3}


def fit(world, model, seed=5, train=24, val=60, run_dir=None, **options):
    options = {**SMALL, "num_trials": 8} | options
    optimizer = optim.MIPRO(model.parameters(), **options)
    trainer = Trainer(model, optimizer, metric=world.metric, seed=seed, run_dir=run_dir, ship="significant")
    return trainer.fit(world.examples(train), world.examples(val, seed=1))


@pytest.fixture
def model(world):
    return world.Program().to(lm.FunctionLM(world.answer, name="simulated"))


class TestSearch:
    def test_it_finds_the_right_pair_of_instructions(self, world, model):
        result = fit(world, model)
        assert result.shipped
        assert result.before.mean == 0.0
        assert result.after.mean == 1.0
        assert model.pick.instruction.data in ("Take the last word.", "Find the last one.")
        assert model.spell.instruction.data in ("Reverse the word.", "Spell it in reverse.")

    def test_a_seed_repeats_the_run(self, world, model):
        first = fit(world, model)
        again = fit(world, world.Program().to(lm.FunctionLM(world.answer, name="simulated")))
        assert [trial.details for trial in first.history] == [trial.details for trial in again.history]
        assert (first.values, first.calls) == (again.values, again.calls)

    def test_minibatches_are_shared_in_a_round_and_the_best_is_scored_in_full(self, world, model):
        result = fit(world, model, num_trials=6, seed=2)
        notes = [(trial.note, trial.examples) for trial in result.history]
        assert notes[:5] == [("baseline", 30), *[("minibatch", 8)] * 3, ("full", 30)]
        assert all(trial.details["choices"] for trial in result.history[1:])

    def test_a_minibatch_of_all_validation_data_is_a_full_validation(self, world, model):
        result = fit(world, model, minibatch_size=30)
        assert {trial.note for trial in result.history} == {"baseline", "minibatch"}
        assert result.shipped

    def test_only_instructions(self, world, model):
        result = fit(world, model, num_demo_sets=0)
        assert result.shipped
        assert set(result.values) <= {"pick.instruction", "spell.instruction"}

    def test_only_demos(self, world):
        model, data = world.single()
        model.to(lm.FunctionLM(world.answer))
        opt = optim.MIPRO(model.parameters(), num_candidates=0, num_trials=6, minibatch_size=10)
        result = Trainer(model, opt, metric=world.metric).fit(data[:20], data[20:])
        assert result.shipped
        assert set(result.values) == {"demos"}
        assert 2 <= len(model.demos.data) <= 4

    def test_as_many_different_sets_of_demos_are_drawn_as_asked_for(self, world, tmp_path):
        model, data = world.single()
        model.to(lm.FunctionLM(world.answer))
        opt = optim.MIPRO(model.parameters(), num_candidates=0, num_demo_sets=9, num_trials=1, minibatch_size=10)
        Trainer(model, opt, metric=world.metric, run_dir=tmp_path).fit(data[:20], data[20:])
        events = run.Journal(tmp_path / "journal.jsonl", readonly=True).events()
        assert [event["dimensions"] for event in events if event["kind"] == "space"] == [{"demos": 10}]

    def test_choices_that_require_a_gradient_are_searched(self, world):
        class Chooser(nn.Module):
            def __init__(self):
                super().__init__()
                self.way = pg.Parameter("copy", kind="choice", options=["copy", "turn", "drop"])
                self.spell = nn.Predict("word -> answer", instruction="Copy.")

            def forward(self, word):
                turned = {"copy": word, "turn": word[::-1], "drop": "x"}[self.way.data]
                return self.spell(word=turned)

        model = Chooser().to(lm.FunctionLM(world.answer))
        _, data = world.single()
        opt = optim.MIPRO([model.way, model.spell.demos], num_demo_sets=0, num_trials=4, minibatch_size=10)
        trainer = Trainer(model, opt, metric=world.metric)
        result = trainer.fit(data[:20], data[20:])
        assert result.outcome == "no candidate"
        assert "the choice parameter way kept the value as requires_grad is False: call requires_grad_()" in repr(
            result
        )
        model.way.requires_grad_()
        assert "4 minibatches of 10" in repr(trainer.plan(data[:20], data[20:]))
        result = trainer.fit(data[:20], data[20:])
        assert not any("requires_grad" in note for note in result.notes)
        assert result.values == {"way": "turn"}
        assert model.way.data == "turn"

    def test_minibatches_change_from_round_to_round_and_cover_the_data(self, world, model, monkeypatch):
        batches = {}
        evaluate = optim.Session.evaluate

        async def watch(session, candidate, examples, *, scope, replicate=0):
            if scope.endswith("minibatch"):
                batches[int(scope.split("/")[1])] = [example.id for example in examples]
            return await evaluate(session, candidate, examples, scope=scope, replicate=replicate)

        monkeypatch.setattr(optim.Session, "evaluate", watch)
        never = [lambda text: "no turning" if "everse" in text else None]  # or it would end, as all is right
        fit(world, model, num_trials=9, minibatch_size=10, num_demo_sets=3, max_bootstrapped_demos=1, constraints=never)
        rounds = {tuple(batches[number]) for number in batches}
        assert len(rounds) == 3
        assert len({key for batch in rounds for key in batch}) == 30

    def test_another_seed_tries_other_combinations(self, world):
        class Chooser(nn.Module):
            def __init__(self):
                super().__init__()
                for name in "abcd":
                    options = [f"{name}{number}" for number in range(4)]
                    self.register_parameter(name, pg.Parameter(options[0], kind="choice", options=options))
                self.requires_grad_()

            def forward(self, word):
                return " ".join(p.data for p in (self.a, self.b, self.c, self.d))

        def tried(seed):
            model = Chooser()
            opt = optim.MIPRO(model.parameters(), num_trials=6)
            rows = [pg.Example(word=str(number)).with_inputs("word") for number in range(40)]
            trainer = Trainer(model, opt, metric=lambda example, output: len(set(output)) / 20, seed=seed)
            result = trainer.fit(rows[:10], rows[10:])
            return [tuple(trial.details["choices"].values()) for trial in result.history if trial.note == "minibatch"]

        assert tried(0) == tried(0)
        assert tried(0) != tried(1)

    def test_tpe_sees_the_same_of_minibatches_of_any_difficulty(self, world, model):
        """Half of the rows are hard; who gains as much on the hard as another on the easy ones is worth as much."""
        from promptgrad.optim._mipro_trials import shrunken
        from promptgrad.search import Candidate, Measured, Session

        journal = pg.run.Journal()
        session = Session(
            model=model, train=world.examples(4), val=world.examples(40, seed=1), metric=world.metric, seed=0,
            journal=journal, ledger=pg.run.Ledger(pg.Budget(), journal), progress=False,
        )  # fmt: skip
        ids = tuple(example.id for example in session.val)
        session.baseline = Measured(session.base, ids, (0.25,) * 20 + (0.75,) * 20)
        hard, easy = Candidate({"x": "hard"}), Candidate({"x": "easy"})
        for measured in (
            session.baseline,
            Measured(hard, ids[:20], (0.5, 0.25) * 10),
            Measured(easy, ids[20:], (1.0, 0.75) * 10),
        ):
            session.standings.add(measured)
        on_hard, on_easy = (shrunken(session, session.standings.of(one)) for one in (hard, easy))
        assert on_hard == pytest.approx(on_easy)
        assert 0.5 < on_easy <= 0.625

    def test_nothing_to_search(self, world, model):
        result = fit(world, model, num_candidates=0, num_demo_sets=0)
        assert result.outcome == "no candidate"
        assert [trial.note for trial in result.history] == ["baseline"]
        assert result.notes == ("there was nothing to search: no parameter had more than one value to try",)

    def test_sizes_of_dspy(self, world):
        model = world.Program()
        light, heavy = (optim.MIPRO(model.parameters(), auto=auto) for auto in ("light", "heavy"))
        assert (light.num_candidates, light.num_demo_sets, light.minibatch_size) == (3, 5, 35)
        assert (heavy.num_candidates, heavy.num_demo_sets, heavy.minibatch_size) == (9, 17, 35)
        zero_shot = optim.MIPRO(model.parameters(), auto="medium", num_demo_sets=0)
        assert (zero_shot.num_candidates, zero_shot.num_demo_sets) == (12, 0)
        single, _ = world.single()
        assert optim.MIPRO(single.parameters(), auto="light").trials([4, 6]) == 10
        assert optim.MIPRO(single.parameters(), auto="light", num_trials=3).trials([4, 6]) == 3

    def test_with_auto_a_large_validation_set_is_cut_and_a_small_one_is_a_minibatch(self, world, model):
        opt = optim.MIPRO(model.parameters(), auto="light", num_trials=2)
        assert "2 minibatches of 30" in repr(
            Trainer(model, opt, metric=world.metric, ship="significant", confirm=10).plan(
                world.examples(9), world.examples(40)
            )
        )
        plan = Trainer(model, opt, metric=world.metric, ship="significant", confirm=10).plan(
            world.examples(9), world.examples(400)
        )
        assert "2 minibatches of 35" in repr(plan)
        assert "1 full validations of 100" in repr(plan)

    def test_unknown_sizes_and_habits(self, world):
        with pytest.raises(ValueError, match='auto is "light", "medium" or "heavy"'):
            optim.MIPRO(world.Program().parameters(), auto="huge")
        with pytest.raises(TypeError, match="MIPRO has no argument 'prompt_model': write lm="):
            optim.MIPRO(world.Program().parameters(), prompt_model="m")


class TestWrittenAnew:
    def test_after_each_round_but_the_last_with_the_rows_of_the_best_so_far(self, world, tmp_path):
        asked = []

        def answer(messages):
            if "[[ ## tip ## ]]" in messages[-1].content:
                asked.append(messages[-1].content)
                return f"[[ ## new_instruction ## ]]\nTry {len(asked)}.\n\n[[ ## completed ## ]]"
            return world.answer(messages)

        model = world.Program().to(lm.FunctionLM(answer, name="simulated"))
        fit(world, model, num_candidates=1, num_demo_sets=0, num_trials=6, num_rewrites=1, run_dir=tmp_path / "run")
        assert len(asked) == 4  # two modules, two rounds of three
        assert "answer" in asked[0]
        events = list(run.Journal(tmp_path / "run" / "journal.jsonl", readonly=True).canonical())
        spaces = [event["dimensions"] for event in events if event["kind"] == "space"]
        assert [list(space.values()) for space in spaces] == [[2, 2], [3, 3]]
        fresh = [event for event in events if event["kind"] == "trial" or event["kind"] == "candidate"]
        assert any("Try 3." in str(event) for event in fresh)

    def test_each_of_all_rounds_is_another_sample(self, world, model):
        asked = []

        def write(request):
            asked.append(request.options().get("replicate", 0))
            return world.answer(list(request.messages))

        never = [lambda text: "no turning" if "everse" in text else None]  # or it would end, as all is right
        options = {"num_candidates": 2, "num_demo_sets": 2, "num_rewrites": 2, "num_trials": 12, "constraints": never}
        fit(world, model, lm=lm.FunctionLM(write, name="writer"), **options)
        assert sorted(asked) == sorted([*range(8)] * 2)  # two at first and two after each of three rounds, twice

    def test_none_on_request(self, world, model, tmp_path):
        fit(world, model, num_rewrites=0, num_trials=6, run_dir=tmp_path / "run")
        events = list(run.Journal(tmp_path / "run" / "journal.jsonl", readonly=True).canonical())
        assert sum(event["kind"] == "space" for event in events) == 1


class TestTheMirror:
    def trials(self, path):
        optuna = pytest.importorskip("optuna")
        storage = f"sqlite:///{path}"
        return {
            name: optuna.load_study(study_name=name, storage=storage).trials
            for name in optuna.get_all_study_names(storage)
        }

    def test_the_trials_of_the_journal_are_in_an_optuna_study(self, world, model, tmp_path):
        result = fit(world, model, num_trials=6, storage=f"sqlite:///{tmp_path / 'mipro.db'}")
        [(name, trials)] = self.trials(tmp_path / "mipro.db").items()
        assert name.startswith("MIPRO ")
        ours = [trial for trial in result.history if trial.note in ("minibatch", "full")]
        assert [trial.user_attrs["mean"] for trial in trials] == [trial.score for trial in ours]
        assert [trial.params for trial in trials] == [dict(trial.details["choices"]) for trial in ours]
        assert [trial.user_attrs["stage"] for trial in trials] == [trial.note for trial in ours]

    def test_a_run_that_is_made_again_or_resumed_adds_nothing_twice(self, world, tmp_path):
        def made(seed=5, **options):
            model = world.Program().to(lm.FunctionLM(world.answer, name="simulated"))
            fit(world, model, seed=seed, num_trials=6, storage=f"sqlite:///{tmp_path / 'mipro.db'}", **options)
            return {name: len(trials) for name, trials in self.trials(tmp_path / "mipro.db").items()}

        first = made()
        assert made() == first
        assert made(run_dir=tmp_path / "run") == first
        again = world.Program().to(lm.FunctionLM(world.answer, name="simulated"))
        opt = optim.MIPRO(again.parameters(), **SMALL, num_trials=6, storage=f"sqlite:///{tmp_path / 'mipro.db'}")
        Trainer.resume(tmp_path / "run", again, opt, world.metric)
        assert {name: len(trials) for name, trials in self.trials(tmp_path / "mipro.db").items()} == first
        assert len(made(seed=6)) == 2
        assert len(made(val=50)) == 3  # other examples

    def test_the_search_is_the_same_without_it(self, world, tmp_path):
        def digest(name, **options):
            model = world.Program().to(lm.FunctionLM(world.answer, name="simulated"))
            fit(world, model, run_dir=tmp_path / name, **options)
            return run.Journal(tmp_path / name / "journal.jsonl", readonly=True).digest()

        assert digest("with", storage=f"sqlite:///{tmp_path / 'mipro.db'}") == digest("without")

    def test_a_storage_that_cannot_be_opened_is_an_error_before_the_trials(self, world, model, tmp_path):
        with pytest.raises(Exception, match="unable to open database"):
            fit(world, model, storage=f"sqlite:///{tmp_path / 'no' / 'mipro.db'}")


class TestProposals:
    def test_examples_styles_and_samples_differ_and_all_is_journalled(self, world, model, tmp_path):
        asked = []

        def spying(messages):
            if "[[ ## tip ## ]]" in messages[-1].content:
                asked.append(messages[-1].content)
            return world.answer(messages)

        model.to(lm.FunctionLM(spying))
        opt = optim.MIPRO(model.parameters(), num_candidates=4, num_demo_sets=0, num_trials=2)
        trainer = Trainer(model, opt, metric=world.metric, run_dir=tmp_path / "run")
        trainer.fit(world.examples(24), world.examples(40, seed=1))
        assert len(asked) == len(set(asked)) == 8
        assert "spell: word -> answer" in asked[0]  # the program's modules
        events = list(run.Journal(tmp_path / "run" / "journal.jsonl", readonly=True).canonical())
        proposals = [event for event in events if event["kind"] == "proposal"]
        assert len(proposals) == 8
        assert any(event["refused"] == "it was proposed before" for event in proposals)

    def test_each_is_another_sample(self, world, model):
        class Writer(lm.LM):
            name = "writer"

            async def complete(self, request):
                asked.append(request.replicate)
                return lm.Completion(world.answer([{"role": m.role, "content": m.content} for m in request.messages]))

        asked = []
        fit(world, model, num_candidates=3, num_demo_sets=0, num_rewrites=0, lm=Writer())
        assert sorted(asked) == [0, 0, 1, 1, 2, 2]

    def test_each_proposal_is_another_sample(self, world, model):
        asked = []

        def write(request):
            asked.append(request.options().get("replicate", 0))
            return world.answer(list(request.messages))

        fit(world, model, lm=lm.FunctionLM(write, name="writer"), num_trials=1, num_demo_sets=0)
        assert sorted(asked) == [0, 0, 1, 1, 2, 2]  # for each of two modules

    def test_a_writer_of_its_own(self, world, model):
        writer = lm.FunctionLM(lambda messages: world.answer(messages), name="writer")
        with pg.track_usage():
            result = fit(world, model, lm=writer)
        assert result.shipped

    def test_constraints_keep_texts_out(self, world, model):
        result = fit(
            world, model, num_demo_sets=0, constraints=[lambda text: "no turning" if "everse" in text else None]
        )
        assert not any("everse" in str(value) for trial in result.history for value in trial.candidate.values.values())

    def test_a_writer_that_is_down_stops_the_run_to_be_resumed(self, world, model):
        from promptgrad.errors import LMConnectionError

        def down(messages):
            raise LMConnectionError("refused")

        with pytest.raises(LMConnectionError):
            fit(world, model, lm=lm.FunctionLM(down))
        assert model.pick.instruction.data.startswith("Given the fields")

    def test_no_lm_at_all(self, world):
        with pytest.raises(NoLMError):
            fit(world, world.Program())


class TestBudget:
    def test_a_small_budget_pays_for_trials_and_measures_the_best_in_full(self, world, model):
        """After the start it pays for some 60 runs: the usual sizes would leave room for one trial, or for none."""
        optimizer = optim.MIPRO(model.parameters())
        trainer = Trainer(model, optimizer, metric=world.metric, seed=6, budget=pg.Budget(calls=140))
        result = trainer.fit(world.examples(24), world.examples(40, seed=1))
        trials = [trial for trial in result.history if trial.note == "minibatch"]
        assert {trial.examples for trial in trials} == {14}
        assert trials[0].details["choices"] == {"pick.instruction": 1, "spell.instruction": 1}  # both are needed
        assert result.shipped
        assert result.measured.examples == 40

    def test_a_large_one_changes_no_size(self, world, model):
        optimizer = optim.MIPRO(model.parameters(), num_trials=4)
        trainer = Trainer(model, optimizer, metric=world.metric, seed=6, budget=pg.Budget(calls=2000))
        result = trainer.fit(world.examples(24), world.examples(40, seed=1))
        assert {trial.examples for trial in result.history if trial.note == "minibatch"} == {25}


@pytest.mark.parametrize("options", [{"num_candidates": -1}, {"num_trials": 0}, {"minibatch_size": 0}])
def test_numbers_out_of_range(world, options):
    with pytest.raises(ValueError, match="at least"):
        optim.MIPRO(world.Program().parameters(), **options)


def test_trials_grow_with_the_space():
    opt = optim.MIPRO([pg.Parameter("x")])
    assert opt.trials([6]) == 9  # as DSPy: 1.5 times the choices, or
    assert opt.trials([6, 6]) == 10  # twice the dimensions times log2 of the choices
    assert opt.trials([18, 18]) == 27


def test_a_writer_that_is_a_function_and_raises_is_a_language_model_without_an_answer(world):
    def down(messages):
        raise ConnectionError("no route")

    model = world.Program().to(lm.FunctionLM(world.answer, name="simulated"))
    with pytest.raises(pg.errors.LMError, match="ConnectionError: no route") as caught:
        fit(world, model, lm=lm.FunctionLM(down, name="down"))
    assert isinstance(caught.value.__cause__, ConnectionError)
