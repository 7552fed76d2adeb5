"""`normlab verdict`."""

import typer

from normlab.interface.commands import NEGATIVE, ExperimentFolder, Panel

PANEL = Panel.READ


def command(path: ExperimentFolder) -> None:
    """Judge the claims of an experiment; exit status 1 if a registered claim is refuted."""
    from normlab.evidence.mixes import mixes
    from normlab.evidence.remarks import read_remarks
    from normlab.evidence.verdicts import judge
    from normlab.reports.markdown import verdict_line
    from normlab.store.loading import load_runs

    runs = load_runs(path)
    records = runs.records()
    verdicts, beware = judge(runs, records), read_remarks(path).beware
    if not verdicts:
        print(f"{path}: its config makes no claims")
    if beware:
        print(f"beware: {beware}")
    for verdict in verdicts:
        print(verdict_line(verdict))
    for text in mixes(records):
        print(f"note: {text}")
    standing = [verdict for verdict in verdicts if verdict.registered and not verdict.retracted]
    if any(verdict.outcome == "refuted" for verdict in standing):
        raise typer.Exit(NEGATIVE)
