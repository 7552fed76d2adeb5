"""What does each normaliser of the catalogue cost beside the basic one that is nearest to it?

Times a call in training and its backward (gradients of input and parameters) of every entry that
takes images, in turns with its nearest: batch norm for what uses the batch, layer norm for what is
over a position's channels or is elementwise, group or instance norm for the rest.

Command: python -m experiments.speed.catalogue    (three minutes on 2 cores)

`normlab describe` shows the ratios; `--ship` gives normlab the committed ones anew.
"""

import argparse
import functools
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.speed import harness
from experiments.speed.harness import in_turns, save, table
from normlab.catalogue import NORMS
from normlab.errors import UserError
from normlab.interface import costs

SHAPE = (64, 16, 16, 64)
ROUNDS = 9
OVER_A_POSITION = {
    "affine", "dynamic_erf", "dynamic_tanh", "identity", "layer_norm", "local_response_norm",
    "positional_norm", "rms_norm", "scale_norm",
}  # fmt: skip
GROUPED = {"evo_norm_s0", "group_norm"}


def nearest(name: str) -> str:
    """Return the basic normaliser to compare an entry with."""
    if name in OVER_A_POSITION:
        return "layer_norm"
    if NORMS.load(name).facts.uses_batch:
        return "batch_norm"
    return "group_norm" if name in GROUPED else "instance_norm"


def call(name: str, shape: tuple[int, ...]) -> functools.partial[Any]:
    """Compile forward and backward of one entry, and return it with its arguments.

    Raises:
        UserError: it cannot take an input of that shape.
    """
    norm = NORMS.load(name)()
    params, state = norm.init(shape[-1])
    rng = np.random.default_rng(0)
    x, dy = jnp.asarray(rng.standard_normal((2, *shape)), jnp.float32)

    @jax.jit
    def run(params: Any, state: Any, x: jax.Array, dy: jax.Array) -> Any:
        def loss(params: Any, state: Any, x: jax.Array) -> Any:
            y, after = norm.apply(params, state, x, train=True)
            return jnp.vdot(y, dy), after

        # What has a memory in its backward writes it as the gradient of its state.
        gradient = jax.grad(loss, (0, 1, 2), has_aux=True, allow_int=True)
        return gradient(params, state, x)

    return functools.partial(run, params, state, x, dy)


def shipped(record: dict[str, Any]) -> dict[str, Any]:
    """Return the part of a saved record that an installed normlab has."""
    kept = ("measured", "versions", "processor", "cores", "devices")
    results = record["results"]
    return {
        **{key: record[key] for key in kept},
        "shape": results["shape"],
        "rounds": results.get("rounds", ROUNDS),  # a record of before has the default
        "costs": {row["name"]: [row["nearest"], row["times its cost"]] for row in results["rows"]},
    }


def ship() -> None:
    """Write the committed ratios to where `normlab describe` reads them."""
    record = json.loads((harness.RESULTS / "catalogue.json").read_text())
    costs.FILE.write_text(json.dumps(shipped(record), indent=1) + "\n")


def main(arguments: list[str] | None = None) -> None:
    """Print a row per entry, the most expensive first."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--shape", default=",".join(map(str, SHAPE)))
    parser.add_argument("--names", default=",".join(NORMS.entries()))
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--dry", action="store_true", help="write nothing")
    parser.add_argument("--ship", action="store_true", help="measure nothing")
    options = parser.parse_args(arguments)
    if options.ship:
        return ship()
    shape = tuple(map(int, options.shape.split(",")))
    rows = []
    for name in options.names.split(","):
        basic = nearest(name)
        if name == basic:
            continue
        try:
            times = in_turns({n: call(n, shape) for n in (name, basic)}, rounds=options.rounds)
        except UserError as error:
            print(f"{name}: {error}")
            continue
        ratio = float(np.median(times[name] / times[basic]))
        rows.append({"name": name, "nearest": basic, "times its cost": ratio})
        rows[-1]["ms"] = 1e3 * float(np.median(times[name]))
        print(table(rows[-1:]).splitlines()[2], flush=True)
    rows.sort(key=lambda row: -row["times its cost"])
    print(f"\n{table(rows)}")
    if not options.dry:
        save("catalogue", {"shape": shape, "rounds": options.rounds, "rows": rows})
        ship()


if __name__ == "__main__":
    main()
