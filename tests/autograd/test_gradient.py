import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptgrad.autograd import Critique, Gradient, Text, Trace, tokens
from promptgrad.data import Example

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
fields = st.dictionaries(st.sampled_from(["q", "a"]), json_values, max_size=2)
critiques = st.builds(
    Critique,
    st.text(max_size=2),
    st.sampled_from(["solve", "pick"]),
    st.integers(0, 3),
    st.sampled_from(["instruction", "description"]),
    st.text(max_size=12) | st.text(max_size=12).map(Text),
    st.fixed_dictionaries({"inputs": fields, "feedback": st.lists(st.text(max_size=3), max_size=2).map(tuple)}),
    st.integers(1, 3),
    st.sampled_from(["wrong", "error"]),
    agreement=st.sampled_from([0.25, 0.5, 1.0]),
)
traces = st.builds(
    Trace, st.text(max_size=2), st.sampled_from(["solve", "pick"]), st.integers(0, 3), fields, fields, st.floats(0, 1)
)
gradients = st.lists(critiques | traces, max_size=6).map(Gradient)


def critique(text, example="e", *, path="solve", target="instruction", **more):
    return Critique(example, path, 0, target, text, **more)


def test_the_model_that_answered_is_no_part_of_what_a_critique_says():
    """It may hold a key, and a resumed run has another object."""
    one, other = critique("no", lm=object()), critique("no", lm=object())
    assert one == other
    assert repr(one) == repr(other) == repr(critique("no"))


@given(gradients, gradients, gradients)
def test_addition_appends_and_associates(a, b, c):
    assert (a + b) + c == a + (b + c)
    assert (a + b).records == a.records + b.records
    assert a + Gradient() == Gradient() + a == a
    assert a + None == a
    assert sum([a, b, c], Gradient()) == sum([a, b, c]) == a + b + c


@given(gradients, st.integers(-7, 7), st.integers(-7, 7))
def test_it_is_a_sequence_of_records(gradient, start, stop):
    assert len(gradient) == len(list(gradient)) == len(gradient.critiques) + len(gradient.traces)
    assert bool(gradient) == bool(gradient.records)
    assert gradient[start:stop] == Gradient(gradient.records[start:stop])
    assert gradient[::-1].records == gradient.records[::-1]
    assert [gradient[at] for at in range(len(gradient))] == list(gradient)
    with pytest.raises(IndexError):
        gradient[len(gradient)]


def test_it_is_frozen():
    one = critique("no")
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.text = "other"
    gradient = Gradient([one])
    before = gradient.records
    for made in (gradient + gradient, gradient.filter(), gradient.cluster(), gradient.clip(0), gradient[:0]):
        assert made is not gradient
    assert gradient.records is before
    with pytest.raises(TypeError):
        gradient[0] = one
    with pytest.raises(TypeError):
        hash(gradient)
    with pytest.raises(TypeError):
        gradient + 1


class TestFilter:
    gradient = Gradient(
        [
            critique("a", "1"),
            Trace("1", "solve", 0, {}, {}, 0.0),
            critique("b", "2", path="pick", verdict="error", agreement=0.5),
            critique("c", "2", target="description", support=4, examples=("2", "3", "4", "5")),
            Trace("2", "pick", 0, {}, {}, 1.0),
        ]
    )

    @pytest.mark.parametrize(
        ("wanted", "kept"),
        [
            ({}, [0, 1, 2, 3, 4]),
            ({"path": "solve"}, [0, 1, 3]),
            ({"example_id": "2"}, [2, 3, 4]),
            ({"example_id": "5"}, [3]),
            ({"target": "instruction"}, [0, 1, 2, 4]),
            ({"verdict": "error"}, [1, 2, 4]),
            ({"min_support": 2}, [1, 3, 4]),
            ({"min_agreement": 0.6}, [0, 1, 3, 4]),
            ({"path": "pick", "min_agreement": 0.6}, [4]),
        ],
    )
    def test_every_condition_holds_for_what_is_kept_and_traces_know_only_path_and_example(self, wanted, kept):
        assert self.gradient.filter(**wanted).records == tuple(self.gradient[at] for at in kept)

    def test_a_predicate_sees_what_the_rest_left(self):
        seen = []
        kept = self.gradient.filter(lambda record: seen.append(record) or isinstance(record, Trace), path="solve")
        assert kept.records == (self.gradient[1],)
        assert seen == [self.gradient[at] for at in (0, 1, 3)]

    @given(gradients)
    def test_two_conditions_are_one_after_the_other(self, gradient):
        both = gradient.filter(path="solve", verdict="wrong")
        assert both == gradient.filter(path="solve").filter(verdict="wrong") == both.filter(path="solve")


class TestClip:
    def test_the_weightiest_whole_critiques_stay_in_their_order(self):
        gradient = Gradient(
            [
                critique("one two three", support=2, agreement=0.5),
                critique("four five", support=3),
                critique("six", support=1),
                critique("seven, eight!", support=2),
            ]
        )
        assert [c.text for c in gradient.clip(7).critiques] == ["four five", "six", "seven, eight!"]
        assert [c.text for c in gradient.clip(6).critiques] == ["four five", "seven, eight!"]
        assert [c.text for c in gradient.clip(5).critiques] == ["one two three", "four five"]
        assert [c.text for c in gradient.clip(1).critiques] == ["six"]
        assert gradient.clip(0) == Gradient()
        assert gradient.clip(10) == gradient

    @given(gradients, st.integers(0, 12))
    def test_it_is_within_the_bound_and_keeps_traces_and_order(self, gradient, bound):
        clipped = gradient.clip(bound)
        assert sum(len(tokens(c.text)) for c in clipped.critiques) <= bound
        assert clipped.traces == gradient.traces
        kept = iter(gradient)
        assert all(any(record is other for other in kept) for record in clipped)
        assert clipped.clip(bound) == clipped

    def test_a_negative_bound_is_refused(self):
        with pytest.raises(ValueError, match="max_tokens is at least 0, not -1"):
            Gradient().clip(-1)


