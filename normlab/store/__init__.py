"""Runs on disk, their records and published results; nothing here needs jax to read them."""
