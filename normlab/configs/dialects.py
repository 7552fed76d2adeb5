"""The key `dialect` of `norm` and `kernel`: a library's layer, translated where the config is read.

    norm: {name: batch_norm, dialect: torch, momentum: 0.1}

Keys keep normlab's names and have the library's meaning; what is not given has the library's
default. A resolved config holds what that amounts to, so it has the hash of the same written out.
"""

import re

from normlab.configs.document import Document, Mark, Path, Problem
from normlab.configs.signatures import show
from normlab.dialects.library import dialect
from normlab.errors import FieldError, UserError

KEY = "dialect"
SECTIONS = ("norm", "kernel")
SAID = re.compile(r"\(dialect (\w+)(?:: (\w+))?")
"""As an origin says it, and what was asked for."""


def translate_dialect(document: Document) -> list[Problem]:
    """Put in place of each call in a dialect the plain one that it is; or say what is wrong."""
    return [problem for section in SECTIONS for problem in _translate(document, section)]


def _translate(document: Document, section: str) -> list[Problem]:
    norm, here = document.value.get(section), (section,)
    if not isinstance(norm, dict) or KEY not in norm:
        return []
    call = document.part(here)
    spoken, name = norm[KEY], norm.get("name")
    mark, place = document.mark((*here, KEY)), document.mark((*here, "name"))
    given = {key: value for key, value in norm.items() if key not in ("name", KEY)}
    call.value = {key: value for key, value in norm.items() if key != KEY}
    document.replace(here, call)
    if spoken is None or not isinstance(name, str):  # which is told where the call is checked
        return []
    if not isinstance(spoken, str):
        message = f"{section}: 'dialect' must be the name of a library, found {show(spoken)}"
        return [Problem(mark, message)]
    try:
        library = dialect(spoken)
    except UserError as error:
        return [Problem(mark, f"{section}: {error}")]
    try:
        library.layer(name)
    except UserError as error:
        return [Problem(place, f"{section}: {error}")]
    problems: list[Problem] = []
    entry, fields = name, given
    while given is fields:
        try:
            entry, fields = library.translate(name, given)
        except FieldError as error:
            where = (*here, error.field) if error.field in given else (*here, "name")
            problems.append(Problem(document.key_mark(where), f"{section}: {error}"))
            if error.field not in given:
                break
            del given[error.field]  # so that the next mistake is heard
    call.value = {"name": entry, **fields}
    for field in fields:
        said = f"dialect {spoken}" + (f": {show(norm[field])}" if field in norm else "")
        if norm.get(field) != fields[field] or field not in norm:
            call.marks[(field,)] = _noted(call.marks.get((field,), mark), said)
    if entry != name:
        call.marks[("name",)] = _noted(place, f"dialect {spoken}: {name}")
    document.replace(here, call)
    return problems


def _noted(mark: Mark, said: str) -> Mark:
    """A mark that says what made the value that stands for it."""
    return Mark(f"{mark} ({said})")


def spoken_in(origins: dict[Path, str]) -> tuple[str, str | None] | None:
    """The dialect that a resolved `norm` was written in, and the name there if it has another now.

    >>> spoken_in({("norm", "eps"): "a.yaml:3:9 (dialect torch)"})
    ('torch', None)
    """
    for path, origin in origins.items():
        found = SAID.search(origin) if path[:1] == ("norm",) else None
        if found is not None:
            name = SAID.search(origins.get(("norm", "name"), ""))
            return found[1], name[2] if name is not None else None
    return None
