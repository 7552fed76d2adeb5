"""Every notebook runs from its first cell to its last, as for a user."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.shared.thorough import mostly_thorough

from .notebooks import NotebookError, parse

HERE = Path(__file__).parent
NOTEBOOKS = sorted((HERE.parents[1] / "docs" / "notebooks").glob("*.py"))

NEEDS = {"your_own_statistics": ("statsmodels", "rliable", "baycomp", "autorank")}
"""Packages that a notebook shows and normlab does not need; without them it is left out."""

QUICK = [path for path in NOTEBOOKS if path.stem == "a_normaliser_in_ten_minutes"]


def run(notebook: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the notebook in a fresh process with a user's settings, but let warnings raise."""
    environment = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
    return subprocess.run(
        # -P: the folder of the script, tests/docs, is not where a user's imports are found
        [sys.executable, "-P", "-W", "error", str(HERE / "notebooks.py"), str(notebook)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )


def written(folder: Path, *cells: str) -> Path:
    path = folder / "written.py"
    path.write_text("\n\n".join(cells))
    return path


def test_there_are_notebooks():
    assert len(NOTEBOOKS) >= 2


@pytest.mark.parametrize("notebook", mostly_thorough(NOTEBOOKS, QUICK), ids=lambda path: path.stem)
def test_a_notebook_runs(notebook, tmp_path):
    for package in NEEDS.get(notebook.stem, ()):
        pytest.importorskip(package)
    done = run(notebook, tmp_path)
    assert done.returncode == 0, f"{done.stderr}\n{done.stdout[-2000:]}"


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_opens_with_a_title_and_has_code(notebook):
    cells = parse(notebook.read_text(encoding="utf-8"))
    assert cells[0].kind == "markdown"
    assert cells[0].text.startswith("# ")
    assert any(cell.kind == "code" for cell in cells)


def test_cells_share_a_namespace_and_show_their_last_expression(tmp_path):
    cells = ("# %% [markdown]\n# # Title\n#\n# text", "# %%\nx = 20", "# %%\nx += 1\n2 * x")
    done = run(written(tmp_path, *cells), tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "42"


def test_a_cell_that_ends_with_a_semicolon_shows_nothing(tmp_path):
    done = run(written(tmp_path, "# %%\n6 * 7;"), tmp_path)
    assert (done.returncode, done.stdout) == (0, "")


def test_figures_do_not_live_longer_than_their_cell(tmp_path):
    draws = "# %%\nfrom matplotlib import pyplot as plt\n_ = plt.figure()\nlen(plt.get_fignums())"
    counts = "# %%\nlen(plt.get_fignums())"
    done = run(written(tmp_path, draws, counts), tmp_path)
    lines = done.stdout.split()
    assert (done.returncode, lines[0], lines[-1]) == (0, "1", "0"), done.stderr


def test_show_closes_what_it_shows(tmp_path):
    cell = "# %%\nfrom matplotlib import pyplot as plt\n_ = plt.figure()\nplt.show()"
    done = run(written(tmp_path, cell + "\nlen(plt.get_fignums())"), tmp_path)
    assert (done.returncode, done.stdout.split()[-1]) == (0, "0"), done.stderr


SHOWN_BADLY = """\
# %%
class Report:
    def _repr_html_(self):
        raise RuntimeError("no page")
Report()"""
DRAWN_BADLY = """\
# %%
from matplotlib import pyplot as plt
_, axes = plt.subplots()
axes.set_title("$\\\\nosuchsymbol$");"""

DRAWN_TWICE = """\
# %%
from matplotlib import pyplot as plt
figure = plt.figure()
figure"""


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("# %%\nx = 1\nx / 0", "ZeroDivisionError"),
        ("# %%\nx = = 1", "SyntaxError"),
        ("# %%\nimport warnings\nwarnings.warn('mind')", "UserWarning: mind"),
        (SHOWN_BADLY, "no page"),
        (DRAWN_BADLY, "nosuchsymbol"),
        (DRAWN_TWICE, "shows this figure twice"),
    ],
    ids=["raises", "syntax", "warns", "html", "figure", "twice"],
)
def test_a_broken_cell_fails_with_its_number_and_text(broken, message, tmp_path):
    fine = ("# %% [markdown]\n# # Title", "# %%\nx = 0")
    done = run(written(tmp_path, *fine, broken, "# %%\nprint('reached')"), tmp_path)
    assert done.returncode == 1
    assert "cell 3 (code, line 7)" in done.stderr
    assert broken.splitlines()[-1] in done.stderr
    assert message in done.stderr
    assert "reached" not in done.stdout


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x = 1\n", "begins with a cell"),
        ("import os\n# %%\nx = 1", "begins with a cell"),
        ("# %%\nx = 1\n\n# %% [markdown]\n\n# %%\nx", r"cell 2 \(markdown, line 4\).*empty"),
        ("# %% [markdown]\n#\n# %%\nx", r"cell 1 .*empty"),
        ("# %% [markdown]\n# # Title\nx = 1", r"cell 1 .*'x = 1'"),
        ("# %%\nx = 1\n# %% [markdwon]\n# text", r"cell 2 .*unknown kind"),
        ("# %%\n\n# %%\nx", r"cell 1 .*empty"),
    ],
)
def test_what_is_not_a_notebook_is_told(source, message):
    with pytest.raises(NotebookError, match=message):
        parse(source)
