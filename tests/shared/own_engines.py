"""Engines of a person's own, which configs of tests name as `tests.shared.own_engines:NAME`."""

from concurrent.futures import Executor, Future, ThreadPoolExecutor

given = []


def threads(size: int = 2):
    """An executor of so many threads."""
    given.append(size)
    return ThreadPoolExecutor(size)


def nothing():
    """No executor at all."""
    return 3


class Forgetful(Executor):
    """Loses what it is given, as a cluster does whose workers die."""

    _max_workers = 1

    def submit(self, fn, /, *args, **kwargs):
        """Answer with an error that only this engine knows."""
        future: Future = Future()
        future.set_exception(RuntimeError("the worker was lost"))
        return future

    def shutdown(self, wait=True, *, cancel_futures=False):
        """Do nothing."""
