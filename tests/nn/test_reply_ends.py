"""Why a reply ended: cut, filtered, refused, empty; what is asked again, and what caches keep."""

import json
import warnings

import pytest

from promptgrad import nn
from promptgrad.errors import ContentFilterError, CutReplyError, ParseError, RefusalError, is_outage
from promptgrad.lm import HTTP, Cache, Completion, FunctionLM
from promptgrad.testing import Garbage, LoopbackLM, Reply

END = "\n\n[[ ## completed ## ]]"


class Scripted:
    """Answers from a list; counts what it is asked."""

    def __init__(self, *replies, name="scripted", **options):
        self.replies, self.asked = list(replies), []
        self.lm = FunctionLM(self.answer, name=name, **options)

    def answer(self, messages):
        self.asked.append(messages)
        return self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]


@pytest.mark.parametrize("reason", ["length", "max_tokens", "MAX_TOKENS", "model_length", "contextLengthReached"])
@pytest.mark.parametrize(
    ("signature", "text"),
    [
        ("question -> answer", "The dose must never exceed"),
        ("question -> answer", f"[[ ## answer ## ]]\nThe dose must never exceed{END}"),
        ("question -> answer: list[str]", '["aspirin", "ibuprofen", "parac'),
        ("question -> answer: float", "3.1"),
    ],
)
@pytest.mark.parametrize("adapter", ["chat", "json"])
def test_a_cut_reply_is_an_error_of_its_own_and_not_asked_again(signature, text, reason, adapter):
    model = Scripted(Completion(text, finish_reason=reason), max_tokens=7)
    with pytest.raises(CutReplyError, match=r"cut at max_tokens=7: raise max_tokens") as caught:
        nn.Predict(signature, adapter=adapter, retries=3).to(model.lm)(question="?")
    assert (caught.value.max_tokens, caught.value.reply, len(model.asked)) == (7, text, 1)
    with pytest.raises(CutReplyError, match=r"max_tokens=5") as caught:
        nn.Predict(signature, max_tokens=5).to(model.lm)(question="?")
    with pytest.raises(CutReplyError, match="the model's own limit of tokens: raise max_tokens") as caught:
        nn.Predict(signature).to(FunctionLM(model.answer))(question="?")
    assert caught.value.max_tokens is None


def test_a_cut_text_may_be_allowed_and_a_cut_list_may_not():
    model = Scripted(Completion("[[ ## answer ## ]]\nThe dose must", finish_reason="length"))
    allowing = nn.Predict("question -> answer", allow_cut=True).to(model.lm)
    with pytest.warns(UserWarning, match="ran out of tokens: its end is missing"):
        assert allowing(question="?").answer == "The dose must"
    model = Scripted(Completion('["a", "b"', finish_reason="length"))
    with pytest.raises(ParseError):
        nn.Predict("question -> answer: list[str]", allow_cut=True, retries=0).to(model.lm)(question="?")
    model = Scripted(Completion("[[ ## answer ## ]]\n12", finish_reason="length"))
    with pytest.raises(CutReplyError):
        nn.Predict("question -> answer: int", allow_cut=True).to(model.lm)(question="?")
    model = Scripted("Paris")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert nn.Predict("question -> answer", allow_cut=True).to(model.lm)(question="?").answer == "Paris"


@pytest.mark.parametrize("reason", ["content_filter", "SAFETY", "PROHIBITED_CONTENT", "guardrail_intervened"])
def test_a_filtered_reply_is_no_answer(reason):
    model = Scripted(Completion("[[ ## answer ## ]]\nThe way to", finish_reason=reason))
    with pytest.raises(
        ContentFilterError, match=f"a filter of the provider stopped the reply \\({reason}\\)"
    ) as caught:
        nn.Predict("question -> answer", retries=3).to(model.lm)(question="?")
    assert len(model.asked) == 1
    assert not is_outage(caught.value)


def test_a_refusal_is_an_error_of_its_own():
    with LoopbackLM() as server:
        server.script(Reply(refusal="I can't help."), Reply(refusal="I still can't."))
        with pytest.raises(RefusalError, match="the model refused to answer") as caught:
            nn.Predict("question -> answer").to(HTTP("tiny", server.url))(question="?")
    assert caught.value.reply == "I still can't."


