"""Instructions in words: precise, partial and vague; and finding the operation that a sentence names."""

from __future__ import annotations

import zlib
from functools import cache
from random import Random

from promptgrad.data.pocket._ops import OPS, Operation

VERBS = (
    "give",
    "return",
    "write",
    "say",
    "output",
    "find",
    "tell me",
    "answer with",
    "please give",
    "respond with",
    "state",
    "print",
)
TAILS = ("", "", "", ".", "only", "please", "and nothing else")
VAGUE = (
    "answer the question",
    "do the task",
    "give the answer",
    "process the text",
    "respond to the input",
    "help the user",
    "complete the task",
    "give the right answer",
    "read the text and answer",
    "answer",
)
PARTIAL = {
    "pick": ("pick a word from the list", "choose one word", "select one of the words"),
    "list": ("rewrite the list", "change the order of the list"),
    "num": ("give a number", "compute a number"),
    "attr": ("describe the thing", "say something about the thing", "name a property"),
    "cls": ("classify the text", "give a label", "sort the input into classes", "label the text"),
    "look": ("use the text to answer",),
    "two": ("describe one of the things", "name a property of one word"),
}
CRITIQUE = ("explain what is wrong with the answer", "write a critique of the answer", "why is the answer wrong")
CRITIQUE_WITH_INPUT = (
    "explain what is wrong with the answer and with the text",
    "write a critique of the answer and of the text",
)
IMPROVE = (
    "improve the instruction with the critique",
    "rewrite the instruction to fix the critique",
    "propose a better instruction",
)
INDUCT = (
    "write an instruction for these examples",
    "which instruction fits the examples",
    "propose an instruction from the examples",
)
IT_IS_RIGHT = "it is right"
"""What the embedded model says of a part that is not to blame."""


def is_test_sentence(sentence: str) -> bool:
    """Whether an instruction sentence belongs to the tenth that no training ever sees."""
    return zlib.crc32(sentence.encode()) % 10 == 0


def precise(r: Random, op: Operation, part: str = "train") -> str:
    """An instruction that says exactly what to do, from one part of the sentence space."""
    while True:
        sentence = f"{r.choice(VERBS)} {op.phrase(r)} {r.choice(TAILS)}".strip()
        if is_test_sentence(sentence) == (part == "test"):
            return sentence


def instruction(r: Random, op: Operation, level: str, part: str = "train") -> str:
    """An instruction of level "precise", "partial" (says what kind of answer) or "vague" (says nothing)."""
    if level == "precise":
        return precise(r, op, part)
    return r.choice(VAGUE if level == "vague" else PARTIAL[op.group])


@cache
def phrase_table() -> dict[str, frozenset[str]]:
    """Every wording of every operation, with the names it may stand for."""
    r = Random(1)
    table: dict[str, set[str]] = {}
    for op in OPS.values():
        for _ in range(150):
            table.setdefault(op.phrase(r), set()).add(op.name)
    return {phrase: frozenset(names) for phrase, names in table.items()}


def names_op(text: str) -> set[str]:
    """Names of the operations that a text (an instruction, a critique) mentions in words of this world.

    A longer wording hides the shorter ones inside it: "the color of the last word of the list" is not "last".
    """
    padded = f" {' '.join(text.split())} "
    hits = [phrase for phrase in phrase_table() if f" {phrase} " in padded]
    longest = [p for p in hits if not any(p != q and f" {p} " in f" {q} " for q in hits)]
    return {name for phrase in longest for name in phrase_table()[phrase]}
