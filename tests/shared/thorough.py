"""Leaves most cases of a heavy test to `pytest --thorough`."""

import pytest


def mostly_thorough(cases, quick):
    """Return the cases for `parametrize`: those in `quick` always run, the others if asked for."""
    cases = list(cases)
    assert all(case in cases for case in quick), "a case of the quick run does not exist"
    return [
        case if case in quick else pytest.param(case, marks=pytest.mark.thorough) for case in cases
    ]
