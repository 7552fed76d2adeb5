"""From YAML to resolved configs: documents, sections, sweeps, claims, tuning."""
