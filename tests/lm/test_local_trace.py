import copy

import pytest

from promptgrad import aio, nn, no_grad, run
from promptgrad.autograd import WeightTrace as Protocol
from promptgrad.errors import GraphError
from promptgrad.lm import Cache, FunctionLM, Local, Request

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

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


def test_none_of_many_is_added_when_one_is_of_older_weights(lm):
    old = lm(REQUEST).trace
    old.backward(1.0)
    torch.optim.SGD(lm.weights(), lr=0.1).step()
    for weight in lm.weights():
        weight.grad = None
    new = lm(REQUEST).trace
    with pytest.raises(GraphError, match="before the optimizer's step"):
        type(new).backward_all([(new, 1.0), (old, 1.0)])
    assert all(weight.grad is None for weight in lm.weights())


def test_a_trace_of_older_weights_is_refused(lm):
    trace = lm(REQUEST).trace
    trace.backward(1.0)
    torch.optim.SGD(lm.weights(), lr=0.1).step()
    with pytest.raises(GraphError, match="before the optimizer's step"):
        trace.backward(1.0)


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
