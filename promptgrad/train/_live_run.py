"""`LiveRun`: what a callback may ask of a run that is going on."""

from promptgrad.errors import GraphError
from promptgrad.nn import StateDict
from promptgrad.optim import Session


class LiveRun:
    """The part of a `Trainer` that callbacks use while it runs."""

    _session: Session | None = None

    def stop_search(self, reason: str) -> None:
        """End the search of the run that is going on, at its next block, as a budget would; for callbacks.

        It is journalled, so that a resumed run ends its search at the same place. Before and after the search it has
        no effect.

        Args:
            reason: Why, for the report.

        Raises:
            GraphError: No run is going on.
        """
        stop = self._running("stop_search").stop
        stop.reason = stop.reason or reason

    def best_state(self) -> StateDict:
        """The state of the program with the best candidate so far; for callbacks. Nothing has been decided on it.

        Raises:
            GraphError: No run is going on.
        """
        session = self._running("best_state")
        best = session.program(session.incumbent)
        with best.candidate(session.incumbent.values):
            return best.state_dict()

    def _running(self, name: str) -> Session:
        if self._session is None:
            raise GraphError(f"{name} is for callbacks, while a run is going on: call it in one of their methods")
        return self._session
