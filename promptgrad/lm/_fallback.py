"""`Fallback`: another language model where one does not answer."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from promptgrad import run
from promptgrad.errors import LMError, NoLMError, UnknownPriceError, is_outage
from promptgrad.lm._base import LM
from promptgrad.lm._completion import Completion
from promptgrad.lm._layer import Layer
from promptgrad.lm._request import Request
from promptgrad.lm._resolve import LMLike, resolve

Kinds = type[LMError] | tuple[type[LMError], ...] | Callable[[LMError], bool]
"""On which errors a `Fallback` goes on: a kind, several, or a function of the error."""


def passes_elsewhere(error: LMError) -> bool:
    """Whether another language model may answer: the default of `Fallback`.

    It may after an overload, a rate limit, a 5xx, a silence, a lost connection, a spoilt body, a wrong key, an account
    without money, and where the server does not have the model. It is not asked what the first one refused as it is
    written, or what is too long or was stopped by a filter; nor where a cassette, a price or an LM is missing.
    """
    return is_outage(error) and not isinstance(error, (NoLMError, UnknownPriceError))


class Fallback(Layer):
    """Ask the first language model, and the next one where it does not answer.

    `lm.Fallback("openai/gpt-4o-mini", "anthropic/claude-haiku-4-5")`. Each has its own layers, so the first one has
    been retried before the second is asked: fewer `attempts` go on sooner. `completion.model` says who answered,
    `completion.answered_by` that it was not the first, `pg.usage().by_lm` what each cost, `stats()` how often another
    one was asked. Name and adapter are the first's.

    A stream goes on before its first piece only. The prompt is one for all, so all have the same adapter. A budget in
    money needs the prices of all. In a run each call is journalled under the model that was asked, and a resumed run
    goes on to the same ones, without asking again. Caches belong into it, as LMs from names have them: around it, the
    replies of the second would be those of the whole when the first is back. Its hits count for the one that answered.

    Cost: one call, if the first one answers; else those of the next one too.

    Args:
        lm: The language model that is asked first: an LM or a name.
        others: Those that are asked after it, in this order.
        on: The kinds of error after which the next one is asked, or a function of the error. By default those that may
            pass elsewhere: not what was refused as it is written, too long, or filtered.

    Raises:
        TypeError: `on` is none of these.
        ValueError: There is no other one, or one has another adapter.
    """

    wraps_outermost = True

    def __init__(self, lm: LMLike, *others: LMLike, on: Kinds = passes_elsewhere) -> None:
        super().__init__(resolve(lm))
        self.others = tuple(map(resolve, others))
        if not self.others:
            raise ValueError("a Fallback needs at least two language models: lm.Fallback(first, second)")
        for other in self.others:
            if other.adapter != self.lm.adapter:
                raise ValueError(
                    f"one prompt goes to all: {self.lm!r} has the adapter {self.lm.adapter!r}, and {other!r} has "
                    f"{other.adapter!r}"
                )
        self.constrains = all(one.constrains for one in self.lms)  # the request is one for all
        self._may_go_on = _rule(on)
        self._lock = threading.Lock()
        self._fallbacks = 0

    @property
    def lms(self) -> tuple[LM, ...]:
        """All language models, in the order in which they are asked."""
        return (self.lm, *self.others)

    @property
    def media(self) -> frozenset[str] | None:
        """What all of them take beside text, as one request is for all."""
        known = [one.media for one in self.lms]
        return None if None in known else frozenset.intersection(*(media for media in known if media is not None))

    async def complete(self, request: Request) -> Completion:
        """Answer one request; the error of the last one that was asked is raised, with the kinds of those before it."""
        listener = request.listener
        failed: list[str] = []
        *first, last = self.lms
        for lm in first:
            try:
                return _by(lm, await self._ask_one(lm, request), failed)
            except LMError as error:
                if (listener is not None and listener.started) or not self._may_go_on(error):
                    raise _with_history(error, failed) from error.__cause__
                failed.append(f"{lm.name}: {type(error).__name__}")
                self._note(lm, request, error)
        try:
            return _by(last, await last.complete(request), failed)
        except LMError as error:
            raise _with_history(error, failed) from error.__cause__

    async def _ask_one(self, lm: LM, request: Request) -> Completion:
        session = run.current()
        if session is None:
            return await lm.complete(request)
        return await session.ask(request.digest(lm.identity()), partial(lm.complete, request))

    def _note(self, lm: LM, request: Request, error: LMError) -> None:
        """Count it; in a run, write that it goes on without this answer, so that it does so again."""
        with self._lock:
            self._fallbacks += 1
        session = run.current()
        if session is not None:
            key = request.digest(lm.identity())
            session.goes_on("fallback", key, call=error.call or key, lm=lm.name, error=type(error).__name__)

    def forget(self, request: Request) -> None:
        """Forget the reply to a request in the layers of all."""
        for lm in self.lms:
            lm.forget(request)

    def identity(self) -> str:
        """Return the identities of all, in their order."""
        return "fallback " + " ".join(f"[{lm.identity()}]" for lm in self.lms)

    def stats(self) -> dict[str, Any]:
        """The counts of the first one, and `fallbacks`: how often the next one was asked in place of another."""
        return {**self.lm.stats(), "fallbacks": self._fallbacks}

    def close(self) -> None:
        """Close all."""
        for lm in self.lms:
            lm.close()

    def __repr__(self) -> str:
        return f"Fallback({', '.join(map(repr, self.lms))})"


def _rule(on: Any) -> Callable[[LMError], bool]:
    kinds = on if isinstance(on, tuple) else (on,)
    if kinds and all(isinstance(kind, type) and issubclass(kind, LMError) for kind in kinds):
        return lambda error: isinstance(error, kinds)
    if isinstance(on, (tuple, type)) or not callable(on):
        raise TypeError(f"on= is a kind of LMError, a tuple of them, or a function of the error, not {on!r}")
    rule: Callable[[LMError], bool] = on
    return rule


def _by(lm: LM, completion: Completion, failed: list[str]) -> Completion:
    """The reply, with the name of the LM if it is not the first one and no other one below it answered."""
    return replace(completion, answered_by=completion.answered_by or lm.name) if failed else completion


def _with_history(error: LMError, failed: list[str]) -> LMError:
    """The error with the failures before it in its message."""
    if failed and error.args:
        error.args = (f"{error.args[0]} (asked after {', '.join(failed)})", *error.args[1:])
    return error
