"""TGD: textual gradient descent, rewriting parameters as their critiques ask."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from promptgrad import aio
from promptgrad._habits import refuses
from promptgrad.autograd import Gradient, Loss, Parameter
from promptgrad.lm import LM
from promptgrad.optim._groups import Params
from promptgrad.optim._habits import TGD_HABITS
from promptgrad.optim._optimizer import Optimizer
from promptgrad.optim._report import Change
from promptgrad.optim._written import written
from promptgrad.search import (
    Attempts,
    Constraint,
    Evidence,
    Rewriter,
    Rules,
    check_amends,
    check_attempts,
    check_counts,
    check_writer,
    checked_constraints,
    make_writers,
    right_rows,
    rows_of,
    unblamed,
    varied,
)

if TYPE_CHECKING:
    from promptgrad.search import Session


class TGD(Optimizer):
    """Rewrite each text by what its runs show.

    `loss.backward()` leaves critiques in `.grad`, or the metric's feedback where no blame has to be divided. `step()`
    shows the writing LM the full text, the failed calls side by side and the right ones nearest to them (from the
    traces of the demos of the same module, if this optimizer was given them), and what was tried before, and checks the
    rewrite in code: it keeps the placeholders, is not empty, was not measured without a gain before, has at most
    `max_tokens`, removes or replaces at most `max_edit` of the tokens and holds all constraints. A rewrite that fails
    is rejected with its reason, and no parameter without a gradient is touched.

    `step()` alone makes one proposal and installs what passes the checks, without a gate. `step(closure)` makes
    `proposals` of them, or as many as could be shown to be better on the closure's batch, each for all parameters
    together; all see the same rows, and those after the first are sampled and get a tip. Each is measured on that
    batch, and the best is kept if its paired gain, less the price of its length, lies above zero beyond doubt. As the
    best of several looks better than it is, the allowed probability of error is divided by the number of proposals
    measured (Bonferroni).

    In `Trainer.fit` the first step runs up to 24 training examples and each further one a batch of those that were not
    run with the present values; the writer sees every run with these values (`session.rows`), right ones too, and the
    scored attempts. Where several texts may be to blame, it sees the runs from beginning to end and says which (see
    `blame`). The rewrites are compared with the present values on validation examples; of several texts, those of the
    first proposal are also tried one at a time; the hopeless are dropped after each block. A critic or writer may
    mistake a precise but wrong text for right, or have nothing to add to it. So where examples fail and no text is
    blamed, or the writer brings nothing new, the next step rewrites the values before the last gain; the results must
    still beat the best. A rewrite that is more likely better than not becomes the best: a search may err on its way,
    and whether anything is better than the start is decided at its end, on all that was measured.

    With a budget of calls and no number of steps it goes on until the budget ends, all validation examples are right,
    or nothing new comes. With one text and more than 250 runs left, the first proposals are tried on five training
    examples that the start fails, and up to eight times as many are written until one is right on these
    (`search.sift`). Each later step also tries up to two texts that nobody wrote: without sentences that seem to harm,
    and with such of other texts that seem to help, by all runs of all texts that held them (`search.recombined`). And
    where validation examples leave open whether a rewrite is better, training examples are asked too, if the budget
    pays for it (`search.untie`).

    With `edits="hunks"` the LM writes insertions, replacements and deletions at quoted anchors instead of the whole
    text, see `apply_hunks`: fewer tokens for long texts, and nothing else can change. Hunks that do not apply exactly
    are rejected. The embedded model cannot write them.

    With `proposals="tokens"`, in `Trainer.fit`, each step also tries texts that no LM wrote, beside the usual
    proposals and through the same checks and gate: one to three words are replaced along the gradient of the local
    model's own loss, each by the word that makes the labels likeliest, see `search.swapped`. It takes a program on an
    `lm.Local` and labels for the outputs of a module.

    Shape: `.grad` holds one critique per failed example and call of the module, in batch order.
    Cost: one LM call a proposal for each parameter with a gradient (one more for each re-ask of a reply that does not
    parse), none for the others; a gate runs its closure once for each different proposal and once for the start.
    Source: Yuksekgonul et al. 2024, arXiv 2406.07496. Differs: the writer sees the runs themselves, right ones too,
    with critiques beside them, and in a search it may find what is to blame by itself; a failed rewrite keeps the old
    text; steps are gated. Finding and rewriting in one call: after OptoPrime, Cheng et al. 2024, arXiv 2406.16218.
    Going back to earlier values: after TSGD-M, arXiv 2506.00400, which draws them by their scores at each step.

    Args:
        params: Parameters; texts (instructions, solutions, and descriptions that require a gradient) are trained.
        lm: LM that writes, and that criticises where no critic is named (`Parameter.critic`); None for that of the
            context or of `configure`, else the one that answered the blamed call; inside a trainer that of the program.
        blame: Who finds the texts that are to blame in `Trainer.fit`, where several are trained. "writer": in one reply
            the LM sees whole runs and gives the new texts of those that it blames (`Revise`; the LM of the first group
            of parameters). "critic": a critic divides the blame, and each blamed text is rewritten on its own. None for
            the writer, unless the run has a critic of its own (`Trainer(critic=...)`) or `edits="hunks"`. Solutions,
            and LMs that know only their own tasks, always have a critic. `step()` alone uses the gradients there are.
        edits: "rewrite" for whole new texts, "hunks" for structured edits. Solutions are always rewritten.
        max_edit: Largest share of the old text's tokens that may be removed or replaced; additions are free, and 1
            accepts any edit. Schedulers such as `StepEdit` and `TrustRegionEdit` move it.
        length_price: Score that a gate charges per 100 tokens of growth and gives back where a text shrinks, so that a
            shorter text may win with a lower score. With 0 the shortest of equally good proposals still wins. Neither
            a step without a gate nor the confirmation of the Trainer charges anything.
        constraints: Rules for new texts. Functions return None, or the reason why a text is refused (so do False and
            any exception); code checks them, and the proposer reads the first line of their docstrings. Rules in words,
            such as "Write English.", are only shown to the proposer, and nothing checks them.
        max_evidence: About how many tokens of rows a writer is shown.
        max_tokens: Longest text; None for no bound.
        memory: Number of rejected proposals that are remembered for each parameter. The writer is shown them with
            their effect (the measured gain, or the rule that refused them). A text that was measured alone and did not
            gain (its mean gain, less the price of its length, is not above zero; in `Trainer.fit`, it left a race) is
            not tried again. One that gained, but not beyond doubt, may come again.
        gate: Confidence that a step with a closure is an improvement, in [0.5, 1).
        proposals: Proposals of a gated step, and of each step in `Trainer.fit`; 2 at most there where a budget is for
            fewer than 250 runs of the program. "tokens" for 3 of them, and beside them up to 3 for each text whose
            words are replaced along a gradient, at no LM call.
        temperature: Sampling temperature of the second and further proposals of a step; None for that of the LM.
        steps: Most steps in `Trainer.fit`; None for 8, or for as many as a budget of calls allows.
        batch_size: Training examples a step in `Trainer.fit`.
        patience: Steps in a row without a gain after which `Trainer.fit` ends; None for 4, or for no such end with a
            budget of calls.

    Raises:
        ValueError: `edits`, `blame` or `proposals` is unknown or they do not go together, or a number is out of range.
        InputError: In `Trainer.fit`: `proposals="tokens"`, and there is no gradient at the words of any text.
        TypeError: An option is of another type: a rule that is neither function nor text, an `lm` that is not an LM. Or
            an argument is unknown: for those of TextGrad the message names the replacement.
        SignatureError: `edits="hunks"`, and the LM cannot be asked for them.
    """

    kinds = ("is_text",)

    @refuses(TGD_HABITS)
    def __init__(
        self,
        params: Params,
        lm: LM | str | None = None,
        *,
        blame: Literal["critic", "writer"] | None = None,
        edits: Literal["rewrite", "hunks"] = "rewrite",
        max_edit: float = 1.0,
        length_price: float = 0.0,
        constraints: Sequence[Constraint | str] | Constraint | str = (),
        max_evidence: int = 3000,
        max_tokens: int | None = 1000,
        memory: int = 8,
        gate: float = 0.9,
        proposals: int | Literal["tokens"] = 3,
        temperature: float | None = 1.0,
        steps: int | None = None,
        batch_size: int = 8,
        patience: int | None = None,
    ) -> None:
        self.tokens = proposals == "tokens"
        if isinstance(proposals, str):
            if not self.tokens:
                raise ValueError(f'proposals is a number or "tokens", not {proposals!r}')
            proposals = 3
        check_counts(max_evidence=(max_evidence, 1), memory=(memory, 0))
        check_counts(batch_size=(batch_size, 1), proposals=(proposals, 1))
        check_counts(steps=(1 if steps is None else steps, 1), patience=(1 if patience is None else patience, 1))
        check_writer(lm, temperature)
        if blame not in ("critic", "writer", None):
            raise ValueError(f'blame is "critic", "writer" or None, not {blame!r}')
        if blame == "writer" and edits == "hunks":
            raise ValueError('a writer that finds what is to blame gives whole texts: use edits="rewrite"')
        self.edits, self.blame = edits, blame
        self.proposer, self.solver = make_writers(edits)
        defaults = {
            "lm": lm,
            "max_edit": max_edit,
            "length_price": length_price,
            "constraints": checked_constraints(constraints),
            "max_tokens": max_tokens,
        }
        super().__init__(params, defaults, gate=gate)
        self.max_evidence, self.memory = max_evidence, memory
        self.proposals, self.temperature = proposals, temperature
        self.steps, self.batch_size, self.patience = steps, batch_size, patience

    def add_param_group(self, group: Mapping[str, Any]) -> None:
        """Add parameters with options of their own.

        The options are `lm`, `max_edit`, `length_price`, `constraints` and `max_tokens`.

        Raises:
            ValueError: As `Optimizer.add_param_group`; or an option is out of range.
            TypeError: The group holds something other than parameters; or an option is of another type.
            SignatureError: `edits="hunks"`, and the group's LM cannot be asked for them.
        """
        if "constraints" in group:
            group = {**group, "constraints": checked_constraints(group["constraints"])}
        options = {**self.defaults, **group}
        self._check_options(options)
        if self.edits == "hunks":
            check_amends(self.proposer, options["lm"])
        super().add_param_group(group)
        for parameter, chosen in self.trained():
            parameter.critic = chosen["lm"]

    def _check_options(self, options: Mapping[str, Any]) -> None:
        Rules.of(options)
        check_writer(options["lm"])

    def _check_state(self, entry: Mapping[str, Any]) -> None:
        check_attempts(entry)

    def _shown(self) -> str:
        hunks = self.edits == "hunks" and any(p.kind.exact for p, _ in self.trained())
        edits = f"edits={self.edits!r}{' (solutions are rewritten)' if hunks else ''}"
        proposals = "'tokens'" if self.tokens else self.proposals
        return f"{edits}, proposals={proposals}, memory={self.memory}, gate={self.gate:g}"

    @property
    def _memory(self) -> Attempts[Parameter]:
        return Attempts(self.state, self.memory)

    @property
    def _rewriter(self) -> Rewriter:
        return Rewriter(
            self._memory, self.proposer, self.solver, max_evidence=self.max_evidence, temperature=self.temperature
        )

    def _price(self, changes: Iterable[tuple[Parameter, Change]]) -> float:
        rules = {parameter: Rules.of(group) for parameter, group in self.trained()}
        return sum(rules[p].price(change.old, change.new) for p, change in changes if change.status == "proposed")

    def _least_price(self) -> float:
        return sum(Rules.of(group).price(parameter.data, "") for parameter, group in self.trained())

    # -- one step -----------------------------------------------------------------------------------------------

    def _variants(self) -> int:
        return self.proposals

    async def _propose_variants(self, count: int) -> list[list[tuple[Parameter, Change]]]:
        if self.tokens:
            raise ValueError(
                "proposals='tokens' needs the program and its labels, which Trainer(model, optimizer, ...).fit has and "
                "a step does not: leave it out, or try promptgrad.autograd.token_swaps(loss, parameter) yourself"
            )
        names, seen, rewriter = self.names(blamed=True), self._is_backward_seen(), self._rewriter
        traces = [trace for parameter in self.parameters() if parameter.grad for trace in parameter.grad.traces]
        texts = []
        for p, group in self.trained():
            gradient = Gradient() if p.grad is None else p.grad
            rows = rows_of(gradient)
            if rows and not p.kind.exact:
                rows += right_rows(gradient, traces)
            texts.append(Evidence(p, names[p], p.data, p.role or names[p], rows, rules=Rules.of(group), lm=group["lm"]))
        asked = varied(texts, count)
        changes = await aio.gather([partial(written, rewriter, evidence, "TGD", seen=seen) for evidence in asked])
        made: list[list[tuple[Parameter, Change]]] = [[] for _ in range(count)]
        for evidence, change in zip(asked, changes, strict=True):
            made[evidence.variant].append((evidence.parameter, change))
        return [pairs for pairs in made if any(change.status != "untouched" for _, change in pairs)] or made[:1]

    def _remember(self, parameter: Parameter, change: Change, *, alone: bool = True) -> None:
        from promptgrad.optim._fate import attempt_of

        if change.status == "accepted":
            self._memory.forget(parameter, change.new)
        self._memory.add(parameter, attempt_of(change, alone=alone))

    def _notes(self, loss: Loss | None) -> list[str]:
        if loss is None or any(p.grad is not None and p.grad.critiques for p, _ in self.trained()):
            return []
        return unblamed(loss, seen=self._is_backward_seen())

    # -- the managed search -------------------------------------------------------------------------------------

    async def fit(self, session: Session) -> None:
        """Take steps over batches until the steps, the patience or the budget end, or nothing is left to win."""
        from promptgrad.optim._descent import Descent

        self.state.clear()
        await Descent(self, session).run()

    def expected_calls(self, plan: Any) -> list[tuple[str, float, bool]]:
        """Return the phases, each at most: forward, backward, proposals, races."""
        from promptgrad.optim._descent import expected_calls

        return expected_calls(self, plan)
