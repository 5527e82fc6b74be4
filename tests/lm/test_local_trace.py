import copy
import itertools
import json
from array import array

import pytest

from promptgrad import aio, nn, no_grad, run
from promptgrad.autograd import WeightTrace as Protocol
from promptgrad.data import pocket as pocket_world
from promptgrad.lm import Cache, FunctionLM, Local, Request, pocket
from promptgrad.lm._local_trace import LARGEST_RATIO, LocalTrace

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

REQUEST = Request.of("w1 w2 w3", temperature=1.5, max_tokens=12)


@pytest.fixture
def lm(models, tokenizer):
    made = Local(copy.deepcopy(models["llama"]), tokenizer, name="llama").requires_grad_()
    yield made
    made.close()


def test_a_trace_is_there_only_when_a_gradient_is_wanted(lm):
    assert isinstance(lm(REQUEST).trace, Protocol)
    assert lm.traces()
    assert not FunctionLM(str).traces()
    with no_grad():
        assert lm(REQUEST).trace is None
        assert not lm.traces()
    lm.requires_grad_(False)
    assert lm.weights() == []
    assert lm(REQUEST).trace is None


def test_log_probabilities_agree_with_those_of_sampling(lm):
    for replicate in range(5):
        for temperature in (0, 0.5, 2.0):
            trace = lm(REQUEST, temperature=temperature, replicate=replicate).trace
            assert trace.log_likelihood().tolist() == pytest.approx(list(trace.logprobs), abs=1e-4)
    assert trace.requires_grad
    assert "llama" in repr(trace)


def test_backward_is_the_policy_gradient(lm):
    trace = lm(REQUEST).trace
    before = trace.log_likelihood().sum().item()
    trace.backward(2.0)
    weights = lm.weights()
    grads = [weight.grad.clone() for weight in weights]
    trace.backward(-1.0)  # accumulates
    for weight, grad in zip(weights, grads, strict=True):
        assert torch.allclose(weight.grad, grad / 2, atol=1e-5)
    for weight in weights:
        weight.grad = None
    expected = torch.autograd.grad(-2.0 * trace.log_likelihood().sum(), weights)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(grads, expected, strict=True))
    trace.backward(1.0)
    torch.optim.SGD(weights, lr=1e-3).step()
    assert trace.log_likelihood().sum().item() > before  # a good reply became likelier


def test_many_at_once_give_the_sum_of_their_gradients(lm):
    long = " ".join(f"w{i}" for i in range(40))
    traces = [
        lm(f"{long} w{i % 3}", temperature=heat, replicate=i).trace for i, heat in enumerate([0, 0.5, 1, 2, 1, 1])
    ]
    advantages = [1.0, -0.5, 0.25, -1.0, 2.0, 0.5]
    for trace, advantage in zip(traces, advantages, strict=True):
        trace.backward(advantage)
    one_by_one = [weight.grad.clone() for weight in lm.weights()]
    for weight in lm.weights():
        weight.grad = None
    passes = []
    hook = lm.model.register_forward_pre_hook(lambda *_: passes.append(1))
    type(traces[0]).backward_all(list(zip(traces, advantages, strict=True)))
    hook.remove()
    assert len(passes) < len(traces)
    for weight, wanted in zip(lm.weights(), one_by_one, strict=True):
        assert torch.allclose(weight.grad, wanted, atol=1e-5 * float(wanted.abs().max()))


END, WORDS, MOST, HEAT = 3, 6, 3, 0.8


class Tiny:
    """A model of six words, so small that all its replies can be written down."""

    name = "tiny"

    def __init__(self):
        config = transformers.LlamaConfig(
            vocab_size=WORDS, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
        )
        torch.manual_seed(1)
        self.model = transformers.LlamaForCausalLM(config).double().eval()
        torch.nn.init.normal_(self.model.lm_head.weight, std=0.5)

    def weights(self):
        return list(self.model.parameters())

    def version(self):
        return sum(weight._version for weight in self.weights())

    def move(self, size):
        with torch.no_grad():
            for number, weight in enumerate(self.weights()):
                weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(number)), alpha=size)

    def likelihoods(self, prompt, replies):
        """Of each reply as a whole, with a graph; those of a length at once, so that nothing is padded."""
        found = [None] * len(replies)
        for length in range(1, MOST + 1):
            rows = [row for row, ids in enumerate(replies) if len(ids) == length]
            ids = torch.tensor([[*prompt, *replies[row]] for row in rows])
            logits = self.model(ids).logits[:, len(prompt) - 1 : -1] / HEAT
            sums = logits.log_softmax(-1).gather(-1, ids[:, len(prompt) :, None])[..., 0].sum(1)
            for row, total in zip(rows, sums, strict=True):
                found[row] = total
        return torch.stack(found)

    def traces(self, prompt, replies):
        for ids in replies:
            yield LocalTrace(self, prompt, ids, [0.0] * len(ids), HEAT, self.version())

    def gradient(self):
        found = [weight.grad for weight in self.weights()]
        self.model.zero_grad()
        return found


def all_replies():
    """Every reply that the model may make: up to its end, or three words."""
    for length in range(1, MOST + 1):
        for ids in itertools.product(range(WORDS), repeat=length):
            if END not in ids[:-1] and (ids[-1] == END or length == MOST):
                yield ids


