"""Checks what JAX reads from its cache of compiled programs, and writes it whole or not at all.

XLA ends the whole process on a damaged program, and JAX writes an entry in place, so a process that
is killed while it writes leaves half of one. Here every entry of normlab's own folder ends in its
digest. One that does not fit is deleted, and its program is compiled anew.
"""

import contextlib
import hashlib
import os
from pathlib import Path
from typing import Any

SIZE = hashlib.sha256().digest_size


def check_entries(folder: Path) -> None:
    """Check the entries of a folder from now on; those of other folders are left as they are.

    A version of JAX that keeps its cache otherwise is left alone.
    """
    _checked.add(str(folder))
    if _patched:
        return
    try:
        from jax._src.lru_cache import LRUCache
    except ImportError:
        return
    _patched.append(LRUCache)
    get, put = LRUCache.get, LRUCache.put

    def checked_get(self: Any, key: str) -> bytes | None:
        found = get(self, key)
        if found is None or str(self.path) not in _checked:
            return found
        content, digest = found[:-SIZE], found[-SIZE:]
        if hashlib.sha256(content).digest() == digest:
            return content
        with contextlib.suppress(OSError):
            _file(self, key).unlink()
        return None

    def checked_put(self: Any, key: str, value: bytes) -> None:
        if str(self.path) not in _checked:
            put(self, key, value)
            return
        file = _file(self, key)
        draft = file.with_name(f".{file.name}.{os.getpid()}")
        try:
            draft.write_bytes(value + hashlib.sha256(value).digest())
            draft.replace(file)
        except OSError:  # a full disk: the program is compiled the next time too
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)

    LRUCache.get, LRUCache.put = checked_get, checked_put  # type: ignore[method-assign]


_checked: set[str] = set()
_patched: list[Any] = []


def _file(cache: Any, key: str) -> Path:
    return Path(str(cache.path)) / f"{key}-cache"


def is_private(folder: Path) -> bool:
    """Return whether a folder is this user's and nobody else can read or write it, or make it so.

    What lies in it is native code, which is run.
    """
    if os.name != "posix":
        return True
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        return False
    folder.chmod(0o700)
    return True
