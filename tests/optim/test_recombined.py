"""On a budget of calls `TGD` and `GEPA` put together what the writer wrote apart, and a search spends its budget."""

import json
import random
import re

import pytest

import promptgrad as pg
from promptgrad import lm, nn, optim, run
from promptgrad.data import Example
from promptgrad.search import Rules
from promptgrad.testing import Fields

GOOD = ("Mind the sign.", "Mind the unit.", "Mind the date.", "Mind the name.")
REST = ("Be polite.", "Be calm.", "Be clear.", "Be kind.")


def fitted(folder, make, **options):
    """Train a program whose writer knows one good sentence at a time; its text, what was written, and the journal."""
    written = []

    def answer(messages):
        system, asked = messages[0]["content"], messages[-1]["content"]
        if "new_instruction" in system:
            rng = random.Random(len(written))
            text = " ".join(["Answer.", rng.choice(GOOD), *rng.sample(REST, 2)])
            written.append(text)
            return Fields(analysis="", new_instruction=text)(messages)
        number = int(re.search(r"w(\d+)x", asked)[1])
        said = "yes" if number * 7 % 10 < 2 + 2 * sum(each in system for each in GOOD) else "no"
        return f"[[ ## answer ## ]]\n{said}\n\n[[ ## completed ## ]]"

    model = nn.Predict("word -> answer", instruction="Answer.").to(lm.FunctionLM(answer, name="minder"))
    rows = [Example(word=f"w{n}x", answer="yes").with_inputs("word") for n in range(80)]
    trainer = pg.Trainer(
        model,
        make(model.parameters()),
        metric=pg.metrics.exact_match,
        seed=5,
        run_dir=folder,
        progress=False,
        **options,
    )
    trainer.fit(rows[:40], rows[40:])
    lines = map(json.loads, (folder / "journal.jsonl").read_text(encoding="utf-8").splitlines())
    texts = [entry["text"] for entry in lines if entry["kind"] == "proposal" and not entry["refused"]]
    return str(model.instruction.data), written, texts


@pytest.mark.parametrize("optimizer", [optim.TGD, optim.GEPA])
def test_what_was_written_apart_ships_together(tmp_path, optimizer):
    text, written, proposed = fitted(tmp_path / "run", optimizer, budget=run.Budget(calls=1500))
    assert max(sum(each in one for each in GOOD) for one in written) == 1
    assert sum(each in text for each in GOOD) >= 3
    assert set(proposed) - set(written)


@pytest.mark.parametrize("optimizer", [optim.TGD, optim.GEPA])
@pytest.mark.parametrize("options", [{}, {"budget": run.Budget(calls=1500)}])
def test_a_number_of_steps_is_for_the_writer_alone(tmp_path, optimizer, options):
    steps = {"steps": 4}
    _, written, proposed = fitted(tmp_path / "run", lambda parameters: optimizer(parameters, **steps), **options)
    assert proposed
    assert set(proposed) <= set(written)


def test_parity_makes_the_proposals_of_the_package(tmp_path):
    make, budget = (lambda parameters: optim.GEPA(parameters, parity=True)), run.Budget(calls=800)
    _, written, proposed = fitted(tmp_path / "run", make, budget=budget)
    assert proposed
    assert set(proposed) <= set(written)


def test_gepa_goes_back_to_who_came_before_where_nothing_new_comes(tmp_path):
    """The writer has nothing to say of what it wrote, and something new of the start each time."""
    shown, end = [], ", say it."

    def answer(messages):
        system, asked = messages[0]["content"], messages[-1]["content"]
        if "new_instruction" in system:
            text = re.search(r"## instruction ## \]\]\n(.*)", asked)[1]
            shown.append(text)
            text = f"Answer to {len(shown)}{end}" if text == "Answer." else text
            return Fields(analysis="", new_instruction=text)(messages)
        number, told = int(re.search(r"w(\d+)x", asked)[1]), end in system.split("\n\nYou are given")[0]
        return f"[[ ## answer ## ]]\n{'yes' if number % 4 < 2 + told else 'no'}\n\n[[ ## completed ## ]]"

    model = nn.Predict("word -> answer", instruction="Answer.").to(lm.FunctionLM(answer, name="minder"))
    rows = [Example(word=f"w{n}x", answer="yes").with_inputs("word") for n in range(48)]
    options = {"metric": pg.metrics.exact_match, "seed": 5, "budget": run.Budget(calls=900), "progress": False}
    rules = Rules(max_tokens=8)  # a text of two of these is refused
    pg.Trainer(model, optim.GEPA(model.parameters(), rules=rules), **options).fit(rows[:24], rows[24:])
    built_on = next(place for place, text in enumerate(shown) if text != "Answer.")
    assert shown[built_on:].count("Answer.") >= 3
