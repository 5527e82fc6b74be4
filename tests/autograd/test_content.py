import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptgrad.autograd._content import Explained, Index, words
from tests.counting import growth, steps

VALUE = "The Seine flows through Paris, past Rouen and Le Havre."

TRANSFORMATIONS = {
    "embedded": lambda v: f"Context:\n{v}\nQuestion: which river?",
    "stripped": lambda v: f"> {v.strip('. ')} <",
    "upper": lambda v: v.upper(),
    "lower": lambda v: v.lower(),
    "json": lambda v: json.dumps({"notes": [v, "other"]}),
    "json in json": lambda v: json.dumps(json.dumps([v])),
    "one line": lambda v: " ".join(v.split()),
    "wrapped": lambda v: v.replace(" ", "\n  "),
    "markdown": lambda v: "* **" + v.replace(" ", "* *", 1) + "**",
    "quoted": lambda v: repr(v),
    "first words": lambda v: " ".join(v.split()[:5]),
    "last words": lambda v: "... " + " ".join(v.split()[-4:]),
    "a slice": lambda v: f"As noted, {v[4:35]}, is it not?",
    "xml": lambda v: f"<note>{v}</note>",
    "joined": lambda v: "; ".join(["one thing", v, "another thing"]),
}


def found(index, text):
    return index.find(words(text))


@pytest.mark.parametrize("how", TRANSFORMATIONS)
@pytest.mark.parametrize("value", [VALUE, 'He said: "no\\way"\tat\n 3 µm - ünïcode tâil', "three small words"])
def test_a_value_is_found_again_after(how, value):
    if value == "three small words" and how in ("first words", "last words", "a slice"):
        pytest.skip("nothing that is three words long is left")
    index = Index()
    index.add("other", "something else was said by another call here")
    index.add("it", value)
    assert "it" in found(index, TRANSFORMATIONS[how](value))


@given(st.lists(st.text(min_size=1), min_size=1, max_size=4))
def test_a_whole_item_is_found_whatever_it_says(items):
    index = Index()
    for item in items:
        index.add(item, item)
    for item in items:
        if words(item):
            matches = found(index, item)
            assert [words(match) for match in matches] == [words(item)]


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])), st.text(), st.text())
def test_a_telling_value_survives_json_inside_any_text(value, before, after):
    index = Index()
    telling = f"{value} zebra quartz violin"
    index.add("it", telling)
    assert "it" in found(index, f"{before} {json.dumps([telling])} {after}")


def test_short_values_count_only_as_a_whole():
    index = Index()
    index.add("it", "yes")
    assert found(index, "Yes.") == {"it": False}
    assert found(index, "yes or no") == {}


def test_function_words_prove_nothing():
    index = Index()
    index.add("it", "It is one of the best as far as I can see")
    assert found(index, "one of the worst, as far as the eye can see") == {}


def test_long_values_without_three_words_are_found():
    index = Index()
    index.add("token", "x9f3a7c2b4e8d1f0a6")
    assert "token" in found(index, "use the key x9f3a7c2b4e8d1f0a6 for it")
    cjk = "東京は日本の首都であり世界最大の都市圏です"
    index.add("cjk", cjk)
    assert "cjk" in found(index, f"次の文: {cjk}。")
    function = "of which there are to be more of them"
    index.add("function", function)
    assert "function" in found(index, f"- {function} -")


def test_the_latest_producer_counts_and_ambiguity_is_told():
    index = Index()
    index.add("first", VALUE)
    assert found(index, VALUE) == {"first": False}
    index.add("second", VALUE)
    assert found(index, VALUE) == {"second": True}
    assert found(index, f"so {VALUE} it is") == {"second": True}
    index.add("second", VALUE)
    assert found(index, VALUE) == {"second": True}


def test_of_equal_long_values_the_latest_counts():
    index = Index()
    for producer in ("first", "second", "third"):
        index.add(producer, "Mount Kilimanjaro")
    assert found(index, "so it is Mount Kilimanjaro then") == {"third": True}


