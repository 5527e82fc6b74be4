"""Pieces of a format that are no part of a value: half a marker, the end of a turn, a call of a tool, a placeholder."""

from __future__ import annotations

import re
from collections.abc import Mapping

from promptgrad._patterns import late_pattern
from promptgrad.adapters._kinds import members
from promptgrad.adapters._nearly_json import Odd, in_fence, loads
from promptgrad.adapters._unclear import Unclear
from promptgrad.adapters._values import describe
from promptgrad.signature import Field

TURN_ENDS = (
    *("<|eot_id|>", "<|eom_id|>", "<|im_end|>", "<|endoftext|>", "<|end_of_text|>", "<|end_of_turn|>", "<|end|>"),
    *("<|return|>", "<|END_OF_TURN_TOKEN|>", "</s>", "<end_of_turn>", "<eos>", "[|endofturn|]", "<|endofturn|>"),
    *("<SPECIAL_12>", "<|role_end|>", "<|user|>", "<|observation|>"),
    "<\N{FULLWIDTH VERTICAL LINE}end\N{LOWER ONE EIGHTH BLOCK}of\N{LOWER ONE EIGHTH BLOCK}sentence"
    "\N{FULLWIDTH VERTICAL LINE}>",
)
TURN_BEGINNINGS = ("<|im_start|>", "<|start_header_id|>", "<start_of_turn>")
"""The special tokens that end a turn, and those that begin one, in the dialects of models."""
_END_OF_TURN = f"(?:{'|'.join(map(re.escape, TURN_ENDS))})"
_GOES_ON = late_pattern(rf"(?:(?<=\S)|\n[ \t]*){_END_OF_TURN}\s*(?:{'|'.join(map(re.escape, TURN_BEGINNINGS))})")
_OF_CALL = r"\w{0,20}(?:tool|function)_?(?:call(?:ing)?s?|use)|tools(?=>\s*[{\[])|invoke(?=\s)"
_BAR = "[|\N{FULLWIDTH VERTICAL LINE}]"
_CALL = late_pattern(
    rf"^[ \t]*(?:<(?:\w{{1,20}}:)?(?:{_OF_CALL}|function(?==))\b[^<>\n]{{0,200}}>|<function="
    rf"|<{_BAR}[^<>\s]{{0,40}}(?:tool|python_tag|function_?call|action|plugin|DSML)[^<>\n]{{0,60}}>"
    r"|<start_function_call>|\[TOOL_CALLS\]|functools\[\s*\{|✿FUNCTION✿|(?:commentary )?to=functions\."
    r"|```tool_(?:call|code|use)\b)",
    re.IGNORECASE | re.MULTILINE,
)
"""What begins a call of a tool in the chat templates of models: a tag, a special token or a fence that is named so."""
_NAMED_CALL = late_pattern(r"call|tool|function|json|xml|schema", re.IGNORECASE)
_CALL_KEYS = frozenset({"name", "arguments", "parameters", "type", "id"})
_MOST = 10_000
_HALF = late_pattern(r"\s*(?:\[\[?[ \t]*#|\[\[(?:[ \t]*\w+)?\s*\Z)")


def without_end_of_turn(text: str) -> str:
    """A text without the special tokens that end a turn, which some servers leave in, and without what follows them."""
    goes_on = _GOES_ON.search(text)
    if goes_on is not None:
        return text[: goes_on.start()]
    start = _ends_at(text)
    if start is None or not text[:start].strip() or (text[start:].strip() == "</s>" and "<s>" in text):
        return text
    return text[:start]


def _ends_at(text: str) -> int | None:
    """Where the tokens begin with which a text ends; None if there are none. Read from its end, in linear time.

    The first of them stands right behind the text, or in a line of its own.
    """
    starts, end = [], _before_spaces(text, len(text))
    while text.endswith(TURN_ENDS, 0, end):
        end -= len(next(token for token in TURN_ENDS if text.endswith(token, 0, end)))
        starts.append(end)
        end = _before_spaces(text, end)
    for start in reversed(starts):
        line = _before_spaces(text, start, " \t")
        if line == start and start and not text[start - 1].isspace():
            return start
        if line and text[line - 1] == "\n":
            return line - 1
    return None


def _before_spaces(text: str, end: int, spaces: str = "") -> int:
    """The place of the end of a text without the spaces before it."""
    while end and (text[end - 1] in spaces if spaces else text[end - 1].isspace()):
        end -= 1
    return end


def unmarked(text: str, field: Field) -> str:
    """A text without any marker, which is the value of the only field: without half a tag, "" if nothing can be seen.

    Args:
        text: The text.
        field: The field.

    Raises:
        Unclear: It begins with half a marker, or is a call of a tool and the field a text.
    """
    name = field.name
    if str in members(field.annotation):
        check_call(text, field)
    if _HALF.match(text) or re.match(rf"\s*#+[ \t]*{re.escape(name)}[ \t]*#+", text, re.IGNORECASE):
        raise Unclear(f"the marker of `{name}` is not whole")
    opens, closes = f"<{name}>", f"</{name}>"
    if (opens in text) is not (closes in text):
        text = text.removeprefix(opens).removesuffix(closes).strip()
    return text if text.strip("\u200b\u2060\ufeff") else ""


def check_call(text: str, field: Field) -> None:
    """Refuse a text that holds a call of a tool in place of an answer, as a model's chat template writes it.

    Args:
        text: The text.
        field: The field that it would be the value of; one that is called after calls may hold one.

    Raises:
        Unclear: A line of it begins one, outside of quotes and fences, or it is the object of one.
    """
    if _NAMED_CALL.search(field.name):
        return
    call = _CALL.search(text[:_MOST])
    if (call is not None and "`" not in text[: call.start()]) or _is_call(text.strip()):
        raise Unclear("it calls a tool, and there is none to call: answer in the format")


def _is_call(text: str) -> bool:
    """Whether a text is an object, or a list of them, with the name of a tool and its arguments, and nothing else."""
    if not text.startswith(("{", "[", "```")) or '"name"' not in text[:_MOST]:
        return False
    try:
        value = loads(in_fence(text))
    except Odd:
        return False
    calls = value if isinstance(value, list) else [value]
    return bool(calls) and all(
        isinstance(call, dict)
        and call.keys() <= _CALL_KEYS
        and isinstance(call.get("name"), str)
        and isinstance(call.get("arguments", call.get("parameters")), (dict, str))
        for call in calls
    )


def is_echo(body: str, field: Field) -> bool:
    """Whether a body is the form that was asked for, "{text}", in place of a value; none begins as JSON does."""
    return body[:1] == "{" and body[1:2] not in ('"', "}", "\n", " ") and body == f"{{{describe(field)}}}"


def check_echo(found: Mapping[str, str], fields: Mapping[str, Field]) -> None:
    """Refuse the form that was asked for in place of a value: "{text}".

    Raises:
        Unclear: A body is that of the prompt.
    """
    for name, body in found.items():
        if is_echo(body, fields[name]):
            raise Unclear(f"`{name}` repeats what was asked for: put a value in its place")
