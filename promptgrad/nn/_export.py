"""`export`: what a `Predict` sends, as the body of a request, or as a Python function that sends the same bytes."""

from __future__ import annotations

import builtins
import inspect
import json
import re
from collections.abc import Collection, Mapping, Sequence
from keyword import iskeyword
from typing import Any, NamedTuple

from promptgrad._patterns import late_pattern
from promptgrad.adapters import Tool, written_as
from promptgrad.autograd import Selector, demos_for
from promptgrad.content import Audio, Document, File, History, Image
from promptgrad.errors import InputError, NoLMError
from promptgrad.lm import HTTP, Message, Prefix, Request, TextPart, resolve_lm
from promptgrad.nn import _exported
from promptgrad.nn._module import Module
from promptgrad.nn._predict import Predict
from promptgrad.signature import Field, Signature

_MEDIA: dict[str, type[Image | Audio | File]] = {"image": Image, "audio": Audio, "file": File}
_ONE = "export(format='openai', inputs=...) shows one call"
_TAKEN = {*dir(builtins), *vars(_exported)}
_CONTENT = "promptgradContentZ"
_ASKED = late_pattern(rf'\{{"role":"user","content":("(?:[^"\\]|\\.)*){_CONTENT}((?:[^"\\]|\\.)*")\}}')


