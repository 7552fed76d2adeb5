"""`normlab runs`: on run directories written by hand, and on a real one."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from normlab.errors import UserError
from normlab.interface import runs_clean
from normlab.interface.reporting import render
from normlab.interface.runs_clean import clean
from normlab.interface.runs_diff import diff
from normlab.interface.runs_show import list_experiments, show
from normlab.store.loading import load
from normlab.store.run import Run
from normlab.store.runs import write_experiment
from tests.shared import simulated
from tests.shared.command_line import TINY, normlab
from tests.shared.simulated import write


def write_run(*where, **more):
    return simulated.write_run(*where, evaluate_seconds=0.5, **more)


@pytest.fixture
def runs(tmp_path):
    """Arm a has one run done and one not begun, arm b one failed and one diverged; one is an
    orphan.
    """
    folder = tmp_path / "runs" / "tiny"
    made = [
        write_run(folder, "a", 0, 0.8),
        write_run(folder, "a", 1, state="new"),
        write_run(folder, "b", 0, 0.7, state="failed", error="memory was short"),
        write_run(folder, "b", 1, 0.6, state="diverged", step=40),
    ]
    write_run(folder, "old", 0, 0.5)
    for run in made:
        if run.path.exists():
            (run.path / "checkpoints" / "60").mkdir(parents=True)
            (run.path / "checkpoints" / "60" / "weights").write_bytes(bytes(5000))
    return write(folder, made)


def lying_in(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def edit(run, **changes):
    file = run.path / "status.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def cleaned(path, **options):
    return "\n".join(clean(path, **options))


# list


def test_list_has_a_line_an_experiment(runs):
    (runs.path.parent / "broken").mkdir()
    (runs.path.parent / "broken" / "experiment.json").write_text("{")
    headings, broken, line = list_experiments(runs.path.parent).splitlines()
    assert headings.split()[:4] == ["experiment", "question", "runs", "orphans"]
    assert "cannot be read" in broken
    assert "does it?  1 diverged, 1 done, 1 failed, 1 new  1  " in line and " kB " in line
    assert line.endswith(str(runs.path))


def test_list_cuts_a_long_question_and_finds_experiments_deep_down(tmp_path):
    folder = tmp_path / "a" / "b" / "deep"
    write(folder, [write_run(folder, "a", 0, 0.5)], question="why " * 40)
    text = list_experiments(tmp_path)
    assert str(folder) in text and "why why…" in text and max(map(len, text.splitlines())) < 250
    assert "no experiments" in list_experiments(folder / "a-s0")


def test_while_arms_are_tuned_no_run_is_an_orphan(runs):
    write_experiment(runs.path, runs.about, [], runs.runs[:1])
    assert "1 done  0 " in list_experiments(runs.path)


# show


def test_show_tells_of_a_run_what_its_folder_holds(runs):
    text = show(runs.runs[0].path)
    for words in ("arm: a, seed 0", "state: done, step 60 of 60", "learning_rate: 0.1",
                  "of 6 evaluations", "test_accuracy   0.8", "2026-01-01", "jax 0.10.2",
                  "1 x cpu: cpu", "fingerprint 0123456789abcdef",
                  "5.0 kB of it checkpoints"):  # fmt: skip
        assert words in text, words


def test_show_says_where_and_why_a_run_failed_or_diverged(runs):
    failed, diverged = (show(runs.runs[i].path) for i in (2, 3))
    assert "state: failed: memory was short" in failed and "error.txt" in failed
    assert "diverged at step 40" in diverged and "Dense_0/kernel, norm 1e+09" in diverged


def test_show_says_that_the_process_of_a_run_is_dead(runs):
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    run = runs.runs[0]
    edit(run, state="running", pid=process.pid, host=platform.node())
    assert f"its process (pid {process.pid} on {platform.node()}) is no more" in show(run.path)
    assert "(stopped: the process is no more" in show(runs.path)
    told = render(runs.path, None, "final(test_accuracy)", "md")
    assert "seed 0 was stopped: its process is no more" in told
    edit(run, pid=os.getpid())
    assert "seed 0 is still running" in render(runs.path, None, "final(test_accuracy)", "md")
    assert f"state: running, step 60 of 60, pid {os.getpid()}" in show(run.path)


def test_show_has_a_line_for_every_run_of_an_experiment(runs):
    lines = show(runs.path).splitlines()
    rows = [line.split() for line in lines if line.startswith("  ")][1:]
    assert rows == [
        ["a", "0", "done", "60/60", "0.800", "a-s0"],
        ["a", "1", "new", "a-s1"],
        ["b", "0", "failed", "60/60", "0.700", "b-s0"],
        ["b", "1", "diverged", "40/60", lines_accuracy(runs.runs[3]), "b-s1"],
    ]
    assert "last run by: normlab run e.yaml" in lines
    assert any("orphans: 1 more" in line for line in lines)


def lines_accuracy(run):
    return f"{run.metrics[-1]['test_accuracy']:.3f}"


def test_provenance_of_an_older_normlab_can_be_shown(tmp_path):
    run = write_run(tmp_path, "a", 0, 0.5)
    proofs = [{"started": "2025-01-01", "data": {"name": "cifar10"}}]
    (run.path / "provenance.json").write_text(json.dumps(proofs))
    assert "2025-01-01" in show(run.path) and "name cifar10" in show(run.path)
    run.add_provenance({**proofs[0], "git": {"commit": "abc", "dirty": "d1"}})
    assert "commit: abc, with changes (d1)" in show(run.path)
    assert "worked on 2 times" in show(run.path)


# diff


def test_diff_of_two_runs_names_every_key_that_differs(tmp_path):
    jax = {"normlab": "0.1.0", "jax": "0.11.0", "python": "3.11.7"}
    a = write_run(tmp_path, "batch_norm", 0, 0.8)
    b = write_run(tmp_path, "layer_norm", 1, 0.8, proof={"versions": jax, "git": {"commit": "abc"}})
    found = [line.split() for line in diff(a.path, b.path).splitlines()]
    assert ["norm.name", "batch_norm", "layer_norm"] in found
    assert ["train.seed", "0", "1"] in found
    assert ["versions.jax", "0.10.2", "0.11.0"] in found
    assert ["git.commit", "(absent)", "abc"] in found
    words = " ".join(word for line in found for word in line)
    assert "optimizer" not in words and "versions.normlab" not in words
    assert "metrics are the same, to the last digit, in all 6 evaluations" in words


def test_diff_of_two_runs_finds_the_first_step_that_differs(tmp_path):
    runs = [write_run(tmp_path, "a", seed, step=30) for seed in (0, 1)]
    # The time it took is no difference; a NaN is what a NaN is.
    for run, last in zip(runs, (0.5, 0.5000000001), strict=True):
        seconds = 1.0 if last == 0.5 else 2.0
        for step, accuracy in ((10, 0.4), (20, last), (30, 0.1 if last == 0.5 else 0.2)):
            run.append_metrics(
                {"step": step, "train_loss": float("nan"), "test_accuracy": accuracy,
                 "train_seconds": seconds}
            )  # fmt: skip
    text = diff(runs[0].path, runs[1].path)
    assert "metrics first differ at step 20:\n  test_accuracy  0.5  0.5000000001" in text
    last = text.partition("last metrics:")[2].partition("metrics first")[0]
    assert ["test_accuracy", "0.1", "0.2", "0.1"] in [line.split() for line in last.splitlines()]


def test_a_run_without_rows_can_be_compared(runs, tmp_path):
    other = write_run(tmp_path / "other", "a", 0, state="interrupted")
    assert "no step was evaluated in both" in diff(runs.runs[0].path, other.path)
    assert "config: the same" in diff(runs.runs[0].path, other.path)


def test_diff_of_two_experiments_names_arms_seeds_and_keys(runs, tmp_path):
    folder = tmp_path / "other"
    made = [
        write_run(folder, "a", 0, 0.5, norm="c"),
        write_run(folder, "b", 0, state="new"),
        write_run(folder, "c", 5),
    ]
    write(folder, made)
    text = diff(runs.path, folder)
    assert "only in A: a (seed 1); b (seed 1)" in text and "only in B: c (seed 5)" in text
    assert ["norm.name", "a", "c"] in [line.split() for line in text.splitlines()]
    assert "b: no run of it has been begun in B" in text and "train.seed" not in text


def test_diff_of_two_experiments_compares_their_metrics(tmp_path):
    first = simulated.simulate(tmp_path / "first", {"a": [0.5, 0.52], "b": [0.6, 0.63]})
    other = simulated.simulate(tmp_path / "other", {"b": [0.7, 0.74], "c": [0.7]})
    text = diff(first.path, other.path)
    rows = [line.split() for line in text.partition("final(test_accuracy)")[2].splitlines()]
    assert ["a", "2", "0.51", "0"] in rows and ["c", "0", "1", "0.7"] in rows
    row = next(row for row in rows if row[:1] == ["b"])
    assert row[:6] == ["b", "2", "0.615", "2", "0.72", "0.105"]
    assert float(row[6]) < 0.105 < float(row[8])
    assert "final(test_loss)" in text and "train_seconds" not in text


def test_a_run_and_an_experiment_are_not_compared(runs):
    with pytest.raises(UserError, match="two of a kind"):
        diff(runs.runs[0].path, runs.path)


# clean


def test_without_yes_nothing_changes(runs):
    before = lying_in(runs.path)
    text = cleaned(runs.path, checkpoints=True)
    assert lying_in(runs.path) == before
    for words in ("would go: old-s0", "not made by that command", "would go: b-s0",
                  "failed: memory was short; its checkpoint", "would go: a-s0/checkpoints, 5.0 kB",
                  "run.params() needs them", "b-s1/checkpoints",
                  "with --yes, 4 folders"):  # fmt: skip
        assert words in text, words


def test_with_yes_what_was_listed_goes_and_nothing_else(runs):
    (runs.path / "report.html").write_text("mine")
    (runs.path / "notes").mkdir()
    (runs.path / "notes" / "config.yaml").write_text("mine")
    (runs.path / "notes" / "status.json").write_text('{"mine": 1}')
    assert "deleted 2 folders" in cleaned(runs.path.parent, yes=True)
    left = {path.name for path in runs.path.iterdir()}
    assert left == {"a-s0", "b-s1", "notes", "report.html", "experiment.json", "claims.json"}
    assert (runs.path / "a-s0" / "checkpoints" / "60" / "weights").exists()
    assert "deleted 2 folders" in cleaned(runs.path, checkpoints=True, yes=True)
    assert not (runs.path / "a-s0" / "checkpoints").exists()
    assert load(runs.path / "a-s0").metrics and "nothing to delete" in cleaned(runs.path)


def test_a_run_that_another_process_holds_is_never_touched(runs):
    code = "import sys; from normlab.store.run import Run; from pathlib import Path\n"
    code += "with Run(Path(sys.argv[1])).locked(): print('held', flush=True); sys.stdin.read()"
    orphan = runs.path / "old-s0"
    command = [sys.executable, "-c", code, str(orphan)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"held\n"
        for yes in (False, True):
            text = cleaned(runs.path, yes=yes)
            assert "kept: old-s0" in text and "another process" in text
        assert (orphan / "metrics.jsonl").exists() and not (runs.path / "b-s0").exists()
        process.stdin.close()
    assert "deleted: old-s0" in cleaned(runs.path, yes=True) and not orphan.exists()


def test_a_run_that_another_host_is_making_is_kept(runs):
    edit(Run(runs.path / "old-s0"), state="running", host="elsewhere")
    assert "being made on elsewhere" in cleaned(runs.path)
    assert "being made on elsewhere" in cleaned(runs.path, yes=True)
    assert (runs.path / "old-s0" / "metrics.jsonl").exists()


def test_a_run_that_changed_since_it_was_listed_is_kept(runs, monkeypatch):
    one = next(c for c in runs_clean.candidates(runs, False) if c.path.name == "b-s0")
    edit(one.run, state="done", step=60)  # in the meantime somebody made it
    monkeypatch.setattr(runs_clean, "candidates", lambda *_: [one])
    assert "it has changed since it was listed" in cleaned(runs.path, yes=True)
    assert one.run.metrics


def test_links_are_not_followed(runs, tmp_path):
    precious = write_run(tmp_path / "precious", "p", 0, 0.9).path
    (runs.path / "linked-s0").symlink_to(precious)  # an orphan, if it were a folder
    (runs.path / "old-s0" / "inner").symlink_to(precious)
    linked = runs.path / "a-s0" / "checkpoints"
    (linked / "60" / "weights").unlink()
    (linked / "60").rmdir()
    linked.rmdir()
    linked.symlink_to(precious)
    (runs.path.parent / "all").symlink_to(tmp_path / "precious")
    before = lying_in(precious)
    text = cleaned(runs.path.parent, checkpoints=True, yes=True)
    assert "deleted: old-s0" in text and "linked" not in text and "a-s0/" not in text
    assert lying_in(precious) == before and linked.is_symlink()


def test_a_deletion_broken_off_can_be_done_again(runs, monkeypatch):
    orphan = runs.path / "old-s0"
    (orphan / "checkpoints").mkdir()
    edit(runs.runs[2], state="done")

    def fail(path):
        raise PermissionError(f"{path} is busy")

    with monkeypatch.context() as patch:
        patch.setattr(runs_clean.shutil, "rmtree", fail)
        with pytest.raises(UserError, match="old-s0: cannot be deleted"):
            cleaned(runs.path, yes=True)
    assert (orphan / "config.yaml").exists() and (orphan / "status.json").exists()
    assert "deleted: old-s0" in cleaned(runs.path, yes=True) and not orphan.exists()


def test_orphans_of_a_command_with_overrides_come_with_a_warning(runs):
    about = {**runs.about, "overrides": ["train.epochs=1"]}
    write_experiment(runs.path, about, runs.runs)
    assert "the runs of e.yaml itself are not made by that command either" in cleaned(runs.path)


def test_bad_paths_are_told(runs, tmp_path):
    with pytest.raises(UserError, match="single run; give its experiment's folder"):
        cleaned(runs.runs[0].path)
    with pytest.raises(UserError, match="no such folder"):
        cleaned(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="nor holds any"):
        cleaned(tmp_path / "empty", yes=True)
    with pytest.raises(UserError, match="neither a run nor an experiment"):
        show(tmp_path / "empty")
    (runs.path / "a-s0" / "status.json").write_text("[")
    with pytest.raises(UserError, match=r"status.json is damaged: .*delete the folder"):
        show(runs.path / "a-s0")


# the commands


@pytest.mark.parametrize("words", [["list"], ["show", "runs/tiny"], ["show", "runs/tiny/a-s0"],
                                   ["diff", "runs/tiny/a-s0", "runs/tiny/b-s1"],
                                   ["clean", "runs"]], ids=" ".join)  # fmt: skip
def test_the_commands_need_no_jax(words, runs):
    code = (
        "import sys, atexit; from normlab import cli; "
        f"sys.argv = ['normlab', 'runs', *{words!r}]; "
        "atexit.register(lambda: print('JAX' if 'jax' in sys.modules else 'no jax')); cli.main()"
    )
    command = [sys.executable, "-c", code]
    root = Path(__file__).parents[2]
    done = subprocess.run(
        command, cwd=runs.path.parents[1], capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(root)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("no jax\n") and len(done.stdout) > 100


@pytest.mark.thorough
def test_a_real_sweep_from_the_command_line(tmp_path):
    (tmp_path / "tiny.yaml").write_text(TINY)
    for words in ([], ["train.epochs=1"]):
        made = normlab("run", "tiny.yaml", *words, cwd=tmp_path)
        assert made.returncode == 0, made.stderr
    listed = normlab("runs", "list", cwd=tmp_path).stdout
    assert listed.count("2 done  0 ") == 2, "neither command makes orphans of the other's runs"
    a, b = (next((tmp_path / "runs" / name).glob("batch_norm-*"))
            for name in ("tiny", "tiny+epochs=1"))  # fmt: skip
    text = normlab("runs", "diff", a, b, cwd=tmp_path).stdout
    assert "train.epochs" in text and "versions." not in text and "devices" not in text
    assert "in the one evaluation of both, at step 3" in text
    assert "devices: 8 x cpu" in normlab("runs", "show", a, cwd=tmp_path).stdout
    gone = normlab("runs", "clean", "runs", "--yes", cwd=tmp_path)
    assert gone.stdout.count("nothing to delete") == 2, gone.stderr
    bad = normlab("runs", "clean", "tiny.yaml", cwd=tmp_path)
    assert bad.returncode == 2 and "no such folder" in bad.stderr and "Traceback" not in bad.stderr
    again = normlab("run", "tiny.yaml", "train.epochs=1", cwd=tmp_path)
    assert again.stdout.count("was done") == 2, "what belongs is kept"
