"""One process among many holds a lease, and one that is gone holds nothing."""

import json
import os
import random
import subprocess
import sys
import time
from dataclasses import asdict

import pytest

from normlab.store import leases
from normlab.store.leases import LeaseHeldError, LeaseLostError, confirm, holder_of, leased
from tests.shared.waiting import wait_until

COUNT = """
import os, sys, time
from pathlib import Path
from normlab.store.leases import leased
folder, times = Path(sys.argv[1]), int(sys.argv[2])
for _ in range(times):
    with leased(folder / "lock", wait=True):
        (folder / "inside").open("x").close()  # fails if another process is inside
        number = int((folder / "count").read_text())
        (folder / "count").write_text(str(number + 1))
        (folder / "inside").unlink()
"""

HOLD = """
import sys, time
from pathlib import Path
from normlab.store.leases import leased
with leased(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(1000)
"""


@pytest.fixture
def python():
    """A function that begins a Python process, which is gone after the test."""
    begun = []

    def begin(code, *arguments, **environment):
        command = [sys.executable, "-c", code, *map(str, arguments)]
        env = {**os.environ, **environment}
        begun.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env))
        return begun[-1]

    yield begin
    for process in begun:
        process.kill()
        process.communicate()


def test_processes_hold_a_lease_one_at_a_time(tmp_path, python):
    (tmp_path / "count").write_text("0")
    processes = [python(COUNT, tmp_path, 40) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert (tmp_path / "count").read_text() == "120"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["count"]


def test_a_killed_process_holds_nothing_even_before_it_is_waited_for(tmp_path, python):
    file = tmp_path / "lock"
    process = python(HOLD, file)
    assert process.stdout.readline() == "held\n"
    assert holder_of(file).pid == process.pid
    with pytest.raises(LeaseHeldError, match=rf"another process \(pid {process.pid}\) holds it"):
        leased(file).__enter__()
    process.kill()
    wait_until(lambda: holder_of(file) is None)  # it is a zombie now
    with leased(file):
        assert holder_of(file).pid == os.getpid()
    process.wait()
    assert holder_of(file) is None


def test_another_process_with_the_number_of_a_dead_one_holds_nothing(tmp_path):
    file = tmp_path / "lock"
    with leased(file):
        held = json.loads(file.read_text())
    file.write_text(json.dumps({**held, "began": "1"}))
    assert holder_of(file) is None
    file.write_text(json.dumps(held))
    assert holder_of(file) is not None


@pytest.fixture
def elsewhere(tmp_path):
    """A lease of another host that holds for two seconds."""

    def write(name="lock"):
        other = leases.Holder("abc", "other-host boot pid", 1, "1", 2.0)
        (tmp_path / name).write_text(json.dumps(asdict(other)))
        return tmp_path / name

    return write


def test_a_lease_of_another_host_holds_as_long_as_it_gives_signs(elsewhere):
    file = elsewhere()
    ends = time.monotonic() + 3.0
    while time.monotonic() < ends:
        os.utime(file)
        with pytest.raises(LeaseHeldError, match="pid 1 on other-host"):
            leased(file).__enter__()
        time.sleep(0.1)
    began = time.monotonic()
    with leased(file, wait=True):
        assert 1.5 < time.monotonic() - began < 10


def test_a_lease_of_long_ago_is_watched_for_a_sign_before_it_is_taken(elsewhere):
    file = elsewhere()
    os.utime(file, (1, 1))
    began = time.monotonic()
    with leased(file, wait=True):
        assert 0.4 < time.monotonic() - began < 1.9
    os.utime(elsewhere(), (4e9, 4e9))  # the clock was set back
    began = time.monotonic()
    with leased(file, wait=True):
        assert time.monotonic() - began > 1.5


def test_who_has_lost_a_lease_is_told_before_it_writes(elsewhere, tmp_path):
    with leased(tmp_path / "lock"):
        confirm(tmp_path / "lock")
        elsewhere()  # this process was stopped for long
        with pytest.raises(LeaseLostError, match=r"pid 1 on other-host.* no sign of life for"):
            confirm(tmp_path / "lock")
    assert holder_of(tmp_path / "lock").pid == 1  # and the other one keeps it
    confirm(tmp_path / "unheld")


def test_a_successor_that_was_killed_half_way_has_a_successor(tmp_path, python):
    dead = python("")
    dead.wait()
    gone = leases.Holder("abc", leases.machine(), dead.pid, "1")
    (tmp_path / "lock").write_text(json.dumps(asdict(gone)))
    half = leases.Holder("def", leases.machine(), dead.pid, "1")
    (tmp_path / "lock.abc").write_text(json.dumps(asdict(half)))
    with leased(tmp_path / "lock"):
        assert [file.name for file in tmp_path.iterdir()] == ["lock"]
    alive = leases.Holder("fed", leases.machine(), os.getpid(), leases.began(os.getpid()))
    (tmp_path / "lock.first").write_text(json.dumps(asdict(alive)))
    with pytest.raises(LeaseHeldError, match="takes it"):
        leased(tmp_path / "lock").__enter__()


@pytest.mark.parametrize("content", [b"", b"{}", b"nonsense", b'{"token": "../x"}'])
def test_a_lease_that_cannot_be_read_holds_nobody_for_ever(tmp_path, content, monkeypatch):
    monkeypatch.setenv("NORMLAB_LEASE", "1")
    (tmp_path / "lock").write_bytes(content)
    with leased(tmp_path / "lock", wait=bool(content)):
        assert [file.name for file in tmp_path.iterdir()] == ["lock"]
    assert not list(tmp_path.iterdir())


def test_signs_of_life_are_given(tmp_path, python):
    file = tmp_path / "lock"
    process = python(HOLD, file, NORMLAB_LEASE="1")
    process.stdout.readline()
    os.utime(file, (1, 1))
    wait_until(lambda: file.stat().st_mtime > time.time() - 100)


@pytest.mark.thorough
def test_killed_processes_leave_a_lease_that_goes_on(tmp_path, python):
    """Twenty processes are killed at any moment, also while they take or give back."""
    chosen = random.Random(3)
    (tmp_path / "count").write_text("0")
    code = COUNT.replace('open("x")', 'open("w")')
    for _ in range(20):
        processes = [python(code, tmp_path, 10**6) for _ in range(2)]
        time.sleep(chosen.uniform(0.1, 0.4))
        for process in processes:
            process.kill()
    last = python(COUNT.replace('open("x")', 'open("w")'), tmp_path, 5)
    assert last.wait() == 0
    assert holder_of(tmp_path / "lock") is None
