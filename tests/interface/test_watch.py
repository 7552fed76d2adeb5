"""A sweep at a glance, from its folders alone."""

import io
import json
import os
import platform
import re
import subprocess
import sys
import time

import pytest
from rich.cells import cell_len
from rich.console import Console

from normlab.engine.progress import Observer, Snapshot, finished_in, seconds_left
from normlab.errors import UserError
from normlab.interface.watch import View, _is_over, sparkline, summary, watch
from normlab.store.loading import load
from normlab.store.run import Run
from normlab.store.runs import write_experiment
from tests.shared.simulated import PROVENANCE

HOST = {"host": platform.node()}


@pytest.fixture
def sweep(tmp_path):
    """A function that writes a sweep's folder: a status for each run, None for one not begun."""

    def write(*statuses, accuracies=()):
        made = []
        for seed, status in enumerate(statuses):
            run = Run(tmp_path / f"run{seed}", "batch_norm", seed)
            made.append(run)
            if status is not None:
                run.path.mkdir()
                (run.path / "status.json").write_text(json.dumps(status))
                rows = [{"step": 6 * i + 6, "test_accuracy": a} for i, a in enumerate(accuracies)]
                if status["state"] == "done":  # as such a run ends: with a row at its last step
                    rows = [*rows[:-1], {**dict(*rows[-1:]), "step": status["step"]}]
                    (run.path / "config.yaml").write_text("norm: batch_norm\n")
                    run.add_provenance(PROVENANCE)
                (run.path / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
        write_experiment(tmp_path, {"name": "tiny"}, made)
        return made

    return write


def running(**more):
    return {"state": "running", "pid": os.getpid(), **HOST, "steps": 60, **more}


def done(**more):
    numbers = {"step": 60, "steps": 60, "train_seconds": 5.0, "evaluate_seconds": 1.0}
    return {"state": "done", "pid": 1, "arm": "batch_norm", "seed": 0, **numbers, **more}


def drawn(view_or_path, height=40, terminal=False):
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=100, height=height)
    if isinstance(view_or_path, View):
        console.print(view_or_path)
    else:
        watch(view_or_path, console, once=True)
    return file.getvalue()


def test_the_table_has_a_line_a_run(sweep, tmp_path):
    sweep(done(), running(step=20), {"state": "failed", "pid": 1}, None, accuracies=(0.0, 0.8))
    first, second, third, fourth, last = drawn(tmp_path).splitlines()
    assert "done" in first and "60/60" in first and "▁█" in first and "0.800" in first
    assert "running" in second and "seed 1" in second and "20/60" in second and "━━━━━───" in second
    assert "failed" in third and "waiting" in fourth
    assert last.startswith("4 runs: 1 done, 1 failed, 1 running, 1 waiting; about 10 s to go")


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_narrow_terminal_loses_the_curve_and_the_bar_and_no_number(sweep, tmp_path, width):
    sweep(done(), running(step=20), accuracies=[0.1 * i for i in range(9)])
    runs = load(tmp_path).runs
    for run in runs:
        object.__setattr__(run, "arm", "バッチ正規化 g=8")
    file = io.StringIO()
    Console(file=file, force_terminal=True, width=width, height=20).print(View(lambda: runs))
    first, second, *_ = re.sub(r"\x1b\[[0-9;]*m", "", file.getvalue()).splitlines()
    assert "60/60" in first and "0.800" in first and "seed 0" in first and "バッチ正規化" in first
    assert "54/60" in second and max(map(cell_len, (first, second))) <= width
    assert ("━" in first) == ("█" in first) == (width > 60)


def test_a_run_whose_process_is_dead_is_stopped(sweep, tmp_path):
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    elsewhere = running(pid=process.pid) | {"host": "another"}
    made = sweep(running(pid=process.pid), elsewhere, running())
    states = [snapshot.state for snapshot in Observer().look(made)]
    assert states == ["stopped", "running", "running"]
    assert "1 stopped" in drawn(tmp_path)


def test_what_has_changed_is_seen(sweep):
    made = sweep(running(step=1), None)
    observer = Observer()
    assert [s.step for s in observer.look(made)] == [1, 0]
    time.sleep(0.01)
    made[0].append_metrics({"step": 6, "test_accuracy": 0.5})
    assert observer.look(made)[0].accuracies == (0.5,)
    assert observer.look(made)[0].step == 6, "the last row is newer than the status"


