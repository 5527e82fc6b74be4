"""`Tool`: a typed function that a language model may call."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, get_type_hints

from promptgrad import aio
from promptgrad.adapters._nearly_json import Odd, loads, loads_nearly
from promptgrad.adapters._read import Reader
from promptgrad.adapters._values import tidy_schema
from promptgrad.errors import ParseError, SignatureError, ToolCallError
from promptgrad.lm import ToolCall
from promptgrad.signature import Field

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_ARGUMENT = re.compile(r"(\w+)\s*(?:\([^)]*\))?\s*:\s*(.*)")
_HEADING = re.compile(r"(Args|Arguments|Parameters|Returns?|Raises|Yields|Examples?|Notes?|Attributes|See Also):\s*")


class Tool:
    """A function that a language model may call: `Tool(search)`, with its schema from hints and docstring.

    It is the value of an input of a signature, `tools: list[Tool]`, where a function is as good. The model's calls come
    back as an output, `calls: list[ToolCall]`, their arguments checked and mended as values of replies are.

    Args:
        function: The function, plain or `async`, each argument of which has a type; or a method. None for a tool that
            is declared alone, and run elsewhere.
        name: Its name for the model; by default that of the function.
        description: What it does; by default the docstring without its sections.
        arguments: Descriptions of arguments by name; by default those of the docstring's section "Args:".
        parameters: The JSON schema of the arguments, of a tool that is declared alone.

    Attributes:
        fields: The arguments, as fields; empty where there is only a schema.
        required: Names of the arguments without a default.

    Raises:
        SignatureError: An argument has no type, or cannot be passed by name; or the name is none that providers take.
    """

    __slots__ = ("_readers", "description", "fields", "function", "name", "parameters", "required")

    def __init__(
        self,
        function: Callable[..., Any] | None,
        *,
        name: str | None = None,
        description: str | None = None,
        arguments: Mapping[str, str] | None = None,
        parameters: Mapping[str, Any] | None = None,
    ) -> None:
        self.function = function
        found = name or getattr(function, "__name__", "") or type(function).__name__
        if not _NAME.fullmatch(found):
            raise SignatureError(f"a tool has a name of up to 64 letters, digits, _ and -, not {found!r}: pass name=")
        self.name = found
        about, told = _docstring(function)
        self.description = about if description is None else description
        self.fields: dict[str, Field] = {}
        if function is None or parameters is not None:
            schema: dict[str, Any] = {"type": "object", "properties": {}, **(parameters or {})}
            self.required = tuple(schema.get("required", ()))
        else:
            told.update(arguments or {})
            self.required = self._inspect(function, told)
            unknown = [key for key in arguments or () if key not in self.fields]
            if unknown:
                raise SignatureError(
                    f"the tool {found!r} has no argument {unknown[0]!r}: it has {', '.join(self.fields)}"
                )
            schema = self._schema()
        self.parameters = schema
        self._readers = {key: None if field.is_plain else Reader(field) for key, field in self.fields.items()}

    def _inspect(self, function: Callable[..., Any], told: Mapping[str, str]) -> tuple[str, ...]:
        """Make the fields; returns the names of those without a default."""
        target = function if inspect.isroutine(function) else getattr(function, "__call__", function)  # noqa: B004
        try:
            hints = get_type_hints(inspect.unwrap(target), include_extras=True)
        except (NameError, TypeError) as error:
            raise SignatureError(f"the types of the tool {self.name!r} cannot be found: {error}") from error
        required = []
        for key, parameter in inspect.signature(function).parameters.items():
            if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                raise SignatureError(
                    f"the argument {parameter} of the tool {self.name!r} cannot be passed by name: a tool has named "
                    "arguments alone"
                )
            if key not in hints:
                raise SignatureError(f"the argument {key!r} of the tool {self.name!r} has no type: write `{key}: str`")
            try:
                self.fields[key] = Field(key, hints[key], told.get(key, ""), "output")
            except SignatureError as error:
                raise SignatureError(f"the tool {self.name!r}: {error}") from error
            if parameter.default is parameter.empty:
                required.append(key)
        return tuple(required)

    def _schema(self) -> dict[str, Any]:
        definitions: dict[str, Any] = {}
        properties = {}
        for key, field in self.fields.items():
            schema = tidy_schema(field.json_schema())
            definitions.update(schema.pop("$defs", {}))
            properties[key] = schema
        whole: dict[str, Any] = {"type": "object", "properties": properties, "required": list(self.required)}
        return {**whole, "additionalProperties": False, **({"$defs": definitions} if definitions else {})}

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
        raise ValueError(f"a tool is a Tool, a function or a mapping with its schema, not {type(value).__name__}")

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
        unknown = [key for key in given if key not in self.parameters["properties"]]
        is_open = self.parameters.get("additionalProperties", not self.fields) is not False
        if unknown and not is_open:
            known = ", ".join(f"`{key}`" for key in self.parameters["properties"]) or "none"
            self._refuse(call, f"it has no argument `{unknown[0]}`; it has {known}")
        missing = [key for key in self.required if key not in given]
        if missing:
            self._refuse(call, f"the argument `{missing[0]}` is missing")
        found: dict[str, Any] = {}
        for key, value in given.items():
            try:
                found[key] = self._value(key, value)
            except ParseError as error:
                self._refuse(call, error.reason)
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
        if read is None:
            return field.validate(value)
        try:
            return read.value(value)
        except ParseError:
            if not isinstance(value, str):
                raise
        return read(value)

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

    async def arun(self, call: ToolCall) -> Any:
        """Call the function with the arguments of a call.

        Raises:
            ToolCallError: They do not fit, or there is no function.
        """
        if self.function is None:
            self._refuse(call, "it is declared alone, and has no function here")
        found = self.function(**self.read(call))
        return await aio.awaited(found) if inspect.isawaitable(found) else found

    run = aio.blocking(arun)

    def __call__(self, *args: Any, **arguments: Any) -> Any:
        """Call the function as it is."""
        if self.function is None:
            raise TypeError(f"the tool {self.name!r} is declared alone, and has no function here")
        return self.function(*args, **arguments)

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


def _docstring(function: Any) -> tuple[str, dict[str, str]]:
    """What a docstring says of its function, and of each argument."""
    text = inspect.getdoc(function) if function is not None else ""
    about: list[str] = []
    told: dict[str, str] = {}
    section, key, indent = "", "", 0
    for line in (text or "").splitlines():
        heading = _HEADING.fullmatch(line)
        if heading is not None:
            section = heading[1]
        elif not section:
            about.append(line)
        elif section in ("Args", "Arguments", "Parameters") and line.strip():
            depth = len(line) - len(line.lstrip())
            found = _ARGUMENT.fullmatch(line.strip())
            if found is not None and (not key or depth <= indent):
                key, indent = found[1], depth
                told[key] = found[2]
            elif key:
                told[key] = f"{told[key]} {line.strip()}".strip()
    return "\n".join(about).strip(), told
