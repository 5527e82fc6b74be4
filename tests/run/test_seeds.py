import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from promptgrad.run import rng, spawn


def test_a_branch_depends_on_every_step_of_its_path():
    seeds = [spawn(0), spawn(1), spawn(0, "a"), spawn(0, "b"), spawn(0, "a", 1), spawn(0, "a", "1"), spawn(0, 1, "a")]
    assert len(set(seeds)) == len(seeds)


@given(st.integers(), st.lists(st.one_of(st.text(max_size=5), st.integers()), max_size=4))
def test_seeds_fit_63_bits_and_repeat(seed, path):
    assert 0 <= spawn(seed, *path) < 2**63
    assert spawn(seed, *path) == spawn(seed, *path)


def test_another_process_grows_the_same_tree():
    code = "from promptgrad.run import spawn, rng; print(spawn(7, 'trial', 3), rng(7, 'x').random())"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert out == [str(spawn(7, "trial", 3)), str(rng(7, "x").random())]


def test_branches_are_uncorrelated():
    draws = [rng(0, "row", i).random() for i in range(2000)]
    assert abs(sum(draws) / len(draws) - 0.5) < 0.03
