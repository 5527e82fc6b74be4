"""A label map that the embedded model has never seen, under an instruction that says nothing."""

from __future__ import annotations

import pytest

from promptgrad import lm, nn
from promptgrad.data import Example, pocket

pytest.importorskip("torch")
pytest.importorskip("peft")


@pytest.fixture(scope="session")
def task() -> pocket.Task:
    return pocket.task("label-map-kind", seed=3)


@pytest.fixture(scope="session")
def data(task: pocket.Task) -> tuple[list[Example], list[Example], list[Example]]:
    return task.split(64, 32, 150)


@pytest.fixture
def program(task: pocket.Task) -> nn.Predict:
    return nn.Predict("text -> answer", instruction=task.instruction("vague")).to(lm.pocket())
