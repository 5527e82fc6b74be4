"""Calls of a language model, as promptgrad sends them. It needs the standard library alone.

A text is given as it is, other values as JSON has them: a date is a text, a model a dict with all of its fields in
their order. An image, a sound or a file is an address or a `data:` URL, bytes, a `pathlib.Path`, or a dict such as
{"type": "image", "media_type": "image/png", "data": "(base64)", "detail": "low"}; a document is a text, or a dict with
"text" and "title". A conversation is a list of {"role": "user" or "assistant", "content": ...}, where the content is a
text, or a list of texts and of dicts of images, sounds and files. A tool is a dict with "name", "description" and
"parameters".
"""

import base64 as _base64
import json as _json_of
import mimetypes as _mimetypes
import os as _os
import re as _re
import urllib.parse as _parse
import urllib.request as _request
from typing import Any as _Any

_STARTS = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF87a": "image/gif",
    b"GIF89a": "image/gif",
    b"BM": "image/bmp",
    b"II*\x00": "image/tiff",
    b"MM\x00*": "image/tiff",
    b"%PDF-": "application/pdf",
    b"ID3": "audio/mpeg",
    b"\xff\xfb": "audio/mpeg",
    b"\xff\xf3": "audio/mpeg",
    b"\xff\xf2": "audio/mpeg",
    b"fLaC": "audio/flac",
    b"OggS": "audio/ogg",
}
_WITHIN = {
    (b"RIFF", b"WEBP"): "image/webp",
    (b"RIFF", b"WAVE"): "audio/wav",
    (b"ftyp", b"avif"): "image/avif",
    (b"ftyp", b"heic"): "image/heic",
    (b"ftyp", b"mif1"): "image/heif",
    (b"ftyp", b"M4A "): "audio/mp4",
}
_FORMATS = {"mpeg": "mp3", "x-wav": "wav", "wave": "wav", "vnd.wave": "wav", "mp4": "m4a", "x-m4a": "m4a"}


def _text(text: str, looks_like: str, instead: str) -> str:
    """A text in which nothing looks like the form of the prompt."""
    return _re.sub(looks_like, instead, text) if looks_like else text


def _json(value: _Any, looks_like: str, instead: str) -> str:
    """A value as JSON, in which half a character is its number."""
    text = _json_of.dumps(value, ensure_ascii=False, separators=(",", ":"))
    text = _re.sub(r'"(?:[^"\\]|\\.)*"|-?[\d.]+e-0\d|NaN|-?Infinity', _number, text)
    return _text(_re.sub("[\ud800-\udfff]", lambda half: f"\\u{ord(half[0]):04x}", text), looks_like, instead)


def _number(found: _re.Match[str]) -> str:
    """A number that pydantic writes otherwise than Python: "NaN", 0.000015 for 1.5e-05 and 1e-7 for 1e-07."""
    text = found[0]
    if text.endswith(("NaN", "Infinity")):
        return f'"{text}"'
    if not text.endswith("e-05"):
        return text if text[0] == '"' else text.replace("e-0", "e-")
    digits = text.removesuffix("e-05").replace(".", "")
    return f"-0.0000{digits[1:]}" if digits[0] == "-" else f"0.0000{digits}"


def _float(value: float | None) -> float | None:
    """A number with its decimal point."""
    return value if value is None else float(value)


def _documents(value: _Any, looks_like: str, instead: str) -> str:
    """A document, or several with their numbers."""
    many = value if isinstance(value, (list, tuple)) else [value]
    if value is None or not many:
        return _json(value, looks_like, instead)
    texts = []
    for one in many:
        title, text = ("", one) if isinstance(one, str) else (one.get("title"), one["text"])
        texts.append(f"{title}\n{text}" if title else text)
    if many is value:
        texts = [f"document {number}: {text}" for number, text in enumerate(texts, 1)]
    return _text("\n\n".join(texts), looks_like, instead)


def _media(kind: str, value: _Any) -> _Any:
    """Images, sounds or files as parts of a message; a text where there is none."""
    many = value if isinstance(value, (list, tuple)) else [value]
    return _json_of.dumps(value) if value is None or not many else [_part(kind, one) for one in many]


def _part(kind: str, value: _Any) -> dict[str, _Any]:
    """An image, a sound or a file as a part of a message."""
    given: dict[str, _Any] = value if isinstance(value, dict) else {}
    url, name, media_type = given.get("url", ""), given.get("name", ""), given.get("media_type", "")
    data = _base64.b64decode(given.get("data", ""))
    if isinstance(value, str):
        url = value
        if not _re.match("(?i)(https?|gs|s3|data):", url):
            raise ValueError(f"{url[:60]!r} is no address: a file is given as a pathlib.Path")
    elif isinstance(value, _os.PathLike):
        with open(value, "rb") as file:
            data = file.read()
        name = _os.path.basename(value)
        media_type = _type_of_file(name, data)
    elif not given:
        data = bytes(value)
    if url[:5].lower() == "data:":
        head, _, body = url[5:].partition(",")
        media_type, *flags = head.split(";")
        media_type = media_type or "text/plain"
        data = _base64.b64decode(body) if "base64" in flags else _parse.unquote_to_bytes(body)
        url = ""
    media_type = media_type or _type_of(data) or (_mimetypes.guess_type(name)[0] or "")
    if not url and not (media_type and media_type.startswith({"image": "image/", "audio": "audio/"}.get(kind, ""))):
        raise ValueError(f"the type of the {kind} is {media_type or 'not known'}; its bytes begin with {data[:12]!r}")
    text = _base64.b64encode(data).decode("ascii")
    address = url or f"data:{media_type};base64,{text}"
    if kind == "image":
        detail = {"detail": given["detail"]} if given.get("detail") else {}
        return {"type": "image_url", "image_url": {"url": address, **detail}}
    if kind == "audio" and url:
        return {"type": "audio_url", "audio_url": {"url": url}}
    if kind == "audio":
        form = media_type.partition("/")[2]
        return {"type": "input_audio", "input_audio": {"data": text, "format": _FORMATS.get(form, form)}}
    named = {"filename": name} if name else {}
    return {"type": "file", "file": {**named, ("file_id" if url else "file_data"): address}}


