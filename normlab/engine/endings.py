"""Tells how a run ended before, and writes down the end of one that could not do so itself."""

from dataclasses import replace

from normlab.engine.task import Task
from normlab.store.files import DamagedError
from normlab.store.finding import held
from normlab.store.layout import DAMAGED, ERROR, FINISHED
from normlab.store.run import Run, RunBusyError
from normlab.store.writing import write_atomically


def was(run: Run) -> tuple[str, str]:
    """Return how an attempt ends before it begins, or else the state.

    A damaged run is not made over.
    """
    try:
        state = run.whole().status["state"]
    except DamagedError as error:
        return DAMAGED, str(error)
    return ("skipped", f"was {state}") if state in FINISHED else (state, "")


def write_failure(task: Task, summary: str, details: str) -> tuple[str, str]:
    """Write down that a run failed; call it with the run locked."""
    config, run = task.config, task.run
    write_atomically(run.path / ERROR, details)
    run.write_status("failed", arm=config.arm, seed=config.seed, error=summary)
    return "failed", f"{summary}\nagain: {task.again}"


def bury(task: Task, cause: str) -> tuple[str, str]:
    """Write down what a process that was lost could not."""
    try:
        with held(task.run, task.config.sections) as run:
            if run.state in FINISHED:
                return run.state, ""
            summary = f"{cause}; what it had saved is kept"
            return write_failure(replace(task, run=run), summary, summary)
    except RunBusyError as error:
        return "busy", str(error)
