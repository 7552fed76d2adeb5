"""Published results: small, the same bytes each time, read back as the runs they were."""

import json

import matplotlib.figure
import numpy as np
import pytest

from normlab.errors import UserError
from normlab.evidence.contrasts import may_be_best
from normlab.evidence.samples import Sample
from normlab.evidence.verdicts import judge
from normlab.measures.claims import Claim
from normlab.reports import superseded
from normlab.reports.figures.along_axis import numeric_axes
from normlab.reports.publishing import page, publish, render
from normlab.reports.shown_comparison import compare
from normlab.reports.thinning import MOST_ROWS, Thinning
from normlab.store.loading import load
from normlab.store.run import Run
from tests.shared.simulated import PROVENANCE, simulate, write, write_run

FINAL = "final(test_accuracy)"
BETTER = Claim("a beats b", FINAL, "a", "b", "difference > 0")
ARMS = {"a": [0.81, 0.82, 0.83, 0.8, 0.81], "b": [0.71, 0.72, 0.7, 0.73, 0.71234567]}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return simulate(tmp_path_factory.mktemp("runs") / "question", ARMS, [BETTER])


@pytest.fixture(scope="module")
def published(runs, tmp_path_factory):
    return load(publish(runs, tmp_path_factory.mktemp("results") / "question"))


def test_what_is_published_is_judged_and_compared_as_the_runs_are(runs, published):
    (before,), (after,) = judge(runs), judge(published)
    assert (after.outcome, after.registered) == (before.outcome, True) == ("supported", True)
    np.testing.assert_allclose(after.interval, before.interval, rtol=1e-3)
    old, new = compare(runs), compare(published)
    assert [arm.name for arm in new.arms] == ["a", "b"]
    np.testing.assert_allclose(new.arms[1].sample.values, old.arms[1].sample.values, rtol=1e-5)
    assert new.arms[0].prices == old.arms[0].prices


def test_publishing_twice_gives_the_same_bytes(runs, published, tmp_path):
    again = publish(runs, tmp_path / "question")
    names = {"results.md", "figure.svg", "metrics.json", "provenance.json"}
    assert {file.name for file in again.iterdir()} == names
    for name in names:
        assert (again / name).read_bytes() == (published.path / name).read_bytes()


def test_the_page_is_made_from_the_published_numbers_alone(published):
    text = page(published, [])
    assert text == (published.path / "results.md").read_text("utf-8")
    assert "a beats b (registered before the first step)" in text and "(figure.svg)" in text
    assert "10 runs, 5 an arm; under a minute" in text


def test_nothing_published_names_a_computer_or_a_folder(tmp_path):
    proof = {"host": "secret-host", "command": ["/home/me/bin/normlab"],
             "platform": "Linux-6.1.2-secret-x86_64-with-glibc2.36",
             "environment": {"JAX_CACHE_DIR": "/home/me", "XLA_FLAGS": "--x=/a --on"}}  # fmt: skip
    made = [write_run(tmp_path / "q", "a", seed, 0.5, proof=proof) for seed in range(2)]
    runs = write(tmp_path / "q", made, config="/home/me/configs/q.yaml")
    folder = publish(runs, tmp_path / "out")
    texts = "".join(file.read_text("utf-8") for file in folder.iterdir())
    assert "secret" not in texts and "/home" not in texts and str(tmp_path) not in texts
    assert "configs/q.yaml" in texts and "Linux x86_64" in texts and '"XLA_FLAGS": "--on"' in texts


def test_diverged_runs_axes_and_trials_are_kept(tmp_path):
    folder = tmp_path / "q"
    made = [
        write_run(folder, f"{norm}, batch_size={size}", seed, 0.1 * size + 0.01 * seed,
                  state="diverged" if norm == "b" and size == 8 else "done", step=30,
                  axes={"norm": norm, "batch_size": size}, norm=norm)
        for norm in ("a", "b") for size in (2, 4, 8) for seed in range(2)
    ]  # fmt: skip
    trial = write_run(folder, "a, learning_rate=0.1", 100, 0.3)
    runs = write(folder, made)
    runs.trials.append(trial)
    after = load(publish(runs, tmp_path / "out"))
    assert [run.axes for run in after.runs] == [run.axes for run in made]
    arms = compare(after).arms
    assert arms[-1].sample.values.tolist() == [0.1, 0.1]  # what a guess has
    assert "diverged at step 30" in arms[-1].sample.troubles[0]
    assert after.trials[0].status["train_seconds"] == 0.6
    assert after.runs[3].config["norm"] == {"name": "a"}
    assert after.runs[3].config["train"]["seed"] == after.runs[3].seed == 1
    with pytest.raises(UserError, match="published without its parameters"):
        after.runs[0].params()


