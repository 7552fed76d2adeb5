"""How long does a person wait between a command and its first number?

Times, each in fresh processes, what stands before the work: `import normlab`, `normlab check
configs/`, the quickstart with an empty cache and with the one that it has filled, to its first
finished run and to its end, and `normlab report` of its runs.

Command: python -m experiments.speed.start    (five minutes on 2 cores)

`python -m experiments.speed.start import report --runs runs/quickstart` times some of it.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from experiments.speed.harness import save, table

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs"
COMMAND = [sys.executable, "-m", "normlab.cli"]
PARTS = ("import", "check", "quickstart", "report")
TIMES = 5
"""How often the short ones are repeated."""


def command_line(*words: str, cache: Path | None = None) -> tuple[float, float]:
    """Run a `normlab` command; return the seconds to its first finished run, and to its end."""
    environment = {**os.environ, **({"XDG_CACHE_HOME": str(cache)} if cache else {})}
    started, first = time.perf_counter(), float("nan")
    with subprocess.Popen(
        [*COMMAND, *words], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if np.isnan(first) and line.startswith("["):  # [1/20] identity seed 0: done ...
                first = time.perf_counter() - started
    if process.returncode:
        raise RuntimeError(f"{' '.join(words)} ended with {process.returncode}")
    return first, time.perf_counter() - started


def import_seconds(statement: str) -> float:
    """Return the seconds that a fresh Python takes for a statement, its own start included."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], cwd=ROOT, check=True)
    return time.perf_counter() - started


def median(seconds: Callable[[], float]) -> float:
    """Return the median of several measurements."""
    return float(np.median([seconds() for _ in range(TIMES)]))


def measure(parts: list[str], runs: Path | None, folder: Path) -> list[dict[str, Any]]:
    """Measure some of `PARTS`; the report is of `runs`, or of what the quickstart has made."""
    rows: list[dict[str, Any]] = []

    def note(what: str, seconds: float) -> None:
        rows.append({"what": what, "s": seconds})
        print(f"{what}: {seconds:.2f} s", flush=True)

    if "import" in parts:
        note("python alone", median(lambda: import_seconds("pass")))
        note("import normlab", median(lambda: import_seconds("import normlab")))
    if "check" in parts:
        note("normlab check configs/", command_line("check", str(CONFIGS))[1])
    if "quickstart" in parts:
        for cache in ("empty", "filled"):
            out = folder / cache
            words = ("run", str(CONFIGS / "quickstart.yaml"), "--out", str(out))
            first, whole = command_line(*words, cache=folder / "cache")
            note(f"quickstart, {cache} cache, first finished run", first)
            note(f"quickstart, {cache} cache", whole)
        runs = runs or folder / "filled" / "quickstart"
    if "report" in parts and runs is not None:
        page = str(folder / "report.html")
        words = ("report", str(runs.resolve()), "--out", page)
        note("normlab report of the quickstart", median(lambda: command_line(*words)[1]))
    return rows


def main(arguments: list[str] | None = None) -> None:
    """Print a row for each wait."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("parts", nargs="*", help=f"some of {', '.join(PARTS)}; all by default")
    parser.add_argument("--runs", type=Path, help="finished runs to report")
    parser.add_argument("--dry", action="store_true", help="write nothing")
    options = parser.parse_args(arguments)
    unknown = set(options.parts) - set(PARTS)
    if unknown:
        parser.error(f"there is no {', '.join(sorted(unknown))}; the parts are {', '.join(PARTS)}")
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(options.parts or list(PARTS), options.runs, Path(folder))
    print(f"\n{table(rows)}")
    if not options.dry:
        save("start", {"repeats of the short ones": TIMES, "rows": rows})


if __name__ == "__main__":
    main()
