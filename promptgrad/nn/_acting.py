"""What a `ReAct` does with the calls of one reply: it asks for leave, runs the tools, and keeps what they gave."""

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from promptgrad import aio
from promptgrad.adapters import Tool, observed
from promptgrad.content import Audio, File, Image
from promptgrad.errors import FATAL, ToolCallError
from promptgrad.lm import ToolCall
from promptgrad.nn._call import around_of
from promptgrad.nn._hearing import Hearing


@dataclass(frozen=True, slots=True)
class Observed:
    """What a call of a tool gave.

    Attributes:
        text: What the model is shown.
        media: The images, sounds and files that the text names.
        value: What the tool returned; None where it failed or was not called.
        failed: Whether it failed or was not called.
        stops: Whether the model is to finish now.
    """

    text: str
    media: tuple[Image | Audio | File, ...] = ()
    value: Any = None
    failed: bool = False
    stops: bool = False


@dataclass(frozen=True, slots=True)
class ActingRules:
    """What holds for the calls of an agent.

    Attributes:
        approve: Asked before each call; see `ReAct`.
        stop: Asked after each call; see `ReAct`.
        max_chars: Most characters of a result, of a tool that has no limit of its own.
    """

    approve: Callable[[ToolCall], Any] | None
    stop: Callable[[ToolCall, Any], Any] | None
    max_chars: int


@dataclass(slots=True)
class _Planned:
    """A call, and what is known of it before it runs: its arguments, or why it does not run."""

    call: ToolCall
    arguments: dict[str, Any] | None = None
    note: str = ""
    fault: str = ""
    max_chars: int = 0


async def act(
    module: Any,
    calls: Sequence[ToolCall],
    faults: Mapping[int, str],
    tools: Mapping[str, Tool],
    run: Callable[[str], Any],
    rules: ActingRules,
) -> list[Observed]:
    """Run the calls of one reply side by side, once all of them are allowed or refused, and return what they gave.

    Args:
        module: The agent, for events of calls of tools that it does not have.
        calls: The calls.
        faults: Those that are not run, by their place, with the reason.
        tools: The tools by name.
        run: Gives the module that runs the tool of a name.
        rules: What holds for them.

    Raises:
        Exception: Of `approve` or `stop`, or one of a tool that ends the run (`errors.FATAL`).
    """
    planned = []
    for place, call in enumerate(calls):
        own = tools[call.name].max_chars if call.name in tools else None
        one = _Planned(call, fault=faults.get(place, ""), max_chars=own or rules.max_chars)
        if not one.fault:
            await _allow(one, tools, rules)
        planned.append(one)
    return await aio.gather([partial(_observe, module, one, run, rules) for one in planned])


async def _allow(one: _Planned, tools: Mapping[str, Tool], rules: ActingRules) -> None:
    """Read the arguments of a call, and ask whether it may be made."""
    call = one.call
    tool = tools.get(call.name)
    if tool is None:
        one.fault = f"there is no tool `{call.name}`; there are {', '.join(tools)}"
        return
    try:
        one.arguments = tool.read(call)
        if rules.approve is None:
            return
        if aio.is_coroutine_function(rules.approve):
            said = await aio.awaited(rules.approve(call))
        else:
            said = await aio.in_thread(rules.approve, call)  # it may ask a person, and wait
            if inspect.isawaitable(said):
                said = await aio.awaited(said)
        if isinstance(said, Mapping):
            one.arguments = tool.read(ToolCall(call.id, call.name, json.dumps(dict(said), default=str)))
            one.note = f"called with {observed(said, one.max_chars)[0]} instead: "
        elif said is not True:
            one.fault = "this call was not allowed" + (f": {said}" if isinstance(said, str) else "")
    except ToolCallError as error:
        one.fault = error.reason


async def _observe(module: Any, one: _Planned, run: Callable[[str], Any], rules: ActingRules) -> Observed:
    stream = around_of(Hearing)
    if stream is None:
        return await _run(one, run, rules)
    heard = await stream.begin_tool(module if one.arguments is None else run(one.call.name), one.call)
    try:
        seen = await _run(one, run, rules)
    except BaseException as error:
        heard.end(f"{type(error).__name__}: {error}", failed=True)
        raise
    heard.end(seen.text, failed=seen.failed)
    return seen


async def _run(one: _Planned, run: Callable[[str], Any], rules: ActingRules) -> Observed:
    if one.fault or one.arguments is None:
        return Observed(observed(one.fault, rules.max_chars)[0], failed=True)
    try:
        value = await run(one.call.name).acall(**one.arguments)
        text, media = observed(value, one.max_chars)
    except FATAL:
        raise
    except BaseException as error:  # it is the result
        if not (aio.is_failure(error) or isinstance(error, SystemExit)):
            raise
        return Observed(one.note + observed(error, rules.max_chars)[0], failed=True)
    stops = rules.stop(one.call, value) if rules.stop is not None else False
    if inspect.isawaitable(stops):
        stops = await aio.awaited(stops)
    return Observed(one.note + text, media, value, stops=bool(stops))


def cut(text: str, most: int) -> str:
    """A text that a request can hold, of so many characters; it says what is missing."""
    return observed(text, most)[0]
