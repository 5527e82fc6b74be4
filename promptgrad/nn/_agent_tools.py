"""The tools of an agent: how they are taken in, how a prompt tells of them, and the one that takes the result."""

import inspect
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from promptgrad._habits import refuse
from promptgrad.adapters import Tool
from promptgrad.autograd import Parameter
from promptgrad.errors import SignatureError
from promptgrad.nn._containers import ParameterDict
from promptgrad.nn._module import Module
from promptgrad.nn._module_tool import ModuleTool
from promptgrad.nn._op import Op, op
from promptgrad.nn._tool_shape import ModuleCall
from promptgrad.signature import Signature

# What a user of other libraries may write out of habit, and what to write here.
_HABITS = {
    **dict.fromkeys(("max_iter", "max_iters", "max_iterations"), "max_steps=..."),
    "functions": "tools=[...]",
    "interpreter_factory": "interpreter=..., whose session() begins a run",
    "max_llm_calls": "max_calls=...",
    "max_output_chars": "max_chars=...",
    "parallel_tool_calls": "nothing: calls of one reply run side by side",
    "sandbox": "interpreter=...",
    "sub_lm": "rlm.sub.to(lm)",
}


def refuse_habits(agent: str, options: Iterable[str]) -> None:
    """Refuse arguments of other libraries among the options of an agent.

    Raises:
        TypeError: There is one.
    """
    if strange := [name for name in options if name in _HABITS]:
        refuse(agent, strange, _HABITS, ())


def free_name(name: str, own: Signature) -> str:
    """A name that no field of the signature has."""
    while name in own.fields:
        name += "_"
    return name


class ToolTexts:
    """Which descriptions of the tools of an agent are trained: all, or those of the tools and arguments that are named.

    Args:
        asked: Whether all are; or names, such as "search" and "search.query".

    Raises:
        SignatureError: From `check`: there is no such tool or argument, or nothing is said of it yet.
    """

    def __init__(self, asked: bool | Iterable[str]) -> None:  # noqa: FBT001 - as the agents take it
        self._all = asked is True
        names = () if isinstance(asked, bool) else [asked] if isinstance(asked, str) else asked
        self._names = frozenset(names)
        self._known: set[str] = set()

    def take(self, tool: Tool, recorded: Op | ModuleTool) -> None:
        """Make parameters of what is said of a tool, as far as it is asked for."""
        told = {key: field.description for key, field in tool.fields.items() if field.description}
        self._known |= {tool.name, *(f"{tool.name}.{key}" for key in told)}
        recorded.description.requires_grad |= self._all or tool.name in self._names
        found = {key: text for key, text in told.items() if self._all or f"{tool.name}.{key}" in self._names}
        if found:
            recorded.arguments = ParameterDict(
                {key: Parameter(text, "description", requires_grad=True) for key, text in found.items()}
            )

    def check(self) -> None:
        """Refuse names of nothing."""
        if strange := sorted(self._names - self._known):
            known = ", ".join(sorted(self._known)) or "none"
            raise SignatureError(
                f"describe= names the tools and arguments whose descriptions are trained, {known}, not {strange[0]!r}"
            )


def take_tool(
    given: Any, taken: Mapping[str, Tool], agent: str, reserved: Collection[str], *, describe: ToolTexts
) -> tuple[Tool, Op | ModuleTool]:
    """A tool of an agent, and the module that records its calls.

    Args:
        given: A function, a module, a `Tool` or an `Op`.
        taken: The tools that are there.
        agent: The class of the agent, for messages.
        reserved: Names that no tool may have, such as that of what takes the result.
        describe: Which descriptions are trained.

    Raises:
        SignatureError: It is not a tool, has no function, or has a name that is taken.
    """
    try:
        made = Tool.of(given.function if isinstance(given, Op) else given)
    except ValueError as error:
        raise SignatureError(str(error)) from error
    if made.function is None:
        raise SignatureError(f"the tool {made.name!r} has no function: a {agent} calls its tools itself")
    if made.name in taken or made.name in reserved:
        raise SignatureError(f"two tools have the name {made.name!r}: pass Tool(function, name=...)")
    recorded = given if isinstance(given, Op) else _recorded(made)
    describe.take(made, recorded)
    return made, recorded


