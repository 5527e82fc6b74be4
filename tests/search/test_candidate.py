"""Measurements are equal by what was scored, whatever the program said and the metric remarked."""

from dataclasses import replace

from promptgrad.search import Candidate, Measured


def test_a_measurement_is_known_by_its_candidate_rows_and_scores():
    start = Candidate()
    known = Measured(start, ("a", "b"), (1.0, None), 1, "val")
    assert known == replace(known, outputs=("x", None), feedback=("fine", ""), parts={"order": (1.0, None)})
    assert known == replace(known, failure=ValueError("no"))
    assert known != replace(known, scores=(1.0, 0.0))
    assert known != replace(known, ids=("a", "c"))
    assert known != replace(known, errors=0)
    assert known != replace(known, scope="test")
    assert known != Measured(Candidate(), ("a", "b"), (1.0, None), 1, "val")
