"""The forward pass over a batch of replies: shared prefixes change its cost, and nothing else."""

from __future__ import annotations

import copy
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from promptgrad import lm
from promptgrad.lm import Tokens, reply_logprobs
from promptgrad.lm._prefix_plan import Shared, plan, segments
from promptgrad.lm._tree import Tree, _Layout, takes_trees

torch = pytest.importorskip("torch")

DRAW = random.Random(0)


def words(number: int) -> tuple[int, ...]:
    return tuple(DRAW.randrange(3, 250) for _ in range(number))


def row(prefix: tuple[int, ...]) -> Tokens:
    prompt = (*prefix, *words(DRAW.randrange(4, 12)))
    return Tokens((*prompt, *words(DRAW.randrange(2, 8))), len(prompt))


LONG = words(90)
FORK = (*LONG[:40], *words(40))
ASKED = [(*LONG, *words(n)) for n in (6, 11, 11, 3)]
RUNS = [Tokens((*prompt, *words(DRAW.randrange(2, 8))), len(prompt)) for prompt in ASKED for _ in range(5)]
MIXED = [row(LONG) for _ in range(9)] + [row(FORK) for _ in range(5)] + [row((7, 8))]


def llama() -> Any:
    return copy.deepcopy(lm.pocket().model).requires_grad_(True)


def gpt2() -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    no = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "bos_token_id": 0, "eos_token_id": 0}
    return GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=2, vocab_size=256, **no))


def bloom() -> Any:
    from transformers import BloomConfig, BloomForCausalLM

    return BloomForCausalLM(BloomConfig(hidden_size=32, n_layer=2, n_head=2, vocab_size=256))


def gemma() -> Any:
    from transformers import Gemma2Config, Gemma2ForCausalLM

    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "head_dim": 8, "vocab_size": 256}
    return Gemma2ForCausalLM(
        Gemma2Config(num_attention_heads=4, num_key_value_heads=2, sliding_window=24, **size)  # shorter than the prefix
    )


def mamba() -> Any:
    from transformers import MambaConfig, MambaForCausalLM

    return MambaForCausalLM(MambaConfig(hidden_size=16, num_hidden_layers=2, vocab_size=256, state_size=4))


def gradients(model: Any, batch: list[Tokens], *, shared: bool) -> tuple[float, list[Any]]:
    """The loss and the gradient of every weight."""
    model.zero_grad()
    total = 0.0
    for part in reply_logprobs(model, batch, shared=shared):
        loss = -part.logprobs.sum() / 50
        loss.backward()
        total += float(loss.detach())
    return total, [weight.grad.clone() for weight in model.parameters() if weight.grad is not None]


def furthest(ours: list[Any], theirs: list[Any]) -> float:
    """The largest difference of two gradients, beside the largest number in them: how sums round differs by CPU."""
    largest = max(float(b.abs().max()) for b in theirs)
    return max(float((a - b).abs().max()) for a, b in zip(ours, theirs, strict=True)) / largest


@pytest.mark.parametrize("make", [llama, gpt2, gemma, mamba, bloom])
@pytest.mark.parametrize("batch", [MIXED, RUNS], ids=["mixed", "runs"])
def test_loss_and_gradients_are_those_of_the_padded_batch(make: Callable[[], Any], batch: list[Tokens]) -> None:
    torch.manual_seed(0)
    model = make().train()
    padded, theirs = gradients(model, batch, shared=False)
    loss, ours = gradients(model, batch, shared=True)
    assert loss == pytest.approx(padded, rel=1e-5)
    assert furthest(ours, theirs) <= 1e-5


def test_a_lora_gets_the_same_gradients() -> None:
    from promptgrad.finetune._train import add_lora

    model = add_lora(copy.deepcopy(lm.pocket().model).requires_grad_(False), {"r": 4}).train()
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.02)
    padded, theirs = gradients(model, MIXED, shared=False)
    loss, ours = gradients(model, MIXED, shared=True)
    assert loss == pytest.approx(padded, rel=1e-5)
    assert ours
    assert furthest(ours, theirs) <= 1e-5


