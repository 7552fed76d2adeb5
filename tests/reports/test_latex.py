"""The LaTeX table: what a paper has, with names as they are."""

import shutil
import subprocess

import pytest

from normlab.reports.latex import to_latex
from normlab.reports.shown_comparison import compare
from tests.shared.simulated import simulate

NAMES = ["batch_norm", "50% & $x$", r"a\b {c} ~ ^ #1 <i> | \"q\""]


@pytest.fixture
def table(tmp_path):
    arms = {f"arm{i}": [0.5 + i / 10, 0.52 + i / 10, 0.5 + i / 10] for i in range(3)}
    runs = simulate(tmp_path / "e", arms)
    for run in runs.runs:
        object.__setattr__(run, "arm", NAMES[int(run.arm[3:])])
    return to_latex(compare(runs), "normlab report e --format latex")


def test_rows_are_sorted_and_names_are_escaped(table):
    rows = [line.strip() for line in table.splitlines() if line.endswith(r"\\")]
    assert rows[0] == r"& $n$ & mean & 95\% interval & difference & 95\% interval \\"
    assert rows[1].startswith(r"a\textbackslash{}b \{c\} \textasciitilde{} \textasciicircum{} \#1 ")
    assert rows[2].startswith(r"50\% \& \$x\$ & 3 & $0.607$ & $[0.578, 0.635]$ & $+0.100$ & ")
    assert rows[3] == r"batch\_norm & 3 & $0.507$ & $[0.478, 0.535]$ & -- & -- \\"
    for word in (r"\toprule", r"\midrule", r"\bottomrule", r"\begin{tabular}{lrrrrr}"):
        assert word in table


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no LaTeX on this machine")
def test_latex_sets_it(table, tmp_path):
    head = r"\documentclass{article}\usepackage{booktabs}\begin{document}"
    (tmp_path / "t.tex").write_text(head + table + r"\end{document}")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True).returncode == 0
