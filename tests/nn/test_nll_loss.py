"""The likelihood of right replies: the value, the gradient, and the loop that a user of PyTorch writes."""

from __future__ import annotations

import copy
import math

import pytest

import promptgrad as pg
from promptgrad import finetune, lm, nn
from promptgrad.data import Example, pocket
from promptgrad.errors import ContextWindowError, GraphError, InputError
from tests.lm.conftest import make_model, make_tokenizer

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

TASK = pocket.task("label-map-kind", seed=3)
BATCH = TASK.split(16, 4, 4)[0]


@pytest.fixture
def local():
    options = {"temperature": 1.0, "max_tokens": 4, "constrain": False}  # its vocabulary has no braces
    made = lm.Local(make_model(), make_tokenizer(), name="tiny", **options).requires_grad_()
    yield made
    made.close()


def plain(local):
    """A program of one module that asks in few words, as the tiny model reads 128 tokens."""
    return nn.Predict("x -> y", instruction="w1 w2", adapter="json").to(local)


def examples(count=4):
    return [Example(x=f"w{i} w{i + 1}", y=f"w{i + 2}" if i % 2 else "w5 w6 w7").with_inputs("x") for i in range(count)]


def by_hand(local, messages, reply):
    """The log-likelihood of a reply in one plain forward pass of torch."""
    prompt = local.encode(lm.Request(tail=messages))
    ids = [*prompt, *local.tokenizer(reply, add_special_tokens=False)["input_ids"], local.tokenizer.eos_token_id]
    logits = local.model(input_ids=torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
    chosen = logits.gather(-1, torch.tensor(ids)[1:, None])[:, 0]
    return chosen[len(prompt) - 1 :]


def of_pocket():
    made = lm.pocket()
    return made.with_model(copy.deepcopy(made.model), "mine").requires_grad_()


def grads(weights):
    return [None if weight.grad is None else weight.grad.clone() for weight in weights]


def clear(weights):
    for weight in weights:
        weight.grad = None


def test_value_and_gradient_are_those_of_torch(local):
    program, batch = plain(local), examples()
    with torch.enable_grad():
        parts = [by_hand(local, program.messages(x=e.x), '{"y": "%s"}' % e.y) for e in batch]  # noqa: UP031
        whole = -torch.cat(parts).sum() / sum(map(len, parts))
    wanted = torch.autograd.grad(whole, program.weights())

    loss = nn.NLLLoss()(program, batch)
    assert loss.item() == pytest.approx(whole.item(), rel=1e-5)
    assert loss.items == pytest.approx([-part.mean().item() for part in parts], rel=1e-5)
    loss.backward()
    for weight, grad in zip(program.weights(), wanted, strict=True):
        assert torch.allclose(weight.grad, grad, atol=1e-5 * max(1.0, float(grad.abs().max())))


def test_it_is_the_first_loss_of_supervised_fine_tuning():
    program = nn.Predict("text -> answer", instruction=TASK.instruction("vague")).to(of_pocket())
    tuned = finetune.sft(program, BATCH, lora=None, steps=1, batch_size=len(BATCH), progress=False)
    assert nn.NLLLoss()(program, BATCH).item() == pytest.approx(tuned.losses[0], rel=1e-5)
    assert nn.NLLLoss()(program.map(BATCH), BATCH).item() == pytest.approx(tuned.losses[0], rel=1e-5)


def test_the_prompts_are_those_that_the_forward_sent_whatever_the_model_replied(local):
    program, batch = plain(local), examples(2)
    outputs = program.map(batch)
    assert len(outputs.errors) == 1  # random weights: a reply may not parse
    loss = nn.NLLLoss()(outputs, batch)
    assert loss.errors == ()
    assert loss.items == pytest.approx(nn.NLLLoss()(program, batch).items)
    assert repr(loss).endswith("2 targets, 0 errors)")
    assert all(row.loss == pytest.approx(-row.score) and not row.failed for row in loss.rows)


def test_the_loop_of_a_pytorch_user(local):
    model, data = plain(local), examples(6)
    loader = pg.data.DataLoader(data, batch_size=3, shuffle=True, seed=0)
    criterion = nn.NLLLoss()
    adamw = torch.optim.AdamW(model.named_weights(), lr=1e-2)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(adamw, T_max=8)
    start = criterion(model, data).item()
    for _ in range(4):
        for batch in loader:
            loss = criterion(model.map(batch), batch)
            loss.backward()
            assert torch.nn.utils.clip_grad_norm_(model.weights(), 1.0) > 0
            adamw.step()
            scheduler.step()
            adamw.zero_grad()
    assert scheduler.get_last_lr() == [pytest.approx(0.0, abs=1e-9)]
    assert criterion(model, data).item() < 0.5 * start


def test_the_embedded_model_learns_labels():
    model = nn.Predict("text -> answer", instruction=TASK.instruction("vague")).to(of_pocket())
    adamw = torch.optim.AdamW(model.weights(), lr=3e-3)
    start = None
    for _ in range(6):
        loss = nn.NLLLoss()(model.map(BATCH), BATCH)
        start = loss.item() if start is None else start
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.weights(), 1.0)
        adamw.step()
        adamw.zero_grad()
    criterion = nn.MetricLoss(TASK.metric)
    assert nn.NLLLoss()(model, BATCH).item() < start / 2
    assert criterion(model.map(BATCH), BATCH).item() < 0.7


