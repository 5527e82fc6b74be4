"""A critic whose failed calls are noted, so that a run goes on without them."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

from promptgrad.autograd import CriticLike, JointCriticLike, NodeFailure, SparingCritic, TraceFailure
from promptgrad.errors import BudgetExceeded, JournalError, LMError, is_outage
from promptgrad.run import value_digest

T = TypeVar("T")


class Watched:
    """A critic whose failed calls are noted: backward itself keeps a critic's errors in its report alone.

    Args:
        critic: The critic.
        prefix: The beginning of the keys of its calls, the same in every process.
        failed: Function that is called with the key of a call that fails, and its error.
        labelled: Whether the examples say what the one call that may be to blame should have answered. A model that
            knows only its own tasks finds a text from them, and needs no critique either.

    Attributes:
        asked: The calls by key, each with its error; None for one that was answered.
        stopped: The first error of a language model that is down, or of the run.
    """

    def __init__(
        self,
        critic: CriticLike,
        prefix: str,
        failed: Callable[[str, BaseException], None],
        *,
        labelled: bool = False,
    ) -> None:
        self._critic = critic
        self._failed = failed
        self._labelled = labelled
        self._prefix = prefix
        self.asked: dict[str, BaseException | None] = {}
        self.stopped: BaseException | None = None

    async def critique(self, failure: NodeFailure) -> Mapping[str, str]:
        """Ask the critic."""
        return await self._watch(_key(failure), lambda: self._critic.critique(failure))

    def is_spared(self, lm: Any) -> bool:
        """Whether the critic is spared where only one call can be to blame."""
        if not isinstance(self._critic, SparingCritic):
            return False
        return self._critic.is_spared(lm) or (self._labelled and getattr(self._critic, "spare", False))

    def groups(self, failures: Sequence[TraceFailure], size: int | None = None) -> Sequence[Sequence[TraceFailure]]:
        """The critic's grouping, if it can judge whole forwards."""
        if not isinstance(self._critic, JointCriticLike):
            return ()
        return self._critic.groups(failures) if size is None else self._critic.groups(failures, size)

    async def critique_traces(self, group: Sequence[TraceFailure]) -> Sequence[Mapping[str, str | Sequence[str]]]:
        """Ask the critic about whole forwards."""
        critic = cast(JointCriticLike, self._critic)
        return await self._watch([_key(failure) for failure in group], lambda: critic.critique_traces(group))

    async def _watch(self, about: Any, ask: Callable[[], Awaitable[T]]) -> T:
        key = f"{self._prefix}{value_digest(about)}"
        self.asked[key] = None
        try:
            return await ask()
        except (BudgetExceeded, JournalError, LMError) as error:
            self.asked[key] = error
            self._failed(key, error)
            if self.stopped is None and is_outage(error):
                self.stopped = error
            raise


def _key(failure: NodeFailure | TraceFailure) -> list[Any]:
    """What tells a call of a critic from the others of its step, the same in every process."""
    nodes = [failure.node] if isinstance(failure, NodeFailure) else failure.nodes
    example = getattr(failure.example, "id", "")
    return [
        str(example or ""),
        [f"{node.path}[{node.index}]" for node in nodes],
        list(failure.feedback),
        [target.name for target in failure.targets],
        getattr(failure, "replicate", 0),
    ]
