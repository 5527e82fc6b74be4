"""Where code that a language model wrote runs: interpreters without files, network and processes, within limits."""

from typing import TYPE_CHECKING

from promptgrad.sandbox._execution import CodeFault, Execution, Halt
from promptgrad.sandbox._interpreter import CodeSession, Interpreter, Limits

__all__ = [
    "CodeFault",
    "CodeSession",
    "Execution",
    "Halt",
    "Interpreter",
    "Limits",
    "Monty",
    "Subprocess",
]

if TYPE_CHECKING:
    from promptgrad.sandbox._monty import Monty
    from promptgrad.sandbox._subprocess import Subprocess
else:
    from promptgrad._late import late

    _LATE = {
        "Monty": "_monty",
        "Subprocess": "_subprocess",
    }

    __getattr__, __dir__ = late(__name__, _LATE)
