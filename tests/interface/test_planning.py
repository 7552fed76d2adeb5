"""`normlab plan`: from a config to the chances, with noise from a pilot."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from normlab.cli import app
from normlab.configs.experiment import load_experiment
from normlab.engine.engine import Engine
from normlab.errors import UserError
from normlab.evidence.plans import Given
from normlab.interface.planning import make_pilot, plan_sweep, read_effects, read_noise
from normlab.reports.figures.chances import chances
from normlab.reports.plan_export import plan_json
from normlab.reports.plan_words import plan_lines, short_lines

CLAIMS = """
looks: [3, 6]
claims:
  - says: batch normalisation is better
    measure: final(train_loss)
    compare: {left: batch_norm, right: identity}
    expect: difference < 0
  - says: it does as well on the test split, within a tenth
    measure: final(test_accuracy)
    compare: {left: batch_norm, right: identity}
    expect: matches within 0.1
  - says: it is half as slow
    measure: steps_to(test_accuracy, 0.5)
    compare: {left: batch_norm, right: identity}
    expect: ratio <= 0.5
"""
SWEPT = """
data: {name: shapes, train_examples: 300, test_examples: 200, size: 8}
model: {name: mlp, widths: [16]}
optimizer: {name: sgd, learning_rate: 0.1}
train: {epochs: 8, batch_size: 20, eval_every: 120}
sweep: {norm: [identity, batch_norm], seed: 0..5}
"""


@pytest.fixture
def experiment(tmp_path):
    file = tmp_path / "tiny.yaml"
    file.write_text(SWEPT + CLAIMS)
    return load_experiment(file)


def make(experiment, out):
    assert not Engine(experiment, out).run_all().failed


def test_a_pilot_lies_apart_and_gives_noise_and_time(experiment, tmp_path):
    out = tmp_path / "runs"
    folder = make_pilot(experiment, out, 2, make)
    assert folder == out / "pilots" / "tiny"
    assert sorted(int(path.name.split("-s")[1][:4]) for path in folder.glob("*-s*")) == [
        1000, 1000, 1001, 1001
    ]  # fmt: skip
    engine = Engine(experiment, out)
    assert all(not run.begun for run in engine.runs_of(experiment.runs))
    plan = plan_sweep(experiment, out)
    loss = plan.claims[0]
    assert loss.found.folder == folder and loss.design.looks == (3, 6) and plan.seconds > 0
    assert "Time: under a minute" in plan_lines(plan)[0]
    # The experiment's own runs give no noise, unless it is asked for.
    folder.rename(out / "tiny")
    assert plan_sweep(experiment, out).claims[0].design is None
    assert plan_sweep(experiment, out, like=[out / "tiny"]).claims[0].found.folder == out / "tiny"


def test_the_plan_is_written_for_80_columns_and_as_json(experiment, tmp_path):
    plan = plan_sweep(experiment, tmp_path, Given({"": 0.1}, correlation=0.5), {0: [0.05]})
    lines = plan_lines(plan)
    assert max(map(len, lines)) <= 80
    text = " ".join(" ".join(lines).split())
    assert "tiny: 12 runs, 2 arms of 6 seeds, looks at 3, 6 seeds. Time: not known" in text
    assert "seeds of one arm vary by 0.1 (standard deviation)" in text
    assert "The chances of its verdicts cannot be told: steps_to(test_accuracy, 0.5)" in text
    assert len(short_lines(plan)) == 6
    kept = json.loads(json.dumps(plan_json(plan)))
    first = kept["claims"][0]
    assert first["noise"]["deviations"] == [0.1, 0.1] and first["paired"] == "all"
    assert any(row["stated"] and row["effect"] == 0.05 for row in first["chances"])
    assert len(chances(plan).axes) == 2


def test_the_command_prints_json_and_draws(experiment, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["plan", "tiny.yaml", "--noise", "0.1", "--effect", "1=0.2", "--json",
             "--plot", "p.svg"]  # fmt: skip
    done = CliRunner().invoke(app, words)
    assert json.loads(done.output)["looks"] == [3, 6], done.output
    assert "four cases of five" in (tmp_path / "p.svg").read_text()
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("text", ["much", "-1", "0", "final(test_acuracy)=0.1", "inf"])
def test_noise_that_cannot_be_read_is_said(text):
    with pytest.raises(UserError):
        read_noise([text])


@pytest.mark.parametrize("text", ["big", "3=0.1", "0=0.1", "a=0.1"])
def test_effects_that_cannot_be_read_are_said(text):
    with pytest.raises(UserError):
        read_effects([text], 2)


def test_a_pilot_of_one_seed_shows_no_noise(experiment):
    with pytest.raises(UserError, match="at least 2 seeds"):
        make_pilot(experiment, Path("runs"), 1, make)