def test_behind_the_last_attention_only_places_of_replies_are_computed() -> None:
    model, seen = llama(), dict[str, list[int]]()
    layers = model.model.layers

    def count(name: str) -> Callable[..., None]:
        return lambda _, args, out: seen.setdefault(name, []).append(args[0].shape[1])

    for name in ("mlp.up_proj", "self_attn.o_proj"):
        for layer in layers:
            layer.get_submodule(name).register_forward_hook(count(name))
    gradients(model, RUNS, shared=True)
    replies = sum(len(row.ids) - row.start for row in RUNS)
    assert set(seen) == {"mlp.up_proj", "self_attn.o_proj"}
    for found in seen.values():
        assert found[-1] == replies < found[0]
        assert len(set(found[:-1])) == 1


def test_in_the_last_layer_only_places_of_replies_attend() -> None:
    row = Tokens((1, 2, 3, 7, 8, 9, 4), 5)
    tree = Tree((1, 2, 3), segments([row, replace(row, start=6)], (0, 1), 3))
    wanted = {place for place in range(len(tree.ids)) if place >= 3 and place % 2}
    layout = _Layout(tree, 2, frozenset(wanted), "cpu")
    asking = [place for bundle in layout.last.bundles for place in bundle.asking.flatten().tolist()]
    assert set(asking) == wanted
    assert layout.every.prefix
    assert not layout.last.prefix
    assert sum(bundle.asking.numel() for bundle in layout.every.bundles) == len(tree.ids) - 3


def shared_mlp() -> Any:
    model = llama()
    for layer in model.model.layers:
        layer.mlp = model.model.layers[-1].mlp
    return model


def mixtral() -> Any:
    from transformers import MixtralConfig, MixtralForCausalLM

    size = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "vocab_size": 256}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "num_local_experts": 4}
    return MixtralForCausalLM(MixtralConfig(output_router_logits=True, **size, **heads))


@pytest.mark.parametrize("make", [shared_mlp, mixtral])
def test_one_row_after_the_other_has_the_same_gradients(make: Callable[[], Any]) -> None:
    model, total = make().eval(), 0.0
    loss, ours = gradients(model, RUNS, shared=True)
    model.zero_grad()
    for each in RUNS:
        scores = model(input_ids=torch.tensor([each.ids]), use_cache=False).logits[0].log_softmax(-1)
        alone = -sum(scores[at - 1, each.ids[at]] for at in range(each.start, len(each.ids))) / 50
        alone.backward()
        total += float(alone.detach())
    assert loss == pytest.approx(total, rel=1e-5)
    assert furthest(ours, [weight.grad for weight in model.parameters() if weight.grad is not None]) <= 1e-5


def test_only_the_reply_counts() -> None:
    model = llama()
    one, longer = Tokens((2, 3, 20, 30, 40, 4), 4), Tokens((2, 3, 9, 9, 9, 9, 9, 9, 9, 30, 41, 4), 10)
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([one.ids])).logits[0].log_softmax(-1)
        wanted = sum(float(logits[place - 1, one.ids[place]]) for place in (4, 5))
        (part,) = reply_logprobs(model, [one, longer])
        alone = [next(reply_logprobs(model, [tokens])) for tokens in (one, longer)]
    assert float(part.logprobs[part.rows.index(0)].sum()) == pytest.approx(wanted, rel=1e-4)
    assert [int(part.mask[part.rows.index(place)].sum()) for place in (0, 1)] == [2, 2]
    assert float(part.logprobs.sum()) == pytest.approx(sum(float(p.logprobs.sum()) for p in alone), rel=1e-4)


def test_a_reply_without_a_prompt_begins_at_its_second_token() -> None:
    with torch.no_grad():
        (part,) = reply_logprobs(llama(), [Tokens((5, 6, 7), 0)])
    assert part.mask.tolist() == [[True, True]]


