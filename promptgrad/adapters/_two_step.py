"""The two-step adapter: one model answers in its own words, a second one finds the fields in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

from promptgrad.adapters._base import Adapter, Format, unreadable
from promptgrad.adapters._sections import ESCAPING, sections_of
from promptgrad.adapters._tool_fields import with_tools
from promptgrad.adapters._turns import histories
from promptgrad.adapters._values import describe, listed, writer
from promptgrad.errors import SignatureError
from promptgrad.lm import LM, Content
from promptgrad.signature import Field, Signature

_NAMES = ("reply", "free_reply", "reply_in_words")
EXTRACT = "Find the fields in the reply, as it says them. Add nothing of your own."


class TwoStepFormat(Format):
    """One signature whose reply is free."""

    escaping = ESCAPING

    def __init__(self, signature: Signature) -> None:
        super().__init__(signature)
        self.asked = signature
        self.aside = histories(signature)
        self.free = free_name(signature)
        self.inputs = sections_of(reduce(Signature.delete, self.aside, signature))
        self.signature = signature.append(Field(self.free, str, "an answer in free words", "output"))
        for name in signature.outputs:
            self.signature = self.signature.delete(name)

    @property
    def reply_signature(self) -> Signature | None:
        return None

    @property
    def demo_fields(self) -> Mapping[str, Field]:
        return {**self.asked.outputs, **self.signature.outputs}

    def system(self, instruction: str) -> str:
        parts = [instruction] if instruction else []
        if self.inputs.parts:
            parts.append(self.inputs.describe())
        lines = [f"- `{name}`: {describe(field)}" for name, field in self.asked.outputs.items()]
        parts.append("\n".join(["Answer in your own words, so that these can be found in what you say:", *lines]))
        return "\n\n".join(parts)

    def user(self, inputs: Mapping[str, Any], *, remind: bool = False) -> Content:
        return self.inputs.write(inputs)

    def demo_user(self, inputs: Mapping[str, Any], missing: Sequence[str]) -> Content:
        return self.inputs.write_some(inputs, [])

    def assistant(self, outputs: Mapping[str, Any]) -> str:
        if self.free in outputs:
            return str(outputs[self.free])
        lines = []
        for name, field in self.asked.outputs.items():
            if name in outputs:
                write = writer(field)
                lines.append(f"{name}: {outputs[name] if write is None else write(outputs[name])}")
        return "\n".join(lines)

    def read(self, reply: str) -> dict[str, Any]:
        text = self.text_of(self.free, reply.strip())
        if not text:
            raise unreadable(reply, "it is empty", self.signature)
        return {self.free: text}


def free_name(signature: Signature) -> str:
    """The name under which the free reply stands beside the fields of a signature.

    Raises:
        SignatureError: All names are taken.
    """
    for name in _NAMES:
        if name not in signature.fields:
            return name
    raise SignatureError(f"the fields {listed(_NAMES)} are taken, and a free reply needs one of these names")


class TwoStepAdapter(Adapter):
    """A model answers in its own words, and a second call finds the outputs in them: for models that reason freely.

    The first prompt asks for no format. The second call is an `nn.Predict` of its own, `predict.extract`, with the
    first reply as its input and the outputs of the signature, so that both are recorded, counted and journalled, and a
    critique reaches the prompt that is to blame. A demo may hold the free reply under the name `reply`.

    Cost: two LM calls, one of them of the extractor.

    Args:
        extractor_lm: The LM of the second call, or its name; None for that of the first.
        extract_with: The adapter of the second call.

    Raises:
        TypeError: `extractor_lm` is neither an LM nor a name.
    """

    name = "two_step"

    def __init__(self, extractor_lm: LM | str | None = None, extract_with: Adapter | str = "chat") -> None:
        super().__init__()
        if extractor_lm is not None and not isinstance(extractor_lm, str) and not hasattr(extractor_lm, "acall"):
            raise TypeError(f"extractor_lm is an LM or its name, not {type(extractor_lm).__name__}")
        self.extractor_lm = extractor_lm
        self.extract_with = extract_with

    def make_format(self, signature: Signature) -> Format:
        """How a signature is asked for in free words.

        Raises:
            SignatureError: It has tools, or a field for each name of the free reply.
        """
        texts = reduce(Signature.delete, histories(signature), signature)
        if not isinstance(with_tools(texts, TwoStepFormat), TwoStepFormat):
            raise SignatureError(
                "the adapter 'two_step' finds values in words, and this signature has tools, thoughts, citations or "
                "images as outputs, which a reply has beside its words: use 'chat', 'json' or 'xml'"
            )
        return TwoStepFormat(signature)

    def first_outputs(self, signature: Signature) -> Mapping[str, Field]:
        """The outputs of the first call."""
        return self.format(signature).signature.outputs

    def second_step(self, signature: Signature) -> Signature:
        """The signature of the second call."""
        given = Field(free_name(signature), str, "an answer in free words", "input")
        return Signature([given, *signature.outputs.values()], EXTRACT, name=f"{signature.name}Extract")

    def __repr__(self) -> str:
        named = getattr(self.extractor_lm, "name", self.extractor_lm)
        return f"two_step({'' if named is None else repr(named)})"


two_step = TwoStepAdapter
"""The name by which they are made."""
