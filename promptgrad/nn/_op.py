"""`op`, which makes a Python function or tool a part of the graph."""

import inspect
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from types import CoroutineType
from typing import Any, overload

from promptgrad import aio
from promptgrad.autograd import Node, Parameter, Passing, attach, current_tape
from promptgrad.errors import AsyncUsageError
from promptgrad.nn._module import Module
from promptgrad.nn._program import begin_node

Backward = Callable[..., Any]


class Op(Module):
    """A Python function that is recorded as one call when a program is; made by `op`.

    It is a module: it may stand alone, or be assigned to an attribute of a program, whose `parameters()` then hold its
    `description`. Its name is the function's.

    Cost: no LM call of its own; what the function does.

    Attributes:
        description: What the function is for: a `Parameter` of kind "description", with its text in
            `str(op.description)`.
        function: The function itself.
        kind: The kind whose rule passes blame on: "function", "retriever", or one of your own
            (`autograd.register_rule`).
    """

    description: Parameter

    def __init__(
        self, function: Callable[..., Any], description: Parameter, kind: str, backward: Backward | None
    ) -> None:
        super().__init__()
        self.function = function
        self.kind = kind
        self.description = description
        self._rule = None if backward is None else _rule_from(backward)
        self._takes = _signature(function)
        inner = _inner(function)
        self.__name__ = getattr(inner, "__name__", type(inner).__name__)
        self._method_of = ""

    def __set_name__(self, owner: type, name: str) -> None:
        defined = getattr(self.function, "__qualname__", "")
        if defined == f"{owner.__qualname__}.{name}" and not isinstance(self.function, staticmethod):
            self._method_of = owner.__name__

    def __get__(self, instance: object, owner: "type | None" = None) -> "Op":
        if instance is not None and self._method_of:
            name = self.__name__
            raise TypeError(
                f"{self._method_of}.{name} is a method, and an op of a method does not know its object: call the "
                f"method `_{name}`, without the decorator, and write `self.{name} = promptgrad.op(self._{name})` in "
                "__init__, which makes it a part of the program as well"
            )
        return self

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Call the function, and wait for the value of an `async def` (in a coroutine, `await op.acall(...)`)."""
        if self._coroutine and aio.serving():
            raise self._would_wait()
        if self._coroutine or (current_tape() is None and self.description.requires_grad):
            return super().__call__(*args, **kwargs)
        return self._run_forward(args, kwargs)  # also in a coroutine: it waits for nothing on the program loop

    def forward(self, /, *args: Any, **kwargs: Any) -> Any:
        """Call the function, and record the call where calls are recorded.

        Raises:
            AsyncUsageError: The function returned a coroutine, and this is called inside one that promptgrad runs.
            Exception: What the function raises.
        """
        node = self._begin(args, kwargs)
        try:
            output = self.function(*args, **kwargs)
        except Exception as error:  # a cancelled call gave nothing, and stays unfinished
            if node is not None:
                node.finish(error=error)
            raise
        if type(output) is CoroutineType:  # the function is plain, and calls an `async def`: whoever called it waits
            if aio.serving():
                output.close()
                raise self._would_wait()
            return self._later(node, lambda: output)
        return self._end(node, output)

    async def _later(self, node: Node | None, start: Callable[[], Awaitable[Any]]) -> Any:
        try:
            output = await start()
        except Exception as error:  # a cancelled call gave nothing, and stays unfinished
            if node is not None:
                node.finish(error=error)
            raise
        return self._end(node, output)

    def _would_wait(self) -> AsyncUsageError:
        return AsyncUsageError(
            f"the op {self.__name__} of an `async def` was called inside a coroutine that promptgrad runs, where it "
            f"would wait for itself: write `await {self.__name__}.acall(...)`"
        )

    def _begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Node | None:
        tape = current_tape()
        if tape is None:
            return None
        bound = self._takes.bind(*args, **kwargs)
        inputs: dict[str, Any] = {}
        for name, value in bound.arguments.items():
            if self._takes.parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
                inputs.update(value)
            else:
                inputs[name] = value
        node = begin_node(self, tape, inputs, ("out",), kind=self.kind)
        if node.path.startswith("("):  # not part of the program
            node.path = self.__name__
        node.rule = self._rule
        if self.description.requires_grad:
            node.read(self.description, "description")
        return node

    def _end(self, node: Node | None, output: Any) -> Any:
        output = attach(output, node, objects=False)
        if node is not None:
            node.finish({"out": output})
        return output

    def __tool__(self) -> tuple[Callable[..., Any], Callable[..., Any]]:
        return self.function, self.function

    def extra_repr(self) -> str:
        """The function's name and arguments."""
        return f"{self.__name__}{self._takes}"


