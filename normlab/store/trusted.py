"""Remembers the folders whose code a person lets normlab run, as editors do.

A config may name code (`norm: my_file:MyNorm`), and importing it runs it. So a person says once
that a folder is trusted, with all that lies in it. The list is a file of this user's alone; one
that somebody else owns or can write to is not believed.
"""

import json
import os
from pathlib import Path

import platformdirs

from normlab.catalogue import TRUST
from normlab.store.files import DamagedError, read_json
from normlab.store.shapes import TEXT
from normlab.store.writing import write_atomically

_LIST = {"folders": [TEXT]}
_for_this_process: set[Path] = set()


def file_of_list() -> Path:
    """Return the file that lists the trusted folders."""
    return platformdirs.user_config_path("normlab") / "trusted.json"


def is_trusted(folder: Path) -> bool:
    """Return whether a folder is trusted: it is on the list, or lies in one that is."""
    if os.environ.get(TRUST) == "1":
        return True
    whole = folder.resolve()
    return not {whole, *whole.parents}.isdisjoint(_for_this_process | _listed())


def trust(folder: Path) -> None:
    """Trust a folder from now on; where the list cannot be written, in this process alone."""
    whole = folder.resolve()
    _for_this_process.add(whole)
    file = file_of_list()
    names = sorted(map(str, {whole, *_listed()}))
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, json.dumps({"folders": names}, indent=1))
        file.chmod(0o600)
    except (OSError, UnicodeEncodeError):  # a home that cannot be written to
        return


def _listed() -> set[Path]:
    file = file_of_list()
    try:
        if not _is_ours(file):
            return set()
        found = read_json(file, _LIST, "delete it")
    except (OSError, DamagedError):
        return set()
    return {Path(name) for name in (found or {}).get("folders", ())}


def _is_ours(file: Path) -> bool:
    """Return whether the file is this user's, and nobody else can write to it."""
    if os.name != "posix":
        return file.is_file()
    about = file.stat()
    return about.st_uid == os.getuid() and not about.st_mode & 0o022
