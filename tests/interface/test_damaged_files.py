"""A damaged file of one run is told by name; whatever reads the sweep goes on with the others."""

import contextlib
import io
import json
import random
from dataclasses import asdict

import pytest
import yaml
from rich.console import Console

from normlab.errors import UserError
from normlab.evidence.verdicts import judge
from normlab.interface.reporting import render
from normlab.interface.runs_clean import clean
from normlab.interface.runs_show import list_experiments, show
from normlab.interface.watch import watch
from normlab.measures.claims import Claim
from normlab.reports.shown_comparison import compare
from normlab.store.files import DamagedError
from normlab.store.loading import load_runs
from normlab.store.record import Record
from normlab.store.run import Run
from tests.shared.simulated import simulate, write_run

RUN = ("status.json", "metrics.jsonl", "provenance.json", "probes.jsonl", "config.yaml")
EXPERIMENT = ("experiment.json", "claims.json")
PROBED = {"step": 60, "probe": "activations", "quantity": "dead", "layers": ["a"], "values": [0.5]}
CLAIM = Claim("a is better", "final(test_accuracy)", "a", "b", "difference > 0")


def seal(run):
    run.append_probes([PROBED])
    run.write_status(**run.status, sealed=True)


@pytest.fixture
def runs(tmp_path):
    """Two arms of two seeds, finished, with digests."""
    found = simulate(tmp_path / "runs" / "tiny", {"a": [0.6, 0.61], "b": [0.5, 0.52]}, [CLAIM])
    for run in found:
        seal(run)
    (found.path / "claims.json").write_text(json.dumps([asdict(CLAIM)]))
    return found


def watched(path):
    file = io.StringIO()
    watch(path, Console(file=file, width=1000), once=True)
    return file.getvalue()


READERS = {
    "report": lambda runs: render(runs.path, None, "final(test_accuracy)", "md"),
    "table": lambda runs: render(runs.path, None, "seconds_to(test_accuracy, 0.3)", "csv"),
    "verdict": lambda runs: str(judge(load_runs(runs.path))),
    "list": lambda runs: list_experiments(runs.path.parent),
    "show": lambda runs: show(runs.path),
    "watch": lambda runs: watched(runs.path),
    "clean": lambda runs: "\n".join(clean(runs.path)),
    "notebook": lambda runs: load_runs(runs.path)._repr_html_(),
}


@pytest.mark.parametrize("name", RUN)
def test_the_others_go_on_and_the_damaged_one_is_named(runs, name):
    file = runs.runs[1].path / name
    file.write_bytes(b"]" + file.read_bytes()[1:])
    for reader in ("report", "verdict", "show", "watch"):
        text = READERS[reader](runs)
        assert f"{file} is damaged: " in text and "delete the folder" in text, reader
    listed = list_experiments(runs.path.parent)
    assert "1 damaged, 3 done" in listed and f"{file} is damaged: " in listed
    damaged = compare(load_runs(runs.path)).records[1]
    assert damaged.state == "damaged" and str(file) in damaged.damage
    arm = compare(load_runs(runs.path)).arm("a")
    assert arm.sample.values.tolist() == [0.6] and not arm.sample.complete


@pytest.mark.parametrize("name", EXPERIMENT)
@pytest.mark.parametrize("wrong", [b"", b"[", b'{"name": 1}', b"[" * 100_000, b"\xff\xfe", b"null"])
def test_a_damaged_file_of_the_experiment_is_named_with_the_mend(runs, name, wrong):
    (runs.path / name).write_bytes(wrong)
    if wrong == b"null" and name == "claims.json":
        wrong = b"[]"
    with pytest.raises(DamagedError, match=rf"{name} is damaged: .*; (restore|`normlab run`)"):
        READERS["verdict"](runs)


