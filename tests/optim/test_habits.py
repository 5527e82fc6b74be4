"""Arguments of DSPy, gepa and TextGrad, written out of habit, get an error that names what to write here."""

import re

import pytest

import promptgrad as pg
from promptgrad import optim


@pytest.mark.parametrize(
    ("make", "argument", "hint"),
    [
        (optim.TGD, "engine", "lm="),
        (optim.TGD, "gradient_memory", "nothing: Trainer.fit shows the writer every run"),
        (optim.TGD, "momentum", "critiques add up until zero_grad()"),
        (optim.TGD, "optimizer_system_prompt", "optimizer.proposer.instruction.data"),
        (optim.TGD, "lr", "max_edit="),
        (optim.TGD, "verbose", "print(report)"),
        (optim.BootstrapFewShot, "metric", "Trainer(model, BootstrapFewShot(...), metric=...)"),
        (optim.BootstrapFewShot, "teacher_settings", "teacher="),
        (optim.BootstrapFewShot, "max_errors", "nothing: "),
        (optim.MIPRO, "metric", "Trainer(model, MIPRO(...), metric=...)"),
        (optim.MIPRO, "task_model", "model.to(lm)"),
        (optim.MIPRO, "prompt_lm", "lm=..."),
        (optim.MIPRO, "prompt_model", "lm=..."),
        (optim.MIPRO, "minibatch_full_eval_steps", "full_eval_every="),
        (optim.GEPA, "component_selector", 'components="blamed", "round_robin" or "all"'),
        (optim.GEPA, "auto", "Budget(calls=...)"),
        (optim.RandomSearch, "metric", "Trainer(model, RandomSearch(...), metric=...)"),
    ],
)
def test_a_habit_gets_a_hint(make, argument, hint):
    wanted = f"^{make.__name__} has no argument '{argument}': write .*{re.escape(hint)}"
    with pytest.raises(TypeError, match=wanted):
        make([pg.Parameter("x")], **{argument: 1})


@pytest.mark.parametrize("make", [optim.TGD, optim.BootstrapFewShot, optim.MIPRO, optim.GEPA, optim.RandomSearch])
def test_another_argument_is_unknown(make):
    with pytest.raises(TypeError, match=f"^{make.__name__} has no argument 'stepps'$"):
        make([pg.Parameter("x")], stepps=1)


def test_what_a_hint_names_is_there():
    optimizer = optim.TGD([pg.Parameter("x")])
    assert optimizer.proposer.instruction.data
    assert optimizer.proposer.demos.data == ()
