"""The counters: the office of `_agent_world.py`, whose tools also want the number of a case in a way of their own.

Each tool knows a case by its number with a letter of its own, and answers any other number with the letter that it
wants, and no code. Which tool holds which topic shows only once a tool was asked in its way: so three things are to be
learned one after the other, each in another text - how a number is written, in the description of an argument; what a
tool holds, in the description of the tool; the suffix of a tier, in the instruction.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from _agent_world import _CASE, TOOLS, AgentWorld
from worlds._noise import pick

_BEGINS = re.compile(r"cases here begin with ([A-Z])-")
_WRITTEN = re.compile(r"^The case, which begins with ([A-Z])-\.")


class Counters(AgentWorld):
    """The office with tools that want the number of a case in a way of their own."""

    def letter(self, tool: str) -> str:
        """The letter with which the cases of a tool begin."""
        return "GHJKLM"[TOOLS.index(tool) + 3 * pick(2, self.seed, "letter", tool)]

    def _tool(self, name: str) -> Callable[[str], str]:
        letter = self.letter(name)

        def look(case: str) -> str:
            number = case.removeprefix(f"{letter}-")
            if number == case:
                return f"None is called {case}: cases here begin with {letter}-."
            return f"case {number}: {self.code(number, name)}"

        look.__name__ = look.__qualname__ = name
        look.__doc__ = "Looks a case up.\n\nArgs:\n    case: The case."
        look.__annotations__.update(case=str)
        return look

    def act(self, request: Any) -> Any:
        """One step, as in the office, with the number written as the description of the argument says."""
        answered = super().act(request)
        messages = request.messages
        if any(message.role == "assistant" for message in messages):
            return answered
        case, _, _ = _CASE.findall(messages[1].preview)[-1]
        letters = self._letters(request)
        if self.native:
            (call,) = answered.tool_calls
            letter = letters.get(call.name)
            return type(answered)((self._written(call, case, letter),), answered.usage)
        tool = next(name for name in TOOLS if f"[[ ## tool ## ]]\n{name}" in answered)
        written = f"{letters[tool]}-{case}" if tool in letters else case
        return answered.replace(json.dumps({"case": case}), json.dumps({"case": written}))

    def _written(self, call: Any, case: str, letter: str | None) -> Any:
        return type(call)(call.id, call.name, json.dumps({"case": f"{letter}-{case}" if letter else case}))

    def _letters(self, request: Any) -> dict[str, str]:
        """How the descriptions of the arguments say that a number is written, by tool."""
        if self.native:
            declared = [each["function"] for each in json.loads(dict(request.extra)["tools"])]
            told = {
                each["name"]: each["parameters"]["properties"].get("case", {}).get("description", "")
                for each in declared
            }
        else:
            listed = re.findall(
                r"^- (\w+)\([^\n]*\n(?:  - case: ([^\n]*)\n)?", request.messages[1].preview, re.MULTILINE
            )
            told = dict(listed)
        found = {name: _WRITTEN.search(text) for name, text in told.items() if name in TOOLS}
        return {name: match[1] for name, match in found.items() if match}

    def _revised(self, now: Mapping[str, str], runs: list[Any], key: tuple[object, ...]) -> dict[str, str]:
        texts = super()._revised(now, runs, key)
        for run in runs:
            for call in run.get("calls", ()):
                tool = call["call"].removeprefix("tools.").partition("[")[0]
                path = f"tools.{tool}.arguments.case"
                if path in now and (asked := _BEGINS.search(str(call.get("outputs", {}).get("out", "")))):
                    texts[path] = f"The case, which begins with {asked[1]}-."
        return texts
