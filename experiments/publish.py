"""Writes the results of finished runs, and the pages that are made from all results.

python -m experiments.publish runs/light runs/medical   # or nothing: pages and pictures anew
"""

import argparse
import ast
import sys
from collections import Counter
from pathlib import Path

from experiments import which
from experiments.questions import (
    HERE,
    RESULTS,
    ROOT,
    Question,
    notes,
    questions,
    standing_of,
)
from normlab.errors import UserError
from normlab.reports.markdown import markdown_table
from normlab.reports.publishing import publish, render, spent
from normlab.store.loading import load_runs

README = HERE / "README.md"
WORKERS = ("step_nets", "step_passes")
"""Programs that other programs start."""

KINDS = "supported", "refuted", "undecided", "withdrawn"

OPENING = """\
# Experiments

Each question is a config in `configs/`, with its claims registered before the first step; its
results are in `results/QUESTION/`: a page, its figure, the numbers (`normlab report` and `normlab
verdict` read them as they read runs) and what they were made with. A verdict comes from an
interval (95%, corrected for the number of claims): supported, refuted or undecided. Intervals are
over seeds: they hold for other seeds of the same runs, not for other learning rates, images or
voices. A verdict that a later look did not confirm is withdrawn; its page says why, and what else
to know before reading its numbers. All runs are small: hundreds of steps on thousands of
examples.

To run one again, type its command. `normlab agree runs/QUESTION experiments/results/QUESTION` lists
what differs from what is committed here; `python -m experiments.publish runs/QUESTION` replaces
it. [Which one should I use?](../docs/which.md) is made from all results. This page is generated.
"""


def answer(question: Question) -> str:
    """Answer a question: by the sentence written by hand if there is one, and by the verdicts."""
    counts = Counter(question.outcomes)
    kinds = [kind for kind in KINDS if counts[kind]]
    if "answer" in question.notes:
        each = ", ".join(f"{counts[kind]} {kind}" for kind in kinds)
        return f"{question.notes['answer'].strip()} (Claims: {each or 'none'}.)"
    says = {
        kind: "; ".join(v.claim.says for v in question.verdicts if standing_of(v) == kind)
        for kind in kinds
    }
    return " ".join(f"**{kind.capitalize()}**: {says[kind]}." for kind in kinds) or "-"


def row(question: Question) -> list[str]:
    """Write a question's line of the table."""
    page = (
        f"[{question.runs.about['question'] or question.name}](results/{question.name}/results.md)"
    )
    took = f"{spent(question.runs)} on {question.devices}"
    return [page, answer(question), question.n, took, f"`{question.runs.command}`"]


def programs() -> list[list[str]]:
    """List the programs that answer no config's question, with their first paragraphs."""
    rows = []
    for file in sorted([*HERE.glob("*.py"), *HERE.glob("speed/*.py")]):
        text = file.read_text("utf-8")
        if "__main__" in text and file.stem not in WORKERS:
            says = (ast.get_docstring(ast.parse(text)) or "").partition("\n\n")[0]
            module = ".".join(file.relative_to(ROOT).with_suffix("").parts)
            rows.append([f"`python -m {module}`", says.replace("\n", " ")])
    return rows


def readme(found: list[Question]) -> str:
    """Write the text of `experiments/README.md`."""
    rows = {one.name: row(one) for one in found}
    for name in notes():
        if (ROOT / "configs" / f"{name}.yaml").is_file():
            waiting = [name, "not answered yet", "-", "-", f"`normlab run configs/{name}.yaml`"]
            rows.setdefault(name, waiting)
    order = [name for name in notes() if name in rows]
    order += [name for name in rows if name not in order]
    table = markdown_table(
        ["question", "answer so far", "n", "took", "command"], [rows[n] for n in order]
    )
    tools = markdown_table(["program", "what it does"], programs())
    return "\n".join([OPENING, *table, "", "## Programs", "", *tools, ""])


def main(arguments: list[str]) -> int:
    """Run the program."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("runs", nargs="*", type=Path, help="folders of runs, as runs/light")
    given = parser.parse_args(arguments)
    for folder in given.runs:
        shown = notes().get(folder.resolve().name, {}).get("show", {})
        print(publish(load_runs(folder), RESULTS / folder.resolve().name, **shown))
    found = questions()
    for question in found:
        render(question.runs.path)
    README.write_text(readme(found), "utf-8")
    which.PAGE.write_text(which.page(found), "utf-8")
    print(*(file.relative_to(ROOT) for file in (README, which.PAGE)), sep="\n")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except UserError as error:
        sys.exit(str(error))
