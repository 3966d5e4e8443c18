"""Break a copy of the project in one place at a time, and report which of the default checks notice.

    python tools/mutations.py [--only NAME] [--jobs 2]

Offline and without MNIST, from an empty run folder. For each fault the unit tests run first, then nbval on the lessons'
reference outputs; both run even if the first has noticed, so that the report can say what the notebooks notice. Before
all of them the same checks run without a fault: where those fail, the others would say nothing.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
MODULES = ["datasets", "tasks", "store", "cnn", "training", "transfer", "experiment", "statistics", "plots"]
UNITS = [f"tests/test_{module}.py" for module in MODULES]


@dataclass(frozen=True)
class Fault:
    """A replacement in one of the helpers, and the lessons whose outputs could show it."""

    name: str
    module: str
    old: str
    new: str
    lessons: str


FAULTS = [
    Fault(
        "labels not shifted", "tasks", "[split.labels == position] = new", "[split.labels == position] = position", "01"
    ),
    Fault(
        "target images in the source task",
        "tasks",
        '_task("source", dataset, source,',
        '_task("source", dataset, (*source[:-1], target[0]),',
        "01",
    ),
    Fault(
        "validation images left in training",
        "tasks",
        "train=split(dataset.train.images, known[train], labels[train])",
        "train=split(dataset.train.images, known, labels)",
        "01",
    ),
    Fault(
        "test split used for validation",
        "tasks",
        "validation=split(dataset.train.images, known[validation], labels[validation])",
        "validation=split(dataset.test.images, tested, test_labels)",
        "01",
    ),
    Fault("images scaled twice", "cnn", "Rescaling(1 / 255,", "Rescaling(1 / 255**2,", "02 03"),
    Fault(
        "one filter too many",
        "cnn",
        'Conv2D(architecture.filters, architecture.kernel_size, name="conv1"',
        'Conv2D(architecture.filters + 1, architecture.kernel_size, name="conv1"',
        "02",
    ),
    Fault(
        "freeze freezes nothing",
        "transfer",
        "layer.trainable = layer.name not in",
        "layer.trainable = True or layer.name not in",
        "04",
    ),
    Fault("freezing without compiling again", "training", "!= self._trained:", "is None:", "04"),
    Fault(
        "features from an untrained network",
        "transfer",
        "start_weights(self.extractor, strategy, target_seed(seed), source)",
        'start_weights(self.extractor, STRATEGIES["scratch"], target_seed(seed), source)',
        "04",
    ),
    Fault(
        "scratch starts pretrained",
        "transfer",
        'Strategy("scratch", "random"',
        'Strategy("scratch", "pretrained"',
        "05",
    ),
    Fault("no dropout in the head", "cnn", "Dropout(0.25,", "Dropout(0.0,", "02"),
    Fault("seed ignored in the weights", "cnn", 'f"{seed} {layer.name} {role}"', 'f"{layer.name} {role}"', "02"),
    Fault(
        "seed ignored in the batches",
        "training",
        "rng = np.random.default_rng(seed)",
        "rng = np.random.default_rng(0)",
        "05",
    ),
    Fault(
        "accuracy on the training split",
        "tasks",
        "test=split(dataset.test.images, tested, test_labels)",
        "test=split(dataset.train.images, known, labels)",
        "01",
    ),
    Fault("interval with n instead of n - 1", "statistics", "stats.sem(numbers)", "stats.sem(numbers, ddof=0)", "05"),
    Fault(
        "figure names shifted labels",
        "plots/tasks",
        "below, beside = name_classes(axis.xaxis, task.classes)",
        "below, beside = name_classes(axis.xaxis, range(len(task.classes)))",
        "03",
    ),
    Fault("two colours swapped", "plots/figures", '"#0072B2", "#009E73"', '"#009E73", "#0072B2"', "05"),
    Fault(
        "two colours swapped in a figure",
        "plots/comparisons",
        'style = STYLES.get(strategy, {"marker": "o"})',
        'style = STYLES.get({"frozen": "scratch", "scratch": "frozen"}.get(strategy, strategy), {"marker": "o"})',
        "05",
    ),
    Fault(
        "two names swapped in the table",
        "statistics",
        '"strategy": strategy,',
        '"strategy": {"frozen": "random-frozen", "random-frozen": "frozen"}.get(strategy, strategy),',
        "05",
    ),
    Fault(
        "the fresh head is the one that pretraining began with",
        "transfer",
        "return int(np.random.SeedSequence([seed, 1]).generate_state(1)[0])",
        "return seed",
        "05",
    ),
    Fault(
        "equality where nothing is detected",
        "statistics",
        "-margin <= low and high <= margin:",
        "low <= 0 <= high:",
        "05",
    ),
    Fault("ranking upside down", "statistics", "sort_values(ascending=False", "sort_values(ascending=True", "05"),
    Fault(
        "pretraining left out of the seconds",
        "statistics",
        '(on_target + trainings["pretrain_seconds"]).median()',
        "on_target.median()",
        "05",
    ),
]


def notices(copy: Path, *arguments: str) -> bool:
    """Run pytest in the copy, offline and without MNIST; return whether anything failed."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(copy),
        "KERAS_HOME": str(copy / "nowhere"),
        "TF_NUM_INTRAOP_THREADS": "1",
    }
    environment.pop("MNIST_NPZ", None)
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *arguments]
    ran = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True)
    if ran.returncode not in (0, 1):
        raise RuntimeError(f"pytest ended with {ran.returncode}:\n{ran.stdout[-2000:]}{ran.stderr[-2000:]}")
    return ran.returncode == 1


