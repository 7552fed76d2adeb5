"""Runs of one experiment that were made differently are said to be, and which."""

import pytest

from normlab.evidence.caveats import warnings
from normlab.evidence.mixes import mixes
from normlab.store.record import Record
from normlab.store.run import Run
from tests.shared.command_line import normlab
from tests.shared.simulated import PROVENANCE, write, write_run

USUAL = {"NORMLAB_TUNING": "on", "jax_default_matmul_precision": "None"}


def records(folder, proofs):
    """Runs whose records of provenance have these besides: (arm, seed) to them."""
    made = [write_run(folder, arm, seed, 0.5, proof=proof) for (arm, seed), proof in proofs]
    return [Record.read(run) for run in write(folder, made).runs]


def by_seed(first, second, arms="ab"):
    """Seeds 0 to 2 so and 3 to 4 otherwise, in every arm."""
    return [((arm, seed), first if seed < 3 else second) for arm in arms for seed in range(5)]


@pytest.mark.parametrize(
    ("name", "value"),
    [("NORMLAB_TUNING", "off"), ("jax_default_matmul_precision", "highest"),
     ("jax_enable_x64", "True")],
)  # fmt: skip
def test_seeds_made_under_other_flags_are_said_to_be_a_mix(tmp_path, name, value):
    usual = USUAL | {name: USUAL.get(name, "False")}
    found = records(tmp_path / "e", by_seed({"flags": usual}, {"flags": usual | {name: value}}))
    assert mixes(found) == [
        f"The runs were made with mixed flags: seeds 0 to 2 with {name} {usual[name]}; "
        f"seeds 3 to 4 with {name} {value}. Seeds that differ in this are a mix, and no "
        "repetitions of each other."
    ]
    assert mixes(found)[0] in warnings(found, "final", ("test_accuracy",))


def test_older_records_are_compared_by_what_they_know(tmp_path):
    first = {"environment": {"XLA_FLAGS": "--fast"}}
    found = mixes(records(tmp_path / "e", by_seed(first, {})))
    assert "seeds 0 to 2 with XLA_FLAGS --fast; seeds 3 to 4 with XLA_FLAGS unset" in found[0]
    first = {"set_by_normlab": {"compiler": "x=1", "malloc": "a"}}
    found = mixes(records(tmp_path / "f", by_seed(first, {"set_by_normlab": {"malloc": "b"}})))
    assert len(found) == 1 and "with compiler options x=1; seeds 3 to 4" in found[0]
    newer = {"flags": USUAL | {"XLA_FLAGS": "unset"}}  # tells more, and nothing else
    assert mixes(records(tmp_path / "g", by_seed({}, newer))) == []


def test_an_arm_of_two_sources_is_said_to_be_a_mix(tmp_path):
    one, other = ({"own_code": {"mynorm": digest}} for digest in ("aaaaaaaaaa", "bbbbbbbbbb"))
    proofs = [(("mine", 0), one), (("mine", 1), other), (("batch_norm", 0), {})]
    (text,) = mixes(records(tmp_path / "e", proofs))
    assert "mine (seed 0) with mynorm aaaaaaaaaa; mine (seed 1) with mynorm bbbbbbbbbb" in text


def test_arms_of_different_modules_are_no_mix(tmp_path):
    proofs = [(("a", 0), {"own_code": {"a": "1"}}), (("b", 0), {"own_code": {"b": "2"}})]
    assert mixes(records(tmp_path / "e", proofs)) == []


def test_a_run_gone_on_with_under_other_flags_is_on_both_sides(tmp_path):
    found = records(tmp_path / "e", [(("a", 0), {"flags": USUAL}), (("a", 1), {"flags": USUAL})])
    one, two = (Run(record.path, record.arm, record.seed) for record in found)
    two.add_provenance({**PROVENANCE, "flags": USUAL | {"NORMLAB_TUNING": "off"}})
    (text,) = mixes([Record.read(one), Record.read(two)])
    assert "seeds 0 to 1 with NORMLAB_TUNING on; seed 1 with NORMLAB_TUNING off" in text


def test_whole_arms_are_told_by_name_and_versions_by_what_differs(tmp_path):
    newer = {"versions": {**PROVENANCE["versions"], "jax": "0.11"}}
    proofs = [((arm, 0), newer if arm == "b" else {}) for arm in "abc"]
    (text,) = mixes(records(tmp_path / "e", proofs))
    assert text == "The runs were made with mixed versions: a, c with jax 0.10.2; b with jax 0.11."


def test_runs_made_alike_are_no_mix(tmp_path):
    assert mixes(records(tmp_path / "e", by_seed({"flags": USUAL}, {"flags": dict(USUAL)}))) == []


def test_the_verdict_says_so_too(tmp_path):
    folder = tmp_path / "e"
    records(folder, by_seed({"flags": USUAL}, {"flags": USUAL | {"NORMLAB_TUNING": "off"}}))
    said = normlab("verdict", folder, cwd=tmp_path).stdout
    assert "note: The runs were made with mixed flags: seeds 0 to 2 with NORMLAB_TUNING on;" in said
