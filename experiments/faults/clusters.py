"""Kills parts of a sweep that many processes share, and checks that nothing is lost or different.

    python -m experiments.faults.clusters dask --kills 100 --seed 1
    python -m experiments.faults.clusters shards --kills 100 --seed 1
    python -m experiments.faults.clusters slurm --kills 20 --seed 1

`dask` begins a scheduler and workers; a worker, the process that makes a run, or the command itself
is killed at drawn moments, and another takes its place. `shards` begins the tasks of an array job;
where this user may name a host, every second one is on another host, whose processes the others
cannot see. `slurm` cancels jobs of a running SLURM, or kills the command. At last the sweep is
finished, and every run must be done once, with the rows and the parameters, to the bit, of a sweep
that one process made undisturbed. The moments and the victims come from the seed.
"""

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from experiments.faults.kill import CONFIG, command, doubled, finish, results, same
from normlab.store.loading import load_runs

WORKERS = 2
ENVIRONMENT = {**os.environ, "NORMLAB_LEASE": "4"}


def begin(words: Sequence[str]) -> subprocess.Popen[bytes]:
    """Begin a process with a group of its own."""
    return subprocess.Popen(
        list(words),
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=ENVIRONMENT,
    )


def kill(process: subprocess.Popen[bytes], whole: bool = True) -> bool:
    """Kill a process, with its group or alone; return whether it was there."""
    if process.poll() is not None:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL) if whole else process.kill()
    process.wait()
    return True


class Dask:
    """A scheduler and its workers, and the command whose runs they make."""

    def __init__(self, file: Path, folder: Path):
        self._file, self._scheduler = file, folder / "scheduler.json"
        words = ["scheduler", "--no-dashboard", "--host", "127.0.0.1", "--port", "0"]
        self._processes = [begin(self._dask(*words, "--scheduler-file", str(self._scheduler)))]
        for _ in range(WORKERS):
            self._add_worker()

    def _dask(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "dask", *words]

    def _add_worker(self) -> None:
        words = ["worker", "--scheduler-file", str(self._scheduler), "--nthreads", "1"]
        self._processes.append(begin(self._dask(*words, "--no-nanny", "--no-dashboard")))

    def begin(self, out: Path) -> list[subprocess.Popen[bytes]]:
        """Begin the commands that make the sweep."""
        engine = f"{{name: dask, address: '{self._scheduler}', timeout: 300}}"
        words = ["--engine", engine, "--jobs", str(WORKERS)]
        return [begin(command(self._file, out, *words))]

    def kill_one(self, chosen: random.Random, commands: list, out: Path) -> bool:
        """Kill a command, a worker, or a process that makes a run; return whether it was there."""
        what = chosen.choice(["command", "worker", "worker", "run", "run"])
        if what == "command":
            found = kill(commands.pop(), chosen.random() < 0.5)
            commands += self.begin(out)
            return found
        if what == "worker":
            victim = self._processes.pop(chosen.randrange(1, len(self._processes)))
            found = kill(victim)
            self._add_worker()
            return found
        return kill_a_run(chosen, out)

    def end(self) -> None:
        """End all processes."""
        for process in self._processes:
            kill(process)


class Shards:
    """The tasks of an array job, as many as there are `WORKERS` and one."""

    def __init__(self, file: Path, folder: Path):
        self._file = file
        named = subprocess.run(["unshare", "--uts", "true"], capture_output=True, check=False)
        self._elsewhere = shutil.which("unshare") is not None and named.returncode == 0

    def _shard(self, out: Path, number: int) -> subprocess.Popen[bytes]:
        words = command(self._file, out, "--jobs", "1", "--shard", f"{number}/{WORKERS + 1}")
        if self._elsewhere and number % 2 == 0:
            rename = f'hostname node{number} && exec "$@"'
            words = ["unshare", "--uts", "sh", "-c", rename, "sh", *words]
        return begin(words)

    def begin(self, out: Path) -> list[subprocess.Popen[bytes]]:
        """Begin the commands that make the sweep."""
        return [self._shard(out, number + 1) for number in range(WORKERS + 1)]

    def kill_one(self, chosen: random.Random, commands: list, out: Path) -> bool:
        """Kill a shard, and begin it again with an even chance; return whether it was there."""
        number = chosen.randrange(len(commands))
        found = kill(commands[number])
        if chosen.random() < 0.5:
            commands[number] = self._shard(out, number + 1)
        return found

    def end(self) -> None:
        """Nothing is left to end."""


