"""What a run is: the settings that its folder keeps, and all that a resumed run must have in common with it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from promptgrad import run
from promptgrad.errors import JournalError
from promptgrad.evaluation import source_digest, source_parts
from promptgrad.nn import whole_state
from promptgrad.train._parts import Parts

if TYPE_CHECKING:
    from promptgrad.train._trainer import Trainer

Sources = Mapping[str, Mapping[str, str]]
"""Digests of the parts of the sources of "program" and "metric"."""


def settings_of(trainer: "Trainer") -> dict[str, Any]:
    """The arguments of a trainer that JSON can hold and that its decisions depend on."""
    return {
        "seed": trainer.seed,
        "budget": {name: value for name, value in vars(trainer.budget).items() if value is not None},
        "ship": trainer.ship,
        "confirm": trainer.confirm,
        "finalists": trainer.finalists,
        **({"objectives": dict(trainer.objectives)} if trainer.objectives.beside else {}),
        **({} if trainer.judge_rows is None else {"judge_rows": trainer.judge_rows}),
        **({"synthesize": trainer.synthesize} if trainer.synthesize else {}),
        "engine": trainer.engine,
        "group": trainer.group,
    }


def as_arguments(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `Trainer` that `settings_of` kept.

    An older version kept fewer; the journal then says, by name, which version began the run.
    """
    return {
        "seed": settings["seed"],
        "budget": run.Budget(**settings["budget"]) if settings["budget"] else None,
        "ship": settings.get("ship", "significant"),
        "confirm": settings["confirm"],
        "finalists": settings["finalists"],
        "objectives": settings.get("objectives", ()),
        "judge_rows": settings.get("judge_rows"),
        "synthesize": settings.get("synthesize", 0),
        "engine": settings.get("engine"),
        "group": settings.get("group"),
    }


def identity_of(trainer: "Trainer", parts: Parts) -> dict[str, Any]:
    """What a resumed run must have in common with the run that it continues."""
    return {
        **settings_of(trainer),
        "program": type(trainer.model).__name__,
        "start": run.value_digest(whole_state(trainer.model.state_dict())),
        "optimizer": trainer.optimizer.config(),
        "source": source_digest(trainer.model),
        "metric": source_digest(getattr(trainer.metric, "fn", trainer.metric)),
        "data": {
            name: run.value_digest([example.id for example in examples]) for name, examples in parts.by_name().items()
        },
    }


def sources_of(trainer: "Trainer") -> Sources:
    """Digests of what the sources of program and metric consist of, by which a resumed run says what changed."""
    metric = getattr(trainer.metric, "fn", trainer.metric)
    return {"program": source_parts(trainer.model), "metric": source_parts(metric)}


def begin(trainer: "Trainer", journal: run.Journal, parts: Parts, sources: Mapping[str, Mapping[str, str]]) -> None:
    """Write what a run is into its journal.

    Args:
        trainer: The trainer.
        journal: The journal.
        parts: The data.
        sources: What `sources_of` was when a run began that is resumed.

    Raises:
        JournalError: The run that is resumed is another one; the message says what changed.
    """
    try:
        journal.append("run", **identity_of(trainer, parts))
    except JournalError as error:
        if changed := changes(sources, sources_of(trainer)):
            raise JournalError(f"{error}. {changed}") from None
        raise


def changes(then: Sources, now: Sources) -> str:
    """What changed in the sources of program and metric since a run began, in words; empty where nothing did."""
    found = [
        f"{label} ({source})"
        for source in now
        for label in dict.fromkeys([*then.get(source, ()), *now[source]])
        if source in then and then[source].get(label) != now[source].get(label)
    ]
    if not found:
        return ""
    return (
        f"Since the run began, this has changed: {'; '.join(found)}. If it is a count or a memory that changes while "
        "the program runs, keep it in a buffer (module.register_buffer), in a variable that the function assigns "
        "(nonlocal), or in an object without a repr of its own, which are no source; else give it the value that it had"
    )