class TestJson:
    @given(gradients)
    def test_it_comes_back_as_it_was(self, gradient):
        assert Gradient.from_dict(json.loads(json.dumps(gradient.to_dict()))) == gradient

    def test_the_records_keep_their_order_and_language_models_stay_out(self):
        gradient = Gradient([critique("a", lm=object()), Trace("e", "solve", 0, {}, {}, 1.0), critique("b")])
        data = gradient.to_dict()
        assert [record["kind"] for record in data["records"]] == ["critique", "trace", "critique"]
        assert "lm" not in data["records"][0]
        back = Gradient.from_dict(data)
        assert back == gradient
        assert back[0].lm is None

    def test_a_cluster_remembers_its_examples(self):
        merged = Gradient([critique("no", "1"), critique("no", "2")]).cluster()
        assert Gradient.from_dict(json.loads(json.dumps(merged.to_dict())))[0].examples == ("1", "2")

    def test_what_has_no_form_in_json_is_said_as_well_as_it_can_be(self):
        class Dumps:
            def model_dump(self):
                return {"k": (1, None)}

        evidence = {"inputs": {"a": Text("x"), "b": Dumps(), "c": Example(q="1"), "d": object}, "feedback": ("f",)}
        gradient = Gradient(
            [
                Critique("e", "solve", 1, "instruction", Text("no"), evidence),
                Trace("e", "solve", 0, {"q": 1}, {"a": [2.5]}, 1.0),
            ]
        )
        dumped = json.loads(json.dumps(gradient.to_dict()))
        assert dumped == gradient.to_dict()
        assert dumped["records"][0]["evidence"]["inputs"] == {
            "a": "x",
            "b": {"k": [1, None]},
            "c": {"q": "1"},
            "d": str(object),
        }
        assert dumped["records"][1] == {
            "kind": "trace",
            "example_id": "e",
            "path": "solve",
            "index": 0,
            "inputs": {"q": 1},
            "outputs": {"a": [2.5]},
            "score": 1.0,
            "best": 1.0,
        }
        assert type(gradient.to_dict()["records"][0]["text"]) is str

    @pytest.mark.parametrize(
        ("data", "said"),
        [
            ({"critiques": [], "traces": []}, r"not a gradient: expected what Gradient.to_dict\(\) returns"),
            ([1, 2], "not a gradient"),
            ({"format": "promptgrad.gradient", "version": 2, "records": []}, "of version 2, .* reads version 1"),
            ({"format": "promptgrad.gradient", "version": 1}, "the 'records' of a gradient are a list"),
            ({"format": "promptgrad.gradient", "version": 1, "records": [{"kind": "song"}]}, "record 0 .* neither"),
            ({"format": "promptgrad.gradient", "version": 1, "records": ["no"]}, "record 0 .* neither"),
            (
                {"format": "promptgrad.gradient", "version": 1, "records": [{"kind": "trace", "loud": 1}]},
                "record 0 of the gradient is not a valid trace: .*loud",
            ),
        ],
    )
    def test_foreign_dicts_are_refused(self, data, said):
        with pytest.raises(ValueError, match=said):
            Gradient.from_dict(data)


class TestRepr:
    def test_it_counts_and_tells_the_most_supported(self):
        trace = Trace("e", "s", 0, {}, {}, 1.0)
        assert repr(Gradient()) == "Gradient()"
        assert repr(Gradient([critique("no"), trace])) == "Gradient(1 critique, 1 trace: 'no')"
        many = Gradient([critique("rare", "1"), *(critique("often", str(n)) for n in range(3)), trace, trace])
        assert repr(many) == str(many) == "Gradient(4 critiques, 2 traces: 3 x 'often', 'rare')"
        assert repr(many.cluster()) == "Gradient(2 critiques, 2 traces: 3 x 'often', 'rare')"
        assert repr(Gradient([critique("no", "1"), critique("no", "1")])) == "Gradient(2 critiques: 'no')"

    def test_it_stays_short(self):
        long = Gradient([critique(f"{number} name the unit, " * 9, str(number)) for number in range(50)])
        assert repr(long).startswith("Gradient(50 critiques: '0 name the unit, 0 name")
        assert repr(long).endswith("...', ...)")
        assert len(repr(long)) < 240

    def test_in_a_notebook_it_is_a_table_of_clusters(self):
        page = Gradient([critique("use <b>", "1"), critique("Use <b>.", "2"), critique("no", "1")])._repr_html_()
        assert "Gradient: 3 critiques" in page
        assert "<td>2</td><td>solve.instruction</td>" in page
        assert "&lt;b&gt;" in page
        assert "<b>" not in page
        assert Gradient()._repr_html_() == "<div>Gradient: empty</div>"
