"""W4, two modules: facts are extracted from a ticket, a code is decided on them, and either may be at fault."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from worlds import _advice, _tickets
from worlds._advice import Advice
from worlds._learner import infer
from worlds._noise import digest, gumbel, pick, uniform
from worlds._prompt import Asked, Prompt
from worlds._rows import Shown, find_rows, is_right, told, without_tickets
from worlds._rules import Rule, decide, read
from worlds._tickets import ATTRIBUTES, Ticket
from worlds.policy import PolicyWorld

NAMES = {
    "product": "product",
    "people": "number of people",
    "money": "sum",
    "channel": "channel",
    "tone": "tone",
    "region": "region",
}
"""What an instruction calls each attribute."""

_WORDS = {
    "product": r"products?|item|what it is about",
    "people": r"people|persons?|colleagues|how many|affected",
    "money": r"sums?|money|amounts?|dollars|price",
    "channel": r"channels?|how it came|phone, mail or chat|medium",
    "tone": r"tones?|mood|how the customer sounds",
    "region": r"regions?|where the customer is|office",
}
_WORD = {name: re.compile(rf"\b(?:{words})\b", re.IGNORECASE) for name, words in _WORDS.items()}
_LACK = re.compile(
    r"(?:do(?:es)? not (?:say|tell|name|state)|lack|miss(?:es|ing)?|leaves? out) the ([a-z ]{3,40})", re.I
)
_FACTS = re.compile(r"\b(?:facts?|extract|note down|state)\b", re.IGNORECASE)

DROP = 0.02, 0.07
"""How often a fact that was asked for is left out: with up to three facts, and for each further one."""
MISBLAME = 0.1
"""How often a critic blames the other module."""


class PipelineWorld(PolicyWorld):
    """W4: `extract` (ticket -> facts), then `decide` (facts -> code), with the fault in one of them or in both.

    Extract's student states the attributes that its instruction names; the more it names, the more it leaves out.
    Decide's student follows the rules of its instruction on the facts it is given. The seed draws whether the start
    leaves an attribute out that the policy needs, states no policy, or both. Critics blame the facts where the rules
    shown need what the facts do not say, and else the rules; one in ten is wrong. Writers conclude what they are
    shown: asked to rewrite a module without evidence that it is at fault, they make it worse.

    Args:
        seed: Draws policy, fault, tickets and noise.
        **options: As for `PolicyWorld`.
    """

    name = "W4"
    outputs = ("facts", "code")

    def __init__(self, seed: int, **options: Any) -> None:
        super().__init__(seed, **options)
        rng = self.rng("fault")
        self.fault = ("extract", "decide", "both")[seed % 3]
        needed = list(dict.fromkeys(_attribute(rule) for rule in self.policy if rule.conditions))
        rng.shuffle(needed)
        others = [name for name in ATTRIBUTES if name not in needed]
        self.needed = frozenset(needed)
        short = [*needed[1:], rng.choice(others)] if self.fault != "decide" else needed
        self._extract = self.extract_instruction(sorted(short, key=ATTRIBUTES.index))
        whole = self.write_instruction(self.policy).replace("Read the ticket", "Read the facts")
        self._decide = whole if self.fault == "extract" else "Give the code that follows from the facts."
        self.start = self._decide

    @property
    def starts(self) -> dict[str, str]:
        """The instruction of each module."""
        return {"extract": self._extract, "decide": self._decide}

    @staticmethod
    def extract_instruction(names: Sequence[str]) -> str:
        """An instruction to state some attributes."""
        listed = [f"the {NAMES[name]}" for name in names]
        said = ", ".join(listed[:-1]) + (" and " if len(listed) > 1 else "") + listed[-1] if listed else "what matters"
        return f"State the facts that the ticket gives on {said}."

    def right(self) -> dict[str, str]:
        """Instructions with which both modules are right."""
        return {
            "extract": self.extract_instruction(sorted(self.needed, key=ATTRIBUTES.index)),
            "decide": self.write_instruction(self.policy).replace("Read the ticket", "Read the facts"),
        }

    def is_task(self, names: set[str]) -> bool:
        """Whether a prompt asks for the output of a module."""
        return bool(names & {"facts", "code"})

    def program(self, url: str) -> Any:
        """The program: modules `extract` and `decide` on the student."""
        from promptgrad import nn

        starts = self.starts

        class Pipeline(nn.Module):
            """Extract the facts of a ticket, then decide on them."""

            def __init__(self) -> None:
                super().__init__()
                self.extract = nn.Predict("ticket -> facts", instruction=starts["extract"])
                self.decide = nn.Predict("facts -> code", instruction=starts["decide"])

            async def forward(self, ticket: Any) -> Any:
                """Run both."""
                found = await self.extract.acall(ticket=ticket)
                return await self.decide.acall(facts=found.facts)

        return Pipeline().to(self.lm(url))

    # -- the student ----------------------------------------------------------------------------------------------

    def act(self, prompt: Prompt, drawn: Sequence[object]) -> str:
        """State facts, or decide on them."""
        names = {asked.name for asked in prompt.asked}
        found = _tickets.find(prompt.user)
        extracts = "facts" in names or (not names and _is_extract(prompt.instruction))
        if not extracts:
            code = self.code_for(prompt.instruction, tuple(prompt.demos), prompt.user, drawn)
            return prompt.reply(partial(self._one_of, "code", code), code)
        facts = self.facts(prompt.instruction, tuple(prompt.demos), found[-1][0], drawn) if found else "No ticket."
        return prompt.reply(partial(self._one_of, "facts", facts), facts)

    @staticmethod
    def _one_of(name: str, value: str, asked: Asked) -> Any:
        return value if asked.name == name else "It follows from what is given."

    def facts(
        self, instruction: str, demos: tuple[tuple[str, str], ...], ticket: Ticket, drawn: Sequence[object] = ()
    ) -> str:
        """The facts that the student states on a ticket."""
        wanted = _named(instruction)
        for _, answer in demos:
            for shown, _, _ in _tickets.find(answer):
                wanted |= {name for name in ATTRIBUTES if getattr(shown, name) is not None}
        name, rate = digest(instruction, *demos), DROP[0] + DROP[1] * max(0, len(wanted) - 3)
        dropped = {each for each in ATTRIBUTES if uniform(self.seed, "drop", name, ticket.number, each, *drawn) < rate}
        kept = {each: getattr(ticket, each) if each in wanted - dropped else None for each in ATTRIBUTES}
        return _tickets.write(replace(ticket, **kept), random.Random(ticket.number))

    # -- writer and critic ------------------------------------------------------------------------------------------

    def conclude(self, prompt: Prompt, temperature: float = 0.0, drawn: Sequence[object] = ()) -> Advice:
        """What the prompt shows on the module that it is about."""
        key = (self.seed, digest(prompt.system, prompt.user), *drawn)
        now = _advice.current(prompt)
        rows = find_rows(prompt.user)
        scale = 0.05 + 0.8 * temperature

        def noise(rule: object) -> float:
            return scale * gumbel(*key, rule)

        summed = _advice.summed(prompt)
        present = read(without_tickets(now)) or summed
        claimed = [*read(without_tickets(_advice.claims(prompt))), *summed]
        rules = infer(rows, present, claimed, noise)
        extracts = _is_extract(now) or (not now and "facts" in prompt.user and "P1" not in prompt.user)
        if extracts:
            text = self._new_extract(prompt.user, now, rows, rules, key)
        else:
            given = find_rows(prompt.user, least=True)
            of_facts = infer(given, present, claimed, noise) if given != rows else rules
            if len(of_facts) <= len(rules) and all(decide(of_facts, row.ticket) in row.allowed for row in given):
                rules = of_facts  # what the facts tell as well needs no more of the tickets
            text = self.write_instruction(rules, rows).replace("Read the ticket", "Read the facts")
        found = {
            number: blamed
            for number, shown in enumerate(_advice.runs(prompt) or [prompt.user], 1)
            for blamed in [self._blame(prompt, shown, key)]
            if blamed[1]
        }
        wrong = {number: said for number, (_, said) in found.items()}
        texts = self._revised(prompt, found.values(), rows, noise, key) if _revises(prompt) else {}
        critique = " ".join(dict.fromkeys(wrong.values())) or "The answer is right."
        if not now and not _advice.parameters(prompt) and (rules or len(rows) > 2):  # who observes data
            critique = self._critique(prompt, rows, rules, key)
        named = {number: self._parameter(prompt, part) for number, (part, _) in found.items()}
        return Advice(text, critique, bool(wrong), wrong, named, texts)

    def advise(self, prompt: Prompt, temperature: float, drawn: Sequence[object]) -> str:
        """Conclude what the prompt shows; a critic of one step blames its instruction or the facts it was given."""
        advice = self.conclude(prompt, temperature, drawn)
        decides = not _is_extract(_advice.current(prompt)) and "facts" in prompt.sections.get("inputs", "")
        if not decides or "inputs" not in prompt.sections:
            return _advice.write(prompt, advice)
        of_facts = "do not say the" in advice.critique

        def fill(asked: Asked) -> Any:
            about_facts = "facts" in asked.name
            if "instruction" in asked.name or asked.is_list:
                return None
            said = advice.blame and about_facts == of_facts and "demos" not in asked.name
            if asked.is_bool:
                return ("yes" if said else "no") if "yes" in asked.about else said
            return advice.critique if said else _advice.silence(prompt) or "It is right."

        return _advice.write(prompt, advice, fill)

    def _revised(
        self,
        prompt: Prompt,
        found: Iterable[tuple[str, str]],
        rows: Sequence[Shown],
        noise: Callable[[object], float],
        key: Sequence[object],
    ) -> dict[str, str]:
        """The new text of each module that some run speaks against, where one reply is to blame and to rewrite.

        It blames as critics do, by the rules that stand in the prompt, and writes as writers do; of the tickets it
        knows what the runs show, which is all, not only what the facts say.
        """
        blamed: dict[str, str] = {}
        for part, said in found:
            blamed[part] = f"{blamed.get(part, '')} {said}"
        texts: dict[str, str] = {}
        for part, said in blamed.items():
            name = self._parameter(prompt, part)
            now = _advice.parameters(prompt).get(name, "")
            stated = "\n".join(without_tickets(text) for text in _advice.parameters(prompt).values())
            rules = infer(rows, read(stated), (), noise)
            if part == "extract":
                texts[name] = self._new_extract(said, now, rows, rules, key)
            else:
                texts[name] = self.write_instruction(rules, rows).replace("Read the ticket", "Read the facts")
        return texts

    def _new_extract(
        self, said: str, now: str, rows: Sequence[Shown], rules: Sequence[Rule], key: Sequence[object]
    ) -> str:
        """Extract's new instruction: besides what it names, what critics miss or what the rules that fit need.

        Who sees neither rows with answers nor rules changes something, as well as one can guess.
        """
        have = _named(now)
        need = _lacking(said) or {_attribute(rule) for rule in rules if rule.conditions}
        if not need and not any(row.label for row in rows):
            have = have - {ATTRIBUTES[pick(len(ATTRIBUTES), *key, "leave")]}
            need = {ATTRIBUTES[pick(len(ATTRIBUTES), *key, "add")]}
        return self.extract_instruction([name for name in ATTRIBUTES if name in have | need])

    def _blame(self, prompt: Prompt, shown: str, key: Sequence[object]) -> tuple[str, str]:
        """Which module a run speaks against, and in which words; ("", "") where it is right."""
        if _revises(prompt) and '"calls"' not in shown:
            return "", ""  # an example that was not run
        rows = find_rows(shown)
        row = rows[0] if rows else None
        allowed = row.allowed if row else told(shown)[0]
        output = row.output if row else told(shown)[1]
        missed = _lacking(shown)
        if missed:
            return "extract", _lack(sorted(missed))
        if is_right(shown) and "expected" not in shown and "right answer" not in shown:
            return "", ""
        label = next(iter(allowed)) if len(allowed) == 1 else None
        tried = [prompt.sections.get(name, "") for name in ("attempts", "worse")]
        shown_by = [text for text in prompt.sections.values() if text not in tried] or [prompt.user]
        rules = read(without_tickets("\n".join([prompt.sections.get("parameters", ""), *shown_by])))
        if label is None or label == output:
            return ("", "") if label is not None else ("decide", "It does not say which code is right when.")
        facts = min((found for found, _, _ in _tickets.find(shown)), key=_known, default=None)
        gone = [
            name
            for name in dict.fromkeys(_attribute(rule) for rule in rules if rule.conditions)
            if facts is not None and getattr(facts, name) is None
        ]
        follows = rules and facts is not None and decide(rules, facts) not in (None, label)
        to_facts = bool(gone and follows)
        if uniform(*key, "misblame", shown) < MISBLAME:
            to_facts = not to_facts and facts is not None
            gone = gone or [name for name in ATTRIBUTES if facts is not None and getattr(facts, name) is None]
        if to_facts and gone:
            return "extract", _lack(gone)
        return "decide", f"The right answer is {label}."

    def _parameter(self, prompt: Prompt, part: str) -> str:
        """The name under which a prompt shows a module's instruction."""
        for found in re.finditer(r'"([\w.]+)":\s*"((?:[^"\\]|\\.)*)"', prompt.sections.get("parameters", "")):
            if _is_extract(found[2]) == (part == "extract"):
                return found[1]
        return ""


def _attribute(rule: Rule) -> str:
    kind = rule.conditions[0].kind
    return "money" if kind == "less" else kind


def _revises(prompt: Prompt) -> bool:
    """Whether a prompt asks for new texts of those of its parameters that are to blame."""
    return any(asked.is_list and "new_text" in asked.about for asked in prompt.asked)


def _named(text: str) -> set[str]:
    """The attributes that an instruction names."""
    return {name for name, word in _WORD.items() if word.search(text)}


def _is_extract(instruction: str) -> bool:
    """Whether an instruction is that of the module that states facts."""
    return "code" not in instruction and _FACTS.search(instruction) is not None


def _lacking(text: str) -> set[str]:
    """The attributes that a text says are missing."""
    return {name for found in _LACK.findall(text) for name, word in _WORD.items() if word.search(found)}


def _lack(names: Sequence[str]) -> str:
    return " ".join(f"The facts do not say the {NAMES[name]}." for name in names)


def _known(ticket: Ticket) -> int:
    return sum(getattr(ticket, name) is not None for name in ATTRIBUTES)
