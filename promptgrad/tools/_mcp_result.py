"""What a server of the Model Context Protocol gave, as a value; and its tools, as they are declared to a model."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Iterable, Iterator
from typing import Any

from promptgrad._patterns import late_pattern
from promptgrad.content import Audio, File, Image
from promptgrad.errors import ToolError
from promptgrad.lm import Message, TextPart

MAX_DESCRIPTION = 10_000
"""Characters of the description of a foreign tool that a model is shown."""

_UNFIT = late_pattern(r"[^a-zA-Z0-9_-]")
_LONGEST = 64


def value_of(result: Any, tool: str) -> Any:
    """The value of a result of the SDK.

    Structured content is the value itself, without the wrap that servers put around what is no object. Else it is
    the text; or a list of texts, images, sounds and files in their order.

    Raises:
        ToolError: The server says that the call failed.
    """
    parts = list(_parts(result.content))
    media = any(not isinstance(part, str) for part in parts)
    if result.is_error:
        raise ToolError("\n".join(map(str, parts)) or "it failed, and does not say why", tool=tool)
    found = result.structured_content
    if found is not None and not media:
        wrapped = isinstance(found, dict) and found.keys() == {"result"} and not isinstance(found["result"], dict)
        value = found["result"] if wrapped else found
        told = "\n".join(parts)
        return value if not told or _tells(told, found) or _tells(told, value) else [value, told]
    return parts if media and len(parts) > 1 else parts[0] if media else "\n".join(parts)


def _tells(text: str, value: Any) -> bool:
    """Whether a text says no more than a value, as servers repeat structured content in words."""
    if text == value:
        return True
    try:
        return bool(json.loads(text) == value)
    except (ValueError, RecursionError):
        return isinstance(value, list) and text == "\n".join(map(str, value))


def _parts(content: Iterable[Any]) -> Iterator[Any]:
    for block in content:
        kind = block.type
        if kind == "text":
            yield block.text
        elif kind in ("image", "audio"):
            yield _media(Image if kind == "image" else Audio, block.data, block.mime_type)
        elif kind == "resource":
            inside = block.resource
            text = getattr(inside, "text", None)
            yield text if text is not None else _media(File, inside.blob, inside.mime_type or "")
        elif kind == "resource_link":
            yield f"{block.name}: {block.uri}"
        else:
            yield f"(content of the kind {kind!r}, which is not shown)"


def _media(kind: type[Image | Audio | File], data: str, media_type: str) -> Any:
    """The part, or what is wrong with it: a server may call anything an image."""
    try:
        return kind(b64decode(data, validate=True), media_type)
    except ValueError as error:
        return f"(an unreadable {kind.kind}: {error})"


def content_of(result: Any) -> Any:
    """What a resource of the SDK holds: a text, an image, a sound or a file, or a list of them."""
    parts = [
        one.text if getattr(one, "text", None) is not None else _file(one.blob, one.mime_type or "")
        for one in result.contents
    ]
    return "\n".join(parts) if all(isinstance(part, str) for part in parts) else parts if len(parts) > 1 else parts[0]


def _file(data: str, media_type: str) -> Any:
    kinds: dict[str, type[Image | Audio | File]] = {"image": Image, "audio": Audio}
    return _media(kinds.get(media_type.partition("/")[0], File), data, media_type)


def resource_words(resource: Any) -> str:
    """What a server says of a resource, in a line."""
    return ": ".join(str(text) for text in (resource.title or resource.name, resource.description) if text)


def prompt_words(prompt: Any) -> str:
    """What a server says of a prompt, in a line, after its arguments: as `(code, style=...): Review code`."""
    arguments = ", ".join(one.name if one.required else f"{one.name}=..." for one in prompt.arguments or ())
    said = [str(text) for text in (prompt.title, prompt.description) if text]
    return ": ".join([f"({arguments})", *said])


def unfit_prompt(prompts: Iterable[Any], name: str, given: Iterable[str]) -> str:
    """What is wrong with asking for a prompt with these arguments; empty where nothing is seen."""
    known = {one.name: one for one in prompts}
    if name not in known:
        return f"the server has no prompt {name!r}: there are {', '.join(known) or 'none'}"
    arguments = known[name].arguments or ()
    missing = [one.name for one in arguments if one.required and one.name not in given]
    strange = [one for one in given if one not in {argument.name for argument in arguments}]
    faults = [f"lacks {one!r}" for one in missing] + [f"has no argument {one!r}" for one in strange]
    return f"the prompt {name!r} {' and '.join(faults)}: it is {name}{prompt_words(known[name])}" if faults else ""


def worded(value: Any) -> str:
    """An argument of a prompt as the protocol has them: a text as it is, anything else as JSON."""
    return str.__str__(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def messages_of(result: Any) -> list[Message]:
    """The messages of a prompt of the SDK, one for each run of blocks of one side."""
    found: list[tuple[str, list[Any]]] = []
    for one in result.messages:
        if not found or found[-1][0] != one.role:
            found.append((one.role, []))
        found[-1][1].extend(_parts([one.content]))
    return [Message(role, _content(parts)) for role, parts in found]


def _content(parts: list[Any]) -> Any:
    if all(isinstance(part, str) for part in parts):
        return "\n\n".join(parts)
    return tuple(TextPart(part) if isinstance(part, str) else part for part in parts)


def names_for(tools: Iterable[Any], prefix: str) -> list[str]:
    """Names that providers take for the tools of a server, which may call them anything; each is another one."""
    names: dict[str, None] = {}
    times: dict[str, int] = {}
    for tool in tools:
        base = _UNFIT.sub("_", prefix + tool.name)[:_LONGEST] or "tool"
        name = base
        while name in names:
            times[base] = number = times.get(base, 1) + 1
            name = f"{base[: _LONGEST - 1 - len(str(number))]}_{number}"
        names[name] = None
    return list(names)


def description_of(tool: Any) -> str:
    """What a server says of a tool, cut where it is very long."""
    text = (tool.description or tool.title or "").strip()
    if len(text) <= MAX_DESCRIPTION:
        return text
    return f"{text[:MAX_DESCRIPTION]}... ({len(text) - MAX_DESCRIPTION} characters more)"
