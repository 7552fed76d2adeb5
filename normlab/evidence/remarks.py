"""Reads a person's remarks on an experiment's results, because numbers alone can mislead.

`remarks.yaml` lies beside an experiment's runs, or beside its published numbers. It is written by
hand when something is known that the numbers do not show. Every report says it::

    beware: The test voices are 12 dB quieter than those of the training.
    copy: WAV files of one archive
    withdrawn:
      - says: instance normalisation understands more than batch normalisation
        why: It says which normaliser bears a quieter voice.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from normlab.errors import UserError
from normlab.store.layout import REMARKS

KEYS = ("beware", "copy", "withdrawn")


@dataclass(frozen=True)
class Remarks:
    """Remarks on results.

    Attributes:
        beware: a warning to read before the numbers; empty if there is none.
        copy: the copy of the data that was used; empty if not named.
        withdrawn: for a claim's words the reason why its verdict no longer stands.
    """

    beware: str = ""
    copy: str = ""
    withdrawn: dict[str, str] = field(default_factory=dict)


def read_remarks(folder: Path) -> Remarks:
    """Read a folder's remarks; they are empty if it holds no `remarks.yaml`.

    Raises:
        UserError: the file has another form.
    """
    file = folder / REMARKS
    if not file.is_file():
        return Remarks()
    try:
        found = yaml.safe_load(file.read_text("utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{file} is no YAML: {error}") from error
    listed = found.get("withdrawn", []) if isinstance(found, dict) else None
    known = _is_text(found, KEYS[:2]) and set(found) <= set(KEYS)
    if not known or not isinstance(listed, list):
        raise UserError(
            f"{file}: found {_shape(found)}; allowed are {', '.join(KEYS)}: "
            "`beware` and `copy` are text, `withdrawn` is a list"
        )
    for one in listed:
        if not _is_text(one, ("says", "why"), all_of_them=True):
            raise UserError(
                f"{file}: `withdrawn` has {one!r}; each of the list has `says`, the words of a "
                "claim, and `why`, the reason"
            )
    return Remarks(
        found.get("beware", "").strip(),
        found.get("copy", "").strip(),
        {one["says"]: one["why"].strip() for one in listed},
    )


def _is_text(found: Any, keys: tuple[str, ...], all_of_them: bool = False) -> bool:
    """Return whether a value is a mapping in which these keys hold text; they may be absent."""
    if not isinstance(found, dict) or (all_of_them and set(found) != set(keys)):
        return False
    return all(isinstance(found[key], str) for key in keys if key in found)


def _shape(found: Any) -> str:
    return ", ".join(map(str, found)) if isinstance(found, dict) else type(found).__name__
