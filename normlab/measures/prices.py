"""What a run costs, read from its status."""

from normlab.measures.value import Value
from normlab.store.record import Record


def seconds_per_step(record: Record) -> Value | None:
    """Seconds of training an optimiser step."""
    step = record.status["step"]
    return Value(record.status["train_seconds"] / step) if step else None


def peak_memory(record: Record) -> Value | None:
    """Megabytes (10^6) that a training step needs beyond its inputs, as the compiler tells."""
    return _of_status(record, "peak_bytes", 1e6)


def parameters(record: Record) -> Value | None:
    """Numbers in the model's parameters."""
    return _of_status(record, "parameters")


def compile_seconds(record: Record) -> Value | None:
    """Seconds of tracing and compiling the run's program, which runs of other seeds share."""
    return _of_status(record, "compile_seconds")


def _of_status(record: Record, key: str, unit: float = 1.0) -> Value | None:
    found = record.status.get(key)
    return None if found is None else Value(found / unit)
