"""Makes runs on a Dask cluster."""

import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from normlab.engine.executors.contract import engine, package
from normlab.engine.process import usable_cores
from normlab.errors import UserError, in_one_line, require_field


@engine
@dataclass(frozen=True)
class Dask:
    """Makes runs on a Dask cluster: that of a running scheduler, or one on this machine.

    Attributes:
        address: the scheduler's address, as in tcp://node1:8786, or the path of its scheduler file;
            null begins a scheduler and workers on this machine, which end with the command.
        timeout: the seconds for which the scheduler and its first worker are waited for.
    """

    address: str | None = None
    timeout: float = 60.0

    def __post_init__(self) -> None:
        require_field(self.timeout > 0, "timeout", self.timeout, "above 0")

    def places(self, jobs: int | None, folder: Path) -> Sequence[Executor]:
        """Give a place for each thread of the cluster's workers, or so many as `jobs`."""
        distributed = package("distributed", "dask")
        logging.getLogger("distributed").setLevel(logging.WARNING)
        cluster, count = None, 1
        try:
            if self.address is None:
                count = jobs or usable_cores() or 1
                cluster = package("distributed.deploy.subprocess", "dask").SubprocessCluster(
                    n_workers=count, threads_per_worker=1, dashboard_address=None
                )
                client = distributed.Client(cluster, timeout=self.timeout)
            elif "://" in self.address:
                client = distributed.Client(self.address, timeout=self.timeout)
            else:
                client = distributed.Client(scheduler_file=self.address, timeout=self.timeout)
            client.wait_for_workers(count, timeout=self.timeout)
        except (OSError, RuntimeError, TimeoutError, ValueError) as error:
            if cluster is not None:
                cluster.close()
            where = self.address or "a cluster on this machine"
            raise UserError(
                f"engine dask: {where} does not answer: {in_one_line(error)}"
            ) from error
        executor = _DaskExecutor(client, cluster)
        return [executor] * (jobs or executor.threads())


class _DaskExecutor(Executor):
    """Sends runs to a cluster, with the place that each worker has among those of its host."""

    def __init__(self, client: Any, cluster: Any):
        self._client, self._cluster = client, cluster
        # A lost worker's run is tried by another one; its lease keeps it from being made twice.
        self._executor = client.get_executor(pure=False)

    def threads(self) -> int:
        return sum(told["nthreads"] for told in self._workers().values())

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        (order,) = args
        return self._executor.submit(_on_worker, fn, {**order, "places": self._places()}, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        with contextlib.suppress(Exception):  # the scheduler may be gone
            self._client.close(timeout=5)
        if self._cluster is not None:
            with contextlib.suppress(Exception):
                self._cluster.close(timeout=5)

    def _workers(self) -> dict[str, Any]:
        return self._client.scheduler_info(n_workers=-1)["workers"]

    def _places(self) -> dict[str, list[int]]:
        """Return for each worker the number of its first place on its host, and of all there."""
        taken: Counter[str] = Counter()
        found = {}
        for address, told in sorted(self._workers().items()):
            found[address] = [taken[told["host"]], told["host"]]
            taken[told["host"]] += told["nthreads"]
        return {address: [first, taken[host]] for address, (first, host) in found.items()}


def _on_worker(function: Callable[[Any], Any], order: dict[str, Any]) -> Any:
    """Call a function in a worker, and tell it which worker and which place that is."""
    from distributed import get_worker  # type: ignore[import-not-found]

    worker = get_worker()
    order = dict(order)
    places = order.pop("places")
    if worker.address in places:
        first, of = places[worker.address]
        order["place"] = {"first": first, "of": of}
    order["made_by"] = {**order["made_by"], "worker": str(worker.address)}
    return function(order)
