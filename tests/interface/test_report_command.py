"""`normlab report` and `normlab verdict`, from the command line."""

import json

from normlab.measures.claims import Claim
from tests.shared.command_line import normlab
from tests.shared.simulated import simulate


def test_report_and_verdict_work_from_the_command_line(tmp_path):
    claim = Claim("a beats b", "final(test_accuracy)", "a", "b", "difference > 0")
    worse = {"a": [0.5, 0.51, 0.52, 0.5], "b": [0.7, 0.71, 0.69, 0.7]}
    simulate(tmp_path / "e", worse, [claim])
    simulate(tmp_path / "late", worse, [claim], registered=False)
    done = normlab("verdict", "e", cwd=tmp_path)
    assert done.returncode == 1 and "Refuted: " in done.stdout
    late = normlab("verdict", "late", cwd=tmp_path)
    assert late.returncode == 0 and "[written after the fact]" in late.stdout
    page = normlab("report", "e", "--baseline", "b", cwd=tmp_path)
    assert page.stdout == "e/report.html\n" and page.stderr == ""
    assert "normlab report e --baseline b" in (tmp_path / "e" / "report.html").read_text()
    json.loads(normlab("report", "e", "--format", "json", cwd=tmp_path).stdout)
    out = normlab("report", "e", "--format", "csv", "--out", "no/such/e.csv", cwd=tmp_path)
    assert out.returncode == 2 and "choose another --out" in out.stderr
