"""Settings of every test: eight virtual devices, and promotion that must be spelled out."""

import os

# Read when jax is first imported: several devices, so that sharding is tested on any machine.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)

import jax

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
