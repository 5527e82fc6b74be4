import pytest

from promptgrad.data import Example, from_dicts, read_csv, read_jsonl
from promptgrad.errors import DataError


def test_jsonl(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('\ufeff{"q": "ä", "tags": ["x"]}\n\n{"q": "b", "tags": []}\n', encoding="utf-8")
    rows = read_jsonl(path, inputs=["q"])
    assert rows == [Example(q="ä", tags=["x"]), Example(q="b", tags=[])]
    assert rows[0].inputs() == {"q": "ä"}
    assert read_jsonl(str(path))[0].input_keys is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"q": 1}\n{"q": \n', r"rows.jsonl:2: not JSON"),
        ('{"q": 1}\n[1]\n', r"rows.jsonl:2: a row is a mapping"),
        ('{"q": 1}\n{"a": 1}\n', r"rows.jsonl:2: with_inputs: no field 'q'"),
        ("\n\n", "has no rows"),
        ('{"q": 1, "q": 2}\n', r"rows.jsonl:1: not JSON \(the key 'q' comes twice"),
        ("[" * 100_000, r"rows.jsonl:1: not JSON \(maximum recursion"),
        (b"\xff\xfe{", "rows.jsonl is not UTF-8"),
    ],
)
def test_bad_jsonl_names_the_line(tmp_path, text, words):
    (tmp_path / "rows.jsonl").write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(DataError, match=words):
        read_jsonl(tmp_path / "rows.jsonl", inputs="q")


def test_csv(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text('q,a\n"one, two","line\nbreak"\n3,4\n', encoding="utf-8")
    rows = read_csv(path, inputs="q")
    assert rows == [Example(q="one, two", a="line\nbreak"), Example(q="3", a="4")]
    assert rows[1].labels() == {"a": "4"}
    (tmp_path / "rows.tsv").write_text("q\ta\n1\t2\n")
    assert read_csv(tmp_path / "rows.tsv", delimiter="\t") == [Example(q="1", a="2")]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("q,a\n1,2\n1\n", r"rows.csv:3: 1 values for 2 columns"),
        ("q,a\n1,2,3\n", r"rows.csv:2: 3 values"),
        ("q,a\n", "has no rows"),
        ("", "has no rows"),
        ("q,q\n1,2\n", "appears twice"),
        ("b,a\n1,2\n", r"rows.csv:2: with_inputs: no field 'q'"),
        (b"q,a\n\xff,1\n", "rows.csv is not UTF-8"),
        ("q\n" + "x" * 200_000, r"rows.csv is no CSV .* raise csv.field_size_limit"),
    ],
)
def test_bad_csv_names_the_line(tmp_path, text, words):
    (tmp_path / "rows.csv").write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(DataError, match=words):
        read_csv(tmp_path / "rows.csv", inputs=["q"])


def test_dicts():
    assert from_dicts([{"q": 1}], inputs=["q"])[0].inputs() == {"q": 1}
    with pytest.raises(DataError, match="no rows"):
        from_dicts([])
    with pytest.raises(DataError, match="row 0: a row is a mapping from field to value, not str"):
        from_dicts(["columns of a frame"])


def test_a_missing_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_jsonl(tmp_path / "nothing.jsonl")
