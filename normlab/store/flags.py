"""Settings of a process that change a run's numbers, read from its provenance."""

from typing import Any

JAX_SETTINGS = {
    "eager_constant_folding": "False",
    "jax_accurate_erf_inv": "False",
    "jax_allow_f16_reductions": "True",
    "jax_compiler_enable_remat_pass": "True",
    "jax_default_device": "None",
    "jax_default_matmul_precision": "None",
    "jax_default_prng_impl": "threefry2x32",
    "jax_disable_jit": "False",
    "jax_disable_most_optimizations": "False",
    "jax_enable_x64": "False",
    "jax_exec_time_optimization_effort": "0.0",
    "jax_explicit_x64_dtypes": "1",
    "jax_high_dynamic_range_gumbel": "False",
    "jax_num_cpu_devices": "-1",
    "jax_numpy_dtype_promotion": "standard",
    "jax_optimization_level": "UNKNOWN",
    "jax_random_seed_offset": "0",
    "jax_softmax_custom_jvp": "False",
    "jax_threefry_gpu_kernel_lowering": "False",
    "jax_threefry_partitionable": "True",
    "jax_use_direct_linearize": "True",
    "jax_use_hlo_logistic_lowering": "None",
    "jax_use_magma": "auto",
    "jax_use_shardy_partitioner": "True",
}
"""Settings of `jax.config` with the defaults of jax 0.10 to 0.12; a version may lack some of them.
All other settings concern folders, logs and checks."""

VARIABLES = (
    "XLA_FLAGS", "LIBTPU_INIT_ARGS", "NVIDIA_TF32_OVERRIDE", "CUBLAS_WORKSPACE_CONFIG"
)  # fmt: skip
"""Environment variables: options of compilers, TF32, and whether sums have a fixed order."""

OPTIONS, TUNING, UNSET = "compiler options", "NORMLAB_TUNING", "unset"


def unusual(proof: dict[str, Any]) -> dict[str, str]:
    """List the recorded settings that are not the defaults of jax and normlab."""
    usual = {**JAX_SETTINGS, TUNING: "on"}
    return {
        name: value
        for name, value in recorded(proof).items()
        if name != OPTIONS and value != usual.get(name, UNSET)
    }


def recorded(proof: dict[str, Any]) -> dict[str, str]:
    """List the settings in a record of provenance; an older record has fewer."""
    if "flags" in proof:
        return proof["flags"]
    environment = proof.get("environment", {})
    asked = {name: environment.get(name.upper()) for name in JAX_SETTINGS}
    found = {"XLA_FLAGS": options(environment.get("XLA_FLAGS", ""))}
    if "set_by_normlab" in proof:
        found[OPTIONS] = proof["set_by_normlab"].get("compiler") or UNSET
    return found | {name: value for name, value in asked.items() if value is not None}


def options(text: str) -> str:
    """Sort compiler options and leave out those that only configure dumps.

    >>> options("--xla_b=2 --xla_dump_to=/tmp --xla_a=1")
    '--xla_a=1 --xla_b=2'
    """
    return " ".join(sorted(w for w in text.split() if not w.startswith("--xla_dump"))) or UNSET


def without_folders(name: str, value: str) -> str:
    """Drop the words of a setting that name a folder of this machine.

    >>> without_folders("XLA_FLAGS", "--xla_x=/home/me --xla_y")
    '--xla_y'
    """
    words = value.split() if name in VARIABLES else [value]
    return " ".join(word for word in words if "/" not in word and "\\" not in word)
