"""`Rewriter`: evidence in, checked text out, and a reason for every text that is refused."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from promptgrad.autograd import Gradient, Parameter
from promptgrad.data import Example
from promptgrad.errors import NoLMError
from promptgrad.lm import LM, Usage, resolve, resolve_lm, track_usage
from promptgrad.nn import Predict
from promptgrad.search._attempted import attempted
from promptgrad.search._candidate import Candidate, Measured, pairs
from promptgrad.search._edit import edit_ratio
from promptgrad.search._hunks import Hunk
from promptgrad.search._memory import Attempt, Attempts, refused
from promptgrad.search._places import Place, describe, interface, role
from promptgrad.search._proposer import amend, failing_as_lm, is_able, make_proposer, write
from promptgrad.search._row import Row, few, labeled_rows, rows_of
from promptgrad.search._rules import Rules
from promptgrad.search._sight import sight
from promptgrad.search._writing import TIPS, Improve, ImproveSolution, ProposeInstruction

if TYPE_CHECKING:
    from promptgrad.search._session import Session
    from promptgrad.search._steps import Step

MOST_ATTEMPTS = 800
"""Words and marks of the promising attempts that a writer is shown, and of those that are worse; long ones are cut."""

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
        rows: Runs with this text, each with what a critic said of it, if one was asked.
        program: The program, a line for each step.
        interface: What the step is given and must answer, a line for each field.
        attempts: Versions that were tried and may be promising, with their scores, best first.
        worse: Versions that are known to be worse.
        rules: What the new text must satisfy, besides the constraints of the parameter.
        lm: LM that writes, or its name; None for that of the program, or else of the context.
        variant: Number of the proposal, from 0; proposals after the first are sampled.
        tip: A style to follow; empty for none.
    """

    parameter: Parameter
    path: str
    text: str
    role: str
    rows: Sequence[Row]
    program: str = ""
    interface: str = ""
    attempts: Sequence[Mapping[str, Any]] = ()
    worse: Sequence[Mapping[str, Any]] = ()
    rules: Rules = Rules()  # noqa: RUF009 - frozen
    lm: LM | str | None = None
    variant: int = 0
    tip: str = ""

    @property
    def critiques(self) -> list[str]:
        """What critics said of it, each text once."""
        return list(dict.fromkeys(row.critique for row in self.rows if row.critique))


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

    A writer is shown all rows that are known of the text's present values, right ones too, side by side, with what
    critics said of them; no critique is needed. Several variants see the same rows: what keeps them apart is their
    temperature and a tip.

    Cost: one LM call for each proposal, one more for each re-ask of a reply that does not parse.

    Args:
        memory: Earlier attempts: the writer is shown them, and texts that did not gain are refused. Texts that a rule
            refuses are added.
        proposer: Program that writes instructions and descriptions, on the signature `Improve` or `Amend`.
        solver: Program that writes solutions, on the signature `ImproveSolution`.
        rules: What new texts must satisfy, unless a call has rules of its own.
        lm: LM that writes; None for that of the program.
        max_evidence: About how many tokens of rows a writer is shown.
        temperature: Sampling temperature of the second and further proposals; None for that of the LM.
        labeled: Training examples that are shown with their labels where they were not run.
    """

    def __init__(
        self,
        memory: Attempts[Parameter],
        proposer: Predict | None = None,
        solver: Predict | None = None,
        *,
        rules: Rules = Rules(),  # noqa: B008 - frozen
        lm: LM | str | None = None,
        max_evidence: int = 3000,
        temperature: float | None = 1.0,
        labeled: Sequence[Example] = (),
    ) -> None:
        self.memory = memory
        self.proposer = proposer or make_proposer(Improve, None)
        self.solver = solver or make_proposer(ImproveSolution, None)
        self.finder = make_proposer(ProposeInstruction, None)
        self.rules = rules
        self.lm = lm
        self.max_evidence = max_evidence
        self.temperature = temperature
        self.labeled = tuple(labeled)
        self.asked: Counter[tuple[str, ...]] = Counter()

    def numbered(self, candidate: Candidate, texts: Sequence[Evidence], count: int) -> int:
        """How many proposals were made for some texts of a candidate before; so many more are counted."""
        key = (candidate.key, *(each.path for each in texts))
        self.asked[key] += count
        return self.asked[key] - count

    async def __call__(
        self, step: "Step", candidate: Candidate, place: Place, gradient: Gradient | None = None, variants: int = 1
    ) -> list[Edit]:
        """Propose texts for one place of a candidate: those that may be tried, at most `variants`.

        There is none where no run with the present values failed, or all proposals are refused.

        Args:
            step: The step.
            candidate: The candidate to improve.
            place: The place of its text.
            gradient: Critiques of examples that the session has no rows of.
            variants: Number of proposals.

        Raises:
            BudgetExceeded: The calls do not fit what the budget leaves for the search.
            LMError: The LM is down.
        """
        evidence = self.evidence(step.session, candidate, place, gradient)
        if all(row.right or row.unrun for row in evidence.rows):
            return []
        edits = await self.rewrite(step, varied([evidence], variants, self.numbered(candidate, [evidence], variants)))
        return [edit for edit in edits if edit is not None and edit.passed]

    def evidence(
        self, session: "Session", candidate: Candidate, place: Place, gradient: Gradient | None = None
    ) -> Evidence:
        """All that a search knows of one text of a candidate."""
        text, parameter = session.value(place.path, candidate), place.parameter
        rows = session.rows.of(place, candidate)
        known = {row.example for row in rows}
        more = tuple(row for row in rows_of(gradient or Gradient()) if row.example not in known)
        known |= {row.example for row in more}
        more += labeled_rows(place, [example for example in self.labeled if example.id not in known])
        attempts, worse = attempted(session, place, candidate)
        return Evidence(
            parameter,
            place.path,
            text,
            parameter.role or role(place),
            (*rows, *more),
            describe(session.program(candidate)),
            interface(place),
            attempts,
            worse,
            self.rules,
            self.lm,
        )

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
        self.settle(step, list(zip((each.parameter for each in evidence), edits, strict=True)))
        return edits

    def settle(self, step: "Step", edits: "Sequence[tuple[Parameter | None, Edit | None]]") -> None:
        """Journal proposals, remember refused ones, and count their reasons in the session.

        Args:
            step: The step.
            edits: Each proposal with its parameter; None for a proposal without an answer, or for no known parameter.
        """
        session = step.session
        for parameter, edit in edits:
            if edit is None:
                session.refuse(_UNANSWERED)
                continue
            if not edit.passed:
                session.refuse(edit.reason)
                if edit.ratio != 0 and parameter is not None:
                    self.memory.add(parameter, refused(edit.text, edit.reason, edit.hunks))
            session.decide(
                "proposal",
                step=step.number,
                variant=edit.variant,
                path=edit.path,
                text=edit.text,
                refused=edit.reason or None,
            )

    def holds(self, step: "Step", place: Place, edit: Edit, before: Measured, after: Measured) -> bool:
        """True unless the sum of the scores fell on the examples that the edit was tried on; the journal has both sums.

        An edit that lost is remembered with its effect. It may come again: few examples are weak evidence.

        Args:
            step: The step.
            place: Where the edit is.
            edit: The edit.
            before: The candidate without it, on some examples.
            after: The candidate with it, on the same.
        """
        first, second = (sum(scores) for scores in pairs(before, after))
        holds = round(second - first, 9) >= 0
        step.session.decide("tried", step=step.number, path=place.path, before=first, after=second, holds=holds)
        if not holds and edit.text is not None:
            step.session.refuse("it was worse on the examples of its step")
            effect = f"{first:g} in sum became {second:g} on {len(after.known)} examples"
            self.memory.add(place.parameter, Attempt(edit.text, effect, measured=False))
        return holds

    def sampling(self, variant: int) -> dict[str, Any]:
        """How the LM is asked for a proposal: those after the first are sampled."""
        if not variant:
            return {}
        warm = {} if self.temperature is None else {"temperature": self.temperature}
        return {"replicate": variant, **warm}

    async def write(self, evidence: Evidence, own: LM | None = None) -> Edit:
        """Ask for one text and check it.

        Args:
            evidence: All that is known about the text.
            own: LM that writes where the evidence names none; None for that of the context.

        Raises:
            LMError: The LM gave no answer; a refused text is not an error.
        """
        from promptgrad.search._side_by_side import fitted, in_order, side_by_side

        key, old, solution = evidence.parameter, evidence.text, evidence.parameter.kind.exact
        rules = evidence.rules.after(key.constraints)
        attempts, worse = self.memory.shown(key, [*evidence.attempts, *evidence.worse])
        proposer = self.solver if solution else self.proposer
        lm = own if evidence.lm is None else resolve(evidence.lm)
        media = sight(proposer, lm, own)
        inputs = {
            "program": evidence.program,
            "role": evidence.role,
            "interface": evidence.interface,
            "instruction": old,
            "rules": rules.shown(),
            "tip": evidence.tip,
            "attempts": fitted([*evidence.attempts, *attempts], MOST_ATTEMPTS),
            "worse": fitted([*evidence.worse, *worse], MOST_ATTEMPTS),
            "rows": side_by_side(evidence.rows, self.max_evidence, media),
        }
        config = self.sampling(evidence.variant)
        if proposer.signature.name == "Improve" and not evidence.critiques and not is_able(proposer, lm):
            proposer = self.finder  # improves by critiques alone, but finds an instruction from a few rows
            inputs["rows"] = in_order(few(evidence.rows, f"{evidence.variant} of {old}"), self.max_evidence)
        hunks: tuple[Hunk, ...] = ()
        with track_usage() as usage, failing_as_lm():
            if "hunks" in proposer.signature.outputs:
                text, hunks, reason = await amend(proposer, inputs, lm=lm, config=config)
            else:
                text, reason = await write(proposer, inputs, lm=lm, config=config)
        ratio = None
        if text is not None:
            ratio = edit_ratio(old, text)
            reason = rules.refusal(old, text, tried=self.memory.spent(key), verbatim=solution) or ""
        return Edit(evidence.path, old, text, reason, ratio, hunks, usage.total, evidence.variant)


def varied(texts: Sequence[Evidence], count: int, first: int = 0) -> list[Evidence]:
    """The evidence about some texts for each of several proposals, by proposal and then by text.

    All proposals see the same. They are numbered after the earlier ones; all but the very first are sampled and get a
    tip, so that no request is sent twice, also where nothing new is known.

    Args:
        texts: The evidence.
        count: Number of proposals.
        first: Number of earlier proposals, see `Rewriter.numbered`.
    """
    return [
        replace(text, variant=number, tip=TIPS[number % len(TIPS)])
        for number in range(first, first + count)
        for text in texts
    ]


def children(step: "Step", base: Candidate, edits: "Sequence[Edit | None]") -> list[Candidate]:
    """The base with the edits that may be tried, without duplicates and without the incumbent.

    The edits of one proposal are tried together. Those of the first proposal are also tried one at a time, so that a
    harmful text does not ride on a good one.
    """
    passed = [edit for edit in edits if edit is not None and edit.passed]
    numbers = list(dict.fromkeys(edit.variant for edit in passed))
    together = [[edit for edit in passed if edit.variant == number] for number in numbers]
    alone = [[edit] for edit in together[0]] if together and len(together[0]) > 1 else []
    made: list[Candidate] = []
    for own in [*together, *alone]:
        values = {path: text for edit in own for path, text in edit.values.items()}
        what = f"rewrite {own[0].variant}" + (f" of {own[0].path}" if own in alone else "")
        child = base.child(values, f"{step.name}, {what}")
        if all(child.key != other.key for other in (step.session.incumbent, *made)):
            made.append(child)
    return made


def writer_of(gradient: Gradient, proposer: Predict) -> LM | None:
    """The LM that answered a blamed call: it writes where no other LM is set. None where the context has one."""
    try:
        resolve_lm(None, proposer.lm)
    except NoLMError:
        return next((critique.lm for critique in gradient.critiques if critique.lm is not None), None)
    return None
