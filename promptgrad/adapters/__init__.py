"""How a signature and its values become chat messages, and a reply becomes values."""

from typing import TYPE_CHECKING

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
    "Written",
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
    "written_as",
]

if TYPE_CHECKING:
    from promptgrad.adapters._base import Adapter, Format, unreadable
    from promptgrad.adapters._beside import with_beside
    from promptgrad.adapters._chat import ChatAdapter
    from promptgrad.adapters._compact import CompactAdapter
    from promptgrad.adapters._compiled import Compiled, continued
    from promptgrad.adapters._feed import FieldPiece, ReplyFeed
    from promptgrad.adapters._json import JSONAdapter
    from promptgrad.adapters._numbers import last_number
    from promptgrad.adapters._observation import observed
    from promptgrad.adapters._place import ValuePlace
    from promptgrad.adapters._pocket import PocketAdapter
    from promptgrad.adapters._registry import get_adapter
    from promptgrad.adapters._template import TemplateAdapter, template
    from promptgrad.adapters._tool import Tool
    from promptgrad.adapters._tools import ToolsAdapter
    from promptgrad.adapters._turns import is_history
    from promptgrad.adapters._two_step import TwoStepAdapter, two_step
    from promptgrad.adapters._values import describe
    from promptgrad.adapters._written import Written, written_as
    from promptgrad.adapters._xml import XMLAdapter
else:
    from promptgrad._late import late

    _LATE = {
        "Adapter": "_base",
        "ChatAdapter": "_chat",
        "CompactAdapter": "_compact",
        "Compiled": "_compiled",
        "FieldPiece": "_feed",
        "Format": "_base",
        "JSONAdapter": "_json",
        "PocketAdapter": "_pocket",
        "ReplyFeed": "_feed",
        "TemplateAdapter": "_template",
        "Tool": "_tool",
        "ToolsAdapter": "_tools",
        "TwoStepAdapter": "_two_step",
        "ValuePlace": "_place",
        "Written": "_written",
        "XMLAdapter": "_xml",
        "continued": "_compiled",
        "describe": "_values",
        "get_adapter": "_registry",
        "is_history": "_turns",
        "last_number": "_numbers",
        "observed": "_observation",
        "template": "_template",
        "two_step": "_two_step",
        "unreadable": "_base",
        "with_beside": "_beside",
        "written_as": "_written",
    }

    __getattr__, __dir__ = late(__name__, _LATE)
