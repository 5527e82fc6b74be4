"""Pictures of what was recorded: graphs of calls, as SVG, Mermaid or DOT text."""

from promptgrad.viz._drawing import Drawing
from promptgrad.viz._graph import graph

__all__ = ["Drawing", "graph"]
