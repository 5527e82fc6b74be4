"""How a signature and its values become chat messages, and a reply becomes values."""

from importlib import import_module
from typing import TYPE_CHECKING

from promptgrad.adapters._base import Adapter, Format, unreadable
from promptgrad.adapters._beside import with_beside
from promptgrad.adapters._chat import ChatAdapter
from promptgrad.adapters._compiled import Compiled, continued
from promptgrad.adapters._json import JSONAdapter
from promptgrad.adapters._numbers import last_number
from promptgrad.adapters._place import ValuePlace
from promptgrad.adapters._registry import get_adapter
from promptgrad.adapters._turns import is_history
from promptgrad.adapters._values import describe

__all__ = [
    "Adapter",
    "ChatAdapter",
    "CompactAdapter",
    "Compiled",
    "FieldPiece",
    "Format",
    "JSONAdapter",
    "PocketAdapter",
    "ReplyFeed",
    "TemplateAdapter",
    "Tool",
    "ToolsAdapter",
    "TwoStepAdapter",
    "ValuePlace",
    "XMLAdapter",
    "continued",
    "describe",
    "get_adapter",
    "is_history",
    "last_number",
    "observed",
    "template",
    "two_step",
    "unreadable",
    "with_beside",
]

if TYPE_CHECKING:
    from promptgrad.adapters._compact import CompactAdapter
    from promptgrad.adapters._feed import FieldPiece, ReplyFeed
    from promptgrad.adapters._observation import observed
    from promptgrad.adapters._pocket import PocketAdapter
    from promptgrad.adapters._template import TemplateAdapter, template
    from promptgrad.adapters._tool import Tool
    from promptgrad.adapters._tools import ToolsAdapter
    from promptgrad.adapters._two_step import TwoStepAdapter, two_step
    from promptgrad.adapters._xml import XMLAdapter
else:
    _LATE = {  # what most programs do not need
        "CompactAdapter": "promptgrad.adapters._compact",
        "FieldPiece": "promptgrad.adapters._feed",
        "PocketAdapter": "promptgrad.adapters._pocket",
        "ReplyFeed": "promptgrad.adapters._feed",
        "TemplateAdapter": "promptgrad.adapters._template",
        "Tool": "promptgrad.adapters._tool",
        "ToolsAdapter": "promptgrad.adapters._tools",
        "TwoStepAdapter": "promptgrad.adapters._two_step",
        "XMLAdapter": "promptgrad.adapters._xml",
        "observed": "promptgrad.adapters._observation",
        "template": "promptgrad.adapters._template",
        "two_step": "promptgrad.adapters._two_step",
    }

    def __getattr__(name):
        if name in _LATE:
            return getattr(import_module(_LATE[name]), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
