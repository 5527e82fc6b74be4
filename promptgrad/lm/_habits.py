"""`Habits`: what an endpoint does not take, learnt from its errors once, and requests written without it."""

from __future__ import annotations

import json
import re
import threading
import warnings
from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache

from promptgrad import run
from promptgrad._patterns import late_pattern
from promptgrad.errors import BadRequestError, LMStatusError
from promptgrad.lm._completion import Completion
from promptgrad.lm._message import EMPTY_PREFIX, Message
from promptgrad.lm._parts import Content, Part, TextPart
from promptgrad.lm._request import Request
from promptgrad.lm._status import told

DONE_INSTEAD = {
    "system": "system messages go into the first user message",
    "json_schema": "a JSON object is asked for, and its schema in words",
    "response_format": "the form of the reply is asked for in words",
    "top_p": "it chooses its own",
    "temperature": "it chooses its own",
    "seed": "replies need not repeat",
    "max_tokens": "max_completion_tokens is sent in its place",
    "max_completion_tokens": "max_tokens is sent in its place",
    "stream_options": "tokens of a stream are estimated",
    "n": "each sample is asked for by itself",
    "stop": "replies are cut at its texts when they are there",
    "logprobs": "replies have no log-probabilities",
    "reasoning_effort": "it thinks as much as it does by itself",
    "tool_choice": "it chooses by itself whether to call a tool",
    "parallel_tool_calls": "it may call several tools at once",
    "frequency_penalty": "it chooses its own",
    "presence_penalty": "it chooses its own",
}
"""What an endpoint may lack, and what is done about it. These are the names that `without=` takes."""

_NO = (
    r"not\ (?:\w+\ ){0,3}(?:support|enabl|allow|permit|accept|availab|recogni|compatible)\w*|"
    r"n't\ (?:support|accept|allow)|"
    r"unsupported|unavailable|unknown|unrecogni[sz]ed|unexpected|forbidden|deprecated|disabled|extra\ inputs|"
    r"only\ (?:the\ )?(?:default|n\ =\ \d|\d)|must\ be\ (?:exactly\ |at\ most\ )?(?:one\ of|'|\"|text|json|1\b)|"
    r"may\ only\ be|failed\ to\ (?:parse|compile)|compilation\ failed|too\ complex|"
    r"cannot\ both|can't\ both|invalid\ value|"
    r"incorrect\ role|use\ 'max"
)
_REFUSED = late_pattern(_NO, re.VERBOSE)
_FORM = late_pattern(
    r"response[_ ]format|json[_ ]schema|json[_ ]object|json[_ -]mode|structured[_ ]output|guided|grammar"
)
_NO_FORM_AT_ALL = late_pattern(
    r"(?:unknown|unrecogni[sz]ed|unexpected|forbidden|extra\ inputs).{0,80}response_format"
    r"|response_format.{0,80}(?:forbidden|unexpected|extra\ inputs)|must\ be.{0,20}json_schema"
    r"|json_object.{0,40}not",
    re.VERBOSE | re.DOTALL,
)
_NAMED = {
    "system": late_pattern(
        r"\bsystem\b.{0,60}(?:role|message|prompt|instruction|not)|(?:role|message)s?\b.{0,40}\bsystem\b"
        r"|developer\ instruction|user.{0,12}assistant|roles\ must\ alternate|incorrect\ role",
        re.VERBOSE | re.DOTALL,
    ),
    "response_format": _FORM,
    "json_schema": _FORM,
    "max_completion_tokens": late_pattern(r"\bmax_completion_tokens\b"),
    "max_tokens": late_pattern(r"\bmax_tokens\b"),
    "top_p": late_pattern(r"\btop_p\b"),
    "temperature": late_pattern(r"\btemperature\b"),
    "seed": late_pattern(r"\bseed\b"),
    "stream_options": late_pattern(r"\bstream_options\b"),
    "stop": late_pattern(
        r"""['"`]stop(?:_sequences?)?['"`]|\bstop[ _](?:sequence|word|token|parameter)|(?:parameter|model):?\ stop\b"""
    ),
    "logprobs": late_pattern(r"\b(?:top_)?logprobs?\b|\blog[ -]prob"),
    "reasoning_effort": late_pattern(
        r"reasoning[ _.]?effort|\bdoes\ not\ support\ thinking|(?:reasoning|thinking)\ is\ not", re.VERBOSE
    ),
    "tool_choice": late_pattern(r"\btool[ _]choice\b"),
    "parallel_tool_calls": late_pattern(r"\bparallel[ _]tool[ _]calls?\b"),
    "frequency_penalty": late_pattern(r"\bfrequency[ _]?penalty\b"),
    "presence_penalty": late_pattern(r"\bpresence[ _]?penalty\b"),
    "n": late_pattern(r"""['"`]n['"`]|\bn\b\s*(?:=|:|>|value|must|greater|is\ not)|parameters?:?\ n\b""", re.VERBOSE),
}
_ROLES = late_pattern(r"roles must alternate|only user|input should be 'user'|'user' or 'assistant'")
_ITS_FAULT = late_pattern(
    r"invalid schema|schema is invalid|too large|too long|at least|greater than|less than|maximum context|"
    r"between \S+ and"
)
_EXTRA = {
    "logprobs": ("logprobs", "top_logprobs"),
    **{name: (name,) for name in ("reasoning_effort", "tool_choice", "parallel_tool_calls")},
    **{name: (name,) for name in ("frequency_penalty", "presence_penalty")},
}
"""Names of lacks among the further fields of a request."""

