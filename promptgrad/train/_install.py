"""Installing the result of a search: values in the program that was trained, or another program in its place."""

import copy

from promptgrad.nn import Module
from promptgrad.search import Candidate


def install(model: Module, candidate: Candidate) -> Module:
    """Put a candidate's values into its program, and return the program to use from here on.

    This is the model itself if the candidate's program has the same structure: the values are set in it, and the
    language models are replaced by those of the candidate's program, which may have other weights. A program of another
    structure is returned instead, and the model stays as it is.
    """
    other = candidate.program
    target = model
    if other is not None and has_structure_of(model, other):
        for path, module in other.named_modules():
            if module._lm is not None:
                model.get_submodule(path)._lm = module._lm
        for path, parameter in other.named_parameters():
            if parameter.kind.is_weights and other is not model:
                target.get_parameter(path).data = parameter.data
    elif other is not None:
        target = other
    for path, value in candidate.values.items():
        target.get_parameter(path).data = value
    return target


def as_program(model: Module, candidate: Candidate) -> Module:
    """A candidate as a program of its own: a copy with its values; language models are shared."""
    return install(copy.deepcopy(candidate.program or model), Candidate(candidate.values))


def has_structure_of(model: Module, other: Module) -> bool:
    """Whether two programs have the same modules and the same parameters at the same paths."""
    return _structure(model) == _structure(other)


def _structure(program: Module) -> list[tuple[str, object]]:
    modules = [(path, type(module)) for path, module in program.named_modules()]
    return [*modules, *((path, parameter.kind) for path, parameter in program.named_parameters())]
