"""What does the training loop gain from the allocator, a compiler flag and the kept programs?

    python -m experiments.speed.loop [--rounds 2] [--nets resnet8,resnet20]

Every line is a process of its own, as an allocator cannot be changed twice; they take turns, so
that a machine that grows slower is slower for all. Prints, per network: images a second, page
faults a step and memory with and without each; seconds of compilation with an empty and with a
filled cache, and where they go; and what the loop adds to a step of a tiny network. It takes about
4 minutes.
"""

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from collections import defaultdict
from typing import Any

import numpy as np

from experiments.speed.harness import fresh_process, save, table
from normlab.engine.process import keep_memory, keep_programs
from normlab.training import compiler

VARIANTS = ("plain", "allocator", "flag", "both")
NETS = {"resnet8": (8, 16, 128), "resnet20": (20, 32, 128), "tiny": (0, 8, 32)}
"""Depth, size of the images, batch."""
EPOCH = 16
"""Steps in one."""
SECONDS = 4.0
"""Of steps timed in a process."""


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Measure, print and save; returns what is saved."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nets", default="resnet8,resnet20")
    parser.add_argument(
        "--rounds", type=int, default=2, help="at least 2: the first fills the cache"
    )
    parser.add_argument("--seconds", type=float, default=SECONDS)
    options = parser.parse_args(arguments)

    found: dict[str, Any] = {"copy": copies(options.seconds / 4)}
    print(table(found["copy"]), flush=True)
    for net in options.nets.split(","):
        rounds = in_turns(net, options.rounds, options.seconds)
        found[net] = {"steps": steps(rounds), "compilation": compilation(rounds)}
        for rows in found[net].values():
            print(f"\n{net}\n{table(rows)}", flush=True)
    found["dispatch"] = [child("dispatch", "both", options.seconds / 4)]
    print(f"\na tiny network, microseconds a step\n{table(found['dispatch'])}")
    save("loop", found)
    return found


def in_turns(net: str, rounds: int, seconds: float) -> list[dict[str, dict[str, Any]]]:
    """Run each variant's process in every round; they share a cache that is empty at first."""
    with tempfile.TemporaryDirectory() as cache:
        return [
            {name: child(net, name, seconds, cache) for name in VARIANTS[:: (-1) ** index]}
            for index in range(rounds)
        ]


def child(what: str, variant: str, seconds: float, cache: str | None = None) -> dict[str, Any]:
    """Measure in a new process, in which nothing but the variant is set."""
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MALLOC_", "JAX_COMPILATION", "GLIBC_")) and name != "XLA_FLAGS"
    }
    clean |= (
        {"JAX_COMPILATION_CACHE_DIR": cache} if cache else {"JAX_ENABLE_COMPILATION_CACHE": "0"}
    )
    clean |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    command = [sys.executable, "-m", "experiments.speed.loop", "--in-child"]
    return json.loads(
        fresh_process([*command, what, variant, str(seconds)], clean).splitlines()[-1]
    )


def copies(seconds: float) -> list[dict[str, Any]]:
    """Measure a jitted x + 1 on 32 MB without donation, in gigabytes per second."""
    rows = []
    for variant in ("plain", "allocator"):
        both = [child("copy", variant, seconds) for _ in range(2)]
        rows.append({"x + 1 on 32 MB": variant, "GB/s": max(row["GB/s"] for row in both)}
                    | {key: both[-1][key] for key in ("page faults", "peak MB")})  # fmt: skip
    return rows