def _type_of(data: bytes) -> str:
    """The media type that the first bytes tell; empty where they do not."""
    for start, kind in _STARTS.items():
        if data.startswith(start):
            return kind
    return _WITHIN.get((data[:4], data[8:12])) or _WITHIN.get((data[4:8], data[8:12])) or ""


def _type_of_file(name: str, data: bytes) -> str:
    """The media type of a file: that of its first bytes for what is seen or heard, else that of its name."""
    named, told = _mimetypes.guess_type(name)[0] or "", _type_of(data)
    family = named.partition("/")[0]
    seen = family in ("image", "audio", "video") and told.startswith(f"{family}/") and told != "audio/mpeg"
    return told if seen else named or told


def _messages(*pieces: _Any, turns: _Any = (), before: str = "") -> str:
    """The messages of a call as JSON: earlier turns, and texts and parts. Two of one side in a row are one."""
    told: list[tuple[str, list[_Any]]] = []
    for role, said in [*map(_turn, turns), ("user", pieces)]:
        if told and told[-1][0] == role:
            told[-1][1].extend(["\n\n", *said])
        else:
            told.append((role, [*said]))
    next(said for role, said in told if role == "user").insert(0, before)
    messages = [{"role": role, "content": _content(said)} for role, said in told]
    return _json_of.dumps(messages, separators=(",", ":"))[1:-1]


def _turn(turn: _Any) -> tuple[str, list[_Any]]:
    """Who speaks in an earlier turn, and what is said."""
    if not isinstance(turn, dict) or {*turn} != {"role", "content"} or turn["role"] not in ("user", "assistant"):
        raise ValueError(f"a turn is {{'role': 'user' or 'assistant', 'content': ...}}, not {repr(turn)[:60]}")
    content = turn["content"]
    said = []
    for part in content if isinstance(content, (list, tuple)) else [content]:
        kind = part.get("type") if isinstance(part, dict) else ""
        said.append([_part(kind, part)] if kind in ("image", "audio", "file") else part["text"] if kind else part)
    return turn["role"], said


def _content(pieces: list[_Any]) -> _Any:
    """Texts, and lists of parts, as the content of a message: a text where there is nothing else."""
    parts: list[dict[str, _Any]] = []
    for piece in pieces:
        for part in [{"type": "text", "text": piece}] if isinstance(piece, str) else piece:
            if parts and part["type"] == parts[-1]["type"] == "text":
                parts[-1] = {"type": "text", "text": parts[-1]["text"] + part["text"]}
            elif part != {"type": "text", "text": ""}:
                parts.append(part)
    is_text = all(part["type"] == "text" for part in parts)
    return "".join(part["text"] for part in parts) if is_text else parts


def _options(before: str, behind: str, without: str, *values: _Any) -> str:
    """The options of a request with tools in them as JSON, or those of one without a tool."""
    made = []
    for tool in [tool for value in values for tool in (value if isinstance(value, (list, tuple)) else [value])]:
        if tool is not None:
            inner = tool.get("function", tool)
            about = {"description": inner["description"]} if inner.get("description") else {}
            schema = {"type": "object", **(inner.get("parameters") or {})}
            schema = {**schema, "type": "object", "properties": schema.get("properties") or {}}
            made.append({"type": "function", "function": {"name": inner["name"], **about, "parameters": schema}})
    return f"{before}{_json_of.dumps(made, separators=(',', ':'))}{behind}" if made else without


def _send(url: str, body: str, key: str | None) -> dict[str, _Any]:
    """Send a body, and return the message of the reply."""
    headers = {"Content-Type": "application/json"}
    key = key or _os.environ.get("OPENAI_API_KEY")
    if key:
        headers["Authorization"] = f"Bearer {key}"
    asked = _request.Request(url, data=body.encode("ascii"), headers=headers)
    with _request.urlopen(asked) as answer:
        message: dict[str, _Any] = _json_of.load(answer)["choices"][0]["message"]
    return message


def _said(message: dict[str, _Any]) -> _Any:
    """The text of a message, or the arguments of the function that it calls."""
    calls = message.get("tool_calls")
    return calls[0]["function"]["arguments"] if calls and not message.get("content") else message["content"]
