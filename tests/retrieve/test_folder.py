import json
import os
import subprocess
import sys

import bm25s
import pytest

from promptgrad import retrieve
from promptgrad.errors import DataError
from tests.retrieve.test_bm25 import RIVERS, found, texts


def saved(folder, **options):
    index = retrieve.BM25(RIVERS, **options)
    index.save(folder)
    return index


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_what_is_saved_comes_back_and_grows(tmp_path):
    index = saved(tmp_path / "rivers")
    again = retrieve.load(tmp_path / "rivers")
    assert repr(again) == repr(index)
    for query in ("flows rome", "cologne", "nothing"):
        assert found(again, query) == found(index, query)
    assert again.search("flows", filter={"sea": "north"})[0].metadata == {"length": 1233, "sea": "north"}
    for each in (again, index):
        each.add(["The Elbe flows through Dresden and Hamburg."])
    assert found(again, "flows elbe") == found(index, "flows elbe")
    with pytest.raises(DataError, match="'rhine' stands twice"):
        again.add([{"text": "again", "id": "rhine"}])
    again.save(tmp_path / "rivers")  # over what it was read from
    assert found(retrieve.load(tmp_path / "rivers", verify=False), "flows elbe") == found(index, "flows elbe")
    assert len({name.split("/")[0] for name in files(tmp_path / "rivers")}) == 2  # the old files are gone


def test_a_process_that_made_no_index_reads_every_kind(tmp_path):
    saved(tmp_path / "rivers")
    retrieve.Hybrid([retrieve.BM25(RIVERS), retrieve.BM25(RIVERS)]).save(tmp_path / "both")
    code = """
import sys
from promptgrad import retrieve
for folder in sys.argv[1:]:
    print(retrieve.load(folder).search("flows rome")[0].id)
print(*sorted(retrieve.Retriever.kinds))
"""
    command = [sys.executable, "-c", code, str(tmp_path / "rivers"), str(tmp_path / "both")]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600).stdout.splitlines()
    first = retrieve.BM25(RIVERS).search("flows rome")[0].id
    assert said == [first, first, "bm25 dense hybrid rerank"]


def test_a_large_vocabulary_and_an_empty_index_come_back(tmp_path):
    index = retrieve.BM25(texts(300))
    index.save(tmp_path / "large")
    assert found(retrieve.load(tmp_path / "large"), "w1 w2 w3", 50) == found(index, "w1 w2 w3", 50)
    retrieve.BM25().save(tmp_path / "empty")
    again = retrieve.load(tmp_path / "empty")
    assert (len(again), again.search("w1")) == (0, [])


def test_bm25s_opens_the_folder(tmp_path):
    index = saved(tmp_path)
    (data,) = tmp_path.glob("data-*")
    peer = bm25s.BM25.load(data, mmap=True)
    assert float(peer.get_scores(["rome"])[1]) == pytest.approx(index.search("rome")[0].score, abs=1e-5)


def test_functions_are_given_again(tmp_path):
    def stem(word):
        return word.rstrip("s")

    saved(tmp_path, stemmer=stem)
    with pytest.raises(DataError, match=r"was made with the stemmer .*stem, and a folder holds no code: pass stemmer="):
        retrieve.load(tmp_path)
    assert len(retrieve.load(tmp_path, stemmer=stem).search("romes")) == 1
    with pytest.raises(TypeError, match="not stemming"):
        retrieve.load(tmp_path, stemming=stem)


def test_it_is_for_its_owner_alone(tmp_path):
    saved(tmp_path)
    assert {path.stat().st_mode & 0o077 for path in tmp_path.rglob("*") if path.is_file()} == {0}


def damage_size(folder, name):
    with next(folder.glob(f"data-*/{name}")).open("ab") as file:
        file.write(b"x")


def damage_content(folder, name):
    path = next(folder.glob(f"data-*/{name}"))
    whole = bytearray(path.read_bytes())
    whole[-2] ^= 1
    path.write_bytes(bytes(whole))


@pytest.mark.parametrize("name", ["passages.jsonl", "passages.npy", "data.csc.index.npy", "counts.npy"])
def test_damage_is_found(tmp_path, name):
    saved(tmp_path)
    damage_content(tmp_path, name)
    with pytest.raises(DataError, match=rf"the content of data-1/{name} is not what was written"):
        retrieve.load(tmp_path)
    damage_size(tmp_path, name)
    with pytest.raises(DataError, match=rf"data-1/{name} has .* bytes, and .* were written"):
        retrieve.load(tmp_path, verify=False)
    next(tmp_path.glob(f"data-*/{name}")).unlink()
    with pytest.raises(DataError, match=rf"data-1/{name} is missing"):
        retrieve.load(tmp_path)


@pytest.mark.parametrize(
    ("page", "said"),
    [
        ("{", "index.json is not JSON"),
        ("[]", "is not of an index that promptgrad wrote"),
        ({"format": "other"}, "is not of an index"),
        ({"version": 99}, "was written in version 99 of the format, and this promptgrad knows 1"),
        ({"kind": "other"}, "of the kind 'other', which this promptgrad does not know"),
        ({"data": "../elsewhere"}, "index.json lacks what belongs there"),
        ({"files": {"../../x": {"bytes": 1}}}, "outside of the folder"),
        ({"settings": {}}, "was made with the tokenizer None"),
        ({"settings": {"tokenizer": "words", "stemmer": None}}, "cannot be read: KeyError"),
    ],
)
def test_a_page_that_does_not_fit_is_refused(tmp_path, page, said):
    saved(tmp_path)
    path = tmp_path / "index.json"
    whole = page if isinstance(page, str) else json.dumps({**json.loads(path.read_text()), **page})
    path.write_text(whole)
    with pytest.raises(DataError, match=said):
        retrieve.load(tmp_path)


def test_no_index_and_no_file(tmp_path):
    with pytest.raises(DataError, match=r"holds no index: there is no index\.json"):
        retrieve.load(tmp_path)
    os.mkfifo(tmp_path / "index.json")
    with pytest.raises(DataError, match="a named pipe, not a file"):
        retrieve.load(tmp_path)


def test_a_save_that_fails_leaves_what_was_there(tmp_path):
    index = saved(tmp_path)
    before = files(tmp_path)
    other = retrieve.BM25([{"text": "a boat", "made": object()}])
    with pytest.raises(DataError, match="the metadata of passage '0' cannot be saved"):
        other.save(tmp_path)
    assert files(tmp_path) == before
    assert found(retrieve.load(tmp_path), "rome") == found(index, "rome")
