"""`Calling`: how a module is called, once and with a batch, in plain and in async code."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import CoroutineType
from typing import TYPE_CHECKING, Any, ClassVar

from promptgrad import aio
from promptgrad._habits import refuses
from promptgrad.autograd import Tape, current_tape, is_grad_enabled
from promptgrad.errors import AsyncUsageError
from promptgrad.nn._batch import Batch
from promptgrad.nn._hooks import Hooks
from promptgrad.nn._members import Members
from promptgrad.nn._program import enter, program_here
from promptgrad.nn._recent import remember_output
from promptgrad.nn._structure import StructurePlan, Structures, plan_of
from promptgrad.nn._tool_shape import shape_of

if TYPE_CHECKING:
    from promptgrad.nn._stream import EventIterator, EventStream


MAP_HABITS = {
    **dict.fromkeys(("num_threads", "max_workers", "max_concurrency", "workers", "num_workers"), "concurrency=..."),
    "batch_size": "concurrency=...: rows run side by side, and no batch waits for its last row",
    **dict.fromkeys(("disable_progress_bar", "display_progress", "show_progress"), "progress=..."),
    **dict.fromkeys(
        ("max_errors", "return_failed_examples", "provide_traceback", "return_exceptions"),
        "nothing: a row that fails is an ErrorRow, and the others go on",
    ),
    **dict.fromkeys(("lm", "temperature"), "with promptgrad.context(lm=...), or module.to(lm)"),
    "examples": "module.map(examples): the batch stands first",
}


class Calling(Members):
    """The part of `Module` that runs `forward`, and records what is called at the top."""

    _coroutine: ClassVar[bool] = False  # forward is an `async def`
    _in_place: ClassVar[bool] = False  # forward awaits only signals of this package, so that `drive` can run it
    _is_one_call: ClassVar[bool] = False  # forward begins with one request, which its inputs alone decide
    _arguments: ClassVar[tuple[str, ...] | None] = None

    _hooks: Hooks | None
    _plan: StructurePlan | None

    def __init_subclass__(cls, *, in_place: bool = False, one_call: bool = False, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "forward" in cls.__dict__:
            cls._coroutine = aio.is_coroutine_function(cls.__dict__["forward"])
            cls._in_place = in_place
            cls._is_one_call = one_call
            cls._arguments = None

    def _no_forward(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} does not define forward()")

    forward: Callable[..., Any] = _no_forward

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Run `forward` and wait for its value.

        This works in plain code, in threads, in a notebook and in async handlers (whose loop is blocked meanwhile).

        Raises:
            AsyncUsageError: Called from a coroutine on promptgrad's own program loop: use `await module.acall(...)`.
        """
        if aio.serving():
            raise AsyncUsageError(
                f"{type(self).__name__} was called inside a coroutine that promptgrad runs: a blocking call there "
                "would wait for itself. Write `await module.acall(...)` instead of `module(...)`"
            )
        if self._coroutine:
            call = self.acall(*args, **kwargs)
            return aio.drive(call) if self._in_place else aio.run(call)
        if current_tape() is not None:
            return self._run_forward(args, kwargs)
        tape = self._open_tape(args, kwargs)
        if tape is None:
            token = enter(self)
            try:
                return self._run_forward(args, kwargs)
            finally:
                program_here.reset(token)
        with tape.active():
            output = self._run_forward(args, kwargs)
            tape.finish(output)
        remember_output(output, tape)
        return output

    async def acall(self, /, *args: Any, **kwargs: Any) -> Any:
        """Run `forward` and return its value, from a coroutine.

        An `async def forward` runs on the loop of the caller, a plain one in a thread.
        """
        recorded = current_tape() is not None
        tape = self._new_tape(args, kwargs) if not recorded and is_grad_enabled() else None
        if self._in_place and self._hooks is None:
            running = self.forward(*args, **kwargs)
        else:
            running = self._arun_forward(args, kwargs)
        if recorded or (tape is None and not self._modules):
            return await running
        if tape is None:
            token = enter(self)
            try:
                return await running
            finally:
                program_here.reset(token)
        with tape.active():
            output = await running
            tape.finish(output)
        remember_output(output, tape)
        return output

    def stream(self, /, *args: Any, **kwargs: Any) -> EventStream:
        """Call the module, and tell what its calls write while they write it: `async for event in model.stream(...)`.

        The arguments are those of a call. The events are `CallBegun`, `FieldDelta`, `PartialValue`, `FieldFinished`,
        `ThoughtDelta`, `ToolPiece`, `Voided` and `CallEnded` of all calls of `Predict` in the program, of several side
        by side too, `ToolBegun` and `ToolEnded` of the tools of agents, and last what `forward` returned: the
        `Prediction`, recorded as that of a plain call.

        The calls are those of a plain call, through the same cache, budget, journal and retries, and a call fails as
        it does there; what an LM or an adapter cannot stream comes whole. Leaving the loop ends the program and its
        requests. See `EventStream`.

        Cost: as a call.

        Raises:
            Exception: When read: what the call raises.
        """
        from promptgrad.nn._stream import EventStream

        return EventStream(self, args, kwargs)

    def stream_sync(self, /, *args: Any, **kwargs: Any) -> EventIterator:
        """As `stream`, for plain code: `for event in model.stream_sync(...)`. It works in a notebook, too.

        Raises:
            AsyncUsageError: Called from a coroutine on promptgrad's own program loop: use `stream`.
        """
        from promptgrad.nn._stream import EventIterator

        if aio.serving():
            raise AsyncUsageError(
                f"{type(self).__name__}.stream_sync was called inside a coroutine that promptgrad runs: a blocking "
                "loop there would wait for itself. Write `async for event in module.stream(...)`"
            )
        return EventIterator(self, args, kwargs)

    async def _arun_on(self, tape: Tape | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if tape is None:
            token = enter(self)
            try:
                return await self._arun_forward(args, kwargs)
            finally:
                program_here.reset(token)
        with tape.active():
            output = await self._arun_forward(args, kwargs)
            tape.finish(output)
        return output

    def _run_forward(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        hooks = self._hooks
        if hooks is None:
            output = self.forward(*args, **kwargs)
        else:
            args, kwargs = hooks.run_before(self, args, kwargs)
            output = self.forward(*args, **kwargs)
        if type(output) is CoroutineType:  # a decorator hid that forward is an `async def`
            output = aio.run(output)
        return output if hooks is None else hooks.run_after(self, args, kwargs, output)

    async def _arun_forward(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not self._coroutine:
            return await aio.in_thread(self._run_forward, args, kwargs)
        hooks = self._hooks
        if hooks is not None:
            args, kwargs = hooks.run_before(self, args, kwargs)
        if self._in_place or not aio.is_driven():
            output = await self.forward(*args, **kwargs)
        else:
            output = await aio.on_program(self.forward, *args, **kwargs)
        if type(output) is CoroutineType:  # `return self.answer.acall(...)`, without an await
            output = await output
        return output if hooks is None else hooks.run_after(self, args, kwargs, output)

    def _open_tape(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tape | None:
        """A tape for a top-level call, or None if nothing is recorded."""
        return self._new_tape(args, kwargs) if is_grad_enabled() else None

    def _new_tape(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tape | None:
        plan = self._plan
        if plan is None or plan.version != Structures.version:
            plan = plan_of(self)
        if not plan.takes_gradient():
            return None
        return Tape({**self._named(args), **kwargs} if args else kwargs, self, paths=plan.parameters)

    def _named(self, args: tuple[Any, ...]) -> dict[str, Any]:
        names = self.input_names() or ()
        return {names[number] if number < len(names) else str(number): value for number, value in enumerate(args)}

    def _asks_once(self) -> bool:
        """Whether a call begins with one request, which its inputs alone decide: then rollouts of it ask the same."""
        return self._is_one_call and self._hooks is None

    def input_names(self) -> tuple[str, ...] | None:
        """Names of the inputs that `forward` takes; None where it takes any name."""
        cls = type(self)
        if "_arguments" not in cls.__dict__ or cls._arguments is None:
            names = _argument_names(self.forward)
            if names is None:
                return None
            cls._arguments = names
        return cls._arguments

    def output_names(self) -> tuple[str, ...] | None:
        """Names of the outputs; None where they are not known before `forward` has run."""
        return None

    def __tool__(self) -> tuple[Callable[..., Any], Callable[..., Any]]:
        """What a `Tool` of this module is told of: a function declared as it is called, and the one that calls it."""
        return shape_of(self)

    # ------------------------------------------------------------------ batches

    @refuses(MAP_HABITS, "Module.map")
    def map(
        self,
        batch: Iterable[Any],
        n: int = 1,
        *,
        concurrency: int | None = None,
        progress: bool = False,
    ) -> Batch:
        """Call the module with every item of a batch, concurrently, and return the outputs in order.

        An item is an `Example` (its inputs are passed by name: those of `with_inputs`, else the fields that `forward`
        has arguments for), a mapping of inputs by name, or the value of the only input. An item that fails gives an
        `ErrorRow` and does not stop the others.

        A plain forward takes one thread per item in flight, an `async def forward` one task. Ctrl-C cancels what is
        in flight; the exception carries the finished rows as `.batch`.

        Args:
            batch: The items.
            n: Rollouts of each item, which LMs and caches distinguish by their replicate number.
            concurrency: Items in flight; else that of the context or of `configure`, else 32.
            progress: Show a progress bar (in a terminal or a notebook only).

        Raises:
            NoLMError: No language model is configured.
            ImportError: A package that the program needs is not installed.
            InputError: The batch is not a sequence of items.
            AsyncUsageError: Called inside a coroutine that promptgrad runs: use `await module.amap(...)`.
        """
        from promptgrad.nn._map import map_rows

        if aio.serving():
            raise AsyncUsageError(
                f"{type(self).__name__}.map was called inside a coroutine that promptgrad runs: a blocking call there "
                "would wait for itself. Write `await module.amap(...)` instead of `module.map(...)`"
            )
        return map_rows(self, batch, n, concurrency=concurrency, progress=progress)

    @refuses(MAP_HABITS, "Module.amap")
    async def amap(
        self,
        batch: Iterable[Any],
        n: int = 1,
        *,
        concurrency: int | None = None,
        progress: bool = False,
    ) -> Batch:
        """As `map`, from a coroutine."""
        from promptgrad.nn._map import amap_rows

        return await amap_rows(self, batch, n, concurrency=concurrency, progress=progress)


def _argument_names(function: object) -> tuple[str, ...] | None:
    """Names of the arguments that can be given by keyword; None where any name is accepted."""
    import inspect

    names = []
    for parameter in inspect.signature(function).parameters.values():  # type: ignore[arg-type]
        if parameter.kind is parameter.VAR_KEYWORD:
            return None
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            names.append(parameter.name)
    return tuple(names)
