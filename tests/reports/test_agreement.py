"""A rerun agrees with what was published, or it is said in which run, where and by how much not."""

import json
import math
import shutil

import pytest

from normlab.errors import UserError
from normlab.measures.claims import Claim
from normlab.reports.agreement import agreement
from normlab.reports.publishing import publish
from normlab.reports.run_agreement import TOLERANCE
from normlab.store.loading import load
from tests.shared.command_line import normlab
from tests.shared.simulated import PROVENANCE, simulate, write, write_run

BETTER = Claim("a beats b", "final(test_accuracy)", "a", "b", "difference > 0")
CLOSE = Claim("b is near c", "final(test_accuracy)", "b", "c", "matches within 0.2")
ARMS = {"a": [0.81, 0.82, 0.83, 0.8, 0.815], "b": [0.71, 0.72, 0.7, 0.73, 0.712],
        "c": [0.7, 0.73, 0.71, 0.72, 0.69]}  # fmt: skip
TUNED = {
    "grid": {"learning_rate": [0.1, 0.3]}, "seeds": [100], "measure": "final(val_accuracy)",
    "chosen": {arm: {"values": {"learning_rate": 0.1}, "score": 0.5, "trials": 2, "steps": 120,
                     "at_edge": True,
                     "tried": [{"values": {"learning_rate": 0.1}, "scores": [0.5]},
                               {"values": {"learning_rate": 0.3}, "scores": [0.4]}]}
               for arm in ARMS},
}  # fmt: skip
SEEN = {"step": 0, "probe": "gradients", "quantity": "rms", "layers": ["x", "y"],
        "values": [0.5, 0.25]}  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Fifteen finished runs, tuned and looked into."""
    path = tmp_path_factory.mktemp("runs") / "question"
    found = simulate(path, ARMS, [BETTER, CLOSE], tuning=TUNED, target={"test_accuracy": 0.6})
    for run in found.runs:
        run.append_probes([SEEN])
    return load(path)


@pytest.fixture(scope="module")
def published(runs, tmp_path_factory):
    return publish(runs, tmp_path_factory.mktemp("results") / "question")


@pytest.fixture
def tampered(published, tmp_path):
    """A function that copies the published folder, changes it, and says what disagrees."""

    def tamper(change):
        folder = tmp_path / "copy"
        shutil.copytree(published, folder)
        files = {name: folder / f"{name}.json" for name in ("metrics", "provenance")}
        parts = {name: json.loads(file.read_text("utf-8")) for name, file in files.items()}
        change(**parts)
        for name, file in files.items():
            file.write_text(json.dumps(parts[name]), "utf-8")
        return agreement(load(folder), load(published)).disagreements

    return tamper


def of(metrics, arm, seed=0):
    return next(r for r in metrics["runs"] if r["arm"] == arm and r["seed"] == seed)


def every_accuracy_higher(metrics, provenance):
    for run in metrics["runs"]:
        run["metrics"]["test_accuracy"] = [v + 0.01 for v in run["metrics"]["test_accuracy"]]


def an_arm_deleted(metrics, provenance):
    metrics["runs"] = [run for run in metrics["runs"] if run["arm"] != "c"]


def a_seed_deleted(metrics, provenance):
    metrics["runs"].remove(of(metrics, "b", 3))


def a_claim_deleted(metrics, provenance):
    del metrics["about"]["claims"][1]
    metrics["about"]["ever_claimed"] = []


def not_a_number(metrics, provenance):
    of(metrics, "a")["metrics"]["test_accuracy"][-1] = math.nan


def a_claim_edited(metrics, provenance):
    metrics["about"]["claims"][0]["expect"] = "difference > 0.01"


def a_claim_turned_round(metrics, provenance):
    claim = metrics["about"]["claims"][0]
    claim["left"], claim["right"] = claim["right"], claim["left"]


def an_arm_added(metrics, provenance):
    metrics["runs"] += [{**r, "arm": "d", "axes": {"norm": "d"}} for r in metrics["runs"][:5]]


def a_seed_added(metrics, provenance):
    metrics["runs"].append({**of(metrics, "a"), "seed": 5})


def another_tuned_value(metrics, provenance):
    metrics["about"]["tuning"]["chosen"]["b"]["values"]["learning_rate"] = 0.3


def seeds_swapped(metrics, provenance):
    one, other = of(metrics, "a", 0), of(metrics, "a", 1)
    one["seed"], other["seed"] = 1, 0


def an_arm_relabelled(metrics, provenance):
    for run in metrics["runs"]:
        if run["arm"] == "c":
            run["arm"], run["axes"] = "d", {"norm": "d"}


def two_arms_exchanged(metrics, provenance):
    names = {"b": "c", "c": "b"}
    for run in metrics["runs"]:
        run["arm"] = names.get(run["arm"], run["arm"])
        run["axes"] = {"norm": run["arm"]}


def another_setting(metrics, provenance):
    metrics["config"]["train"]["batch_size"] = 32


def another_target(metrics, provenance):
    metrics["about"]["target"]["test_accuracy"] = 0.5


def another_fingerprint(metrics, provenance):
    provenance["made_with"][0]["data"]["fingerprint"] = "f" * 16


def rows_cut_off(metrics, provenance):
    run = of(metrics, "a", 2)
    run["metrics"] = {name: column[:-1] for name, column in run["metrics"].items()}
    run["status"] |= {"step": 50, "steps": 50}  # else the folder is refused as damaged


def a_row_taken_out(metrics, provenance):
    for column in of(metrics, "b", 2)["metrics"].values():
        del column[2]


def diverged_in_the_place_of_done(metrics, provenance):
    where = {"step": 60, "layer": "Dense_0/kernel", "norm": 1.0}
    of(metrics, "a", 1)["status"] |= {"state": "diverged", "diverged": where}


def infinity(metrics, provenance):
    of(metrics, "c")["metrics"]["test_loss"][0] = math.inf


def a_value_in_the_middle(metrics, provenance):
    of(metrics, "b", 4)["metrics"]["train_loss"][2] *= 1.0001


def another_value_of_a_probe(metrics, provenance):
    of(metrics, "b", 4)["probes"][0]["values"][1] = 0.26


def a_probe_taken_out(metrics, provenance):
    of(metrics, "b", 4)["probes"] = []


def another_score_of_a_trial(metrics, provenance):
    metrics["about"]["tuning"]["chosen"]["a"]["tried"][1]["scores"] = [0.6]


def registered_no_longer(metrics, provenance):
    provenance["made_with"][0]["claims"] = []


def another_source_of_own_code(metrics, provenance):
    provenance["made_with"][0]["own_code"] = {"mynorm": "0123456789"}


SEEDS_OF_C = "c: this arm is only in what was published"
TAMPERINGS = {
    every_accuracy_higher: "a, seed 0: test_accuracy at step 10 and 5 more of 6: ",
    an_arm_deleted: SEEDS_OF_C,
    a_seed_deleted: 'b, seed 3, {"norm": "b"}: this run is only in what was published',
    a_claim_deleted: "claim 'b is near c' (matches within 0.2): it is only in what was published",
    not_a_number: "a, seed 0: test_accuracy at step 60: 0.81 published, NaN rerun",
    a_claim_edited: "claim 'a beats b' (difference > 0.01): it is only in what was rerun",
    a_claim_turned_round: "claim 'a beats b' (difference > 0): it is only in what was rerun",
    an_arm_added: "d: this arm is only in what was rerun",
    a_seed_added: 'a, seed 5, {"norm": "a"}: this run is only in what was rerun',
    another_tuned_value: "b: tuned learning_rate: 0.1 published, 0.3 rerun",
    seeds_swapped: "a, seed 1: test_accuracy at step 10 and 5 more of 6: ",
    an_arm_relabelled: SEEDS_OF_C,
    two_arms_exchanged: 'b, seed 0: config norm.name: b published, c rerun',
    another_setting: "a, seed 0: config train.batch_size: 20 published, 32 rerun",
    another_target: 'target: {"test_accuracy": 0.6} published, {"test_accuracy": 0.5} rerun',
    another_fingerprint: "a, seed 0: data fingerprint: 0123456789abcdef published, ffff",
    rows_cut_off: "a, seed 2: evaluation at step 60: there published, missing rerun",
    a_row_taken_out: "b, seed 2: evaluation at step 30: there published, missing rerun",
    diverged_in_the_place_of_done: "a, seed 1: state: done published, diverged rerun",
    infinity: "c, seed 0: test_loss at step 10: ",
    a_value_in_the_middle: "b, seed 4: train_loss at step 30: ",
    another_value_of_a_probe: "b, seed 4: gradients.rms at step 0: [0.5, 0.25] published, ",
    a_probe_taken_out: "b, seed 4: layers of gradients.rms at step 0: ",
    another_score_of_a_trial: 'a: scores at {"learning_rate": 0.3}: [0.4] published, [0.6] rerun',
    registered_no_longer: "claim 'a beats b': standing: registered before the first step published",
    another_source_of_own_code: "a, seed 0: source of mynorm: null published, 0123456789 rerun",
}  # fmt: skip


@pytest.mark.parametrize("change", TAMPERINGS, ids=lambda change: change.__name__)
def test_a_tampering_is_found_and_told_with_its_place(tampered, change):
    found = tampered(change)
    assert any(text.startswith(TAMPERINGS[change]) for text in found), found


def test_the_same_runs_agree_however_they_lie_on_disk(runs, published, tampered):
    assert tampered(lambda **parts: None) == []
    found = agreement(runs, load(published))
    assert found.disagreements == [] and (found.pairs, found.alike) == (15, 15)
    assert "They agree." in str(found) and "as published" in str(found)
    assert agreement(load(published), runs).disagreements == []
    assert agreement(runs, runs).disagreements == []


def test_a_published_run_that_lacks_its_last_row_is_refused_as_damaged(tampered):
    def cut(metrics, provenance):
        run = of(metrics, "a", 2)
        run["metrics"] = {name: column[:-1] for name, column in run["metrics"].items()}

    with pytest.raises(UserError, match="is damaged: it has rows up to step 50"):
        tampered(cut)


def test_a_diverged_run_agrees_with_itself_though_its_numbers_are_null_once_published(tmp_path):
    made = [write_run(tmp_path / "q", "a", seed, 0.5, state="diverged", step=35)
               for seed in range(2)]  # fmt: skip
    lost = {"step": 35, "test_loss": math.nan, "train_loss": math.inf}
    made[0].append_metrics(made[0].metrics[-1] | lost)
    live = write(tmp_path / "q", made)
    folder = publish(live, tmp_path / "out")
    assert agreement(live, load(folder)).disagreements == []


def test_a_reversed_verdict_is_told(published, tmp_path):
    swapped = {"a": ARMS["b"], "b": ARMS["a"], "c": ARMS["c"]}
    found = agreement(simulate(tmp_path / "q", swapped, [BETTER, CLOSE]), load(published))
    assert "claim 'a beats b': verdict: supported published, refuted rerun" in found.disagreements
    assert "NOT AS PUBLISHED" in str(found)


def nearly(folder, by, **proof):
    """The same accuracies, each higher by as much, made elsewhere."""
    made = [
        write_run(folder, arm, seed, last + by,
                  proof={"claims": [BETTER.hash, CLOSE.hash], **proof})
        for arm, values in ARMS.items() for seed, last in enumerate(values)
    ]  # fmt: skip
    for run in made:
        run.append_probes([SEEN])
    return write(folder, made, [BETTER, CLOSE], tuning=TUNED, target={"test_accuracy": 0.6})


@pytest.mark.parametrize(
    "elsewhere",
    [{"processor": "another"}, {"cores": 1}, {"devices": ["gpu: x"]},
     {"versions": {**PROVENANCE["versions"], "jax": "0.12"}},
     {"environment": {"XLA_FLAGS": "--fast"}}],
    ids=["processor", "cores", "devices", "versions", "flags"],
)  # fmt: skip
def test_on_another_kind_of_machine_there_is_a_tolerance(published, tmp_path, elsewhere):
    here = {"processor": "one"}
    base = publish(nearly(tmp_path / "base", 0.0, **here), tmp_path / "out")
    near = nearly(tmp_path / "near", TOLERANCE / 10, **{**here, **elsewhere})
    close = agreement(near, load(base))
    assert close.disagreements == [] and close.alike == 0
    same = agreement(nearly(tmp_path / "same", TOLERANCE / 10, **here), load(base))
    assert same.disagreements and same.alike == 15
    strict = agreement(near, load(base), tolerance=TOLERANCE / 100)
    assert strict.disagreements


def test_only_what_both_have_is_compared_where_that_is_asked_for(runs, published, tmp_path):
    made = [write_run(tmp_path / "q", "a", 0, ARMS["a"][0])]
    made[0].append_probes([SEEN])
    part = write(tmp_path / "q", made)
    assert agreement(part, load(published), common=True).disagreements == []
    found = agreement(part, load(published)).disagreements
    assert "b: this arm is only in what was published" in found
    other = write(tmp_path / "r", [write_run(tmp_path / "r", "z", 0, 0.5)])
    with pytest.raises(UserError, match="have no run in common"):
        agreement(other, load(published), common=True)


def test_the_command_ends_with_1_where_anything_differs(runs, published, tmp_path):
    assert normlab("agree", runs.path, published, cwd=tmp_path).returncode == 0
    copy = tmp_path / "copy"
    shutil.copytree(published, copy)
    metrics = json.loads((copy / "metrics.json").read_text("utf-8"))
    a_seed_deleted(metrics, {})
    (copy / "metrics.json").write_text(json.dumps(metrics), "utf-8")
    done = normlab("agree", copy, published, cwd=tmp_path)
    assert done.returncode == 1 and "1 disagreement:\n- b, seed 3" in done.stdout