def test_with_a_metric_one_backward_fills_texts_traces_and_weights():
    model = nn.Predict("text -> answer", instruction=TASK.instruction("vague")).to(of_pocket())
    batch = BATCH[:4]
    outputs = model.map(batch)
    alone = nn.NLLLoss()(outputs, batch)
    alone.backward(retain_graph=True)
    assert model.instruction.grad is None
    assert model.demos.grad is None
    own = grads(model.weights())
    clear(model.weights())
    both = 2 * nn.NLLLoss()(outputs, batch) + nn.MetricLoss(TASK.metric)(outputs, batch)
    assert "4 targets" in repr(both)
    both.backward()
    assert model.instruction.grad.critiques
    assert len(model.demos.grad.traces) == 4
    for weight, once in zip(model.weights(), own, strict=True):
        assert torch.allclose(weight.grad, 2 * once, atol=1e-5)
    model.zero_grad()
    assert model.instruction.grad is None
    assert all(weight.grad is None for weight in model.weights())


def test_names_of_weights_begin_at_the_module_that_was_moved(local):
    program = nn.Sequential(plain(local), nn.Predict("y -> z").to(lm.Cache(local)))
    names = dict(program.named_weights())
    assert list(names) == [f"0.lm.{name}" for name, _ in local.model.named_parameters()]
    assert all(one is two for one, two in zip(names.values(), program.weights(), strict=True))
    assert next(iter(dict(plain(local).named_weights()))).startswith("lm.model.")


def test_in_a_program_of_several_modules(local):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Predict("x -> y", adapter="json")
            self.second = nn.Predict("x, y -> z", adapter="json")

        def forward(self, x):
            try:
                y = self.first(x=x).y
            except pg.errors.ParseError:
                y = "w1"
            return self.second(x=x, y=y)

    model = Two().to(local)
    one = [Example(x="w1", z="w2").with_inputs("x")]
    outputs = model.map(one)
    loss = nn.NLLLoss()(outputs, one)
    (node,) = {row.node for row in loss.rows}
    assert node.path == "second"
    assert loss.rows[0].target.prompt_ids.tolist() == local.encode(node.request)
    both = [Example(x="w1", y="w3", z="w2").with_inputs("x")]
    with pytest.raises(InputError, match=r"several modules.*'first', 'second'"):
        nn.NLLLoss()(model.map(both), both)
    assert nn.NLLLoss("first")(model.map(both), both).rows[0].node.path == "first"
    assert nn.NLLLoss(model.second)(model.map(both), both).rows[0].node.path == "second"
    with pytest.raises(InputError, match="first lacks y; second lacks y"):
        nn.NLLLoss()(model, one)


def test_what_cannot_be_judged_is_refused_clearly(local):
    program, batch = plain(local), examples(1)
    with pg.no_grad(), pytest.raises(GraphError, match="needs no record"):
        nn.NLLLoss()(program.map(batch), batch)
    with pg.no_grad():
        assert nn.NLLLoss()(program, batch).item() > 0
    with pytest.raises(InputError, match="no module: the program lacks y"):
        nn.NLLLoss()(program, [Example(x="w1")])
    with pytest.raises(InputError, match="only a local model"):
        nn.NLLLoss()(nn.Predict("x -> y").to(lm.FunctionLM(str, name="far")), batch)
    with pytest.raises(ContextWindowError, match="at most 128"):
        nn.NLLLoss()(program, [Example(x="w1 " * 200, y="w2")])
    with pytest.raises(TypeError, match=r"loss\.item"):
        nn.NLLLoss(reduction="sum")
    local.requires_grad_(False)
    with pytest.raises(GraphError, match="requires_grad_"):
        nn.NLLLoss()(program, batch).backward()
    assert nn.NLLLoss()(program, batch) is not None


def test_a_row_that_is_too_long_is_apart(local):
    program = plain(local)
    batch = [*examples(1), Example(x="w1 " * 200, y="w2").with_inputs("x")]
    loss = nn.NLLLoss()(program, batch)
    assert [type(row.error) for row in loss.rows] == [type(None), ContextWindowError]
    assert loss.item() == pytest.approx(loss.items[0])
    assert math.isnan(loss.items[1])


def test_it_is_refused_after_the_optimizers_step(local):
    program, batch = plain(local), examples(2)
    loss = nn.NLLLoss()(program, batch)
    loss.backward()
    torch.optim.SGD(program.weights(), lr=0.1).step()
    with pytest.raises(GraphError, match="before the optimizer's step"):
        loss.backward()
