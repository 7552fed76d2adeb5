"""`normlab variance` prints tables for people and JSON for programs."""

import json

from typer.testing import CliRunner

from normlab.cli import app
from normlab.store.seeds import split_seed
from tests.shared.simulated import write, write_run


def experiment(folder):
    made = [
        write_run(folder, arm, split_seed(i, 0, a), 0.6 + 0.02 * i + 0.001 * a * (-1) ** i)
        for arm in ("batch_norm", "identity")
        for i in range(3)
        for a in range(2)
    ]
    return write(folder, made)


def printed(*words):
    done = CliRunner().invoke(app, list(map(str, words)))
    assert done.exit_code == 0, done.output
    return done.output


def test_the_command_prints_tables_and_json(tmp_path):
    folder = experiment(tmp_path / "x").path
    text = printed("variance", folder)
    assert "batch_norm: mean 0.620 of 6 runs, crossed: initial weights 3, augmentation 2" in text
    assert "initial weights" in text and "Not measured: order of the examples" in text
    assert max(map(len, text.splitlines())) <= 80
    again = experiment(tmp_path / "elsewhere").path
    more = ("--again", again, "--measure", "final(train_loss)")
    found = json.loads(printed("variance", folder, "--json", *more))
    assert [one["arm"] for one in found] == ["batch_norm", "identity"]
    sources = {row["source"]: row for row in found[0]["sources"]}
    assert sources["initial weights"]["share"] > 0.9
    assert sources["rounding of the machine"]["deviation"] == 0  # the same numbers twice
    assert found[0]["measure"] == "final(train_loss)"