def test_of_long_values_that_begin_alike_the_longest_counts():
    index = Index()
    index.add("12", "x9f3a7c2b4e8d1f0a6-12")
    index.add("1", "x9f3a7c2b4e8d1f0a6-1")
    assert found(index, "the key x9f3a7c2b4e8d1f0a6-12 opens it") == {"12": False}
    assert found(index, "the key x9f3a7c2b4e8d1f0a6-1 opens it") == {"1": False}
    assert found(index, "the keys x9f3a7c2b4e8d1f0a6-1 and x9f3a7c2b4e8d1f0a6-12 open it") == {"1": False, "12": False}


def test_two_producers_in_one_text_are_both_found():
    index = Index()
    index.add("a", "apples grow on trees")
    index.add("b", "boats sail at sea")
    assert found(index, "We know: boats sail at sea; apples grow on trees.") == {"b": False, "a": False}


class TestExplained:
    def test_whole_texts_are_covered_and_passages_masked(self):
        known = Explained(["What is the capital of France?", "short"])
        assert known.covers(words("what is the CAPITAL of france"))
        assert known.covers([])
        assert known.covers(["short"])
        assert not known.covers(["france"])
        rest = known.mask(words("Q: What is the capital of France? A: Paris"))
        assert "capital" not in rest
        assert rest[-2:] == ["a", "paris"]

    def test_masking_leaves_no_false_neighbours(self):
        index = Index()
        index.add("it", "alpha beta gamma")
        rest = Explained(["one two three four"]).mask(words("alpha one two three four beta gamma"))
        assert index.find(rest) == {}

    def test_passages_that_overlap_are_all_masked(self):
        known = Explained(["three four five", "one two three", "one two three four", "six seven eight"])
        masked = known.mask(words("zero one two three four five and nine"))
        assert list(dict.fromkeys(masked)) == ["zero", "\0", "and", "nine"]
        assert set(known.mask(words("one two three six seven eight"))) == {"\0"}
        assert known.mask(words("one two four five")) == words("one two four five")

    def test_the_cost_does_not_grow_with_the_passages(self):
        def cost(count):
            known = Explained(f"this is passage number {number} of them" for number in range(count))
            text = words("so passage number 7 of them, as this is passage number 8 of them " * 20)
            assert "\0" in known.mask(text)
            return steps(lambda: known.mask(text))

        assert cost(10_000) < 2 * cost(10)

    def test_short_texts_are_not_masked(self):
        assert Explained(["a"]).mask(["x", "a", "y"]) == ["x", "a", "y"]

    def test_words_are_known(self):
        known = Explained(["Question: {}", "why is it"])
        assert known.knows(known.mask(words("Question: why is it")))
        assert not known.knows(words("Question: how"))


def test_recall_and_precision_on_random_texts():
    """From three words up: every embedded value is found, and at most one find in twenty is false."""
    rng = random.Random(0)
    vocabulary = [f"w{i}" for i in range(426)]
    true = false = missed = 0
    for _ in range(150):
        index = Index()
        values = [" ".join(rng.choices(vocabulary, k=rng.randint(3, 12))) for _ in range(30)]
        for number, value in enumerate(values):
            index.add(number, value)
        used = set(rng.sample(range(30), 3))
        parts = [values[number] for number in used] + [" ".join(rng.choices(vocabulary, k=40))]
        rng.shuffle(parts)
        matches = set(found(index, " ... ".join(parts)))
        true += len(matches & used)
        false += len(matches - used)
        missed += len(used - matches)
    assert missed == 0
    assert false / (true + false) <= 0.05


WORDS = [f"w{number}" for number in range(5000)]


@pytest.mark.parametrize(
    "say",
    [
        lambda number: " ".join(random.Random(number).choices(WORDS, k=30)),
        lambda number: "Mount Kilimanjaro",
        lambda number: f"Mount-Kilimanjaro-number-{number:05}".replace("-", ""),
    ],
    ids=["many words", "the same long value", "long values that begin alike"],
)
def test_cost_is_linear_in_the_words(say):
    def work(count):
        index = Index()
        texts = [say(number) for number in range(count)]

        def add_and_find():
            for number, text in enumerate(texts):
                index.add(number, text)
                assert number in index.find(words(f"so far: {text}"))

        return add_and_find

    assert growth(work, 100, times=8) < 12
