"""`Rewriter`: evidence in, checked text out, and a reason for every text that is refused."""

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from promptgrad import aio
from promptgrad.autograd import Gradient, Parameter, to_json
from promptgrad.errors import LMError, NoLMError, PromptgradError
from promptgrad.lm import LM, Usage, resolve, resolve_lm, track_usage
from promptgrad.nn import Predict
from promptgrad.search._candidate import Candidate, Measured, pairs
from promptgrad.search._edit import edit_ratio
from promptgrad.search._hunks import Hunk
from promptgrad.search._hypotheses import hypotheses, weigh
from promptgrad.search._memory import Attempt, Attempts, refused
from promptgrad.search._places import Place, role
from promptgrad.search._proposer import Improve, ImproveSolution, amend, make_proposer, write
from promptgrad.search._rules import Rules

if TYPE_CHECKING:
    from promptgrad.search._steps import Step

_UNANSWERED = "the language model gave no answer"
"""Reason of a proposal for which the language model gave no answer."""


@dataclass(frozen=True)
class Evidence:
    """All that a rewriter is given about one text.

    Attributes:
        parameter: The parameter, the key of its attempts in the memory.
        path: Its path.
        text: The text as it is.
        role: What it is for.
        critiques: What is wrong with it, the weightiest first.
        gradient: The gradient with these critiques and the calls that they are about.
        rules: What the new text must satisfy, besides the constraints of the parameter.
        lm: LM that writes, or its name; None for that of the program, or else of the context.
        variant: Number of the proposal, from 0; proposals after the first are sampled.
    """

    parameter: Parameter
    path: str
    text: str
    role: str
    critiques: Sequence[str]
    gradient: Gradient
    rules: Rules = Rules()  # noqa: RUF009 - frozen
    lm: LM | str | None = None
    variant: int = 0


@dataclass(frozen=True)
class Edit:
    """One proposal for one text.

    Attributes:
        path: Path of the parameter.
        old: The text as it was.
        text: The proposed text; None if the reply has none.
        reason: Why it is refused; empty where it may be tried.
        ratio: Edit distance as a share of the longer text.
        hunks: The structured edits that make it, where the proposer writes hunks.
        usage: LM calls, tokens and money spent on writing it.
        variant: Number of the proposal, from 0.
    """

    path: str
    old: str
    text: str | None
    reason: str = ""
    ratio: float | None = None
    hunks: tuple[Hunk, ...] = ()
    usage: Usage = Usage()  # noqa: RUF009 - frozen
    variant: int = 0

    @property
    def passed(self) -> bool:
        """Whether it may be tried."""
        return self.text is not None and not self.reason

    @property
    def values(self) -> dict[str, str]:
        """The values for a candidate: the text by path; empty where it may not be tried."""
        return {} if self.text is None or self.reason else {self.path: self.text}


