"""A table is no list of examples: each place that takes data says how to make one of it."""

import pytest

import promptgrad as pg
from promptgrad import nn, optim
from promptgrad.data import DataLoader, Example, split, table_hint
from promptgrad.errors import DataError, InputError
from promptgrad.metrics import exact_match

ROWS = [{"question": "a", "answer": "b"}] * 6


class Pandas:
    columns = ("question", "answer")

    def to_dict(self, orient="dict"):
        return ROWS if orient == "records" else {}

    def __iter__(self):
        return iter(self.columns)

    def __len__(self):
        return len(ROWS)

    def __getitem__(self, name):
        return [row[name] for row in ROWS]


class Polars(Pandas):
    def to_dicts(self):
        return ROWS


class Arrow:
    def __init__(self):
        self.column_names = ["question", "answer"]

    def to_pylist(self):
        return ROWS


class HuggingFace:
    column_names = ("question", "answer")

    def __iter__(self):
        return iter(ROWS)

    def __len__(self):
        return len(ROWS)

    def __getitem__(self, index):
        return ROWS[index]


class Torch:
    def __len__(self):
        return len(ROWS)

    def __getitem__(self, index):
        return ROWS[index]


def asker():
    return nn.Predict("question -> answer", lm=pg.lm.FunctionLM(lambda _: "[[ ## answer ## ]]\nb"))


def places(table):
    model = asker()
    trainer = pg.Trainer(model, optim.LabeledFewShot(model.parameters()), metric=pg.metrics.exact_match)
    return {
        "evaluate": lambda: pg.evaluate(model, table, pg.metrics.exact_match),
        "fit": lambda: trainer.fit(table),
        "plan": lambda: trainer.plan(ROWS, table),
        "loader": lambda: DataLoader(table),
        "split": lambda: split(table, 0.5),
        "from_dicts": lambda: Example.from_dicts(table),
        "gradcheck": lambda: pg.gradcheck(model, table, table, pg.metrics.exact_match),
    }


@pytest.mark.parametrize(
    ("table", "how"),
    [
        (Pandas(), 'from_dicts(table.to_dict("records"), inputs=[...])'),
        (Polars(), "from_dicts(table.to_dicts(), inputs=[...])"),
        (Arrow(), "from_dicts(table.to_pylist(), inputs=[...])"),
        (HuggingFace(), "from_dicts(table, inputs=[...])"),
        (Torch(), "from_dicts([table[i] for i in range(len(table))], inputs=[...])"),
    ],
    ids=lambda table: type(table).__name__,
)
def test_map_names_what_to_write(table, how):
    with pytest.raises(pg.errors.InputError) as caught:
        asker().map(table)
    assert str(caught.value).endswith(f"write promptgrad.Example.{how}")
    made = eval_of(how.partition("(")[2].rpartition(", inputs")[0], table)
    examples = Example.from_dicts(made, inputs="question")
    assert asker().map(examples)[0].answer == "b"


def eval_of(written, table):
    known = {
        'table.to_dict("records")': lambda: table.to_dict("records"),
        "table.to_dicts()": lambda: table.to_dicts(),
        "table.to_pylist()": lambda: table.to_pylist(),
        "table": lambda: table,
        "[table[i] for i in range(len(table))]": lambda: [table[i] for i in range(len(table))],
    }
    return known[written]()


@pytest.mark.parametrize("table", [Pandas(), Polars(), Arrow()], ids=lambda table: type(table).__name__)
@pytest.mark.parametrize("place", list(places(None)))
def test_every_place_that_takes_data_refuses_columns(place, table):
    with pytest.raises(pg.errors.DataError, match=r"not a table .* promptgrad.Example.from_dicts\("):
        places(table)[place]()


def test_an_input_names_what_to_write():
    with pytest.raises(pg.errors.InputError, match=r"a table \(Pandas\) was passed: write .map\(.*from_dicts"):
        asker()(question=Pandas())


def test_rows_by_index_or_as_dicts_are_data():
    assert pg.evaluate(asker(), HuggingFace(), pg.metrics.exact_match).score == 1
    assert len(list(DataLoader(Torch(), batch_size=4))) == 2
    assert Example.from_dicts(HuggingFace(), inputs=["question"])[0].inputs() == {"question": "a"}


@pytest.mark.parametrize("data", [ROWS, tuple(ROWS), iter(ROWS), Example(columns=1, to_dict=2), {"columns": 1}, "text"])
def test_other_data_is_no_table(data):
    assert table_hint(data) == ""


@pytest.mark.parametrize(
    "data", ["abc", b"abc", bytearray(b"abc"), {"question": ["a"]}, 5, None, Example(question="a")]
)
def test_what_is_no_list_of_examples_is_said_so_everywhere(data):
    what = rf"list of examples, not one {type(data).__name__}"
    for take in (
        lambda: DataLoader(data, batch_size=1),
        lambda: split(data, 0.5),
        lambda: pg.evaluate(nn.Predict("question -> answer"), data, exact_match),
        lambda: pg.Trainer(
            program := nn.Predict("question -> answer"),
            optim.LabeledFewShot(program.parameters()),
            metric=exact_match,
            budget=pg.Budget(calls=2),
        ).fit(data),
    ):
        with pytest.raises(DataError, match=what):
            take()
    with pytest.raises(InputError, match="map takes a list"):
        nn.Predict("question -> answer").map(data)
