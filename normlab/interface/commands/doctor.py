"""`normlab doctor`."""

from normlab.interface.commands import Panel

PANEL = Panel.LOOK_UP


def command() -> None:
    """Print what a report of a problem needs: versions, devices, settings and folders."""
    from normlab.engine.process import prepare

    prepare()  # as `normlab run` does, so that its settings are those of a run
    from normlab.interface.doctor import diagnosis

    for heading, found in diagnosis().items():
        print(f"{heading}: {found}")
