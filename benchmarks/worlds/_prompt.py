"""What a prompt asks for and shows, whichever framework wrote it, and how the reply must look.

Understood are promptgrad's chat and JSON adapters, DSPy's, GEPA's fenced blocks and TextGrad's tags; any other prompt
gets a plain text. The texts by which they are known are in the frameworks' own prompts, see the tests.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

_MARKER = re.compile(r"^[ \t]*\[\[ ## ([^\]\n#]+?) ## \]\][ \t]*\n?", re.MULTILINE)
_LISTED = re.compile(r"^(?:\d+\.|-) `([^`]+)`(?: \(([^\n]*?)\))?:[ \t]*([^\n]*)$", re.MULTILINE)
_SECTION = re.compile(r"^\[\[ ## ([^\]\n#]+?) ## \]\]\n\{([^\n]*)\}$", re.MULTILINE)
_REMINDER = re.compile(r"\n\n(?:Reply in the format above|Respond with (?:the corresponding|a JSON object))[^\n]*\Z")
_DSPY_OBJECTIVE = "your objective is:"


@dataclass(frozen=True)
class Asked:
    """One field of the reply.

    Attributes:
        name: Its name.
        about: Its type and description, as the prompt words them.
    """

    name: str
    about: str = ""

    @property
    def is_list(self) -> bool:
        """Whether a list is asked for."""
        return self.about.lstrip("(").startswith(("list", "JSON")) or '"type": "array"' in self.about

    @property
    def is_bool(self) -> bool:
        """Whether yes or no is asked for."""
        return self.about.lstrip("(").startswith(("bool", "true", "one of `true`", "yes"))


class Prompt:
    """The messages of one call, read.

    Args:
        messages: The chat messages.
    """

    def __init__(self, messages: Sequence[Mapping[str, Any]]) -> None:
        self.messages = messages
        self.system = "\n\n".join(str(m["content"]) for m in messages if m["role"] in ("system", "developer"))
        turns = [m for m in messages if m["role"] not in ("system", "developer")]
        self.user = str(turns[-1]["content"]) if turns else ""
        self.demos = [
            (str(ask["content"]), str(answer["content"]))
            for ask, answer in zip(turns[:-1:2], turns[1:-1:2], strict=False)
        ]

    @cached_property
    def instruction(self) -> str:
        """The part of the system message that the program's author or optimizer wrote."""
        text = self.system
        if _DSPY_OBJECTIVE in text:
            lines = text.split(_DSPY_OBJECTIVE, 1)[1].strip("\n").split("\n")
            return "\n".join(line.removeprefix(" " * 8) for line in lines).strip()
        for start in ("\n\nYou are given these fields:\n", "\n\nReply with these fields, each below", "\n\nReply with"):
            if start in text:
                return text.split(start, 1)[0].strip()
        if text.startswith(("You are given these fields:", "Reply with these fields")):
            return ""
        return text.strip()

    @cached_property
    def form(self) -> str:
        """How the reply must look: "markers", "json", "tags", "fence" or "plain"."""
        text = self.system
        if "Reply with one JSON object" in text or "Outputs will be a JSON object" in text:
            return "json"
        if "Respond with a JSON object in the following order of fields" in self.user:
            return "json"
        if "[[ ## completed" in text or "[[ ## completed" in self.user:
            return "markers"
        if "<IMPROVED_VARIABLE>" in text or "<IMPROVED_VARIABLE>" in self.user:
            return "tags"
        return "fence" if "within ``` blocks" in self.user else "plain"

    @cached_property
    def asked(self) -> list[Asked]:
        """The fields of the reply in their order; none where a plain text is asked for."""
        text = self.system
        if "Your output fields are:" in text:
            part = text.split("Your output fields are:", 1)[1].split("All interactions will be", 1)[0]
            return [Asked(name, f"{kind or ''} {about}".strip()) for name, kind, about in _LISTED.findall(part)]
        if "Reply with one JSON object" in text:
            part = text.split("Reply with one JSON object", 1)[1]
            return [Asked(name, about) for name, _, about in _LISTED.findall(part)]
        if "Reply with these fields" in text:
            part = text.rsplit("Reply with these fields", 1)[1]
            return [Asked(name, about) for name, about in _SECTION.findall(part)]
        return []

    @cached_property
    def sections(self) -> dict[str, str]:
        """The fields of the last message by name; a GEPA or TextGrad prompt has those it is known to have."""
        parts = _MARKER.split(_REMINDER.sub("", self.user.rstrip()))
        if len(parts) > 2:
            return {name: value.strip() for name, value in zip(parts[1::2], parts[2::2], strict=True)}
        found: dict[str, str] = {}
        fences = self.user.split("```")
        if self.form == "fence" and len(fences) > 3:
            found = {"current_instruction": fences[1].strip(), "examples": "```".join(fences[3:-2]).strip()}
        variable = re.search(r"<VARIABLE>(.*?)</VARIABLE>", self.user, re.DOTALL)
        if variable:
            system = re.search(r"<LM_SYSTEM_PROMPT>(.*?)</LM_SYSTEM_PROMPT>", self.user, re.DOTALL)
            short = variable[1].strip()
            found["instruction"] = system[1].strip() if system and " (...) " in short else short
        feedback = re.findall(r"<FEEDBACK(?:-\d+)?>(.*?)</FEEDBACK(?:-\d+)?>", self.user, re.DOTALL)
        if feedback:
            found["critiques"] = "\n".join(feedback)
        return found

    def reply(self, value: Callable[[Asked], Any], plain: str) -> str:
        """A reply in the form that is asked for.

        Args:
            value: Gives the value of each field.
            plain: The text where no fields are asked for.
        """
        if self.form == "tags":
            return f"<IMPROVED_VARIABLE>{plain}</IMPROVED_VARIABLE>"
        if self.form == "fence":
            return f"```\n{plain}\n```"
        if not self.asked or self.form == "plain":
            return plain
        values = {asked.name: value(asked) for asked in self.asked}
        if self.form == "json":
            return json.dumps(values, ensure_ascii=False)
        parts = [
            f"[[ ## {name} ## ]]\n{each if isinstance(each, str) else json.dumps(each, ensure_ascii=False)}"
            for name, each in values.items()
        ]
        return "\n\n".join([*parts, "[[ ## completed ## ]]"])