def mutilated(content, name, chosen):
    """One of the ways in which a file may be damaged."""
    way = chosen.choice(["flip", "flip", "cut", "zeros", "line", "swap", "swap", "deep"])
    if way == "flip":
        bit = chosen.randrange(8 * len(content))
        return bytes(b ^ (1 << bit % 8) if i == bit // 8 else b for i, b in enumerate(content))
    if way == "cut":
        return content[: chosen.randrange(len(content))]
    if way == "zeros":
        return bytes(len(content))
    if way == "deep":
        return b"[" * chosen.choice([50, 5000]) + b"]" * 50
    lines = content.splitlines(keepends=True)
    if way == "line":
        return b"".join(chosen.sample(lines, len(lines) // 2))
    if name.endswith(".jsonl"):
        at = chosen.randrange(len(lines))
        lines[at] = json.dumps(swapped(json.loads(lines[at]), chosen)).encode() + b"\n"
        return b"".join(lines)
    if name.endswith(".yaml"):
        return yaml.safe_dump(swapped(yaml.safe_load(content), chosen)).encode()
    return json.dumps(swapped(json.loads(content), chosen)).encode()


def swapped(tree, chosen):
    """A value somewhere within is another, or has another name, or is gone."""
    inner = tree
    while True:
        places = list(inner) if isinstance(inner, dict) else list(range(len(inner)))
        if not places:
            return tree
        at = chosen.choice(places)
        if isinstance(inner[at], dict | list) and chosen.random() < 0.7:
            inner = inner[at]
            continue
        if isinstance(inner, dict) and chosen.random() < 0.3:
            inner["x" + str(at)] = inner.pop(at)
        elif chosen.random() < 0.2:
            del inner[at]
        else:
            inner[at] = chosen.choice(
                [None, True, -1, 10**30, 1.5, float("nan"), float("inf"), "", "x", [], {}, [[1]]]
            )
        return tree


@pytest.mark.parametrize("seed", range(12))
def test_no_damage_ends_in_a_traceback(runs, seed):
    """This holds of runs as they are written today, as earlier ones were, and unfinished ones."""
    chosen = random.Random(seed)
    run = runs.runs[seed % 4]
    status = json.loads((run.path / "status.json").read_text())
    if seed % 3:
        del status["digests"]
        status["state"] = ("done", "running", "failed")[seed % 3]
        (run.path / "status.json").write_text(json.dumps(status))
    for name in (*RUN, *EXPERIMENT):
        file = (run.path if name in RUN else runs.path) / name
        content = file.read_bytes()
        file.write_bytes(mutilated(content, name, chosen))
        for reader in chosen.sample(sorted(READERS), 4):
            with contextlib.suppress(UserError):
                READERS[reader](runs)
        file.write_bytes(content)


def test_a_finished_run_of_an_earlier_normlab_ends_at_the_step_of_its_status(tmp_path):
    run = write_run(tmp_path, "a", 0, 0.5)
    file = run.path / "metrics.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    assert Record.read(run).state == "done"
    for damaged in (lines[:-1], [*lines[:-1], lines[-1][:20]], [lines[0], "}\n", *lines[2:]], []):
        file.write_text("".join(damaged))
        assert Record.read(run).state == "damaged"
        with pytest.raises(DamagedError, match=r"metrics\.jsonl is damaged"):
            run.metrics  # noqa: B018 (reading it is the test)


def test_of_an_unfinished_run_the_last_line_alone_may_be_torn(tmp_path):
    run = write_run(tmp_path, "a", 0, 0.5, state="interrupted")
    file = run.path / "metrics.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join([*lines[:-1], lines[-1][:20]]))
    assert [row["step"] for row in run.metrics] == [10, 20, 30, 40, 50]
    for damaged in ([lines[0], lines[1][:20] + "\n", *lines[2:]],
                    [*lines[:-1], lines[-1][:20] + "\n"],
                    [lines[0], *lines]):  # fmt: skip
        file.write_text("".join(damaged))
        with pytest.raises(DamagedError, match=r"metrics\.jsonl is damaged: line"):
            run.metrics  # noqa: B018


def test_a_changed_number_of_a_finished_run_is_told(runs):
    run = runs.runs[0]
    for name, old, new in (("metrics.jsonl", "0.6", "0.7"), ("status.json", "60", "61"),
                           ("config.yaml", "0.1", "0.2"), ("probes.jsonl", "0.5", "0.6"),
                           ("provenance.json", "10000", "90000")):  # fmt: skip
        file = run.path / name
        content = file.read_text()
        assert old in content
        file.write_text(content.replace(old, new, 1))
        with pytest.raises(DamagedError, match=rf"{name} is damaged"):
            Run(run.path).whole()
        file.write_text(content)
    assert Run(run.path).whole().status["state"] == "done"
