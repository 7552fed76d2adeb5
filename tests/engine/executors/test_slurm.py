"""Runs as jobs of SLURM: a stand-in for its programs is enough for how jobs come and go.

`python -m experiments.faults.clusters slurm` does it on a running SLURM.
"""

import os
import sys
import time

import pytest

from normlab.engine.executors import slurm
from normlab.engine.executors.slurm import Slurm
from normlab.engine.worker import WorkerDiedError
from normlab.errors import UserError

PROGRAMS = {
    # A job is a process whose number is that of the job; its script runs without srun.
    "sbatch": """
import os, re, subprocess, sys
text = open(sys.argv[-1]).read()
command = re.search("^srun .* ([^ ]+ -u -m submitit.*)$", text, re.M)[1]
gate = "while [ -e HELD ]; do sleep 0.05; done; exec "
process = subprocess.Popen(
    ["sh", "-c", gate + "env SLURM_JOB_ID=$$ SLURM_JOB_NUM_NODES=1 SLURM_NTASKS=1 "
     "SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NODEID=0 SUBMITIT_EXECUTOR=slurm " + command],
    start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
open("jobs", "a").write(f"{process.pid}\\n")
print("Submitted batch job", process.pid)
""",
    "squeue": """
import os
for line in open("jobs"):
    pid = int(line)
    try:
        state = open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0]
        if state != "Z":
            print(pid, "PENDING" if os.path.exists("HELD") else "RUNNING")
    except OSError:
        pass
""",
    "scancel": "import os, signal, sys\nos.killpg(int(sys.argv[1]), signal.SIGKILL)",
    "srun": "",
    "sacct": "import sys\nsys.exit('Slurm accounting storage is disabled')",
}


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """A stand-in for SLURM, in a folder of its own."""
    pytest.importorskip("submitit")
    for name, code in PROGRAMS.items():
        file = tmp_path / "bin" / name
        file.parent.mkdir(exist_ok=True)
        text = f"#!{sys.executable}\nimport os\nos.chdir({str(tmp_path)!r})\n{code}"
        file.write_text(text.replace("HELD", str(tmp_path / "held")))
        file.chmod(0o755)
    (tmp_path / "jobs").touch()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(slurm, "BETWEEN_LOOKS", 0.2)
    monkeypatch.setattr(slurm, "GRACE", 0.5)
    (executor, *others) = Slurm(jobs=2, minutes=3).places(None, tmp_path)
    assert others == [executor]
    yield executor
    executor.shutdown(cancel_futures=True)


def test_a_job_answers_and_its_files_are_removed(cluster, tmp_path):
    assert cluster.submit(len, {"number": 4}).result(60) == 1
    assert not [*(tmp_path / slurm.FOLDER).glob("*_result.pkl")]


def test_a_killed_job_is_noticed_though_no_accounts_are_kept(cluster, tmp_path):
    future = cluster.submit(time.sleep, 100)
    while not future.running():
        time.sleep(0.05)
    number = (tmp_path / "jobs").read_text().split()[-1]
    os.killpg(int(number), 9)
    with pytest.raises(WorkerDiedError, match=f"job {number} left the queue without an answer"):
        future.result(60)


def test_a_job_that_waits_can_be_taken_back(cluster, tmp_path):
    (tmp_path / "held").touch()
    future = cluster.submit(len, {"number": 1})
    time.sleep(0.5)
    assert not future.running() and future.cancel()


def test_the_script_says_what_was_asked_for(tmp_path):
    pytest.importorskip("submitit")
    script = Slurm(minutes=90, partition="gpu", gpus=1, cores=4, memory=16.0,
                   setup=("module load cuda",), more={"qos": "long"}).script(tmp_path)  # fmt: skip
    for line in ("--time=90", "--partition=gpu", "--gpus-per-node=1", "--cpus-per-task=4",
                 "--mem=16384MB", "--qos=long"):  # fmt: skip
        assert f"#SBATCH {line}\n" in script
    assert "\nmodule load cuda\n" in script and "submitit.core._submit" in script


def test_without_slurm_the_way_out_is_told(tmp_path, monkeypatch):
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"no sbatch here.* --dry-run"):
        Slurm().places(None, tmp_path)
