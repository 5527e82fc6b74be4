"""TGD with proposals along the gradient: the texts it tries, what they are worth, and what it refuses."""

from __future__ import annotations

import pytest

import promptgrad as pg
from promptgrad import lm, nn, optim, run
from promptgrad.data import pocket
from promptgrad.errors import InputError

pytest.importorskip("torch")
pytest.importorskip("transformers")

TASK = pocket.task("last")
TRAIN, VAL, TEST = TASK.split(10, 20, 30)
START = "the first word"


def silent(messages):
    """A writer that only ever says the same."""
    return "nothing"


def asks(text=START):
    return nn.Predict("text -> answer", instruction=text).to("pocket")


def fitted(run_dir, **options):
    model = asks()
    writer = lm.FunctionLM(silent, name="silent")
    tgd = optim.TGD([model.instruction], lm=writer, proposals="tokens", steps=1, **options)
    trainer = pg.Trainer(model, tgd, metric=TASK.metric, seed=0, run_dir=run_dir, progress=False)
    trainer.fit(TRAIN, VAL)
    return model.instruction.data, proposals(run_dir)


def proposals(run_dir):
    with run.Journal(run_dir / "journal.jsonl") as journal:
        return [event for event in journal.canonical() if event["kind"] == "proposal"]


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    return fitted(tmp_path_factory.mktemp("first"))


def test_words_are_replaced_by_those_that_make_the_labels_likeliest(first):
    text, _ = first
    assert text != START
    assert len(text.split()) == 3
    loss, metric = nn.NLLLoss(), nn.MetricLoss(TASK.metric)
    assert loss(asks(text), TEST).item() < loss(asks(), TEST).item()
    assert metric(asks(text).map(TEST), TEST).item() < metric(asks().map(TEST), TEST).item() - 0.2


def test_each_proposal_replaces_one_word_more(first):
    _, proposed = first
    assert [event["variant"] for event in proposed] == list(range(len(proposed)))
    swapped = [event["text"] for event in proposed if len((event["text"] or "").split()) == 3]
    changed = [sum(a != b for a, b in zip(text.split(), START.split(), strict=True)) for text in swapped]
    assert changed
    assert changed[0] == 1
    losses = [nn.NLLLoss()(asks(text), TRAIN).item() for text in (START, *swapped)]
    assert losses == sorted(losses, reverse=True)


def test_the_same_run_proposes_the_same_and_rules_hold(first, tmp_path):
    assert fitted(tmp_path / "second") == first
    new = [word for word in first[0].split() if word not in START]
    text, proposed = fitted(tmp_path / "third", constraints=[lambda text: new[0] not in text])
    assert new[0] not in text
    assert any(event["refused"] for event in proposed)


def test_it_takes_a_local_model_with_labels():
    far = nn.Predict("text -> answer", instruction="the first word").to(lm.FunctionLM(silent, name="far"))
    tgd = optim.TGD(far.parameters(), proposals="tokens")
    assert "proposals='tokens'" in repr(tgd)
    with pytest.raises(InputError, match=r"'far', which is no promptgrad.lm.Local"):
        pg.Trainer(far, tgd, metric=TASK.metric, progress=False).fit(TRAIN, VAL)
    thoughts = nn.ChainOfThought("text -> answer").to("pocket")
    tgd = optim.TGD(thoughts.parameters(), proposals="tokens")
    with pytest.raises(InputError, match="no label for its reasoning"):
        pg.Trainer(thoughts, tgd, metric=TASK.metric, progress=False).fit(TRAIN, VAL)
    with pytest.raises(ValueError, match='"tokens"'):
        optim.TGD(far.parameters(), proposals="words")
    far.instruction.grad = pg.autograd.Gradient()
    with pytest.raises(ValueError, match="Trainer"):
        tgd.step()
