"""Where code that a language model wrote runs: interpreters without files, network and processes, within limits."""

from importlib import import_module
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
    _LATE = {
        "Monty": "promptgrad.sandbox._monty",
        "Subprocess": "promptgrad.sandbox._subprocess",
    }

    def __getattr__(name):
        if name in _LATE:
            return getattr(import_module(_LATE[name]), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
