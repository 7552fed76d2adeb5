"""The readers of normlab, each with small whole files, made by code, and one way to read a file."""

import io
import json
import pickle
import tarfile
import wave
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from experiments.faults.damage import damaged, with_checksums, within_gzip
from normlab.adapters.weight_files import load_state_dict
from normlab.configs.experiment import load_experiment
from normlab.data import Cifar10, Medmnist, SpokenDigits
from normlab.data.cifar_sets import CIFAR10
from normlab.data.csv import Csv
from normlab.data.folder import Folder
from normlab.data.npz import Npz
from normlab.data.parquet import Parquet
from normlab.data.spoken_digits import SPEAKERS
from normlab.evidence.verdicts import judge
from normlab.interface.reporting import render
from normlab.interface.runs_show import show
from normlab.measures.claims import Claim
from normlab.measures.measures import Measure
from normlab.store.loading import load_runs
from normlab.store.run import Run
from normlab.store.runs import write_experiment

Damage = Callable[[bytes, int], bytes]


@dataclass(frozen=True)
class Target:
    """One reader.

    Attributes:
        files: makes whole files in an empty folder, and returns those that are to be damaged.
        read: reads what lies in the folder; a person's mistake is all that it may raise.
        ways: how a file is damaged.
    """

    files: Callable[[Path], list[Path]]
    read: Callable[[Path], Any]
    ways: tuple[Damage, ...] = (damaged,)


CONFIG = """
question: does it help?
data: {name: shapes, train_examples: 60, test_examples: 20, size: 8, augment: [flip]}
model: {name: mlp, widths: [8]}
optimizer: {name: sgd, learning_rate: 0.1}
train: {epochs: 2, batch_size: 20, metrics: [auc]}
target: {test_accuracy: 0.5}
sweep:
  norm: [identity, {name: batch_norm, momentum: 0.9}]
  seed: 0..2
  exclude: [{norm: identity, seed: 2}]
claims:
  - says: it helps
    source: "nobody"
    measure: steps_to(test_accuracy, 0.5)
    compare: {left: "batch_norm(momentum=0.9)", right: identity}
    expect: ratio <= 0.5
"""


def write(file: Path, content: bytes | str) -> Path:
    """Write a file, and its folders."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


def picture(seed: int, size: int = 8, kind: str = "PNG") -> bytes:
    """Make a small picture of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def _config(folder: Path) -> list[Path]:
    return [write(folder / "config.yaml", CONFIG)]


def _measure(folder: Path) -> list[Path]:
    texts = ["final(test_accuracy)", "steps_to(test_accuracy, 0.60)", "gap(test_loss, train_loss)",
             "largest_stable(train.batch_size)", "seconds_per_step()"]  # fmt: skip
    return [write(folder / f"{i}.txt", text) for i, text in enumerate(texts)]


def _read_measures(folder: Path) -> None:
    for file in folder.glob("*.txt"):
        Measure.parse(file.read_bytes().decode("utf-8", "replace"))


