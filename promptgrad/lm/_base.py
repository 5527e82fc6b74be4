"""The language-model protocol: one coroutine method, and the members of every language model."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from promptgrad import aio, run
from promptgrad._habits import Hinted, HintedType
from promptgrad.lm._completion import Completion
from promptgrad.lm._request import Prompt, Request
from promptgrad.lm._secret import without_secrets
from promptgrad.lm._stream import Event, Listener, pieces
from promptgrad.lm._time_limit import time_limit

if TYPE_CHECKING:
    from typing_extensions import Self

_makers: dict[str, Callable[..., Any]] = {}


def register_maker(name: str, make: Callable[..., Any]) -> None:
    """Set the function by which a low file makes what is made of it: "LM" for `LM(...)` itself."""
    _makers[name] = make


def make_known(name: str, /, *args: Any, **kwargs: Any) -> Any:
    """Make what has a registered maker."""
    return _makers[name](*args, **kwargs)


class _Meta(HintedType):
    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        if cls is LM:
            return make_known("LM", *args, **kwargs)
        made = super().__call__(*args, **kwargs)
        if cls.__module__.startswith("promptgrad."):
            configured(made, cls, *args, **kwargs)
        return made


def configured(lm: LM, make: Callable[..., LM], *args: Any, **kwargs: Any) -> None:
    """Note by what call an LM is made anew in another process; keys and headers are left out."""
    code = getattr(getattr(make, "__init__", None) if isinstance(make, type) else make, "__code__", None)
    names = () if code is None else code.co_varnames[isinstance(make, type) : code.co_argcount]
    given = without_secrets(dict(zip(names, args, strict=False)))
    rest = args[len(names) :]
    lm.__dict__["_made_by"] = (
        make,
        tuple(given.get(name) for name in names[: len(args)]) + rest,
        without_secrets(kwargs),
    )


def _make(make: Callable[..., LM], args: tuple[Any, ...], kwargs: dict[str, Any]) -> LM:
    return make(*args, **kwargs)


# What a user of DSPy, OpenAI's client or LangChain may type out of habit, and what to write here.
_ELSEWHERE = {
    **dict.fromkeys(("history", "inspect_history"), "promptgrad.inspect_history(n), the last calls of programs"),
    **dict.fromkeys(("copy", "bind", "with_options"), "promptgrad.LM(name, ...), another one with options of its own"),
    **dict.fromkeys(
        ("forward", "basic_request", "chat", "completions", "create", "generate", "invoke", "predict", "query"),
        "lm(prompt), with a text or messages",
    ),
    **dict.fromkeys(("aforward", "ainvoke", "agenerate"), "await lm.acall(prompt), with a text or messages"),
    **dict.fromkeys(("batch", "abatch"), "program.map(batch), or promptgrad.lm.BatchLM(lm)"),
    **dict.fromkeys(("model", "model_name"), "lm.name"),
    "kwargs": "lm(prompt, temperature=0) for a call, or promptgrad.LM(name, temperature=0) for all",
    "usage": "promptgrad.track_usage(), or completion.usage",
    **dict.fromkeys(("finetune", "reinforce"), "promptgrad.finetune.sft(...), dpo, grpo or job"),
    **dict.fromkeys(("launch", "kill"), "nothing: promptgrad starts no servers of language models"),
}


class LM(Hinted, metaclass=_Meta):
    """A language model: anything that completes a request.

    `LM("openai/gpt-4o-mini", temperature=0)` makes one from a name, with cache, retry and a concurrency cap around it,
    as `promptgrad.lm.resolve` does.

    A transport (`HTTP`, `Local`, ...) reaches a model; a layer (`Cache`, `Retry`, ...) wraps another LM. Both
    have this one interface. Subclass `Transport` or `Layer` rather than this class.

    Attributes:
        name: Name of the LM in reports and states; never holds a secret.
        adapter: Name of the adapter that writes prompts for it and reads its replies.
        constrains: Whether it holds replies to `Request.grammar`, so that an adapter's grammar is worth sending.
    """

    _elsewhere: ClassVar[Mapping[str, str]] = _ELSEWHERE

    name: str = "lm"
    adapter: str = "chat"
    constrains: bool = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    async def complete(self, request: Request) -> Completion:
        """Answer one request.

        Cost: one LM call, unless a cache below answers.

        Raises:
            LMError: The LM could not be reached, refused the request, or returned something other than a completion.
            BudgetExceeded: The budget of the active run does not allow the call.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define complete()")

    async def stream(self, prompt: Prompt = (), **options: Any) -> AsyncGenerator[Event, None]:
        """Answer a prompt, messages or a request piece by piece: deltas as they come, and at the end the `Completion`.

        All layers work as for `complete`: a streamed reply is cached, counted, journalled and recorded when it is
        complete, and one from a cache, a journal or a cassette comes in pieces too. A failure before the first piece is
        retried as usual; an error after it is raised. Leaving the loop early and closing the generator, or cancelling
        the task, ends the request, which is then not journalled; a budget counts it, as its provider may charge for it.

        Example:
            ```python
            async for event in lm.stream("Tell me a story.", temperature=1.0):
                match event:
                    case TextDelta(text): print(text, end="")
                    case Completion(): print(event.usage)
            ```

        Cost: one LM call, unless a cache below answers.

        Raises:
            LMError, BudgetExceeded: As `complete`.
        """
        request = Request.of(prompt, **options)
        listener = Listener(begins=request.prefix.begins)
        reply = aio.start(self.ask, request.replace(listener=listener))
        try:
            async for delta in listener.until(reply):
                yield delta
            completion = await reply
            if not listener.started:
                for delta in pieces(completion):
                    yield delta
            yield completion
        finally:
            await reply.stop()

    def __call__(self, prompt: Prompt = (), **options: Any) -> Completion:
        """Answer a prompt or messages; the thread waits. Options are those of `Request`.

        Raises:
            AsyncUsageError: Called where waiting would block a running loop of ours; use `await lm.acall(...)`.
            LMError: As `complete`.
        """
        return aio.drive(self.ask(Request.of(prompt, **options)))

    async def acall(self, prompt: Prompt = (), **options: Any) -> Completion:
        """Answer a prompt or messages, from a coroutine. Options are those of `Request`."""
        return await self.ask(Request.of(prompt, **options))

    def ask(self, request: Request) -> Coroutine[Any, Any, Completion]:
        """Answer a request, as `acall` does with less work for each call; in a run, with a note of a failure."""
        limit, active = time_limit.get(), run.current()
        if active is None:
            return self.complete(request) if limit is None else limit.hold(partial(self.complete, request))
        key, answer = request.digest(self.identity()), partial(self.complete, request)
        if limit is not None and not active.journal.has(key):  # a resumed run has its replies, however slow it is
            answer = partial(limit.hold, answer)
        return active.ask(key, answer, gives_up=request.listener is None)

    def forget(self, request: Request) -> None:
        """Forget the reply to a request wherever it is kept, because it was of no use: the next call asks anew."""

    def identity(self) -> str:
        """Return the text that identifies this LM in cache and journal keys: model, endpoint, settings, weight version.

        It never holds a secret.
        """
        return self.name

    @property
    def transport(self) -> LM:
        """The LM below all layers."""
        return self

    @property
    def media(self) -> frozenset[str] | None:
        """The kinds of parts beside text that it takes, of "image", "audio" and "file"; None where it is not known."""
        return None

    def traces(self) -> bool:
        """True if a completion made here and now would carry a weight trace, which no cache can serve."""
        return False

    def stats(self) -> dict[str, Any]:
        """Return what is known of the calls so far, as numbers by name; empty where nothing is counted.

        `requests` are those that left, so as many as the server counts; `cap` is how many may be in flight now.
        """
        return {}

    def close(self) -> None:
        """Release connections, files and threads; if the LM is used again, it opens them anew."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickle the settings: the other process makes the LM anew, and its keys come from the environment there.

        Subclasses of your own are pickled as other objects are.
        """
        made_by = self.__dict__.get("_made_by")
        return super().__reduce_ex__(protocol) if made_by is None else (_make, made_by)

    def __copy__(self) -> Self:
        return self  # connections, caches and weights are shared, as a device is

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"
