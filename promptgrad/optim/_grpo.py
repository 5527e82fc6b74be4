"""GRPO: the weights of the program's local model, trained on the scores of its own runs."""

from collections.abc import Mapping, Sequence
from typing import Any

from promptgrad import run
from promptgrad._habits import refuses
from promptgrad.autograd import LossRow
from promptgrad.data import Example
from promptgrad.errors import BudgetExceeded
from promptgrad.finetune import LORA, agrpo, local_lms
from promptgrad.nn import Module
from promptgrad.optim._groups import Params
from promptgrad.optim._habits import GRPO_HABITS
from promptgrad.optim._weight_search import WeightSearch
from promptgrad.search import Session, check_counts


class GRPO(WeightSearch):
    """Run the program on training examples, several times each, and make what the better runs said likelier.

    `promptgrad.finetune.grpo` in `Trainer.fit`: its runs are counted, journalled and replayed as any, within the
    budget, and the trained program is confirmed on data that it never saw. Where it begins with values that an earlier
    phase found (`optim.BetterTogether`), the weights learn from runs with these. The parameters keep their values; only
    the language model of the program changes. With `run_dir` the run's folder has the checkpoints of the training too:
    a run that was killed makes no run again, and takes no step again but those after the last checkpoint. It works
    only in `Trainer.fit`.

    Where modules run on LoRAs of one base, a copy of each learns, all in the same steps.

    Cost in `Trainer.fit`: `steps * batch_size * n` runs of the program, fewer where the budget or `rollouts` ends
    before; what it takes to measure the trained program is kept back. The updates call no LM.
    Source: Shao et al. 2024, arXiv 2402.03300; Liu et al. 2025, arXiv 2503.20783; for programs of several modules
    Ziems et al. 2025, arXiv 2508.04660 (DSPy's optimizer of this name). Differs: see `promptgrad.finetune.grpo`.

    Args:
        params: The program, or any of its parameters, as none of them is changed.
        n: Runs of each example in a step.
        steps: Steps.
        rollouts: Most runs in all.
        batch_size: Examples in a step.
        temperature: Temperature of the replies, where a module does not set its own.
        clip: How far the probability of a token may move between updates from one step's runs.
        inner: Updates from the runs of one step.
        kl: What a nat of divergence from the model at the start costs, in units of the score.
        scale_rewards: Divide advantages by the standard deviation of their group.
        format_penalty: The score of a run whose reply cannot be read is minus this.
        lora: `r`, `alpha`, `target_modules`; None trains all weights. A name trains the LoRA of that name alone.
        lr: Peak learning rate; the default depends on the model's size.
        micro_batch_tokens: Most tokens in the model at once when it learns, as in `finetune.sft`.
        gradient_checkpointing: Compute activations twice rather than keep them.
        dtype: "bfloat16" samples and learns in it.
        checkpoint_every: Steps between two checkpoints.

    Raises:
        ValueError: A number is out of range.
        TypeError: A count is not a whole number.
    """

    @refuses(GRPO_HABITS)
    def __init__(
        self,
        params: Params | Module,
        n: int = 8,
        steps: int = 60,
        rollouts: int | None = None,
        batch_size: int = 8,
        *,
        temperature: float = 1.0,
        clip: float | tuple[float, float] = 0.2,
        inner: int = 1,
        kl: float = 0.0,
        scale_rewards: bool = False,
        format_penalty: float = 1.0,
        lora: Mapping[str, Any] | str | None = LORA,
        lr: float | None = None,
        micro_batch_tokens: int | None = None,
        gradient_checkpointing: bool = False,
        dtype: Any = None,
        checkpoint_every: int = 10,
    ) -> None:
        counts = {"n": (n, 2), "steps": (steps, 1), "batch_size": (batch_size, 1), "inner": (inner, 1)}
        check_counts(**counts, checkpoint_every=(checkpoint_every, 1))
        super().__init__(params)
        self.n = n
        self.steps = steps
        self.rollouts = rollouts
        self.batch_size = batch_size
        self.temperature = temperature
        self.clip = clip
        self.inner = inner
        self.kl = kl
        self.scale_rewards = scale_rewards
        self.format_penalty = format_penalty
        self.lora = dict(lora) if isinstance(lora, Mapping) else lora
        self.lr = lr
        self.micro_batch_tokens = micro_batch_tokens
        self.gradient_checkpointing = gradient_checkpointing
        self.dtype = dtype
        self.checkpoint_every = checkpoint_every

    async def fit(self, session: Session) -> None:
        """Let the model run and learn, in turn, and offer the program on the trained model.

        Raises:
            BudgetExceeded: The budget does not leave one step.
        """
        program = session.program()
        local_lms(program, self.lora)

        async def runs(policy: Module, examples: Sequence[Example], n: int, step: int) -> Sequence[LossRow]:
            loss = await session.forward(session.base, examples, scope=f"grpo/{step}", n=n, teacher=policy)
            return loss.rows

        a_step = self.n * min(self.batch_size, len(session.train))
        steps = self._count(len(session.train))
        paid = session.runs_left() - len(session.val)
        if paid < steps * a_step:
            steps = int(paid // a_step)
        if steps < 1:
            session.admit(a_step + len(session.val))
            raise BudgetExceeded(f"a step takes {a_step} runs of the program, and the budget leaves {paid:g}")
        result = await agrpo(
            program,
            session.train,
            n=self.n,
            steps=steps,
            batch_size=self.batch_size,
            temperature=self.temperature,
            clip=self.clip,
            inner=self.inner,
            kl=self.kl,
            scale_rewards=self.scale_rewards,
            format_penalty=self.format_penalty,
            lora=self.lora,
            lr=self.lr,
            seed=session.spawn("finetune"),
            progress=session.progress,
            micro_batch_tokens=self.micro_batch_tokens,
            gradient_checkpointing=self.gradient_checkpointing,
            dtype=self.dtype,
            checkpoint=session.folder("finetune"),
            checkpoint_every=self.checkpoint_every,
            runs=runs,
            replayed=True,
        )
        if (here := run.current()) is not None:
            here.catch_up()  # a step in which the replies were no numbers is not tried again
        collected = result.collected
        session.decide("finetuned", lm=result.lm.name, samples=result.samples, steps=len(result.losses))
        await self._offer(
            session, result, f"weights trained on {result.samples} replies of {collected.runs} runs by their scores"
        )

    def _count(self, examples: int) -> int:
        """The steps that a fit on so many examples takes, if the budget pays for them."""
        if self.rollouts is None:
            return self.steps
        return min(self.steps, self.rollouts // (self.n * min(self.batch_size, examples)))

    def expected_calls(self, plan: Any) -> list[tuple[str, float, bool]]:
        """Return the phase: the runs of all steps."""
        runs = self._count(plan.train) * self.n * min(self.batch_size, plan.train)
        return [("rollouts", runs * plan.calls_per_example, False)]