def arguments_of(recorded: Any) -> Mapping[str, Parameter]:
    """The parameters that hold what is said of the arguments of a tool; those that are not trained are missing."""
    found = recorded._modules.get("arguments")
    return dict(found.items()) if isinstance(found, ParameterDict) else {}


def described_tool(tool: Tool, recorded: Any) -> Tool:
    """A tool with the descriptions that its parameters hold now."""
    own = {key: str(parameter) for key, parameter in arguments_of(recorded).items()}
    return tool.replace(description=str(recorded.description), **({"arguments": own} if own else {}))


class ToolWords:
    """A tool in the words of a list.

    Args:
        tool: The tool.
    """

    __slots__ = ("_fields", "_head", "_lines")

    def __init__(self, tool: Tool) -> None:
        self._head = f"- {shape(tool)}: "
        self._fields = {key: field.description for key, field in tool.fields.items()}
        self._lines = "\n" + "".join(f"{line}\n" for line in argument_lines(tool))

    def now(self, recorded: Any) -> str:
        """The words, with the descriptions that the parameters of the tool hold now, which keep their origin."""
        text = self._head + str(recorded.description)
        own = arguments_of(recorded)
        if not own:
            return text + self._lines
        text = text + "\n"
        for key, fixed in self._fields.items():
            if about := str(own[key]) if key in own else fixed:
                text = text + f"  - {key}: " + about + "\n"
        return text


def _recorded(tool: Tool) -> Op | ModuleTool:
    """The module that runs a tool within its time; its description is trained if the tool says so."""
    if isinstance(tool.function, ModuleCall):
        return ModuleTool(tool, tool.function.module)
    if tool.timeout is None and tool.function is not None:
        return op(tool.function, description=tool.description, trainable=tool.trainable)

    async def call(**arguments: Any) -> Any:
        return await tool.acall(**arguments)

    call.__name__ = call.__qualname__ = tool.name
    return op(call, description=tool.description, trainable=tool.trainable)


def flat_tools(tools: Iterable[Any]) -> Iterator[Any]:
    """The tools one by one, also those of a `Toolset` among them.

    Raises:
        TypeError: They are no list.
    """
    if not isinstance(tools, Iterable):
        raise TypeError(f"tools is a list, tools=[search], not {type(tools).__name__}")
    for given in tools:
        if isinstance(given, (list, tuple)):
            yield from flat_tools(given)
        else:
            yield given


def tool_key(name: str) -> str:
    """The name of a tool in a `ModuleDict`, which has methods of its own."""
    return f"{name}_tool" if hasattr(Module, name) else name


@lru_cache(256)
def result_tool(own: Signature, name: str) -> Tool:
    """The tool whose arguments are the outputs of a signature."""

    def finish(**outputs: Any) -> dict[str, Any]:
        return outputs

    kind = inspect.Parameter.KEYWORD_ONLY
    finish.__annotations__ = {name: field.annotation for name, field in own.outputs.items()}
    finish.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter(name, kind, annotation=field.annotation) for name, field in own.outputs.items()]
    )
    about = {name: field.description for name, field in own.outputs.items() if field.description}
    return Tool(finish, name=name, description="Gives the result, and ends the work.", arguments=about)


@lru_cache(256)
def result_words(own: Signature, name: str) -> str:
    """That tool in words."""
    tool = result_tool(own, name)
    return "\n".join([f"- {shape(tool)}: {tool.description}", *argument_lines(tool)])


def shape(tool: Tool) -> str:
    """The name of a tool, with its arguments and their types."""
    inside = [
        f"{key}: {field.type_name}{'' if key in tool.required else ' = ...'}" for key, field in tool.fields.items()
    ]
    return f"{tool.name}({', '.join(inside)})"


def argument_lines(tool: Tool) -> list[str]:
    """What the arguments of a tool are, a line each, as far as it is told."""
    return [f"  - {key}: {field.description}" for key, field in tool.fields.items() if field.description]
