"""N1 and N2: worlds in which nothing helps. An optimizer that ships something here was fooled by noise."""

from __future__ import annotations

import math
from typing import Any

from worlds._noise import digest, pick, uniform
from worlds.policy import PolicyWorld


class FlatWorld(PolicyWorld):
    """N1: tickets as in W2, but no prompt is better or worse than another; each is right in about 60 % of them.

    Which tickets are right depends on the ticket and, as much, on the prompt: two prompts differ on any few rows.

    Args:
        seed: Draws everything.
        **options: As for `PolicyWorld`.
    """

    name = "N1"

    def code_for(self, instruction: str, demos: tuple[tuple[str, str], ...], text: str, drawn: Any = ()) -> str:
        """Right or wrong, by noise."""
        found = self._find(text)
        if found is None:
            return self.codes[0]
        label, number = found
        prompt = digest(instruction, *demos)
        u, v = uniform(self.seed, "ticket", number), uniform(self.seed, "prompt", prompt, number, *drawn)
        logit = math.log(u / (1 - u)) + math.log(v / (1 - v))
        if logit + self.ability(instruction, demos) > 0:
            return label
        return [code for code in self.codes if code != label][pick(len(self.codes) - 1, self.seed, "wrong", number)]

    def ability(self, instruction: str, demos: tuple[tuple[str, str], ...]) -> float:
        """What a prompt is worth, in logits: always the same here."""
        return 0.75

    def _find(self, text: str) -> tuple[str, int] | None:
        from worlds._rules import decide
        from worlds._tickets import find

        found = find(text)
        if not found:
            return None
        ticket = found[-1][0]
        return decide(self.policy, ticket) or self.codes[0], ticket.number


class DownhillWorld(FlatWorld):
    """N2: as N1, but every prompt other than the start is worse, by 4 to 25 points.

    Args:
        seed: Draws everything.
        **options: As for `PolicyWorld`.
    """

    name = "N2"

    def ability(self, instruction: str, demos: tuple[tuple[str, str], ...]) -> float:
        """What a prompt is worth, in logits: less than the start."""
        if instruction.strip() == self.start and not demos:
            return 1.25
        return 1.25 - 0.35 - 1.4 * uniform(self.seed, "worse", digest(instruction, *demos))
