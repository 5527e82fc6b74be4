"""`Nearest`: a language model that is as good as the examples it is shown."""

from promptgrad import lm, nn
from promptgrad.testing import Fields, Nearest

DEMOS = [
    {"text": "where is my new card", "label": "arrival"},
    {"text": "I lost my card", "label": "lost"},
    {"text": "what is the rate of exchange", "label": "rate"},
]


def model(demos, **fields):
    return nn.Predict("text -> label", demos=demos).to(lm.FunctionLM(Nearest(Fields(**fields)), name="nearest"))


def test_the_answer_is_that_of_the_most_similar_example():
    ask = model(DEMOS)
    assert ask(text="the rate for dollars").label == "rate"
    assert ask(text="somebody lost a card").label == "lost"
    assert model(DEMOS[:1])(text="the rate for dollars").label == "arrival"


def test_of_equally_similar_ones_the_first_counts_and_without_any_the_fields_answer():
    assert model(DEMOS)(text="zebra").label == "arrival"
    assert model([], label="none")(text="I lost my card").label == "none"
