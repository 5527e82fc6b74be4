"""Worlds of agents that write code: the office of `_agent_world.py` by code, and a binder too long for one prompt.

*The office by code* is the office with a `CodeAct`: the student writes Python that calls one tool and prints what it
gave, and then submits. What is to be learned, and the writer, are those of the office.

*The binder* is for an `RLM`. A document has a page of each of three registers for every case; which register has the
code that counts depends on the topic, and the suffix on the tier. The student writes code that picks the page of the
register that its instruction names for the topic, by chance where it names none, and has a second prompt read it: the
code on the page, with the suffix that *this* prompt states for the tier. So two texts are to be learned, and what is
wrong with the second shows only through the code that called it.

The code runs in a sandbox. The language models are simulated, as in the office: the student does what its texts say and
slips in 4 % of the runs, the writer concludes all that a prompt shows, and guesses where two registers are left.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from _agent_world import _CASE, _CODE, _SUFFIX, SLIP, TOOLS, TOPICS, AgentWorld, _lm, _with_suffixes
from worlds._noise import pick, uniform

STEP, SUB = "step.instruction", "sub.instruction"
PAGES = 24
"""Cases of other questions in each document."""

_READ = re.compile(r"Of (\w+) cases read the (\w+)\.")
_PAGE = re.compile(r"(\w+), case (\d+): (K\d\d)")


class OfficeByCode(AgentWorld):
    """The office, for a `CodeAct`."""

    def program(self, *, describe: bool = True) -> Any:
        """The agent with its three tools, on the student; `describe`: whether their descriptions are trained."""
        from promptgrad import nn

        tools = [self._tool(name) for name in TOOLS]
        agent = nn.CodeAct("question -> answer", tools, max_steps=4, describe=describe, adapter="chat")
        return agent.to(_lm(self.act, "student"))

    def act(self, request: Any) -> Any:
        """One step: code that calls a tool, or that submits."""
        messages = request.messages
        case, topic, tier = _CASE.findall(messages[1].preview)[-1]
        if sum(message.role == "assistant" for message in messages):
            found = _CODE.findall(messages[-1].preview)
            suffix = dict(_SUFFIX.findall(messages[0].preview)).get(tier)
            answer = (found[-1][1] if found else "unknown") + (f"-{suffix}" if suffix else "")
            return _wrote(f"submit(answer={answer!r})")
        return _wrote(f"found = {self._choose(self._described(request), case, topic)}(case={case!r})\nprint(found)")


class Binder(AgentWorld):
    """A long document, for an `RLM`."""

    @cached_property
    def rows(self) -> dict[str, list[Any]]:
        """Examples by part: "train", "val", "test", each with its document."""
        from promptgrad import Example

        found = {}
        for part, rows in super().rows.items():
            found[part] = []
            for row in rows:
                case, _, _ = _CASE.findall(row.question)[0]
                more = Example(document=self._document(case), question=row.question, answer=row.answer)
                found[part].append(more.with_inputs("document", "question"))
        return found

    def program(self, *, describe: bool = True) -> Any:
        """The program, on the student; `describe`: whether the prompt that reads a page is trained too."""
        from promptgrad import nn

        program = nn.RLM("document, question -> answer", max_steps=3, max_calls=4, adapter="chat")
        program.sub.requires_grad_(describe)
        return program.to(_lm(self.act, "student"))

    def act(self, request: Any) -> Any:
        """The code of a step, or what the second prompt reads on a page."""
        told, asked = request.messages[0].preview, request.messages[-1].preview
        if "[[ ## query ## ]]" in asked:
            found, tier = _PAGE.findall(asked), _CASE.findall(asked)[-1][2]
            suffix = dict(_SUFFIX.findall(told)).get(tier)
            return f"[[ ## answer ## ]]\n{found[-1][2] if found else 'unknown'}{f'-{suffix}' if suffix else ''}"
        case, topic, _ = _CASE.findall(asked)[-1]
        guess = TOOLS[pick(3, self.seed, "guess", case)]
        register = dict(_READ.findall(told)).get(topic, guess)
        if uniform(self.seed, "slip", case, told) < SLIP:
            register = guess
        return _wrote(
            f"pages = [line for line in document.split('\\n') if line.startswith({f'{register}, case {case}:'!r})]\n"
            "submit(answer=llm_query(pages[0] + ' ' + question))"
        )

    def _document(self, case: str) -> str:
        first = int(case) - int(case) % PAGES
        numbers = [str(number) for number in range(first, first + PAGES)]
        return "\n".join(f"{name}, case {number}: {self.code(number, name)}" for name in TOOLS for number in numbers)

    def _read(self, call: Mapping[str, Any]) -> list[tuple[str, str]]:
        found = _PAGE.findall(str(call.get("inputs", {}).get("query", "")))
        return [(register, read) for register, _, read in found]

    def _revised(self, now: Mapping[str, str], runs: list[Any], key: tuple[object, ...]) -> dict[str, str]:
        right, wrong, suffixes = self._learned(runs)
        texts: dict[str, str] = {}
        if STEP in now:
            known = dict(_READ.findall(now[STEP]))
            for topic in TOPICS:
                left = [name for name in TOOLS if name not in wrong.get(topic, ())]
                if topic in right:
                    known[topic] = right[topic]
                elif topic in wrong and known.get(topic) not in left:
                    known[topic] = left[pick(len(left), *key, topic)] if left else TOOLS[0]
            lines = [f"Of {topic} cases read the {known[topic]}." for topic in TOPICS if topic in known]
            texts[STEP] = "\n".join([_READ.sub("", now[STEP]).rstrip(), *lines])
        if SUB in now:
            texts[SUB] = _with_suffixes(now[SUB], suffixes)
        return texts


def _wrote(code: str) -> str:
    return f"[[ ## thought ## ]]\nOne step further.\n\n[[ ## code ## ]]\n{code}"