def seen_tokens(model: Any, batch: list[Tokens], *, shared: bool) -> int:
    """How many places go through the model."""
    places = []
    hook = model.register_forward_pre_hook(
        lambda module, args, kwargs: places.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    with torch.no_grad():
        list(reply_logprobs(model, batch, shared=shared))
    hook.remove()
    return sum(places)


def test_a_shared_prefix_is_read_once() -> None:
    model = llama()
    batch = [row(LONG) for _ in range(16)]
    rest = sum(len(tokens.ids) - 90 for tokens in batch)
    assert rest + 90 <= seen_tokens(model, batch, shared=True) <= 1.6 * rest + 90
    assert seen_tokens(model, batch, shared=False) >= 16 * 90 + rest
    getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()  # its name changed in 5.24
    assert seen_tokens(model, batch, shared=True) >= 16 * 90 + rest


def test_prompts_of_several_rows_are_read_once() -> None:
    rest = sum(len(prompt) - 1 - 90 for prompt in ASKED)
    replies = sum(len(tokens.ids) - tokens.start + 1 for tokens in RUNS)
    assert seen_tokens(llama(), RUNS, shared=True) == 90 + rest + replies


@pytest.mark.parametrize("shared", [True, False])
def test_logits_are_made_where_a_token_of_a_reply_is_foretold(shared: bool) -> None:
    model, made = llama(), []
    model.lm_head.register_forward_hook(lambda layer, args, output: made.append(output.shape[:-1].numel()))
    list(reply_logprobs(model, MIXED, shared=shared))
    assert sum(made) == sum(len(tokens.ids) - tokens.start for tokens in MIXED)


def test_a_last_layer_that_is_no_module_changes_nothing() -> None:
    model = llama()
    wanted, theirs = gradients(model, MIXED, shared=True)
    model.get_output_embeddings = lambda: None
    loss, ours = gradients(model, MIXED, shared=True)
    assert loss == pytest.approx(wanted, rel=1e-5)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(ours, theirs, strict=True))


def test_a_layer_with_an_attention_of_its_own_is_found_out() -> None:
    class Other(type(llama())):  # type: ignore[misc] # what is remembered is the class
        pass

    model = llama()
    model.__class__ = Other
    wanted, _ = gradients(model, MIXED, shared=False)
    attention = model.model.layers[0].self_attn
    attention.config = copy.deepcopy(attention.config)
    assert takes_trees(model)
    for _ in range(2):  # the second time, it is known
        assert gradients(model, MIXED, shared=True)[0] == pytest.approx(wanted, rel=1e-5)
    assert not takes_trees(model)
    assert takes_trees(llama())


def doge() -> Any:
    from transformers import DogeConfig, DogeForCausalLM

    size = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "vocab_size": 256}
    return DogeForCausalLM(DogeConfig(num_attention_heads=4, num_key_value_heads=2, **size))


def test_a_mask_of_the_models_own_making_is_found_out() -> None:
    """Its attention is asked by keyword, with something added to its scores."""
    torch.manual_seed(0)
    model = doge()
    for name, weight in model.named_parameters():
        if name.endswith("self_attn.A"):
            torch.nn.init.normal_(weight)
    wanted, theirs = gradients(model, RUNS, shared=False)
    loss, ours = gradients(model, RUNS, shared=True)
    assert loss == pytest.approx(wanted, rel=1e-5)
    assert furthest(ours, theirs) <= 1e-5
    assert not takes_trees(model)


def looped() -> Any:
    """A model that goes through its last block twice."""
    model = llama()
    last = model.model.layers[-1]

    class Twice(type(last)):  # type: ignore[misc]
        def forward(self, hidden: Any, **options: Any) -> Any:
            return super().forward(super().forward(hidden, **options), **options)

    class Looped(type(model)):  # type: ignore[misc] # what is remembered is the class
        pass

    model.__class__, last.__class__ = Looped, Twice
    return model


ALL = [*(row((7, 8)) for _ in range(4)), Tokens(words(9), 1)]  # that of a reply alone has all reach the last layer


@pytest.mark.parametrize("shared", [True, False])
def test_a_last_block_that_is_gone_through_twice_is_found_out(shared: bool) -> None:
    model, total = looped(), 0.0
    for each in ALL:
        scores = model(input_ids=torch.tensor([each.ids]), use_cache=False).logits[0].log_softmax(-1)
        alone = -sum(scores[at - 1, each.ids[at]] for at in range(each.start, len(each.ids))) / 50
        alone.backward()
        total += float(alone.detach())
    theirs = [weight.grad.clone() for weight in model.parameters()]
    for again in (shared, False):  # the second time, it is known
        loss, ours = gradients(model, ALL, shared=again)
        assert loss == pytest.approx(total, rel=1e-5)
        assert furthest(ours, theirs) <= 1e-5


