"""`trace_of`: the calls of a recorded forward in the form in which DSPy's metrics read them."""

from typing import Any

from promptgrad.autograd import Node, Tape
from promptgrad.metrics import CallTrace
from promptgrad.nn._module import Module
from promptgrad.nn._prediction import Prediction


def trace_of(tape: Tape | None) -> CallTrace:
    """The calls of language models in a forward, in order: for each the module, its inputs, and its prediction.

    This is what a metric with a third argument `trace` gets where demos are collected, as in DSPy:
    `for module, inputs, prediction in trace: ...`. Calls that failed are left out. The module is None where the call
    was made by a module that is not part of the program.

    Args:
        tape: The record of the forward; None where nothing was recorded.
    """
    return [call for _, call in calls_of(tape)]


def calls_of(tape: Tape | None) -> list[tuple[Node, tuple[Any, dict[str, Any], Prediction]]]:
    """The same with the node of each call."""
    if tape is None:
        return []
    modules = dict(tape.program.named_modules()) if isinstance(tape.program, Module) else {}
    done = [node for node in tape.nodes if node.kind == "lm" and node.error is None and node.outputs]
    return [(node, (modules.get(node.path), dict(node.inputs), Prediction(node.outputs))) for node in done]
