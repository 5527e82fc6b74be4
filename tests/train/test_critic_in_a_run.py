"""The critic of a run: who it is, how many runs it sees at once, and what it says of the program's own code."""

import json
import re

import pytest

import promptgrad as pg
from promptgrad import lm, nn, optim

ROWS = [pg.Example(text=f"t{i}", word="right").with_inputs("text") for i in range(20)]
OF_THE_CODE = "`take` is given `said` where `text` is meant"


class Program(nn.Module):
    def __init__(self):
        super().__init__()
        self.note = nn.Predict("text -> said", instruction="Note {text}.")
        self.take = nn.Predict("said -> word", instruction="Take a word of {said}.")

    def forward(self, text):
        return self.take(said=self.note(text=text).said)


class Strong:
    """Writes and criticises; keeps how many runs each of its calls as a critic showed."""

    def __init__(self):
        self.shown = []

    def __call__(self, messages):
        if "findings" not in messages[0].content:
            return f"[[ ## analysis ## ]]\n-\n\n[[ ## new_instruction ## ]]\nTake {len(self.shown)} of {{said}}."
        runs = json.loads(re.search(r"## runs ## \]\]\n(.*)", messages[-1].content).group(1))
        self.shown.append(sum(run["result"] == "wrong" for run in runs))
        keys = ("runs", "parameter", "critique", "to_blame")
        every = [run["run"] for run in runs]
        said = (every, "take.instruction", "It takes the wrong word.", True), (every, "program", OF_THE_CODE, True)
        return f"[[ ## findings ## ]]\n{json.dumps([dict(zip(keys, one, strict=True)) for one in said])}"


def trained(strong, **options):
    model = Program().to(lm.FunctionLM(lambda messages: "wrong", name="program"))
    opt = optim.TGD(model.parameters(), lm=lm.FunctionLM(strong, name="strong"), steps=1, batch_size=8, blame="critic")
    trainer = pg.Trainer(model, opt, metric=pg.metrics.exact_match, budget=pg.Budget(calls=400), **options)
    return trainer.fit(ROWS[:8], ROWS[8:])


@pytest.mark.parametrize(("group", "shown"), [(None, [8]), (2, [2, 2, 2, 2]), (5, [5, 3])])
def test_it_sees_eight_failed_runs_side_by_side_or_as_many_as_the_trainer_says(group, shown):
    strong = Strong()
    trained(strong, group=group)
    assert sorted(strong.shown, reverse=True) == shown


def test_what_it_says_of_the_programs_code_reaches_the_report():
    result = trained(Strong(), group=4)
    assert f"the critic says of the program's code (in 8 runs): {OF_THE_CODE}" in result.notes
    assert OF_THE_CODE in str(result)


@pytest.mark.parametrize("named", [True, False])
def test_the_lm_that_writes_is_the_critic_too_unless_another_is_named(named):
    strong, other = Strong(), Strong()
    model = Program().to(lm.FunctionLM(lambda messages: "wrong", name="program"))
    critic = lm.FunctionLM(other, name="other") if named else None
    optim.TGD(model.parameters(), lm=lm.FunctionLM(strong, name="strong"))
    loss = nn.MetricLoss(pg.metrics.exact_match, critic=critic)(model.map(ROWS[:4]), ROWS[:4])
    loss.backward()
    assert (strong.shown, other.shown) == (([], [4]) if named else ([4], []))
    assert len(model.take.instruction.grad.critiques) == 4
