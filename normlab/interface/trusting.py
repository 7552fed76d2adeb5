"""Asks a person whether the code in a folder may run, where a config or a command names some."""

import re
import sys
from collections.abc import Iterable
from pathlib import Path

import typer

from normlab.configs.admission import NotTrustedError, admit_typed
from normlab.configs.document import ConfigError
from normlab.configs.experiment import Experiment, load_experiment
from normlab.store.trusted import trust as remember

NAMES_CODE = re.compile(r":\s*[\[{]?.*?\b\w+(\.\w+)*:[A-Za-z_]\w*")
"""A line of a config that names code."""


def load_trusted(file: Path, overrides: tuple[str, ...], trust: bool) -> Experiment:
    """Load a config. If it names code in folders that are not trusted, ask on the terminal.

    Args:
        file: the config.
        overrides: words `key=value`.
        trust: whether the folders are trusted without a question.

    Raises:
        ConfigError: it has mistakes, or its code was not run.
    """
    try:
        return load_experiment(file, overrides)
    except ConfigError as error:
        if not error.untrusted or not _is_granted(error.untrusted, trust, str(file)):
            raise
    return load_experiment(file, overrides)


def admit_name(name: str, trust: bool) -> None:
    """Allow the code of a name such as `my_file:MyNorm` on the command line.

    Raises:
        UserError: the folder is not trusted.
    """
    try:
        return admit_typed(name)
    except NotTrustedError as error:
        if not _is_granted(error.untrusted, trust, name):
            raise
    admit_typed(name)


def is_all_ones_own(folder: Path) -> bool:
    """Return whether a folder holds neither Python files nor a config that names some.

    A person who begins code of their own there need not be asked about it.
    """
    if any(folder.glob("*.py")) or any(folder.glob("*/*.py")):
        return False
    configs = [file for file in folder.glob("*.y*ml") if file.is_file()]
    return not any(NAMES_CODE.search(file.read_text("utf-8", "replace")) for file in configs)


def _is_granted(folders: Iterable[Path], trust: bool, what: str) -> bool:
    """Trust some folders, if the person says so now or has said so by `--trust`."""
    folders = list(folders)
    if not trust:
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            return False
        shown = "\n".join(f"  {folder}" for folder in folders)
        text = f"{what} names code, which would run with all your rights. It lies in\n{shown}\n"
        if not typer.confirm(text + "Do you trust this code?", default=False, err=True):
            return False
    for folder in folders:
        remember(folder)
    return True
