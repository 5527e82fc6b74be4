"""No optimizer sends a writer the same request twice, also where a parent has nothing new to show."""

import pytest

import promptgrad as pg
from promptgrad import lm, optim, run

TEXT = "[[ ## analysis ## ]]\nNo idea.\n\n[[ ## new_instruction ## ]]\nTake care.\n\n[[ ## completed ## ]]"


@pytest.mark.parametrize("name", ["TGD", "Auto", "GEPA"])
def test_requests_differ_when_rows_and_tips_are_used_up(world, name):
    asked = []

    def write(request):
        asked.append(request)
        return TEXT

    model, rows = world.single()
    model.to(lm.FunctionLM(world.answer, name="speller"))
    made = {"Auto": {"demos": ()}}.get(name, {})
    optimizer = getattr(optim, name)(model.parameters(), lm=lm.FunctionLM(write, name="writer"), **made)
    trainer = pg.Trainer(model, optimizer, metric=world.metric, seed=5, budget=run.Budget(calls=2000), progress=False)
    trainer.fit(rows[:12], rows[12:42])
    assert len(asked) > 6
    assert len(set(asked)) == len(asked)
    prompts = [request.tail[-1].content for request in asked]
    assert len(set(prompts)) < len(asked)  # so some prompts came again: as other samples
    assert asked[0].temperature is None
    assert world.sections(prompts[0])["tip"] == ""
