"""What writers and critics of all worlds share: which field of a reply holds what."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from worlds._prompt import Asked, Prompt
from worlds._rows import without_tickets
from worlds._rules import Rule, read_last

_TEXT = re.compile(r"instruction|new_|improved|proposed|revised|rewritten|solution", re.IGNORECASE)
_RIGHT = re.compile(r'write exactly\s+"([^"]+)"')
_CURRENT = ("current_instruction", "basic_instruction", "instruction", "solution", "text")
_SUMMARY = re.compile(r"description|observation|summary", re.IGNORECASE)
_CLAIMS = re.compile(r"critique|feedback|analysis|findings|hints", re.IGNORECASE)


@dataclass
class Advice:
    """What somebody concluded from a prompt.

    Attributes:
        text: The new instruction.
        critique: What is wrong, in words.
        blame: Whether anything shown is wrong.
        wrong: For each run shown, from 1, what is wrong with it, where something is.
        parameters: For each run shown, the name of the parameter that is to blame, where the prompt names several.
        texts: The new text of each parameter that is to blame, by name, where the prompt shows several.
    """

    text: str
    critique: str
    blame: bool
    wrong: Mapping[int, str] = field(default_factory=dict)
    parameters: Mapping[int, str] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)


def current(prompt: Prompt) -> str:
    """The instruction that a prompt shows as the present one."""
    return next((prompt.sections[name] for name in _CURRENT if name in prompt.sections), "")


def summed(prompt: Prompt) -> tuple[Rule, ...]:
    """The rules that a summary of the whole task states, where a prompt hands one on: its last list, as it goes on."""
    texts = (without_tickets(text) for name, text in prompt.sections.items() if _SUMMARY.search(name))
    return next((rules for text in texts if (rules := read_last(text))), ())


def claims(prompt: Prompt) -> str:
    """What others concluded from single runs, as the prompt hands it on: critiques, findings, hints."""
    found = (text for name, text in prompt.sections.items() if _CLAIMS.search(name) and not _SUMMARY.search(name))
    return "\n".join(found)


def silence(prompt: Prompt) -> str:
    """What a prompt wants to hear of a part that is right; empty where it does not say."""
    found = _RIGHT.search(f"{prompt.system}\n{prompt.user}")
    return found[1] if found else ""


def write(prompt: Prompt, advice: Advice, fill: Callable[[Asked], Any] | None = None) -> str:
    """The reply that tells the advice in the fields and the form that the prompt asks for."""
    critique = advice.critique if advice.blame else silence(prompt) or advice.critique

    def value(asked: Asked) -> Any:
        special = fill(asked) if fill is not None else None
        if special is not None:
            return special
        if _TEXT.search(asked.name) and not asked.is_list and "critique" not in asked.name:
            return advice.text
        if asked.is_bool:
            said = advice.blame != ("right" in asked.name)
            return ("yes" if said else "no") if "yes" in asked.about else said
        if asked.is_list:
            return _listed(prompt, asked, advice)
        return critique

    tags = prompt.form == "tags" or prompt.form == "fence"
    return prompt.reply(value, advice.text if tags else critique)


def _listed(prompt: Prompt, asked: Asked, advice: Advice) -> list[Any]:
    """A list: of findings, where objects are asked for, or of what is wrong in words."""
    properties = _properties(asked.about)
    if not properties:
        return list(dict.fromkeys(advice.wrong.values()))
    if "anchor" in properties:  # edits: the whole text is replaced by the new one
        now = current(prompt)
        return [{"op": "replace" if now else "insert", "anchor": now, "text": advice.text}]
    first = next(iter(parameters(prompt)), "")
    if any(_TEXT.search(name) for name in properties):  # a new text for each parameter that is to blame
        texts = advice.texts or ({first: advice.text} if advice.blame else {})
        return [
            {name: text if _TEXT.search(name) else parameter for name in properties}
            for parameter, text in texts.items()
        ]
    alike: dict[tuple[str, str], list[int]] = {}
    for run, critique in advice.wrong.items():
        alike.setdefault((advice.parameters.get(run) or first, critique), []).append(run)
    found: list[Any] = []
    for (parameter, critique), numbers in alike.items():
        together = any("run" in name and schema.get("type") == "array" for name, schema in properties.items())
        for group in [numbers] if together else [[number] for number in numbers]:
            found.append({name: _part(name, schema, group, parameter, critique) for name, schema in properties.items()})
    return sorted(found, key=lambda each: each.get("run", 0))


def _part(name: str, schema: Mapping[str, Any], numbers: Sequence[int], parameter: str, critique: str) -> Any:
    """One property of a finding about some runs."""
    kind = schema.get("type")
    if kind == "boolean":
        return True
    if kind in ("integer", "number"):
        return numbers[0]
    if kind == "array":
        inner = schema.get("items", {}).get("type")
        return list(numbers) if inner in ("integer", "number") else [parameter]
    return parameter if "parameter" in name or name in ("name", "target") else critique


def _properties(about: str) -> dict[str, Any]:
    """The properties of the objects in a list, from the JSON schema in the description of a field."""
    start = about.find("{")
    if start < 0:
        return {}
    try:
        schema, _ = json.JSONDecoder().raw_decode(about, start)
    except ValueError:
        return {}
    items = schema.get("items", {})
    if "$ref" in items:
        items = schema.get("$defs", {}).get(items["$ref"].rsplit("/", 1)[-1], {})
    properties: dict[str, Any] = items.get("properties", {})
    return properties


def parameters(prompt: Prompt) -> dict[str, str]:
    """The texts that a prompt shows by name; none where it shows one alone."""
    try:
        shown = json.loads(prompt.sections.get("parameters", "{}"))
    except ValueError:
        return {}
    return {name: str(text) for name, text in shown.items()} if isinstance(shown, dict) else {}


def runs(prompt: Prompt) -> Sequence[str]:
    """The runs that a prompt shows as a list of objects, each as text; empty where it shows none."""
    for name in ("runs", "rows", "examples_with_feedback", "failures", "examples"):
        try:
            shown = json.loads(prompt.sections.get(name, ""))
        except ValueError:
            continue
        if isinstance(shown, list):
            return [json.dumps(each, ensure_ascii=False) for each in shown]
    return []