class AsyncOp(Op):
    """An `Op` of an `async def`."""

    async def forward(self, /, *args: Any, **kwargs: Any) -> Any:
        return await self._later(self._begin(args, kwargs), partial(self.function, *args, **kwargs))


def _inner(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function that a partial calls."""
    while isinstance(function, partial):
        function = function.func
    return function


def _signature(function: Callable[..., Any]) -> inspect.Signature:
    """The signature of a function; any positional arguments for one without a signature, such as `max`."""
    try:
        return inspect.signature(function)
    except ValueError:
        kinds = {"args": inspect.Parameter.VAR_POSITIONAL, "options": inspect.Parameter.VAR_KEYWORD}
        return inspect.Signature([inspect.Parameter(name, kind) for name, kind in kinds.items()])


def _rule_from(backward: Backward) -> Callable[[Passing], Any]:
    """A rule from a user's `backward`, which may return one text for a sole input."""
    if inspect.iscoroutinefunction(backward):

        async def later(passing: Passing) -> Mapping[str, Any]:
            return _answer(passing, await backward(passing))

        return later
    return lambda passing: _answer(passing, backward(passing))


def _answer(passing: Passing, result: Any) -> Mapping[str, Any]:
    if result is None:
        return {}
    return result if isinstance(result, Mapping) else dict.fromkeys((t.name for t in passing.targets), result)


@overload
def op(function: Callable[..., Any], /) -> Op: ...
@overload
def op(
    function: None = None,
    /,
    *,
    kind: str = "function",
    description: str | Parameter | None = None,
    trainable: bool = False,
    backward: Backward | None = None,
) -> Callable[[Callable[..., Any]], Op]: ...
@overload
def op(
    function: Callable[..., Any],
    /,
    *,
    kind: str = "function",
    description: str | Parameter | None = None,
    trainable: bool = False,
    backward: Backward | None = None,
) -> Op: ...
def op(
    function: Callable[..., Any] | None = None,
    /,
    *,
    kind: str = "function",
    description: str | Parameter | None = None,
    trainable: bool = False,
    backward: Backward | None = None,
) -> Op | Callable[[Callable[..., Any]], Op]:
    '''Make a function or tool, plain or `async def`, a part of the graph: a decorator, and a function.

    ```
    @pg.op(kind="retriever", trainable=True)
    def search(query: str) -> list[str]:
        """Find three paragraphs of the manual."""
        return index.search(query, 3)
    ```

    A call is recorded when the program around it is, and exact edges lead through it, whatever it does with its inputs.
    The rule for its kind passes on the critiques of its result, without an LM: "function" passes them to every input
    that another call produced, "retriever" criticises the query for finding the wrong documents, and if the function
    raised, "error" criticises the inputs, with their values and the error.

    An op of a method is made in `__init__`: `self.search = promptgrad.op(self._search)` is then a part of the program.

    Cost: no LM call; if nothing is recorded, a plain call.

    Args:
        function: The function to call.
        kind: "function", "retriever", or one of your own with `autograd.register_rule`.
        description: What the function is for, as text or `Parameter`; by default the docstring.
        trainable: Whether the description requires a gradient. It gets the critiques of the function's calls and, if a
            prompt shows it with f"{search.description}", those of that prompt.
        backward: A rule of its own: a function, plain or `async def`, of an `autograd.Passing` that returns what is
            wrong with each input by name, or one text for all of them, or None.

    Raises:
        TypeError: `function` cannot be called, is a generator function, or is a Module, which is recorded without `op`.
            When called: it is a method.
    '''
    if function is None:
        return lambda function: op(function, kind=kind, description=description, trainable=trainable, backward=backward)
    if isinstance(function, Module) or not callable(function):
        raise TypeError(f"op takes a function, not {type(function).__name__}: modules are recorded as they are")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(f"{_inner(function).__name__} is a generator function: return a list, which can be recorded")
    if not isinstance(description, Parameter):
        text = inspect.getdoc(_inner(function)) or "" if description is None else description
        description = Parameter(text, "description", requires_grad=trainable)
    elif trainable:
        description.requires_grad = True
    asynchronous = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(type(function), "__call__", None)  # noqa: B004 - its flags matter, not whether it exists
    )
    made = AsyncOp if asynchronous else Op
    return made(function, description, kind, backward)
