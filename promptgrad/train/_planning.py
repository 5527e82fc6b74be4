"""What a run will cost: the phases of a trainer's plan."""

from dataclasses import replace
from typing import TYPE_CHECKING

from promptgrad.search import Phase, Plan
from promptgrad.train._allowance import with_notes
from promptgrad.train._noise import calls_for_noise
from promptgrad.train._parts import Parts
from promptgrad.train._price import price_of_program

if TYPE_CHECKING:
    from promptgrad.train._trainer import Trainer


def planned(trainer: "Trainer", parts: Parts, calls_per_example: float | None) -> Plan:
    """The plan of a trainer for this data, see `Trainer.plan`."""
    price = price_of_program(trainer.model, parts.train)
    per = calls_per_example if calls_per_example is not None else float(price.modules)
    train, val, confirm, test = map(len, (parts.train, parts.val, parts.confirm, parts.test))
    draft = Plan((), per, price.tokens, price.usd, train, val, confirm, test)
    exact = price.modules <= 1 or calls_per_example is not None
    optimizer, strict = trainer.optimizer, trainer.ship == "significant"
    phases = []
    if parts.val:
        phases.append(Phase("baseline", round(len(parts.val) * per), exact))
        if judged := calls_for_noise(trainer.metric, len(parts.val), trainer.judge_rows, trainer.budget):
            phases.append(Phase("judge", judged, exact=False))
    for name, calls, certain in optimizer.expected_calls(draft):
        phases.append(Phase(name, round(calls), certain and exact))
    copies = optimizer.copies
    finalists = trainer.finalists if optimizer.selects else 1
    runs = (1 + finalists * copies) * len(parts.confirm) + (0 if strict else finalists * copies * len(parts.val))
    phases.append(Phase("confirm" if strict else "finals", round(runs * per), exact=False))
    if parts.test:
        phases.append(Phase("test", round((1 + copies) * len(parts.test) * per), exact=False))
    return with_notes(replace(draft, phases=tuple(phases)), trainer.budget)
