"""`Layer`: an LM around another one."""

from __future__ import annotations

from typing import Any, ClassVar

from promptgrad.errors import BudgetExceeded, JournalError, ReplayError, UnknownPriceError
from promptgrad.lm._base import LM
from promptgrad.lm._completion import Completion
from promptgrad.lm._request import Request

ASKERS_OWN = (BudgetExceeded, UnknownPriceError, JournalError, ReplayError)
"""Errors of the run or the replay that made a request, not of the LM: who waits for the same reply asks by itself."""


class Layer(LM):
    """An LM that wraps another one and changes how it is called, but not its replies.

    Everything except `complete` is that of the wrapped LM, which is the attribute `lm`.

    Args:
        lm: The LM to wrap.

    Raises:
        TypeError: `lm` is no LM, or a layer that is the outermost.
    """

    is_outermost = False
    wraps_outermost = False
    _is_as_wrapped: ClassVar[bool] = True  # in its name, adapter and identity, and in whether it traces

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not cls.__dict__.keys().isdisjoint({"name", "adapter", "identity", "traces"}):
            cls._is_as_wrapped = False

    def __init__(self, lm: LM) -> None:
        if not isinstance(lm, LM):
            raise TypeError(f"{type(self).__name__} wraps an LM, not {type(lm).__name__}; see promptgrad.lm.resolve")
        if getattr(lm, "is_outermost", False) and not self.wraps_outermost:
            name = type(lm).__name__
            raise TypeError(f"{name} is the outermost layer: write {name}({type(self).__name__}(...))")
        self._wrap(lm)
        self.constrains = lm.constrains

    def _wrap(self, lm: LM) -> None:
        self.lm = lm
        # the nearest below that says by itself who it is: several layers in a row would ask one another in each call
        self._known_by: LM = lm._known_by if isinstance(lm, Layer) and lm._is_as_wrapped else lm

    @property
    def name(self) -> str:  # type: ignore[override]
        """The name of the wrapped LM."""
        return self._known_by.name

    @property
    def adapter(self) -> str:  # type: ignore[override]
        """The adapter of the wrapped LM."""
        return self._known_by.adapter

    @property
    def transport(self) -> LM:
        """The LM below all layers."""
        return self.lm.transport

    @property
    def media(self) -> frozenset[str] | None:
        """What the wrapped LM takes beside text."""
        return self.lm.media

    async def complete(self, request: Request) -> Completion:
        """Answer one request through the wrapped LM."""
        return await self.lm.complete(request)

    def forget(self, request: Request) -> None:
        """Forget the reply to a request in the layers below."""
        self.lm.forget(request)

    def identity(self) -> str:
        """Return the identity of the wrapped LM."""
        return self._known_by.identity()

    def traces(self) -> bool:
        """True if the wrapped LM would attach a weight trace."""
        return self._known_by.traces()

    def stats(self) -> dict[str, Any]:
        """Return the counts of the wrapped LM."""
        return self.lm.stats()

    def close(self) -> None:
        """Close the wrapped LM."""
        self.lm.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.lm!r})"


def layered(wrapped: LM, made: dict[int, LM]) -> LM:
    """The same layers around another LM; a cache is shared, as its keys identify the weights.

    Args:
        wrapped: An LM, with or without layers.
        made: The replacement of each LM, by the id of the LM; new layers are added to it.
    """
    found = made.get(id(wrapped))
    if found is None:
        if not isinstance(wrapped, Layer):
            return wrapped
        found = object.__new__(type(wrapped))  # copy.copy gives an LM itself, as LMs are shared
        found.__dict__.update(wrapped.__dict__)
        found._wrap(layered(wrapped.lm, made))
        found.__dict__.pop("_made_by", None)  # which makes the one that it is a copy of
        made[id(wrapped)] = found
    return found
