"""`Rules`: what a new text must satisfy, as its writer reads it and as code checks it."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from promptgrad._numbers import is_number
from promptgrad.autograd import tokens
from promptgrad.search._checks import Constraint, checked_constraints, refusal


@dataclass(frozen=True)
class Rules:
    """What a new text must satisfy.

    Attributes:
        max_edit: Largest share of the old text's tokens that may be removed or replaced; 1 accepts any edit.
        max_tokens: Longest text; None for no bound.
        length_price: Score that 100 tokens of growth must gain.
        constraints: Functions of the text, which are checked, and rules in words, which only the proposer reads.

    Raises:
        ValueError: A number is out of range.
        TypeError: An option is of another type.
    """

    max_edit: float = 1.0
    max_tokens: int | None = 1000
    length_price: float = 0.0
    constraints: tuple[Constraint | str, ...] = ()

    def __post_init__(self) -> None:
        for name, value in (("max_edit", self.max_edit), ("length_price", self.length_price)):
            if not is_number(value):
                raise TypeError(f"{name} is a number, not {value!r}")
        if not 0 < self.max_edit <= 1:
            raise ValueError(f"max_edit is a share of the text in (0, 1], not {self.max_edit}")
        if not 0 <= self.length_price < math.inf:
            raise ValueError(f"length_price is score per 100 tokens, not negative, not {self.length_price}")
        longest = self.max_tokens
        if longest is not None and not (is_number(longest, whole=True) and longest >= 1):
            raise ValueError(f"max_tokens is at least 1, or None for no bound, not {longest!r}")
        object.__setattr__(self, "constraints", checked_constraints(self.constraints))

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> "Rules":
        """The rules among the options of a parameter group."""
        return cls(**{field.name: options[field.name] for field in fields(cls) if field.name in options})

    def after(self, constraints: Iterable[Constraint]) -> "Rules":
        """These rules, after constraints of the parameter's own."""
        return replace(self, constraints=(*constraints, *self.constraints))

    def shown(self) -> list[str]:
        """The rules as a proposer sees them: the bounds, the first line of each function's docstring, and the words."""
        rules = []
        if self.max_edit < 1:
            rules.append(f"keep at least {1 - self.max_edit:.0%} of the words as they stand; you may add to them")
        if self.max_tokens is not None:
            rules.append(f"at most {self.max_tokens} words and punctuation marks")
        if self.length_price:
            price = f"{self.length_price:g}"
            rules.append(f"be short: each 100 words that are added must raise the score by more than {price}")
        for constraint in self.constraints:
            if isinstance(constraint, str):
                rules.append(" ".join(constraint.split()))
            elif lines := (getattr(constraint, "__doc__", None) or "").strip().splitlines():
                rules.append(lines[0])
        return rules

    def refusal(self, old: str, new: Any, *, tried: Iterable[str] = (), verbatim: bool = False) -> str | None:
        """Why `new` may not replace `old`, or None if it may; see `refusal`."""
        return refusal(
            old,
            new,
            max_edit=float(self.max_edit),
            max_tokens=self.max_tokens,
            constraints=self.constraints,
            tried=tried,
            verbatim=verbatim,
        )

    def price(self, old: str, new: str) -> float:
        """The score that a text must gain to be worth its growth; negative where it shrinks.

        >>> Rules(length_price=0.5).price("Answer.", "Answer in one word.")
        0.015
        """
        if not self.length_price:
            return 0.0
        return float(self.length_price) * (len(tokens(new)) - len(tokens(old))) / 100
