"""Several answers about one call, and how far they agree."""

import pytest

import promptgrad as pg
from promptgrad import nn
from promptgrad.autograd import Loss
from promptgrad.data import Example
from promptgrad.errors import LMConnectionError
from promptgrad.metrics import exact_match
from tests.autograd.programs import Call, ScriptedCritic, row, texts


class Several(ScriptedCritic):
    """Answers by replicate: a text, or an error to raise."""

    def __init__(self, *answers):
        super().__init__()
        self.answers = answers

    async def critique(self, failure):
        await super().critique(failure)
        answer = self.answers[failure.replicate]
        if isinstance(answer, Exception):
            raise answer
        return {"instruction": answer}


def backward(*answers, critic=Several, **options):
    call = Call("call", lambda q: "text")
    critic = critic(*answers)
    report = Loss([row(lambda q: call(q=q).out, None, q="x")], critic).backward(repeat=len(answers), **options)
    return call, critic, report


def test_what_most_answers_say_counts_and_their_share_is_kept():
    call, critic, report = backward("name the unit", "be polite to people", "name the unit", "")
    (critique,) = call.instruction.grad.critiques
    assert (critique.text, critique.agreement) == ("name the unit", 0.5)
    assert report.calls == len(critic.asked) == 4
    assert [failure.replicate for failure in critic.asked] == [0, 1, 2, 3]


def test_noise_can_be_filtered_out():
    call, _, _ = backward("name the unit", "be polite to people", "stay calm", "")
    assert call.instruction.grad.filter(min_agreement=0.5).critiques == ()
    call, _, _ = backward("name the unit", "name the unit")
    assert len(call.instruction.grad.filter(min_agreement=0.5).critiques) == 1


def test_an_answer_that_fails_is_one_answer_less_and_all_of_them_a_skipped_call():
    down = LMConnectionError("down")
    call, _, report = backward("name the unit", down, "name the unit")
    assert call.instruction.grad.critiques[0].agreement == 1.0
    assert report.skipped[0].reason.startswith("1 of 3 answers failed")
    with pytest.warns(RuntimeWarning, match="every critic call failed"):
        call, _, report = backward(down, down)
    assert texts(call.instruction) == []


class Agreeing(Several):
    """Says which of its answers agree: those that end in the same word."""

    def __init__(self, *answers):
        super().__init__(*answers)
        self.compared = []

    async def agreeing(self, failure, target, texts):
        self.compared.append((failure.node.path, target, tuple(texts)))
        ends = list(dict.fromkeys(text.split()[-1] for text in texts))
        if "down" in ends:
            raise LMConnectionError("down")
        return [[number for number, text in enumerate(texts) if text.endswith(end)] for end in ends]


def test_a_critic_that_can_says_which_of_its_answers_agree():
    answers = ("name the unit", "be brief", "give a unit", "Name the unit.", "")
    call, critic, report = backward(*answers, critic=Agreeing)
    (critique,) = call.instruction.grad.critiques
    assert (critique.text, critique.agreement) == ("Name the unit.", 0.6)
    assert critic.compared == [("call", "instruction", ("name the unit", "be brief", "give a unit"))]
    assert report.calls == len(critic.asked) + 1 == 6
    assert backward("name the unit", "Name the unit!", critic=Agreeing)[1].compared == []


def test_where_the_comparison_fails_the_words_decide_and_the_report_says_so():
    call, _, report = backward("name the unit", "name the unit", "it is down", critic=Agreeing)
    (critique,) = call.instruction.grad.critiques
    assert (critique.text, critique.agreement) == ("name the unit", pytest.approx(2 / 3))
    (skipped,) = report.skipped
    assert skipped.reason.startswith("the answers about 'instruction' were compared by their words alone")


def test_it_is_for_single_calls():
    with pytest.raises(ValueError, match="engine='local'"):
        backward("a", "b", engine="joint")
    with pytest.raises(ValueError, match="at least 1"):
        backward()


def test_each_answer_is_a_request_of_its_own_and_the_first_is_the_usual_one():
    requests = []

    def respond(request: pg.lm.Request):
        requests.append(request)
        if "feedback" in request.messages[-1]["content"]:
            return "[[ ## critique ## ]]\nname the unit\n\n[[ ## to_blame ## ]]\ntrue"
        return "[[ ## answer ## ]]\nParis"

    lm = pg.lm.FunctionLM(respond)
    model = nn.Predict("question -> answer").to(lm)
    batch = [Example(question="q", answer="Rome").with_inputs("question")]
    for repeat, asked in ((1, [(0, None)]), (3, [(0, None), (1, 1.0), (2, 1.0)])):
        model.zero_grad()
        loss = nn.MetricLoss(exact_match, critic=lm)(model.map(batch), batch)
        requests.clear()
        loss.backward(repeat=repeat)
        assert sorted((request.replicate, request.temperature) for request in requests) == asked
        assert model.instruction.grad.critiques[0].agreement == 1.0
