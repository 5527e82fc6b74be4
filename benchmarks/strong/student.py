"""The student: a language model that does what its instruction says, and no more.

Somebody wrote down in `says.py` what each instruction says. An unknown one is not guessed at: `Untranslated`.
"""

import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Any

PARCEL = re.compile(
    r"Parcel (?P<number>\d+) from (?P<sender>[^:]+): tubes of (?P<material>[^:]+): (?P<tubes>\d+); drawn "
    r"(?P<hours>\d+) hours ago; (?P<celsius>\d+) degrees on arrival; brought by (?P<courier>\w+)\."
)
LETTER = re.compile(
    r"my name is (?P<name>[^.]+?) and I belong to the (?P<branch>[^.]+?) branch\. I would like to read "
    r"(?P<title>[^,]+), in (?P<format>[^,]+), printed in (?P<year>\d+)\. At present I have "
    r"(?P<loans>\d+) books on loan\. (?P<ending>.+)$"
)
VALUE = re.compile(r"\[\[ ## (\w+) ## \]\]\n(.*?)\n\nReply in the format", re.S)


class Untranslated(SystemExit):
    """Nobody wrote down yet what this instruction says; the run stops, and goes on once somebody did."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(f"says.py does not know what this instruction says ({kind}, {digest(text)}):\n{text}")
        self.kind, self.text = kind, text


def digest(text: str) -> str:
    """The key of an instruction in `says.py`."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def typed(facts: Mapping[str, str]) -> dict[str, Any]:
    """Facts, with numbers as numbers."""
    return {name: int(value) if value.isdigit() else value for name, value in facts.items()}


def answer(system: str, user: str, says: Callable[[str, str], Any]) -> str:
    """The reply to one call of `route`, `note` or `decide`.

    Args:
        system: The system message, which begins with the instruction.
        user: The user message, which holds the input.
        says: What an instruction says, by the name of the call and its text.
    """
    instruction = system.split("\n\nYou are given these fields:")[0]
    found = VALUE.search(user)
    assert found is not None, user  # noqa: S101 - every call has one value
    name, value = found.groups()
    if name == "parcel":
        out, text = "code", says("route", instruction)(facts_of(PARCEL, value))
    elif name == "letter":
        facts = facts_of(LETTER, value)
        out, text = "notes", "; ".join(f"{key}: {facts[key]}" for key in says("note", instruction))
    else:
        facts = typed(dict(part.split(": ", 1) for part in value.split("; ")))
        out, text = "answer", says("decide", instruction)(facts)
    return f"[[ ## {out} ## ]]\n{text}\n\n[[ ## completed ## ]]"


def facts_of(pattern: re.Pattern[str], text: str) -> dict[str, Any]:
    """What a parcel or a letter states."""
    found = pattern.search(text)
    assert found is not None, text  # noqa: S101 - the texts are our own
    return typed(found.groupdict())
