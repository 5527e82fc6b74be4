"""Fields that do not stand in the text of a message or reply: earlier turns, images of a reply, a model's thoughts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, get_args, get_origin

from promptgrad.adapters._base import Format, unreadable
from promptgrad.adapters._kinds import bare, holds, members
from promptgrad.adapters._pieces import MEDIA, cited, is_media, joined, may_hold_media
from promptgrad.adapters._sections import ESCAPING, sections_of
from promptgrad.adapters._turns import histories
from promptgrad.adapters._values import describe, listed
from promptgrad.content import Citation, Document, is_reasoning
from promptgrad.errors import ParseError, RefusalError, SignatureError
from promptgrad.lm import Completion, Content, without_thinking
from promptgrad.signature import Field, Signature

if TYPE_CHECKING:
    from promptgrad.adapters._feed import ReplyFeed
    from promptgrad.adapters._place import ValuePlace


def with_beside(signature: Signature, make: Callable[[Signature], Format]) -> Format:
    """The format of a signature, some of whose fields may not stand in the text.

    Args:
        signature: The signature.
        make: Function that makes the format of a signature of texts.

    Raises:
        SignatureError: An output holds an image inside of another value.
    """
    aside = histories(signature)
    media = {name: field for name, field in signature.outputs.items() if _is_media_output(field)}
    thoughts = [name for name, field in signature.outputs.items() if is_reasoning(field.annotation)]
    cites = [name for name, field in signature.outputs.items() if _are_citations(field)]
    for field in signature.outputs.values():
        if field.name not in media and may_hold_media(field.annotation, any_may=False):
            raise SignatureError(
                f"the output {field.name!r} holds images inside of a {field.type_name}, and a reply has them beside "
                "its text: make them an output of their own, such as `picture: Image` or `pictures: list[Image]`"
            )
    if not (aside or media or thoughts or cites):
        return make(signature)
    text = _without(signature, [*aside, *media])
    written = make(text) if text.outputs.keys() - media.keys() else InputFormat(text)
    unthought = written
    if thoughts:
        rest = _without(text, thoughts)
        unthought = make(rest) if rest.outputs.keys() - {*thoughts, *media} else written
    return BesideFormat(signature, written, unthought, aside, media, thoughts, _Cites(text, cites, thoughts, make))


class _Cites:
    """The citations of a signature: outputs that a provider may give beside the text, and the documents to be cited.

    Attributes:
        names: The outputs.
        documents: The inputs.
        forms: What reads a reply that has no such outputs in its text, without and with thoughts in it; None where
            nothing would be left of it.
    """

    def __init__(
        self, text: Signature, names: Sequence[str], thoughts: Sequence[str], make: Callable[[Signature], Format]
    ) -> None:
        self.names = names
        self.documents = [name for name, field in text.inputs.items() if names and holds(field.annotation, Document)]
        self.forms = tuple(
            make(_without(text, [*left])) if names and text.outputs.keys() - left else None
            for left in ({*names}, {*names, *thoughts})
        )

    def inputs(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """The inputs, their documents with numbers."""
        if not self.documents:
            return given
        return {name: cited(value) if name in self.documents else value for name, value in given.items()}

    def parse(self, form: Format, completion: Completion, *, thought: bool) -> dict[str, Any]:
        """The outputs of a reply whose citations its provider tells, which may stand in its text as well."""
        try:
            found = form.parse(completion)
        except ParseError:
            rest = self.forms[thought]
            found = {} if rest is None else rest.parse(completion)
        return found


def _are_citations(field: Field) -> bool:
    kind = bare(field.annotation)
    return get_origin(kind) is list and get_args(kind) == (Citation,)


def _without(signature: Signature, names: Sequence[str]) -> Signature:
    """A signature without some fields; its outputs stay where none would be left."""
    left = [name for name in signature.outputs if name not in names]
    for name in names:
        if name in signature.inputs or left:
            signature = signature.delete(name)
    return signature


def _is_media_output(field: Field) -> bool:
    kind = bare(field.annotation)
    if get_origin(kind) is list:
        return is_media(get_args(kind)[0])
    return all(is_media(one) or one is type(None) for one in members(kind)) and kind is not type(None)


class InputFormat(Format):
    """Inputs in sections, for a signature whose outputs do not stand in the text of a reply."""

    escaping = ESCAPING

    def __init__(self, signature: Signature) -> None:
        super().__init__(signature)
        self.inputs = sections_of(signature)

    @property
    def reply_signature(self) -> Signature | None:
        return None

    def system(self, instruction: str) -> str:
        parts = [instruction] if instruction else []
        if self.signature.inputs:
            parts.append(self.inputs.describe())
        return "\n\n".join(parts)

    def user(self, inputs: Mapping[str, Any], *, remind: bool = False) -> Content:
        return self.inputs.write(inputs)

    def demo_user(self, inputs: Mapping[str, Any], missing: Sequence[str]) -> Content:
        return self.inputs.write_some(inputs, missing)

    def assistant(self, outputs: Mapping[str, Any]) -> Content:
        return ""


class BesideFormat(Format):
    """A signature of which another format writes and reads the texts."""

    def __init__(
        self,
        signature: Signature,
        written: Format,
        unthought: Format,
        aside: Sequence[str],
        media: Mapping[str, Field],
        thoughts: Sequence[str],
        cites: _Cites,
    ) -> None:
        super().__init__(signature)
        self.cites = cites
        self.written = written
        self.unthought = unthought
        self.aside = aside
        self.media = media
        self.thoughts = thoughts
        self.is_varied = written.is_varied
        self.escaping = written.escaping
        self.begins = tuple(dict.fromkeys((*written.begins, *unthought.begins)))
        self._named = [name for name in signature.outputs if name not in thoughts]

    @property
    def reply_signature(self) -> Signature | None:
        """The outputs that stand in the text of a reply; None where there are none."""
        return self.written.reply_signature

    def system(self, instruction: str) -> str:
        said = self.written.system(instruction)
        if not self.media:
            return said
        lines = [f"- `{name}`: {describe(field)}" for name, field in self.media.items()]
        where = "Beside the text, the reply holds" if self.reply_signature is not None else "The reply holds"
        return "\n\n".join([*([said] if said else []), "\n".join([f"{where}, not as text:", *lines])])

    def options(self, inputs: Mapping[str, Any]) -> Mapping[str, str]:
        return self.written.options(inputs)

    def user(self, inputs: Mapping[str, Any], *, remind: bool = False) -> Content:
        return self.written.user(self.cites.inputs(_among(inputs, self.written.signature.inputs)), remind=remind)

    def demo_user(self, inputs: Mapping[str, Any], missing: Sequence[str]) -> Content:
        left_out = [name for name in missing if name not in self.media]
        return self.written.demo_user(self.cites.inputs(_among(inputs, self.written.signature.inputs)), left_out)

    def assistant(self, outputs: Mapping[str, Any]) -> Content:
        said = self.written.assistant(_among(outputs, self.written.signature.outputs))
        made: list[Any] = [said] if isinstance(said, str) else [*said]
        for name in self.media:
            value = outputs.get(name)
            made += value if isinstance(value, (list, tuple)) else [] if value is None else [value]
        return joined(made)

    def answer(self, completion: Completion) -> Completion:
        return without_thinking(completion, self._named, begins=self.begins)

    def parse_whole(self, reply: Completion | str) -> dict[str, Any]:
        if isinstance(reply, str):
            reply = Completion(reply)
        if reply.finish_reason != "stop":
            self.check_end(reply)
        return self.parse(self.answer(reply))

    def parse(self, completion: Completion) -> dict[str, Any]:
        found: dict[str, Any] = {}
        reasoning = completion.reasoning if self.thoughts else ""
        form = self.unthought if reasoning else self.written
        if form.reply_signature is None or not form.reply_signature.outputs.keys() - {*self.thoughts, *self.media}:
            if completion.refusal:
                raise unreadable(completion.refusal, "the model refused to answer", self.signature, RefusalError)
            if self.reply_signature is not None and not reasoning:
                found = form.parse(completion)
        else:
            told = _without_media(completion) if self.media else completion
            if completion.citations and self.cites.names:
                found = self.cites.parse(form, told, thought=bool(reasoning))
                found.update({name: [*completion.citations] for name in self.cites.names})
            else:
                found = form.parse(told)
        for name in self.thoughts if reasoning else ():
            found[name] = self.signature.outputs[name].validate(reasoning)
        found.update(self._media(completion))
        return {name: found[name] for name in self.signature.outputs}

    def grammar(self) -> str | None:
        return self.written.grammar()

    def place(self, reply: str, name: str) -> ValuePlace | None:
        return self.written.place(reply, name)

    def write(self, name: str, value: Any) -> str:
        return self.written.write(name, value)

    def feed(self) -> ReplyFeed | None:
        return self.written.feed()

    def read(self, reply: str) -> dict[str, Any]:
        return self.parse(Completion(reply))

    def _media(self, completion: Completion) -> dict[str, Any]:
        """The images, sounds and files of a reply by output, in their order.

        Raises:
            ParseError: There are too few, or too many.
        """
        found: dict[str, Any] = {}
        left = [part for part in completion.parts if isinstance(part, MEDIA)]
        for name, field in self.media.items():
            many = get_origin(bare(field.annotation)) is list
            kinds = tuple(get_args(bare(field.annotation)) if many else members(field.annotation))
            fitting = [part for part in left if isinstance(part, kinds)]
            if many:
                found[name] = fitting
            elif fitting:
                found[name] = fitting[0]
                fitting = fitting[:1]
            elif type(None) in kinds:
                found[name] = None
            else:
                reason = f"`{name}` is missing: the reply holds no {kinds[0].kind}"
                raise unreadable(completion.preview, reason, self.signature)
            left = [part for part in left if not any(part is taken for taken in fitting)]
        if left and self.media:
            counted = listed(list(self.media))
            raise ParseError(
                f"the reply holds more than was asked for: {left[0]} beside {counted}",
                reply=completion.preview,
                reason=f"it holds {left[0]} beside {counted}: give one for each field",
            )
        return found


def _without_media(completion: Completion) -> Completion:
    left = tuple(part for part in completion.parts if not isinstance(part, MEDIA))
    return replace(completion, content=left)


def _among(values: Mapping[str, Any], fields: Mapping[str, Field]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name in fields}
