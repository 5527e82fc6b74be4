import json
import re

import pytest

from promptgrad import lm, nn, optim
from promptgrad.autograd import Critique, Gradient, Parameter
from promptgrad.errors import ConstraintError
from promptgrad.search import refusal
from promptgrad.search._checks import placeholders, unwrapped

OLD = "Translate {text} into {language}. Be brief."


def no_shouting(text):
    """do not shout"""
    return "it shouts" if text.isupper() else None


def raises(text):
    raise ConstraintError("no", reason="it is forbidden")


@pytest.mark.parametrize(
    ("new", "options", "reason"),
    [
        (None, {}, "it is NoneType, not text"),
        ("  \n", {}, "it is empty"),
        ("translate {text}  into {language}. be brief.", {}, "does not change"),
        ("Translate {text}. Be brief.", {}, "drops the placeholder {language}"),
        (OLD + " Mind the {tone}.", {}, "adds the placeholder {tone}"),
        (OLD + " And friendly.", {"max_tokens": 12}, "more than max_tokens=12"),
        ("Render {text} in {language}, please, with care.", {"max_edit": 0.2}, "more than max_edit=0.2"),
        (OLD + " Keep its names." * 9, {"max_edit": 0.2}, None),
        ("Translate {text} into {language}.", {"max_edit": 0.2}, "more than max_edit=0.2"),
        (OLD + " And friendly.", {"tried": [OLD + "  and friendly."]}, "tried before"),
        ("NOW {text} {language}".upper().replace("TEXT", "text").replace("LANGUAGE", "language"), {}, None),
        ("X {text} {language}", {"constraints": [lambda text: False]}, "does not hold"),
        ("X {text} {language}", {"constraints": [raises]}, "it is forbidden"),
        ("X {text} {language}", {"constraints": [lambda text: None, lambda text: True]}, None),
    ],
)
def test_reasons(new, options, reason):
    found = refusal(OLD, new, **options)
    assert found is None if reason is None else reason in found


def test_a_constraint_says_why():
    assert refusal("a", "STOP", constraints=[no_shouting]) == "it shouts"


@pytest.mark.parametrize(
    "new",
    [
        r"Answer in \boxed{answer}.",
        r"Answer in \boxed{\text{Paris}}.",
        'Reply as {"answer": "..."} and nothing else.',
        "Name the capital of {country}.",
        "Here is a question about geography; name the capital.",
        "Here is what to do:\n1. Read. 2. Answer.",
        "As an AI tutor, explain each step.",
    ],
)
def test_where_nobody_fills_anything_braces_are_just_text(new):
    assert refusal("Answer.", new) is None


def test_latex_beside_placeholders_is_no_placeholder():
    assert refusal(OLD, OLD + r" Put it in \boxed{answer}.") is None
    assert refusal(OLD + r" In \boxed{answer}.", OLD) is None


@pytest.mark.parametrize(
    ("new", "reason"),
    [
        ("Sure, here is the new instruction: name it", "a message to us"),
        ("Okay! Name the capital.", "a message to us"),
        ("Here's the improved instruction:\nName it.", "a message to us"),
        ("Improved instruction: Name it.", "a message to us"),
        ("**New instruction:** Name it.", "a message to us"),
        ("## Revised prompt:\nName it.", "a message to us"),
        ("I've rewritten it.\nName it.", "a message to us"),
        ("I cannot help with that.", "a message to us"),
        ("As an AI model I will not.", "a message to us"),
        ("```text\nName it.\n```", "it stands in a code fence"),
    ],
)
def test_what_is_plainly_addressed_to_us_is_refused(new, reason):
    assert reason in refusal("Answer.", new)
    old = re.sub(r"(\w+)(\W*)$", r"\1 \1\2", new)  # another text of the same kind
    assert reason in refusal("Answer.", old)
    assert refusal(old, new) is None  # whoever has such a text may keep to it


