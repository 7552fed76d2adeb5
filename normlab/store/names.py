"""Makes file names from people's names for arms, experiments and files.

A name keeps letters and digits of every script. It is the same for both Unicode forms of a letter,
is short enough for every file system, begins with a letter or digit, and is not reserved by
Windows. If a file system's encoding lacks a letter, the name has its ASCII form.
"""

import hashlib
import os
import re
import unicodedata

MOST_CHARACTERS, MOST_BYTES = 100, 150
"""A file system takes 255 bytes, or 143 if it is encrypted by eCryptfs. A run's name has more parts
than its arm, so an arm has fewer."""

RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE | re.DOTALL)
"""Windows takes these names for devices, whatever follows the first dot."""

_HASH = re.compile(r".*-s[0-9.]+-([0-9a-f]{10})", re.DOTALL)


def words_of(text: str, allowed: str = "_.=-") -> str:
    """Write a text with letters, digits and some other characters; the rest becomes hyphens.

    >>> words_of("batch norm, lr=0.1"), words_of("ghost/8")
    ('batch-norm-lr=0.1', 'ghost-8')
    """
    kept = "".join(c if _is_letter(c) or c in allowed else "-" for c in _composed(text))
    return "-".join(filter(None, kept.split("-")))


def slug(text: str, longest: int = 60) -> str:
    """Make the readable part of a run's name; it is safe, but need not be unique.

    >>> slug("batch_norm, lr=0.1"), slug("../con.x"), slug("???")
    ('batch_norm-lr=0.1', 'arm-con.x', 'arm')
    """
    found = _safe(words_of(text), longest) or "arm"
    return f"arm-{found}" if RESERVED.fullmatch(found) else found


def folder_name(text: str) -> str:
    """Make the name of an experiment's folder.

    Two experiments of different names have different folders. If the name cannot be a folder's, the
    folder's name ends in digits that stand for the whole name.

    >>> folder_name("cifar10 +epochs=5"), folder_name("../x"), folder_name("nul")
    ('cifar10 +epochs=5', 'x-d6b96a', 'experiment-nul-99e624')
    """
    whole = _composed(text)
    found = _safe(words_of(whole, "_.=+- ") if not _fits(whole) else whole, MOST_CHARACTERS)
    if found and found == whole and not RESERVED.fullmatch(whole):
        return found
    digits = hashlib.sha256(whole.encode("utf-8", "surrogatepass")).hexdigest()[:6]
    stem = _cut(found[: MOST_CHARACTERS - 7].rstrip(" .-"), MOST_BYTES - 7)
    if not stem or RESERVED.fullmatch(stem):
        stem = f"experiment-{stem}".rstrip("-")
    return f"{stem}-{digits}"


def hash_in(name: str) -> str | None:
    """Find the hash at the end of a run's name; None where there is none.

    >>> hash_in("batch_norm-s0-0123456789"), hash_in("notes")
    ('0123456789', None)
    """
    match = _HASH.fullmatch(name)
    return None if match is None else match.group(1)


def as_text(path: "str | os.PathLike[str]") -> str:
    r"""Give a path, or a word of the command line, as text that can be written as UTF-8.

    Python writes a lone surrogate for a byte that it cannot decode.

    >>> as_text("runs/caf\udce9")
    'runs/caf\ufffd'
    """
    return os.fsencode(path).decode("utf-8", "replace")


def without_marks(text: str) -> str:
    """Drop marks that belong to the letter before, such as vowels in the scripts of India."""
    return "".join(c for c in _composed(text) if not _is_mark(c))


def _fits(text: str) -> bool:
    return all(_is_letter(c) or c in "_.=+- " for c in text)


def _is_letter(character: str) -> bool:
    return character.isalnum() or _is_mark(character)


def _is_mark(character: str) -> bool:
    return unicodedata.category(character)[0] == "M"


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _safe(text: str, longest: int) -> str:
    """Cut a name to a length, and drop characters that must not begin or end a name."""
    try:
        os.fsencode(text)
    except UnicodeEncodeError:  # this happens under LC_ALL=C
        plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
        text = "-".join(filter(None, plain.split("-")))
    return _cut(text.lstrip(" .=+-")[:longest], MOST_BYTES).rstrip(" .")


def _cut(text: str, most_bytes: int) -> str:
    """Drop characters from the end until a file system takes the text."""
    while len(os.fsencode(text)) > most_bytes:
        text = text[:-1]
    return text
