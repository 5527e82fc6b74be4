"""`ModuleTool`: a module that an agent calls as a tool."""

from typing import Any

from promptgrad.adapters import Tool
from promptgrad.autograd import Parameter
from promptgrad.nn._module import Module


class ModuleTool(Module, in_place=True):
    """A module that an agent calls as a tool, within the time of the tool.

    Its calls are recorded as those of any module: there is no call of a function around them, so what is said of a
    result goes to the prompts that made it, and from their inputs to the step that chose them.

    Cost: that of the module.
    """

    description: Parameter

    def __init__(self, tool: Tool, module: Module) -> None:
        super().__init__()
        self.module = module
        self.description = Parameter(tool.description, "description", requires_grad=tool.trainable)
        self._tool = tool

    async def forward(self, /, **arguments: Any) -> Any:
        """Call the module."""
        return await self._tool.acall(**arguments)

    def extra_repr(self) -> str:
        """The name of the tool."""
        return self._tool.name
