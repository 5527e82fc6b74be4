"""What `CodeAct` and `RLM` share: tools that their code calls, each call of which is checked and recorded."""

import builtins
from collections.abc import Callable, Iterable
from functools import partial
from keyword import iskeyword
from typing import Any

from promptgrad.adapters import Tool
from promptgrad.errors import SignatureError
from promptgrad.lm import ToolCall
from promptgrad.nn._acting import ActingRules, act
from promptgrad.nn._agent_tools import ToolTexts, ToolWords, flat_tools, take_tool, tool_key
from promptgrad.nn._code_steps import SUBMIT, CodeSteps, OneRun, named, written
from promptgrad.nn._containers import ModuleDict


class ToolSteps(CodeSteps, in_place=True):
    """Steps of code that may call tools."""

    def _take_tools(
        self,
        tools: Iterable[Any],
        approve: Callable[[ToolCall], Any] | None,
        describe: bool | Iterable[str],  # noqa: FBT001 - as the agents take it
        *others: str,
    ) -> None:
        """Take the tools in; `others` are the names of further functions that the code may call.

        Raises:
            SignatureError: One cannot be a tool of code, or has a name that is taken.
        """
        self.approve = approve
        self._declared: dict[str, Tool] = {}
        texts = ToolTexts(describe)
        recorded = {}
        for given in flat_tools(tools):
            made, call = take_tool(given, self._declared, type(self).__name__, (SUBMIT, *others), describe=texts)
            if not made.name.isidentifier() or iskeyword(made.name) or hasattr(builtins, made.name):
                raise SignatureError(
                    f"code cannot call a tool {made.name!r}, which is no name of Python, or the name of something that "
                    "it has: pass Tool(function, name=...)"
                )
            recorded[tool_key(made.name)] = call
            self._declared[made.name] = made
        texts.check()
        self._check_names(*others, *self._declared)
        self.tools = ModuleDict(recorded)

    def _op(self, name: str) -> Any:
        return self.tools[tool_key(name)]

    def _functions(self) -> dict[str, Any]:
        return {name: partial(self._call, name) for name in self._declared}

    async def _call(self, name: str, run: OneRun, /, *args: Any, **kwargs: Any) -> Any:
        call = ToolCall("", name, written(named(self._declared[name], args, kwargs)))
        rules = ActingRules(self.approve, None, self.max_chars)
        (seen,) = await act(self, [call], {}, self._declared, self._op, rules)
        if seen.failed:
            raise RuntimeError(seen.text)
        return seen.value

    def _described(self) -> str:
        words = ""
        for name, tool in self._declared.items():
            words = words + ToolWords(tool).now(self._op(name))
        return words
