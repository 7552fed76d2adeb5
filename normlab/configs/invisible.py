"""Finds characters in a config that nobody sees, such as those pasted from a web page."""

import unicodedata
from dataclasses import replace

from normlab.configs.document import Mark, Node, Path, Problem

NAMES = {
    "\ufeff": "a byte order mark",
    "\u00a0": "a no-break space",
    "\u202f": "a narrow no-break space",
    "\u00ad": "a soft hyphen",
    "\u200b": "a zero-width space",
    "\u200c": "a zero-width non-joiner",
    "\u200d": "a zero-width joiner",
    "\u2060": "a word joiner",
    "\u200e": "a left-to-right mark",
    "\u200f": "a right-to-left mark",
}
SPACES = "\u00a0\u202f"
FREE_TEXT = ("question", "source", "says")
"""Keys of sentences, which may have typographic spaces."""

SCRIPT = "\u200c\u200d\u200e\u200f"
"""Characters that some scripts need between letters, and emoji between their parts."""


def without_invisible(node: Node, path: Path = ()) -> tuple[Node, list[Problem]]:
    """Return a config without its invisible characters, and a problem at each of their places.

    >>> found, problems = without_invisible(Node("batch\\u200b_norm", Mark("a.yaml", 3, 7)))
    >>> found.value, problems[0].message
    ('batch_norm', "'batch\\\\u200b_norm' has U+200B in it, a zero-width space: delete it")
    """
    content, problems = node.content, []
    if isinstance(content, dict):
        mapping = {}
        for key, below in content.items():
            clean, found = _cleaned(key, below.key_mark, ()) if isinstance(key, str) else (key, [])
            inner, also_found = without_invisible(below, (*path, clean))
            if clean in mapping:
                found = found or [Problem(below.key_mark, f"'{clean}' is given twice; keep one")]
            mapping[clean], problems = inner, problems + found + also_found
        content = mapping
    elif isinstance(content, list):
        pairs = [without_invisible(below, (*path, at)) for at, below in enumerate(content)]
        content = [inner for inner, _ in pairs]
        problems = [one for _, found in pairs for one in found]
    elif isinstance(content, str):
        content, problems = _cleaned(content, node.mark, path)
    return (replace(node, content=content), problems) if problems else (node, [])


def _cleaned(text: str, mark: Mark, path: Path) -> tuple[str, list[Problem]]:
    hidden = [at for at in range(len(text)) if _is_hidden(text, at, path)]
    if not hidden:
        return text, []
    shown = text if len(text) <= 40 else f"{text[:37]}..."
    shown = "".join(f"\\u{ord(c):04x}" if _is_format(c) else c for c in shown)
    kinds = dict.fromkeys(text[at] for at in hidden)
    found = ", ".join(f"U+{ord(c):04X} in it, {_name(c)}" for c in kinds)
    mend = "put a plain space in its place" if set(kinds) <= set(SPACES) else "delete it"
    clean = "".join(" " if c in SPACES else "" if at in hidden else c for at, c in enumerate(text))
    return clean.strip(), [Problem(mark, f"'{shown}' has {found}: {mend}")]


def _is_format(character: str) -> bool:
    return character in NAMES or unicodedata.category(character) in ("Cf", "Cc")


def _is_hidden(text: str, at: int, path: Path) -> bool:
    character = text[at]
    if not _is_format(character) or (character in "\t\n\r" and path):
        return False
    if path and path[-1] in FREE_TEXT and character in SPACES:
        return False
    beside = text[at - 1 : at] + text[at + 1 : at + 2]
    return not (character in SCRIPT and len(beside) == 2 and not beside.isascii())


def _name(character: str) -> str:
    if character in NAMES:
        return NAMES[character]
    if unicodedata.category(character) == "Cc":
        return "a control character"
    name = unicodedata.name(character, "an unnamed character").lower()
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name.removeprefix('a ')}"
