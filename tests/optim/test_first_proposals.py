"""`TGD` and `GEPA` ask again for their first proposals, while none helps and the budget is large."""

import json

import pytest

import promptgrad as pg
from promptgrad import lm, nn, optim, run
from promptgrad.data import Example
from promptgrad.testing import Fields


def events(folder, kind, make, calls):
    """What the journal of a search has, whose texts never help."""
    replies = {"answer": "?", "analysis": "", "new_instruction": lambda inputs: f"Do it like {inputs['tip'] or 'so'}"}
    model = nn.Predict("word -> answer", instruction="Do it.").to(lm.FunctionLM(Fields(**replies), name="idle"))
    rows = [Example(word=f"w{n}", answer=f"v{n}").with_inputs("word") for n in range(60)]
    options = {"metric": pg.metrics.exact_match, "seed": 5, "budget": run.Budget(calls=calls), "progress": False}
    pg.Trainer(model, make(model.parameters()), run_dir=folder, **options).fit(rows[:20], rows[20:])
    lines = map(json.loads, (folder / "journal.jsonl").read_text(encoding="utf-8").splitlines())
    return [entry for entry in lines if entry["kind"] in kind]


@pytest.mark.parametrize(
    ("optimizer", "calls", "first"),
    [(optim.TGD, 600, 24), (optim.GEPA, 600, 24), (optim.TGD, 200, 2), (optim.GEPA, 200, 3)],
)
def test_the_first_step_asks_again_and_no_other_does(tmp_path, optimizer, calls, first):
    made = events(tmp_path / "run", ("proposal", "sift"), optimizer, calls)
    steps = [entry["step"] for entry in made if entry["kind"] == "proposal"]
    assert steps.count(0) == first
    assert max((steps.count(step) for step in steps if step), default=0) <= 3
    assert sum(entry["kind"] == "sift" for entry in made) == (calls == 600)


@pytest.mark.parametrize("optimizer", [optim.TGD, optim.GEPA])
def test_who_says_how_many_steps_is_asked_no_more(tmp_path, optimizer):
    made = events(tmp_path / "run", ("proposal",), lambda parameters: optimizer(parameters, steps=1), 600)
    assert len(made) == 3
