"""The processes that run a sweep: Dask's, on this machine or on a cluster that is there already."""

import asyncio
import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from helpers.folders import INSTALLED, REPOSITORY
from helpers.runner.notebooks import THREADS, ctrl_c_waits
from helpers.runner.worker import VERSION, one_line

if TYPE_CHECKING:
    from distributed import Client

CONNECT_SECONDS = 10
KERNEL_MEMORY = 2 * 2**30  # bytes to have for each kernel with TensorFlow in it


def check_options(scheduler: str | None, workers: int | None) -> None:
    """Raise ValueError for options that do not go together, and on a machine without Dask."""
    if scheduler is not None and workers is not None:
        raise ValueError("--workers: is for this machine; a cluster, as given by --scheduler, has its own")
    if not (find_spec("distributed") and find_spec("cryptography")):
        package = '"transfer-learning-tutorial[sweep]"' if INSTALLED else f'-e "{REPOSITORY}[sweep]"'
        raise ValueError(f"sweep: needs Dask, which is not installed; python -m pip install {package} adds it")


@contextmanager
def connect(scheduler: str | None, workers: int | None) -> "Iterator[tuple[Client, dict[str, Any]]]":
    """Connect to a scheduler's address, or start `workers` on this machine, by default as its cores and memory allow,
    and stop them at the end; yield Dask's client and the runs' settings.

    Workers on this machine run one kernel each. They can be reached from here alone, and only with the certificate that
    is made for them. The settings are environment variables that share the cores, unless the user has set them, and
    bytes of `memory`; a cluster has its own.

    Raises OSError where no worker can be started, and ValueError for a scheduler that is not there, or has a worker
    without this version of this package.
    """
    import dask
    from dask.system import CPU_COUNT
    from distributed import Client, LocalCluster
    from distributed.system import MEMORY_LIMIT

    for name in ("distributed", "distributed.client", "asyncio", "tornado"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what matters is said in one line
    if scheduler is not None:
        try:
            asyncio.run(_reach(scheduler))
        except (OSError, ValueError, OverflowError, TypeError) as error:
            raise ValueError(
                f"--scheduler: {scheduler!r} cannot be reached; an address looks like tcp://127.0.0.1:8786, "
                "and one with tls:// needs certificates in Dask's configuration"
            ) from error
        with Client(scheduler, timeout=CONNECT_SECONDS) as client:
            _check_workers(client)
            yield client, {"environment": {}, "memory": None}
        return
    dask.config.refresh(paths=[], env={})  # what the user configured is meant for clusters of another kind
    workers = workers or max(1, min(CPU_COUNT, MEMORY_LIMIT // KERNEL_MEMORY))
    threads = {name: os.environ.get(name, str(max(1, CPU_COUNT // workers))) for name in THREADS}
    here = {"threads_per_worker": 1, "host": "127.0.0.1", "dashboard_address": "127.0.0.1:0", "security": True}
    with ExitStack() as opened:
        try:
            with ctrl_c_waits():
                cluster = opened.enter_context(LocalCluster(n_workers=workers, silence_logs=logging.CRITICAL, **here))
            client = opened.enter_context(Client(cluster))
        except RuntimeError as error:
            raise OSError(f"Dask cannot start its workers: {one_line(error)}") from error
        yield client, {"environment": threads, "memory": MEMORY_LIMIT // workers}


async def _reach(scheduler: str) -> None:
    """Connect once and hang up. A Client that fails to connect cannot be closed, and when it is collected while another
    one starts, that one hangs.
    """
    from distributed import Security
    from distributed.comm.core import connect

    comm = await connect(scheduler, timeout=CONNECT_SECONDS, **Security().get_connection_args("client"))
    await comm.close()


def _check_workers(client: "Client") -> None:
    """Raise ValueError if a worker lacks this package or has another version of it."""

    def installed() -> str:  # defined here, it travels as code to a worker that may have nothing to import it from
        from helpers.runner.worker import VERSION

        return VERSION

    for worker, found in client.run(installed, on_error="return").items():
        if found != VERSION:
            has = f"version {found}" if isinstance(found, str) else "none with sweeps"
            raise ValueError(
                f"--scheduler: its worker {worker} has {has} of this package, and here is {VERSION}; "
                "install the same wherever a worker runs"
            )
