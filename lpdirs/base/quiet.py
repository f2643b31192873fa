"""Dask's scheduler and worker without their HTTP servers, which tell anyone on the machine what is computed. Needs the extra `cluster`."""

from distributed import Scheduler, Worker


class QuietScheduler(Scheduler):
    """A scheduler that speaks TLS to its own workers and client, and to nobody else."""

    def start_http_server(self, *_: object, **__: object) -> None:
        """There is none."""


class QuietWorker(Worker):
    """A worker of the same kind."""

    def start_http_server(self, *_: object, **__: object) -> None:
        """There is none."""