_known: dict[tuple[str, str], frozenset[str]] = {}  # by endpoint and model
_lock = threading.Lock()


class Habits:
    """What one endpoint with one model does not take. All LMs of the process that ask there share what is learnt.

    Args:
        where: The endpoint.
        model: The model.
        without: What it is known to lack from the start.

    Attributes:
        lacks: What it lacks, as far as is known.

    Raises:
        ValueError: `without` has an unknown name.
    """

    def __init__(self, where: str, model: str, without: Iterable[str] = ()) -> None:
        names = (without,) if isinstance(without, str) else tuple(without)
        unknown = [name for name in names if name not in DONE_INSTEAD]
        if unknown:
            raise ValueError(f"without= names {', '.join(DONE_INSTEAD)}; not {', '.join(map(repr, unknown))}")
        self._place = (where, model)
        known = _known.get(self._place, frozenset())
        learnt = known & _OTHER.keys()  # what was seen counts before what was said
        self.lacks = (frozenset(names) | known) - {_OTHER[name] for name in sorted(learnt)[:1]}

    def learn(self, error: LMStatusError | str, request: Request, sent: frozenset[str]) -> bool:
        """Learn from an error what the endpoint lacks; return whether the request can be written without it.

        Args:
            error: The error, or its text.
            request: The request that it answers.
            sent: What the request was written without.
        """
        was_sent = isinstance(error, LMStatusError)
        if isinstance(error, LMStatusError):
            if type(error) not in (BadRequestError, LMStatusError) or not 400 <= error.status < 600:
                return False
            error = error.body
        found = _diagnose(told(error), request, sent)
        if found is None:
            return False
        other = _OTHER.get(found, "")
        with _lock:
            known = _known.get(self._place, frozenset())
            if found in known and other in sent:
                return False  # it takes neither
            _known[self._place] = known | {found}
            self.lacks = (self.lacks | known | {found}) - {other}
        if found not in known:
            where, model = self._place
            warnings.warn(
                f"{model!r}{f' at {where}' if where else ''} does not take {_TAKES.get(found, found)}: from now on "
                f"{DONE_INSTEAD[found]}. This is said once; without=[{found!r}], given to the LM, "
                "says it from the start",
                stacklevel=2,
            )
        session = run.current()
        if session is not None and was_sent:
            session.ledger.refused()
        return True


_TAKES = {
    "system": "system messages",
    "temperature": "a temperature",
    "seed": "a seed",
    "n": "a number of samples (n)",
    "stop": "texts at which it stops (stop)",
    "logprobs": "a request for log-probabilities (logprobs)",
    "json_schema": "a JSON schema as response_format",
}
_OTHER = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}


def _diagnose(text: str, request: Request, sent: frozenset[str]) -> str | None:
    used = _used(request, sent) - sent
    if "system" in used and _NAMED["system"].search(text) and (_REFUSED.search(text) or _ROLES.search(text)):
        return "system"
    if not _REFUSED.search(text) or _ITS_FAULT.search(text):
        return None
    if "max_tokens" in used and "max_completion_tokens" in text:
        return "max_tokens"  # it names the other one
    for name in DONE_INSTEAD:
        if name != "system" and name in used and _NAMED[name].search(text):
            return "response_format" if name == "json_schema" and _NO_FORM_AT_ALL.search(text) else name
    return None


