"""`normlab report` and `normlab verdict`, from the command line."""

import json
import os
import pty
import struct
import subprocess
import sys
import termios
import unicodedata
from fcntl import ioctl

import pytest

from normlab.interface.commands.report import command
from normlab.interface.reporting import render
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


def on_a_terminal(places, *words):
    """What a command writes on a terminal of so many columns."""
    terminal, its_side = pty.openpty()
    ioctl(its_side, termios.TIOCSWINSZ, struct.pack("HHHH", 24, places, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color"}
    environment.pop("COLUMNS", None)
    command = [sys.executable, "-m", "normlab.cli", *words]
    with subprocess.Popen(
        command, env=environment, stdin=its_side, stdout=its_side, stderr=its_side
    ) as process:
        os.close(its_side)
        written = b""
        try:
            while part := os.read(terminal, 65536):
                written += part
        except OSError:  # so Linux says that the other side is closed
            pass
    os.close(terminal)
    assert process.returncode == 0, written
    return written.decode().replace("\r\n", "\n")


@pytest.mark.parametrize("places", [80, 120])
def test_a_terminal_gets_lines_of_its_width_with_whole_words_and_numbers(tmp_path, places):
    names = ["batch_norm", "バッチ正規化", "a_name(with=many, arguments=1e-05, and=more, of=them)"]
    names += [f"arm{i}" for i in range(3, 30)]
    arms = {name: [0.3 + i / 50, 0.32 + i / 50, 0.31 + i / 60] for i, name in enumerate(names)}
    claim = Claim("a beats b", "final(test_accuracy)", "arm5", "batch_norm", "difference > 0")
    simulate(tmp_path / "e", arms, [claim])
    for more in (["--format", "text"], ["--wide"]):
        text = on_a_terminal(places, "report", str(tmp_path / "e"), *more)
        lines = text.splitlines()
        wide = [sum(1 + (unicodedata.east_asian_width(c) in "WF") for c in line) for line in lines]
        assert max(wide) <= places
        assert lines[0].startswith(("Not decided", "arm29 won"))
        assert "its 95% interval" in text and "the interval lies wholly" in " ".join(text.split())
        assert all(any(line.startswith(name[:19]) for line in lines) for name in names)
    piped = normlab("report", "e", "--wide", cwd=tmp_path).stdout
    assert all(len(line.split()) > 10 for line in piped.splitlines() if line.startswith("arm7 "))
    refused = normlab("report", "e", "--wide", "--format", "csv", cwd=tmp_path)
    assert refused.returncode == 2 and "--format text" in refused.stderr


def test_several_experiments_have_one_report(tmp_path, capsys):
    first = simulate(tmp_path / "first", {"a": [0.5, 0.52]}).path
    other = simulate(tmp_path / "other", {"c": [0.7, 0.71]}).path
    for form in ("md", "html", "json", "csv", "text"):
        assert "c" in render([first, other], None, "final(test_accuracy)", form)
    text = render([first, other], None, "final(test_accuracy)", "md")
    assert f"`normlab report {first} {other} --format md`" in text
    command([first, other])
    assert (first / "report-other.html").exists() and not (first / "report.html").exists()
    assert str(first / "report-other.html") in capsys.readouterr().out
