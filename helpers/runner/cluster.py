"""The processes that run a sweep: Dask workers, on this machine or on an existing cluster."""

import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers.folders import INSTALLED, REPOSITORY, check_folder
from helpers.runner.notebooks import THREADS
from helpers.runner.process import ctrl_c_waits
from helpers.runner.worker import VERSION, one_line

if TYPE_CHECKING:
    from distributed import Client

CONNECT_SECONDS = 10
KERNEL_MEMORY = 2 * 2**30  # bytes for each kernel with TensorFlow


def check_options(scheduler: str | None, workers: int | None, store: Path | None) -> None:
    """Raise ValueError for conflicting options, an unusable folder, or a machine without Dask."""
    if scheduler is not None and workers is not None:
        raise ValueError("--workers: is for this machine only; the cluster given by --scheduler has its own workers")
    if scheduler is not None and store is not None:
        raise ValueError("--store: is for this machine only; the cluster given by --scheduler shares no folder with it")
    if store is not None:
        check_folder("--store", str(store), store)
    if not (find_spec("distributed") and find_spec("cryptography")):
        package = '"transfer-learning-tutorial[sweep]"' if INSTALLED else f'-e "{REPOSITORY}[sweep]"'
        raise ValueError(f"sweep: needs Dask, which is not installed; run python -m pip install {package}")


@contextmanager
def connect(scheduler: str | None, workers: int | None) -> "Iterator[tuple[Client, dict[str, Any]]]":
    """Connect to a scheduler's address, or start `workers` on this machine (by default, as many as its cores and memory
    allow) and stop them at the end; yield Dask's client and the `memory` for each kernel, in bytes.

    Workers on this machine run one kernel each and share the cores, unless the user has set numbers of threads. They
    are reachable only from this machine, with a certificate made for this sweep. Raises ConnectionError if no worker
    can be started, and ValueError if the scheduler cannot be reached or a worker is unsuitable.
    """
    import dask
    from dask.system import CPU_COUNT
    from distributed import Client, LocalCluster
    from distributed.system import MEMORY_LIMIT

    for name in ("distributed", "distributed.client", "asyncio", "tornado"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # errors are reported in one line anyway
    with ExitStack() as opened:
        if scheduler is not None:
            try:
                client = opened.enter_context(Client(scheduler, timeout=CONNECT_SECONDS))
            except (OSError, ValueError, OverflowError, TypeError) as error:
                raise ValueError(
                    f"--scheduler: {scheduler!r} cannot be reached; give an address such as tcp://127.0.0.1:8786 "
                    "(tls:// also needs certificates in Dask's configuration)"
                ) from error
            _check_workers(client)
            yield client, {"memory": None}
            return
        dask.config.refresh(paths=[], env={})  # the user's configuration is meant for other clusters
        workers = workers or max(1, min(CPU_COUNT, MEMORY_LIMIT // KERNEL_MEMORY))
        share = (*THREADS, "LOKY_MAX_CPU_COUNT")  # the last one limits parallel training
        threads = {name: os.environ.get(name, str(max(1, CPU_COUNT // workers))) for name in share}
        local = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0", "security": True, "env": threads}
        try:
            with ctrl_c_waits():
                cluster = LocalCluster(n_workers=workers, threads_per_worker=1, silence_logs=logging.CRITICAL, **local)
                opened.enter_context(cluster)
            client = opened.enter_context(Client(cluster))
        except RuntimeError as error:
            raise ConnectionError(f"Dask cannot start its workers: {one_line(error)}") from error
        yield client, {"memory": MEMORY_LIMIT // workers}


def _check_workers(client: "Client") -> None:
    """Raise ValueError if a worker lacks this package or has a different version of it."""

    def installed() -> str:  # sent as code, because a worker may not be able to import it
        from helpers.runner.worker import VERSION

        return VERSION

    for worker, version in client.run(installed, on_error="return").items():
        if version != VERSION:
            has = f"version {version}" if isinstance(version, str) else "an unknown version"
            raise ValueError(
                f"--scheduler: the worker {worker} has {has} of this package instead of {VERSION}; "
                "install the same version on all machines"
            )
