"""`FieldDescriptions`: what a prompt says of each field of a signature, as parameters."""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

from promptgrad.adapters import is_history
from promptgrad.autograd import Node, Parameter
from promptgrad.errors import SignatureError
from promptgrad.nn._containers import ParameterDict
from promptgrad.nn._module import Module
from promptgrad.signature import Signature

if TYPE_CHECKING:
    from typing_extensions import Self


class FieldDescriptions(ParameterDict):
    """The descriptions of the fields of a signature, parameters of the kind "description" by the name of the field.

    Args:
        signature: The signature, whose descriptions they begin with.
        names: The fields.
    """

    def __init__(self, signature: Signature, names: Iterable[str]) -> None:
        fields = signature.fields
        texts = {name: Parameter(fields[name].description, kind="description", requires_grad=True) for name in names}
        super().__init__(texts)
        self._signature = signature

    @classmethod
    def of(cls, signature: Signature, asked: bool | Iterable[str]) -> "Self | None":  # noqa: FBT001
        """Those of the fields that are asked for: all that a prompt lists, if True; None where there are none.

        Raises:
            SignatureError: There is no such field, or a prompt does not list it.
        """
        if asked is False:
            return None
        listed = [name for name, field in signature.fields.items() if not is_history(field.annotation)]
        names = listed if asked is True else [asked] if isinstance(asked, str) else list(asked)
        for name in names:
            if name not in listed:
                known = ", ".join(listed)
                raise SignatureError(
                    f"describe= names the fields whose descriptions are trained, {known}, not {name!r}"
                )
        return cls(signature, names) if names else None

    @property
    def signature(self) -> Signature:
        """The signature with the descriptions that the parameters hold now."""
        return described(self._signature, self)


def described(signature: Signature, texts: Module | None, node: Node | None = None) -> Signature:
    """A signature with the descriptions that parameters hold.

    Args:
        signature: The signature, perhaps with more fields than have parameters.
        texts: Its `FieldDescriptions`, if it has some.
        node: The call that reads them; None where nothing is recorded.
    """
    if not isinstance(texts, FieldDescriptions):
        return signature
    if node is None:
        found = {name: parameter.data for name, parameter in texts.items()}
    else:
        found = {name: node.read(parameter, f"descriptions.{name}") for name, parameter in texts.items()}
    return _laid(signature, tuple((name, "".join(("", text))) for name, text in found.items()))


@lru_cache(1_000)
def _laid(signature: Signature, texts: tuple[tuple[str, str], ...]) -> Signature:
    changed: Mapping[str, str] = dict(texts)
    fields = [
        field.replace(description=changed.get(name, field.description)) for name, field in signature.fields.items()
    ]
    return Signature(fields, signature.instruction, name=signature.name)
