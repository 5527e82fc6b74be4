"""Pipes, sockets and devices where a file is wanted: opening one would wait until somebody writes into it."""

import os
import socket
import sys
import warnings

import pytest

import promptgrad as pg
from promptgrad import nn
from promptgrad._pipes import not_a_file
from promptgrad.errors import DataError, JournalError, ReplayError, StateDictError
from promptgrad.run import Journal

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no named pipes")

PIPE = "it is a named pipe, not a file"


@pytest.fixture
def pipe(tmp_path):
    path = tmp_path / "pipe.json"
    os.mkfifo(path)
    return path


def replay(path):
    with pg.lm.replay(path):
        pass


def record(path):
    with pg.lm.record(path):
        pass


def load_into(path):
    return pg.load(path, nn.Predict("a -> b"))


def load_dspy(path):
    return pg.load_dspy(path, nn.Predict("a -> b"))


def read_only(path):
    return Journal(path, readonly=True)


@pytest.mark.parametrize(
    ("read", "error"),
    [
        (pg.load, StateDictError),
        (load_into, StateDictError),
        (load_dspy, StateDictError),
        (pg.data.read_jsonl, DataError),
        (pg.data.read_csv, DataError),
        (Journal, JournalError),
        (read_only, JournalError),
        (replay, ReplayError),
        (record, ReplayError),
        (pg.lm.FilePart.read, ValueError),
    ],
)
def test_a_pipe_is_refused(read, error, pipe):
    with pytest.raises(error, match=PIPE):
        read(pipe)


def test_a_folder_with_pipes_is_refused(tmp_path):
    os.mkfifo(tmp_path / "state.json")
    with pytest.raises(StateDictError, match=PIPE):
        pg.load(tmp_path)


def test_a_cache_of_that_name_is_done_without(tmp_path):
    os.mkfifo(tmp_path / "lm.db")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        lm = pg.lm.Cache(pg.lm.FunctionLM(lambda messages: "Paris"), tmp_path)
        assert [lm("q").text for _ in range(2)] == ["Paris", "Paris"]
        lm.close()
    assert PIPE in str(said[0].message)


def test_the_kinds(tmp_path, monkeypatch):
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as made:
        monkeypatch.chdir(tmp_path)  # the name of a socket is short
        made.bind("socket")
        assert not_a_file(path) == "it is a socket, not a file"
    assert not_a_file("/dev/zero") == "it is a device, not a file"
    assert [not_a_file(tmp_path), not_a_file(tmp_path / "none"), not_a_file(__file__)] == [""] * 3
