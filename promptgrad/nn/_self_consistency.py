"""`SelfConsistency`: the answer that most of several attempts agree on, with their share as confidence."""

import difflib
from collections.abc import Callable, Sequence
from typing import Any

from promptgrad._habits import refuses
from promptgrad.errors import SignatureError
from promptgrad.nn._attempt import OneAttempt, alike, attempt, attempts, check_attempts, keep
from promptgrad.nn._best_of_n import ATTEMPT_HABITS
from promptgrad.nn._credited import credited
from promptgrad.nn._ensemble import normalized, vote
from promptgrad.nn._module import Module
from promptgrad.nn._prediction import Prediction


class SelfConsistency(Module, in_place=True):
    """Call a program `n` times, and return the most frequent answer, with its share of the attempts as `confidence`.

    Texts count as one answer if they differ in case and white space only (`normalize`), other values if they are equal;
    of equally frequent answers the earliest counts. An attempt that fails votes for nothing, and counts in the share.

    Each attempt has a replicate number of its own, so that no cache answers two of them alike. Critiques of the output
    go to the attempts whose answer it is, and to no other.

    Shape: a `Prediction` with `confidence` (from 0 to 1) before the fields of the first attempt with the answer. If the
    module returns something else, that value alone.
    Cost: `n` times the module, side by side. With `concurrency`, no attempt begins once the others cannot change the
    answer, and those in flight are then cancelled: at least n/2 attempts.
    Source: Wang et al. 2022, arXiv 2203.11171; stopping early: Aggarwal et al. 2023, arXiv 2305.11860 (there by a
    probability, here only when the vote is decided).

    Args:
        module: The program.
        n: The attempts.
        field: Of outputs with several fields the one that is the answer; the last by default.
        normalize: Maps texts that count as one answer to the same text.
        temperature: Temperature of all attempts; None for that of the module or its LM.
        concurrency: Attempts in flight; None for all, and then all are made.

    Raises:
        TypeError: `module` is not a module, or a number none.
        ValueError: `n` or `concurrency` is below one.
        SignatureError: The outputs of the module are known, and none is called `field`.
        KeyError: When called: the outputs were not known before, and the first attempt has no such field.
        Exception: When called: the error of the last attempt, if all fail.
    """

    @refuses(ATTEMPT_HABITS)
    def __init__(
        self,
        module: Module,
        n: int = 5,
        *,
        field: str | None = None,
        normalize: Callable[[str], str] = normalized,
        temperature: float | None = 0.7,
        concurrency: int | None = None,
    ) -> None:
        super().__init__()
        check_attempts(module, n, concurrency)
        check_field(module, field)
        self.module = module
        self.n = n
        self.field = field
        self.normalize = normalize
        self.temperature = temperature
        self.concurrency = concurrency

    async def forward(self, /, *args: Any, **kwargs: Any) -> Any:
        """Make the attempts, and return the answer of most."""
        check_field(self.module, self.field)

        group = alike(self.module, self.n, range(self.n)) if self.concurrency is None else None

        async def make(number: int) -> OneAttempt:
            how: dict[str, Any] = {"temperature": self.temperature, "group": group}
            made = await attempt(self.module, args, kwargs, number, self.n, **how)
            if made.error is None and self.field is not None:
                vote(made.output, self.field)  # an output without the field ends the other attempts
            return made

        made = await attempts(self.n, make, self._decided, self.concurrency)
        good = [one for one in made if one.error is None]
        if not good:
            keep(made[-1:], made[:-1])
            raise made[-1].error or RuntimeError("no attempt was made")
        keep(good, [one for one in made if one.error is not None])
        votes = self._votes(good)
        counts = [votes.count(each) for each in votes]
        first = counts.index(max(counts))
        outputs = [one.output for one in good]
        mine = [each == votes[first] for each in votes]
        chosen = outputs[first]
        more = {}
        if isinstance(chosen, Prediction) and "confidence" not in chosen:
            more["confidence"] = counts[first] / len(made)
        return credited(chosen, outputs, mine, **more)

    def _votes(self, good: Sequence[OneAttempt]) -> list[Any]:
        return [vote(one.output, self.field, self.normalize) for one in good]

    def _decided(self, made: Sequence[OneAttempt]) -> bool:
        """Whether the attempts that are left cannot change the answer."""
        left = self.n - len(made)
        if self.concurrency is None or not left:
            return False
        votes = self._votes([one for one in made if one.error is None])
        counts: list[tuple[Any, int]] = []
        for number, each in enumerate(votes):
            if each not in votes[:number]:
                counts.append((each, votes.count(each)))
        ordered = sorted((count for _, count in counts), reverse=True)
        return bool(ordered) and ordered[0] > (ordered[1] if len(ordered) > 1 else 0) + left

    def input_names(self) -> tuple[str, ...] | None:
        """Names of the inputs of the module."""
        return self.module.input_names()

    def output_names(self) -> tuple[str, ...] | None:
        """`confidence`, and the names of the outputs of the module."""
        names = self.module.output_names()
        return names if names is None or "confidence" in names else ("confidence", *names)

    def extra_repr(self) -> str:
        """How many attempts vote."""
        return f"n={self.n}" + ("" if self.field is None else f", field={self.field!r}")


def check_field(module: Module, field: str | None) -> None:
    """Look whether a module whose outputs are known has this one.

    Raises:
        SignatureError: It has not.
    """
    names = None if field is None else module.output_names()
    if names is not None and field not in names:
        near = difflib.get_close_matches(str(field), names, 1)
        raise SignatureError(
            f"field={field!r} is no output of {type(module).__name__}: its outputs are {', '.join(names)}"
            + (f" (did you mean {near[0]!r}?)" if near else "")
        )
