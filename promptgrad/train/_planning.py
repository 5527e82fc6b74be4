"""What a run will cost: the phases of a trainer's plan."""

from dataclasses import replace
from typing import TYPE_CHECKING

from promptgrad.search import Phase, Plan
from promptgrad.train._allowance import with_notes
from promptgrad.train._fill import calls_to_fill
from promptgrad.train._noise import calls_for_noise
from promptgrad.train._parts import Parts
from promptgrad.train._price import Price, guessed, price_of_examples, price_of_program, price_of_writing

if TYPE_CHECKING:
    from promptgrad.train._trainer import Trainer


_WRITING = ("propose", "proposals", "critiques")  # phases whose calls are not of the program


def planned(trainer: "Trainer", parts: Parts, calls_per_example: float | None) -> Plan:
    """The plan of a trainer for this data, see `Trainer.plan`."""
    changed = {parameter for parameter, _ in trainer.optimizer.trained()}
    price = price_of_program(trainer.model, parts.train, trainer.optimizer.expected_demos(), changed)
    per = calls_per_example if calls_per_example is not None else float(price.modules)
    train, val, confirm, test = map(len, (parts.train, parts.val, parts.confirm, parts.test))
    missing = trainer.synthesize - train
    train = max(train, trainer.synthesize)
    draft = Plan((), per, price.tokens, price.usd, train, val, confirm, test)
    exact = price.modules <= 1 or calls_per_example is not None
    optimizer, strict = trainer.optimizer, trainer.ship == "significant"
    phases = []
    if parts.val:
        phases.append(Phase("baseline", round(len(parts.val) * per), exact))
        if judged := calls_for_noise(trainer.metric, len(parts.val), trainer.judge_rows, trainer.budget):
            phases.append(Phase("judge", judged, exact=False))
    if missing > 0:
        phases += _filling(trainer, parts, missing)
    for name, calls, certain in optimizer.expected_calls(draft):
        phase = Phase(name, round(calls), certain and exact)
        if name.rpartition(": ")[2] in _WRITING:
            tokens, usd = price_of_writing(trainer.model, optimizer, parts.train)
            phases.append(replace(phase, tokens_per_call=tokens, usd_per_call=usd))
        else:
            phases.append(_with_demos(phase, price, 1.0))
    copies = optimizer.copies
    finalists = trainer.finalists if optimizer.selects else 1
    runs = (1 + finalists * copies) * len(parts.confirm) + (0 if strict else finalists * copies * len(parts.val))
    ends = Phase("confirm" if strict else "finals", round(runs * per), exact=False)
    phases.append(_with_demos(ends, price, 1 - len(parts.confirm) / runs if runs else 0.0))
    if parts.test:
        test_runs = Phase("test", round((1 + copies) * len(parts.test) * per), exact=False)
        phases.append(_with_demos(test_runs, price, copies / (1 + copies)))
    noted = with_notes(replace(draft, phases=tuple(phases)), trainer.budget)
    remark = guessed(parts.train)
    return replace(noted, notes=(*noted.notes, remark)) if remark else noted


def _filling(trainer: "Trainer", parts: Parts, missing: int) -> list[Phase]:
    """The calls that write the training examples that lack, and those of a teacher that must agree with them."""
    written, judged = calls_to_fill(missing, trainer.teacher)
    tokens, usd = price_of_examples(trainer.model, trainer.teacher, parts.train)
    found = [Phase("synthesize", written, exact=False, tokens_per_call=tokens, usd_per_call=usd)]
    if judged:
        own = price_of_program(trainer.teacher, parts.train)
        calls = judged * own.modules
        found.append(Phase("synthesize: teacher", calls, exact=False, tokens_per_call=own.tokens, usd_per_call=own.usd))
    return found


def _with_demos(phase: Phase, price: Price, share: float) -> Phase:
    """The phase, a share of whose calls are of candidates, which show demos."""
    usd = None if price.demo_usd is None else share * price.demo_usd
    return replace(phase, demo_tokens=share * price.demo_tokens, demo_usd=usd)
