"""The work that all adapters share: compile a signature and demos once, render each call, read each reply."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from promptgrad._patterns import late_pattern
from promptgrad.adapters._compiled import Compiled
from promptgrad.adapters._debris import without_end_of_turn
from promptgrad.adapters._demo import demo_values
from promptgrad.adapters._guard import losing_nothing
from promptgrad.adapters._place import ValuePlace
from promptgrad.adapters._shield import EDGE, THOUGHTS, unshield
from promptgrad.adapters._turns import answered, message_of, messages_of
from promptgrad.adapters._values import writer
from promptgrad.errors import (
    ContentFilterError,
    CutReplyError,
    ParseError,
    RefusalError,
    ToolCallError,
)
from promptgrad.lm import (
    Completion,
    Content,
    Message,
    Prefix,
    ToolResult,
    without_thinking,
)
from promptgrad.signature import Field, Signature

if TYPE_CHECKING:
    from promptgrad.adapters._feed import ReplyFeed

_MOST_COMPILED = 512
_MOST_FORMATS = 256
_ASKS_FOR_THOUGHTS = late_pattern(r"reason|rationale|think|thought")


class Format:
    """One signature as one adapter writes it, made once per signature. Each adapter has a subclass of its own."""

    signature: Signature
    escaping: tuple[str, str] | None = None
    """What `re.sub` replaces in the text of an input, and by what; ("", "") for nothing, None where it is not told."""
    aside: Sequence[str] = ()
    """The inputs whose turns stand before the message of a call."""
    is_varied = False
    """Whether `options` or `for_call` say something."""
    begins: tuple[str, ...] = ()
    """How a reply begins that is as asked for: that is no thought, and the end of one alone, `</think>`, is a text."""

    def __init__(self, signature: Signature) -> None:
        self.signature = signature

    @property
    def reply_signature(self) -> Signature | None:
        """A signature whose outputs are those that stand in the text of a reply; None where there are none."""
        return self.signature

    def grammar(self) -> str | None:
        """The form of a reply in llguidance's dialect of Lark, for an LM that holds it to that; None leaves it free."""
        return None

    @property
    def demo_fields(self) -> Mapping[str, Field]:
        """The fields that the reply of a demo may show."""
        return self.signature.outputs

    def options(self, inputs: Mapping[str, Any]) -> Mapping[str, str]:
        """Options of the request of a call beside its messages, each as JSON text: `tools`, `tool_choice`."""
        return {}

    def for_call(self, inputs: Mapping[str, Any]) -> Format:
        """The format that reads the reply of one call, where that depends on its inputs."""
        return self

    def system(self, instruction: str) -> str:
        """The system message; "" for none."""
        raise NotImplementedError

    def user(self, inputs: Mapping[str, Any], *, remind: bool = False) -> Content:
        """The user message of one call: text, or parts.

        Args:
            inputs: A value for every input.
            remind: Whether to repeat the format, because no demo shows it.

        Raises:
            InputError: An input is missing, or cannot be written.
        """
        raise NotImplementedError

    def demo_user(self, inputs: Mapping[str, Any], missing: Sequence[str]) -> Content:
        """The user message of a demo, which may lack some inputs.

        Args:
            inputs: Values by name.
            missing: Names of the outputs that its reply leaves out.
        """
        raise NotImplementedError

    def assistant(self, outputs: Mapping[str, Any]) -> Content:
        """The reply that holds these outputs; a demo may lack some."""
        raise NotImplementedError

    def turns_before(self, inputs: Mapping[str, Any]) -> tuple[Message, ...]:
        """The messages of earlier turns before that of a call or a demo, for a signature with a `History`."""
        return tuple(message for name in self.aside if name in inputs for message in messages_of(inputs[name], self))

    def parse(self, completion: Completion) -> dict[str, Any]:
        """The outputs that a completion holds: those that `read` finds in its text.

        A format that also uses its calls of tools, its reasoning or its log-probabilities overrides this.

        Raises:
            ParseError: An output is missing, or its value does not fit; or the model refused, or called tools instead.
        """
        content = completion.content
        text: str = content if content.__class__ is str else completion.text
        if completion.refusal:  # also beside a text, which is then no answer or none that the model stands by
            raise unreadable(completion.refusal, "the model refused to answer", self.signature, RefusalError)
        if not text:
            if completion.tool_calls:
                names = ", ".join(dict.fromkeys(f"`{call.name}`" for call in completion.tool_calls))
                reason = f"it calls the tool {names} instead of answering"
                raise unreadable(completion.preview, reason, self.signature)
            if completion.reasoning:
                raise unreadable("", "it ends within its thoughts, before an answer", self.signature)
        return self.read(without_end_of_turn(text) if "|>" in text or text.endswith((">", "|]")) else text)

    def parse_whole(self, reply: Completion | str) -> dict[str, Any]:
        """The outputs of a reply that has reached its end: what `parse` finds in it without its thoughts.

        Raises:
            CutReplyError: The reply ran out of tokens.
            ContentFilterError: A filter of the provider stopped it.
            ParseError: As `parse`.
        """
        if isinstance(reply, str):
            reply = Completion(reply)
        if reply.finish_reason != "stop":
            self.check_end(reply)
        return self.parse(without_thinking(reply, self.signature.outputs, begins=self.begins))

    def check_end(self, completion: Completion) -> None:
        """Refuse a reply that did not come to its end.

        Raises:
            CutReplyError: The reply ran out of tokens.
            ContentFilterError: A filter of the provider stopped it.
            ParseError: It broke off for another reason, or the model declined to go on.
        """
        if completion.is_filtered:
            raise ContentFilterError(
                f"a filter of the provider stopped the reply ({completion.finish_reason}); nothing is read from what "
                f"came before: {_short(completion.text)!r}",
                body=completion.text,
            )
        if completion.is_cut:
            reason = "the reply was cut off: raise max_tokens"
            raise unreadable(completion.text, reason, self.signature, CutReplyError)
        if completion.is_broken:
            declined = completion.finish_reason.lower() == "refusal"
            reason = "the model refused to answer" if declined else f"it broke off ({completion.finish_reason})"
            kind = RefusalError if declined else ParseError
            raise unreadable(completion.text or completion.refusal, reason, self.signature, kind)

    def text_of(self, name: str, body: str) -> str:
        """The text of a field without a thought at its beginning, and without what shields it.

        Raises:
            ParseError: It is all thought, or the name of the field in braces.
        """
        if body[:1] == EDGE:
            return unshield(body)
        if body[:1] == "{" and body[1:-1].strip("{} ") == name:
            reason = f"`{name}` repeats its name in place of a value"
            raise ParseError(f"output {name!r} is {body!r}", reply=body, reason=reason)
        if not body.startswith(THOUGHTS):
            return body
        found = without_thinking(Completion(body), self.signature.outputs)
        if found.text:
            return found.text
        if _ASKS_FOR_THOUGHTS.search(name):
            return found.reasoning
        raise ParseError(f"output {name!r} is all thought", reply=body, reason=f"`{name}` ends within its thoughts")

    def answer(self, completion: Completion) -> Completion:
        """The reply without thoughts in its text: they are its reasoning."""
        return without_thinking(completion, self.signature.outputs, begins=self.begins)

    def place(self, reply: str, name: str) -> ValuePlace | None:
        """Where the value of an output stands in a reply; None where the reply does not show it."""
        return None

    def write(self, name: str, value: Any) -> str:
        """The value of an output as it stands in a reply."""
        field = self.signature.outputs[name]
        write = writer(field)
        return str(value) if write is None else write(value)

    def read(self, reply: str) -> dict[str, Any]:
        """The outputs that the text of a reply holds.

        Raises:
            ParseError: An output is missing, or its value does not fit.
        """
        raise NotImplementedError

    def feed(self) -> ReplyFeed | None:
        """What reads one reply as it is written, for `Module.stream`; None if each field comes whole, at the end."""
        return None