class Rewriter:
    """Writes new texts, and checks them in code before anybody pays for trying them.

    Cost: one LM call for each proposal, one more for each re-ask of a reply that does not parse.

    Args:
        memory: Earlier attempts: the proposer is shown them, and texts that did not gain are refused. Texts that a rule
            refuses are added.
        proposer: Program that writes instructions and descriptions, on the signature `Improve` or `Amend`.
        solver: Program that writes solutions, on the signature `ImproveSolution`.
        rules: What new texts must satisfy, unless a call has rules of its own.
        lm: LM that writes; None for that of the program.
        max_critiques: Most critiques shown.
        max_failures: Most failed calls shown besides.
        temperature: Sampling temperature of the second and further proposals; None for that of the LM.
    """

    def __init__(
        self,
        memory: Attempts[Parameter],
        proposer: Predict | None = None,
        solver: Predict | None = None,
        *,
        rules: Rules = Rules(),  # noqa: B008 - frozen
        lm: LM | str | None = None,
        max_critiques: int = 6,
        max_failures: int = 3,
        temperature: float | None = 1.0,
    ) -> None:
        self.memory = memory
        self.proposer = proposer or make_proposer(Improve, None)
        self.solver = solver or make_proposer(ImproveSolution, None)
        self.rules = rules
        self.lm = lm
        self.max_critiques = max_critiques
        self.max_failures = max_failures
        self.temperature = temperature

    async def __call__(self, step: "Step", candidate: Candidate, place: Place, gradient: Gradient) -> Edit | None:
        """Propose a text for one place of a candidate; None where there is no critique, or the proposal is refused.

        Raises:
            BudgetExceeded: The call does not fit what the budget leaves for the search.
            LMError: The LM is down.
        """
        weights = weigh(gradient)
        critiques = sorted(weights, key=lambda text: -weights[text])[: self.max_critiques]
        if not critiques:
            return None
        text, parameter = step.session.value(place.path, candidate), place.parameter
        about = parameter.role or role(place)
        evidence = Evidence(parameter, place.path, text, about, critiques, gradient, self.rules, self.lm)
        (edit,) = await self.rewrite(step, [evidence])
        return edit if edit is not None and edit.passed else None

    async def rewrite(self, step: "Step", evidence: Sequence[Evidence]) -> "list[Edit | None]":
        """Propose texts side by side, in a step of a search; None where the language model gave no answer.

        Each proposal is journalled with its text and the reason why it was refused; refused ones go into the memory,
        and the session counts their reasons.

        Raises:
            BudgetExceeded: The calls do not fit what the budget leaves for the search.
            LMError: The LM is down.
        """
        session = step.session
        session.admit(calls=len(evidence))
        own = session.program_lm()
        with session.scope(step.scope("propose")):
            edits = await session.ask_all(
                [step.scope(f"{each.variant}/{each.path}") for each in evidence],
                [partial(self.write, each, own) for each in evidence],
            )
        for each, edit in zip(evidence, edits, strict=True):
            if edit is None:
                session.refuse(_UNANSWERED)
                continue
            if not edit.passed:
                session.refuse(edit.reason)
                if edit.ratio != 0:
                    self.memory.add(each.parameter, refused(edit.text, edit.reason, edit.hunks))
            session.decide(
                "proposal",
                step=step.number,
                variant=edit.variant,
                path=edit.path,
                text=edit.text,
                refused=edit.reason or None,
            )
        return edits

    def is_better(self, step: "Step", place: Place, edit: Edit, before: Measured, after: Measured) -> bool:
        """True if the sum of the scores grew on the examples that the edit was tried on; the journal has both sums.

        An edit that did not gain is remembered with its effect. It may come again: few examples are weak evidence.

        Args:
            step: The step.
            place: Where the edit is.
            edit: The edit.
            before: The candidate without it, on some examples.
            after: The candidate with it, on the same.
        """
        first, second = (sum(scores) for scores in pairs(before, after))
        better = round(second - first, 9) > 0
        step.session.decide("tried", step=step.number, path=place.path, before=first, after=second, better=better)
        if not better and edit.text is not None:
            step.session.refuse("it was no better on the examples of its step")
            effect = f"{first:g} in sum became {second:g} on {len(after.known)} examples"
            self.memory.add(place.parameter, Attempt(edit.text, effect, measured=False))
        return better

    async def write(self, evidence: Evidence, own: LM | None = None) -> Edit:
        """Ask for one text and check it.

        Args:
            evidence: All that is known about the text.
            own: LM that writes where the evidence names none; None for that of the context.

        Raises:
            LMError: The LM gave no answer; a refused text is not an error.
        """
        key, old, solution = evidence.parameter, evidence.text, evidence.parameter.kind.exact
        rules = evidence.rules.after(key.constraints)
        inputs = {
            "role": evidence.role,
            "instruction": old,
            "critiques": list(evidence.critiques),
            "failures": _failures(evidence.gradient, evidence.critiques, self.max_failures),
            "rules": rules.shown(),
            "rejected": self.memory.shown(key),
        }
        config: dict[str, Any] = {}
        if evidence.variant:
            config["replicate"] = evidence.variant
            if self.temperature is not None:
                config["temperature"] = self.temperature
        proposer = self.solver if solution else self.proposer
        lm = own if evidence.lm is None else resolve(evidence.lm)
        hunks: tuple[Hunk, ...] = ()
        with track_usage() as usage, _failing_as_lm():
            if "hunks" in proposer.signature.outputs:
                text, hunks, reason = await amend(proposer, inputs, lm=lm, config=config)
            else:
                text, reason = await write(proposer, inputs, lm=lm, config=config)
        ratio = None
        if text is not None:
            ratio = edit_ratio(old, text)
            reason = rules.refusal(old, text, tried=self.memory.spent(key), verbatim=solution) or ""
        return Edit(evidence.path, old, text, reason, ratio, hunks, usage.total, evidence.variant)


def variants(
    texts: Sequence[Evidence], weights: Sequence[Mapping[str, float]], count: int, most: int, rng: random.Random
) -> list[Evidence]:
    """The evidence about some texts that each of several proposals is shown, by proposal and then by text.

    Args:
        texts: The evidence, without critiques.
        weights: The weights of the critiques of each text.
        count: Number of proposals.
        most: Most critiques of a text that one proposal is shown.
        rng: Draws them.
    """
    shown = [hypotheses(known, count, most, rng) for known in weights]
    return [
        replace(text, critiques=critiques[variant], variant=variant)
        for variant in range(count)
        for text, critiques in zip(texts, shown, strict=True)
    ]


def children(step: "Step", base: Candidate, edits: "Sequence[Edit | None]") -> list[Candidate]:
    """The base with the edits of each proposal that may be tried, without duplicates and without the incumbent."""
    made: list[Candidate] = []
    for variant in dict.fromkeys(edit.variant for edit in edits if edit is not None):
        own = [edit.values for edit in edits if edit is not None and edit.variant == variant]
        values = {path: text for texts in own for path, text in texts.items()}
        child = base.child(values, f"{step.name}, rewrite {variant}")
        if values and all(child.key != other.key for other in (step.session.incumbent, *made)):
            made.append(child)
    return made


def _failures(gradient: Gradient, critiques: Sequence[str], most: int) -> list[dict[str, Any]]:
    """A few of the calls that the critiques are about, each with its inputs, outputs and feedback, in JSON types."""
    about = [c for c in gradient.critiques if str.__str__(c.text).strip() in critiques and c.evidence]
    return [{name: to_json(value) for name, value in critique.evidence.items()} for critique in about[:most]]


def writer_of(gradient: Gradient, proposer: Predict) -> LM | None:
    """The LM that answered a blamed call: it writes where no other LM is set. None where the context has one."""
    try:
        resolve_lm(None, proposer.lm)
    except NoLMError:
        return next((critique.lm for critique in gradient.critiques if critique.lm is not None), None)
    return None


@contextmanager
def _failing_as_lm() -> Iterator[None]:
    """Raise `LMError` for any error of a language model's own, such as that of a function used as one."""
    try:
        yield
    except (PromptgradError, ImportError):
        raise
    except BaseException as error:
        if not aio.is_failure(error):
            raise
        raise LMError(f"{type(error).__name__}: {error}") from error
