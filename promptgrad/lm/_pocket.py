"""`pocket`: the language model that comes with promptgrad."""

from __future__ import annotations

import warnings
from functools import lru_cache
from typing import Any

from promptgrad.lm._completion import Completion
from promptgrad.lm._local import Local
from promptgrad.lm._parts import TextPart
from promptgrad.lm._request import Request


def pocket(**options: Any) -> Local:
    """Return the embedded model: 1.1 million weights, trained on one small world (`promptgrad.data.pocket`).

    It runs here, on one thread of the CPU, without a key or network; replies are greedy unless a temperature is set.
    Without options it is one object for the process, and its weights are loaded once; to train it, work on a copy:
    `lm.with_model(copy.deepcopy(lm.model), "mine")`. Needs the extra `local`.

    For prompts that its own adapter did not write, it warns once of words that it cannot read.

    Args:
        options: Sampling options for requests that leave them open.
    """
    return _make(**options) if options else _shared()


class _Pocket(Local):
    """The embedded model, which warns of words that it cannot read."""

    _warned = False

    async def _send(self, request: Request, key: str) -> Completion:
        if not self._warned:
            self._check(request)
        return await super()._send(request, key)

    def _check(self, request: Request) -> None:
        """Warn once of words that the model cannot read. Its own adapter, which ends with a marker, does so itself."""
        from promptgrad.data import pocket as world
        from promptgrad.data.pocket import say_unknown

        messages = request.messages
        if not messages or messages[-1].text.endswith(world.MARKERS):
            return
        if not all(isinstance(part, TextPart) for message in messages for part in message.parts):
            return  # every local model refuses it later
        unknown = world.unknown_words(messages)
        if unknown:
            self._warned = True
            warnings.warn(
                f"{say_unknown(unknown)} Ask it in its own adapter, 'pocket', and in the words of its world "
                "(promptgrad.data.pocket.words())",
                stacklevel=2,
            )


@lru_cache(maxsize=1)
def _shared() -> Local:
    return _make()


def _make(**options: Any) -> Local:
    from promptgrad.data.pocket import model_path

    return _Pocket(
        model_path(), name="pocket", adapter="pocket", device="cpu", threads=1, **{"temperature": 0.0, **options}
    )
