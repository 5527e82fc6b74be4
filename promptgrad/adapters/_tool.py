"""`Tool`: a typed function that a language model may call."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn

from promptgrad import aio
from promptgrad._habits import Hinted, refuses
from promptgrad._patterns import late_pattern
from promptgrad.adapters._nearly_json import Odd, loads, loads_nearly
from promptgrad.adapters._observation import observed
from promptgrad.adapters._read import Reader
from promptgrad.adapters._tool_arguments import docstring_of, from_function, from_schema, name_of
from promptgrad.adapters._tool_langchain import parts_of
from promptgrad.adapters._tool_run import LeftBehind, run_tool
from promptgrad.autograd import Text
from promptgrad.errors import FATAL, ParseError, SignatureError, ToolCallError
from promptgrad.lm import TextPart, ToolCall, ToolResult

_NAME = late_pattern(r"[a-zA-Z0-9_-]{1,64}")

MAX_CHARS = 10_000
"""Characters of a result that a model is shown, where nothing else is said."""


# What a user of DSPy or LangChain may type out of habit, and what to write here.
_ELSEWHERE = {
    **dict.fromkeys(
        ("from_mcp_tool", "from_mcp"), "promptgrad.Toolset.from_mcp(command), or url=...: all tools of a server"
    ),
    **dict.fromkeys(("from_function", "from_defaults"), "{}(function)"),
    **dict.fromkeys(("func", "fn"), "tool.function"),
    "desc": "tool.description",
    **dict.fromkeys(("args", "args_schema"), 'tool.parameters["properties"]'),
    "arg_types": "tool.fields, each with its type",
    "arg_desc": "tool.fields, each with its description",
    **dict.fromkeys(("format", "format_as_litellm_function_call"), "tool.to_dict()"),
    "invoke": "tool(...), with the arguments of the function",
    "ainvoke": "await tool.acall(...), with the arguments of the function",
}
_HABITS = {
    **dict.fromkeys(("func", "fn", "coroutine"), "the function by position"),
    "desc": "description=...",
    "arg_desc": "arguments=..., descriptions by name",
    **dict.fromkeys(("args", "args_schema"), "parameters=..., a JSON schema"),
    "arg_types": "types at the arguments of the function",
}


class Tool(Hinted):
    """A function that a language model may call: `Tool(search)`, with its schema from hints and docstring.

    It is the value of an input of a signature, `tools: list[Tool]`, where a function is as good, and of `nn.ReAct`. The
    model's calls come back as an output, `calls: list[ToolCall]`, their arguments checked and mended as values of
    replies are; `tool.result(call)` makes one, and gives what the model is shown of it.

    A plain function is called in a thread, so that it blocks nothing but itself. An `async` one whose time is over is
    cancelled; the thread of a plain one cannot be, and runs on: at most 8 for a tool and 128 for all, and then calls
    are refused until one of them ends. An `async` function that blocks its loop cannot be interrupted.

    Cost: no LM call.

    Args:
        function: The function, plain or `async`, each argument of which has a type; a method of an object; an object
            that can be called; or a `functools.partial`, whose arguments the model does not see. Nor does it see an
            optional argument without a type. Or a module of `nn`, with the inputs of its signature or the arguments
            of its `forward`. None for a tool that is declared alone, and run elsewhere.
        name: Its name for the model; by default that of the function.
        description: What it does; by default the docstring without its sections.
        arguments: Descriptions of arguments by name; by default those of `Annotated[int, "how many"]` or the
            docstring, in the style of Google, NumPy or Sphinx.
        parameters: The JSON schema of the arguments, in place of the function's hints. Types that it names are read as
            those of a function are; what it says otherwise is not checked here.
        timeout: Seconds until a call is given up; None for no limit.
        max_chars: Most characters of a result that the model is shown; None leaves it to whoever shows it.
        trainable: Whether `nn.ReAct` makes a parameter that is trained of the description.

    Attributes:
        fields: The arguments, as fields; of a schema those with a type that is known.
        required: Names of the arguments without a default.

    Raises:
        SignatureError: An argument has no type, or cannot be passed by name; or providers do not take the name.
        ValueError: `timeout` is not above zero, or `max_chars` below one.
    """

    __slots__ = (
        "_left",
        "_readers",
        "_told",
        "description",
        "fields",
        "function",
        "max_chars",
        "name",
        "parameters",
        "required",
        "timeout",
        "trainable",
    )

    _elsewhere = _ELSEWHERE

    @refuses(_HABITS)
    def __init__(
        self,
        function: Callable[..., Any] | None,
        *,
        name: str | None = None,
        description: str | None = None,
        arguments: Mapping[str, str] | None = None,
        parameters: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        max_chars: int | None = None,
        trainable: bool = False,
    ) -> None:
        shape = function
        if hasattr(type(function), "__tool__"):  # a module: its arguments are those of no function
            shape, function = function.__tool__()  # type: ignore[union-attr]
        self.function = function
        self.name = _checked_name(name or name_of(shape))
        about, told = docstring_of(shape)
        self.description = about if description is None else description
        told.update(arguments or {})
        if shape is None or parameters is not None:
            found = from_schema(parameters, told)
        else:
            found = from_function(shape, self.name, told)
        self.fields, self.required, self.parameters = found
        self._check_arguments(arguments or ())
        self._readers = {key: None if field.is_plain else Reader(field) for key, field in self.fields.items()}
        self.timeout = _checked_timeout(timeout)
        self.max_chars = _checked_max(max_chars)
        self.trainable = trainable
        self._left = LeftBehind()
        self._told: tuple[str, ...] = ()

    def replace(self, **changes: Any) -> Tool:
        """The tool with another `name`, `description`, `timeout`, `max_chars` or `trainable`; the function is the same.

        `arguments`, descriptions by name, are laid over those that are there.

        Raises:
            TypeError: Something else is to be replaced.
            SignatureError, ValueError: As for `Tool(...)`.
        """
        allowed = ("name", "description", "arguments", "timeout", "max_chars", "trainable")
        if odd := [key for key in changes if key not in allowed]:
            raise TypeError(f"{odd[0]!r} of a tool cannot be replaced, but {', '.join(allowed)}")
        made = object.__new__(type(self))
        for slot in Tool.__slots__:
            setattr(made, slot, getattr(self, slot))
        told: Mapping[str, str] = changes.pop("arguments", None) or {}
        for key, value in changes.items():
            setattr(made, key, value)
        if told:
            made._tell(told)
        _checked_name(made.name), _checked_timeout(made.timeout), _checked_max(made.max_chars)
        return made

    def _check_arguments(self, names: Iterable[str]) -> None:
        known = self.parameters["properties"]
        for key in names:
            if key not in known:
                raise SignatureError(f"the tool {self.name!r} has no argument {key!r}: it has {', '.join(known)}")

    def _tell(self, told: Mapping[str, str]) -> None:
        """Lay descriptions over those of the arguments, in a tool that nobody else has yet."""
        self._check_arguments(told)
        plain = {key: str.__str__(text) for key, text in told.items()}
        self.fields = {
            key: field.replace(description=plain[key]) if key in plain else field for key, field in self.fields.items()
        }
        properties = {
            key: {**schema, "description": plain[key]} if key in plain else schema
            for key, schema in self.parameters["properties"].items()
        }
        self.parameters = {**self.parameters, "properties": properties}
        self._told = tuple(told.values())

    @classmethod
    def of(cls, value: Any) -> Tool:
        """A tool as it is, or made of a function, or of the mapping that `to_dict` or a provider's schema is.

        Raises:
            ValueError: It is none of them.
            SignatureError: As for `Tool(function)`.
        """
        if isinstance(value, Tool):
            return value
        if isinstance(value, Mapping):
            inner = value.get("function", value)
            if not isinstance(inner, Mapping) or not isinstance(inner.get("name"), str):
                raise ValueError("a tool that is declared as a mapping has the keys name, description and parameters")
            about = inner.get("description") or ""
            return cls(None, name=inner["name"], description=about, parameters=inner.get("parameters") or {})
        if callable(value):
            return cls(value)
        hint = ": write Tool.from_langchain(tool)" if hasattr(value, "args_schema") else ""
        hint = hint or (": write Toolset.from_mcp(command), or url=..." if hasattr(value, "inputSchema") else "")
        raise ValueError(f"a tool is a Tool, a function or a mapping with its schema, not {type(value).__name__}{hint}")

    @classmethod
    def from_langchain(cls, tool: Any, **options: Any) -> Tool:
        """A tool made of one of LangChain's, such as a function with its decorator `@tool`.

        Its arguments are checked and mended here, by its `args_schema`; arguments that LangChain injects are not shown
        to the model. It is awaited if it has a coroutine of its own, else called in a thread.

        Args:
            tool: The tool: whatever has `name`, `description`, `args_schema`, and `invoke` or `ainvoke`.
            **options: As for `Tool`, such as `name`, `timeout` and `trainable`.

        Raises:
            SignatureError: It is no tool of LangChain.
        """
        function, name, description, schema = parts_of(tool)
        return cls(function, **{"name": name, "description": description, "parameters": schema, **options})

    def to_dict(self) -> dict[str, Any]:
        """The tool without its function, in JSON types; `Tool.of` takes it."""
        return {"name": self.name, "description": self.description, "parameters": self.parameters}

    def read(self, call: ToolCall) -> dict[str, Any]:
        """The arguments of a call as the function takes them; those that the model left out are missing.

        Raises:
            ToolCallError: They are no JSON object, or one is missing, unknown, or does not fit.
        """
        if call.name != self.name:
            self._refuse(call, f"it is not the tool `{call.name}`")
        given = self._given(call)
        properties = self.parameters["properties"]
        unknown = [key for key in given if key not in properties and key not in self.required]
        if unknown and self.parameters.get("additionalProperties", not properties) is False:
            known = ", ".join(f"`{key}`" for key in properties) or "none"
            self._refuse(call, f"it has no argument `{unknown[0]}`; it has {known}")
        missing = [key for key in self.required if key not in given]
        if missing:
            self._refuse(call, f"the argument `{missing[0]}` is missing")
        found: dict[str, Any] = {}
        for key, value in given.items():
            try:
                found[key] = self._value(key, value)
            except ParseError as error:
                self._refuse(call, error.reason.replace(f"`{self.fields[key].name}`", f"`{key}`"))
        return found

    def _given(self, call: ToolCall) -> dict[str, Any]:
        text = call.arguments.strip() or "{}"
        for load in (loads, loads_nearly):
            try:
                found = load(text)
            except Odd:
                continue
            if isinstance(found, dict) and all(isinstance(key, str) for key in found):
                return found
        self._refuse(call, "its arguments are no JSON object")

    def _value(self, key: str, value: Any) -> Any:
        field = self.fields.get(key)
        if field is None:
            return value
        read = self._readers[key]
        return field.validate(value) if read is None else read.part(value)

    def _refuse(self, call: ToolCall, reason: str) -> NoReturn:
        raise ToolCallError(
            f"the call of the tool {self.name!r} does not fit: {reason}; its arguments are {call.arguments[:300]!r}",
            reply=call.arguments,
            reason=f"the call of `{self.name}`: {reason}",
        )

    def checked(self, call: ToolCall) -> ToolCall:
        """The call with its arguments as plain JSON of the right types.

        Raises:
            ToolCallError: As `read`.
        """
        found = self.read(call)
        written = {
            key: json.loads(self.fields[key].dump_json(value)) if key in self.fields else value
            for key, value in found.items()
        }
        text = json.dumps(written, ensure_ascii=False)
        return call if text == call.arguments else ToolCall(call.id, call.name, text, call.data)

    async def acall(self, /, **arguments: Any) -> Any:
        """Call the function with arguments by name as they are, within its time; from a coroutine.

        Raises:
            ToolTimeoutError: It gave no result in time, or too many earlier calls have not come back.
            TypeError: There is no function.
        """
        if self.function is None:
            raise TypeError(f"the tool {self.name!r} is declared alone, and has no function here")
        return await run_tool(self.function, arguments, self.name, self.timeout, self._left)

    async def arun(self, call: ToolCall) -> Any:
        """Call the function with the arguments of a call.

        Raises:
            ToolCallError: They do not fit, or there is no function.
            ToolTimeoutError: It gave no result in time.
        """
        if self.function is None:
            self._refuse(call, "it is declared alone, and has no function here")
        return await self.acall(**self.read(call))

    run = aio.blocking(arun)

    async def aresult(self, call: ToolCall) -> ToolResult:
        """What the model is shown of a call: the result, or as an error what the function raised or did not accept.

        Texts are shown as they are, other values as JSON, cut at `max_chars` (10,000 by default, and for errors) with
        the number of characters that were left out. Images, sounds and files stay parts.

        Raises:
            BudgetExceeded, NoLMError: And other errors that no reply of the model can avoid.
        """
        try:
            text, media = observed(await self.arun(call), self.max_chars or MAX_CHARS)
        except FATAL:
            raise
        except ToolCallError as error:
            return ToolResult(call.id, observed(error.reason, MAX_CHARS)[0], is_error=True)
        except Exception as error:  # noqa: BLE001 - it is the result
            return ToolResult(call.id, observed(error, MAX_CHARS)[0], is_error=True)
        return ToolResult(call.id, (TextPart(text), *media) if media else text)

    result = aio.blocking(aresult)

    def __call__(self, /, *args: Any, **arguments: Any) -> Any:
        """Call the function as it is."""
        if self.function is None:
            raise TypeError(f"the tool {self.name!r} is declared alone, and has no function here")
        return self.function(*args, **arguments)

    def __parts__(self) -> list[Text]:
        """What the graph looks into: descriptions that are parameters'."""
        return [text for text in (self.description, *self._told) if isinstance(text, Text)]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Tool):
            return NotImplemented
        return self.function == other.function and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash((self.name, self.description))

    def __repr__(self) -> str:
        if self.fields:
            shown = [
                f"{key}: {field.type_name}" + ("" if key in self.required else " = ...")
                for key, field in self.fields.items()
            ]
        else:
            shown = list(self.parameters["properties"])
        about = self.description.partition("\n")[0]
        return f"Tool({self.name}({', '.join(shown)}){f': {about}' if about else ''})"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        written = core_schema.plain_serializer_function_ser_schema(lambda tool: tool.to_dict())
        return core_schema.no_info_plain_validator_function(cls.of, serialization=written)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: Any) -> dict[str, Any]:
        return {"type": "object"}


def _checked_name(name: str) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise SignatureError(f"a tool has a name of up to 64 letters, digits, _ and -, not {name!r}: pass name=")
    return name


def _checked_timeout(timeout: float | None) -> float | None:
    if timeout is not None and not timeout > 0:
        raise ValueError(f"timeout is a number of seconds above zero, or None, not {timeout!r}")
    return timeout


def _checked_max(max_chars: int | None) -> int | None:
    if max_chars is not None and (isinstance(max_chars, bool) or not isinstance(max_chars, int) or max_chars < 1):
        raise ValueError(f"max_chars is a whole number of at least 1, or None, not {max_chars!r}")
    return max_chars
