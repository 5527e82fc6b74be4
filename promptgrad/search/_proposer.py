"""The programs that write new texts: ordinary `Predict` modules, whose prompts are visible parameters."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from promptgrad import aio
from promptgrad._numbers import is_number
from promptgrad.adapters import Compiled, get_adapter
from promptgrad.autograd import no_grad
from promptgrad.errors import HunkError, LMError, NoLMError, ParseError, PromptgradError, SignatureError
from promptgrad.lm import LM, Completion, current, resolve, resolve_lm
from promptgrad.nn import Predict
from promptgrad.search._checks import unwrapped
from promptgrad.search._hunks import Hunk, apply_hunks
from promptgrad.search._writing import ANALYSIS, Improve, ImproveSolution
from promptgrad.signature import Signature

_NO_HUNKS = (
    'edits="hunks" needs a language model that can quote a text, and this one cannot be asked for it ({}): use '
    'edits="rewrite", or another lm'
)


class Writer(Predict, in_place=True):
    """A `Predict` that accepts a reply only if it names the field that was asked for.

    With one output, adapters accept a reply without any marker as that output. That serves an answer, but a text that
    is going to be installed might then be an error page or a remark; this module asks again instead. A reply with the
    text and without an analysis is accepted: some models think before they reply.
    """

    def _parse(self, compiled: Compiled, completion: Completion) -> dict[str, Any]:
        if not completion.text.strip():  # declined, or nothing but thoughts
            return super()._parse(compiled, completion)
        prompt, reply = _letters("".join(message.text for message in compiled.prefix.messages)), completion.text
        said = [name for name in compiled.signature.outputs if _letters(name) in _letters(reply)]
        for name in compiled.signature.outputs:
            if name != ANALYSIS and _letters(name) in prompt and name not in said:
                reason = f"it does not name the field `{name}`, so what it holds may be anything"
                raise ParseError(f"{reason}: {reply[:200]}", reply=reply, reason=reason)
        if ANALYSIS in compiled.signature.outputs and ANALYSIS not in said and said:
            found = compiled.adapter.parse(compiled.signature.delete(ANALYSIS), completion)
            return {ANALYSIS: "", **found}
        return super()._parse(compiled, completion)


def _letters(text: str) -> str:
    return "".join(filter(str.isalpha, text.casefold()))


def make_proposer(signature: type[Signature], lm: LM | str | None) -> Predict:
    """A `Predict` on the given signature, on an LM of its own or on that of the context."""
    return Writer(signature, lm=lm)


def make_writers(edits: str) -> tuple[Predict, Predict]:
    """The program that writes instructions, in whole or by hunks, and the one that writes solutions.

    Raises:
        ValueError: `edits` is neither "rewrite" nor "hunks".
    """
    if edits not in ("rewrite", "hunks"):
        raise ValueError(f'edits is "rewrite" or "hunks", not {edits!r}')
    signature: type[Signature] = Improve
    if edits == "hunks":
        from promptgrad.search._amend import Amend as signature  # its type of output takes pydantic, half of an import
    return make_proposer(signature, None), make_proposer(ImproveSolution, None)


def make_reviser() -> Predict:
    """The program that finds the texts that are to blame and rewrites them, in one reply."""
    from promptgrad.search._revision import Revise  # its type of output takes pydantic, half of an import

    return make_proposer(Revise, None)


def check_writer(lm: Any, temperature: Any = None) -> None:
    """Check the argument for the language model that writes, and its sampling temperature.

    Raises:
        TypeError: `lm` is not a language model, its name, a function or None.
        ValueError: `temperature` is not a number of at least 0 or None.
    """
    if lm is not None and not (isinstance(lm, (str, LM)) or callable(lm)):
        raise TypeError(f"lm is a language model, its name, or a function of the messages, not {lm!r}")
    if temperature is not None and not (is_number(temperature) and temperature >= 0):
        raise ValueError(f"temperature is at least 0, or None for that of the LM, not {temperature!r}")


def check_amends(proposer: Predict, lm: Any) -> None:
    """Check that a language model can be asked for hunks, if it is known already: an LM, or the embedded model.

    Raises:
        SignatureError: Its adapter has no form for them; that of the embedded model has none.
    """
    if lm != "pocket" and not isinstance(lm, LM):
        return
    form = proposer.adapter or get_adapter(current().adapter or resolve(lm).adapter)
    try:
        form.make_format(proposer.signature)
    except SignatureError as error:
        raise SignatureError(_NO_HUNKS.format(error)) from error


async def write(
    proposer: Predict, inputs: Mapping[str, Any], *, lm: LM | None = None, config: Mapping[str, Any] | None = None
) -> tuple[str | None, str]:
    """Ask for one new text: (text, "") or (None, why there is none).

    The present text is the input `instruction`, also for a solution. Inputs that the proposer's signature does not have
    are left out. A code fence, quotes or backticks around the whole text are taken away.

    Cost: one LM call, one more for each re-ask of a reply that does not parse.

    Raises:
        LMError: The LM gave no answer. A reply without an instruction is not an error: it returns a reason.
    """
    names = proposer.input_names()
    text = "solution" if "solution" in names else "instruction"
    named = {text if name == "instruction" else name: value for name, value in inputs.items()}
    named = {name: value for name, value in named.items() if name in names}
    try:
        with no_grad(), failing_as_lm():  # a step inside a forward is not part of the program
            reply = await proposer.acall(**named, lm=lm, config=dict(config or {}))
    except ParseError as error:
        return None, f"the reply holds no {text}: {error.reason}"
    written = str.__str__(reply[f"new_{text}"])
    written = _indented(written, reply.reply) if text == "solution" else written.strip()
    return unwrapped(str.__str__(inputs["instruction"]), written, verbatim=text == "solution"), ""


def _indented(text: str, reply: str) -> str:
    """A solution with the blanks that its first line had in the reply, which adapters strip."""
    text = text.rstrip().lstrip("\n")
    start = reply.find(text)
    before = reply[reply.rfind("\n", 0, start) + 1 : start] if text and start > 0 else ""
    return before + text if before.isspace() else text


async def amend(
    proposer: Predict, inputs: Mapping[str, Any], *, lm: LM | None = None, config: Mapping[str, Any] | None = None
) -> tuple[str | None, tuple[Hunk, ...], str]:
    """Ask for hunks and apply them: (text, hunks, "") or (None, hunks, why there is no text).

    Cost: as `write`.

    Raises:
        LMError: The LM gave no answer. Hunks that do not apply are not an error: they return a reason.
        SignatureError: The LM cannot be asked for hunks.
    """
    named = {name: value for name, value in inputs.items() if name in proposer.input_names()}
    try:
        with no_grad():
            reply = await proposer.acall(**named, lm=lm, config=dict(config or {}))
    except SignatureError as error:
        raise SignatureError(_NO_HUNKS.format(error)) from error
    except ParseError as error:
        return None, (), f"the reply holds no hunks: {error.reason}"
    hunks = tuple(reply.hunks)
    try:
        return apply_hunks(str.__str__(inputs["instruction"]), hunks), hunks, ""
    except HunkError as error:
        return None, hunks, str(error)


def is_able(writer: Predict, lm: LM | str | None) -> bool:
    """Whether a language model reads whatever a prompt shows; one that knows only its own tasks does not.

    See `Adapter.narrow`.

    Args:
        writer: Program that writes.
        lm: The LM that would write; None for that of the context.
    """
    try:
        named = writer.adapter or current().adapter or resolve_lm(lm).adapter
    except NoLMError:
        return True  # the call will say so
    return not get_adapter(named).narrow


@contextmanager
def failing_as_lm() -> Iterator[None]:
    """Raise `LMError` for any error of a language model's own, such as that of a function used as one."""
    try:
        yield
    except (PromptgradError, ImportError):
        raise
    except BaseException as error:
        if not aio.is_failure(error):
            raise
        raise LMError(f"{type(error).__name__}: {error}") from error