class Slurm:
    """A running SLURM, and the command whose runs are its jobs."""

    def __init__(self, file: Path, folder: Path):
        self._file = file

    def begin(self, out: Path) -> list[subprocess.Popen[bytes]]:
        """Begin the commands that make the sweep."""
        engine = "{name: slurm, minutes: 10}"
        words = ["--engine", engine, "--jobs", str(WORKERS)]
        return [begin(command(self._file, out, *words))]

    def kill_one(self, chosen: random.Random, commands: list, out: Path) -> bool:
        """Cancel a job, or kill the command, or a process that makes a run."""
        what = chosen.choice(["command", "job", "job", "run"])
        if what == "command":
            found = kill(commands.pop())
            commands += self.begin(out)
            return found
        if what == "run":
            return kill_a_run(chosen, out)
        told = subprocess.run(["squeue", "-h", "-o", "%i"], capture_output=True, text=True)
        jobs = told.stdout.split()
        return bool(jobs) and not subprocess.run(["scancel", chosen.choice(jobs)]).returncode

    def end(self) -> None:
        """Cancel what is left."""
        subprocess.run(["scancel", "--user", str(os.getuid())], check=False)


KINDS = {"dask": Dask, "shards": Shards, "slurm": Slurm}


def kill_a_run(chosen: random.Random, out: Path) -> bool:
    """Kill the process that makes a run; return whether there was one."""
    if not (out / "sweep" / "experiment.json").exists():
        return False
    pids = [run.status["pid"] for run in load_runs(out / "sweep") if run.state == "running"]
    if not pids:
        return False
    try:
        os.kill(chosen.choice(pids), signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def kill_shared_sweeps(
    kind: str, kills: int, seed: int, folder: Path, epochs: int = 30, seconds: float = 1e9
) -> dict[str, int]:
    """Kill parts of sweeps so many times, and count what came of it.

    Args:
        kind: of `KINDS`.
        kills: how many.
        seed: the seed of moments and victims.
        folder: an empty folder.
        epochs: the length of a run.
        seconds: after this time no other sweep is begun.

    Returns:
        `kills`, `sweeps`, `runs` that were finished and compared, `lost`, and `different`.
    """
    chosen, ends = random.Random(seed), time.monotonic() + seconds
    counts = {"kills": 0, "sweeps": 0, "runs": 0, "lost": 0, "different": 0}
    file = folder / "sweep.yaml"
    file.write_text(CONFIG.replace("EPOCHS", str(epochs)))
    finish(file, folder / "undisturbed")
    expected = results(folder / "undisturbed" / "sweep")
    cluster = KINDS[kind](file, folder)
    try:
        while counts["kills"] < kills and time.monotonic() < ends:
            out = folder / f"sweep-{counts['sweeps']}"
            commands = cluster.begin(out)
            for _ in range(chosen.randint(3, 8)):
                time.sleep(chosen.uniform(0.5, 8.0))
                counts["kills"] += cluster.kill_one(chosen, commands, out)
                if all(one.poll() is not None for one in commands):
                    break
            _finish_here(cluster, commands, out)
            found = results(out / "sweep")
            counts["sweeps"] += 1
            counts["runs"] += len(found)
            counts["lost"] += len(expected.keys() - found.keys()) + doubled(out / "sweep")
            counts["different"] += sum(
                not same(expected[name], found[name]) for name in expected.keys() & found.keys()
            )
            print(counts, file=sys.stderr, flush=True)
    finally:
        cluster.end()
    return counts


def _finish_here(cluster: Dask | Shards | Slurm, commands: list, out: Path) -> None:
    """Wait for the commands, and give them again where runs have failed by a kill."""
    for _ in range(5):
        if not [one for one in commands if one.wait(600)]:
            return
        commands = cluster.begin(out)
    raise RuntimeError(f"{out}: the same command does not finish")


def main(words: Sequence[str]) -> int:
    """Run from the command line; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=1e9)
    given = parser.parse_args(words)
    with tempfile.TemporaryDirectory() as folder:
        counts = kill_shared_sweeps(
            given.kind, given.kills, given.seed, Path(folder), seconds=given.seconds
        )
    print(", ".join(f"{count} {what}" for what, count in counts.items()))
    return 1 if counts["lost"] or counts["different"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