class TestConstraints:
    @pytest.mark.parametrize(("error", "reason"), [(ValueError("no digits"), "no digits"), (KeyError(), "KeyError()")])
    def test_one_that_raises_refuses(self, error, reason):
        def rule(text):
            raise error

        assert refusal("a", "b", constraints=[rule]) == reason

    def test_a_bool_of_numpy_is_a_bool(self):
        numpy = pytest.importorskip("numpy")
        assert "does not hold" in refusal("a", "b", constraints=[lambda text: numpy.bool_(False)])
        for holds in (numpy.bool_(True), None, True, "", 0, []):
            assert refusal("a", "b", constraints=[lambda text, holds=holds: holds]) is None

    def test_rules_in_words_are_told_and_not_checked(self):
        shown = []

        def writer(messages):
            shown.append(messages[-1].content)
            return "[[ ## new_instruction ## ]]\nName it.\n\n[[ ## completed ## ]]"

        for given in ("Write  English.", ["Write English."], [str.istitle, "Write English."], str.istitle):
            model = nn.Predict("text -> word", instruction="Answer.")
            model.instruction.grad = Gradient([Critique("", "x", 0, "instruction", "Say more.")])
            for opt in (
                optim.TGD(model.parameters(), lm=lm.FunctionLM(writer), constraints=given),
                optim.TGD([{"params": model.parameters(), "constraints": given}], lm=lm.FunctionLM(writer)),
            ):
                report = opt.step()
                told = json.loads(re.search(r"## rules ## \]\]\n(.*)", shown[-1]).group(1))
                assert ("Write English." in told) == (given != str.istitle)
                checked = given == str.istitle or (isinstance(given, list) and str.istitle in given)
                assert bool(report.accepted) == (not checked)
                assert ("English." in repr(opt)) == (given != str.istitle)
                opt.revert()

    @pytest.mark.parametrize("given", [3, [3], [None], [""], {"a": 1}])
    def test_anything_else_is_an_error(self, given):
        params = [Parameter("Answer.")]
        with pytest.raises(TypeError, match=r"rules? in words"):
            optim.TGD(params, constraints=given)
        with pytest.raises(TypeError, match=r"rules? in words"):
            optim.TGD([{"params": params, "constraints": given}])
        opt = optim.TGD(params)
        with pytest.raises(TypeError, match=r"rules? in words"):
            opt.add_param_group({"params": [Parameter("Go.")], "constraints": given})


def test_placeholders_are_names_in_braces_and_not_json():
    assert placeholders("{a} {{ b.c }} {'json': 1} {} {1} {x}} {{y}") == {"{a}", "{{ b.c }}"}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("let $x_{i}$ be given", "shout"),
        ("use x^{n}", "use x"),
        (r"use \sum_{i}^{n}", "use the sum"),
        (r"{text} and \mathbb{R}^{n}", "{text}"),
        ("{ans} $a$", "{ans} $a_{k}$"),
    ],
)
def test_indices_and_powers_of_latex_are_no_placeholders(old, new):
    assert refusal(old, new) is None


def test_names_joined_by_an_underscore_are():
    assert "{date}" in refusal("write {name}_{date}", "write {name}")


@pytest.mark.parametrize(
    "new",
    [
        "Reason in <thinking> tags, then answer.",
        "First write your <reasoning>, then the answer.",
        "Think in <analysis>...</analysis>; the user sees the rest.",
    ],
)
def test_an_instruction_may_ask_for_tags(new):
    assert refusal("Answer.", new) is None


@pytest.mark.parametrize("new", ["<thinking>It is short.</thinking> Answer.", "</think>\nAnswer well.", "<analysis>x"])
def test_a_reply_that_begins_with_thoughts_is_refused(new):
    assert "part of the reply's form" in refusal("Answer.", new)


@pytest.mark.parametrize(
    ("new", "bare"),
    [
        ("```\nName it.\n```", "Name it."),
        ("~~~text\nName it.\nTwice.\n~~~", "Name it.\nTwice."),
        ('"Name it."', "Name it."),
        ("\u201cName it.\u201d", "Name it."),
        ("`Name it.`", "Name it."),
        ('Say "yes" or "no"', 'Say "yes" or "no"'),
        ('"Yes" or "no"', '"Yes" or "no"'),
        ("Use ```fences``` well", "Use ```fences``` well"),
    ],
)
def test_what_stands_around_the_whole_is_taken_away(new, bare):
    assert unwrapped("Answer.", new) == bare
    assert unwrapped(new, new) == new, "unless the old text has it"


def test_quotes_may_be_a_part_of_a_solution():
    assert unwrapped("x", '"x"', verbatim=True) == '"x"'
    assert unwrapped("x", "```python\n  x\n```", verbatim=True) == "  x"
