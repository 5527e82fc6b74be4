"""Language models for these tests: functions from input fields to output fields, in the chat format."""

import re

import pytest

from promptgrad import lm
from promptgrad.testing import LoopbackLM

SECTION = re.compile(r"\[\[ ## (\w+) ## \]\]\n(.*?)(?=\n\n\[\[ ## |\n\nReply in the format|\Z)", re.DOTALL)


def read_fields(message):
    return dict(SECTION.findall(message["content"]))


def write_fields(outputs):
    return "\n\n".join(f"[[ ## {name} ## ]]\n{value}" for name, value in outputs.items())


def with_verdicts(outputs):
    """A critic's answer that blames what it says something about, where it has no verdict of its own."""
    given = dict(outputs)
    for name, text in outputs.items():
        if name == "critique" or name.endswith("_critique") or name.startswith("critique_of_"):
            about = name.removeprefix("critique_of_").removesuffix("critique").removesuffix("_")
            given.setdefault(f"{about}_to_blame".removeprefix("_"), str(bool(text)).lower())
    return given


class Scripted(lm.FunctionLM):
    """Answers with `answer(**inputs)`, a dict of outputs or a raw reply, and remembers what it was sent."""

    def __init__(self, answer, name="scripted", **options):
        self.asked = []

        def respond(request):
            self.asked.append(request)
            outputs = answer(**read_fields(request.messages[-1]))
            return outputs if isinstance(outputs, str) else write_fields(with_verdicts(outputs))

        respond.__annotations__["request"] = lm.Request
        super().__init__(respond, name, **options)


@pytest.fixture
def scripted():
    return Scripted


@pytest.fixture
def loopback():
    """Make a server from a function of the messages, and a model that asks it."""
    made = []

    def make(respond):
        server = LoopbackLM(respond=respond)
        model = lm.HTTP("m", server.url, "key")
        made.append((server, model))
        return server, model

    yield make
    for server, model in made:
        model.close()
        server.close()