def steps(rounds: list[dict[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Compute per variant the median over rounds, and the median ratio to the plain variant."""
    rows = []
    for name in VARIANTS:
        times = np.array([found[name]["ms"] for found in rounds])
        plain = np.array([found["plain"]["ms"] for found in rounds])
        last = rounds[-1][name]
        rows.append({
            "training step": name,
            "ms": float(np.median(times)),
            "times as fast": float(np.median(plain / times)),
            "images/s": last["batch"] * 1e3 / float(np.median(times)),
            "page faults": last["page faults"],
            "peak MB": last["peak MB"],
        })  # fmt: skip
    return rows


def compilation(rounds: list[dict[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Measure the seconds until the first step, with an empty and with a filled cache.

    Only the first variant with the flag compiles: later ones find its programs in the cache.
    """
    names = ("cache empty", "cache filled")
    return [
        {"compilation": name, **found["flag"]["seconds"]}
        for name, found in zip(names, (rounds[0], rounds[-1]), strict=True)
    ]


def measure(what: str, variant: str, seconds: float) -> dict[str, Any]:
    """Measure in a child, where the variant is set before JAX is imported."""
    if variant in ("allocator", "both") and not keep_memory():
        print("this system's allocator cannot be told to keep memory", file=sys.stderr)
    keep_programs()
    if variant not in ("flag", "both"):
        compiler.KNOWN.clear()
    if what == "copy":
        return measure_copy(seconds)
    return measure_dispatch(seconds) if what == "dispatch" else measure_net(what, seconds)


def measure_copy(seconds: float) -> dict[str, Any]:
    """Measure the bandwidth of the smallest program that makes a large array."""
    import jax
    import jax.numpy as jnp

    add, x = jax.jit(lambda x: x + 1), jnp.ones((8, 1024, 1024), jnp.float32)
    call = lambda: jax.block_until_ready(add(x))  # noqa: E731
    for _ in range(20):  # the heap grows at first
        call()
    took, faults = repeat(call, seconds)
    return {"GB/s": 2 * x.nbytes / 1e9 / took, "page faults": faults, "peak MB": peak()}


def measure_net(net: str, seconds: float) -> dict[str, Any]:
    """Measure training steps of a network with batch normalisation, one after the other."""
    import jax

    spent = seconds_by_phase()
    began = time.perf_counter()
    compiled, batch = compile_net(net)
    made = dict(spent)
    started = time.perf_counter()
    state = jax.block_until_ready(compiled.init(0))
    first = time.perf_counter() - started
    order = compiled.order(0, 0)
    for _ in range(3):
        state, _ = compiled.step(state, order, 0)
    jax.block_until_ready(state)

    def step() -> None:
        nonlocal state
        state, loss = compiled.step(state, order, 0)
        jax.block_until_ready(loss)

    took, faults = repeat(step, seconds)
    return {
        "ms": took * 1e3,
        "batch": batch,
        "page faults": faults,
        "peak MB": peak(),
        "seconds": {
            "programs": compiled.seconds,
            "of it tracing": made.get("jaxpr_trace_duration", 0.0),
            "lowering": made.get("jaxpr_to_mlir_module_duration", 0.0),
            # Two at once, so their sum may be more than the time they took.
            "compiling or reading": made.get("backend_compile_duration", 0.0),
            "initial state": first,
            "all": started + first - began,
        },
    }


def measure_dispatch(seconds: float) -> dict[str, Any]:
    """Measure host and device for a network so small that the device hardly matters."""
    import jax

    from normlab.training.fit import Loop
    from normlab.training.state import Clock

    compiled, _ = compile_net("tiny", epochs=max(1, int(seconds * 200)))
    order, state = compiled.order(0, 0), compiled.init(0)
    state, loss = compiled.step(state, order, 0)
    jax.block_until_ready(loss)
    waits, returns = [], []
    for _ in range(300):
        started = time.perf_counter()
        state, loss = compiled.step(state, order, 0)
        returns.append(time.perf_counter() - started)
        jax.block_until_ready(loss)
        waits.append(time.perf_counter() - started)
    fitted = Loop(compiled, 0).run(compiled.init(0), Clock())
    return {
        "step, waited for": float(np.median(waits)) * 1e6,
        "until it is handed over": float(np.median(returns)) * 1e6,
        "step in the loop": fitted.clock.train / int(fitted.state.step) * 1e6,
    }


def compile_net(net: str, **recipe: Any) -> tuple[Any, int]:
    """Compile a network on noise; return it with its batch size."""
    import optax

    from normlab.data.dataset import Dataset, Split
    from normlab.models.plain import MLP
    from normlab.models.resnet import Resnet
    from normlab.norms import BatchNorm
    from normlab.training.compiled import Compiled
    from normlab.training.program import Program
    from normlab.training.recipe import Recipe
    from normlab.training.state import DeviceData

    depth, size, batch = NETS[net]
    noise = np.random.default_rng(0)
    images = noise.integers(0, 256, (EPOCH * batch, size, size, 3), dtype=np.uint8)
    split = Split(images, noise.integers(0, 10, len(images), dtype=np.int32))
    data = Dataset("noise", split, split, tuple("abcdefghij"))
    slots = {"norm": BatchNorm(), "classes": 10}
    model = Resnet(**slots, depth=depth) if depth else MLP(**slots, widths=(8,))
    settings = Recipe(batch_size=batch, **recipe)
    program = Program(model, optax.sgd(0.1, momentum=0.9), settings)
    return Compiled(program, DeviceData.put(data)), batch


def seconds_by_phase() -> dict[str, float]:
    """Return a dictionary that JAX's seconds of tracing, lowering and compiling will fill."""
    import jax

    spent: dict[str, float] = defaultdict(float)

    def listen(event: str, duration_secs: float, **_: Any) -> None:
        spent[event.rpartition("/")[2]] += duration_secs

    jax.monitoring.register_event_duration_secs_listener(listen)
    return spent


def repeat(call: Any, seconds: float) -> tuple[float, int]:
    """Measure the median time of a call, and its page faults."""
    times, before, end = [], pages(), time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 3:
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return float(np.median(times)), (pages() - before) // len(times)


def pages() -> int:
    """Count the page faults of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def peak() -> int:
    """Return the peak memory of this process in megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


if __name__ == "__main__":
    if sys.argv[1:2] == ["--in-child"]:
        what, variant, seconds = sys.argv[2:]
        print(json.dumps(measure(what, variant, float(seconds))))
    else:
        main()
