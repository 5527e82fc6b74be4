"""`MultiChainComparison`: several chains of thought, and one call that compares them."""

from collections.abc import Mapping, Sequence
from typing import Any

from promptgrad.errors import InputError, SignatureError
from promptgrad.nn._attempt import OneAttempt, alike, attempt, attempts, keep
from promptgrad.nn._chain_of_thought import ChainOfThought
from promptgrad.nn._module import Module
from promptgrad.nn._predict import Predict
from promptgrad.nn._prediction import Prediction
from promptgrad.signature import Field, Signature, make_signature

_THOUGHT = ("reasoning", "rationale")


class MultiChainComparison(Module, in_place=True):
    """Make `M` attempts with a chain of thought, show them all to one more call, and return its answer.

    As in DSPy, attempts that are already there are passed on: `compare(completions, question=...)`; they are mappings
    or `Prediction`s with `reasoning` and the outputs. Without them the module makes its own, by `.attempt`, side by
    side and each with a replicate number of its own. An attempt that fails is shown as such; if all fail, the last
    error is raised.

    Critiques of the answer go to the comparison, which may pass them on to the attempts that it was shown.

    Shape: a `Prediction` with `reasoning` before the outputs of the signature.
    Cost: `M` + 1 LM calls; with completions 1.
    Source: Yoran et al. 2023, arXiv 2304.13007; DSPy's module of this name, which is given its completions.

    Args:
        signature: Inputs and outputs, as for `Predict`.
        M: Number of attempts.
        temperature: Temperature of the attempts; None for that of their LM.
        **options: Arguments of both calls, as for `Predict`, such as `adapter` and `max_tokens`.

    Raises:
        SignatureError: The signature has no output.
        ValueError: `M` is below 2.
        InputError: When called: there are not `M` completions.
    """

    def __init__(
        self,
        signature: str | Signature | type[Signature],
        M: int = 3,
        *,
        temperature: float | None = 0.7,
        **options: Any,
    ) -> None:
        super().__init__()
        if isinstance(M, bool) or not isinstance(M, int):
            raise TypeError(f"M is a whole number of attempts, not {M!r}")
        if M < 2:
            raise ValueError(f"M is at least 2, not {M}: a single attempt has nothing to be compared with")
        own = make_signature(signature, options.pop("instruction", None), options.pop("types", None))
        if not own.outputs:
            raise SignatureError("the signature of a MultiChainComparison has an output, which is compared")
        self.M = M
        self.temperature = temperature
        self.attempt = ChainOfThought(own, **options)
        shown = [Field(f"attempt_{number}", str, f"attempt {number} at the task", "input") for number in _numbers(M)]
        best = Field("reasoning", str, "what the attempts get right and wrong, and what follows", "output")
        outputs = [field for name, field in own.outputs.items() if name != "reasoning"]
        self.compare = Predict(
            Signature([*own.inputs.values(), *shown, best, *outputs], own.instruction, name=own.name), **options
        )

    async def forward(self, completions: Sequence[Any] | None = None, /, **inputs: Any) -> Prediction:
        """Make the attempts, unless they are given, and compare them.

        Raises:
            InputError: The attempts are not a list, or are not `M`.
        """
        if completions is None:
            given = await self._attempts(inputs)
        elif isinstance(completions, (str, Mapping, Prediction)) or not isinstance(completions, Sequence):
            raise InputError(
                f"completions are a list of {self.M} attempts, each a mapping with reasoning and outputs, not "
                f"{type(completions).__name__}: pass the inputs by name, compare(completions, question=...)"
            )
        else:
            given = list(completions)
        if len(given) != self.M:
            raise InputError(f"this MultiChainComparison compares M={self.M} attempts, and was given {len(given)}")
        shown = {f"attempt_{number}": self._show(each) for number, each in zip(_numbers(self.M), given, strict=True)}
        result: Prediction = await self.compare.acall(**inputs, **shown)
        return result

    async def _attempts(self, inputs: dict[str, Any]) -> list[Any]:
        group = alike(self.attempt, self.M, range(self.M))

        async def make(number: int) -> OneAttempt:
            how: dict[str, Any] = {"temperature": self.temperature, "group": group}
            return await attempt(self.attempt, (), inputs, number, self.M, **how)

        made = await attempts(self.M, make, lambda _: False, None)
        failed = [one for one in made if one.error is not None]
        if len(failed) == self.M:
            keep(failed[-1:], failed[:-1])
            raise failed[-1].error or RuntimeError("no attempt was made")
        keep(made)
        return [one.output if one.error is None else one.error for one in made]

    def _show(self, completion: Any) -> str:
        """One attempt as text, which remembers the calls that wrote its parts."""
        if isinstance(completion, BaseException):
            return f"(this attempt failed: {type(completion).__name__})"
        fields = completion
        thought = next((fields[name] for name in _THOUGHT if name in fields), None)
        lines = [] if thought is None else [thought]
        wanted = [name for name in self.compare.signature.outputs if name != "reasoning"]
        missing = [name for name in wanted if name not in fields]
        if missing:
            raise InputError(
                f"an attempt has no {missing[0]!r}: its fields are {', '.join(map(str, fields)) or 'none'}"
            )
        joined = lines[0] if lines else ""
        for name in wanted:
            value = fields[name] if isinstance(fields[name], str) else repr(fields[name])
            joined = joined + ("\n" if joined else "") + f"{name}: " + value
        return joined

    def input_names(self) -> tuple[str, ...]:
        """Names of the inputs of the signature."""
        return self.attempt.input_names()

    def output_names(self) -> tuple[str, ...] | None:
        """`reasoning`, and the names of the outputs of the signature."""
        return self.compare.output_names()

    def extra_repr(self) -> str:
        """How many attempts are compared."""
        return f"M={self.M}"


def _numbers(count: int) -> range:
    return range(1, count + 1)
