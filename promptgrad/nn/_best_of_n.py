"""`BestOfN`: several attempts, of which the best is returned."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from promptgrad import aio
from promptgrad._habits import refuses
from promptgrad.autograd import no_grad
from promptgrad.data import Example, Score
from promptgrad.errors import MetricError
from promptgrad.nn._attempt import OneAttempt, alike, attempt, attempts, check_attempts, keep
from promptgrad.nn._module import Module

Reward = Callable[[Any, Any], Any]
"""`reward(inputs, output)`: a number, a truth value or a `Score`; plain or `async`. A metric and a `Judge` are ones."""

_NUMBERS = frozenset((float, int, bool, Score))

ATTEMPT_HABITS = {
    "N": "n=...",
    "reward_fn": "reward=...",
    "fail_count": "nothing: an attempt that fails is an attempt, and the next one follows",
    "num_threads": "concurrency=...",
    **dict.fromkeys(("num_samples", "samples", "k"), "n=..."),
    "rollout_id": "nothing: each attempt has a replicate number of its own",
}


class BestOfN(Module, in_place=True):
    """Call a program up to `n` times, and return the output with the highest reward.

    The first output that reaches `threshold` is returned at once. Of equal outputs the earliest counts. An attempt that
    raises is an attempt; if all do, the last error is raised.

    Each attempt has a replicate number of its own, so that no cache answers two of them alike, and all but the first
    are sampled at `temperature`: the first attempt is the plain call. With the same seed and replies the same output is
    chosen at any `concurrency`.

    Critiques of the output go to the calls of the attempt that gave it, and to no other. The reward is computed without
    recording.

    Cost: at most `n` times the module, and what the reward spends; with a threshold and one attempt in flight, as many
    as it takes to reach it.
    Source: Stiennon et al. 2020, arXiv 2009.01325 (best of n by a reward); DSPy's module of this name.

    Args:
        module: The program.
        n: The most attempts.
        reward: `reward(inputs, output)`, which gives a number (the higher, the better), a truth value, or a `Score`.
            `inputs` is an `Example` of the inputs. It may be `async`, a metric that needs no label, or an `nn.Judge`.
        threshold: The reward that is good enough; None to make all attempts.
        temperature: Temperature of all attempts but the first; None for that of the module or its LM.
        concurrency: Attempts in flight; by default 1 with a threshold, so that none is made in vain, else all. Once an
            output is good enough, those in flight are cancelled.

    Raises:
        TypeError: `module` is not a module, `reward` not a function, or a number none.
        ValueError: `n` or `concurrency` is below one.
        MetricError: When called: the reward failed, or is not a number.
        Exception: When called: the error of the last attempt, if all fail.
    """

    @refuses(ATTEMPT_HABITS)
    def __init__(
        self,
        module: Module,
        n: int,
        reward: Reward,
        threshold: float | None = None,
        *,
        temperature: float | None = 1.0,
        concurrency: int | None = None,
    ) -> None:
        super().__init__()
        check_attempts(module, n, concurrency)
        check_reward(reward)
        self.module = module
        self.n = n
        self.reward = reward
        self.threshold = threshold
        self.temperature = temperature
        self.concurrency = concurrency

    async def forward(self, /, *args: Any, **kwargs: Any) -> Any:
        """Make the attempts, and return the best output."""
        inputs = Example(self._named(args) | kwargs)

        first = 0 if self.temperature is None else 1  # whose temperature is another one
        group = alike(self.module, self.n, range(first, self.n)) if self.threshold is None else None

        async def make(number: int) -> OneAttempt:
            warm = self.temperature if number else None
            own = group if number >= first else None
            made = await attempt(self.module, args, kwargs, number, self.n, temperature=warm, group=own)
            await judge(self.reward, inputs, made)
            return made

        limit = self.concurrency or (self.n if self.threshold is None else 1)
        made = await attempts(self.n, make, lambda so_far: reaches(so_far[-1], self.threshold), limit)
        return best(made).output

    def input_names(self) -> tuple[str, ...] | None:
        """Names of the inputs of the module."""
        return self.module.input_names()

    def output_names(self) -> tuple[str, ...] | None:
        """Names of the outputs of the module."""
        return self.module.output_names()

    def extra_repr(self) -> str:
        """How many attempts, and by which reward."""
        return f"n={self.n}, reward={name_of(self.reward)}, threshold={self.threshold}"


def check_reward(reward: Any) -> None:
    """Check that a reward can be called.

    Raises:
        TypeError: It cannot.
    """
    if not callable(reward):
        raise TypeError(f"reward is a function of inputs and output, reward(inputs, output), not {reward!r}")


def name_of(reward: Any) -> str:
    """The name of a function, for display."""
    return getattr(reward, "__qualname__", None) or type(reward).__name__


async def judge(reward: Reward, inputs: Example, made: OneAttempt) -> None:
    """Give an attempt that has an output its score and feedback.

    Raises:
        MetricError: The reward failed, or is not a number.
    """
    if made.error is not None:
        return
    with no_grad():
        try:
            said: Any = reward.acall(inputs, made.output) if isinstance(reward, Module) else reward(inputs, made.output)
            if type(said) not in _NUMBERS and inspect.isawaitable(said):
                said = await aio.awaited(said)
            made.score = _number(said)
        except Exception as error:
            raise MetricError(
                f"the reward {name_of(reward)} failed on attempt {made.number}: {type(error).__name__}: {error}"
            ) from error
    made.feedback = said.feedback if isinstance(said, Score) and said.feedback else ""
    if made.score != made.score:
        raise MetricError(f"the reward {name_of(reward)} of attempt {made.number} is not a number (NaN)")


def _number(said: Any) -> float:
    try:
        return float(said.value if isinstance(said, Score) else said)
    except (TypeError, ValueError):
        shown = repr(said)
        raise TypeError(
            f"it returned {shown if len(shown) <= 60 else shown[:57] + '...'}, and a reward is a number, a truth value "
            "or a pg.Score" + (": is a `return` missing?" if said is None else "")
        ) from None


def reaches(made: OneAttempt, threshold: float | None) -> bool:
    """Whether an attempt is good enough."""
    return made.error is None and threshold is not None and made.score >= threshold


def best(made: Sequence[OneAttempt]) -> OneAttempt:
    """The best attempt; the calls of all others are noted as unused.

    Raises:
        Exception: All attempts failed: the error of the last one.
    """
    good = [one for one in made if one.error is None]
    if not good:
        error = made[-1].error
        keep(made[-1:], made[:-1])
        if error is None:
            raise RuntimeError("no attempt was made")
        raise error
    chosen = max(good, key=lambda one: (one.score, -one.number))
    keep([chosen], [one for one in made if one is not chosen])
    return chosen
