"""RandomSearch: DSPy's candidates, raced on validation rows."""

import re

import pytest

import promptgrad as pg
from promptgrad import lm, optim, run


def trained(world, run_dir=None, answer=None, budget=None, **options):
    """A program of one step, which is right where its demos show how, and what the search made of it."""
    model, data = world.single()
    model.to(lm.FunctionLM(answer or world.answer, name="simulated"))
    options = {"num_candidate_programs": 6} | options
    opt = optim.RandomSearch(model.parameters(), **options)
    trainer = pg.Trainer(model, opt, metric=world.metric, seed=3, run_dir=run_dir, budget=budget)
    return model, trainer.fit(data[:30], data[30:])


def events(path, kind):
    return [event for event in run.Journal(path / "journal.jsonl", readonly=True).events() if event["kind"] == kind]


class TestSearch:
    def test_demos_are_found_and_the_instruction_stays(self, world, tmp_path):
        model, result = trained(world, run_dir=tmp_path / "run")
        assert result.shipped
        assert set(result.values) == {"demos"}
        assert 1 <= len(model.demos.data) <= 16

    def test_the_candidates_are_those_of_dspy(self, world, tmp_path):
        trained(world, run_dir=tmp_path / "run")
        origins = [event["origin"] for event in events(tmp_path / "run", "candidate")]
        assert origins[0] == "start"
        raced = [
            origin for origin in origins if origin in ("labelled demos only", "the first traces") or "draw" in origin
        ]
        assert raced[:2] == ["labelled demos only", "the first traces"]
        assert len(raced) == 8

    def test_zero_shot_is_tried_where_the_program_has_demos(self, world, tmp_path):
        model, data = world.single()
        model.to(lm.FunctionLM(world.answer, name="simulated"))
        model.demos.data = [data[0]]
        opt = optim.RandomSearch(model.parameters(), num_candidate_programs=0, max_labeled_demos=0)
        pg.Trainer(model, opt, metric=world.metric, run_dir=tmp_path / "run").fit(data[:30], data[30:])
        assert "no demos" in [event["origin"] for event in events(tmp_path / "run", "candidate")]

    def test_a_candidate_that_falls_behind_is_not_scored_on_everything(self, world, tmp_path):
        def teacher(messages):
            word = world.sections(messages[-1]["content"])["word"]
            return f"[[ ## answer ## ]]\n{word[::-1]}\n\n[[ ## completed ## ]]"

        _, result = trained(  # the simulated model learns from two demos, and not from one
            world, teacher=lm.FunctionLM(teacher, name="teacher"), max_labeled_demos=0, num_candidate_programs=12
        )
        sizes = {len(trial.candidate.values["demos"]): trial for trial in result.history if trial.candidate.values}
        assert {size for size, trial in sizes.items() if trial.note == "fell behind"} == {1}
        assert sizes[1].examples == 10
        assert sizes[4].note == "raced to the end"
        assert result.shipped

    def test_a_budget_is_spent_on_further_draws(self, world, tmp_path):
        answer = "[[ ## answer ## ]]\nno\n\n[[ ## completed ## ]]"  # never right, so that no race ends it
        model, data = world.single()
        model.to(lm.FunctionLM(lambda messages: answer))
        opt = optim.RandomSearch(model.parameters(), num_candidate_programs=4)
        trainer = pg.Trainer(model, opt, metric=world.metric, budget=pg.Budget(calls=600), run_dir=tmp_path / "run")
        result = trainer.fit(data[:30], data[30:])
        assert 500 < result.calls <= 600
        raced = {event["at"].split("/")[1] for event in events(tmp_path / "run", "race")}
        assert {"0", "1", "2"} <= raced

    def test_without_a_right_run_or_a_label_there_is_nothing_to_try(self, world):
        model, data = world.single()
        model.to(lm.FunctionLM(lambda messages: "[[ ## answer ## ]]\nno\n\n[[ ## completed ## ]]"))
        rows = [pg.Example(word=row.word, other=row.answer).with_inputs("word") for row in data]
        opt = optim.RandomSearch(model.parameters())
        result = pg.Trainer(model, opt, metric=lambda example, output: output.answer == example.other).fit(rows)
        assert not result.shipped
        assert any("give a stronger teacher" in note for note in result.notes)

    def test_a_budget_that_ends_in_the_race_leaves_what_was_measured(self, world):
        _, result = trained(world, budget=pg.Budget(calls=150))
        assert result.calls <= 150

    def test_what_a_small_budget_pays_for_is_raced_instead_of_nothing(self, world, tmp_path):
        _, result = trained(world, budget=pg.Budget(calls=100), num_candidate_programs=16, run_dir=tmp_path / "run")
        assert 80 < result.calls <= 100
        raced = events(tmp_path / "run", "race")
        assert len(raced) >= 2
        assert 2 <= len(raced[0]["chances"]) < 18
        assert len(raced[-1]["chances"]) <= len(raced[0]["chances"])

    def test_of_a_field_that_the_budget_does_not_pay_for_the_best_is_run_on_every_row(self, world):
        _, result = trained(world, budget=pg.Budget(calls=130), num_candidate_programs=16)
        rows = [trial.examples for trial in result.history[1:]]
        assert len(rows) > 2
        assert max(rows) == result.before.examples > min(rows)


class TestHabits:
    @pytest.mark.parametrize(
        ("argument", "hint"),
        [
            ("metric", "Trainer"),
            ("teacher_settings", "teacher="),
            ("num_threads", "concurrency="),
            ("metric_threshold", "threshold="),
            ("stop_at_score", "nothing:"),
            ("restrict", "nothing:"),
        ],
    )
    def test_what_users_of_dspy_write_gets_a_hint(self, world, argument, hint):
        model, _ = world.single()
        with pytest.raises(TypeError, match=f"RandomSearch has no argument '{argument}': write .*{re.escape(hint)}"):
            optim.RandomSearch(model.parameters(), **{argument: 1})

    @pytest.mark.parametrize(
        "options", [{"max_bootstrapped_demos": 0}, {"max_rounds": 0}, {"num_candidate_programs": -1}]
    )
    def test_options_out_of_range(self, world, options):
        with pytest.raises(ValueError, match="not"):
            optim.RandomSearch(world.single()[0].parameters(), **options)

    def test_it_has_the_name_of_dspy_as_well(self):
        assert optim.BootstrapFewShotWithRandomSearch is optim.RandomSearch