@pytest.mark.parametrize(
    ("adapter", "text"),
    [
        ("chat", "[[ ## answer ## ]]\nParis\n\n[[ ## completed ## ]]"),
        ("chat", "Paris"),
        ("json", '{"answer": "Paris"}'),
        ("json", "Paris"),
    ],
)
def test_a_refusal_beside_a_text_is_no_answer(adapter, text):
    refused, answered = Reply(text, refusal="I can't help."), Reply(text)
    with LoopbackLM() as server:
        program = nn.Predict("question -> answer", adapter=adapter).to(HTTP("tiny", server.url))
        server.script(refused, answered)
        assert program(question="?").answer == "Paris"
        server.script(refused, refused)
        with pytest.raises(RefusalError, match="the model refused to answer") as caught:
            program(question="?")
        assert server.received == 4
    assert caught.value.refusal == "I can't help."


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("error", ParseError),
        ("insufficient_system_resource", ParseError),
        ("load", ParseError),
        ("refusal", RefusalError),
        ("pause_turn", ParseError),
        ("UNEXPECTED_TOOL_CALL", ParseError),
        ("malformed_model_output", ParseError),
        ("unload", ParseError),
        ("userStopped", ParseError),
    ],
)
def test_a_reply_that_broke_off_is_asked_for_again(reason, kind):
    model = Scripted(Completion("[[ ## answer ## ]]\nThe dose", finish_reason=reason), "Paris")
    assert nn.Predict("question -> answer").to(model.lm)(question="?").answer == "Paris"
    assert len(model.asked) == 2
    model = Scripted(Completion("[[ ## answer ## ]]\nThe dose", finish_reason=reason))
    with pytest.raises(kind, match=r"it broke off|the model refused"):
        nn.Predict("question -> answer").to(model.lm)(question="?")


@pytest.mark.parametrize("reason", ["end_turn", "stop_sequence", "eos_token", "tool_calls", "STOP", "other"])
def test_other_reasons_are_ends(reason):
    model = Scripted(Completion("[[ ## answer ## ]]\nParis", finish_reason=reason))
    assert nn.Predict("question -> answer").to(model.lm)(question="?").answer == "Paris"
    assert len(model.asked) == 1


@pytest.mark.parametrize("empty", ["", "  \n"])
def test_an_empty_turn_is_left_out_of_the_second_request(empty):
    model = Scripted(empty, "[[ ## answer ## ]]\n3" + END)
    assert nn.Predict("question -> answer: int").to(model.lm)(question="?").answer == 3
    assert [message.role for message in model.asked[1]] == ["system", "user"]  # two of the user are one
    assert model.asked[1][1].content.startswith(model.asked[0][1].content)
    assert "That reply could not be read" in model.asked[1][1].content


@pytest.mark.parametrize(
    "rubbish", ["no number", "", Completion("[[ ## answer ## ]]\n1", finish_reason="length")], ids=["bad", "", "cut"]
)
@pytest.mark.parametrize("on_disk", [False, True])
def test_a_reply_without_use_is_not_kept(rubbish, on_disk, tmp_path):
    model = Scripted(rubbish, "[[ ## answer ## ]]\n3" + END)
    lm = Cache(model.lm, tmp_path if on_disk else None)
    predict = nn.Predict("question -> answer: int", retries=0).to(lm)
    with pytest.raises(ParseError):
        predict(question="?")
    if on_disk:
        lm.close()
        lm = Cache(model.lm, tmp_path)
        predict.to(lm)
    assert predict(question="?").answer == 3
    assert predict(question="?").answer == 3
    assert (len(model.asked), len(lm)) == (2, 1)
    lm.close()


def test_a_reply_that_a_second_one_mended_is_kept_with_it():
    model = Scripted("no number", "[[ ## answer ## ]]\n3" + END)
    predict = nn.Predict("question -> answer: int").to(Cache(model.lm))
    assert [predict(question="?").answer for _ in range(3)] == [3, 3, 3]
    assert len(model.asked) == 2


def test_a_cut_reply_of_an_earlier_version_on_disk_is_asked_anew(tmp_path):
    model = Scripted("[[ ## answer ## ]]\n3" + END)
    cache = Cache(model.lm, tmp_path)
    predict = nn.Predict("question -> answer: int").to(cache)
    predict(question="?")
    key = next(iter(cache._memory.replies))
    cache._memory.store.put(key, Completion("[[ ## answer ## ]]\n1", finish_reason="length"))
    cache.clear()
    with pytest.raises(CutReplyError):
        predict(question="?")
    assert predict(question="?").answer == 3
    cache.close()


@pytest.mark.parametrize(
    ("choice", "error"),
    [
        ({"message": {"role": "assistant"}, "finish_reason": "length"}, CutReplyError),
        ({"message": None, "finish_reason": "MAX_TOKENS"}, CutReplyError),
        ({"message": {"content": "5"}, "finish_reason": "stop", "native_finish_reason": "MAX_TOKENS"}, CutReplyError),
        ({"message": {}, "finish_reason": "content_filter"}, ContentFilterError),
        ({"finish_reason": "SAFETY"}, ContentFilterError),
        ({"message": {"content": "5"}, "finish_reason": None, "native_finish_reason": "SAFETY"}, ContentFilterError),
        (None, ContentFilterError),
    ],
)
def test_the_reason_is_heard_where_there_is_no_message_or_a_router_says_stop(choice, error):
    reply = {"choices": [choice] if choice else [], "prompt_feedback": {"blockReason": "SAFETY"}}
    with LoopbackLM(lambda messages: "[[ ## answer ## ]]\n5", record=True) as server:
        server.script(Garbage(json.dumps(reply).encode(), 200, "application/json"))
        with pytest.raises(error):
            nn.Predict("question -> answer").to(HTTP("m", server.url))(question="?")
        assert len(server.requests) == 1