def try_fault(fault: Fault) -> tuple[bool, bool]:
    """Return whether the unit tests, and whether the notebooks' outputs, notice a fault."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "project"
        left_out = shutil.ignore_patterns(".git", "runs", "__pycache__", "*.egg-info", ".venv")
        shutil.copytree(ROOT, copy, symlinks=True, ignore=left_out)
        module = copy / "helpers" / f"{fault.module}.py"
        source = module.read_text(encoding="utf-8")
        if source.count(fault.old) != 1:
            raise ValueError(f"{fault.name}: {fault.old!r} occurs {source.count(fault.old)} times in {fault.module}")
        module.write_text(source.replace(fault.old, fault.new), encoding="utf-8")
        references = [next((copy / "tests/reference").glob(f"{number}_*.ipynb")) for number in fault.lessons.split()]
        return notices(copy, *UNITS), notices(copy, *map(str, references))


def main() -> None:
    """Try every fault, or the one named, and print who noticed; exit code 1 if one went unnoticed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="a fault's name, or part of it")
    parser.add_argument("--jobs", type=int, default=2, help="faults tried at once (default: 2)")
    chosen = parser.parse_args()
    faults = [fault for fault in FAULTS if not chosen.only or chosen.only in fault.name]
    if not faults:
        known = "; ".join(fault.name for fault in FAULTS)
        parser.error(f"--only: no fault has {chosen.only!r} in its name; known are {known}")
    lessons = " ".join(sorted({number for fault in faults for number in fault.lessons.split()}))
    if any(try_fault(Fault("no fault", "datasets", "def load_dataset(", "def load_dataset(", lessons))):
        sys.exit("The checks fail without any fault; see python -m pytest, and mend that first")
    unnoticed, width = 0, max(len(fault.name) for fault in faults)
    with ThreadPoolExecutor(chosen.jobs) as pool:
        for fault, (units, notebooks) in tqdm(zip(faults, pool.map(try_fault, faults), strict=True), total=len(faults)):
            by = [name for name, noticed in (("unit tests", units), ("notebooks", notebooks)) if noticed]
            tqdm.write(f"{fault.name:{width}} noticed by {' and '.join(by) or 'NOBODY'}")
            unnoticed += not by
    sys.exit(1 if unnoticed else 0)


if __name__ == "__main__":
    main()