class Adapter:
    """How a signature and its values become chat messages, and a reply becomes values.

    An adapter holds no settings of a call; it can be shared by threads and is not copied with a module. A subclass
    defines how one signature is written (`make_format`); compiling, demos and caching are done here.

    Attributes:
        name: Its name in `get_adapter`.
        narrow: Whether the models of this format know only the tasks that they were trained on. Such a model judges one
            call at a time. It finds a text from a few rows with right answers, or improves one by critiques in its own
            words; so where no labels say what the only call to blame should answer, a critic is asked even there.
        first_outputs: Where an adapter takes two calls, the function that gives the outputs of the first; else None.
    """

    name: str = "adapter"
    narrow: bool = False
    first_outputs: Callable[[Signature], Mapping[str, Field]] | None = None

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._formats: dict[Signature, Format] = {}
        self._compiled: dict[tuple[Signature, str, int], tuple[Sequence[Any], Compiled]] = {}

    def make_format(self, signature: Signature) -> Format:
        """Make the format in which this adapter writes one signature; called once for each.

        Raises:
            SignatureError: The adapter cannot write it.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define make_format()")

    def response_format(self, signature: Signature) -> str | None:
        """JSON text of the `response_format` to ask of the endpoint; None for free text."""
        return None

    def repair_messages(self, completion: Completion, error: ParseError) -> tuple[Message, ...]:
        """The messages that ask again, in a conversation whose last reply could not be read.

        They are empty if asking again in words cannot help; the caller then gives up. Calls of tools that do not fit
        get the reason as their results.
        """
        if isinstance(error, ToolCallError) and all(call.id for call in completion.tool_calls):
            reason = f"{error.reason}. Nothing was called: call again."
            results = [ToolResult(call.id, reason, is_error=True) for call in completion.tool_calls]
            return (completion.message, Message("tool", tuple(results)))
        said = completion.text or completion.refusal or "\n".join(map(str, completion.tool_calls))
        return (
            *([Message("assistant", said)] if said.strip() else ()),  # servers refuse an empty turn
            Message(
                "user",
                f"That reply could not be read: {error.reason}.\n"
                "Reply again, in full, with every field and in the format described at the start.",
            ),
        )

    def format(self, signature: Signature) -> Format:
        """The signature as this adapter writes it, made when first asked for."""
        found = self._formats.get(signature)
        if found is None:
            found = self.make_format(signature)
            if user := losing_nothing(found.user, signature, self.name):
                found.user = user  # type: ignore[method-assign]
            with self._lock:
                _trim(self._formats, _MOST_FORMATS)
                self._formats[signature] = found
        return found

    def format_with(self, signature: Signature, instruction: str) -> Format:
        """The format for the calls with an instruction: `format(signature)`, unless the user message holds it too."""
        return self.format(signature)

    def parse(self, signature: Signature, reply: Completion | str) -> dict[str, Any]:
        """The outputs that a completion, or a text in place of one, holds, in the signature's order.

        Raises:
            ParseError: An output is missing, or its value does not fit; or the model refused; or the reply was cut.
            ContentFilterError: A filter of the provider stopped the reply.
        """
        return self.format(signature).parse_whole(reply)

    def compile(self, signature: Signature, instruction: str | None = None, demos: Iterable[Any] = ()) -> Compiled:
        """Render the system message and the demos.

        The result is kept: for the same signature, an equal instruction and the same tuple of demos it is the same
        object. A demo (an `Example` or a mapping) that lacks some of the inputs or outputs comes before the complete
        ones, shows the fields it has, and lists in words those that its reply leaves out; a demo without any input or
        any output is skipped.

        Args:
            signature: The signature of the call.
            instruction: Replaces the signature's own.
            demos: Examples of inputs with their outputs.

        Raises:
            SignatureError: The adapter cannot write the signature.
            InputError: A value of a demo does not fit its field.
        """
        text: str = signature.instruction if instruction is None else instruction
        if not isinstance(demos, tuple):
            demos = tuple(demos)
        key = (signature, text, id(demos))
        entry = self._compiled.get(key)
        if entry is not None:  # it keeps its demos, so no others have their id
            return entry[1]
        text = "".join(("", text))  # a plain str: a Text would keep its graph alive in here
        compiled = self._compile(signature, text, demos)
        with self._lock:
            _trim(self._compiled, _MOST_COMPILED)
            self._compiled[(signature, text, id(demos))] = (demos, compiled)
        return compiled

    def _compile(self, signature: Signature, instruction: str, demos: Sequence[Any]) -> Compiled:
        form = self.format_with(signature, instruction)
        system = form.system(instruction)
        complete: list[Message] = []
        partial: list[Message] = []
        skipped = 0
        for number, demo in enumerate(demos, 1):
            inputs = demo_values(demo, signature.inputs, number)
            outputs = demo_values(demo, form.demo_fields, number)
            if not outputs or (signature.inputs and not inputs):
                skipped += 1
                continue
            missing = [name for name in signature.outputs if name not in outputs]
            whole = not missing and len(inputs) == len(signature.inputs)
            (complete if whole else partial).extend(
                (
                    *form.turns_before(inputs),
                    message_of("user", form.demo_user(inputs, missing)),
                    *answered(form.assistant(outputs), f"demo_{number}"),
                )
            )
        messages = [*partial, *complete]
        if system:
            messages.insert(0, Message("system", system))
        reply = form.reply_signature
        response_format = None if reply is None else self.response_format(reply)
        remind = bool(form.aside) or not complete
        return Compiled(self, form, Prefix(messages, form.begins), response_format, skipped, remind=remind)

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_lock", "_formats", "_compiled")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        Adapter.__init__(self)
        self.__dict__.update(state)

    def __copy__(self) -> Adapter:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Adapter:
        return self

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


def _trim(kept: dict[Any, Any], most: int) -> None:
    while len(kept) >= most:
        del kept[next(iter(kept))]


def unreadable(reply: str, reason: str, signature: Signature, kind: type[ParseError] = ParseError) -> ParseError:
    """The error of a reply that does not hold the outputs."""
    return kind(
        f"the reply does not hold {', '.join(signature.outputs)}: {reason}; it was {_short(reply)!r}",
        reply=reply,
        reason=reason,
    )


def _short(reply: str) -> str:
    return reply if len(reply) <= 400 else f"{reply[:300]} ... {reply[-80:]}"
