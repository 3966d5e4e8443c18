"""Tiny lessons that don't train anything, notebooks for other tests, and the command line to run them."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import nbformat
import numpy as np
from click.testing import CliRunner, Result
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from helpers.folders import REPOSITORY
from helpers.runner.cli import main
from helpers.runner.notebooks import CellError, KernelSettings, Notebook
from helpers.store import write_text

DATA = """
dataset: str = "digits"  # a name, or the path of an .npz file
source_classes: list = [5, 6, 7, 8, 9]  # labels of the source task
target_classes: list = [0, 1, 2, 3, 4]  # labels of the target task
validation_fraction: float = 0.1  # share held out
seed: int = 0  # every random draw follows from it
"""
TRAINING = """
learning_rate: float = 1.0  # step size
epochs: int = 5  # passes
run_dir: str = "runs/lessons"  # run folder
"""
COMPARING = """
strategies: list = ["scratch", "frozen"]  # what to compare
labels_per_class: list = [10, 50, "all"]  # label budgets
seeds: list = [0, 1]  # repetitions
recipe: str = "fast"  # named recipe
trap: str = ""  # a file; if it is there, its content is executed
run_dir: str = "runs/lessons"  # run folder
"""
PRETRAINING = "number, rows = '03', [('source', '5 6 7 8 9', 'scratch', 'all', 0, 10, 0.9876543210987654, 1.5)]"
COMPARISON = """
number, rows = '05', [
    ('target', '0 1 2 3 4', strategy, budget, seed, 10, 0.5 + seed / 4, 1.0)
    for seed in seeds for strategy in strategies for budget in labels_per_class
]
"""
TRAP = "print('before', flush=True)\nfrom pathlib import Path\nif Path(trap).is_file(): exec(Path(trap).read_text())"
SAVE = """
import os
from pathlib import Path

from helpers import folders, store
from helpers.provenance import provenance

folder = folders.run_folder(run_dir)
make = lambda path: {"bytes": path.write_bytes(b"weights" * 1000)}
store.load_or_make(folder, "weights.bin", provenance(lesson=number), make)
lines = ["lesson,task,classes,strategy,labels_per_class,seed,updates,test_accuracy,train_seconds"]
lines += [",".join(map(str, (number, *row))) for row in rows]  # what save_results writes, without pandas
results = Path(os.environ.get("TRANSFER_TUTORIAL_RESULTS") or folder)
store.write_text(results / f"results-{number}.csv", "\\n".join(lines) + "\\n")
"""
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
FIGURE = f"display({{'image/png': '{PNG}'}}, raw=True, metadata={{'image/png': {{'alt': 'It \"rises\" <fast>'}}}})"


def write_notebook(path: Path, parameters: str, *code: str, title: str = "Own") -> Path:
    """Write a notebook with a cell tagged parameters; return its path."""
    cells = [new_markdown_cell(f"# {title}\n\nProse."), new_code_cell(parameters.strip())]
    cells[1].metadata["tags"] = ["parameters"]
    cells += [new_code_cell(source.strip()) for source in code]
    if FIGURE in code:
        cells[-1].metadata["tags"] = ["key-figure"]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=cells, metadata=metadata), path)
    return path


def write_course(folder: Path) -> None:
    """Write three lessons: 01 prints, 03 and 05 save weights and results, and a trap makes 05 fail or hang."""
    lessons = {
        "01_data": (DATA, "import sys\nprint(sys.executable, dataset, seed)"),
        "03_pretraining": (DATA + TRAINING, PRETRAINING, SAVE),
        "05_comparison": (DATA + COMPARING, COMPARISON, TRAP, SAVE, FIGURE),
    }
    for name, cells in lessons.items():
        write_notebook(folder / f"{name}.ipynb", *cells, title=f"{name[:2]} · Lesson")


def pretend_to_execute(
    lesson: Notebook, output: Path, values: dict, settings: KernelSettings, description: str | None = None
) -> None:
    """Stand in for `notebooks.execute` without a kernel: write a notebook, and result rows for lesson 03."""
    try:
        write_text(output, lesson.path.read_text())
        if lesson.number == "03":
            rows = "lesson,task,classes,strategy,labels_per_class,seed,test_accuracy\n03,source,5 6,scratch,all,0,0.5\n"
            write_text(Path(settings.environment["TRANSFER_TUTORIAL_RESULTS"], "results-03.csv"), rows)
    except OSError as error:
        raise CellError(0, str(error)) from error


def run(*arguments: str | Path) -> Result:
    """Run the command line in this process."""
    return CliRunner().invoke(main, ["run", *map(str, arguments)])


# Under nohup, as in some CI, child processes ignore SIGHUP, so its effect could not be tested.
LISTEN = "import signal; hasattr(signal, 'SIGHUP') and signal.signal(signal.SIGHUP, signal.SIG_DFL); "
CHILD = (
    f"{LISTEN}import sys; "
    "sys.modules['rfc3987_syntax'] = None; "  # needed by jsonschema; takes longer to import than everything else
    "from pathlib import Path; from helpers.runner import cli, notebooks; "
    "notebooks.LESSONS = Path(sys.argv.pop(1)); cli.main()"
)


def start(notebooks: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start the command line in a separate process, on the lessons in a folder."""
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(notebooks), "run", *arguments],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def transfer_tutorial(folder: Path, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a separate process, from a folder, on the real lessons."""
    code = "from helpers.runner.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-P", "-c", code, *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), **environment},
        capture_output=True,
        text=True,
    )


def record(folder: Path | str) -> dict:
    return json.loads(Path(folder, "run.json").read_text())


def status(folder: Path | str) -> list[str]:
    return [lesson["status"] for lesson in record(folder)["lessons"]]


def outputs(folder: Path | str, lesson: str) -> str:
    """Return everything that the cells of an executed lesson printed."""
    return printed(Path(folder, "lessons", f"{lesson}.ipynb"))


def printed(executed: Path) -> str:
    """Return everything that the cells of an executed notebook printed."""
    cells = nbformat.read(executed, as_version=4).cells
    return "".join(output.get("text", "") for cell in cells for output in cell.get("outputs", []))


def arrays(
    images: int = 8, size: int = 8, channels: int = 0, classes: tuple[int, ...] = (3, 9, 5, 7)
) -> dict[str, np.ndarray]:
    """Return the four arrays of a valid .npz file; the labels cycle through the classes."""
    shape = (images, size, size, channels) if channels else (images, size, size)
    rng, labels = np.random.default_rng(0), np.resize(classes, images)
    train, test = (rng.integers(0, 256, shape, np.uint8) for _ in range(2))
    return {"x_train": train, "y_train": labels, "x_test": test, "y_test": labels}


def save_npz(path: str | Path, **changes: np.ndarray | None) -> None:
    """Save a small dataset of ten classes; changes replace arrays, or leave them out if None."""
    changed = {**arrays(200, classes=tuple(range(10))), **changes}
    np.savez(path, **{name: array for name, array in changed.items() if array is not None})


def wait_until(condition: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)
