"""Work spread over processes with Dask: this machine's cores, or the workers of a cluster that is running."""

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from lpdirs.errors import UserError


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def cluster(workers: int, scheduler: str | None = None) -> Iterator["Client | None"]:  # noqa: F821
    """A Dask client for `workers` local processes of one thread each, or for the cluster at the address `scheduler`.

    None where one worker is asked for: the work is then done in this process. Raises UserError if nobody answers at `scheduler`.
    """
    if scheduler is None and workers <= 1:
        yield None
        return
    from distributed import Client, LocalCluster

    if scheduler is not None:
        try:
            client = Client(scheduler, timeout=20, set_as_default=False)
        except (OSError, ValueError) as error:
            raise UserError(f"no Dask scheduler answers at {scheduler}: start one with `dask scheduler`, or leave it out") from error
        with client:
            yield client
        return
    with (
        LocalCluster(
            n_workers=workers, threads_per_worker=1, memory_limit=0, silence_logs=logging.ERROR, scheduler_kwargs={"dashboard": False}
        ) as local,
        Client(local, set_as_default=False) as client,
    ):
        yield client


def each(client: "Client | None", function: Callable, items: Iterable[tuple]) -> Iterator:  # noqa: F821
    """function(*item) for each item, in the order in which they finish; an exception is raised here and ends the others."""
    if client is None:
        for item in items:
            yield function(*item)
        return
    from distributed import as_completed

    futures = [client.submit(function, *item, pure=False) for item in items]
    for future in as_completed(futures, loop=client.loop):
        yield future.result()
        future.release()
