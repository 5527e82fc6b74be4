"""Weights of torch inside a module of ours are not saved, and a warning says so."""

import pytest

from promptgrad import nn

torch = pytest.importorskip("torch")


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.nn.Linear(2, 2),
        lambda: torch.nn.Parameter(torch.zeros(2)),
        lambda: torch.nn.ModuleList([torch.nn.Linear(1, 1)]),
        lambda: [torch.nn.Linear(1, 1)],
        lambda: {"head": torch.nn.Linear(1, 1)},
    ],
)
def test_weights_of_torch_are_warned_of(make):
    model = nn.Module()
    with pytest.warns(UserWarning, match=r"^Module\.head holds weights of torch.*torch\.optim.*torch\.save") as caught:
        model.head = make()
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert [*model.state_dict()] == []
    assert model.weights() == []


def test_what_has_no_weights_is_not():
    model = nn.Module()
    model.table, model.device, model.sizes = torch.zeros(2), torch.device("cpu"), [1, 2]
    assert model.table.shape == (2,)
