"""What a tool is told of a module: a function with its name, its arguments and what it is for."""

import inspect
from collections.abc import Callable, Iterable
from typing import Annotated, Any, get_type_hints

from promptgrad._patterns import late_pattern
from promptgrad.nn._prediction import Prediction
from promptgrad.signature import Signature

_WORD = late_pattern(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


class ModuleCall:
    """The function of a tool that is a module: the module is awaited, and of a `Prediction` the fields are returned."""

    __slots__ = ("module",)

    def __init__(self, module: Any) -> None:
        self.module = module

    async def __call__(self, /, **arguments: Any) -> Any:
        found = await self.module.acall(**arguments)
        return found.to_dict() if isinstance(found, Prediction) else found

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ModuleCall) and other.module is self.module

    def __hash__(self) -> int:
        return hash((ModuleCall, id(self.module)))

    def __repr__(self) -> str:
        return f"<tool of {type(self.module).__name__}>"


def shape_of(module: Any, about: str = "", only: Iterable[str] = ()) -> tuple[Callable[..., Any], ModuleCall]:
    """A function that is declared as a module is called, and the one that calls it.

    The arguments are the inputs of its signature, or of that of the module in it, as for a `BestOfN`; else those of
    `forward`, by name, with their types. The name is that of the signature's class, else of the module's, in small
    letters.

    Args:
        module: The module.
        about: What it is for; by default the instruction of its signature, or the docstring of `forward` or its class.
        only: Arguments of `forward` that a model may give; by default all of them.
    """
    inner = module
    while (signature := _signature_of(inner)) is None and "module" in inner._modules:
        inner = inner._modules["module"]
    name = type(module).__name__

    def shape(**arguments: Any) -> Any:
        raise NotImplementedError

    if signature is not None:
        name = signature.name if signature.name not in ("", "Signature") else name
        about = about or str(getattr(getattr(inner, "instruction", None), "data", "") or signature.instruction)
        hints = {
            key: Annotated[field.annotation, field.description] if field.description else field.annotation
            for key, field in signature.inputs.items()
        }
        parameters = [inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY) for key in hints]
    else:
        kind = type(module)
        about = about or inspect.cleandoc(kind.forward.__doc__ or vars(kind).get("__doc__") or "")
        hints = get_type_hints(module.forward, include_extras=True)
        known = inspect.signature(module.forward).parameters.values()
        parameters = [parameter for parameter in known if not only or parameter.name in only]
    shape.__name__ = shape.__qualname__ = _WORD.sub("_", name).lower()
    shape.__doc__ = about
    shape.__annotations__ = hints
    shape.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return shape, ModuleCall(module)


def _signature_of(module: Any) -> Signature | None:
    for name in ("_signature", "own"):
        found = vars(module).get(name)
        if isinstance(found, Signature):
            return found
    return None
