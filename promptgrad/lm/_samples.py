"""`SamplesInOne`: calls that ask the same, each for a reply of its own, as one request for several samples."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import Any

from promptgrad import aio
from promptgrad.lm._completion import Completion
from promptgrad.lm._layer import ASKERS_OWN, Layer
from promptgrad.lm._request import Request


class SampleGroup:
    """Calls of which it is known that they ask the same: the replicates from `first` on.

    Args:
        first: Replicate number of the first.
        count: Their number.
    """

    def __init__(self, first: int, count: int) -> None:
        self.first = first
        self.count = count
        self._asked: set[int] = set()
        self._replies: dict[str, aio.Signal[Completion | None]] = {}

    def takes(self, request: Request, place: int) -> bool:
        """Whether a request is the one that the call in this place has in common with the others: its first."""
        if place in self._asked:
            return False
        self._asked.add(place)
        return request.replicate == self.first + place and request.listener is None and request.samples == 1

    async def ask(self, key: str, send: Callable[[], Coroutine[Any, Any, Completion]]) -> Completion:
        """The reply with all samples. The first call that comes sends for it; an error of the LM is that of all."""
        while True:
            mine: aio.Signal[Completion | None] = aio.Signal()
            other = self._replies.setdefault(key, mine)
            if other is not mine:
                found = await other
                if found is not None:
                    return found
                continue
            try:
                found = await send()
            except ASKERS_OWN:
                self._withdraw(key)
                raise
            except Exception as error:
                mine.fail(error)
                raise
            except BaseException:  # only this caller was cancelled
                self._withdraw(key)
                raise
            mine.set(found)
            return found

    def _withdraw(self, key: str) -> None:
        self._replies.pop(key).set(None)


_Member = tuple[SampleGroup, int]
_member: ContextVar[_Member | None] = ContextVar("promptgrad.samples", default=None)


@contextmanager
def sampled(group: SampleGroup | None, place: int) -> Iterator[None]:
    """Within the block, the first request is the one that all calls of a group send; None for a call by itself.

    Args:
        group: The group.
        place: The place of the call in it, from 0.
    """
    token = _member.set(None if group is None else (group, place))
    try:
        yield
    finally:
        _member.reset(token)


def sample_of(whole: Completion, place: int) -> Completion | None:
    """One of the samples of a reply; None if there are fewer. The first one has the cost of all."""
    if not place:
        return replace(whole, more=()) if whole.more else whole
    if place > len(whole.more):
        return None
    return replace(whole.more[place - 1], model=whole.model, cached=whole.cached)


class SamplesInOne(Layer):
    """Ask for the samples of one prompt in one request, where it is known that several calls will ask for one each.

    `pg.LM("openai/gpt-4o-mini", samples_in_one=True)` has it around its cache. It is known for `n` rollouts of one
    call, `predict.map(batch, n=4)`, and for the attempts of `nn.SelfConsistency`, of `nn.BestOfN` without a threshold
    and of `nn.MultiChainComparison` at one `nn.Predict`, if they are made side by side. The prompt is then paid and
    read once. Later requests of such a call (asking again, a second step) go alone, as do streams and the calls of
    programs of several steps, which may differ from one rollout to the next.

    The request is cached, retried, budgeted, counted and journalled as one, with its tokens and money on the first
    sample. Which reply a call gets depends on its replicate number alone. If the request fails, it fails for all. Where
    the endpoint gives fewer samples than were asked for, the calls without one ask by themselves, after it. An endpoint
    that refuses the option (`n`) is asked without it from then on, which is said once: leave this layer off there.

    Cost: one LM call for a group, with the output tokens of all.

    Args:
        lm: The LM to wrap, with its other layers. This layer is the outermost, or one of those below `lm.Fallback`.
    """

    is_outermost = True

    async def complete(self, request: Request) -> Completion:
        """Answer one request, by its sample of that of its group if it belongs to one."""
        member = _member.get()
        if member is None or not member[0].takes(request, member[1]):
            return await self.lm.complete(request)
        group, place = member
        asked = request.replace(replicate=group.first, samples=group.count)
        whole = await group.ask(asked.digest(self.lm.identity()), lambda: self.lm.complete(asked))
        own = sample_of(whole, place)
        return await self.lm.complete(request) if own is None else own

    def forget(self, request: Request) -> None:
        """Forget the reply to a request, and to all of its group if it belongs to one."""
        member = _member.get()
        if member is not None and request.replicate == member[0].first + member[1]:
            group = member[0]
            self.lm.forget(request.replace(replicate=group.first, samples=group.count))
        self.lm.forget(request)
