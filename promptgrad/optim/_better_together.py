"""BetterTogether: one optimizer after another, each starting from the best that the earlier ones found."""

from typing import Any

from promptgrad._habits import refuse
from promptgrad.errors import DataError
from promptgrad.nn import Module
from promptgrad.optim._habits import TOGETHER_HABITS
from promptgrad.optim._search import Search
from promptgrad.search import Session


class BetterTogether(Search):
    """Run optimizers one after another: prompts, then weights, then prompts again, or in any order of a strategy.

    `optim.BetterTogether("p -> w -> p", p=optim.MIPRO(model.parameters()), w=optim.BootstrapFinetune(model))`

    Each phase is a search that starts from the best candidate so far: it reads that candidate's values, keeps those
    that it does not change, and runs on its weights. Its result is kept if it scores better on the validation data than
    its start, by the shrunken gain; otherwise the next phase starts where this one did. The best of every phase goes to
    the confirmation. The strategy ends early when every validation example is right.

    Cost: that of its phases, in order, from one budget; measuring the start of a phase costs nothing, as the phase that
    found it measured it. A model in memory for each phase that trains weights.
    Source: Soylu et al. 2024, arXiv 2407.10930 (DSPy's optimizer of this name). Differs: any names and any number of
    optimizers; later phases do not build on a phase that made the program worse.

    Args:
        strategy: Names of the optimizers in order, with arrows between them; a name may occur more than once.
        **optimizers: The optimizers by name, made for parameters of one program.

    Raises:
        ValueError: The strategy names an optimizer that is not given, or does not name one that is given.
        TypeError: One of them is not an optimizer.
        DataError: In `fit`: no phase can learn from the data. If one can, a note says so of the others.
    """

    def __init__(self, strategy: str = "p -> w -> p", **optimizers: Search) -> None:
        strange = [name for name in optimizers if name in TOGETHER_HABITS]
        if strange:
            refuse("BetterTogether", strange, TOGETHER_HABITS, ())
        if not isinstance(strategy, str):
            raise TypeError(
                f"BetterTogether takes a strategy first, 'p -> w -> p', and an optimizer for each name in it, not "
                f"{type(strategy).__name__}"
            )
        names = [name.strip() for name in strategy.split("->")]
        missing = [name or "(nothing)" for name in dict.fromkeys(names) if name not in optimizers]
        unused = [name for name in optimizers if name not in names]
        if missing or unused:
            raise ValueError(
                f"the strategy {strategy!r} and the optimizers do not fit: not given: {', '.join(missing) or 'none'}; "
                f"not in the strategy: {', '.join(unused) or 'none'}. Write BetterTogether('p -> w', p=..., w=...)"
            )
        wrong = next((name for name, given in optimizers.items() if not isinstance(given, Search)), None)
        if wrong is not None:
            raise TypeError(f"{wrong}= is an optimizer, such as optim.MIPRO(...), not {optimizers[wrong]!r}")
        given = {parameter: name for each in optimizers.values() for parameter, name in each.names().items()}
        super().__init__([(name, parameter) for parameter, name in given.items()])
        self.strategy = " -> ".join(names)
        self.optimizers = optimizers
        self.kinds = tuple(dict.fromkeys(kind for each in optimizers.values() for kind in each.kinds))
        self.copies = max(each.copies for each in optimizers.values())

    async def fit(self, session: Session) -> None:
        """Run the phases; see the class."""
        best, useless, useful = session.baseline, list[DataError](), False
        for number, name in enumerate(self.strategy.split(" -> "), 1):
            optimizer = self.optimizers[name]
            part = await session.phase(f"{number}-{name}", best, parameters=optimizer.parameters())
            if not part.places(requires_grad=None):
                session.notes.append(f"phase {number}-{name} was left out: what was found so far has another structure")
                continue
            try:
                await optimizer.fit(part)
                useful = True
            except DataError as error:
                useless.append(error)
                session.notes.append(f"phase {number}-{name} found nothing: {error}")
            finally:
                found = session.adopt(part)
            if found is not None and part.gain(found) > 0:
                best = found
                session.promote(found)
            if session.perfect():
                session.decide("stop", reason="every validation example is right")
                break
        if useless and not useful:
            raise useless[0]

    def check_trained(self, model: Module) -> None:
        """Check that each optimizer has something to train."""
        for optimizer in self.optimizers.values():
            optimizer.check_trained(model)

    def expected_demos(self) -> tuple[int, int]:
        """Return the most traces, and the most demos."""
        traces, shown = zip(*(each.expected_demos() for each in self.optimizers.values()), strict=True)
        return max(traces), max(shown)

    def expected_calls(self, plan: Any) -> list[tuple[str, float, bool]]:
        """Return the phases of each optimizer, in the order of the strategy."""
        return [
            (f"{number}-{name}: {what}", calls, exact)
            for number, name in enumerate(self.strategy.split(" -> "), 1)
            for what, calls, exact in self.optimizers[name].expected_calls(plan)
        ]

    def _shown(self) -> str:
        return f"strategy={self.strategy!r}"
