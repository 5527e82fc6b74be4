"""`EarlyStopping` and `ModelCheckpoint`: the two callbacks of every training loop."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from promptgrad._habits import refuses
from promptgrad.train._callback import Callback, Event
from promptgrad.train._checkpoint import save

if TYPE_CHECKING:
    from promptgrad.train._trainer import Trainer


class EarlyStopping(Callback):
    """End the search after so many trials without a new best candidate: `callbacks=[EarlyStopping(patience=10)]`.

    What is best is the optimizer's own judgement, over all rows that it has met, so that a lucky score on a few of them
    counts for nothing. The rest of the run goes on as after any search: the finalists are measured, and the best ships
    if it is likely to be better. `TGD` and `Auto` have a `patience=` of their own, counted in steps.

    Cost: no LM call.
    Source: as `EarlyStopping` of PyTorch Lightning; there is no `monitor=`, as there is one score.

    Args:
        patience: How many trials in a row may find nothing better.

    Raises:
        ValueError: `patience` is below one.
    """

    @refuses(
        {
            "monitor": "nothing: there is one score, that of the metric on validation data",
            **dict.fromkeys(("min_delta", "mode", "verbose"), "nothing: what is better is the optimizer's judgement"),
        }
    )
    def __init__(self, patience: int = 10) -> None:
        if isinstance(patience, bool) or not isinstance(patience, int) or patience < 1:
            raise ValueError(f"patience is a number of trials, at least 1, not {patience!r}")
        self.patience = patience
        self.waited = 0

    def on_fit_start(self, trainer: "Trainer") -> None:
        self.waited = 0

    def on_trial(self, trainer: "Trainer", trial: Event) -> None:
        if trial["number"]:  # 0 is the start
            self.waited += 1
            if self.waited >= self.patience:
                trainer.stop_search(f"{self.waited} trials without a better candidate")

    def on_decision(self, trainer: "Trainer", decision: Event) -> None:
        if decision["kind"] == "incumbent":
            self.waited = 0


class ModelCheckpoint(Callback):
    """Save the best candidate so far whenever there is a new one: `callbacks=[ModelCheckpoint("best.json")]`.

    The file is a state as `promptgrad.save` writes it, old or new at any moment, and not yet decided on: what ships is
    what `fit` leaves in the program. A run with a `run_dir` can be resumed without it.

    Cost: no LM call.
    Source: as `ModelCheckpoint` of PyTorch Lightning with `save_top_k=1`.

    Args:
        path: The JSON file.
    """

    @refuses(
        {
            **dict.fromkeys(("dirpath", "filename", "filepath"), "path=..., a JSON file"),
            **dict.fromkeys(("monitor", "mode", "save_top_k", "save_best_only"), "nothing: the best one is saved"),
        }
    )
    def __init__(self, path: "str | os.PathLike[str]") -> None:
        self.path = Path(path)

    def on_decision(self, trainer: "Trainer", decision: Event) -> None:
        if decision["kind"] == "incumbent":
            save(trainer.best_state(), self.path)
