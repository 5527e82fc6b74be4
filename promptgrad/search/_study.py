"""`Study`: an Optuna study that mirrors the trials of a search, for `optuna-dashboard`."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from promptgrad.search._candidate import Measured, show_value
from promptgrad.search._tpe import optuna_of, quiet

_NUMBER = "trial"
"""User attribute that holds the number of a trial in the run."""


class Study:
    """A copy of the trials in a storage of Optuna's: written, and never read by the search.

    A run that is resumed, or made again, finds its study by name and adds only the trials that are not there yet. If
    the storage fails later on, the copy ends, and the search goes on.

    Cost: no LM call; a few milliseconds for each trial.

    Args:
        storage: URL of the storage, such as "sqlite:///mipro.db", or a storage of Optuna's.
        name: Name of the study: one for each run.
        slots: Most choices by dimension. In Optuna a dimension has the same choices in all trials of a study.

    Raises:
        MissingExtraError: Optuna is not installed.
        Exception: Optuna's, if the storage cannot be opened.
    """

    def __init__(self, storage: Any, name: str, slots: Mapping[str, int]) -> None:
        self._optuna = optuna = optuna_of()
        self._slots = dict(slots)
        self.failure: str | None = None
        with quiet(optuna):
            self._study = optuna.create_study(
                storage=storage, study_name=name, direction="maximize", load_if_exists=True
            )
            trials = self._study.get_trials(deepcopy=False)
        self._known = {trial.user_attrs.get(_NUMBER) for trial in trials}

    def describe(self, choices: Mapping[str, Sequence[Any]]) -> None:
        """Say what the choices of each dimension are; the dashboard shows it among the attributes of the study."""
        for path, values in choices.items() if self.failure is None else ():
            shown = [f"{index}: {show_value(value, 200)}" for index, value in enumerate(values)]
            self._write(partial(self._study.set_user_attr, path, shown))

    def add(self, number: str, choices: Mapping[str, int], score: float, measured: Measured, stage: str) -> None:
        """Add a trial, unless it is there.

        Args:
            number: Its number in the run.
            choices: Index of the choice by dimension.
            score: The score that the search reckons with.
            measured: What was measured.
            stage: What it was measured on, in a word.
        """
        if number in self._known or self.failure is not None:
            return
        self._known.add(number)
        trial = self._optuna.trial.create_trial(
            params=dict(choices),
            distributions={
                path: self._optuna.distributions.CategoricalDistribution(tuple(range(self._slots[path])))
                for path in choices
            },
            value=score,
            user_attrs={
                _NUMBER: number,
                "stage": stage,
                "mean": measured.mean,
                "examples": len(measured.known),
                "candidate": measured.candidate.key,
                **{f"value of {path}": show_value(value, 500) for path, value in measured.candidate.values.items()},
            },
        )
        self._write(partial(self._study.add_trial, trial))

    def _write(self, write: Callable[[], Any]) -> None:
        try:
            with quiet(self._optuna):
                write()
        except self._optuna.exceptions.OptunaError as error:
            self.failure = f"{type(error).__name__}: {error}"
