"""Training records as JSON objects: our forms, OpenAI's and TRL's, written, and recognised by their keys."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

from promptgrad.errors import DataError
from promptgrad.finetune._conversation import Conversation, Preference
from promptgrad.lm import Message, Request, TextPart, ToolCall, ToolResult, read_message, write_messages

Row = dict[str, Any]

ORIGIN = "promptgrad"
"""The key under which our forms hold module, example and score."""

_ROLES = ("system", "developer", "user", "assistant", "tool")
_OLDER = ("functions", "function_call")
_TOOLS = ("tools", "tool_calls", *_OLDER)


# ------------------------------------------------------------------------------------------------------- writing


def lines_of(samples: Sequence[Conversation | Preference], form: str) -> Iterator[str]:
    """Records as JSON lines.

    Raises:
        DataError: A record does not fit the form.
        ValueError: There is no such form.
    """
    forms: Mapping[str, Callable[[Any], Row]] = _PAIRS if isinstance(samples[0], Preference) else _REPLIES
    form = form or next(iter(forms))
    if form not in forms:
        raise ValueError(f"the forms of {type(samples[0]).__name__}s are {', '.join(forms)}, not {form!r}")
    for number, sample in enumerate(samples, 1):
        try:
            row = forms[form](sample)
        except DataError as error:
            raise DataError(f"record {number} cannot be written as {form!r}: {error}") from None
        if form not in ("openai", "trl"):
            row.update(_origin(sample))
        yield _line(row) + "\n"


def _line(row: Row) -> str:
    text = json.dumps(row, ensure_ascii=False, allow_nan=False)
    return text if _is_unicode(text) else json.dumps(row, allow_nan=False)  # half of a character is no UTF-8


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _origin(sample: Conversation | Preference) -> Row:
    known = {"path": sample.path, "example_id": sample.example_id, "score": getattr(sample, "score", None)}
    held = {name: value for name, value in known.items() if value not in ("", None)}
    return {ORIGIN: held} if held else {}


def _plain(messages: Sequence[Message]) -> list[Row]:
    """Messages in our forms: calls of tools and their results as OpenAI has them, images as we write them."""
    return [row for message in messages for row in _rows(message)]


def _rows(message: Message) -> list[Row]:
    if isinstance(message.content, str):
        return [{"role": message.role, "content": message.content}]
    if not any(isinstance(part, (ToolCall, ToolResult)) for part in message.content):
        return [message.to_dict()]
    rows = write_messages([message])
    if not all(row["content"] is None or isinstance(row["content"], str) for row in rows):
        raise DataError(f"it holds {message.preview[:80]}, and beside calls of tools and in their results stand texts")
    return rows


def _text(messages: Sequence[Message]) -> list[Row]:
    """Messages for others: texts, calls of tools and their results alone."""
    for message in messages:
        if not all(isinstance(part, (TextPart, ToolCall, ToolResult)) for part in message.parts):
            raise DataError(f"it holds {message.preview[:80]}, and the form takes text alone")
    return _plain([m if isinstance(m.content, str) or _calls(m) else Message(m.role, m.text) for m in messages])


def _calls(message: Message) -> bool:
    return any(isinstance(part, (ToolCall, ToolResult)) for part in message.parts)


def _reply(text: str) -> Row:
    return {"role": "assistant", "content": text}


def _target(sample: Conversation) -> list[Row]:
    return [_reply(sample.reply)] if not sample.calls else _rows(Message("assistant", sample.content))


def _declared(sample: Conversation) -> Row:
    return {"tools": json.loads(sample.tools)} if sample.tools else {}


def _messages(sample: Conversation, write: Callable[[Sequence[Message]], list[Row]]) -> Row:
    earlier = write(sample.messages)
    unlearned = [{**row, "weight": 0} if row["role"] == "assistant" else row for row in earlier]
    return {"messages": [*unlearned, *_target(sample)], **_declared(sample)}


def _completion(sample: Conversation, write: Callable[[Sequence[Message]], list[Row]]) -> Row:
    return {"prompt": write(sample.messages), "completion": _target(sample), **_declared(sample)}


def _pair(sample: Preference, write: Callable[[Sequence[Message]], list[Row]]) -> Row:
    prompt = write(sample.messages)
    return {"prompt": prompt, "chosen": [_reply(sample.chosen)], "rejected": [_reply(sample.rejected)]}


def _openai_pair(sample: Preference) -> Row:
    return {
        "input": {"messages": _text(sample.messages)},
        "preferred_output": [_reply(sample.chosen)],
        "non_preferred_output": [_reply(sample.rejected)],
    }


_REPLIES: dict[str, Callable[[Conversation], Row]] = {
    "chat": lambda sample: _messages(sample, _plain),
    "prompt-completion": lambda sample: _completion(sample, _plain),
    "openai": lambda sample: _messages(sample, _text),
    "trl": lambda sample: _completion(sample, _text),
}
_PAIRS: dict[str, Callable[[Preference], Row]] = {
    "preference": lambda sample: _pair(sample, _plain),
    "openai": _openai_pair,
    "trl": lambda sample: _pair(sample, _text),
}


# ------------------------------------------------------------------------------------------------------- reading


def conversations_of(row: Mapping[str, Any]) -> list[Conversation]:
    """The records of one JSON object: one for each reply that is to be learned.

    Raises:
        DataError: It has none of the forms, or is damaged.
    """
    form = _form(row)
    if form == "messages":
        return _turns(_list(row, "messages"), _tools_of(row), _origin_of(row))
    if form == "completion":
        reply = _completion_of(row)
        return [Conversation(_prompt(row), reply.text, **_origin_of(row), calls=_numbered(reply), tools=_tools_of(row))]
    raise DataError("it holds a pair of replies: read it with load_preferences")


def preferences_of(row: Mapping[str, Any]) -> list[Preference]:
    """The pair of one JSON object.

    Raises:
        DataError: It has none of the forms, or is damaged.
    """
    _refuse(row, _TOOLS)
    form = _form(row)
    origin = {name: value for name, value in _origin_of(row).items() if name != "score"}
    if form == "input":
        given = row["input"]
        if not isinstance(given, Mapping):
            raise DataError(f"'input' is an object with 'messages', not {_kind(given)}")
        _refuse(given, _TOOLS)
        messages = _read(_list(given, "messages"), "messages of 'input'")
        replies = (_reply_of(row, name) for name in ("preferred_output", "non_preferred_output"))
        return [Preference(_nonempty(messages), *replies, **origin)]
    if form == "prompt":
        return [Preference(_prompt(row), _reply_of(row, "chosen"), _reply_of(row, "rejected"), **origin)]
    if form == "chosen":
        chosen, rejected = (_read(_list(row, name), repr(name)) for name in ("chosen", "rejected"))
        if chosen[:-1] != rejected[:-1]:
            raise DataError("'chosen' and 'rejected' differ before their last message, so they are no pair")
        last = (_last(messages, name) for messages, name in ((chosen, "chosen"), (rejected, "rejected")))
        return [Preference(_nonempty(chosen[:-1]), *last, **origin)]
    raise DataError("it holds one reply and no pair: read it with load_conversations")


def _form(row: Mapping[str, Any]) -> str:
    """Which form an object has, named by a key.

    Raises:
        DataError: None, or it declares functions in the form before that of tools.
    """
    _refuse(row, _OLDER)
    keys = {key for key, value in row.items() if value is not None}
    if "messages" in keys and not keys & {"prompt", "completion", "chosen", "rejected"}:
        return "messages"
    if {"prompt", "completion"} <= keys and "messages" not in keys:
        return "completion"
    if {"input", "preferred_output", "non_preferred_output"} <= keys:
        return "input"
    if {"chosen", "rejected"} <= keys:
        return "prompt" if "prompt" in keys else "chosen"
    found = ", ".join(repr(key) for key in row) or "none"
    raise DataError(
        "an object has 'messages', or 'prompt' and 'completion', or a pair: 'prompt', 'chosen' and 'rejected', or "
        f"'input', 'preferred_output' and 'non_preferred_output'; this one has the keys {found}"
    )


def _refuse(row: Mapping[str, Any], names: Sequence[str], what: str = "it") -> None:
    for name in names:
        if row.get(name):
            told = "the form of tools is 'tools' and 'tool_calls'" if name in _OLDER else "a pair holds texts alone"
            raise DataError(f"{what} has {name!r}, and {told}: leave such lines out")


def _tools_of(row: Mapping[str, Any]) -> str:
    """The tools that a row declares, as JSON text."""
    tools = row.get("tools")
    if not tools:
        return ""
    functions = [tool.get("function") if isinstance(tool, Mapping) else None for tool in _list(row, "tools")]
    if not all(isinstance(function, Mapping) and isinstance(function.get("name"), str) for function in functions):
        raise DataError("'tools' is a list of objects such as {'type': 'function', 'function': {'name': ...}}")
    return json.dumps(tools, separators=(",", ":"))


def _numbered(reply: Message) -> tuple[ToolCall, ...]:
    """The calls in a reply, with ids by their order."""
    return tuple(ToolCall(f"call_{n}", call.name, call.arguments) for n, call in enumerate(reply.tool_calls, 1))


def _turns(items: Sequence[Any], tools: str, origin: Row) -> list[Conversation]:
    messages = _read(items, "'messages'")
    if not messages or messages[-1].role != "assistant":
        last = f"of {messages[-1].role!r}" if messages else "missing"
        raise DataError(f"the last of 'messages' is the reply, of 'assistant'; it is {last}")
    made = []
    weights = [_weight(item, place) for place, item in enumerate(items) if item["role"] == "assistant"]
    for place, message in enumerate(messages):
        if message.role != "assistant" or weights.pop(0) == 0:
            continue
        if not place:
            raise DataError("the first of 'messages' is a reply, to nothing")
        earlier = tuple(messages[:place])
        made.append(Conversation(earlier, message.text, **origin, calls=_numbered(message), tools=tools))
    return made


def _weight(item: Mapping[str, Any], place: int) -> int:
    weight = item.get("weight")
    if weight not in (None, 0, 1):
        raise DataError(f"'weight' of message {place + 1} is 0 or 1, not {weight!r}")
    return 1 if weight is None else int(weight)


def _prompt(row: Mapping[str, Any]) -> tuple[Message, ...]:
    given = row["prompt"]
    if isinstance(given, str):
        return (Message("user", given),)
    return _nonempty(_read(_list(row, "prompt"), "'prompt'"))


def _nonempty(messages: Sequence[Message]) -> tuple[Message, ...]:
    if not messages:
        raise DataError("there is no message before the reply")
    return tuple(messages)


def _completion_of(row: Mapping[str, Any]) -> Message:
    given = row["completion"]
    if isinstance(given, str):
        return Message("assistant", given)
    return _only(_read(_list(row, "completion"), "'completion'"), "completion", alone=True)


def _reply_of(row: Mapping[str, Any], name: str) -> str:
    given = row[name]
    return given if isinstance(given, str) else _last(_read(_list(row, name), repr(name)), name, alone=True)


def _last(messages: Sequence[Message], name: str, *, alone: bool = False) -> str:
    """The text of the last of messages, which calls no tools."""
    last = _only(messages, name, alone=alone)
    _refuse({"tool_calls": last.tool_calls}, _TOOLS, f"{name!r}")
    return last.text


def _only(messages: Sequence[Message], name: str, *, alone: bool) -> Message:
    if not messages or messages[-1].role != "assistant" or (alone and len(messages) > 1):
        roles = ", ".join(repr(message.role) for message in messages) or "nothing"
        raise DataError(f"{name!r} {'is' if alone else 'ends with'} one message of 'assistant', not {roles}")
    return messages[-1]


def _list(row: Mapping[str, Any], name: str) -> Sequence[Any]:
    given = row.get(name)
    if not isinstance(given, list):
        raise DataError(f"{name!r} is a list of messages, not {_kind(given)}")
    return given


def _read(items: Sequence[Any], where: str) -> list[Message]:
    made: list[Message] = []
    for place, item in enumerate(items, 1):
        message = _message(item, f"message {place} of {where}")
        if made and _is_result(message) and _is_result(made[-1]):  # the results of one turn are one message
            made[-1] = Message("tool", (*made[-1].parts, *message.parts))
        else:
            made.append(message)
    return made


def _is_result(message: Message) -> bool:
    return message.role == "tool" and not isinstance(message.content, str)


def _message(item: Any, where: str) -> Message:
    if not isinstance(item, Mapping):
        _wrong(where, f"is an object with 'role' and 'content', not {_kind(item)}")
    role, content = item.get("role"), item.get("content")
    if role not in _ROLES:
        _wrong(where, f"has the role {role!r}; a role is one of {', '.join(_ROLES)}")
    _refuse(item, _OLDER, where)
    if role == "tool" and "tool_call_id" in item:
        if not isinstance(item["tool_call_id"], str) or not isinstance(content, str):
            _wrong(where, "is the text of a result and the id of its call")
        return Message("tool", (ToolResult(item["tool_call_id"], content),))
    if item.get("tool_calls"):
        if role != "assistant":
            _wrong(where, f"has 'tool_calls', which are an assistant's, and is of {role!r}")
        try:
            return Message("assistant", read_message({**item, "content": content})[0])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            _wrong(where, f"has 'tool_calls' that cannot be read: {error!r}")
    if content is None:
        _wrong(where, "has no 'content'")
    try:
        (message,) = Request.of([{"role": role, "content": content}]).messages
    except (TypeError, ValueError) as error:
        _wrong(where, f"cannot be read: {error}")
    if not isinstance(content, str) and all(part.kind == "text" for part in message.parts):
        return Message(message.role, message.text)
    return message


def _wrong(where: str, what: str) -> NoReturn:
    raise DataError(f"{where} {what}")


def _origin_of(row: Mapping[str, Any]) -> Row:
    given = row.get(ORIGIN) or {}
    kinds: dict[str, Any] = {"path": str, "example_id": str, "score": (int, float)}
    if not isinstance(given, Mapping) or not set(given) <= set(kinds):
        raise DataError(f"{ORIGIN!r} is an object with {', '.join(kinds)}, not {given!r:.80}")
    for name, value in given.items():
        if not isinstance(value, kinds[name]) or (name == "score" and not math.isfinite(value)):
            raise DataError(f"{name!r} of {ORIGIN!r} is {value!r:.80}")
    return dict(given)


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