@pytest.mark.parametrize("moved", [0.0, 0.0007, 0.004])
def test_the_expected_gradient_is_that_of_the_expected_score(moved):
    """Over all replies, each as often as the old weights say it; of old weights too, if no ratio reaches its bound."""
    tiny, prompt, replies = Tiny(), (1, 2, 4), list(all_replies())
    scores = [1.0 * (ids.count(5) == 1) + 0.3 * (ids[0] == 0) - 0.2 * len(ids) for ids in replies]
    traces = list(tiny.traces(prompt, replies))
    old = tiny.likelihoods(prompt, replies).detach()
    assert float(old.exp().sum()) == pytest.approx(1.0)
    for trace, total in zip(traces, old.tolist(), strict=True):
        trace.logprobs = array("f", [total / len(trace.ids)] * len(trace.ids))
    tiny.move(moved)
    now = tiny.likelihoods(prompt, replies)
    ratios = (now - old).exp().detach()
    assert (float(ratios.max()) > LARGEST_RATIO) == (moved == 0.004)
    LocalTrace.backward_all(list(zip(traces, (old.exp() * torch.tensor(scores)).tolist(), strict=True)))
    found = tiny.gradient()
    if moved == 0.004:  # as documented: what became much likelier counts twice and no more
        wanted = (old.exp() * ratios.clamp(max=2.0) * torch.tensor(scores) * now).sum()
    else:
        wanted = (now.exp() * torch.tensor(scores)).sum()
    (-wanted).backward()
    for ours, theirs in zip(found, tiny.gradient(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6 * float(theirs.abs().max()) + 1e-9)


def test_what_was_sampled_before_a_step_is_weighted_and_the_rest_is_not(lm):
    old = lm(REQUEST).trace
    old.backward(1.0)
    torch.optim.SGD(lm.weights(), lr=5e-6).step()
    lm.model.zero_grad()
    new = lm(REQUEST, replicate=1).trace
    ratio = (old.log_likelihood().sum() - sum(old.logprobs)).exp().item()
    assert 1.0 < ratio < LARGEST_RATIO
    wanted = torch.autograd.grad(-ratio * old.log_likelihood().sum() + 0.5 * new.log_likelihood().sum(), lm.weights())
    type(new).backward_all([(new, -0.5), (old, 1.0)])
    for weight, grad in zip(lm.weights(), wanted, strict=True):
        assert torch.allclose(weight.grad, grad, atol=2e-5 * float(grad.abs().max()))


def test_one_large_batch_is_learned_in_several_steps():
    """The rollouts are made once; later passes over the same loss are weighted, where they were refused before."""
    task = pocket_world.task("color-of-last", seed=3)
    examples = task.split(4, 1, 1)[0]
    own = pocket(temperature=1.0).requires_grad_()
    program = nn.Predict("text -> answer", instruction=task.instruction("partial")).to(own)
    loss = nn.MetricLoss(task.metric)(program.map(examples, n=4), examples)
    traces = [tape.nodes[0].weight_traces[0] for tape in loss.tapes]
    right = [trace for trace, row in zip(traces, loss.rows, strict=True) if row.score]
    before = sum(sum(trace.logprobs) for trace in right)
    optimizer = torch.optim.SGD(own.weights(), lr=0.01)
    for number in range(3):
        loss.backward(retain_graph=number < 2)
        optimizer.step()
        optimizer.zero_grad()
    assert 0 < len(right) < 16
    assert sum(float(trace.log_likelihood().detach().sum()) for trace in right) > before
    own.close()


def test_log_probabilities_come_back_from_a_journal_as_they_were(lm):
    trace = lm(REQUEST).trace
    again = LocalTrace.from_dict(lm, json.loads(json.dumps(trace.to_dict())))
    assert again.logprobs == trace.logprobs


def test_a_cache_does_not_stand_between(lm):
    cached = Cache(lm)
    assert cached(REQUEST).trace is not None
    assert cached(REQUEST).trace is not None
    assert len(cached) == 0
    with no_grad():
        cached(REQUEST)
        assert cached(REQUEST).cached


def test_a_replayed_call_has_its_trace_too(lm, tmp_path):
    def go():
        with run.Journal(tmp_path / "j.jsonl") as journal, run.active(journal=journal):
            return lm(REQUEST)

    first, second = go(), go()
    assert second == first
    assert second.trace is not first.trace
    assert second.trace.ids == first.trace.ids
    assert second.trace.to_dict() == first.trace.to_dict()
    second.trace.backward(1.0)
    with no_grad():
        assert go().trace is None


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft asks transformers
def test_only_lora_weights_want_gradients(lm):
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    tuned = lm.with_model(peft.get_peft_model(copy.deepcopy(lm.model), config), "tuned")
    tuned.requires_grad_(False)
    assert tuned.weights() == []
    tuned.requires_grad_()
    names = [name for name, weight in tuned.model.named_parameters() if weight.requires_grad]
    assert names
    assert all("lora_" in name for name in names)
    trace = aio.drive(tuned.complete(REQUEST)).trace
    trace.backward(1.0)
    assert any(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in tuned.weights())
    assert trace.log_likelihood().tolist() == pytest.approx(list(trace.logprobs), abs=1e-4)
    tuned.close()


def test_a_program_with_frozen_text_is_recorded_for_its_weights(lm):
    program = nn.Predict("question -> answer").to(Cache(lm)).requires_grad_(False)
    assert program._open_tape((), {"question": "a"}) is not None
    assert program.weights()
    with no_grad():
        assert program._open_tape((), {"question": "a"}) is None
    lm.requires_grad_(False)
    assert program.weights() == []
    assert program._open_tape((), {"question": "a"}) is None