def _npz(folder: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    path = folder / "pneumoniamnist.npz"
    arrays = {}
    for part, n in (("train", 6), ("val", 2), ("test", 3)):
        arrays[f"{part}_images"] = rng.integers(0, 256, (n, 28, 28), np.uint8)
        arrays[f"{part}_labels"] = (np.arange(n) % 2).astype(np.uint8)[:, None]
    np.savez(path, **arrays)
    return [path]


def _read_medmnist(folder: Path) -> None:
    Medmnist().outline(folder)
    Medmnist().load(folder)


def _cifar(folder: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    files = {}
    for member in (*CIFAR10.train_members, *CIFAR10.test_members):
        pixels = rng.integers(0, 256, (2, 3072), np.uint8)
        files[member] = b"".join(bytes([i]) + row.tobytes() for i, row in enumerate(pixels))
    return [_tar(folder / "cifar10" / CIFAR10.archive, files)]


def _cifar_python(folder: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    files = {}
    for member in (*CIFAR10.python_train, *CIFAR10.python_test):
        batch = {b"data": rng.integers(0, 256, (2, 3072), np.uint8), b"labels": [0, 1]}
        files[member] = pickle.dumps(batch, 2)
    return [_tar(folder / "cifar10" / CIFAR10.python_archive, files)]


def _tar(path: Path, files: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(f"some-folder/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def _table(path: Path, rows: int, size: int, coding: str = "NONE") -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {
        "img": [{"bytes": picture(n, size), "path": None} for n in range(rows)],
        "label": [n % 2 for n in range(rows)],
    }
    pq.write_table(pa.table(columns), path, compression=coding)
    return path


def _cifar_tables(folder: Path) -> list[Path]:
    return [_table(folder / "cifar10" / f"{part}-00000-of-00001.parquet", n, 32)
            for part, n in (("train", 4), ("test", 2))]  # fmt: skip


def _own_table(folder: Path) -> list[Path]:
    return [_table(folder / "mine.parquet", 10, 8, "SNAPPY")]


def _wav(digit: int, speaker: int) -> bytes:
    sound = (np.sin(np.arange(400) * (digit + 1) / 9) * 3000 * (speaker + 1)).astype("<i2")
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(8000)
        out.writeframes(sound.tobytes())
    return file.getvalue()


class _Few(SpokenDigits):
    per_digit = 1


def _recordings(folder: Path) -> list[Path]:
    path = folder / "spoken_digits" / "recordings.zip"
    path.parent.mkdir(parents=True)
    with zipfile.ZipFile(path, "w") as archive:
        for number, speaker in enumerate(SPEAKERS):
            for digit in range(10):
                archive.writestr(f"recordings/{digit}_{speaker}_0.wav", _wav(digit, number))
    return [path]


def _own_pictures(folder: Path) -> list[Path]:
    kinds = {"PNG": "png", "JPEG": "jpg", "GIF": "gif", "BMP": "bmp", "TIFF": "tif", "WEBP": "webp"}
    return [
        write(folder / "pets" / of / f"{n}.{ending}", picture(n, 8, kind))
        for of in ("cat", "dog")
        for n, (kind, ending) in enumerate(kinds.items())
    ]


def _csv(folder: Path) -> list[Path]:
    for n in range(6):
        write(folder / f"{n}.png", picture(n))
    lines = [f"{n}.png,{'ab'[n % 2]},{'train' if n < 4 else 'test'}" for n in range(6)]
    return [write(folder / "labels.csv", "\n".join(["file,label,split", *lines]))]


CLAIM = Claim("a is better", "final(test_accuracy)", "a", "b", "difference > 0")


def store(folder: Path) -> list[Path]:
    """Write an experiment of two arms with two seeds each, as it is when it is finished."""
    home = folder / "runs" / "tiny"
    runs = [_run(home, arm, seed) for arm in ("a", "b") for seed in range(2)]
    about = {"name": "tiny", "question": "which?", "target": {"test_accuracy": 0.5},
             "config": "c.yaml", "overrides": [], "claims": [asdict(CLAIM)]}  # fmt: skip
    write_experiment(home, about, runs)
    write(home / "claims.json", json.dumps([asdict(CLAIM)]))
    names = ("status.json", "metrics.jsonl", "probes.jsonl", "provenance.json", "config.yaml")
    return [home / "experiment.json", home / "claims.json", *(runs[1].path / n for n in names)]


def _run(home: Path, arm: str, seed: int) -> Run:
    run = Run(home / f"{arm}-s{seed}-{seed}{arm * 9}", arm, seed, {"norm": arm})
    run.path.mkdir(parents=True)
    run.write_config({"data": {"name": "shapes"}, "model": {"name": "mlp"}, "norm": {"name": arm},
                      "optimizer": {"name": "sgd", "learning_rate": 0.1},
                      "train": {"epochs": 2, "batch_size": 20, "seed": seed}})  # fmt: skip
    run.add_provenance({
        "time": "2026-01-01T00:00:00+00:00", "versions": {"jax": "0.10.2"}, "platform": "Linux",
        "devices": ["cpu"], "environment": {}, "flags": [], "host": "here", "pid": 1,
        "git": {"commit": "0" * 40, "dirty": False}, "claims": [CLAIM.hash],
        "data": {"name": "shapes", "fingerprint": "0123", "source": "drawn", "train": 60,
                 "test": 20, "classes": 10, "image_shape": [8, 8, 1]},
    })  # fmt: skip
    for step in (3, 6):
        run.append_metrics({"step": step, "epoch": step / 3, "train_loss": 1.0 / step,
                            "train_accuracy": 0.5, "test_loss": 1.0, "seconds": step / 10,
                            "test_accuracy": 0.4 + 0.01 * step + 0.01 * seed})  # fmt: skip
    run.append_probes([{"step": 6, "probe": "activations", "quantity": "dead", "layers": ["a"],
                        "values": [0.5]}])  # fmt: skip
    run.write_status("done", sealed=True, arm=arm, seed=seed, steps=6, step=6, parameters=12,
                     train_seconds=0.6, compile_seconds=1.0, peak_bytes=5)  # fmt: skip
    return run


def read_store(folder: Path) -> None:
    """Read an experiment as the commands do."""
    home = folder / "runs" / "tiny"
    for read in (lambda: str(judge(load_runs(home))), lambda: show(home),
                 lambda: render(home, None, "final(test_accuracy)", "md")):  # fmt: skip
        read()


def _unsealed(folder: Path) -> list[Path]:
    """Leave out the digests, as runs of earlier versions do."""
    found = store(folder)
    for file in (folder / "runs" / "tiny").glob("*/status.json"):
        status = json.loads(file.read_bytes())
        del status["digests"]
        file.write_text(json.dumps(status))
    return found


def _safetensors(folder: Path) -> list[Path]:
    from safetensors.numpy import save_file

    arrays = {"a.weight": np.ones((2, 3), np.float32), "a.bias": np.zeros(2, np.float16)}
    save_file(arrays, folder / "w.safetensors", metadata={"order": '["a.weight", "a.bias"]'})
    return [folder / "w.safetensors"]


def _torch(folder: Path) -> list[Path]:
    import torch  # type: ignore[import-not-found]

    state = {"a.weight": torch.ones(2, 3), "a.bias": torch.zeros(2), "n": torch.tensor(3)}
    torch.save(state, folder / "new.pt")
    torch.save(state, folder / "old.pt", _use_new_zipfile_serialization=False)
    torch.save({"model": state, "args": {"lr": 0.1}}, folder / "whole.pt")
    return sorted(folder.glob("*.pt"))


def _load_weights(folder: Path) -> None:
    for file in sorted(folder.iterdir()):
        load_state_dict(file)


ZIP = (damaged, with_checksums)
TAR = (damaged, within_gzip)

TARGETS = {
    "config": Target(_config, lambda folder: load_experiment(folder / "config.yaml")),
    "measures": Target(_measure, _read_measures),
    "medmnist": Target(_npz, _read_medmnist, ZIP),
    "npz": Target(_npz, lambda f: Npz(f / "pneumoniamnist.npz").load(), ZIP),
    "cifar": Target(_cifar, lambda f: Cifar10().load(f), TAR),
    "cifar_python": Target(_cifar_python, lambda f: Cifar10().load(f), TAR),
    "cifar_tables": Target(_cifar_tables, lambda f: Cifar10().load(f)),
    "parquet": Target(_own_table, lambda f: Parquet(f / "mine.parquet").load()),
    "recordings": Target(_recordings, lambda f: _Few().load(f), ZIP),
    "folder": Target(_own_pictures, lambda f: Folder(f / "pets").load()),
    "csv": Target(_csv, lambda f: Csv(f / "labels.csv").load()),
    "store": Target(store, read_store),
    "unsealed": Target(_unsealed, read_store),
    "safetensors": Target(_safetensors, _load_weights),
    "torch": Target(_torch, _load_weights),
}
