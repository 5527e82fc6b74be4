"""`FunctionLM`: a Python function as a language model."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable
from time import perf_counter
from typing import Any, NoReturn

from promptgrad import aio
from promptgrad.errors import LMError, PromptgradError
from promptgrad.lm._completion import Completion, make_completion, make_usage
from promptgrad.lm._message import Message, is_text, unmarked
from promptgrad.lm._options import hear
from promptgrad.lm._parts import weigh
from promptgrad.lm._request import Request
from promptgrad.lm._stream import Listener, TextDelta
from promptgrad.lm._transport import Transport

Reply = str | Completion
Answer = Reply | Awaitable[Reply] | AsyncGenerator[str, None]
"""The return value of the function of a `FunctionLM`."""


class FunctionLM(Transport):
    """A Python function as a language model: for tests, rules, and models served in some way of your own.

    A plain function runs in place, on the caller's thread or loop, so it must answer at once; one that waits should be
    `async`. An async generator yields its text in pieces, which `stream` passes on as they come. The number of tokens
    is a quarter of the characters, the price is zero. What the function raises is the cause of an `LMError`, since no
    prompt is to blame for it; errors of promptgrad's own stay what they are.

    Args:
        fn: Function of the messages (a tuple of `Message`, which also support `m["role"]` and `m["content"]`), or of
            the `Request` if its parameter is named `request` or annotated so; it returns a `str` or a `Completion`, or
            yields pieces of text.
        name: Name of the LM. It is part of cache and journal keys: give another name to another function.
        adapter: Name of the adapter that writes prompts for it.
        options: Sampling options for requests that leave them open.

    Raises:
        TypeError: `fn` is no function.
    """

    in_place = True

    def __init__(
        self,
        fn: Callable[[tuple[Message, ...]], Answer] | Callable[[Request], Answer],
        name: str = "",
        *,
        adapter: str = "chat",
        **options: Any,
    ) -> None:
        if not callable(fn):
            raise TypeError(f"FunctionLM takes a function of the messages, not {type(fn).__name__}")
        super().__init__(
            name or getattr(fn, "__name__", type(fn).__name__),
            adapter=adapter,
            options=hear("lm.FunctionLM", options, ()),
        )
        self.fn: Callable[[Any], Any] = fn
        self._whole = _takes_request(fn)

    @property
    def media(self) -> None:
        """It is not known what the function takes beside text."""

    async def _send(self, request: Request, key: str) -> Completion:
        started, prefix = perf_counter(), request.prefix
        try:
            if self._whole:
                asked: Any = request
            elif prefix.is_text and is_text(request.tail):
                asked = prefix.messages + request.tail
            else:  # the texts of documents are texts as any
                asked = unmarked(prefix.messages + request.tail)
            reply: Any = self.fn(asked)
            if reply.__class__ is not str:
                if inspect.isasyncgen(reply):
                    reply = self._joined(reply, request.listener)
                if inspect.isawaitable(reply):
                    reply = await aio.awaited(reply)
        except Exception as error:  # noqa: BLE001 - it is raised
            raise_as_ours(error, f"the function of LM {self.name!r}")
        if reply.__class__ is not str:
            if isinstance(reply, Completion):
                return reply
            if not isinstance(reply, str):
                raise LMError(
                    f"the function of LM {self.name!r} must return a str or a Completion, not {type(reply).__name__}"
                )
            reply = str(reply)
        size = len(prefix.encoded)
        for message in request.tail:
            content = message.content
            size += len(content) if content.__class__ is str else weigh(content)
        usage = make_usage(size // 4 + 1, len(reply) // 4 + 1, 0.0, perf_counter() - started)
        return make_completion(reply, usage, self.name)

    async def _joined(self, pieces: AsyncGenerator[Any, Any], listener: Listener | None) -> str:
        """The text of an async generator; a listener receives its pieces as they come."""
        texts = []
        try:
            async for piece in pieces:
                if not isinstance(piece, str):
                    raise LMError(f"the function of LM {self.name!r} must yield texts, not {type(piece).__name__}")
                texts.append(piece)
                if listener is not None:
                    listener.put(TextDelta(piece))
        finally:
            await pieces.aclose()
        return "".join(texts)


def raise_as_ours(error: Exception, who: str) -> NoReturn:
    """Raise what a function of the user's raised as the cause of an `LMError`; what is ours, or an import, as it is.

    Its own client has its own errors, and no prompt could have avoided them.
    """
    if isinstance(error, (PromptgradError, ImportError)):
        raise error
    try:
        said = str(error)
    except Exception:  # noqa: BLE001 - the error is of foreign code, and so is its `__str__`
        said = ""
    raise LMError(f"{who} raised {type(error).__name__}{said and ': '}{said}") from error


def _takes_request(fn: Callable[..., Any]) -> bool:
    try:
        parameters = list(inspect.signature(fn).parameters.values())
    except (TypeError, ValueError):  # a builtin without a signature
        return False
    return bool(parameters) and (
        parameters[0].name == "request"
        or parameters[0].annotation in (Request, "Request", "lm.Request", "pg.lm.Request")
    )
