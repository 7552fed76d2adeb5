"""Translates the layers of other libraries, which `norm` and `kernel` name with the key `dialect`.

    norm: {name: batch_norm, dialect: torch, momentum: 0.1}

Keys keep normlab's names and have the library's meaning. Keys that are left out have the library's
defaults. A resolved config holds the translated layer, so it has the same hash as a config in which
that layer is written out.
"""

from collections.abc import Mapping
from dataclasses import replace

from normlab.configs.document import Mark, Node, Path, Problem, show
from normlab.configs.sections import COMMON
from normlab.dialects.library import dialect
from normlab.errors import FieldError, UserError

KEY = "dialect"
SECTIONS = ("norm", "kernel")


def translate_dialects(config: Node) -> tuple[Node, list[Problem]]:
    """Translate each call in a dialect to normlab's own, and list what is wrong with them."""
    problems: list[Problem] = []
    for section in SECTIONS:
        call = config.get(section)
        if call is not None and call.get(KEY) is not None:
            translated, found = _translate(call, section)
            config, problems = config.put((section,), translated), problems + found
    return config, problems


def _translate(call: Node, section: str) -> tuple[Node, list[Problem]]:
    mark, spoken, name = call.mark_at((KEY,)), call.value[KEY], call.value.get("name")
    plain, common = call.without(KEY), COMMON.get(section, {})
    if spoken is None or not isinstance(name, str):  # the call's own check complains
        return plain, []
    if not isinstance(spoken, str):
        message = f"{section}: 'dialect' must be the name of a library, found {show(spoken)}"
        return plain, [Problem(mark, message)]
    try:
        library = dialect(spoken)
    except UserError as error:
        return plain, [Problem(mark, f"{section}: {error}")]
    try:
        library.layer(name)
    except UserError as error:
        return plain, [Problem(call.mark_at(("name",)), f"{section}: {error}")]
    problems: list[Problem] = []
    given = dict(plain.without("name", *common).value)
    entry, fields = name, given
    while given is fields:
        try:
            entry, fields = library.translate(name, given)
        except FieldError as error:
            where = error.field if error.field in given else "name"
            problems.append(Problem(call.key_mark_at((where,)), f"{section}: {error}"))
            if error.field not in given:
                break
            given.pop(error.field)  # so that the next mistake is found too
    translated = {"name": entry, **fields}
    content = {key: node for key, node in plain.content.items() if key in common}
    for key, value in translated.items():
        own = plain.get(key)
        if own is not None and own.value == value:
            content[key] = own
            continue
        place = call.mark_at((key,)) if own is not None else mark
        written = None if own is None else name if key == "name" else show(own.value)
        said = replace(place, dialect=spoken, written=written)
        content[key] = replace(Node.of(value, said), own_key_mark=own and own.own_key_mark)
    return replace(plain, content=content), problems


def spoken_in(origins: Mapping[Path, Mark]) -> tuple[str, str | None] | None:
    """Return the dialect that a `norm` was written in, and its name there if that has changed.

    >>> spoken_in({("norm", "eps"): Mark("a.yaml", 3, 9, dialect="torch")})
    ('torch', None)
    """
    for path, mark in origins.items():
        if path[:1] == ("norm",) and mark.dialect is not None:
            name = origins.get(("norm", "name"))
            return mark.dialect, name.written if name and name.dialect else None
    return None
