"""`normlab audit`."""

from typing import Annotated

import typer

from normlab.interface.commands import NEGATIVE, ExperimentFolder, Panel

PANEL = Panel.READ


def command(
    path: ExperimentFolder,
    wide: Annotated[
        bool, typer.Option("--wide", help="Tell every line of the journal as well.")
    ] = False,
) -> None:
    """Compare an experiment with its journal; exit status 1 if anything was changed since."""
    from normlab.evidence.audit import UNSEEN, audit, history
    from normlab.interface.terminal import say
    from normlab.store.loading import load_runs

    runs = load_runs(path)
    lines = history(runs.path)
    if not lines:
        say(f"{path}: it has no journal, because an older normlab made it, or it is published")
        return
    for line in lines if wide else ():
        say(line)
    found = audit(runs)
    for text in found:
        say(text)
    if not found:
        say(f"{path}: everything is as its journal says (lines: {len(lines)})")
    say(UNSEEN)
    if found:
        raise typer.Exit(NEGATIVE)
