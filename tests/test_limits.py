"""Each lesson on MNIST, from an empty run folder, stays well below the 2 GB at which Binder ends a session."""

import time
from pathlib import Path
from threading import Event, Thread

import nbformat
import psutil
import pytest
from nbclient import NotebookClient

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[1]
LESSONS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))
LIMITS = {"05": 1.4}  # GB
LIMIT = 1.2  # GB, of the other lessons
QUICKER = "epochs, seeds, labels_per_class = 1, [0], [10, 'all']"  # fewer trainings, but the largest, so the same peak


class Sampler(Thread):
    """Keeps the largest resident memory of a process and its children, looked at 20 times a second, in GB."""

    def __init__(self, process: psutil.Process) -> None:
        super().__init__(daemon=True)
        self.process, self.peak, self.over = process, 0.0, Event()

    def run(self) -> None:
        while not self.over.wait(0.05):
            try:
                family = [self.process, *self.process.children(recursive=True)]
                self.peak = max(self.peak, sum(member.memory_info().rss for member in family) / 1e9)
            except psutil.NoSuchProcess:  # a child that ended between the two calls
                continue


@pytest.mark.usefixtures("mnist")
@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_a_lesson_stays_within_its_memory(path, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TRANSFER_TUTORIAL_HOME", str(tmp_path))
    notebook = nbformat.read(path, as_version=4)
    parameters = next(cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    parameters.source += f"\n{QUICKER}"
    client = NotebookClient(notebook, timeout=1800, resources={"metadata": {"path": str(tmp_path)}})
    start = time.perf_counter()
    with client.setup_kernel():
        sampler = Sampler(psutil.Process(client.km.provisioner.pid))
        sampler.start()
        for index, cell in enumerate(notebook.cells):
            client.execute_cell(cell, index)
        sampler.over.set()
        sampler.join()
    seconds = time.perf_counter() - start
    with capsys.disabled():
        print(f"\n{path.stem:24} {sampler.peak:5.2f} GB {seconds:6.1f} s")
    assert 0.05 < sampler.peak < LIMITS.get(path.name[:2], LIMIT)
