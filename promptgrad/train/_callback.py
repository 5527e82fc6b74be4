"""`Callback`: an observer of a training run, on top of the events of its journal."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias

from promptgrad.run import Journal, Ledger, Spent

if TYPE_CHECKING:
    from promptgrad.train._result import FitResult
    from promptgrad.train._trainer import Trainer

Event: TypeAlias = Mapping[str, Any]
"""One event of the journal, read-only, in JSON types; `replayed` is true if a resumed run repeats it."""

_NO_DECISION = frozenset({"run", "candidate", "evaluation", "proposal"})


class Callback:
    """Watches a training run: derive from it, and override the methods for the events that you need.

    `Trainer(..., callbacks=[MyCallback()])`. The methods have the names that PyTorch Lightning uses, and are called one
    after the other, in the order of the events, while the run waits or goes on elsewhere; a method that blocks delays
    the run. They are plain methods, not coroutines. An exception in one gives a warning and a note in `result.notes`;
    it never ends the run (only Ctrl-C and `SystemExit` do), and nothing that callbacks do changes a decision;
    `trainer.stop_search(reason)` alone ends the search at its next block.

    A call of a program, an LM or `evaluate` would wait for the loop that the run itself needs, and raises
    `AsyncUsageError`: run it in a thread. LM calls made there are not part of the run.

    A resumed run executes its beginning again: those events come with `replayed=True`, each once.

    A plain function is a callback as well: it is called with every event of the journal, see
    `promptgrad.run.Journal.subscribe`.

    Cost: no LM call; without callbacks nothing is computed for them.
    """

    def on_fit_start(self, trainer: "Trainer") -> None:
        """The run begins, or is resumed; this process has not sent anything yet."""

    def on_trial(self, trainer: "Trainer", trial: Event) -> None:
        """A line was added to the history.

        Args:
            trainer: The trainer.
            trial: `number`, `origin`, `score`, `examples`, `note`, `details`, and the `values` and the id (`candidate`)
                of the candidate that was tried.
        """

    def on_proposal(self, trainer: "Trainer", proposal: Event) -> None:
        """A text was proposed for a parameter.

        Args:
            trainer: The trainer.
            proposal: `path`, `text` (None if there was none), `accepted`, `reason` (why it was refused, or that it
                passed the checks and will be measured), and what the optimizer adds, such as `step`.
        """

    def on_decision(self, trainer: "Trainer", decision: Event) -> None:
        """The run decided something.

        Args:
            trainer: The trainer.
            decision: Its `kind`, such as "incumbent", "stop", "exhausted" (the budget of the search ended), "confirm"
                or "result", and the fields of that kind.
        """

    def on_budget(self, trainer: "Trainer", spent: Spent) -> None:
        """A call was paid, or replayed from the journal of a resumed run.

        Args:
            trainer: The trainer; `trainer.budget` has the limits.
            spent: The total so far.
        """

    def on_fit_end(self, trainer: "Trainer", result: "FitResult") -> None:
        """The run has ended, for whatever reason.

        Args:
            trainer: The trainer.
            result: What `fit` returns; after Ctrl-C or an error, with the outcome "interrupted" and its reason.
        """

    def __repr__(self) -> str:
        return f"<Callback {type(self).__qualname__}>"


AnyCallback: TypeAlias = "Callback | Callable[[Event], object]"

_METHODS = ("on_fit_start", "on_trial", "on_proposal", "on_decision", "on_budget", "on_fit_end")


def checked_callbacks(callbacks: Iterable[AnyCallback]) -> tuple[AnyCallback, ...]:
    """The callbacks, after a check that each can be called.

    Raises:
        TypeError: One is not a callback, or is a class or a coroutine function, or has a coroutine method or a method
            that a callback does not have.
    """
    if isinstance(callbacks, Callback) or not isinstance(callbacks, Iterable):
        raise TypeError(f"callbacks is a list, such as callbacks=[{name_of(callbacks)}], not one callback")
    checked = tuple(callbacks)
    for callback in checked:
        if isinstance(callback, type):
            raise TypeError(f"callbacks holds the class {callback.__name__}: give an instance, {callback.__name__}()")
        if isinstance(callback, Callback):
            unknown = [name for name in dir(callback) if name.startswith("on_") and name not in _METHODS]
            if unknown:
                raise TypeError(
                    f"{name_of(callback)}.{unknown[0]} would never be called: a Callback has {', '.join(_METHODS)}"
                )
            called = [getattr(callback, name) for name in _METHODS]
        elif callable(callback):
            called = [callback, getattr(callback, "__call__", None)]  # noqa: B004 - the method of an instance
        else:
            raise TypeError(
                f"a callback is a promptgrad.Callback or a function of one event, not {type(callback).__name__}"
            )
        if any(map(inspect.iscoroutinefunction, called)):
            raise TypeError(
                f"the callback {name_of(callback)} is a coroutine function, or has a coroutine method, which would "
                "never be awaited. Write a plain one; it can reach your event loop with loop.call_soon_threadsafe"
            )
    return checked


class Watch:
    """The callbacks of one run, subscribed to its journal."""

    def __init__(self, trainer: "Trainer", journal: Journal, ledger: Ledger) -> None:
        self._trainer = trainer
        self._ledger = ledger
        self._watched = [
            (
                callback,
                journal.subscribe(
                    self._events_of(callback) if isinstance(callback, Callback) else callback,
                    name=f"the callback {name_of(callback)}",
                ),
            )
            for callback in trainer.callbacks
        ]

    def start(self) -> None:
        """Call every `on_fit_start`."""
        for callback, subscription in self._watched:
            if isinstance(callback, Callback):
                with subscription.reporting("on_fit_start"):
                    callback.on_fit_start(self._trainer)

    def end(self, result: "FitResult") -> "FitResult":
        """Call every `on_fit_end`; return the result with a note about each error of a callback.

        The journal is closed by then, so that every event has been delivered.
        """
        for callback, subscription in self._watched:
            subscription()
            if isinstance(callback, Callback):
                with subscription.reporting("on_fit_end"):
                    callback.on_fit_end(self._trainer, result)
        failures = tuple(text for _, subscription in self._watched for text in subscription.failures)
        return replace(result, notes=(*result.notes, *failures)) if failures else result

    def _events_of(self, callback: Callback) -> Callable[[Event], None]:
        trainer, ledger = self._trainer, self._ledger

        def deliver(event: Event) -> None:
            kind = event["kind"]
            if kind == "call":
                callback.on_budget(trainer, ledger.spent)
            elif kind == "trial":
                callback.on_trial(trainer, event)
            elif kind == "proposal":
                callback.on_proposal(trainer, _with_reason(event))
            elif "seq" in event and kind not in _NO_DECISION:
                callback.on_decision(trainer, event)

        return deliver


def _with_reason(event: Event) -> Event:
    """A proposal with its outcome in words: it was refused, or passed the checks."""
    refused = event.get("refused")
    reason = "it passed the checks" if refused is None else refused
    return MappingProxyType({**event, "accepted": refused is None, "reason": reason})


def name_of(callback: object) -> str:
    """The name of a callback in messages: that of the function, or of the class."""
    return getattr(callback, "__qualname__", None) or type(callback).__qualname__
