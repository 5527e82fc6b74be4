import pytest

from promptgrad.autograd import Loss, Target, Text, blame_query, explain_error, pass_through, register_rule, split
from promptgrad.autograd._rules import Passing, quoted
from tests.autograd.programs import Call, ScriptedCritic, row, texts

AT_SEA = "the boats are out at sea"
IN_PORT = "the harbour lies quiet and empty"


def joined(blame):
    a, b = Call("a", lambda: AT_SEA), Call("b", lambda: IN_PORT)
    c = Call("c", lambda x: "fine")
    critic = ScriptedCritic(lambda path, target, feedback: blame if target == "x" else "bad")
    Loss([row(lambda: c(x=a().out + ". " + b().out).out, None)], critic).backward()
    return len(texts(a.instruction)), len(texts(b.instruction))


@pytest.mark.parametrize(
    ("blame", "shares"),
    [
        ("it is too short", (1, 1)),
        ("'boats are out' is wrong", (1, 0)),
        ("“Harbour  lies quiet” is wrong", (0, 1)),
        ('both "at sea" and "and empty" are wrong', (1, 1)),
        ("'nobody said this' is missing", (1, 1)),
        ("it doesn't say when the boats' crews return", (1, 1)),
    ],
)
def test_what_quotes_a_part_of_a_joined_text_concerns_that_part(blame, shares):
    assert joined(blame) == shares


def test_the_rule_of_joins_can_be_replaced():
    with register_rule("join", pass_through):
        assert joined("'boats are out' is wrong") == (1, 1)
    assert joined("'boats are out' is wrong") == (1, 0)


def test_the_latest_rule_counts_and_handles_may_go_in_any_order():
    first = register_rule("join", lambda passing: {"0": "first"})
    second = register_rule("join", lambda passing: {"1": "second"})
    assert joined("x") == (0, 1)
    second.remove()
    assert joined("x") == (1, 0)
    first.remove()
    first.remove()
    assert joined("x") == (1, 1)


def test_a_function_passes_through_and_says_who_said_it():
    a, tool, c = Call("a", lambda: "one"), Call("tool", lambda x: {"n": [1]}, kind="function"), Call("c", lambda n: "z")
    Loss([row(lambda: c(n=tool(x=a().out).n).out, None)], ScriptedCritic()).backward()
    (critique,) = a.instruction.grad.critiques
    assert critique.text == "a.instruction: c.n: wrong"


def test_a_rule_for_lm_calls_makes_the_critic_unnecessary():
    a, b = Call("a", lambda: "one"), Call("b", lambda x: "two")
    with register_rule("lm", lambda passing: {target.name: f"{target.name} too" for target in passing.targets}):
        report = Loss([row(lambda: b(x=a().out).out, None)]).backward()
    assert report.calls == 0
    assert (texts(a.instruction), texts(b.instruction)) == (["instruction too"], ["instruction too"])


def test_a_rule_that_fails_is_reported_by_name():
    a, b = Call("a", lambda: AT_SEA), Call("b", lambda: IN_PORT)
    with register_rule("join", lambda passing: 1 / 0), pytest.warns(UserWarning, match="rule of join failed"):
        report = Loss([row(lambda: a().out + b().out, None)], ScriptedCritic()).backward()
    assert "ZeroDivisionError" in report.skipped[0].reason


def test_rules_are_plain_functions():
    call = Call("find", lambda q: "x", kind="retriever")
    node = row(lambda: call(q=Text("rivers")).out, None).tape.nodes[0]
    passing = Passing(node, ("wrong",), (Target("q", "input", "rivers"), Target("description", "description", "d")))
    assert pass_through(passing) == {"q": ("wrong",), "description": ("wrong",)}
    assert blame_query(passing) == {
        "q": ("the search for 'rivers' did not find what was needed: wrong",),
        "description": ("wrong",),
    }
    node.error = OSError("gone")
    assert explain_error(passing)["q"] == ("find failed with OSError: gone, given q='rivers'. wrong",)
    assert split(passing) == {"q": ["wrong"], "description": ["wrong"]}


def test_quotations():
    assert quoted("""He said "too short", `a = 1` and 'the  End'; it's the boats' end""") == [
        "too short",
        "a = 1",
        "the end",
    ]


def test_slips():
    with pytest.raises(TypeError, match="a rule is a function"):
        register_rule("join", "pass")
