"""Writes a comparison as a LaTeX table with booktabs, with the columns that a paper has."""

import math

from normlab.evidence.comparison import Arm, Comparison
from normlab.evidence.intervals import Interval
from normlab.reports.english import count_of, number, signed
from normlab.reports.ranking import headlines, ranked
from normlab.reports.text_columns import visible

SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#",
    "_": r"\_", "%": r"\%", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
}  # fmt: skip


def latex(text: str) -> str:
    """Escape text so that LaTeX sets it as it is.

    >>> print(latex("group_norm(groups=8) 50% $x$"))
    group\\_norm(groups=8) 50\\% \\$x\\$
    """
    return "".join(SPECIAL.get(character, character) for character in visible(text))


def to_latex(comparison: Comparison, command: str) -> str:
    """Write a table that needs `\\usepackage{booktabs}`; the best arm comes first."""
    arms = ranked(comparison)
    others = len(arms) > 1
    higher = comparison.measure.higher_is_better
    better = "" if higher is None else f" ({'higher' if higher else 'lower'} is better)"
    caption = (
        f"{latex(comparison.measure.words)}{better}: mean over $n$ seeds with its 95\\% interval"
        + (f", and difference to {latex(comparison.against)}." if others else ".")
    )
    heads = ["", "$n$", "mean", r"95\% interval"]
    heads += ["difference", r"95\% interval"] if others else []
    lines = [
        f"% {line}" for line in (visible(command), *map(visible, headlines(comparison)))
    ]  # fmt: skip
    lines += [
        "% needs \\usepackage{booktabs}; names in other scripts need xelatex or lualatex, "
        "and a font that has them",
        r"\begin{table}",
        r"  \centering",
        f"  \\caption{{{caption[:1].upper()}{caption[1:]}}}",
        f"  \\begin{{tabular}}{{l{'r' * (len(heads) - 1)}}}",
        r"    \toprule",
        f"    {' & '.join(heads)} \\\\",
        r"    \midrule",
        *(f"    {' & '.join(_cells(arm, others))} \\\\" for arm in arms),
        r"    \bottomrule",
        r"  \end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _cells(arm: Arm, others: bool) -> list[str]:
    own, found = arm.sample, arm.difference
    cells = [
        latex(arm.name),
        count_of(own),
        _number(number(arm.mean.estimate)),
        _interval(arm.mean.interval),
    ]
    if others:
        cells += ["--", "--"] if found is None else [
            _number(signed(found.estimate)), _interval(found.interval)]  # fmt: skip
    return cells


def _number(text: str) -> str:
    if text == "-":
        return "--"
    mantissa, exponent, power = text.replace("∞", r"\infty").partition("e")
    return f"${mantissa} \\times 10^{{{int(power)}}}$" if exponent else f"${mantissa}$"


def _interval(found: Interval) -> str:
    if math.isinf(found.low) and math.isinf(found.high):
        return "--"
    low, high = (_number(number(end)).strip("$") for end in found)
    return f"$[{low}, {high}]$"
