"""The promises of `LMContract`, one at a time and outside of pytest's collection."""

import inspect

import pytest

from promptgrad.testing.lms import LMContract

PROMISES = [name for name in vars(LMContract) if name.startswith("test_")]


def run_contract(case, name, server, folder):
    """Have a case keep one promise, in each of its variants; return how many were kept rather than skipped."""
    method, kept = getattr(case, name), 0
    case.url = server.url
    for number, variant in enumerate(variants(method)):
        server.reset()
        case._made = []
        offered = {"server": server, "tmp_path": folder / str(number), "lm": case._made_again(), **variant}
        (folder / str(number)).mkdir(parents=True)
        try:
            method(**{wanted: offered[wanted] for wanted in inspect.signature(method).parameters})
            kept += 1
        except pytest.skip.Exception:
            pass
        finally:
            for made in case._made:
                made.close()
    return kept


def variants(method):
    """The arguments of each parametrized variant; one without any, where the test has no variants."""
    found = [{}]
    for mark in getattr(method, "pytestmark", []):
        names = [name.strip() for name in mark.args[0].split(",")] if isinstance(mark.args[0], str) else mark.args[0]
        found = [
            {**outer, **dict(zip(names, values if len(names) > 1 else [values], strict=True))}
            for outer in found
            for values in mark.args[1]
        ]
    return found
