"""What a run is: the settings that its folder keeps, and all that a resumed run must have in common with it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from promptgrad import run
from promptgrad.evaluation import source_digest
from promptgrad.nn import whole_state
from promptgrad.train._parts import Parts

if TYPE_CHECKING:
    from promptgrad.train._trainer import Trainer


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
