import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptgrad.autograd import same_group
from promptgrad.autograd._agreement import agreed, wordings

UNIT, WORD = "Say which unit is meant.", "Answer in one word."


def test_one_answer_agrees_with_itself():
    assert agreed([{"instruction": UNIT, "text": ""}]) == {"instruction": (UNIT, 1.0)}


def test_the_largest_cluster_speaks_and_its_share_is_of_all_answers():
    answers = [
        {"instruction": WORD, "text": "it is empty"},
        {"instruction": UNIT},
        {"instruction": "Say  which unit is meant", "text": ""},
        {"instruction": "say which unit is meant!", "text": None},
        {"instruction": "  "},
    ]
    found = agreed(answers)
    assert list(found) == ["instruction", "text"]
    text, agreement = found["instruction"]
    assert agreement == 0.6
    assert "which unit is meant" in text
    assert found["text"] == ("it is empty", 0.2)


def test_of_equal_clusters_the_earliest_speaks():
    assert agreed([{"i": WORD}, {"i": UNIT}]) == {"i": (WORD, 0.5)}
    assert agreed([{"i": UNIT}, {"i": WORD}, {"i": WORD}, {"i": UNIT}]) == {"i": (UNIT, 0.5)}


def test_other_words_agree_if_somebody_says_so_of_their_target():
    answers = [{"i": UNIT, "x": UNIT}, {"i": WORD}, {"i": "Name the unit.", "x": "Name the unit."}]
    same = {"i": same_group([UNIT, WORD, "Name the unit."], [[0, 2], [1]])}
    found = agreed(answers, same)
    assert found["i"] == ("Name the unit.", pytest.approx(2 / 3))
    assert found["x"] == (UNIT, pytest.approx(1 / 3))


def test_of_each_wording_one_text_is_compared():
    assert wordings([UNIT, WORD, "say which unit is  meant", "use metres", WORD]) == [UNIT, WORD, "use metres"]


@pytest.mark.parametrize("pair", [("use metres", "do not use metres"), ("at most 3 words", "at most 5 words")])
def test_contraries_do_not_agree(pair):
    (_, agreement) = agreed([{"i": text} for text in pair])["i"]
    assert agreement == 0.5


@pytest.mark.parametrize("nobody", [[{}], [{"i": None}, {"i": ""}], [{"i": "  "}], []])
def test_where_nobody_blames_there_is_nothing(nobody):
    assert agreed(nobody) == {}


texts = st.sampled_from([UNIT, "say which unit is meant", WORD, "", "name the color"])


@given(st.lists(st.dictionaries(st.sampled_from(["i", "x"]), texts), min_size=1, max_size=8))
def test_an_agreement_is_a_share_of_the_answers(answers):
    found = agreed(answers)
    for target, (text, agreement) in found.items():
        said = [answer.get(target, "") for answer in answers]
        assert text in said
        assert said.count(text) / len(answers) <= agreement <= 1
        assert (agreement * len(answers)) == pytest.approx(round(agreement * len(answers)))
    blamed = {target for answer in answers for target, text in answer.items() if text}
    assert set(found) == blamed
