"""Feeds damaged files to every reader of normlab, for some seconds or so many inputs.

    python -m experiments.faults.fuzz --seconds 600 --seed 1 [TARGET ...]

A reader may take a file or refuse it with a `UserError`. A traceback, more than `LONGEST` seconds,
or more than `MOST_MEMORY` is a finding: the file is kept in `--keep`, and the command ends with 1.
"""

import argparse
import contextlib
import io
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from normlab.errors import UserError

LONGEST = 20
"""Seconds that one input may take."""

MOST_MEMORY = 12 << 30
"""Bytes of address space by which the process may grow; libraries take several GB that they do not
use."""


@dataclass
class Count:
    """Holds what came of one target's inputs, and what was found."""

    taken: int = 0
    refused: int = 0
    findings: dict[str, Path] = field(default_factory=dict)


def fuzz(name: str, seeds: Sequence[int], seconds: float, keep: Path) -> Count:
    """Feed damaged files to one target.

    Args:
        name: of `TARGETS`.
        seeds: one for each input.
        seconds: the time after which no more are made.
        keep: the folder for files that were found; a finding of each place in the code is kept.
    """
    from experiments.faults.targets import TARGETS

    target, count, ends = TARGETS[name], Count(), time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / name
        folder.mkdir()
        files = target.files(folder)
        whole = {file: file.read_bytes() for file in files}
        target.read(folder)  # what is not damaged is taken
        for seed in seeds:
            if time.monotonic() > ends:
                break
            file = files[seed % len(files)]
            content = target.ways[seed // len(files) % len(target.ways)](whole[file], seed)
            file.write_bytes(content)
            try:
                found = _attempt(lambda: target.read(folder), count)
            finally:
                file.write_bytes(whole[file])
            if found is not None and found not in count.findings:
                kept = keep / f"{name}-{seed}-{file.name}"
                keep.mkdir(parents=True, exist_ok=True)
                kept.write_bytes(content)
                count.findings[found] = kept
        shutil.rmtree(folder, ignore_errors=True)
    return count


def _attempt(read, count: Count) -> str | None:
    """Read once; return the place of a traceback, or None."""

    def too_long(number: int, frame: object) -> None:
        raise TimeoutError(f"more than {LONGEST} s")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(LONGEST)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            read()
        count.taken += 1
    except UserError:
        count.refused += 1
    except Exception as error:
        last = next((f for f in reversed(traceback.extract_tb(error.__traceback__))
                     if "normlab" in f.filename), None)  # fmt: skip
        place = f"{Path(last.filename).name}:{last.lineno}" if last else "?"
        return f"{type(error).__name__} at {place}: {str(error)[:100]}"
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    return None


def limit_memory() -> None:
    """Let a reader that takes too much memory raise `MemoryError`."""
    held = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (held + MOST_MEMORY, resource.RLIM_INFINITY))


def main(words: Sequence[str]) -> int:
    """Run from the command line; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60, help="for each target")
    parser.add_argument("--inputs", type=int, default=10**9, help="for each target")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("found"))
    parser.add_argument("targets", nargs="*")
    given = parser.parse_args(words)
    from experiments.faults.targets import TARGETS

    limit_memory()
    total, found = 0, 0
    print(f"{'target':14} {'inputs':>9} {'taken':>9} {'refused':>9} {'findings':>9}")
    for name in given.targets or TARGETS:
        first = given.seed * 10**9
        count = fuzz(name, range(first, first + given.inputs), given.seconds, given.keep)
        inputs = count.taken + count.refused + len(count.findings)
        total, found = total + inputs, found + len(count.findings)
        print(f"{name:14} {inputs:9,} {count.taken:9,} {count.refused:9,} "
              f"{len(count.findings):9,}", flush=True)  # fmt: skip
        for place, file in count.findings.items():
            print(f"    {place} ({file})", flush=True)
    print(f"{'all':14} {total:9,}  {found} findings")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
