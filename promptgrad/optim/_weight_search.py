"""`WeightSearch`: what the optimizers of a model's weights share."""

from promptgrad.finetune import JobResult, TuneResult
from promptgrad.nn import Module
from promptgrad.optim._groups import Params
from promptgrad.optim._search import Search
from promptgrad.search import Candidate, Measured, Session


class WeightSearch(Search):
    """The base of optimizers that train the weights of the program's model.

    The parameters keep their values; the trained program is offered as a candidate, and the trainer decides.

    Args:
        params: The program, or any of its parameters, as none of them is changed.

    Attributes:
        result: The result of `promptgrad.finetune` in the last `fit`; None before.
    """

    kinds = ()
    selects = False

    def __init__(self, params: Params | Module) -> None:
        super().__init__(params.parameters() if isinstance(params, Module) else params)
        self._result: TuneResult | JobResult | None = None

    @property
    def result(self) -> TuneResult | JobResult | None:
        """The result of `promptgrad.finetune` in the last `fit`; None before."""
        return self._result

    @property
    def skips(self) -> tuple[str, ...]:
        """Empty, as an optimizer of weights keeps the values of all parameters by design."""
        return ()

    async def _offer(self, session: Session, result: TuneResult | JobResult, origin: str) -> None:
        """Offer the program on the trained model, with the values that the search started from."""
        self._result = result
        base = session.base
        candidate = Candidate(base.values, origin, result.program, result.lm.name, (base,))
        if session.val:
            measured = await session.evaluate(candidate, session.val, scope="finetune/val")
        else:
            measured = Measured(candidate, (), ())
        session.trial(measured)
        session.offer(measured)
