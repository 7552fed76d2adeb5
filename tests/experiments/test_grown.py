"""Sweeps of equal arms, grown on disk, in small."""

import numpy as np

from experiments.grown import PLANS, grow, verdict_on
from experiments.imagined_runs import write_list, write_run
from normlab.measures.claims import Claim


def test_equal_arms_grow_without_a_verdict(tmp_path):
    found = grow(tmp_path / "e", np.random.default_rng(0), (3, 6))
    assert found == dict.fromkeys(PLANS, "undecided")


def test_the_command_is_read_as_it_prints(tmp_path):
    claim = Claim("a beats b", "final(test_accuracy)", "a", "b", "difference > 0")
    runs = [write_run(tmp_path, arm, seed, value + seed / 100, [claim])
            for arm, value in (("a", 0.7), ("b", 0.5)) for seed in range(4)]  # fmt: skip
    write_list(tmp_path, runs, [claim])
    assert verdict_on(tmp_path) == "supported"
