"""The data of a run, divided into four parts: to learn from, to choose on, to confirm on, to report on."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from promptgrad import aio, run
from promptgrad.data import Example, not_a_list
from promptgrad.errors import DataError
from promptgrad.nn import is_synthetic
from promptgrad.train._confirm import confirm_size


@dataclass(frozen=True)
class Parts:
    """The data of a run: to learn from, to choose on, to confirm on, to report on."""

    train: list[Example]
    val: list[Example]
    confirm: list[Example]
    test: list[Example]

    def by_name(self) -> dict[str, list[Example]]:
        """The parts by name, in this order."""
        return {"train": self.train, "val": self.val, "confirm": self.confirm, "test": self.test}


def divide(
    trainset: Iterable[Any],
    valset: Iterable[Any] | None,
    testset: Iterable[Any] | None,
    *,
    seed: int,
    selects: bool,
    confirm: "float | int | None",
    strict: bool = True,
) -> Parts:
    """Divide the data of a run by its seed.

    Args:
        trainset: Examples to learn from.
        valset: Examples to choose and to confirm on; None sets half of the training data aside for that.
        testset: Examples for the final report only.
        seed: Seed of the run.
        selects: Whether the optimizer makes a choice; for one that does not, all of `valset` is the part to confirm
            on.
        confirm: See `confirm_size`.
        strict: Whether a part is set aside to confirm on; else all of `valset` serves to choose and to decide.

    Raises:
        DataError: There is no data, or too little to divide.
        ValueError: `confirm` leaves nothing to choose on or nothing to confirm on.
    """
    train = _examples(trainset, "trainset")
    test = _examples(testset, "testset") if testset is not None else []
    if valset is None:
        own, written = ([row for row in train if is_synthetic(row) == made] for made in (False, True))
        if len(own) < 4:
            raise DataError(
                f"{len(own)} training examples{' that no language model wrote' if written else ''} cannot be split "
                "into training and validation data: give more of them, or a valset"
            )
        run.rng(seed, "split", "train").shuffle(own)
        half = len(own) // 2
        train, val = [*own[half:], *written], own[:half]
    else:
        val = _examples(valset, "valset")
    for name, rows in (("valset", val), ("testset", test)):
        if any(map(is_synthetic, rows)):
            raise DataError(
                f"{name} has examples that a language model wrote: they are for training, and would measure it"
            )
    _warn_of_overlap(train, val, test)
    if not selects:
        return Parts(train, [], val, test)
    if not strict:
        return Parts(train, val, [], test)
    if len(val) < 2:
        raise DataError(f"{len(val)} validation example cannot serve both to choose and to confirm: give more")
    order = list(val)
    run.rng(seed, "split", "confirm").shuffle(order)
    size = confirm_size(len(order), confirm)
    return Parts(train, order[size:], order[:size], test)


def _examples(data: Iterable[Any], name: str) -> list[Example]:
    if fault := not_a_list(f"{name} is", data, rows=False):
        raise DataError(fault)
    rows = [row for item in data for row in (item if isinstance(item, list) else [item])]  # a loader gives batches
    examples = [row if isinstance(row, Example) else Example(row) for row in rows]
    if not examples:
        instead = "give examples" if name == "trainset" else f"give examples, or leave {name} out"
        raise DataError(f"{name} is empty: {instead}")
    return examples


def _warn_of_overlap(train: Sequence[Example], val: Sequence[Example], test: Sequence[Example]) -> None:
    known = {example.id for example in train}
    chosen = {example.id for example in val}
    for one, other, what in (
        (known, chosen, "training and validation data"),
        (known, {example.id for example in test}, "training and test data"),
        (chosen, {example.id for example in test}, "validation and test data"),
    ):
        shared = len(one & other)
        if shared:
            aio.warn(
                f"{shared} example{'s are' if shared > 1 else ' is'} in both {what}: scores will look too good",
                UserWarning,
            )
