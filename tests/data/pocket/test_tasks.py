"""The task world: seeded, disjoint, scored, and closed under its own vocabulary."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from random import Random
from types import SimpleNamespace

import pytest

from promptgrad.data import pocket
from promptgrad.data.pocket import _episodes as episodes
from promptgrad.data.pocket._ops import HELD_OUT_COMPOSITIONS, HELD_OUT_FAMILIES, OPS, is_test_text
from promptgrad.data.pocket._phrases import VAGUE, is_test_sentence, phrase_table
from promptgrad.errors import DataError

SOME = [name for i, name in enumerate(pocket.tasks()) if i % 7 == 0]


@pytest.mark.parametrize("name", SOME)
def test_a_seed_repeats_a_split_and_another_does_not(name: str) -> None:
    first, again = pocket.task(name, seed=1).split(8, 8, 8), pocket.task(name, seed=1).split(8, 8, 8)
    assert first == again
    assert first != pocket.task(name, seed=2).split(8, 8, 8)


def test_a_seed_repeats_a_split_in_another_process() -> None:
    code = "from promptgrad.data import pocket; print([e.id for e in pocket.task('sum', seed=5).split(3, 3, 3)[2]])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == str([e.id for e in pocket.task("sum", seed=5).split(3, 3, 3)[2]])


@pytest.mark.parametrize("name", pocket.tasks())
def test_every_task_has_disjoint_splits_that_its_metric_and_the_vocabulary_accept(name: str) -> None:
    task = pocket.task(name)
    train, val, test = task.split()
    assert [len(part) for part in (train, val, test)] == [64, 64, 200]
    texts = [tuple(e.inputs().values()) for e in (*train, *val, *test)]
    assert len(set(texts)) == len(texts)
    assert all(is_test_text({k: v.split() for k, v in e.inputs().items()}) for e in test)
    assert not any(is_test_text({k: v.split() for k, v in e.inputs().items()}) for e in (*train, *val))
    for e in (*train[:5], *test[:5]):
        assert e.input_keys == task.inputs
        assert task.metric(e, e.answer) == 1
        assert pocket.inside(" ".join([*e.inputs().values(), e.answer, task.reasoning(e)]))
    for level in pocket.LEVELS:
        for step in range(len(task.steps)):
            assert pocket.inside(task.instruction(level, seed=3, step=step))


@pytest.mark.parametrize("name", [name for name, op in OPS.items() if episodes.rivals(op)])
def test_a_rivals_answer_is_mostly_rejected(name: str) -> None:
    r, op, wrong = Random(0), OPS[name], 0
    for _ in range(100):
        fields = op.draw(r)
        example = pocket.task(name).split(1, 0, 0)[0][0].copy(answer=" ".join(op.solve(fields).answer))
        wrong += pocket.metric(example, " ".join(r.choice(episodes.rivals(op)).solve(fields).answer)) == 0
    assert wrong >= 60


def test_the_metric_reads_text_objects_and_mappings_and_says_what_was_expected() -> None:
    example = pocket.task("color-of-last").split(1, 0, 0)[0][0]
    assert pocket.metric(example, SimpleNamespace(answer=example.answer)) == 1
    assert pocket.metric(example, {"answer": f" {example.answer} "}) == 1
    score = pocket.metric(example, "wolf")
    assert score == 0
    assert score.feedback == f"the answer should be {example.answer}"


def test_names_are_explained() -> None:
    with pytest.raises(DataError, match="Did you mean 'color-of-last'"):
        pocket.task("colour-of-last")
    with pytest.raises(DataError, match="the levels are"):
        pocket.task("sum").instruction("exact")
    with pytest.raises(DataError, match="step"):
        pocket.task("sum").instruction(step=1)
    with pytest.raises(DataError, match="ask for smaller splits"):
        pocket.task("label-map-kind").split(10**4, 0, 0)


def test_a_chain_is_its_two_steps() -> None:
    task = pocket.task("chain-color-of-last")
    assert task.steps == ("last", "color")
    for e in task.split(20, 0, 0)[0]:
        first = OPS["last"].solve({"text": e.text.split()}).answer
        assert OPS["color"].solve({"text": first}).answer == [e.answer]
    assert pocket.task("chain-color-of-animal").held_out
    assert not task.held_out


def test_label_maps_are_fresh_and_repeatable() -> None:
    assert pocket.label_map(3).op.labels == pocket.label_map(3).op.labels  # type: ignore[attr-defined]
    assert len({repr(pocket.label_map(s).split(4, 0, 0)) for s in range(20)}) == 20


def test_every_sentence_names_its_own_task() -> None:
    for op in OPS.values():
        for seed in range(3):
            assert op.name in pocket.names_op(pocket.task(op.name).instruction("precise", seed=seed))
    assert pocket.names_op("the answer gives the color of the last word but it should be the odd one out") == {
        "color-of-last",
        "odd",
    }
    assert all(len(names) == 1 for names in phrase_table().values())
    assert not any(pocket.names_op(text) for text in VAGUE)


def test_what_is_held_out_stays_out_of_training() -> None:
    r = Random(4)
    held = {name for family in HELD_OUT_FAMILIES for name in pocket.families()[family]} | set(HELD_OUT_COMPOSITIONS)
    for _ in range(1500):
        written = episodes.meta_episode(r)
        assert not pocket.names_op(" ".join(written.tokens)) & held, written.tokens
    for _ in range(1500):
        e = episodes.mixture_episode(r)
        assert not pocket.names_op(e.system) & set(HELD_OUT_COMPOSITIONS)
        assert not (pocket.names_op(e.system) and is_test_sentence(e.system)), e.system
        for start, end in e.spans:
            assert all(token in pocket.vocabulary() for token in e.tokens[start:end])


def test_every_episode_is_written_in_the_vocabulary() -> None:
    r, known = Random(1), set(pocket.vocabulary())
    for _ in range(1000):
        episode = episodes.mixture_episode(r)
        assert known.issuperset(episode.tokens)
        assert len(episode.tokens) == len(episode.mask) <= episodes.LONGEST
    assert known.issuperset(episodes.dense_episode(r).tokens)


def test_unknown_words_are_named_once_in_order() -> None:
    messages = [{"role": "system", "content": "Kindly give the color"}, SimpleNamespace(content="Kindly ! wolf")]
    assert pocket.unknown_words(messages) == ["Kindly", "!"]
    assert not pocket.inside(messages)
    assert pocket.inside("give the color of the last word")
    assert not pocket.inside("<unk>")


def test_fixed_wordings_are_the_ones_in_the_model_card() -> None:
    card = (pocket.model_path() / "README.md").read_text(encoding="utf-8")
    for text in (
        pocket.CRITIQUE_INSTRUCTION,
        pocket.CRITIQUE_WITH_INPUT_INSTRUCTION,
        pocket.IMPROVE_INSTRUCTION,
        pocket.INDUCT_INSTRUCTION,
    ):
        assert pocket.inside(text)
        assert text in card


def test_importing_the_world_loads_nothing_heavy() -> None:
    code = (
        "import sys; from promptgrad.data import pocket; pocket.task('sum').split(1, 1, 1); pocket.inside('wolf');"
        "print([m for m in ('torch', 'transformers', 'numpy', 'safetensors') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


def test_the_world_is_the_one_that_the_shipped_model_was_trained_on() -> None:
    r, digest = Random(0), hashlib.sha256()
    for i in range(3000):
        episode = episodes.mixture_episode(r, i / 3000)
        digest.update(" ".join(episode.tokens).encode())
        digest.update(bytes(episode.mask))
    for _ in range(300):
        digest.update(" ".join(episodes.dense_episode(r).tokens).encode())
    digest.update(" ".join(pocket.vocabulary()).encode())
    assert digest.hexdigest() == "10be8cab55a37071f0825eef22aac621c403951add7bf74db17c917d2a092cd8"
