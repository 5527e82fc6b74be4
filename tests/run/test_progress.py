import io
import subprocess
import sys
import threading

import pytest

from promptgrad.run import progress


def test_nothing_is_drawn_where_nobody_looks(capsys):
    with progress(3, "evaluate") as bar:
        bar.advance()
        bar.advance(2, note="0.5")
        assert bar.done == 3
        assert not bar.visible
    assert capsys.readouterr() == ("", "")


def test_silence_does_not_load_rich():
    code = (
        "import sys\nfrom promptgrad.run import progress\n"
        "with progress(1, 'x') as bar: bar.advance()\nprint('rich' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("terminal", "kind", "enabled", "drawn"),
    [
        (True, "xterm", None, True),
        (True, "dumb", None, False),
        (False, "xterm", None, False),
        (False, "dumb", True, True),
        (True, "xterm", False, False),
    ],
)
def test_a_bar_is_for_terminals_that_can_draw_unless_it_is_asked_for(monkeypatch, terminal, kind, enabled, drawn):
    class Stream(io.StringIO):
        def isatty(self):
            return terminal

    monkeypatch.setattr(sys, "stderr", Stream())
    monkeypatch.setenv("TERM", kind)
    with progress(1, "evaluate", enabled) as bar:
        assert bar.visible is drawn


def test_a_bar_is_drawn_when_asked_for_and_one_inside_below_it(monkeypatch):
    stderr = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stderr)
    with progress(2, "outer", enabled=True) as outer:
        with progress(5, "inner") as inner:
            assert inner.visible
            threads = [threading.Thread(target=inner.advance) for _ in range(5)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert inner.done == 5
        with progress(5, "silent", enabled=False) as silent:
            assert not silent.visible
        outer.advance(2, note="score 0.5")
    text = stderr.getvalue()
    assert "outer" in text
    assert "2/2" in text
    assert "score 0.5" in text


def test_a_bar_ends_with_the_block_whatever_happens(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    for _ in range(2):
        try:
            with progress(None, "unknown length", enabled=True) as bar:
                bar.note("going")
                raise KeyboardInterrupt
        except KeyboardInterrupt:
            assert bar.visible
    with progress(1, "the next one", enabled=True) as after:
        assert after.visible
    assert sys.stderr.getvalue().count("unknown length") >= 2
