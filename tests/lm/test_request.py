import copy
import pickle
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptgrad.lm import EMPTY_PREFIX, Message, Prefix, Request

TALK = [Message("system", "Be brief."), Message("user", 'hé\n"quoted" \ud800 [[x]]'), Message("assistant", "ok")]
messages = st.lists(st.builds(Message, st.sampled_from(["system", "user", "assistant"]), st.text()), min_size=1)


@given(messages, st.data())
def test_the_digest_does_not_depend_on_where_prefix_and_tail_meet(talk, data):
    cut = data.draw(st.integers(0, len(talk)))
    whole = Request.of(talk, temperature=0.5)
    assert Request(Prefix(talk[:cut]), tuple(talk[cut:]), 0.5).digest() == whole.digest()


@given(messages, messages)
def test_different_messages_have_different_digests(one, other):
    assert (Request.of(one).digest() == Request.of(other).digest()) == (one == other)


@pytest.mark.parametrize(
    "option",
    [
        {"temperature": 0},
        {"temperature": 0.5},
        {"max_tokens": 5},
        {"top_p": 0.5},
        {"stop": "x"},
        {"seed": 1},
        {"response_format": {"type": "json_object"}},
        {"replicate": 1},
        {"top_k": 4},
    ],
)
def test_every_option_is_in_the_digest(option):
    plain = Request.of("hi")
    assert Request.of("hi", **option).digest() != plain.digest()
    assert Request.of("hi", **option).digest() == plain.replace(**option).digest()


def test_identity_is_in_the_digest():
    request = Request.of("hi")
    assert len({request.digest(), request.digest("a"), request.digest("b")}) == 3


def test_equal_numbers_have_equal_digests():
    assert Request.of("hi", temperature=1).digest() == Request.of("hi", temperature=1.0).digest()


def test_another_process_makes_the_same_digest():
    code = (
        "from promptgrad.lm import *\n"
        "talk = [Message('system', 'a'), Message('user', 'ü')]\n"
        "print(Request.of(talk, temperature=0.3, extra_body={'b': 1, 'a': [2]}).digest('x'))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=600)
    mine = Request.of(
        [Message("system", "a"), Message("user", "ü")], temperature=0.3, extra_body={"a": [2], "b": 1}
    ).digest("x")
    assert found.stdout.strip() == mine


def test_of_takes_what_people_write():
    assert Request.of("hi").messages == (Message("user", "hi"),)
    assert Request.of({"role": "user", "content": "hi"}).messages == (Message("user", "hi"),)
    assert Request.of([{"role": "user", "content": "hi"}]) == Request.of(Message("user", "hi"))
    assert Request.of(Prefix(TALK)).messages == tuple(TALK)
    request = Request.of("hi", stop="x")
    assert Request.of(request) is request
    assert Request.of(request, seed=3) == Request.of("hi", stop=["x"], seed=3)


@pytest.mark.parametrize(
    ("prompt", "options", "error"),
    [
        (3, {}, TypeError),
        ([], {}, ValueError),
        ([{"role": "user"}], {}, ValueError),
        ([{"role": "user", "content": None}], {}, TypeError),
        ([{"role": "user", "content": "x", "tool_calls": []}], {}, ValueError),
        (["hi"], {}, TypeError),
        ("hi", {"temperature": -1}, ValueError),
        ("hi", {"temperature": "hot"}, TypeError),
        ("hi", {"temperature": True}, TypeError),
        ("hi", {"temperature": float("nan")}, ValueError),
        ("hi", {"top_p": 1.5}, ValueError),
        ("hi", {"max_tokens": 0}, ValueError),
        ("hi", {"max_tokens": 2.5}, TypeError),
        ("hi", {"replicate": -1}, ValueError),
        ("hi", {"stop": [""]}, ValueError),
        ("hi", {"top_k": object()}, TypeError),
    ],
)
def test_bad_requests_are_refused(prompt, options, error):
    with pytest.raises(error):
        Request.of(prompt, **options)


@pytest.mark.parametrize("name", ["api_key", "API_KEY", "authorization", "headers"])
def test_secrets_never_become_part_of_a_request(name):
    with pytest.raises(ValueError, match="not an option of a request") as caught:
        Request.of("hi", **{name: "sk-123"})
    assert "sk-123" not in str(caught.value)


def test_replace_keeps_provider_options_and_changes_one():
    request = Request.of("hi", top_k=3, min_p=0.1).replace(top_k=4, temperature=0)
    assert request.extra == (("min_p", "0.1"), ("top_k", "4"))
    assert request.replace(prefix=Prefix(TALK)).messages == (*TALK, Message("user", "hi"))
    with pytest.raises(TypeError, match="prefix is a Prefix"):
        request.replace(prefix=TALK)


def test_to_dict_shows_what_is_set():
    assert Request.of("hi", temperature=0, stop="x").to_dict() == {
        "messages": [{"role": "user", "content": "hi"}],
        "temperature": 0,
        "stop": ("x",),
    }
    assert Request.of("hi").options() == {}


def test_a_prefix_is_immutable_and_travels():
    prefix = Prefix(TALK)
    with pytest.raises(AttributeError, match="immutable"):
        prefix.messages = ()
    with pytest.raises(AttributeError, match="immutable"):
        del prefix.messages
    for other in (pickle.loads(pickle.dumps(prefix)), copy.deepcopy(prefix), Prefix(TALK)):
        assert other == prefix
        assert hash(other) == hash(prefix)
        assert other.copy().hexdigest() == prefix.copy().hexdigest()
    assert len(prefix) == 3
    assert prefix != EMPTY_PREFIX
    assert "3 messages" in repr(prefix)


def test_a_message_can_be_read_as_a_mapping():
    assert TALK[0]["role"] == "system"
    assert TALK[0]["content"] == "Be brief."
    with pytest.raises(KeyError):
        TALK[0]["name"]


@pytest.mark.parametrize(
    ("name", "least"),
    [("temperature", 0), ("top_p", 0), ("max_tokens", 1), ("replicate", 0), ("seed", -(2**63))],
)
def test_the_least_value_of_an_option_is_taken_and_what_is_below_is_not(name, least):
    assert Request.of("hi", **{name: least}).options().get(name, 0) == least
    with pytest.raises(ValueError, match=name):
        Request.of("hi", **{name: least - 1})


def test_a_bare_request_is_one_without_options():
    prefix, tail = Prefix(TALK[:2]), (TALK[2],)
    made, same = Request.bare(prefix, tail), Request(prefix, tail)
    assert type(made) is Request
    assert (made, hash(made), repr(made), made.digest("m"), made.listener) == (
        same,
        hash(same),
        repr(same),
        same.digest("m"),
        None,
    )
    assert pickle.loads(pickle.dumps(made)) == copy.deepcopy(made) == same
    for change in (lambda: setattr(made, "seed", 1), lambda: delattr(made, "seed")):
        with pytest.raises(AttributeError):
            change()
