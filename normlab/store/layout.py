"""The names of what lies in a run's and in an experiment's folder."""

CONFIG, METRICS, STATUS = "config.yaml", "metrics.jsonl", "status.json"
PROBES = "probes.jsonl"
PROVENANCE, CHECKPOINTS, ERROR, LOCK = "provenance.json", "checkpoints", "error.txt", "lock"
EXPERIMENT, CLAIMS = "experiment.json", "claims.json"
PUBLISHED, PUBLISHED_PROVENANCE = "metrics.json", "provenance.json"

FINISHED = ("done", "diverged")
"""States in which a run has its result. The others: new, running, interrupted, failed."""

DAMAGED = "damaged"
"""The state of a run one of whose files is not as it was written; no file says so of itself."""
