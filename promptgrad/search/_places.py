"""Places: where the parameters of a program live, and what a rewriter is shown of that."""

from collections import Counter
from dataclasses import dataclass

from promptgrad.adapters import describe as form_of
from promptgrad.autograd import Parameter
from promptgrad.nn import Module, Op, Predict
from promptgrad.signature import Signature


@dataclass(frozen=True)
class Place:
    """Where a parameter lives.

    Attributes:
        path: Path of the parameter.
        parameter: The parameter.
        module_path: Path of the module that holds it.
        module: That module.
        signature: The module's signature, if it has one.
    """

    path: str
    parameter: Parameter
    module_path: str
    module: Module
    signature: Signature | None


def places(model: Module) -> dict[str, Place]:
    """Every parameter of a program by path, with the module that holds it."""
    found: dict[str, Place] = {}
    seen: set[int] = set()
    for module_path, module in model.named_modules():
        signature = getattr(module, "signature", None)
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) in seen:
                continue
            seen.add(id(parameter))
            path = f"{module_path}.{name}" if module_path else name
            found[path] = Place(
                path, parameter, module_path, module, signature if isinstance(signature, Signature) else None
            )
    return found


def answers(model: Module) -> Counter[str]:
    """How many modules of a program answer a field of each name.

    Labels are a module's if no other answers any of these: what a program of several steps returns says nothing of an
    earlier step that calls its answer alike.
    """
    modules = (module for module in model.modules() if isinstance(module, Predict))
    return Counter(name for module in modules for name in module.signature.outputs)


def role(place: Place) -> str:
    """One line about a module: its path, inputs and outputs."""
    if place.signature is None:
        return place.path
    inputs = ", ".join(place.signature.inputs)
    outputs = ", ".join(place.signature.outputs)
    return f"{place.module_path or type(place.module).__name__}: {inputs} -> {outputs}"


def interface(place: Place) -> str:
    """What a step is given and what it must answer: a line for each field, with its type, choices and description."""
    if isinstance(place.module, Op):
        called = place.module.extra_repr()
        return f"describes `{called}` to a model that chooses among functions: what it is for, and how it is called"
    if place.signature is None:
        return ""
    lines = [f"{field.role} `{name}`: {form_of(field)}" for name, field in place.signature.fields.items()]
    described = place.signature.fields.get(place.path.rpartition(".")[2])
    kind = place.parameter.kind
    if kind.is_text and not kind.instructs and described is not None:
        what = f"describes the {described.role} `{described.name}` of a step to the model that answers it"
        lines.insert(0, f"{what}; it stands in the list of fields, behind the type, as here:")
    return "\n".join(lines)


def describe(model: Module) -> str:
    """The modules of a program, a line each."""
    lines = [role(place) for place in places(model).values() if place.parameter.kind.instructs]
    return "\n".join([type(model).__name__, *lines]) if lines else type(model).__name__