def _used(request: Request, sent: frozenset[str]) -> frozenset[str]:
    used = {name for name in ("temperature", "top_p", "seed", "response_format") if getattr(request, name) is not None}
    if "json_schema" not in sent and _schema_of(request.response_format) is not None:
        used = used - {"response_format"} | {"json_schema"}
    if any(message.role == "system" for message in request.messages):
        used.add("system")
    if request.stop:
        used.add("stop")
    further = {name for name, _ in request.extra}
    used |= {name for name, fields in _EXTRA.items() if not further.isdisjoint(fields)}
    if request.max_tokens is not None:
        used.add("max_completion_tokens" if "max_tokens" in sent else "max_tokens")
    if request.listener is not None:
        used.add("stream_options")
    elif request.samples > 1:
        used.add("n")
    return frozenset(used)


def written_without(request: Request, lacks: frozenset[str]) -> Request:
    """Return the request as an endpoint that lacks these takes it."""
    options = {name: value for name, value in request.options().items() if name not in lacks or name == "max_tokens"}
    if "n" in lacks:
        options.pop("samples", None)
    left_out = {field for name in lacks & _EXTRA.keys() for field in _EXTRA[name]}
    if left_out and "extra" in options:
        options["extra"] = tuple(entry for entry in options["extra"] if entry[0] not in left_out)
    messages: tuple[Message, ...] | None = None
    if "system" in lacks:
        messages = without_system(request.messages)
    form = request.response_format
    if form is not None and ("response_format" in lacks or ("json_schema" in lacks and _schema_of(form) is not None)):
        messages = _with_words(request.messages if messages is None else messages, _in_words(form))
        if "response_format" not in lacks:
            options["response_format"] = _SOME_OBJECT
    prefix, tail = (request.prefix, request.tail) if messages is None else (EMPTY_PREFIX, messages)
    return type(request)(prefix=prefix, tail=tail, listener=request.listener, **options)


def stopped(completion: Completion, request: Request, lacks: frozenset[str]) -> Completion:
    """Return the reply of an endpoint that takes no `stop` as if it had: cut at the first of its texts."""
    if "stop" not in lacks or not request.stop:
        return completion
    more = tuple(stopped(other, request, lacks) for other in completion.more)
    kept: list[Part] = []
    for part in completion.parts:
        at = [place for text in request.stop if isinstance(part, TextPart) and (place := part.text.find(text)) >= 0]
        if at and isinstance(part, TextPart):
            kept.append(TextPart(part.text[: min(at)]))
            content: Content = kept[0].text if len(kept) == 1 and isinstance(kept[0], TextPart) else tuple(kept)
            return replace(completion, content=content, finish_reason="stop", more=more)
        kept.append(part)
    return completion if more == completion.more else replace(completion, more=more)


def without_system(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """Return messages with the text of system messages in the first message of the user."""
    text = "\n\n".join(message.text for message in messages if message.role == "system" and message.text)
    rest = [message for message in messages if message.role != "system"]
    if not text:
        return tuple(rest)
    for place, message in enumerate(rest):
        if message.role == "user":
            rest[place] = Message("user", _joined(f"{text}\n\n", message.content, ""))
            break
    else:
        rest.insert(0, Message("user", text))
    return tuple(rest)


def _with_words(messages: tuple[Message, ...], words: str) -> tuple[Message, ...]:
    last = messages[-1]
    if last.role == "tool":
        return (*messages, Message("user", words))
    return (*messages[:-1], Message(last.role, _joined("", last.content, f"\n\n{words}")))


def _joined(before: str, content: Content, after: str) -> Content:
    if isinstance(content, str):
        return f"{before}{content}{after}"
    parts: list[Part] = []
    for part in (TextPart(before), *content, TextPart(after)):
        last = parts[-1] if parts else None
        if isinstance(part, TextPart) and isinstance(last, TextPart) and not (part.document or last.document):
            parts[-1] = TextPart(last.text + part.text)
        elif part != TextPart(""):
            parts.append(part)
    return tuple(parts)


_SOME_OBJECT = '{"type": "json_object"}'


@lru_cache(maxsize=256)
def _schema_of(form: str | None) -> str | None:
    """The JSON schema of a `response_format`, as JSON text; None where it has none."""
    asked = None if form is None else json.loads(form)
    schema = asked.get("json_schema", {}).get("schema") if isinstance(asked, dict) else None
    return None if schema is None else json.dumps(schema, ensure_ascii=False)


def _in_words(form: str) -> str:
    schema = _schema_of(form)
    words = "Reply with one JSON object and nothing else."
    return words if schema is None else f"{words} It fits this JSON schema:\n{schema}"
