"""Where a program runs: its models, the modules on them, and the same program on others."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TypeVar

from promptgrad import lm
from promptgrad.errors import NoLMError
from promptgrad.nn import Module, Predict

T = TypeVar("T", bound=lm.LM)


def transport_of(module: Predict, kind: type[T]) -> T | None:
    """The model that a module runs on here, with its soft prompt, if it is of this kind."""
    try:
        transport = module.lm_of_call().transport
    except NoLMError:
        return None
    return transport if isinstance(transport, kind) else None


def is_served(program: Module) -> bool:
    """Whether a program runs on a model of a server, whose weights are there, and on no local one."""
    predicts = [module for module in program.modules() if isinstance(module, Predict)]
    return not any(transport_of(module, lm.Local) for module in predicts) and any(
        transport_of(module, lm.HTTP) for module in predicts
    )


def served_lms(program: Module) -> tuple[tuple[lm.HTTP, ...], tuple[str, ...]]:
    """The LMs by which a program reaches the one model of a server, and the paths of the modules on it.

    Raises:
        NoLMError: It runs on no model of a server that speaks OpenAI's dialect, or on several.
    """
    found: dict[str, tuple[dict[int, lm.HTTP], list[str]]] = {}
    for path, module in program.named_modules():
        http = transport_of(module, lm.HTTP) if isinstance(module, Predict) else None
        if http is not None:
            https, paths = found.setdefault(http.endpoint, ({}, []))
            https[id(http)] = http
            paths.append(path)
    if not found:
        raise NoLMError(
            "the program runs on no model of a server with OpenAI's dialect, so there is no one to give a job to: move "
            "it with .to('openai/...'), or .to(promptgrad.LM('name', base_url=..., api_key=...)). A local model is "
            "trained by finetune.sft"
        )
    if len(found) > 1:
        raise NoLMError(
            f"the program runs on {len(found)} models ({', '.join(found)}): give a job for the modules of each alone"
        )
    ((https, paths),) = found.values()
    return tuple(https.values()), tuple(paths)


def moved(program: Module, made: Mapping[int, lm.LM]) -> Module:
    """A copy of the program in which LMs are replaced wherever they are used; the layers around them stay.

    Args:
        program: The program.
        made: The replacement of each LM, by the id of the LM.
    """
    changed = copy.deepcopy(program)
    layers = dict(made)
    for path, module in changed.named_modules():
        soft = module._parameters.get("soft_prompt")
        if soft is not None:
            before = program.get_submodule(path)
            new = made.get(id(transport_of(before, lm.LocalSoft))) if isinstance(before, Predict) else None
            if isinstance(new, lm.LocalSoft):
                soft.data = new.tokens
        elif module.lm is not None:
            if id(module.lm.transport) in made:
                module._lm = lm.layered(module.lm, layers)
        elif isinstance(module, Predict) and (old := transport_of(module, lm.LM)) is not None and id(old) in made:
            module._lm = lm.layered(lm.resolve_lm(None, None), layers)  # the old one came from the context
    return changed
