"""Runs a notebook in the percent format as Jupyter would: `python notebooks.py NOTEBOOK`.

It imports nothing of normlab or the tests, so that a child process runs it as a user would.
"""

import ast
import io
import re
import sys
import traceback
import types
from pathlib import Path
from typing import NamedTuple

MARKER = re.compile(r"# %%(?P<options>.*)")
REPRESENTATIONS = ("html", "markdown", "svg", "png", "jpeg", "latex", "json", "javascript")


class Cell(NamedTuple):
    """A cell, with its number from one, the line of its marker, its kind and its text."""

    number: int
    line: int
    kind: str
    text: str


class NotebookError(Exception):
    """A file is not a notebook, or a cell of it fails. The message has the cell and its text."""


def parse(source: str) -> list[Cell]:
    """Split a notebook into cells, and remove the `# ` before each line of markdown."""
    cells: list[Cell] = []
    lines = source.splitlines()
    starts = [at for at, line in enumerate(lines) if MARKER.fullmatch(line)]
    if not starts or any(line.strip() for line in lines[: starts[0]]):
        raise NotebookError("a notebook begins with a cell: '# %%' or '# %% [markdown]'")
    for number, (start, end) in enumerate(zip(starts, [*starts[1:], len(lines)], strict=True), 1):
        found = MARKER.fullmatch(lines[start])
        assert found
        kind = {"": "code", "[markdown]": "markdown"}.get(found["options"].strip())
        cell = Cell(number, start + 1, kind or "?", "\n".join(lines[start + 1 : end]).rstrip())
        if kind is None:
            raise NotebookError(told(cell, f"unknown kind of cell: {lines[start]}"))
        cells.append(cell._replace(text=uncommented(cell)) if kind == "markdown" else cell)
        if not cells[-1].text.strip():
            raise NotebookError(told(cell, "the cell is empty"))
    return cells


def uncommented(cell: Cell) -> str:
    """Return the text of a markdown cell."""
    lines = cell.text.splitlines()
    for line in lines:
        if line.rstrip() != "#" and not line.startswith("# "):
            raise NotebookError(
                told(cell, f"a line of markdown does not begin with '# ': {line!r}")
            )
    return "\n".join(line[2:] for line in lines)


def told(cell: Cell, problem: str) -> str:
    """Say what is wrong, and in which cell."""
    return f"cell {cell.number} ({cell.kind}, line {cell.line}): {problem}\n\n{cell.text}\n"


def run(path: Path) -> None:
    """Execute the code cells in one namespace, and show the last value of each.

    Raises:
        NotebookError: a cell raises, or its last value cannot be shown.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    plt.show = show
    notebook = types.ModuleType("__main__")  # as in Jupyter: it has no `__file__`
    sys.modules["__main__"] = notebook
    for cell in parse(path.read_text(encoding="utf-8")):
        if cell.kind == "code":
            try:
                execute(cell, path, notebook.__dict__)
            except Exception as error:
                raise NotebookError(told(cell, traceback.format_exc())) from error


def execute(cell: Cell, path: Path, namespace: dict) -> None:
    """Execute one code cell, then draw and close its open figures, as Jupyter does."""
    from matplotlib import pyplot as plt

    tree = ast.parse(cell.text, str(path))
    ast.increment_lineno(tree, cell.line)  # so that a traceback shows lines of the file
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, str(path), "exec"), namespace)
    if last is not None:
        value = eval(compile(ast.Expression(last.value), str(path), "eval"), namespace)
        if value is not None and not cell.text.rstrip().endswith(";"):
            if any(plt.figure(number) is value for number in plt.get_fignums()):
                raise ValueError("Jupyter shows this figure twice: end with plt.show() instead")
            display(value)
    show()


def show() -> None:
    """Draw and close all open figures, as `plt.show` does in a notebook."""
    from matplotlib import pyplot as plt

    for number in plt.get_fignums():
        display(plt.figure(number))
    plt.close("all")


def display(value: object) -> None:
    """Compute every representation that Jupyter would request."""
    from matplotlib.figure import Figure

    if isinstance(value, Figure):
        value.savefig(io.BytesIO(), format="png", bbox_inches="tight")
    if hasattr(value, "_repr_mimebundle_"):
        value._repr_mimebundle_()
    for name in REPRESENTATIONS:
        if hasattr(value, f"_repr_{name}_"):
            getattr(value, f"_repr_{name}_")()
    print(repr(value))


if __name__ == "__main__":
    try:
        run(Path(sys.argv[1]).resolve())
    except NotebookError as error:
        sys.exit(f"{sys.argv[1]}: {error}")
