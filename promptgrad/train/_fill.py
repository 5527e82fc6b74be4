"""`Trainer(synthesize=n)`: training data filled up with examples that a language model writes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, get_origin

from promptgrad import run
from promptgrad.data import Example
from promptgrad.errors import BudgetExceeded, DataError, ParseError
from promptgrad.lm import LM
from promptgrad.nn import Module, Predict, Synthesizer, bind
from promptgrad.signature import Field, Signature
from promptgrad.train._ending import catch_up

if TYPE_CHECKING:
    from promptgrad.optim import Session


def calls_to_fill(missing: int, teacher: Any) -> tuple[int, int]:
    """The most LM calls that write so many examples, and the most rows that a teacher answers to judge them."""
    writer = Synthesizer("text -> answer")
    calls = writer.most_calls(missing)
    return calls, (calls - 1) * writer.batch if isinstance(teacher, Module) else 0


async def fill(session: "Session", wanted: int, teacher: Any, held: Sequence[Example]) -> None:
    """Let a language model write what training data lacks, after the examples that are there.

    It is that of `teacher`, if that is one, else the program's own. A teacher that is a program must agree with the
    labels, by the metric. The calls are journalled and within the budget; where it does not pay for them, or no reply
    can be read, the run goes on with what there is.

    Args:
        session: The session; its `train` grows.
        wanted: How many training examples there should be.
        teacher: The teacher of the trainer.
        held: The examples on which the run chooses and reports: none is written again.
    """
    missing = wanted - len(session.train)
    if missing <= 0:
        return
    signature = signature_of(session.model, session.train)
    writer = Synthesizer(signature, lm=teacher if isinstance(teacher, (LM, str)) else session.program_lm())
    try:
        with run.phase("synthesize"), session.scope("synthesize"):
            judged = {"teacher": teacher, "metric": session.metric} if isinstance(teacher, Module) else {}
            session.leave_what_was_left("synthesize")
            rows = await writer.acall(session.train, n=missing, avoid=held, **judged)
    except (BudgetExceeded, ParseError) as error:  # a writer that cannot do it ends no run
        catch_up("synthesize")
        session.notes.append(f"no training examples were written: {error}")
        return
    session.decide("synthesize", rows=len(rows))
    session.train += rows
    dropped = "".join(f"; {count} {reason}" for reason, count in rows.dropped.items())
    session.notes.append(f"{len(rows)} of {len(session.train)} training examples are synthetic{dropped}")


def signature_of(model: Module, rows: Sequence[Example]) -> Signature:
    """The signature of a program as its data shows it: inputs, labels, and the types of fields that its modules have.

    Raises:
        DataError: The examples have no labels in common.
    """
    first = rows[0]
    inputs = list(first.input_keys or bind(model, first)[1])
    labels = [name for name in first.keys() if name not in inputs]  # noqa: SIM118 - no mapping
    shared = [name for name in labels if all(name in row.keys() for row in rows)]  # noqa: SIM118
    if not inputs or not shared:
        raise DataError("synthesize= needs examples with inputs by name, and labels that all of them have")
    modules = [module for module in model.modules() if isinstance(module, Predict)]
    known = {name: field for module in reversed(modules) for name, field in module.signature.fields.items()}
    roles: dict[str, Literal["input", "output"]] = {**dict.fromkeys(inputs, "input"), **dict.fromkeys(shared, "output")}
    fields = [
        Field(name, _type(name, first[name], known), known[name].description if name in known else "", role)
        for name, role in roles.items()
    ]
    return Signature(fields, modules[0].signature.instruction if len(modules) == 1 else _steps(modules))


def _type(name: str, value: Any, known: dict[str, Field]) -> Any:
    if name in known:
        return known[name].annotation
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return list[str]
    return type(value) if type(value) in (bool, int, float) or get_origin(type(value)) else str


def _steps(modules: Sequence[Predict]) -> str:
    return "A program with these steps:\n" + "\n".join(f"- {module.signature.instruction}" for module in modules)
