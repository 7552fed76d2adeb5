"""The names of the files in a run's folder and in an experiment's."""

CONFIG, METRICS, STATUS = "config.yaml", "metrics.jsonl", "status.json"
PROBES, OUTCOMES = "probes.jsonl", "outcomes.json"
PROVENANCE, CHECKPOINTS, ERROR, LOCK = "provenance.json", "checkpoints", "error.txt", "lock"
OF_RUN = (CONFIG, METRICS, STATUS, PROBES, OUTCOMES, PROVENANCE, CHECKPOINTS, ERROR, LOCK)
EXPERIMENT, CLAIMS, JOURNAL = "experiment.json", "claims.json", "journal.jsonl"
PUBLISHED, PUBLISHED_PROVENANCE = "metrics.json", "provenance.json"
REMARKS, SUPERSEDED = "remarks.yaml", "superseded.json"

FINISHED = ("done", "diverged")
"""A run in one of these states has its result. The others are new, running, interrupted, failed."""

DAMAGED = "damaged"
"""A run has this state if one of its files is not as it was written; no status says it."""
