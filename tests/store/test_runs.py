"""Processes that write to one experiment's folder at once lose nothing of each other."""

import json
import subprocess
import sys

from tests.shared.waiting import GENEROUS

WRITER = """
import sys, time
from pathlib import Path
from normlab.store import runs

read = runs.known_claims
def slowly(path):
    found = read(path)
    time.sleep(0.02)  # the gap between reading and writing, as on a busy machine
    return found
runs.known_claims = slowly
folder, name = Path(sys.argv[1]), sys.argv[2]
print("ready", flush=True)
sys.stdin.readline()
for number in range(8):
    claim = {"says": f"{name} {number}", "measure": "final(test_accuracy)", "left": "a",
             "right": None, "expect": "mean > 0"}
    runs.note_claims(folder, [claim])
"""


def test_no_claim_is_lost(tmp_path):
    processes = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), str(name)],
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for name in range(3)
    ]  # fmt: skip
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        process.communicate(timeout=GENEROUS)
        assert process.returncode == 0
    kept = [claim["says"] for claim in json.loads((tmp_path / "claims.json").read_text())]
    assert sorted(kept) == sorted(f"{name} {number}" for name in range(3) for number in range(8))
