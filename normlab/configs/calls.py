"""Named calls of a config held against the signatures of what they name."""

from typing import Any

from normlab.adapters.own_model import is_ours
from normlab.configs import build
from normlab.configs.document import Document, Path, Problem
from normlab.configs.paths import paths_beside_config
from normlab.configs.sections import OWN_MODEL
from normlab.configs.signatures import check_arguments, show
from normlab.errors import UserError


def check_list(
    document: Document, path: Path, shelf: Any, subject: str
) -> tuple[list[dict[str, Any]], list[Problem]]:
    """A list of calls, each a name or a mapping with a name."""
    given = document.part(path).value
    if not isinstance(given, list):
        message = f"'{path[-1]}' must be a list of {subject}s, found {show(given)}"
        return [], [Problem(document.mark(path), message)]
    calls, problems = [], []
    for index, item in enumerate(given):
        here = (*path, index)
        if isinstance(item, str):
            mark = document.mark(here)
            named = Document(document.source, {"name": item}, {(): mark, ("name",): mark})
            document.replace(here, named)
        elif not isinstance(item, dict):
            article = "an" if subject[0] in "aeiou" else "a"
            message = f"{article} {subject} is a name or a mapping with a name, found {show(item)}"
            problems.append(Problem(document.mark(here), message))
            continue
        call, found = check_named(document, here, shelf, subject)
        problems += found
        calls += [call] if call is not None else []
    return calls, problems


def check_named(
    document: Document, path: Path, shelf: Any, subject: str, skip: tuple[str, ...] = ()
) -> tuple[dict[str, Any] | None, list[Problem]]:
    """A mapping `{name: ..., arguments}` held against the signature of what it names."""
    value = document.part(path).value
    name = value.get("name")
    if not isinstance(name, str):
        names = ", ".join(shelf.entries())
        found = f", found {show(name)}" if "name" in value else ""
        message = f"'{subject}' needs a name: one of {names}{found}"
        return None, [Problem(document.mark((*path, "name")), message)]
    here = document.mark((*path, "name"))
    arguments = document.part(path)
    arguments.value = {k: v for k, v in value.items() if k not in ("name", *skip)}
    label = f"{subject} {name}"
    try:
        called = shelf.load(name)
        own = subject == "model" and not is_ours(called)
        kind = OWN_MODEL if own else subject
        fields, problems = check_arguments(called, kind, arguments, (), label)
        if fields is not None:
            fields |= paths_beside_config(called, fields, arguments)
    except UserError as error:
        return None, [Problem(here, str(error))]
    except (Exception, SystemExit) as error:
        if ":" not in name:
            raise  # what lies in normlab's own folders is not the user's mistake
        return None, [Problem(here, build.failure_outside(name, error))]
    return (None if fields is None else {"name": name, **fields}), problems
