"""`export`: what a `Predict` sends, as the body of a request, or as a Python function that sends the same bytes."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from keyword import iskeyword
from typing import Any

from promptgrad.adapters import written_as
from promptgrad.autograd import Selector, demos_for
from promptgrad.errors import InputError, NoLMError
from promptgrad.lm import HTTP, Request, resolve_lm
from promptgrad.nn._module import Module
from promptgrad.nn._predict import Predict
from promptgrad.signature import Signature


def export(program: Module, format: str = "openai", inputs: Mapping[str, Any] | None = None) -> Any:
    """What a program's calls send, for use without promptgrad.

    "openai" gives the body of the request of a `Predict` with these inputs, as its LM sends it, parsed. Of a program
    with several, it is a mapping by their paths, and `inputs` are those of each path.

    "python" gives the source text of a module with a function for each `Predict` of the program, which needs the
    standard library alone. It sends the same bytes as the `Predict` does, and returns the text of the reply; how the
    program calls them is its own code. Inputs are texts, or values as JSON has them: a date is a text, a model is a
    dict with all of its fields in their order.

    Args:
        program: A `Predict`, or a program.
        format: "openai" or "python".
        inputs: The inputs, for "openai".

    Raises:
        ValueError: The format is another, or the prompt of a call cannot be told without its inputs: demos that are
            chosen for each call, tools, images, documents, earlier turns; or a fixed format sends values that are no
            texts.
        InputError: An input is missing, unknown or of the wrong type.
    """
    found = {path: module for path, module in program.named_modules() if isinstance(module, Predict)}
    if format == "openai":
        given = dict(inputs or {})
        if list(found) == [""]:
            return json.loads(_body(found[""], given))
        missing = [path for path in found if path not in given]
        if missing:
            raise InputError(f"inputs= holds those of each module by its path, and {missing[0]!r} is missing")
        return {path: json.loads(_body(module, given[path])) for path, module in found.items()}
    if format != "python":
        raise ValueError(f"format is 'openai' or 'python', not {format!r}")
    names: dict[str, str] = {}
    for path in found:
        names[path] = _name_beside(_word(path.replace(".", "_")) or "predict", names.values())
    functions = [_function(names[path], module) for path, module in found.items()]
    return "\n\n".join([_HEAD.rstrip("\n"), *functions])


def _transport(predict: Predict) -> HTTP:
    try:
        found: Any = resolve_lm(None, predict._lm).transport
    except NoLMError:
        found = None
    return found if isinstance(found, HTTP) else HTTP(getattr(found, "name", "MODEL"), "https://api.openai.com/v1")


def _request(predict: Predict, inputs: Mapping[str, Any]) -> Request:
    """The request of a call, with all of its options."""
    call = predict._sort_arguments((), dict(inputs))
    compiled = predict._adapter_here().compile(
        predict._described(), predict.instruction.data, demos_for(predict.demos.data, call.inputs)
    )
    return compiled.ask(predict._taken.checked(predict, call.inputs), call.options)[1]


def _body(predict: Predict, inputs: Mapping[str, Any]) -> bytes:
    return _transport(predict).body(_request(predict, inputs))


def _word(text: str) -> str:
    """A text as a name of Python."""
    name = re.sub(r"\W", "_", text)
    return f"_{name}" if iskeyword(name) or name[:1].isdigit() else name


def _name_beside(name: str, taken: Collection[str]) -> str:
    while name in taken:
        name += "_"
    return name


def _function(name: str, predict: Predict) -> str:
    """The source text of a function that sends what a `Predict` sends."""
    adapter, signature = predict._adapter_here(), predict._described()
    if isinstance(predict.demos.data, Selector):
        raise ValueError(
            f"the demos of {name!r} are chosen for each call: export(format='openai', inputs=...) shows one"
        )
    if adapter.first_outputs is not None and "extract" not in dict(predict.named_children()):
        raise ValueError(f"{name!r} makes two calls, by the adapter of the context: give it to the Predict")
    kinds = {field: written_as(signature.inputs[field]) for field in signature.inputs}
    form = adapter.format_with(signature, predict.instruction.data)
    if form.escaping is None or "parts" in kinds.values():
        raise ValueError(f"the prompt of {name!r} depends on its inputs: export one with format='openai', inputs=...")
    marks = {field: f"promptgradInput{number}Z" for number, field in enumerate(kinds)}
    marked = [  # whose inputs take a mark in place of any value
        field.replace(annotation=int, constraints={}) if kinds.get(field.name) == "json" else field
        for field in signature.fields.values()
    ]
    shadow = Signature(marked, signature.instruction, name=signature.name)
    instruction, demos = predict.instruction.data, predict.demos.data
    shown = tuple({key: 0 if kinds.get(key) == "json" else value for key, value in demo.items()} for demo in demos)
    asked = adapter.compile(shadow, instruction, shown).ask(marks, predict.options)[1]
    compiled = adapter.compile(signature, instruction, demos)
    http = _transport(predict)
    text = http.body(asked.replace(prefix=compiled.prefix)).decode("ascii")
    names = {mark if kinds[field] == "text" else f'\\"{mark}\\"': field for field, mark in marks.items()}
    for mark, field in names.items():
        if mark not in text:
            raise ValueError(f"the prompt of {name!r} does not show its input {field!r} as it is")
    parts = re.split(f"({'|'.join(map(re.escape, names))})", text) if names else [text]
    pieces = [_piece(names[part], signature, kinds, form.escaping) if part in names else repr(part) for part in parts]
    outputs = ", ".join(f"{key}: {field.type_name}" for key, field in signature.outputs.items())
    body = "\n        + ".join(pieces)
    address = f"{http.base_url.rstrip('/')}/chat/completions"
    url, key = (_name_beside(word, signature.inputs) for word in ("url", "key"))
    arguments = ", ".join([*signature.inputs, f"{url}={address!r}", f"{key}=None"])
    return f'''
def {name}({arguments}):
    """The reply of {http.model}, which holds {outputs}."""
    return _send(
        {url},
        {body},
        {key},
    )
'''


def _piece(field: str, signature: Signature, kinds: Mapping[str, str], escaping: tuple[str, str]) -> str:
    """The expression for what stands in the body in place of an input."""
    if kinds[field] == "text":
        return f"_text({field}, *{escaping!r})"
    value = f"float({field})" if signature.inputs[field].annotation is float else field
    return f"_json({value}, *{escaping!r})"


_HEAD = '''"""Calls of a language model, as promptgrad sends them. It needs the standard library alone."""

import json as _json_of
import os as _os
import re as _re
import urllib.request as _request


def _text(text, looks_like, instead):
    """A text inside of a JSON text, in which nothing looks like the form of the prompt."""
    return _json_of.dumps(_re.sub(looks_like, instead, text) if looks_like else text)[1:-1]


def _json(value, looks_like, instead):
    """A value as JSON, inside of a JSON text."""
    return _text(_json_of.dumps(value, ensure_ascii=False, separators=(",", ":")), looks_like, instead)


def _send(url, body, key):
    """Send a body, and return the text of the reply, or the arguments of the function that it calls."""
    headers = {"Content-Type": "application/json"}
    key = key or _os.environ.get("OPENAI_API_KEY")
    if key:
        headers["Authorization"] = f"Bearer {key}"
    asked = _request.Request(url, data=body.encode("ascii"), headers=headers)
    with _request.urlopen(asked) as answer:
        message = _json_of.load(answer)["choices"][0]["message"]
    calls = message.get("tool_calls")
    return calls[0]["function"]["arguments"] if calls and not message.get("content") else message["content"]
'''
