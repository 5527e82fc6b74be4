import pytest

from promptgrad.errors import ConstraintError
from promptgrad.optim._checks import placeholders, refusal

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


def test_placeholders_are_names_in_braces_and_not_json():
    assert placeholders("{a} {{ b.c }} {'json': 1} {} {1}") == {"{a}", "{{ b.c }}"}
