"""Inputs that no call can take, each with what to write instead."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn, get_args

from promptgrad.autograd import Parameter
from promptgrad.content import History
from promptgrad.data import Example, table_hint
from promptgrad.errors import InputError, SignatureError
from promptgrad.nn._prediction import Prediction
from promptgrad.signature import Field, Signature

if TYPE_CHECKING:
    from promptgrad.nn._predict import Predict

_IMAGES = "an image is an input of the type pg.Image, as in 'picture: Image -> answer' (pg.Audio, pg.File)"


def check_fields(signature: Signature) -> None:
    """Refuse fields that no call can have.

    Raises:
        SignatureError: An input holds bytes, of which a prompt can only show base64; or there are two conversations, or
            one among the outputs.
    """
    talks = [name for name, field in signature.inputs.items() if _holds(field.annotation, (History,))]
    if len(talks) > 1:
        raise SignatureError(
            f"the inputs {' and '.join(map(repr, talks))} are conversations, and a call has one before it: join them, "
            "as in `history.add(*other)`, or pass the other one as text"
        )
    for name, field in signature.outputs.items():
        if _holds(field.annotation, (History,)):
            raise SignatureError(
                f"the output {name!r} is a History, which no model writes: make the outputs those of one turn, and "
                "lengthen it by what they are, history = history.add(question=..., answer=...)"
            )
    for name, field in signature.inputs.items():
        if _holds(field.annotation, (bytes, bytearray)):
            raise SignatureError(
                f"the input {name!r} is of type {field.type_name}: a prompt is text, and would show base64, which no "
                f"model sees as an image or a sound: {_IMAGES}. If base64 is meant, make it a str"
            )


def _holds(annotation: Any, kinds: tuple[type, ...]) -> bool:
    return annotation in kinds or any(_holds(inner, kinds) for inner in get_args(annotation))


class TakenInputs:
    """The inputs of a signature, as each call checks them.

    Apart from the module, which has a `__getattr__`: an attribute of it is read in 20 nanoseconds, one of this in 2.

    Attributes:
        signature: The signature.
        names: The names of its inputs.
    """

    __slots__ = ("_plain", "_typed", "names", "signature")

    def __init__(self, signature: Signature) -> None:
        self.signature = signature
        self.names = frozenset(signature.inputs)
        self._plain = tuple(name for name, field in signature.inputs.items() if field.is_plain)
        self._typed = tuple((name, field) for name, field in signature.inputs.items() if not field.is_plain)

    def checked(self, module: "Predict", inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        """The inputs converted to their types. The graph keeps what was passed.

        Raises:
            InputError: One does not fit; it is named as one of the module.
        """
        for name in self._plain:
            if not isinstance(inputs[name], str):
                refuse_input(module._called(), self.signature.inputs[name], inputs[name])
        if not self._typed:
            return inputs
        values = dict(inputs)
        for name, field in self._typed:
            values[name] = field.validate(inputs[name])
        return values


def refuse_input(called: str, field: Field, value: Any) -> NoReturn:
    """Refuse a value that is no text, for a field that is.

    Raises:
        InputError: Always.
    """
    start = f"input {field.name!r} of {called} is a str, and"
    if isinstance(value, Prediction):
        fields = ", ".join(f".{name}" for name in value)
        raise InputError(f"{start} a whole Prediction was passed: pass one of its fields ({fields})")
    if isinstance(value, Parameter):
        raise InputError(f"{start} a Parameter was passed: pass its text, str(parameter), which remembers it")
    if isinstance(value, (Example, Mapping)):
        what = "an Example" if isinstance(value, Example) else "a dict"
        how = "**example.inputs()" if isinstance(value, Example) else "**inputs"
        raise InputError(
            f"{start} {what} was passed: pass its fields by name, ({how}), or many at once with .map([...])"
        )
    if hint := table_hint(value):
        raise InputError(f"{start} a table ({type(value).__name__}) was passed: write .map({hint})")
    if isinstance(value, (bytes, bytearray)):
        raise InputError(f"{start} bytes were passed: decode text with data.decode(); {_IMAGES}")
    try:
        field.validate(value)
    except InputError as error:
        raise InputError(f"{error}{_declared(field.name, value)}") from None
    raise InputError(f"{start} a {type(value).__name__} was passed")


def _declared(name: str, value: Any) -> str:
    """How the signature says that an input is what was passed, where that can be told."""
    if isinstance(value, (list, tuple)):
        kinds = {"str" if isinstance(item, str) else type(item).__name__ for item in value}
        kind = f"list[{kinds.pop()}]" if len(kinds) == 1 else "list[str]" if not kinds else "list"
    elif isinstance(value, (bool, int, float)):
        kind = type(value).__name__
    else:
        return ""
    return f"; an input without a type is a text: write '{name}: {kind}' in the signature"
