"""Makes runs: one after another or in several processes, with checkpoints and provenance."""