def test_an_unfinished_experiment_is_not_published(tmp_path):
    made = [write_run(tmp_path / "q", "a", 0, 0.5), Run(tmp_path / "x", "a", 1, {})]
    with pytest.raises(UserError, match="1 of 2 runs are not finished"):
        publish(write(tmp_path / "q", made), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_of_long_curves_the_rows_stay_that_claims_ask_for():
    rows = [{"step": i, "test_accuracy": i / 1000} for i in range(1000)]
    kept = Thinning([FINAL, "steps_to(test_accuracy, 0.1234)"]).rows(rows)
    assert len(kept) <= MOST_ROWS + 1 and kept[-1] is rows[-1]
    assert next(r for r in kept if r["test_accuracy"] >= 0.1234)["step"] == 124
    assert Thinning(["area(test_accuracy)"]).rows(rows) == rows


def arm(name, values):
    seeds = tuple(range(len(values)))
    return Sample(name, seeds, np.array(values), np.zeros(len(values), bool), len(values))


def test_the_best_arm_is_seldom_left_out_of_those_that_may_be_it():
    """Five arms, one better by half a deviation; it is left out in at most 5% of cases."""
    draw, left_out = np.random.default_rng(0), 0
    for _ in range(60):
        means = [0.5, *[0.0] * 4]
        arms = [arm(str(i), draw.normal(mean, 1, 5)) for i, mean in enumerate(means)]
        left_out += "0" not in [one.name for one in may_be_best(arms, True)]
    assert left_out <= 0.07 * 60


def test_less_can_be_better():
    arms = [arm("slow", [2.0, 2.1, 2.2]), arm("fast", [1.0, 1.1, 1.05])]
    assert [one.name for one in may_be_best(arms, False)] == ["fast"]
    assert [one.name for one in may_be_best(arms, True)] == ["slow"]


def test_a_curve_over_an_axis_has_a_panel_a_network_and_a_line_a_normaliser(tmp_path):
    made = [
        write_run(tmp_path / "q", f"{model}, {norm}, depth={depth}", seed, 0.5 + 0.01 * seed,
                  axes={"model": model, "norm": norm, "depth": depth}, norm=norm,
                  state="diverged" if depth == 56 else "done")
        for model in ("plain", "residual") for norm in ("a", "b") for depth in (8, 20, 56)
        for seed in range(2)
    ]  # fmt: skip
    comparison = compare(write(tmp_path / "q", made))
    figure = comparison.plot("over")
    assert isinstance(figure, matplotlib.figure.Figure)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["plain", "residual"]
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    assert list(lines["b"].get_xdata()) == [8, 20, 56]
    np.testing.assert_allclose(lines["b"].get_ydata(), [0.505, 0.505, 0.1])
    curves = comparison.plot("over", axis="step")
    (line,) = [one for one in curves.axes[0].lines if one.get_label() == "a"][-1:]
    assert list(line.get_xdata()) == [10, 20, 30, 40, 50, 60]
    assert len(curves.axes) == 6  # a network at a depth
    with pytest.raises(UserError, match="no axis 'depht'; did you mean 'depth'"):
        comparison.plot("over", axis="depht")


def test_an_axis_of_names_is_drawn_where_it_is_asked_for(runs):
    figure = compare(runs).plot("over", axis="norm")
    assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == ["a", "b"]
    assert numeric_axes(compare(runs).records) == []


def test_measures_stand_side_by_side(runs):
    figure = compare(runs).plot("beside", measures=["final(train_accuracy)", FINAL])
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["final(train_accuracy)", FINAL]


def test_a_metrics_file_is_strict_json_with_a_line_a_run(published):
    text = (published.path / "metrics.json").read_text("utf-8")
    assert json.loads(text, parse_constant=lambda word: pytest.fail(word))
    assert sum(line.startswith('{"run"') for line in text.splitlines()) == 10
    assert "0.712346" in text and "0.7123456" not in text


CLEAN, DIRTY = {"commit": "c" * 40}, {"commit": "c" * 40, "dirty": "0123456789"}


def made_by(folder, git, arms=ARMS, **data):
    """The same runs, made by such a state of the code."""
    proof = {"git": git, "claims": [BETTER.hash], "data": PROVENANCE["data"] | data}
    made = [
        write_run(folder, arm, seed, last, proof=proof)
        for arm, values in arms.items()
        for seed, last in enumerate(values)
    ]
    return write(folder, made, [BETTER])


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_runs_of_a_changed_tree_are_not_published_and_nothing_is_lost(tmp_path):
    folder = publish(made_by(tmp_path / "clean" / "q", CLEAN), tmp_path / "out")
    before = contents(folder)
    changed = made_by(tmp_path / "dirty" / "q", DIRTY)
    with pytest.raises(UserError, match=r"10 runs of 10 .*with changes 0123456789; commit the"):
        publish(changed, folder)
    runs = load(tmp_path / "clean" / "q")
    runs.trials.append(changed.runs[0])
    with pytest.raises(UserError, match="1 run of 11"):
        publish(runs, folder)
    assert contents(folder) == before and list(tmp_path.glob(".*")) == []


def test_a_run_gone_on_with_in_a_changed_tree_is_not_published(tmp_path):
    runs = made_by(tmp_path / "q", CLEAN)
    runs.runs[3].add_provenance({**runs.runs[3].provenance[0], "git": DIRTY})
    with pytest.raises(UserError, match="1 run of 10"):
        publish(runs, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_was_published_from_a_changed_tree_is_read_and_its_page_says_so(tmp_path):
    folder = publish(made_by(tmp_path / "q", CLEAN), tmp_path / "out")
    assert "changed tree" not in (folder / "results.md").read_text("utf-8")
    file = folder / "provenance.json"
    provenance = json.loads(file.read_text("utf-8"))
    provenance["made_with"][0]["git"] = DIRTY
    file.write_text(json.dumps(provenance), "utf-8")
    text = render(folder).joinpath("results.md").read_text("utf-8")
    assert "**Made from a changed tree**: 10 of 10 runs" in text
    assert "cccccccccc with changes 0123456789" in text


def test_the_page_says_which_copy_of_the_data(tmp_path):
    folder = publish(made_by(tmp_path / "q", CLEAN, source="JPEG in Parquet"), tmp_path / "out")
    head = (folder / "results.md").read_text("utf-8").partition("## Claims")[0]
    assert "Data: simulated (JPEG in Parquet; 1000 training and 10000 test examples, " in head
    assert "fingerprint 0123456789abcdef)" in head


def test_a_verdict_that_another_replaces_is_kept_with_its_commit(tmp_path, monkeypatch):
    monkeypatch.setattr(superseded, "last_commit", lambda file: "f" * 40)
    folder = publish(made_by(tmp_path / "first" / "q", CLEAN), tmp_path / "out")
    assert not (folder / "superseded.json").exists()
    publish(made_by(tmp_path / "same" / "q", CLEAN), folder)
    assert not (folder / "superseded.json").exists()

    swapped = {"a": ARMS["b"], "b": ARMS["a"]}
    publish(made_by(tmp_path / "second" / "q", CLEAN, swapped), folder)
    (kept,) = json.loads((folder / "superseded.json").read_text("utf-8"))
    assert (kept["claim"], kept["outcome"], kept["commit"]) == (BETTER.hash, "supported", "f" * 40)
    assert kept["code"] == ["c" * 10] and kept["verdict"].startswith("Supported: ")
    text = (folder / "results.md").read_text("utf-8")
    assert "Refuted: " in text.partition("## Superseded verdicts")[0]
    told = text.partition("## Superseded verdicts")[2]
    assert "a beats b (now refuted)." in told and "Published: commit ffffffffff" in told

    render(folder)
    assert (folder / "results.md").read_text("utf-8") == text
    publish(made_by(tmp_path / "third" / "q", CLEAN), folder)
    both = json.loads((folder / "superseded.json").read_text("utf-8"))
    assert [one["outcome"] for one in both] == ["supported", "refuted"]


def test_a_claim_that_is_no_longer_made_keeps_its_published_verdict(tmp_path):
    folder = publish(made_by(tmp_path / "first" / "q", CLEAN), tmp_path / "out")
    runs = simulate(tmp_path / "second" / "q", ARMS)
    text = publish(runs, folder).joinpath("results.md").read_text("utf-8")
    assert "a beats b (no longer claimed)." in text and "Published: never committed" in text
