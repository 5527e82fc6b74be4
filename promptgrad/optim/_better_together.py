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

    Each phase is a search that starts from the best candidate so far, with its values and on its weights. Its result is
    kept if it scores better on the validation data than its start, by the shrunken gain; else the next phase starts
    where this one did. The best of every phase goes to the confirmation. Perfect validation data end the strategy.

    Cost: that of its phases, in order, from one budget; the start of a phase is known from the one that found it. A
    model in memory for each phase that trains weights.
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
        if strange := [name for name in optimizers if name in TOGETHER_HABITS]:
            refuse("BetterTogether", strange, TOGETHER_HABITS, ())
        if not isinstance(strategy, str):
            raise TypeError(f"BetterTogether takes a strategy first, 'p -> w', then optimizers, not {strategy!r:.40}")
        names = [name.strip() for name in strategy.split("->")]
        missing = [name or "(nothing)" for name in dict.fromkeys(names) if name not in optimizers]
        unused = [name for name in optimizers if name not in names]
        if missing or unused:
            left = f"not given: {', '.join(missing) or 'none'}; not in the strategy: {', '.join(unused) or 'none'}"
            raise ValueError(f"{strategy!r} does not fit: {left}. Write BetterTogether('p -> w', p=..., w=...)")
        if wrong := [name for name, each in optimizers.items() if not isinstance(each, Search)]:
            raise TypeError(f"{wrong[0]}= is an optimizer, such as optim.MIPRO(...), not {optimizers[wrong[0]]!r}")
        given = {parameter: name for each in optimizers.values() for parameter, name in each.names().items()}
        super().__init__([(name, parameter) for parameter, name in given.items()])
        self.strategy, self.optimizers = " -> ".join(names), optimizers
        self._phases = [(f"{number}-{name}", optimizers[name]) for number, name in enumerate(names, 1)]
        self.kinds = tuple(dict.fromkeys(kind for each in optimizers.values() for kind in each.kinds))
        self.copies = max(each.copies for each in optimizers.values())

    async def fit(self, session: Session) -> None:
        """Run the phases; see the class."""
        best, useless, useful = session.baseline, list[DataError](), False
        for name, optimizer in self._phases:
            part = await session.phase(name, best, parameters=optimizer.parameters())
            if not part.places(requires_grad=None):
                session.notes.append(f"phase {name} was left out: what was found so far has another structure")
                continue
            try:
                await optimizer.fit(part)
                useful = True
            except DataError as error:
                useless.append(error)
                session.notes.append(f"phase {name} found nothing: {error}")
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
        phases = [(name, step) for name, each in self._phases for step in each.expected_calls(plan)]
        return [(f"{name}: {what}", calls, exact) for name, (what, calls, exact) in phases]

    def _shown(self) -> str:
        return f"strategy={self.strategy!r}"
