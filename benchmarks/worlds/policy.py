"""W2, the house policy: tickets get codes by an ordered list of rules that nobody can guess."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any

from worlds import _advice, _tickets
from worlds._advice import Advice
from worlds._learner import infer
from worlds._noise import digest, gumbel, pick, uniform
from worlds._prompt import Asked, Prompt
from worlds._rows import Shown, find_rows, is_right, told, without_tickets
from worlds._rules import CODES, Condition, Rule, decide, read
from worlds._tickets import Ticket
from worlds._world import World

SLIP = 0.04
"""How often the student overlooks a rule."""
OVERCLAIM = 0.4
"""How often a critic who sees one or two rows states a rule that goes beyond them."""


class PolicyWorld(World):
    """W2: classify tickets by a hidden, ordered rule list of two or three rules and a default.

    The student follows the rules in its instruction, in any order of words; where none applies it takes the code of
    the most similar demo; without demos it guesses. It overlooks a rule in 4 % of the calls, always for the same
    instruction and ticket. Writer and critic conclude exactly what their prompt shows: the shortest rule list that
    fits, whoever laid the rows out.

    Args:
        seed: Draws policy, tickets and noise.
        reasons: Whether the feedback names the property that decides; else it only names the right code.
        **sizes: Numbers of rows, as for `World`.
    """

    name = "W2"
    inputs = ("ticket",)
    outputs = ("code",)
    start = "Classify the ticket."

    def __init__(self, seed: int, *, reasons: bool = False, **sizes: int) -> None:
        super().__init__(seed, **sizes)
        self.reasons = reasons
        self.codes = CODES[: 3 + pick(2, seed, "codes")]
        self.policy = draw_policy(self.rng("policy"), self.codes)
        self._student = lru_cache(maxsize=512)(self._study)

    def row(self, number: int, rng: random.Random) -> dict[str, Any]:
        """Draw a ticket and its code."""
        ticket = _tickets.draw(number, rng)
        return {"ticket": _tickets.write(ticket, rng), "code": decide(self.policy, ticket)}

    def judge(self, row: Any, answer: str) -> tuple[float, str]:
        """1 for the right code, and "right" or "expected P2"."""
        label = row["code"]
        if answer.strip().rstrip(".").upper() == label:
            return 1.0, "right"
        if not self.reasons:
            return 0.0, f"expected {label}"
        ((ticket, _, _),) = _tickets.find(row["ticket"])
        return 0.0, f"expected {label}. {self._reason(ticket)}"

    def _reason(self, ticket: Ticket) -> str:
        return str(next((rule for rule in self.policy if rule.conditions and rule.applies(ticket)), self.policy[-1]))

    # -- the student ----------------------------------------------------------------------------------------------

    def act(self, prompt: Prompt, drawn: Sequence[object]) -> str:
        """Answer by the rules, the demos or a guess."""
        code = self.code_for(prompt.instruction, tuple(prompt.demos), prompt.user, drawn)
        return prompt.reply(partial(self._field, code), code)

    def _field(self, code: str, asked: Asked) -> Any:
        return code if asked.name == self.outputs[-1] else f"By what the ticket says it is {code}."

    def code_for(
        self, instruction: str, demos: tuple[tuple[str, str], ...], text: str, drawn: Sequence[object] = ()
    ) -> str:
        """The student's code for the ticket in a text."""
        found = _tickets.find(text)
        if not found:
            return self.codes[pick(len(self.codes), self.seed, "guess", text, *drawn)]
        ticket = found[-1][0]
        rules, rows, name = self._student(instruction, demos)
        guess = self.codes[pick(len(self.codes), self.seed, "guess", ticket.number, *drawn)]
        if uniform(self.seed, "slip", name, ticket.number, *drawn) < SLIP:
            return guess
        code = decide(rules, ticket)
        if code is None and rows:
            code = min(rows, key=lambda row: _tickets.distance(row.ticket, ticket)).label
        return code or guess

    def _study(self, instruction: str, demos: tuple[tuple[str, str], ...]) -> tuple[tuple[Rule, ...], list[Shown], str]:
        rules = read(without_tickets(instruction))
        shown = [row for row in find_rows(instruction) if row.label]
        shown += [row for ask, answer in demos for row in find_rows(f"{ask}\n{answer}") if row.label]
        return rules, shown, digest(instruction, *demos)

    # -- writer and critic ------------------------------------------------------------------------------------------

    def advise(self, prompt: Prompt, temperature: float, drawn: Sequence[object]) -> str:
        """Conclude what the prompt shows, and say it as it asks."""
        return _advice.write(prompt, self.conclude(prompt, temperature, drawn))

    def conclude(self, prompt: Prompt, temperature: float = 0.0, drawn: Sequence[object] = ()) -> Advice:
        """The rules that a prompt shows, as an instruction and as a critique."""
        key = (self.seed, digest(prompt.system, prompt.user), *drawn)
        rows = find_rows(prompt.user)
        for ask, answer in prompt.demos:
            rows += find_rows(f"{ask}\n{answer}")
        summed = _advice.summed(prompt)
        present = read(without_tickets(_advice.current(prompt))) or summed
        claimed = [*read(without_tickets(_advice.claims(prompt))), *summed]
        scale = 0.05 + 0.8 * temperature

        def noise(rule: object) -> float:
            return scale * gumbel(*key, rule)

        rules = infer(rows, present, claimed, noise)
        wrong = [row for row in rows if row.output is not None and row.output not in row.allowed]
        return Advice(
            self.write_instruction(rules, rows),
            self._critique(prompt, rows, rules, key),
            bool(wrong) or (not rows and not is_right(prompt.user)),
            self._by_run(prompt, key),
        )

    def write_instruction(self, rules: Sequence[Rule], rows: Sequence[Shown] = ()) -> str:
        """An instruction that states the rules."""
        seen = {rule.code for rule in rules} | {row.label for row in rows if row.label}
        codes = ", ".join(code for code in CODES if code in seen)
        head = f"Read the ticket and answer with one of the codes {codes}." if codes else "Read the ticket with care."
        if not rules:
            return head
        lines = [f"{number}. {rule}" for number, rule in enumerate(rules, 1)]
        return "\n".join([f"{head} Apply the first of these rules that fits, in this order.", *lines])

    def _critique(self, prompt: Prompt, rows: Sequence[Shown], rules: Sequence[Rule], key: Sequence[object]) -> str:
        told_of = [*read(_advice.claims(prompt)), *_advice.summed(prompt)]
        if not rows and any(rule.conditions for rule in told_of):  # who sums up what others saw
            return " ".join(map(str, rules))
        if not rows:  # a critic who sees the answer and what it should have been, or the words of others
            allowed, output = told(prompt.user)
            if len(allowed) == 1:
                (code,) = allowed
                return f"The answer {code} is right." if code == output else f"The right answer is {code}."
            if rules:
                return " ".join(map(str, rules))
            return "The answer is right." if is_right(prompt.user) else "It does not say which code is right when."
        if len(rows) > 2:
            return f"These rules fit what is shown, in this order. {' '.join(map(str, rules))}"
        return " ".join(self._of_row(row, key) for row in rows)

    def _of_row(self, row: Shown, key: Sequence[object]) -> str:
        if row.label is None:
            return f"The answer {row.output} is wrong for this ticket."
        if row.output == row.label:
            return f"The answer {row.label} is right for this ticket."
        said = f"The right answer for this ticket is {row.label}."
        if uniform(*key, "overclaim", row.ticket.number) < OVERCLAIM:
            known = _seen(row.ticket)
            said += f" {Rule((known[pick(len(known), *key, 'which')],), row.label)}"
        return said

    def _by_run(self, prompt: Prompt, key: Sequence[object]) -> dict[int, str]:
        found = {}
        for number, text in enumerate(_advice.runs(prompt), 1):
            for row in find_rows(text):
                if row.output not in row.allowed:
                    found[number] = self._of_row(row, key)
        return found


