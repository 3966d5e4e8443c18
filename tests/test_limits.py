"""Each lesson on MNIST, in a JupyterLab server and from an empty run folder, stays well below the 2 GB at which Binder
ends a session.

With `LIMITS_IN_FULL=1` the lessons run with their default parameters; otherwise with fewer epochs and seeds but the
same largest trainings, which need the same memory. Both print their seconds and gigabytes.
"""

import os
import time
from pathlib import Path
from threading import Event, Thread

import nbformat
import psutil
import pytest
from jupyter_client import BlockingKernelClient
from test_browser import LESSONS, server  # noqa: F401  # the server is a fixture

pytestmark = pytest.mark.memory

KERNEL_LIMITS = {"05": 1.4, "06": 1.4}  # GB
KERNEL_LIMIT = 1.2  # GB, of the other lessons
SERVER_LIMIT = 2.0  # GB, of server and kernel together: Binder's own
QUICKER = "" if os.environ.get("LIMITS_IN_FULL") else "published_epochs, seeds, labels_per_class = 1, [0], [10, 'all']"


class Sampler(Thread):
    """Keeps the largest resident memory of a process with its children, looked at 20 times a second, in GB."""

    def __init__(self, process: psutil.Process) -> None:
        super().__init__(daemon=True)
        self.process, self.peak, self.over = process, 0.0, Event()
        self.start()

    def run(self) -> None:
        while not self.over.wait(0.05):
            try:
                family = [self.process, *self.process.children(recursive=True)]
                self.peak = max(self.peak, sum(member.memory_info().rss for member in family) / 1e9)
            except psutil.NoSuchProcess:  # a child that ended between the two calls
                continue

    def stop(self) -> float:
        self.over.set()
        self.join()
        return self.peak


def execute(client: BlockingKernelClient, source: str) -> None:
    reply = client.execute_interactive(source, timeout=1800, output_hook=lambda message: None)["content"]
    assert reply["status"] == "ok", f"{source}\n{reply.get('ename')}: {reply.get('evalue')}"


@pytest.mark.usefixtures("mnist")
@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_a_lesson_stays_within_its_memory(path: Path, server, tmp_path: Path, capsys):  # noqa: F811
    kernel = server.ask("kernels", "POST")["id"]
    connection = server.folder.parent / "runtime" / f"kernel-{kernel}.json"
    client = BlockingKernelClient(connection_file=str(connection))
    client.load_connection_file()
    client.start_channels()
    try:
        client.wait_for_ready(60)
        (process,) = [
            each for each in psutil.process_iter(["cmdline"]) if kernel in " ".join(each.info["cmdline"] or [])
        ]
        samplers = Sampler(process), Sampler(process.parent())
        execute(client, f"import os; os.environ['TRANSFER_TUTORIAL_HOME'] = {str(tmp_path)!r}")
        start = time.perf_counter()
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "code":
                shortened = QUICKER if "parameters" in cell.metadata.get("tags", []) else ""
                execute(client, f"{cell.source}\n{shortened}")
        seconds = time.perf_counter() - start
    finally:
        client.stop_channels()
        server.ask(f"kernels/{kernel}", "DELETE")
    alone, with_server = (sampler.stop() for sampler in samplers)
    with capsys.disabled():
        print(f"\n{path.stem:24} {alone:5.2f} GB, with the server {with_server:5.2f} GB, {seconds:6.1f} s")
    assert 0.05 < alone < KERNEL_LIMITS.get(path.name[:2], KERNEL_LIMIT)
    assert with_server < SERVER_LIMIT
