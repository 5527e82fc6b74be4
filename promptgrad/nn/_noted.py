"""The end of a call of `Predict`, noted in the history and on the graph."""

from typing import TYPE_CHECKING

from promptgrad.autograd import Node
from promptgrad.lm import LM, attribute
from promptgrad.nn._history import HistoryCall, remember
from promptgrad.nn._program import path_in_call

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from promptgrad.nn._module import Module


def note(
    module: "Module",
    node: Node | None,
    lm: LM,
    call: HistoryCall,
    outputs: "Mapping[str, Any] | None",
    error: BaseException | None,
) -> None:
    """Put a call into the history and, where one is kept, on the graph."""
    call.lm = lm.name
    if error is not None:
        call.error = f"{type(error).__name__}: {error}"  # the exception itself would keep its frames alive
    call.module = path_in_call(module) if node is None else node.path
    remember(call)
    attribute(call, type(module))
    if node is None:
        return
    node.lm = lm
    node.request = call.request
    for completion in [completion for _, completion in call.exchanges] if call.reasked else (call.completion,):
        if completion is None:
            continue
        content = completion.content
        if isinstance(content, str):
            node.reply = content
            if node.parts:  # of an earlier try
                node.parts, node.reasoning = (), ""
        else:
            node.reply, node.parts, node.reasoning = completion.text, content, completion.reasoning
        node.usage = completion.usage if node.usage is None else node.usage + completion.usage
        if completion.trace is not None:
            node.weight_traces.append(completion.trace)
    node.finish(outputs, error=error)
