"""A critic that records why a run must stop."""

from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, TypeVar, cast

from promptgrad.autograd import CriticLike, JointCriticLike, NodeFailure, SparingCritic, TraceFailure
from promptgrad.errors import BudgetExceeded, JournalError, LMError, is_outage

T = TypeVar("T")


class Watched:
    """A critic that records why the run must stop: backward itself keeps a critic's errors in its report."""

    def __init__(self, critic: CriticLike) -> None:
        self._critic = critic
        self.stopped: BaseException | None = None

    async def critique(self, failure: NodeFailure) -> Mapping[str, str]:
        """Ask the critic."""
        return await self._watch(self._critic.critique(failure))

    def is_spared(self, lm: Any) -> bool:
        """Whether the critic is spared where only one call can be to blame."""
        return isinstance(self._critic, SparingCritic) and self._critic.is_spared(lm)

    def groups(self, failures: Sequence[TraceFailure], size: int | None = None) -> Sequence[Sequence[TraceFailure]]:
        """The critic's grouping, if it can judge whole forwards."""
        if not isinstance(self._critic, JointCriticLike):
            return ()
        return self._critic.groups(failures) if size is None else self._critic.groups(failures, size)

    async def critique_traces(self, group: Sequence[TraceFailure]) -> Sequence[Mapping[str, str | Sequence[str]]]:
        """Ask the critic about whole forwards."""
        return await self._watch(cast(JointCriticLike, self._critic).critique_traces(group))

    async def _watch(self, answer: Awaitable[T]) -> T:
        try:
            return await answer
        except (BudgetExceeded, JournalError, LMError) as error:
            if self.stopped is None and is_outage(error):
                self.stopped = error
            raise
