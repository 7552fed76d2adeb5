"""Tells how to cite normlab; a test compares it with `CITATION.cff`, which the forge reads."""

TITLE = "normlab: a laboratory for normalisation"
AUTHORS = "The normlab authors"
LICENCE = "Apache-2.0"
ABOUT = (
    "This names the software. Name the version and the commit of your runs too, which every report "
    "shows, and the papers of the normalisers that you use: `normlab describe NAME` has them."
)


def as_text(version: str) -> str:
    """Write the citation in one sentence.

    >>> as_text("0.1.0")
    'The normlab authors. normlab: a laboratory for normalisation, version 0.1.0. Software.'
    """
    return f"{AUTHORS}. {TITLE}, version {version}. Software."


def as_bibtex(version: str) -> str:
    """Write the citation for BibTeX; older styles read a software as @misc."""
    fields = {
        "author": f"{{{{{AUTHORS}}}}}",
        "title": f"{{{{{TITLE}}}}}",
        "version": f"{{{version}}}",
        "note": f"{{Software, version {version}, {LICENCE} licence}}",
    }
    lines = [f"  {name} = {value}," for name, value in fields.items()]
    return "\n".join(["@misc{normlab,", *lines, "}"])
