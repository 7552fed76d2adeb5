"""`normlab runs list`."""

from pathlib import Path

from normlab.interface.commands import Out


def command(out: Out = Path("runs")) -> None:
    """List every experiment with its runs by state, its orphans, its size and its last change."""
    from normlab.interface.runs_show import list_experiments

    print(list_experiments(out))
