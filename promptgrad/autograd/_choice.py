"""`Choice`: a parameter that is one of some options."""

from collections.abc import Iterable
from typing import Any

from promptgrad.autograd._parameter import Parameter


class Choice(Parameter):
    """A discrete parameter that a program reads and optimizers search: `self.style = pg.Choice(["short", "long"])`.

    It is a `Parameter` of kind "choice" that is trained from the start. `choice.data` is the option that is chosen,
    `choice.index` its number. `optim.Auto` and `optim.MIPRO` try the other options; a critic says nothing about it, as
    there is no text to rewrite.

    Options have a JSON form where the state is to be saved. An option that is a module belongs into `nn.Route`.

    Shape: `()`.

    Args:
        options: The options, two or more, in order.
        value: The option that is chosen at first; the first one by default.
        requires_grad: Whether optimizers search it.
        role: What is chosen, in words.

    Raises:
        ValueError: There is no choice, or an option stands twice.
        ConstraintError: `value` is not among the options.
    """

    def __init__(self, options: Iterable[Any], *value: Any, requires_grad: bool = True, role: str = "") -> None:
        known = [options] if isinstance(options, str) else list(options)
        if len(known) < 2:
            raise ValueError(f"a choice has at least two options, and these are {known!r}")
        for number, option in enumerate(known):
            if any(type(option) is type(other) and option == other for other in known[:number]):
                raise ValueError(f"the option {option!r} stands twice")
        if len(value) > 1:
            raise TypeError(f"a choice is made of its options and the first value, not of {len(value)} values")
        super().__init__(
            value[0] if value else known[0], "choice", options=known, requires_grad=requires_grad, role=role
        )
