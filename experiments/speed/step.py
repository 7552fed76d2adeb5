"""A whole training step of ResNet-20, the plain convnet and a transformer beside flax and torch.

    python -m experiments.speed.step --peer flax,torch [--passes]
    python -m experiments.speed.step --peer torch --models resnet,convnet,vit --dtype bfloat16

The step is normlab's own, as `fit` compiles it, with momentum and a batch of 128 images of 32x32.
Those of convolutions have batch normalisation, the transformer layer normalisation. First the
losses of the first steps must agree, from the same weights on the same batches; then the steps are
timed in turns, each library in a process of its own: the default environment for the peers, that
of `normlab run` for normlab, and either for each other.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.speed import harness, step_nets

ENVIRONMENT = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
    "XLA_FLAGS": "--xla_cpu_experimental_ynn_fusion_type=-individual_convolution",
}
"""What `normlab run` has its own process set, as variables, for flax's."""

SETTING = "normlab's environment"
OURS = f"normlab, {SETTING}"
CANDIDATES = {
    "normlab": {
        OURS: ("normlab", {}),
        "normlab, default environment": ("normlab", {"NORMLAB_TUNING": "off"}),
    },
    "flax": {"flax": ("flax", {}), f"flax, {SETTING}": ("flax", ENVIRONMENT)},
    "torch": {name: (name, {}) for name in step_nets.STEPS if name.startswith("torch")},
}
AGREE = {"float32": 1e-3, "bfloat16": 3e-2}
"""Losses of the first steps may differ so much, relatively, through some twenty layers."""


class Worker:
    """A step in its own process, which waits for its turn."""

    def __init__(
        self, peer: str, model: str, batch: int, dtype: str, environment: Mapping[str, str]
    ):
        command = [sys.executable, "-m", "experiments.speed.step_nets", peer, model, str(batch)]
        self._process = subprocess.Popen(
            [*command, dtype], env={**os.environ, **environment}, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        self.losses = json.loads(self._answer())

    def __call__(self) -> None:
        """Take a step."""
        assert self._process.stdin is not None
        self._process.stdin.write("1\n")
        self._process.stdin.flush()
        self._answer()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._process.args} ended before it answered")
        return line

    def end(self) -> None:
        """End the process."""
        self._process.communicate()


def compare(
    model: str, peers: list[str], batch: int, dtype: str, rounds: int
) -> list[dict[str, Any]]:
    """Make a row per candidate, after checking that all train alike.

    The transformer is not written in flax, and has no layout of images.
    """
    chosen = [
        one
        for library in ["normlab", *peers]
        for one in CANDIDATES[library].items()
        if model != "vit" or one[1][0] not in ("flax", "torch, contiguous")
    ]
    workers = {name: Worker(peer, model, batch, dtype, env) for name, (peer, env) in chosen}
    for name, worker in workers.items():
        np.testing.assert_allclose(
            worker.losses,
            workers[OURS].losses,
            rtol=AGREE[dtype],
            err_msg=f"{name} trains otherwise",
        )
    times = harness.in_turns(workers, rounds=rounds)
    for worker in workers.values():
        worker.end()
    return [
        {
            "model": model,
            "dtype": dtype,
            "step": name,
            "ms": 1e3 * float(np.median(seconds)),
            "images/s": batch / float(np.median(seconds)),
            **{
                f"times as fast as {against}": harness.times_faster(times, name, against)
                for against in ("flax", "torch, channels last")
                if against in times
            },
        }
        for name, seconds in times.items()
    ]


def figure(rows: list[dict[str, Any]]) -> Figure:
    """Draw images per second, one group of bars per model."""
    models = list(dict.fromkeys(row["model"] for row in rows))
    picture = Figure(figsize=(7, 1 + 0.35 * len(rows)))
    for place, name in enumerate(models):
        axes = picture.add_subplot(len(models), 1, place + 1)
        mine = [row for row in rows if row["model"] == name][::-1]
        colours = ["C0" if row["step"].startswith("normlab") else "0.7" for row in mine]
        axes.barh([row["step"] for row in mine], [row["images/s"] for row in mine], color=colours)
        axes.set_title(name, loc="left")
        axes.set_xlabel("images a second")
    picture.tight_layout()
    return picture


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer", default="flax", help="flax, torch or both, by commas")
    parser.add_argument("--models", default="resnet,convnet")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--dtype", default="float32", choices=sorted(AGREE))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--passes", action="store_true", help="also where the time goes")
    parser.add_argument("--save", default="step", help="the results' name; empty: not written")
    given = parser.parse_args(arguments)

    rows, passes = [], []
    for model in given.models.split(","):
        rows += compare(model, given.peer.split(","), given.batch, given.dtype, given.rounds)
        print(harness.table([row for row in rows if row["model"] == model]) + "\n", flush=True)
        if given.passes:
            command = [sys.executable, "-m", "experiments.speed.step_passes", model]
            said = harness.fresh_process(
                [*command, str(given.batch), str(given.rounds)], {**os.environ, **ENVIRONMENT}
            )
            found = json.loads(said)
            print(harness.table(found) + "\n", flush=True)
            passes += found
    if given.save:
        harness.save(given.save, {"steps": rows, "passes": passes}, figure(rows))


if __name__ == "__main__":
    main()