def export(program: Module, format: str = "openai", inputs: Mapping[str, Any] | None = None) -> Any:
    """What a program's calls send, for use without promptgrad.

    "openai" gives the body of the request of a `Predict` with these inputs, as its LM sends it, parsed. Of a program
    with several, it is a mapping by their paths, and `inputs` are those of each path.

    "python" gives the source text of a module with a function for each `Predict` of the program, which needs the
    standard library alone. It sends the same bytes as the `Predict` does, and returns the text of the reply, or its
    message where that may call tools; how the program calls them is its own code. Inputs are texts, or values as JSON
    has them: a date is a text, a model is a dict with all of its fields in their order. The module says how images,
    sounds, files, documents, conversations and tools are given.

    Args:
        program: A `Predict`, or a program.
        format: "openai" or "python".
        inputs: The inputs, for "openai".

    Raises:
        ValueError: The format is another; or the prompt of a call cannot be told without its inputs, as where demos are
            chosen for each call, or an input holds images inside of another value; or its adapter does not take them.
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
        names[path] = _name_beside(_word(path.replace(".", "_")) or "predict", [*_TAKEN, *names.values()])
    functions = [_function(names[path], module) for path, module in found.items()]
    return "\n\n".join([inspect.getsource(_exported).rstrip("\n"), *functions])


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


class _Stand(NamedTuple):
    """What stands in a prompt in the place of an input, until there is its value.

    Attributes:
        kind: How the input stands there, as `written_as` says it.
        mark: A text that no prompt has.
        field: The input, such that the value fits.
        value: The value, which holds the mark.
        forms: The expressions that write the input, by what the prompt may show of the value.
    """

    kind: str
    mark: str
    field: Field
    value: Any
    forms: Mapping[str, str] = {}


def _stand_for(field: Field, mark: str, escaping: tuple[str, str]) -> _Stand:
    name, (kind, many) = field.name, written_as(field)
    escape = ", ".join(map(ascii, escaping))
    if kind == "text":
        return _Stand(kind, mark, field, mark, {mark: f"_text({name}, {escape})"})
    if kind == "json":
        value = f"_float({name})" if field.annotation in (float, float | None) else name
        any_value = field.replace(annotation=int, constraints={})
        return _Stand(kind, mark, any_value, mark, {f'"{mark}"': f"_json({value}, {escape})"})
    if kind == "document":
        shown = [Document(mark)] * 2 if many else Document(mark)
        text = f"document 1: {mark}\n\ndocument 2: {mark}" if many else mark
        forms = {text: f"_documents({name}, {escape})", field.dump_json(shown): f"_json({name}, {escape})"}
        return _Stand(kind, mark, field, shown, forms)
    if kind in _MEDIA:
        media = _MEDIA[kind](url=mark)
        forms = {mark * (2 if many else 1): f"_media({kind!r}, {name})"}
        return _Stand(kind, mark, field, [media] * 2 if many else media, forms)
    if kind == "turns":
        return _Stand(kind, mark, field, History())
    if kind == "tools":
        return _Stand(kind, mark, field, [Tool(None, name=mark)])
    raise ValueError(f"the prompt depends on what the input {name!r}, a {field.type_name}, holds: {_ONE}")


def _function(name: str, predict: Predict) -> str:
    """The source text of a function that sends what a `Predict` sends."""
    adapter, signature, http = predict._adapter_here(), predict._described(), _transport(predict)
    instruction, demos = predict.instruction.data, predict.demos.data
    if isinstance(demos, Selector):
        raise ValueError(f"the demos of {name!r} are chosen for each call: {_ONE}")
    if adapter.first_outputs is not None and "extract" not in dict(predict.named_children()):
        raise ValueError(f"{name!r} makes two calls, by the adapter of the context: give it to the Predict")
    escaping = adapter.format_with(signature, instruction).escaping
    if escaping is None:
        raise ValueError(f"the adapter of {name!r} does not say how it escapes inputs: {_ONE}")
    stands = {
        field.name: _stand_for(field, f"promptgradInput{number}Z", escaping)
        for number, field in enumerate(signature.inputs.values())
    }
    marked = [stands[key].field if key in stands else field for key, field in signature.fields.items()]
    json_inputs = {key for key, stand in stands.items() if stand.kind == "json"}
    shown = tuple({key: 0 if key in json_inputs else value for key, value in demo.items()} for demo in demos)
    compiled = adapter.compile(Signature(marked, signature.instruction, name=signature.name), instruction, shown)
    prefix = adapter.compile(signature, instruction, demos).prefix
    values = {key: stand.value for key, stand in stands.items()}
    try:
        asked = compiled.ask(values, predict.options)[1]
    except InputError as error:
        raise ValueError(f"the adapter of {name!r} does not take its inputs: {error}") from error
    begin, before, behind, end = _body_around(http, asked, prefix)
    pieces = _pieces(name, asked.tail[-1], stands)
    turns = [f"turns={key} or ()" for key, stand in stands.items() if stand.kind == "turns"]
    tools = {key: stand.value for key, stand in stands.items() if stand.kind == "tools"}
    if turns and before:
        turns.append(f"before={before!a}")
    elif before:
        pieces.insert(0, ascii(before))
    if behind:
        pieces.append(ascii(behind))
    rest = repr(end)
    if tools:
        bare = compiled.ask({**values, **dict.fromkeys(tools)}, predict.options)[1]
        rest = _with_tools(name, end, _body_around(http, bare, prefix)[3], tools)
    outputs = ", ".join(f"{key}: {field.type_name}" for key, field in signature.outputs.items())
    about = f"The {'message' if tools else 'reply'} of {http.model}, which holds {outputs}."
    about = about.encode("unicode_escape").decode("ascii").replace('"', r"\"")
    address = f"{http.base_url.rstrip('/')}/chat/completions"
    url, key = (_name_beside(word, signature.inputs) for word in ("url", "key"))
    arguments = ", ".join([*signature.inputs, f"{url}={address!r}", f"{key}=None"])
    messages = "".join(f"\n            {piece}," for piece in [*pieces, *turns])
    sent = f"""_send(
        {url},
        {begin!r}
        + _messages({messages}
        )
        + {rest},
        {key},
    )"""
    return f'''
def {name}({arguments}):
    """{about}"""
    return {sent if tools else f"_said({sent})"}
'''


def _body_around(http: HTTP, asked: Request, prefix: Prefix) -> tuple[str, str, str, str]:
    """A body in pieces: what is before the messages of the call, before and behind their content, and behind them."""
    marked = asked.replace(prefix=prefix, tail=(Message("user", _CONTENT),))
    begin, before, behind, end = _ASKED.split(http.body(marked).decode("ascii"))
    return begin, json.loads(f'{before}"'), json.loads(f'"{behind}'), end


def _with_tools(name: str, end: str, bare: str, tools: Mapping[str, Sequence[Tool]]) -> str:
    """The expression for the end of a body that shows tools, and is another one where there are none."""
    shown = _exported._options("", "", "", *([tool.to_dict() for tool in given] for given in tools.values()))
    left, found, right = end.partition(shown)
    if not found:
        raise ValueError(f"the body of {name!r} does not show its tools as they are")
    return f"_options({left!r}, {right!r}, {bare!r}, {', '.join(tools)})"


def _pieces(name: str, said: Message, stands: Mapping[str, _Stand]) -> list[str]:
    """The expressions for the texts and parts of a message."""
    forms = {form: written for stand in stands.values() for form, written in stand.forms.items()}
    text = "".join(part.text if isinstance(part, TextPart) else getattr(part, "url", "") for part in said.parts)
    pattern = "|".join(map(re.escape, sorted(forms, key=len, reverse=True)))
    found = re.split(f"({pattern})", text) if forms else [text]
    for key, stand in stands.items():
        is_shown = not stand.forms or not stand.forms.keys().isdisjoint(found)
        if not is_shown or any(stand.mark in part for part in found if part not in forms):
            raise ValueError(f"the prompt of {name!r} does not show its input {key!r} as it is")
    return [forms.get(part, ascii(part)) for part in found if part]