def test_what_does_not_fit_is_counted(sweep, tmp_path):
    made = sweep(*[done() for _ in range(20)], running(step=3), *[None] * 19)
    os.utime(made[7].path / "status.json")  # the last to end
    text = drawn(View(lambda: made), height=8, terminal=True)
    lines = text.strip().splitlines()
    assert len(lines) == 6 and "seed 7" in text and "running" in text
    assert "not shown: 17 done, 19 waiting" in text
    assert len(drawn(tmp_path).splitlines()) == 41, "where there is no terminal, all are shown"


def test_watch_needs_no_jax_and_ends_when_all_is_done(sweep, tmp_path):
    sweep(done(), done())
    code = (
        "import sys, atexit; from normlab import cli; "
        f"sys.argv = ['normlab', 'watch', {str(tmp_path)!r}]; "
        "atexit.register(lambda: print('JAX' if 'jax' in sys.modules else 'no jax')); cli.main()"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert process.stdout.endswith("2 runs: 2 done\nno jax\n") and "\x1b" not in process.stdout


def test_on_a_terminal_it_stays_until_the_end(sweep, tmp_path):
    import threading

    made = sweep(running(step=3))
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=100, height=20)
    thread = threading.Thread(target=watch, args=(tmp_path, console))
    thread.start()
    time.sleep(0.7)
    assert thread.is_alive() and "3/60" in file.getvalue()
    made[0].append_metrics({"step": 60, "test_accuracy": 0.5})
    (made[0].path / "config.yaml").write_text("norm: batch_norm\n")
    made[0].add_provenance(PROVENANCE)
    made[0].write_status(**done())
    thread.join(timeout=5)
    assert not thread.is_alive() and "1 run: 1 done" in file.getvalue()


def test_a_wrong_folder_is_told(tmp_path):
    with pytest.raises(UserError, match="neither a run nor an experiment"):
        drawn(tmp_path)


def test_one_run_can_be_watched(sweep, tmp_path):
    sweep(running(step=30, arm="rms_norm", seed=4))
    (tmp_path / "run0" / "config.yaml").write_text("norm: rms_norm\n")
    assert "rms_norm" in drawn(tmp_path / "run0") and "30/60" in drawn(tmp_path / "run0")


def test_the_time_left_comes_from_the_paces_known(tmp_path, sweep):
    def of(arm, state, **more):
        return Snapshot(arm, 0, state, steps=100, **more)

    finished = of("a", "done", step=100, pace=0.1, compile_seconds=3.0)
    assert seconds_left([finished], 1) == 0.0
    assert seconds_left([of("a", "new")], 1) is None
    assert seconds_left([finished, of("a", "running", step=40)], 1) == pytest.approx(6)
    # Another arm: the mean pace, and its program has to be compiled, once.
    assert seconds_left([finished, *[of("b", "new")] * 2], 1) == pytest.approx(3 + 20)
    assert seconds_left([finished, *[of("a", "new")] * 4], 2) == pytest.approx((3 + 40) / 2)
    # One run is made by one process, however many there are.
    assert seconds_left([finished, of("a", "running", pace=0.2)], 8) == pytest.approx(15)
    sweep(done(), running(step=3), None)
    assert [s.pace for s in finished_in(tmp_path)] == [0.1]


def test_the_last_line_says_when_nothing_is_running():
    assert summary([Snapshot("a", 0, "stopped")]) == "1 run: 1 stopped; nothing is running"
    assert summary([Snapshot("a", 0, "done")]) == "1 run: 1 done"


def test_a_sparkline_keeps_its_width_and_its_last_value():
    values = tuple(i / 100 for i in range(101))
    line = sparkline(values, top=1.0, width=10)
    assert len(line) == 10 and line[-1] == "█" and sparkline((), 1.0) == ""
    assert sparkline((0.0, 0.0), top=0.0) == "▁▁"


def test_trials_are_shown_and_the_sweep_is_not_over_with_them(sweep, tmp_path):
    trials = sweep(done())
    write_experiment(tmp_path, {"name": "tiny"}, [], trials)
    assert "1 run: 1 done" in drawn(tmp_path)
    assert not _is_over(tmp_path, View(lambda: trials))
    write_experiment(tmp_path, {"name": "tiny"}, trials, trials)
    assert _is_over(tmp_path, View(lambda: trials))
