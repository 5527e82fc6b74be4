"""A plan counts the demos that candidates show."""

import pytest

import promptgrad as pg
from promptgrad import Example, nn, optim
from promptgrad.search import Plan
from promptgrad.train._price import price_of_program

DATA = [
    Example(question=f"what is the name of the person with the number {n}?", answer=f"person {n}") for n in range(24)
]


class Priced(pg.lm.FunctionLM):
    prices = (1.0, 2.0)


PRICED = Priced(lambda _: "[[ ## answer ## ]]\nperson 1", name="priced")


def ask(**options):
    return nn.Predict("question -> answer", lm=PRICED, adapter="chat", **options)


def plan(optimizer, model=None):
    model = ask() if model is None else model
    made = optimizer(model.parameters())
    return pg.Trainer(model, made, metric=pg.metrics.exact_match).plan(DATA, DATA[:8], DATA[8:16])


def of_phase(planned, name):
    return next(phase for phase in planned.phases if phase.name.endswith(name))


FEW_SHOT = {
    "labeled": (lambda params: optim.LabeledFewShot(params, k=6), 6),
    "nearest": (lambda params: optim.KNNFewShot(params, k=3), 3),
    "bootstrap": (lambda params: optim.BootstrapFewShot(params, 2, 5), 5),
    "random": (lambda params: optim.RandomSearch(params, 4, 0), 4),
    "mipro": (lambda params: optim.MIPRO(params, max_bootstrapped_demos=2, max_labeled_demos=3), 3),
    "auto": (lambda params: optim.Auto(params, demos=(4, 2)), 4),
    "together": (lambda params: optim.BetterTogether("a", a=optim.LabeledFewShot(params, k=7)), 7),
    "ensemble": (lambda params: optim.Ensemble(optim.LabeledFewShot(params, k=2), size=2), 2),
}  # fmt: skip


@pytest.mark.parametrize("kind", FEW_SHOT)
def test_candidates_cost_about_what_a_prompt_with_that_many_demos_costs(kind):
    make, shown = FEW_SHOT[kind]
    params = ask()
    optimizer = make(list(params.parameters()))
    planned = plan(lambda _: optimizer, params)
    with_demos = plan(optim.TGD, ask(demos=DATA[:shown]))
    copies = optimizer.copies
    demos = of_phase(planned, "test").demo_tokens * (1 + copies) / copies  # the start, without, is tested too
    assert planned.tokens_per_call + demos == pytest.approx(with_demos.tokens_per_call, rel=0.1)
    assert {phase.demo_tokens for phase in planned.phases if phase.name == "baseline"} <= {0}
    assert planned.tokens > 1.2 * planned.calls * planned.tokens_per_call


def test_nobody_shows_more_demos_than_there_are_examples_or_than_are_there():
    few = pg.Trainer(model := ask(), optim.LabeledFewShot(model.parameters(), k=16), metric=pg.metrics.exact_match)
    one, two = few.plan(DATA[:3], DATA[:8]), few.plan(DATA[:6], DATA[:8])
    assert of_phase(two, "finals").demo_tokens == pytest.approx(2 * of_phase(one, "finals").demo_tokens)
    full = plan(lambda params: optim.LabeledFewShot(params, k=4), ask(demos=DATA[:4]))
    assert of_phase(full, "finals").demo_tokens == 0


@pytest.mark.parametrize("make", [optim.TGD, optim.GEPA, lambda params: optim.MIPRO(params, num_demo_sets=0)])
def test_optimizers_of_texts_show_none(make):
    planned = plan(make)
    assert {phase.demo_tokens for phase in planned.phases} == {0}
    written = [phase for phase in planned.phases if phase.tokens_per_call is not None]
    more = sum(phase.calls * (phase.tokens_per_call - planned.tokens_per_call) for phase in written)
    assert planned.tokens == round(planned.calls * planned.tokens_per_call + more)


@pytest.mark.parametrize("words", [4, 150])
@pytest.mark.parametrize("make", [optim.TGD, optim.GEPA, optim.MIPRO, optim.Auto])
def test_a_writer_costs_about_what_the_rows_cost_that_it_is_shown(make, words):
    rows = [Example(question=" ".join(f"w{n}{i}" for i in range(words)), answer=f"w{n}0") for n in range(24)]
    rows = [row.with_inputs("question") for row in rows]
    asked = []

    def write(messages):
        asked.append(sum(len(message["content"]) for message in messages) / 4)
        return f"[[ ## analysis ## ]]\nx\n\n[[ ## new_instruction ## ]]\nAnswer, {len(asked)}.\n\n[[ ## completed ## ]]"

    class Strong(pg.lm.FunctionLM):
        prices = (100.0, 200.0)

    model = ask()
    optimizer = make(model.parameters(), lm=Strong(write, name="strong"))
    trainer = pg.Trainer(model, optimizer, metric=pg.metrics.exact_match, budget=pg.Budget(calls=150))
    phase = of_phase(trainer.plan(rows[:12], rows[12:]), ("proposals", "propose"))
    trainer.fit(rows[:12], rows[12:])
    assert 0.6 < phase.tokens_per_call / (sum(asked) / len(asked) + 200) < 1.7
    assert phase.usd_per_call == pytest.approx((100 * (phase.tokens_per_call - 200) + 200 * 200) / 1e6)


def test_frozen_demos_and_labels_that_a_module_lacks_are_not_counted():
    frozen = ask()
    frozen.demos.requires_grad_(requires_grad=False)
    assert {phase.demo_tokens for phase in plan(optim.MIPRO, frozen).phases} == {0}
    inner = nn.Predict("question -> query", lm=PRICED, adapter="chat")
    assert of_phase(plan(optim.LabeledFewShot, inner), "finals").demo_tokens == 0
    assert of_phase(plan(optim.BootstrapFewShot, inner), "finals").demo_tokens > 0


def test_writers_show_none_and_half_of_the_test_runs_does():
    planned = plan(lambda params: optim.MIPRO(params, max_bootstrapped_demos=2, max_labeled_demos=2))
    assert of_phase(planned, "propose").demo_tokens == 0
    assert of_phase(planned, "test").demo_tokens == pytest.approx(of_phase(planned, "finals").demo_tokens / 2)


def test_money_and_the_print_count_them():
    planned = plan(lambda params: optim.LabeledFewShot(params, k=6))
    finals = of_phase(planned, "finals")
    assert finals.demo_usd == pytest.approx(finals.demo_tokens / 1e6)
    assert planned.usd > planned.calls * planned.usd_per_call
    assert f"about {planned.tokens} tokens, ${planned.usd:.4f}" in repr(planned)
    assert isinstance(planned, Plan)


def test_an_unknown_price_stays_unknown():
    class Unpriced(pg.lm.FunctionLM):
        prices = None

    planned = plan(optim.LabeledFewShot, nn.Predict("question -> answer", lm=Unpriced(lambda _: "x"), adapter="chat"))
    assert planned.usd is None
    assert "price unknown" in repr(planned)


def test_a_labelled_reply_is_counted_by_its_length_to_the_quarter_of_a_token():
    def tokens(answer):
        return price_of_program(ask(), [Example(question="name?", answer=answer)]).tokens

    assert tokens("x" * 44) - tokens("x" * 40) == 1
    assert tokens("x" * 42) - tokens("x" * 40) == 0.5
    assert tokens("x" * 40) - tokens("") == 10
