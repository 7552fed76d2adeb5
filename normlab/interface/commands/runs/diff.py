"""`normlab runs diff`."""

from normlab.interface.commands import AnyFolder


def command(first: AnyFolder, second: AnyFolder) -> None:
    """Show how two runs differ in config, provenance and metrics, or how two experiments do."""
    from normlab.interface.runs_diff import diff

    print(diff(first, second))
