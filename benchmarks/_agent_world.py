"""A, the office: a simulated agent with three tools, whose descriptions do not say what each of them holds.

Questions name a case, its topic and the tier of its customer. The code of a case is in one of three tools, which one
depends on the topic; the others hold an old code. A suffix depends on the tier; one tier has none. Nothing of this is
told: the program begins with tools that "look a case up", and an instruction that knows no suffix.

- The *student* calls the tool whose description names the topic, and where none does, one by chance, always the same
  for one case; it adds the suffix that its instruction states for the tier. It slips in 4 % of the runs.
- The *writer* is a perfect learner of what the prompt of an optimizer shows: which tool gave the code that was
  expected, which did not, and which suffix a tier has. Where two tools are left it names one of them by chance.

No real LM: a number from here says how an optimizer spends calls and evidence on the texts of an agent.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

from worlds._noise import digest, pick, uniform
from worlds._prompt import Prompt

TOPICS = ("billing", "delivery", "warranty", "accounts", "returns", "contracts")
TIERS = ("basic", "silver", "gold")
TOOLS = ("ledger", "archive", "desk")
INSTRUCTION = "step.instruction"
SLIP = 0.04
"""How often the student calls another tool than the one it should."""

_CASE = re.compile(r"Case (\d+) is about (\w+), its customer is (\w+)")
_CODE = re.compile(r"case (\d+): (K\d\d)")
_SUFFIX = re.compile(r"For (\w+) customers add -(\w) to the code\.")
_HOLDS = re.compile(r"It holds the ([\w, ]+?) cases\.")
_EXPECTED = re.compile(r"expected (K\d\d(?:-\w)?)")
_LISTED = re.compile(r"^- (\w+)\([^\n]*?\): (.*?)(?=^- |^\[\[|\Z)", re.MULTILINE | re.DOTALL)


class AgentWorld:
    """The rows, the tools, the student and the writer of one seed.

    Args:
        seed: Draws everything. By agreement 0 to 99 are for results that are reported, 1000 and up for development.
        native: Whether the student makes calls of the provider's protocol.
        test: Number of fresh rows.
    """

    def __init__(self, seed: int, *, native: bool = False, test: int = 200) -> None:
        self.seed = seed
        self.native = native
        self.sizes = {"train": 40, "val": 40, "test": test}
        order = sorted(TOPICS, key=lambda topic: digest(seed, "topic", topic))
        self.holder = {topic: TOOLS[place % 3] for place, topic in enumerate(order)}
        self.suffix = {tier: f"-{'ABCD'[pick(4, seed, 'suffix', tier)]}" for tier in TIERS} | {TIERS[0]: ""}

    # -- data -----------------------------------------------------------------------------------------------------

    @cached_property
    def rows(self) -> dict[str, list[Any]]:
        """Examples by part: "train", "val", "test"."""
        from promptgrad import Example

        found: dict[str, list[Any]] = {}
        case = 1000
        for part, size in self.sizes.items():
            found[part] = []
            for _ in range(size):
                case += 1
                topic, tier = TOPICS[pick(6, self.seed, "row", case)], TIERS[pick(3, self.seed, "tier", case)]
                question = f"Case {case} is about {topic}, its customer is {tier}. What is its code?"
                answer = f"{self.code(str(case), self.holder[topic])}{self.suffix[tier]}"
                found[part].append(Example(question=question, answer=answer).with_inputs("question"))
        return found

    def code(self, case: str, tool: str) -> str:
        """What a tool holds for a case; every tool holds another code."""
        place = TOOLS.index(tool)
        return f"K{10 + 30 * place + pick(30, self.seed, 'code', case, tool)}"

    def metric(self, example: Any, output: Any, *_: Any) -> Any:
        """1 for the right code with its suffix; the feedback names what was expected, and no reason."""
        from promptgrad import Score

        right = output.answer.strip() == example.answer
        return Score(float(right), feedback="right" if right else f"expected {example.answer}")

    # -- the program ------------------------------------------------------------------------------------------------

    def program(self, *, describe: bool = True) -> Any:
        """The agent with its three tools, on the student; `describe`: whether their descriptions are trained."""
        from promptgrad import nn

        tools = [self._tool(name) for name in TOOLS]
        agent = nn.ReAct(
            "question -> answer", tools, max_steps=4, native=self.native, describe=describe, adapter="chat"
        )
        return agent.to(_lm(self.act, "student"))

    def writer(self) -> Any:
        """The language model of optimizers."""
        return _lm(self.write, "writer")

    def _tool(self, name: str) -> Callable[[str], str]:
        def look(case: str) -> str:
            return f"case {case}: {self.code(case, name)}"

        look.__name__ = look.__qualname__ = name
        look.__doc__ = "Looks a case up."
        look.__annotations__.update(case=str)
        return look

    # -- the student --------------------------------------------------------------------------------------------------

    def act(self, request: Any) -> Any:
        """One step: call a tool, or finish with what it returned."""
        from promptgrad.lm import Completion, ToolCall, Usage

        messages = request.messages
        case, topic, tier = _CASE.findall(messages[1].preview)[-1]
        made = sum(message.role == "assistant" for message in messages)
        if made:
            found = _CODE.findall(messages[-1].preview)
            suffix = dict(_SUFFIX.findall(messages[0].preview)).get(tier)
            answer = (found[-1][1] if found else "unknown") + (f"-{suffix}" if suffix else "")
            name, arguments = "finish", {"answer": answer}
        else:
            described = self._described(request)
            name, arguments = self._choose(described, case, topic), {"case": case}
        if self.native:
            return Completion((ToolCall(f"c{made}", name, json.dumps(arguments)),), Usage(calls=1))
        parts = {"thought": "One step further.", "tool": name, "arguments": json.dumps(arguments)}
        return "\n\n".join(f"[[ ## {field} ## ]]\n{value}" for field, value in parts.items())

    def _described(self, request: Any) -> dict[str, str]:
        if self.native:
            declared = json.loads(dict(request.extra)["tools"])
            return {each["function"]["name"]: each["function"].get("description", "") for each in declared}
        return dict(_LISTED.findall(request.messages[1].preview))

    def _choose(self, described: Mapping[str, str], case: str, topic: str) -> str:
        names = [name for name in TOOLS if topic in _held(described.get(name, ""))]
        guess = TOOLS[pick(3, self.seed, "guess", case)]
        if not names or uniform(self.seed, "slip", case, *described.values()) < SLIP:
            return guess
        return names[0]

    # -- the writer ---------------------------------------------------------------------------------------------------

    def write(self, request: Any) -> str:
        """What the prompt asks for: revisions of texts, one new instruction, or the findings of a critic."""
        prompt = Prompt([{"role": message.role, "content": message.preview} for message in request.messages])
        shown = prompt.sections
        runs = [run for name in ("runs", "rows") if name in shown for run in json.loads(shown[name])]
        now = json.loads(shown["parameters"]) if "parameters" in shown else {INSTRUCTION: shown.get("instruction", "")}
        key = (self.seed, digest(prompt.user), request.replicate if request.temperature else 0)
        texts = self._revised(now, runs, key)
        changed = [{"parameter": path, "new_text": text} for path, text in texts.items() if text != now[path]]
        wrong = [run.get("run") for run in runs if _EXPECTED.search(run.get("feedback", ""))]
        found = [{"runs": wrong, "parameter": INSTRUCTION, "critique": texts.get(INSTRUCTION, ""), "to_blame": True}]
        values = {"revisions": changed, "findings": found, "new_instruction": texts.get(INSTRUCTION, "")}
        return prompt.reply(lambda asked: values.get(asked.name, "Which tool holds which topic."), "")

    def _learned(self, runs: list[Any]) -> tuple[dict[str, str], dict[str, set[str]], dict[str, str]]:
        """What runs show: where the codes of a topic are, where they are not, and the suffixes of tiers."""
        right: dict[str, str] = {}
        wrong: dict[str, set[str]] = {}
        suffixes: dict[str, str] = {}
        for run in runs:
            case, expected = _CASE.search(json.dumps(run)), _expected_of(run)
            if case is None or not expected:
                continue
            _, topic, tier = case.groups()
            code, _, suffixes[tier] = expected.partition("-")
            for call in run.get("calls", ()):
                for tool, read in self._read(call):
                    if read == code:
                        right[topic] = tool
                    else:
                        wrong.setdefault(topic, set()).add(tool)
        return right, wrong, suffixes

    def _read(self, call: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Where a call looked, and the code that it read there."""
        tool = call["call"].removeprefix("tools.").partition("[")[0]
        given = _CODE.findall(str(call.get("outputs", {}).get("out", "")))
        return [(tool, given[-1][1])] if tool in TOOLS and given else []

    def _revised(self, now: Mapping[str, str], runs: list[Any], key: tuple[object, ...]) -> dict[str, str]:
        right, wrong, suffixes = self._learned(runs)
        texts: dict[str, str] = {}
        held = {name: _held(now.get(f"tools.{name}.description", "")) for name in TOOLS}
        for topic in TOPICS:
            left = [name for name in TOOLS if name not in wrong.get(topic, ())]
            present = next((name for name in TOOLS if topic in held[name]), None)
            if topic in right:
                chosen: str | None = right[topic]
            elif topic not in wrong or present in left:
                chosen = present
            else:
                chosen = left[pick(len(left), *key, topic)] if left else None
            for name in TOOLS:
                held[name] = [each for each in held[name] if each != topic] + [topic] * (name == chosen)
        for name in TOOLS:
            path = f"tools.{name}.description"
            if path in now:
                about = _HOLDS.sub("", now[path]).strip()
                listed = ", ".join(topic for topic in TOPICS if topic in held[name])
                texts[path] = f"{about} It holds the {listed} cases." if listed else about
        if INSTRUCTION in now:
            texts[INSTRUCTION] = _with_suffixes(now[INSTRUCTION], suffixes)
        return texts