def _seen(ticket: Ticket) -> list[Condition]:
    """The properties that somebody sees in one ticket."""
    found = [Condition(kind, str(getattr(ticket, kind))) for kind in ("product", "channel", "tone", "region")]
    found.append(Condition("people", "several" if (ticket.people or 1) > 1 else "one"))
    found.append(Condition("money", str(max(50, (ticket.money or 0) // 50 * 50))))
    return found


def draw_policy(rng: random.Random, codes: Sequence[str]) -> tuple[Rule, ...]:
    """Draw an ordered rule list in which every rule matters and no code has more than 55 % of the tickets."""
    while True:
        kinds = rng.sample(["product", "people", "money", "channel", "region", "product"], rng.choice((2, 3, 3, 3)))
        rules: list[Rule] = []
        for kind in kinds:
            value = {
                "product": rng.choice(_tickets.PRODUCTS),
                "people": "several",
                "money": str(rng.choice(range(150, 501, 50))),
                "channel": rng.choice(_tickets.CHANNELS),
                "region": rng.choice(_tickets.REGIONS),
            }[kind]
            rules.append(Rule((Condition(kind, value),), rng.choice(codes)))
        policy = (*rules, Rule((), rng.choice(codes)))
        tickets = [_tickets.draw(number, rng) for number in range(300)]
        answers = [decide(policy, ticket) for ticket in tickets]
        counts = Counter(answers)
        if set(counts) != set(codes) or max(counts.values()) > 165 or min(counts.values()) < 24:
            continue
        without = [[rule for rule in policy if rule is not left_out] for left_out in rules]
        changed = [
            sum(decide(rest, ticket) != answer for ticket, answer in zip(tickets, answers, strict=True))
            for rest in without
        ]
        if min(changed) >= 18:
            return policy