def test_finding_a_model_out_draws_no_random_numbers() -> None:
    """A training that goes on in another process, which finds it out again, has the same weights bit for bit."""
    model, found = looped().train(), []
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = 0.3
    for _ in range(2):
        torch.manual_seed(0)
        found.append((gradients(model, ALL, shared=False)[0], float(torch.rand(()))))
    assert found[0] == found[1]


def test_other_threads_call_the_model_as_always_meanwhile() -> None:
    model = llama().requires_grad_(False)
    ids = torch.tensor([MIXED[0].ids])
    alone, found, here = model(input_ids=ids).logits, [], threading.get_ident()
    wanted = sum(float(part.logprobs.sum()) for part in reply_logprobs(model, MIXED))

    def during(*told: Any) -> None:
        if threading.get_ident() == here:
            thread = threading.Thread(target=lambda: found.append(model(input_ids=ids).logits))
            thread.start()
            thread.join()

    model.model.layers[1].register_forward_pre_hook(during)
    assert sum(float(part.logprobs.sum()) for part in reply_logprobs(model, MIXED)) == pytest.approx(wanted)
    assert found
    assert all(torch.equal(logits, alone) for logits in found)
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("when", ["register_forward_pre_hook", "register_forward_hook"])
def test_ctrl_c_while_a_pass_begins_leaves_the_model_as_it_was(when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = llama()
    wanted, theirs = gradients(model, RUNS, shared=True)
    mlp = model.model.layers[-1].mlp

    def interrupted(*told: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(mlp, when, interrupted)
        with pytest.raises(KeyboardInterrupt):
            gradients(model, RUNS, shared=True)
    loss, ours = gradients(model, RUNS, shared=True)
    assert loss == wanted
    assert furthest(ours, theirs) == 0
    assert model.config._attn_implementation == "sdpa"


def rows_of(groups: list[Shared]) -> Iterator[int]:
    for group in groups:
        for part in (*group.parts, *group.packs):
            yield from part


def test_the_plan_finds_the_prefixes() -> None:
    groups = plan(MIXED)
    assert sorted(rows_of(groups)) == list(range(len(MIXED)))
    assert {group.prefix for group in groups} == {0, 80, 90}
    assert plan([MIXED[0]]) == [Shared(0, ((0,),))]
    alike = [Tokens((*LONG, 1), 90)] * 4  # the last token of the prompt is left to foretell the reply
    assert [group.prefix for group in plan(alike)] == [89]


def test_ragged_rows_are_cut_by_length() -> None:
    ragged = [Tokens((*words(n), 9), n) for n in (10, 12, 400, 410, 11)]
    (group,) = plan(ragged, shared=False)
    assert group.parts == ((0, 4, 1), (2, 3))
    assert plan([], shared=True) == []


def test_parts_bound_the_memory() -> None:
    mixed = [Tokens((1,) * n, 1) for n in (5000, 10, 3000, 20, 9000)]
    groups = plan(mixed, shared=False)
    parts = [part for group in groups for part in group.parts]
    assert sorted(rows_of(groups)) == [0, 1, 2, 3, 4]
    assert all(len(part) == 1 or len(part) * max(len(mixed[i].ids) for i in part) <= 8192 for part in parts)
    many = [Tokens((*LONG, 1, 2, 3), 91) for _ in range(40)]
    (group,) = plan(many, limit=200)
    assert not group.packs
    assert group.prefix == 90
    assert len(group.parts) > 1
    assert all(len(part) * (3 + 90 / 8) <= 200 for part in group.parts)


def test_packs_bound_the_memory_too() -> None:
    (group,) = plan(RUNS, trees=True)
    assert group == Shared(90, packs=(group.packs[0],))
    for limit in (120, 200, 400):
        groups = plan(RUNS, trees=True, limit=limit)
        assert sorted(rows_of(groups)) == list(range(len(RUNS)))
        for group in groups:
            for pack in group.packs:
                places = group.prefix + sum(len(each.ids) for each in segments(RUNS, pack, group.prefix))
                assert places <= limit or len(pack) == 1
    tight = [Tokens((*LONG, *words(8)), 94) for _ in range(40)]
    (group,) = plan(tight, trees=True, limit=120)  # each pack would have the prefix again
    assert group.parts
    assert not group.packs
