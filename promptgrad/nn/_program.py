"""The program that is called here: the paths of its calls, and the nodes of those that are recorded."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any

from promptgrad.autograd import Node, Tape, open_tape
from promptgrad.nn._hooks import Hooks
from promptgrad.nn._members import Members
from promptgrad.nn._structure import plan_of

if TYPE_CHECKING:
    from promptgrad.nn._module import Module

program_here: ContextVar[Members | None] = ContextVar("promptgrad.program", default=None)
"""The program whose forward runs unrecorded in this context; the tape of a recorded forward knows its program."""


def enter(module: Members) -> "Token[Members | None]":
    """Begin an unrecorded forward of `module`, until its token is reset; the outermost one counts as the program."""
    program = program_here.get()
    return program_here.set(module if program is None else program)


def path_in_call(module: "Module") -> str:
    """The path of a module in the program that is called in this context, recorded or not."""
    tape = open_tape()
    program = program_here.get() if tape is None else tape.program
    return plan_of(program).paths.get(module, "") if isinstance(program, Members) else ""


def begin_node(
    module: "Module",
    tape: Tape,
    inputs: Mapping[str, Any],
    output_fields: Iterable[str] = (),
    *,
    kind: str = "lm",
    replicate: int = 0,
) -> Node:
    """Begin the node of a call of `module`, with its path in the program and the hooks that wait for its gradient.

    The path of a module that is not part of the program is its class name, in parentheses.
    """
    program = tape.program
    path = plan_of(program).paths.get(module) if isinstance(program, Members) else None
    name = type(module).__name__
    node = tape.node(f"({name})" if path is None else path, kind, inputs, name, output_fields, replicate)
    if Hooks.backward_ever:
        node.hooks = tuple(_backward_hooks(module, program, path))
    return node


def _backward_hooks(module: "Module", program: Any, path: str | None) -> Iterator[Callable[..., Any]]:
    """The backward hooks of a module, then of the modules around it, inner ones first."""
    around: list[Module] = [module]
    if path:
        names = path.split(".")
        around += [program.get_submodule(".".join(names[:end])) for end in range(len(names) - 1, -1, -1)]
    for owner in around:
        for hook in owner._hooks.backward.values() if owner._hooks is not None else ():
            yield lambda node, feedback, blame, hook=hook: hook(module, blame, feedback)
