"""How and where it is computed: number format and compilation, threads, and work spread over processes with Dask."""

import ctypes
import logging
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from lpdirs.base.errors import UserError, optional

if TYPE_CHECKING:
    import torch
    from distributed import Client
    from torch import nn

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # of glibc's malloc.h
PRECISION_HELP = "auto (bf16 where the machine computes it natively, else fp32), fp32 or bf16"

# whoever reaches a Dask port runs code as the user: nothing of a local cluster listens to other machines
LOOPBACK = {"host": "127.0.0.1", "protocol": "tls", "dashboard": False, "dashboard_address": "127.0.0.1:0"}

# Dask watches its workers fifty times a second, which takes a tenth of a core from the one worker; once a second is enough for these.
CALM = {
    "distributed.worker.profile.enabled": False,
    "distributed.scheduler.worker-ttl": None,  # workers that were halted, as by Ctrl-Z, are not given up
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "10s",
}


def keep_memory() -> None:
    """Let this process keep freed memory for what it computes next, where malloc is glibc's; what it needs at most grows little.

    By default every tensor of some megabytes is given back to the system and fetched again, a page at a time: a fifth of a step or more.
    LPDIRS_KEEP_MEMORY=0 in the environment leaves malloc as it is.
    """
    if os.environ.get("LPDIRS_KEEP_MEMORY") == "0":
        return
    with suppress(AttributeError, OSError, TypeError):  # another malloc, another system
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, 2**28)):
            mallopt(option, value)


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads() -> int:
    """Threads to compute with: OMP_NUM_THREADS where it is set, else all cores. Training ends elsewhere with another number."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return int(wanted) if wanted.isdigit() and int(wanted) > 0 else cores()


def gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [name for name in visible.split(",") if name] if visible is not None else []
    return (names or [str(i) for i in range(torch.cuda.device_count())]) if torch.cuda.is_available() else []


def precision_for(device: "str | torch.device", wanted: str) -> tuple[str, str]:
    """The number format to train in, fp32 or bf16, and why, in words. "auto" takes bf16 where the device computes it natively.

    A processor with AVX512-BF16 or AMX does, and GPUs since Ampere; others only imitate it, which is slower than fp32.
    """
    import torch

    if wanted != "auto":
        return wanted, "as asked for"
    kind = torch.device(device).type
    if kind == "cuda":
        native, what = torch.cuda.is_bf16_supported(including_emulation=False), torch.cuda.get_device_name(device)
    else:
        tests = {"AMX": "_is_amx_tile_supported", "AVX512-BF16": "_is_avx512_bf16_supported"}  # torch says it nowhere else
        found = [name for name, test in tests.items() if kind == "cpu" and getattr(torch.cpu, test, bool)()]
        native, what = bool(found), f"this processor, with {found[0]}," if found else "this processor"
    return ("bf16", f"{what} computes it natively") if native else ("fp32", f"{what} does not compute bf16 natively")


def autocast(device: "str | torch.device", precision: str) -> "torch.autocast":
    """bf16 where it is safe, by torch's own rules, or nothing for fp32."""
    import torch

    return torch.autocast(torch.device(device).type, torch.bfloat16, enabled=precision == "bf16")


def compiled(module: "nn.Module", mode: str) -> Any:
    """torch.compile in `mode`, "off" or "default"; the weights stay the module's."""
    import torch

    return module if mode == "off" else torch.compile(module)


@contextmanager
def cluster(workers: int, scheduler: str | None = None, devices: Sequence[str] = (), always: bool = False) -> Iterator["Client | None"]:
    """A Dask client for `workers` local processes of one thread each, or for the cluster at the address `scheduler`.

    None where one worker is asked for, unless `always`: the work is then done in this process. With `devices` each worker sees one
    of these GPUs alone, in turn. Raises UserError if nobody answers at `scheduler`.
    """
    if scheduler is None and workers <= 1 and not always:
        yield None
        return
    optional("distributed", "cluster")
    import dask.config
    from distributed import Client, Nanny, SpecCluster, WorkerPlugin
    from distributed.security import Security

    from lpdirs.base.quiet import QuietScheduler, QuietWorker

    class _Calm(WorkerPlugin):
        """Ctrl-C in a terminal reaches all its processes: workers leave it to the one that they work for."""

        def setup(self, worker):
            signal.signal(signal.SIGINT, signal.SIG_IGN)

    if scheduler is not None:
        try:
            client = Client(scheduler, timeout=20, set_as_default=False)
        except (OSError, ValueError) as error:
            raise UserError(f"no Dask scheduler answers at {scheduler}: start one with `dask scheduler`, or leave it out") from error
        with client:
            yield client
        return
    secret = Security.temporary()  # TLS with a certificate for this cluster alone: other accounts of the machine cannot join in
    own = lambda i: {"CUDA_VISIBLE_DEVICES": devices[i % len(devices)]} if devices else {}
    node = {"silence_logs": logging.ERROR, "security": secret, "worker_class": QuietWorker, **LOOPBACK}
    options = [{"nthreads": 1, "memory_limit": 0, "env": own(i), **node} for i in range(workers)]
    with (
        dask.config.set(CALM),
        SpecCluster(
            workers={i: {"cls": Nanny, "options": each} for i, each in enumerate(options)},
            scheduler={"cls": QuietScheduler, "options": {"port": 0, "security": secret, **LOOPBACK}},
            security=secret,
            silence_logs=logging.ERROR,
        ) as local,
        Client(local, set_as_default=False) as client,
    ):
        client.register_plugin(_Calm(), name="calm")
        yield client


def each(client: "Client | None", function: Callable, items: Iterable[tuple]) -> Iterator:
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
