"""`normlab verdict`."""

import typer

from normlab.interface.commands import NEGATIVE, ExperimentFolder, Panel

PANEL = Panel.READ


def command(path: ExperimentFolder) -> None:
    """Judge the claims of an experiment; exit status 1 if a registered claim is refuted."""
    from normlab.evidence.audit import audit
    from normlab.evidence.mixes import mixes
    from normlab.evidence.remarks import read_remarks
    from normlab.evidence.verdicts import judge
    from normlab.interface.terminal import say
    from normlab.reports.english import LEVEL_OF_CLAIMS, raised
    from normlab.reports.markdown import verdict_line
    from normlab.store.loading import load_runs

    runs = load_runs(path)
    records = runs.records()
    verdicts, beware = judge(runs, records), read_remarks(runs.path).beware
    if not verdicts:
        say(f"{path}: its config makes no claims")
    if beware:
        say(f"beware: {beware}")
    for verdict in verdicts:
        say(verdict_line(verdict))
    if raised(verdicts):
        say(f"note: {LEVEL_OF_CLAIMS}")
    for text in (*mixes(records), *audit(runs)):
        say(f"note: {text}")
    standing = [verdict for verdict in verdicts if verdict.registered and not verdict.retracted]
    if any(verdict.outcome == "refuted" for verdict in standing):
        raise typer.Exit(NEGATIVE)
