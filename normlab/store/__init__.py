"""What lies on disk: runs, their records, published results. It reads without jax."""
