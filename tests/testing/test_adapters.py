"""`AdapterContract`: ours pass it, and it notices what is broken."""

import itertools
import subprocess
import sys

import pytest

from promptgrad import adapters
from promptgrad.errors import ParseError
from promptgrad.extend import Adapter, FieldPiece, Format, ReplyFeed, unreadable
from promptgrad.testing.adapters import AdapterContract

TWO_LINES = "two\nlines: with a colon"


class TestChat(AdapterContract):
    def make(self):
        return adapters.get_adapter("chat")


class TestJSON(AdapterContract):
    def make(self):
        return adapters.get_adapter("json")


class TestXML(AdapterContract):
    def make(self):
        return adapters.get_adapter("xml")


class TestCompact(AdapterContract):
    def make(self):
        return adapters.get_adapter("compact")


class Lines(Format):
    """A line `name: value` for each field; subclasses break one thing each."""

    def system(self, instruction):
        return f"{instruction}\n{', '.join(self.signature.outputs)}"

    def user(self, inputs, *, remind=False):
        return "\n".join(f"{name}: {inputs[name]}" for name in self.signature.inputs)

    def demo_user(self, inputs, missing):
        return "\n".join(f"{name}: {value}" for name, value in inputs.items())

    def assistant(self, outputs):
        fields = self.signature.outputs
        return "\n".join(
            f"{name}: {value if fields[name].is_text else fields[name].dump_json(value)}"
            for name, value in outputs.items()
        )

    def read(self, reply):
        lines = dict(line.split(": ", 1) for line in reply.splitlines() if ": " in line)
        return {name: self.value(reply, lines, name, field) for name, field in self.signature.outputs.items()}

    def value(self, reply, lines, name, field):
        if name not in lines:
            raise unreadable(reply, f"there is no line for {name}", self.signature)
        try:
            return lines[name] if field.is_text else field.validate_json(lines[name])
        except ParseError as error:
            raise unreadable(reply, error.reason, self.signature) from error


class Guesses(Lines):
    def value(self, reply, lines, name, field):
        return super().value(reply, {name: "0", **lines}, name, field)


class Crashes(Lines):
    def value(self, reply, lines, name, field):
        return super().value(reply, {name: lines[name]}, name, field)


class Untyped(Lines):
    def value(self, reply, lines, name, field):
        return lines[name] if name in lines else super().value(reply, lines, name, field)


class WithoutInstruction(Lines):
    def system(self, instruction):
        return ", ".join(self.signature.outputs)


class LastDemoAlone(Lines):
    def demo_user(self, inputs, missing):
        return super().demo_user({name: value for name, value in inputs.items() if name == "note"}, missing)


class Counting(Lines):
    numbers = itertools.count()

    def user(self, inputs, *, remind=False):
        return f"{next(self.numbers)}\n{super().user(inputs)}"


class Ahead(ReplyFeed):
    def feed(self, text):
        yield FieldPiece("delta", "answer", text)


class Streaming(Lines):
    def feed(self):
        return Ahead()


def adapter(form):
    class Made(Adapter):
        name = "lines"

        def make_format(self, signature):
            return form(signature)

    return Made()


class Nameless(adapters.JSONAdapter):
    name = ""


class Unforgiving(adapters.JSONAdapter):
    def repair_messages(self, completion, error):
        return ()


class TestLines(AdapterContract):
    hard = (TWO_LINES,)
    test_it_is_copied_and_pickled_with_a_program = None  # a class in a function cannot be pickled

    def make(self):
        return adapter(Lines)


@pytest.mark.parametrize(
    ("made", "promise", "given", "said"),
    [
        (lambda: adapter(Lines), "test_a_reply_that_it_writes_it_reads", (str, TWO_LINES), "and reads 'two'"),
        (lambda: adapter(Guesses), "test_a_reply_that_it_cannot_read_is_a_parse_error", ("null",), "is expected"),
        (lambda: adapter(Crashes), "test_a_reply_that_it_cannot_read_is_a_parse_error", ("{",), "raised KeyError"),
        (lambda: adapter(Untyped), "test_a_value_of_another_type_is_a_parse_error", (), "ParseError is expected"),
        (lambda: adapter(Untyped), "test_a_reply_that_it_writes_it_reads", (int, -7), "and reads '-7'"),
        (
            lambda: adapter(WithoutInstruction),
            "test_a_prompt_has_the_instruction_the_inputs_and_the_demos_in_order",
            (),
            "lacks ['Say which town.']",
        ),
        (
            lambda: adapter(LastDemoAlone),
            "test_a_prompt_has_the_instruction_the_inputs_and_the_demos_in_order",
            (),
            "lacks ['question 0'",
        ),
        (lambda: adapter(Counting), "test_equal_calls_make_equal_requests", (), "the same call is sent as"),
        (lambda: adapter(Streaming), "test_what_a_stream_gives_stands_in_the_whole", (), "the stream gives"),
        (Nameless, "test_it_has_a_name", (), "its name is empty"),
        (Unforgiving, "test_a_model_that_slips_is_asked_again", (), "slip"),
    ],
)
def test_a_broken_promise_is_noticed(made, promise, given, said):
    suite = AdapterContract()
    suite.make = made
    with pytest.raises((AssertionError, ParseError)) as caught:
        getattr(suite, promise)(*given)
    if said != "slip":
        assert said in str(caught.value)


def test_a_suite_without_an_adapter_says_what_lacks():
    with pytest.raises(NotImplementedError, match=r"does not define make\(\)"):
        AdapterContract().make()


@pytest.mark.parametrize("name", ["adapters", "interpreters", "modules"])
def test_without_pytest_the_error_says_what_to_install(name):
    code = (
        "import sys; sys.modules['pytest'] = None\n"
        f"try: import promptgrad.testing.{name}\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600, check=True)
    assert done.stdout.startswith("MissingExtraError")
    assert "pip install pytest" in done.stdout
