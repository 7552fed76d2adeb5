"""Puts an experiment into one file that others can check, and reads such a file.

A bundle is a zip of the experiment's files, byte for byte, without checkpoints: its list of runs,
claims and journal, and of every run the resolved config, the rows of metrics and probes, the
status with its digests, the provenance and the answers for the test set. So whoever has it can
judge, audit and compare as the one who made it. Nothing of it is ever run.

`ro-crate-metadata.json` describes it for archives (RO-Crate 1.1, https://w3id.org/ro/crate), if the
package `rocrate` is there.
"""

import atexit
import json
import re
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

from normlab.errors import UserError, visible
from normlab.store import layout
from normlab.store.run import Run
from normlab.store.runs import Runs
from normlab.store.writing import replacing

SUFFIX = ".zip"
METADATA = "ro-crate-metadata.json"

OF_EXPERIMENT = (layout.EXPERIMENT, layout.CLAIMS, layout.JOURNAL, layout.REMARKS)
OF_PUBLISHED = (
    layout.PUBLISHED, layout.PUBLISHED_PROVENANCE, layout.REMARKS, layout.SUPERSEDED,
)  # fmt: skip
OF_RUN = (
    layout.CONFIG, layout.METRICS, layout.STATUS, layout.PROBES, layout.OUTCOMES,
    layout.PROVENANCE, layout.ERROR,
)  # fmt: skip

MOST_BYTES = 2_000_000_000
"""A bundle may unpack to this many bytes; ten thousand runs of usual size are a tenth of it."""
MOST_FILES = 1_000_000

WORDS = {
    layout.EXPERIMENT: "the runs, claims, plan and tuning of the experiment",
    layout.CLAIMS: "every claim that was ever registered",
    layout.JOURNAL: "what was planned, made and deleted, each line with the digest of the last",
    layout.PUBLISHED: "the published results of every run",
}
"""Descriptions for archives of files that every bundle has once."""


def write_bundle(runs: Runs, file: Path) -> Path:
    """Write an experiment into one file.

    Args:
        runs: an experiment, from its folder or published.
        file: the file to write, which ends in `.zip`; an old one stays until the new one is whole.

    Raises:
        UserError: the name has another ending, or several experiments are given, or there is no
            room for the file.
    """
    if file.suffix != SUFFIX:
        raise UserError(f"{file}: the name of a bundle ends in {SUFFIX}")
    if runs.parts:
        raise UserError("a bundle holds one experiment; write one for each")
    members = dict(_members(runs))
    try:
        with replacing(file) as draft, zipfile.ZipFile(draft, "w", zipfile.ZIP_DEFLATED) as bundle:
            described = _described(runs, members)
            if described is not None:
                bundle.writestr(_entry(METADATA), described)
            for name, source in sorted(members.items()):
                bundle.writestr(_entry(name), source.read_bytes())
    except OSError as error:
        raise UserError(f"{file}: cannot be written ({error})") from None
    return file


def is_bundle(path: Path) -> bool:
    """Return whether a path is that of a bundle, by its name and being a file."""
    return path.suffix == SUFFIX and path.is_file()


def place_for(path: Path, name: str) -> Path:
    """Return where a page or picture goes: into an experiment's folder, or beside its bundle.

    >>> place_for(Path("runs/x"), "report.html").as_posix()
    'runs/x/report.html'
    """
    return path.with_name(f"{path.stem}-{name}") if is_bundle(path) else path / name


def unpacked(file: Path) -> Path:
    """Unpack a bundle into a folder of this process, which goes when the process ends.

    Only files that a bundle has are unpacked, under plain names.

    Raises:
        UserError: the file is no bundle, or it would unpack to too much.
    """
    found = file.stat()
    return _unpacked(file.resolve(), found.st_size, found.st_mtime_ns)