def _with_suffixes(instruction: str, suffixes: Mapping[str, str]) -> str:
    """An instruction that states the suffixes of tiers, those that it stated before among them."""
    known = {**dict(_SUFFIX.findall(instruction)), **suffixes}
    lines = [f"For {tier} customers add -{known[tier]} to the code." for tier in TIERS if known.get(tier)]
    return "\n".join([_SUFFIX.sub("", instruction).rstrip(), *lines])


def _expected_of(run: Mapping[str, Any]) -> str:
    """The answer that was expected of a run, as far as a prompt shows it."""
    labels: Any = run.get("expected") or {}
    if "answer" in labels:
        return str(labels["answer"])
    told = _EXPECTED.search(run.get("feedback", ""))
    returned: Any = run.get("returned") or {}
    return told[1] if told else str(returned.get("answer", "")) if run.get("feedback") == "right" else ""


def _held(description: str) -> list[str]:
    """The topics that a description names."""
    return [topic for topic in TOPICS if re.search(rf"\b{topic}\b", description)]


def _lm(answer: Callable[[Any], Any], name: str) -> Any:
    """A language model of a function of the whole request."""
    from promptgrad.lm import FunctionLM, Request

    def asked(request: Any) -> Any:
        return answer(request)

    asked.__annotations__["request"] = Request  # annotations are texts here
    return FunctionLM(asked, name=name)
