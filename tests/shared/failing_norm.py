"""A normaliser that fails, for the tests: named in configs as `failing_norm:FailsWhenCompiled`."""

from dataclasses import dataclass

from normlab.core import normaliser


@normaliser(paper="none")
@dataclass(frozen=True)
class FailsWhenCompiled:
    """Passes the check of shapes and fails later, as a defect in a kernel would."""

    eps: float = 1e-5

    def init(self, features):
        return {}, {}

    def apply(self, params, state, x, *, train, mask=None):
        if not train and x.shape[0] > 1:
            raise RuntimeError("the kernel is broken")
        return x, state
