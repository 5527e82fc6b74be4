"""`export`: what a `Predict` sends, as the body of a request, or as a Python function that sends the same bytes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

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
    program calls them is its own code. Inputs are texts, or values of JSON types.

    Args:
        program: A `Predict`, or a program.
        format: "openai" or "python".
        inputs: The inputs, for "openai".

    Raises:
        ValueError: The format is another, or the prompt of a call cannot be told without its inputs: demos that are
            chosen for each call, tools, images, earlier turns; or a fixed format sends values that are no texts.
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
    functions = [_function(path, module) for path, module in found.items()]
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
    return compiled.ask(predict._checked(call.inputs), call.options)[1]


def _body(predict: Predict, inputs: Mapping[str, Any]) -> bytes:
    return _transport(predict).body(_request(predict, inputs))


def _function(path: str, predict: Predict) -> str:
    """The source text of a function that sends what a `Predict` sends."""
    name = path.replace(".", "_") or "predict"
    adapter, signature = predict._adapter_here(), predict._described()
    if isinstance(predict.demos.data, Selector):
        raise ValueError(
            f"the demos of {name!r} are chosen for each call: export(format='openai', inputs=...) shows one"
        )
    if adapter.first_outputs is not None:
        raise ValueError(f"{name!r} makes two calls: export it with another adapter")
    form = adapter.format_with(signature, predict.instruction.data)
    if form.escaping is None:
        raise ValueError(f"the prompt of {name!r} depends on its inputs: export one with format='openai', inputs=...")
    plain = [
        field.replace(annotation=str, constraints={}) if field.role == "input" else field
        for field in signature.fields.values()
    ]
    shadow = Signature(plain, signature.instruction, name=signature.name)
    compiled = adapter.compile(signature, predict.instruction.data, predict.demos.data)
    places = {name: f"promptgradInput{number}Z" for number, name in enumerate(signature.inputs)}
    tail = adapter.compile(shadow, predict.instruction.data, predict.demos.data).request_tail(places)
    http = _transport(predict)
    text = http.body(compiled.ask(places, predict.options)[1].replace(tail=tail)).decode("ascii")
    names = {place: field for field, place in places.items()}
    for place, field in names.items():
        if text.count(place) != 1:
            raise ValueError(f"the prompt of {name!r} shows its input {field!r} {text.count(place)} times, not once")
    parts = re.split(f"({'|'.join(names)})", text) if names else [text]
    pieces = [f"_text({names[part]})" if part in names else repr(part) for part in parts]
    pattern, replacement = form.escaping
    outputs = ", ".join(f"{key}: {field.type_name}" for key, field in signature.outputs.items())
    body = "\n        + ".join(pieces)
    url = f"{http.base_url.rstrip('/')}/chat/completions"
    return f'''
def {name}({", ".join(signature.inputs)}, url={url!r}, key=None):
    """The reply of {http.model}, which holds {outputs}."""

    def _text(value):
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        return json.dumps(re.sub({pattern!r}, {replacement!r}, text) if {pattern!r} else text)[1:-1]

    body = (
        {body}
    )
    return _send(url, body, key)
'''


_HEAD = '''"""Calls of a language model, as promptgrad sends them. It needs the standard library alone."""

import json
import os
import re
import urllib.request


def _send(url, body, key):
    """Send a body, and return the text of the reply, or the arguments of the function that it calls."""
    headers = {"Content-Type": "application/json"}
    key = key or os.environ.get("OPENAI_API_KEY")
    if key:
        headers["Authorization"] = f"Bearer {key}"
    asked = urllib.request.Request(url, data=body.encode("ascii"), headers=headers)
    with urllib.request.urlopen(asked) as answer:
        message = json.load(answer)["choices"][0]["message"]
    calls = message.get("tool_calls")
    return calls[0]["function"]["arguments"] if calls and not message.get("content") else message["content"]
'''
