"""`normlab cite`."""

from normlab.interface.commands import Panel

PANEL = Panel.SHARE


def command() -> None:
    """Print how to cite normlab: as BibTeX and as text."""
    from importlib.metadata import version

    from normlab.interface.citing import ABOUT, as_bibtex, as_text

    known = version("normlab")
    print(f"{as_bibtex(known)}\n\n{as_text(known)}\n\n{ABOUT}")
