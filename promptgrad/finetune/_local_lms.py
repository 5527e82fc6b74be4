"""The local models that a program runs on, and what of them a training changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeAlias

from promptgrad import lm
from promptgrad.errors import NoLMError
from promptgrad.finetune._place import is_served, transport_of
from promptgrad.nn import Module, Predict

LORA: Mapping[str, Any] = MappingProxyType({"r": 8, "alpha": 16})
"""The LoRA that is trained by default: rank 8 on all linear layers."""


def local_lm(program: Module) -> tuple[lm.Local, tuple[str, ...]]:
    """The local model that a program runs on, and the paths of the modules on it.

    Raises:
        NoLMError: There is no local model, or there are several.
    """
    found = _found(program)
    if len(found) > 1:
        raise _several(found)
    return found[0]


Places: TypeAlias = Sequence[tuple[lm.Local, tuple[str, ...]]]
"""Local models, each with the paths of the modules on it."""


def local_lms(program: Module, lora: Mapping[str, Any] | str | None = LORA) -> Places:
    """What a training changes: the one local model of a program, or its LoRAs and soft prompts; the modules on each.

    Args:
        program: The program.
        lora: The argument of that name; a name means the LoRA of that name.

    Raises:
        NoLMError: There is no local model, there are several that share no weights, or no LoRA has that name.
        TypeError: It is no program.
        ValueError: Options are given for a LoRA that is made already.
    """
    found = _found(program)
    if len({id(local.base) for local, _ in found}) > 1:
        raise _several(found)
    adapted = [(local, paths) for local, paths in found if local.base is not local]
    if isinstance(lora, str):
        named = [place for place in adapted if place[0].title == lora]
        if not named and len(adapted) < len(found):
            return [place for place in found if place[0].base is place[0]]
        if not named:
            names = ", ".join(repr(local.title) for local, _ in adapted)
            raise NoLMError(f"no module runs on a LoRA {lora!r} or on the model without one: there are {names}")
        return named
    if not adapted:
        return found
    if lora is not LORA and lora != LORA:
        raise ValueError(
            f"the program runs on {adapted[0][0].name!r}, whose LoRA is trained as it is, as a soft prompt is. "
            "The options of a LoRA are those of lm.lora(name, r=...); all weights are trained on a program on the base"
        )
    return adapted


def _found(program: Module) -> list[tuple[lm.Local, tuple[str, ...]]]:
    if not isinstance(program, Module):
        raise TypeError(f"a program is a Module, such as nn.Predict or a class of your own, not {program!r}")
    found: dict[int, tuple[lm.Local, list[str]]] = {}
    for path, module in program.named_modules():
        if isinstance(module, Predict):
            local = transport_of(module, lm.Local)
            if local is not None:
                found.setdefault(id(local), (local, []))[1].append(path)
    if not found:
        raise NoLMError(
            "the program runs on the model of a server, which has its weights: finetune.job(program, data) has it "
            "trained there"
            if is_served(program)
            else "the program runs on no local model, so there are no weights to train: move it with "
            ".to(promptgrad.lm.Local('path or name of a Hugging Face model')), or .to('pocket') for the embedded one"
        )
    return [(local, tuple(paths)) for local, paths in found.values()]


def _several(found: Places) -> NoLMError:
    names = ", ".join(repr(local.name) for local, _ in found)
    return NoLMError(
        f"the program runs on {len(found)} local models ({names}): fine-tune the modules of each on their own, or let "
        "them share one base with a LoRA each: module.to(local.lora('a'))"
    )
