"""The study of prompts, weights and both: real runs of each kind, and the table."""

import json
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"

pytest.importorskip("peft")


@pytest.fixture
def study(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    import finetune_tasks

    return finetune_tasks


def line(task, method, seed, score):
    return {"task": task, "method": method, "seed": seed, "start": 0.1, "score": score, "spent": 100}


def test_runs_are_as_many_and_of_the_same_program(study, monkeypatch):
    monkeypatch.setattr(study, "STEPS", 2)
    lines = [study.one_run((method, "largest", 1000, 32, 8))[0] for method in study.AFTER]
    assert [each["spent"] for each in lines] == [32] * 4
    assert len({each["start"] for each in lines}) == 1
    assert all(0 < each["right"] < 1 for each in lines)
    json.dumps(lines)


def test_a_program_of_six_calls_whose_runs_are_never_wholly_right(study, monkeypatch):
    monkeypatch.setattr(study, "STEPS", 2)
    greedy, sampled, best, grpo = (
        study.one_run((method, "each-color", 1000, 16, 4))[0]
        for method in ("sft-greedy", "sft-sampled", "sft-best", "grpo")
    )
    assert [each["spent"] for each in (greedy, sampled, best, grpo)] == [16] * 4
    assert len({each["start"] for each in (greedy, sampled, best, grpo)}) == 1
    for line in (greedy, sampled):
        assert (line["right"], line["samples"], line["score"]) == (0, 0, line["start"])
    assert 0 < best["samples"] < 16 * study.EACH
    task = study.Each("each-color", 1000)
    train, val, test = task.split(20, 1, 20)
    assert len({row.text for row in (*train, *val, *test)}) == 41
    assert task.metric(train[0], train[0].answer) == 1
    assert task.metric(train[0], "grey") <= 1 / study.EACH


def test_prompts_and_weights_share_one_budget(study, monkeypatch):
    monkeypatch.setattr(study, "STEPS", 2)
    monkeypatch.setattr(study, "TRAIN", 8)
    monkeypatch.setattr(study, "VAL", 8)
    (found,) = study.one_run(("p -> w", "label-map-color", 1000, 60, 8))
    assert 0 < found["spent"] <= 60
    assert 0 <= found["score"] <= 1


def test_long_texts_are_new_and_without_a_prompt_there_is_nothing_to_learn(study, monkeypatch):
    task = study.Long("long-rest", 1000)
    rows = [row for part in task.split(20, 10, 10) for row in part]
    assert len({row.text for row in rows}) == 40
    assert {len(row.text.split()) for row in rows} == {8, 9, 10}
    assert all(row.answer.split() == row.text.split()[1:] for row in rows)
    monkeypatch.setattr(study, "LONG_TRAIN", 16)
    monkeypatch.setattr(study, "VAL", 8)
    (found,) = study.one_run(("weights", "long-rest", 1000, 100, 8))
    assert (found["start"], found["score"], found["outcome"]) == (0, 0, "nothing to learn")
    assert 16 <= found["spent"] <= 100


def test_differences_are_paired_by_seed_and_a_seed_that_lacks_a_method_is_left_out(study):
    lines = [line("sum", "p -> w", seed, 0.6 + seed / 100) for seed in range(4)]
    lines += [line("sum", "prompts", seed, 0.5 + seed / 100) for seed in range(3)]
    lines += [line("sum", "weights", seed, 0.9 - seed / 100) for seed in range(3)]
    found = study.summary(lines)["sum"]
    assert found["seeds"] == [0, 1, 2]
    assert found["differences"]["p -> w minus prompts"] == [10.0, 10.0, 10.0]
    mean, low, high = found["differences"]["p -> w minus weights"]
    assert mean == -28.0
    assert low < mean < high
    assert "| sum | 3 | 10.0 | 51.0 | 89.0 | 61.0 | +10.0 [+10.0, +10.0] |" in study.table(lines)
