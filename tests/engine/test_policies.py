"""Runs with evaluations by policies: they train as without, and what was found is on disk once."""

import jax
import numpy as np
import pytest

from normlab.engine import policy_rows
from normlab.interface.trained import load
from normlab.measures.measures import Measure
from normlab.policies import Tent
from normlab.reports.shown_comparison import compare
from normlab.store.record import Record

EVALUATE = """
evaluate:
  {policy: [stored, tent], stream: [iid, changing], batch_size: 16, look: true,
   corruptions: [remade_contrast, fog], examples: 40}
probes: {at: [end], examples: 40, measure: ['my_probes:Sizes']}
"""

pytestmark = pytest.mark.usefixtures("own_files")


def value(text, run):
    return Measure.parse(text).of(Record.read(run)).number


def test_a_run_is_judged_by_every_policy_and_claims_can_read_it(tiny, make, tmp_path):
    plain = make(tiny(name="plain.yaml")).runs.runs[0]
    run = make(tiny(EVALUATE)).runs.runs[0]
    jax.tree.map(np.testing.assert_array_equal, run.params(), plain.params())
    assert run.state == "done" and run.status["policy_seconds"] > 0
    rows = [row for row in run.probes if row["probe"] == "evaluate"]
    assert len(rows) == 4 * 4 and {row["step"] for row in rows} == {18}
    each = [value(f"evaluated(test_accuracy, tent, changing, {one})", run)
            for one in ("remade_contrast", "fog")]  # fmt: skip
    assert value("evaluated(test_accuracy, tent, changing)", run) == pytest.approx(np.mean(each))
    looked = {row["probe"] for row in run.probes}
    assert {"sizes", "sizes_after_tent_iid", "sizes_after_stored_changing"} <= looked
    sizes = {row["probe"]: row["values"] for row in run.probes if row["quantity"] == "size"}
    assert sizes["sizes"] == sizes["sizes_after_stored_iid"] != sizes["sizes_after_tent_iid"]

    by_hand = load(run.path).evaluate(
        Tent(), stream="changing", batch_size=16, corruptions=["remade_contrast", "fog"]
    )
    assert list(by_hand.accuracies.values()) == pytest.approx(each)

    comparison = compare(load(run.path.parent), measure="evaluated(test_accuracy, tent, iid)")
    assert comparison.arms[0].name == "batch_norm"
    make(tiny(EVALUATE))  # is skipped
    assert [row for row in run.probes if row["probe"] == "evaluate"] == rows


def test_an_interruption_between_batches_loses_nothing(tiny, make, monkeypatch, tmp_path):
    file = tiny("evaluate: {policy: [stored], batch_size: 10}\n")
    whole = make(file).runs.runs[0]
    evaluations = policy_rows.evaluations
    monkeypatch.setattr(policy_rows, "evaluations", lambda *_: {})
    (broken,) = make(file, out=tmp_path / "broken").runs.runs
    assert broken.state == "interrupted" and not broken.probes
    monkeypatch.setattr(policy_rows, "evaluations", evaluations)
    (again,) = make(file, out=tmp_path / "broken").runs.runs
    assert again.state == "done" and again.probes == whole.probes
