"""`normlab runs show`."""

from normlab.interface.commands import AnyFolder


def command(path: AnyFolder) -> None:
    """Show a run with its config, last metrics and provenance; an experiment with a line a run."""
    from normlab.interface.runs_show import show

    print(show(path))