@cache
def _unpacked(file: Path, size: int, changed: int) -> Path:
    above = Path(tempfile.mkdtemp(prefix="normlab-bundle-"))
    atexit.register(shutil.rmtree, above, ignore_errors=True)
    folder = above / file.stem
    folder.mkdir()
    try:
        with zipfile.ZipFile(file) as bundle:
            chosen = [one for one in bundle.infolist() if _belongs(one)]
            _check_size(file, chosen)
            for one in chosen:
                target = folder / one.filename
                target.parent.mkdir(exist_ok=True)
                target.write_bytes(bundle.read(one))
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError,
            ValueError, OSError) as error:  # fmt: skip
        shutil.rmtree(above, ignore_errors=True)
        words = visible(str(error)) or type(error).__name__
        raise UserError(
            f"{file}: it cannot be read as a bundle ({words}); get it again from where it came"
        ) from None
    if not any((folder / name).exists() for name in (layout.EXPERIMENT, layout.PUBLISHED)):
        shutil.rmtree(above, ignore_errors=True)
        raise UserError(
            f"{file}: it is no bundle of normlab, because it holds neither {layout.EXPERIMENT} nor "
            f"{layout.PUBLISHED}; `normlab export FOLDER --bundle FILE` writes one"
        )
    return folder


def _check_size(file: Path, members: list[zipfile.ZipInfo]) -> None:
    """Refuse a bundle by the sizes that it claims, before any of it is unpacked."""
    total = sum(one.file_size for one in members)
    if total > MOST_BYTES or len(members) > MOST_FILES:
        raise UserError(
            f"{file}: it would unpack to {len(members):,} files of {total:,} bytes, and a bundle "
            f"has at most {MOST_FILES:,} of {MOST_BYTES:,}; do not trust it"
        )


_PLAIN = re.compile(r"[^/\\\x00-\x1f\x7f]{1,255}")


def _belongs(member: zipfile.ZipInfo) -> bool:
    """Return whether a bundle has a file of this name: one of its own, or one of a run's."""
    kind = member.external_attr >> 16
    if member.is_dir() or (stat.S_IFMT(kind) not in (0, stat.S_IFREG)):
        return False
    parts = member.filename.split("/")
    if any(not _PLAIN.fullmatch(part) or part.startswith(".") for part in parts):
        return False
    if len(parts) == 1:
        return parts[0] in {*OF_EXPERIMENT, *OF_PUBLISHED}
    return len(parts) == 2 and parts[1] in OF_RUN


def _members(runs: Runs) -> Iterator[tuple[str, Path]]:
    """List the files of an experiment that a bundle holds, by their names in it."""
    for name in dict.fromkeys((*OF_EXPERIMENT, *OF_PUBLISHED)):
        if (runs.path / name).is_file():
            yield name, runs.path / name
    for run in (*runs.runs, *runs.trials, *runs.former):
        if isinstance(run, Run):  # a published run has no folder of its own
            for name in OF_RUN:
                if (run.path / name).is_file():
                    yield f"{run.path.name}/{name}", run.path / name


def _entry(name: str) -> zipfile.ZipInfo:
    """Make the entry of a file, with a fixed time, so that the same runs give the same bytes."""
    entry = zipfile.ZipInfo(name)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    return entry


def _described(runs: Runs, members: dict[str, Path]) -> str | None:
    """Write the RO-Crate's metadata, or return None without the package for them."""
    try:
        from rocrate.rocrate import ROCrate
    except ModuleNotFoundError:
        return None
    crate: Any = ROCrate()
    about = runs.about
    crate.name = f"normlab: {about.get('name') or runs.path.name}"
    crate.description = about.get("question") or "an experiment of normlab"
    crate.datePublished = _last_begun(runs)
    if about.get("source"):
        crate.root_dataset["citation"] = str(about["source"])
    for name in sorted(members):
        form = "application/json" if PurePosixPath(name).suffix == ".json" else "text/plain"
        properties = {"encodingFormat": form, "contentSize": str(members[name].stat().st_size)}
        if name in WORDS:
            properties["description"] = WORDS[name]
        crate.add_file(dest_path=name, properties=properties)
    return json.dumps(crate.metadata.generate(), indent=1, sort_keys=True)


def _last_begun(runs: Runs) -> str:
    """Return when the last run began, which is the nearest to the time of the results."""
    started = [
        proof["started"]
        for record in runs.records()
        for proof in record.provenance
        if "started" in proof
    ]
    return max(started, default="1980-01-01T00:00:00+00:00")
