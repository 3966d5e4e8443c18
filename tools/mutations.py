"""Plant one fault at a time in a copy of the project, and report which test notices it.

    python tools/mutations.py [--only NAME] [--jobs 2]

A fault is a slip that changes what somebody gets, and names the tests that could notice it: a module's tests and, where
only a lesson can, the comparison of that lesson's reference outputs. They run offline, without MNIST, from an empty run
folder, up to the first that fails. They all run once without a fault beforehand: if one failed then, its failures with
a fault would mean nothing. The exit code is 1 if a fault goes unnoticed.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LEFT_OUT = shutil.ignore_patterns(".git", "runs", "sweeps", "build", "__pycache__", ".*_cache", "*.egg-info", ".venv")


@dataclass(frozen=True)
class Fault:
    """A replacement in one of the helpers, and who could notice it: "tasks" for tests/test_tasks.py, "05" for a lesson.

    The text to replace is a short one that occurs once.
    """

    name: str
    module: str
    old: str
    new: str
    tests: str


FAULTS = [
    # tasks: which images are in which part, and under which label
    Fault(
        "labels not shifted",
        "tasks",
        "[split.labels == position] = new",
        "[split.labels == position] = position",
        "tasks",
    ),
    Fault(
        "target images in the source task",
        "tasks",
        '_task("source", dataset, source,',
        '_task("source", dataset, (*source[:-1], target[0]),',
        "tasks",
    ),
    Fault(
        "validation images left in training",
        "tasks",
        "train=split(dataset.train.images, known[train], labels[train])",
        "train=split(dataset.train.images, known, labels)",
        "tasks",
    ),
    Fault(
        "test split used for validation",
        "tasks",
        "validation=split(dataset.train.images, known[validation], labels[validation])",
        "validation=split(dataset.test.images, tested, test_labels)",
        "tasks",
    ),
    Fault(
        "accuracy on the training split",
        "tasks",
        "test=split(dataset.test.images, tested, test_labels)",
        "test=split(dataset.train.images, known, labels)",
        "tasks",
    ),
    # files: images of a user
    Fault(
        "test images of a folder in training, too",
        "files",
        "for_training, for_testing = np.flatnonzero(~in_test)",
        "for_training, for_testing = np.arange(len(in_test))",
        "files",
    ),
    Fault(
        "orientation of photos ignored",
        "files",
        "ImageOps.exif_transpose(image, in_place=True)",
        "image.getexif()",
        "files",
    ),
    Fault(
        "numbered folders in the order of their names",
        "files",
        "enumerate(classes)}",
        "enumerate(sorted(map(str, classes)))}",
        "files",
    ),
    Fault(
        "labels of a .csv file out of step with its images",
        "files",
        "labels[order]",
        "labels",
        "files",
    ),
    Fault("booleans stay nearly black", "files", 'kind in "bf" and', 'kind in "f" and', "files"),
    Fault("transparent pixels become black", "files", 'image.size, "white")', 'image.size, "black")', "files"),
    Fault(
        "the corner of a photo instead of its center",
        "files",
        "left, top = (image.width - side) // 2,",
        "left, top = 0,",
        "files",
    ),
    # cnn and training
    Fault("images scaled twice", "cnn", "Rescaling(1 / 255,", "Rescaling(1 / 255**2,", "cnn training"),
    Fault(
        "one filter too many",
        "cnn",
        'Conv2D(architecture.filters, architecture.kernel_size, name="conv1"',
        'Conv2D(architecture.filters + 1, architecture.kernel_size, name="conv1"',
        "cnn",
    ),
    Fault("no dropout in the head", "cnn", "Dropout(0.25,", "Dropout(0.0,", "cnn"),
    Fault("seed ignored in the weights", "cnn", 'f"{seed} {layer.name} {role}"', 'f"{layer.name} {role}"', "cnn"),
    Fault(
        "seed ignored in the batches",
        "training",
        "rng = np.random.default_rng(seed)",
        "rng = np.random.default_rng(0)",
        "training",
    ),
    Fault("freezing without compiling again", "training", "!= self._trained:", "is None:", "training transfer"),
    # transfer: what is frozen, and where weights come from
    Fault(
        "freeze freezes nothing",
        "transfer",
        "layer.trainable = layer.name not in",
        "layer.trainable = True or layer.name not in",
        "transfer",
    ),
    Fault(
        "features from an untrained network",
        "transfer",
        "start_weights(self.extractor, strategy, repetition)\n        train =",
        'start_weights(self.extractor, STRATEGIES["scratch"], repetition)\n        train =',
        "transfer",
    ),
    Fault(
        "scratch starts pretrained",
        "transfer",
        'Strategy("scratch", "random"',
        'Strategy("scratch", "pretrained"',
        "transfer",
    ),
    Fault(
        "the fresh head is the one that pretraining began with",
        "transfer",
        "return int(np.random.SeedSequence([seed, 1]).generate_state(1)[0])",
        "return seed",
        "transfer",
    ),
    Fault(
        "head-first forgets the trained head",
        "transfer",
        "in head.weights.items():",
        "in {}.items():",
        "transfer",
    ),
    Fault(
        "head-first at the full rate", "transfer", "GENTLE_UPDATES = 0.1, 0.5", "GENTLE_UPDATES = 1.0, 0.5", "transfer"
    ),
    Fault(
        "head-first leaves the features frozen",
        "transfer",
        "then = self.whole.train(images,",
        "freeze(self.whole.model)\n        then = Trainer(self.whole.model, self.recipe).train(images,",
        "transfer",
    ),
    Fault(
        "head-first meets the images in another order",
        "transfer",
        "target_seed(repetition.seed), recipe=gentle",
        "repetition.seed, recipe=gentle",
        "transfer",
    ),
    # backbones: what MobileNet is fed, and the head on its features
    Fault(
        "MobileNet is fed 0 to 255",
        "backbones",
        "layers.Rescaling(1 / 127.5, offset=-1)",
        "layers.Rescaling(1.0)",
        "backbones",
    ),
    Fault("cut in the middle of a block", "backbones", "conv_pw_{block}_relu", "conv_dw_{block}_relu", "backbones"),
    Fault(
        "the same images at every seed",
        "backbones",
        "subsample(train, labels_per_class, seed)",
        "subsample(train, labels_per_class, 0)",
        "backbones",
    ),
    Fault("weights of a file not loaded", "backbones", "weights=weights and str(weights)", "weights=None", "backbones"),
    Fault("features scaled by the test features", "backbones", ".fit(_flat(train))", ".fit(_flat(test))", "backbones"),
    Fault(
        "a head goes on from its last training",
        "backbones",
        "cnn.initialize(self.trainer.model, draws)",
        "",
        "backbones",
    ),
    Fault(
        "a saved head scales its features differently", "backbones", "scaler.scale_**2", "scaler.scale_", "backbones"
    ),
    # statistics: what is concluded
    Fault(
        "interval with n instead of n - 1",
        "statistics",
        "stats.sem(numbers)",
        "stats.sem(numbers, ddof=0)",
        "statistics",
    ),
    Fault(
        "equality where nothing is detected",
        "statistics",
        "low <= ratio.low and ratio.high <= high else",
        "ratio.low <= 1 <= ratio.high else",
        "statistics",
    ),
    Fault("comparisons not counted", "statistics", "known[order] * left", "known[order] * 1", "statistics"),
    Fault(
        "ranking upside down", "statistics", "sort_values(ascending=False", "sort_values(ascending=True", "statistics"
    ),
    Fault(
        "pretraining left out of the seconds",
        "statistics",
        '(on_target + trainings["pretrain_seconds"]).median()',
        "on_target.median()",
        "statistics",
    ),
    Fault(
        "two names swapped in the table",
        "statistics",
        '"strategy": strategy,',
        '"strategy": {"frozen": "random-frozen", "random-frozen": "frozen"}.get(strategy, strategy),',
        "statistics",
    ),
    # plots
    Fault(
        "figure names shifted labels",
        "plots/tasks",
        "below, beside = name_classes(axis.xaxis, task.classes)",
        "below, beside = name_classes(axis.xaxis, range(len(task.classes)))",
        "plots",
    ),
    Fault("two colors swapped", "plots/figures", '"#0072B2", "#009E73"', '"#009E73", "#0072B2"', "plots"),
    Fault(
        "two colors swapped in a figure",
        "plots/comparisons",
        'style = STYLES.get(strategy, {"marker": "o"})',
        'style = STYLES.get({"frozen": "scratch", "scratch": "frozen"}.get(strategy, strategy), {"marker": "o"})',
        "plots",
    ),
    # checks: what a learner is told
    Fault(
        "any label passes for the most frequent one",
        "checks/data_split",
        "[0] < counts.max():",
        "[0] < counts.min():",
        "checks",
    ),
    Fault(
        "training images among the test images are right",
        "checks/data_split",
        "shared := training & test",
        "shared := training & test & validation",
        "checks",
    ),
    Fault(
        "convolutions that stay frozen are right",
        "checks/freezing",
        "for before in (True, False):",
        "for before in (True,):",
        "checks",
    ),
    Fault(
        "a feature map of the right size is right",
        "checks/cnn_build",
        "np.allclose(given, right)",
        "given.shape == right.shape",
        "checks",
    ),
    Fault("numbers are compared to one digit", "checks/replies", "rel_tol=2e-3", "rel_tol=2e-1", "checks"),
    Fault(
        "a point for three dots",
        "checks/replies",
        "if GRADED:",
        "if GRADED and not missing:",
        "class",
    ),
    # runner: what is run, with which parameters, and what counts as done
    Fault("parameters not passed to a notebook", "runner/notebooks", "parameters=values,", "parameters={},", "cli"),
    Fault(
        "a lesson that failed counts as done",
        "runner/batch",
        '{"status": "failed", "cell"',
        '{"status": "done", "cell"',
        "cli",
    ),
    Fault(
        "a lesson with damaged results is not run again",
        "runner/batch",
        'return readable and entry.get("results")',
        'return readable or entry.get("results")',
        "cli",
    ),
    Fault("other data on resume", "runner/batch", "if facts != now.get(name):", "if facts is None:", "cli"),
    Fault(
        "rows of failed lessons count",
        "runner/batch",
        'for entry in run.record["lessons"] if entry["status"] == "done"]',
        'for entry in run.record["lessons"]]',
        "cli",
    ),
    Fault(
        "runs that failed are not repeated",
        "runner/sweep",
        'for record in known if record["status"] == "done"}',
        "for record in known}",
        "sweep",
    ),
    Fault(
        "a sweep that goes on repeats all runs",
        "runner/sweep",
        "[name for name in sweep.runs if name not in done]",
        "list(sweep.runs)",
        "sweep",
    ),
    Fault(
        "rows of a sweep show the defaults",
        "runner/sweep",
        'as_text(record["parameters"].get(name, sweep.defaults[name]))',
        "as_text(sweep.defaults[name])",
        "sweep",
    ),
    Fault("runs on changed data are kept", "runner/sweep", "[value, digests.get(as_text(value))]", "value", "sweep"),
    Fault(
        "whole numbers do not stand for floats",
        "runner/parameters",
        "settled[name] = float(value)",
        "settled[name] = value",
        "sweep",
    ),
    Fault(
        "a handout has the defaults of its lesson",
        "runner/assignments",
        "cell.source = with_values(cell.source, values)",
        "with_values(cell.source, values)",
        "class",
    ),
]


def paths(tests: str) -> list[str]:
    """Return the files of tests and lessons by their short names, such as "tasks 05"."""
    lessons = {path.name[:2]: path for path in (ROOT / "tests" / "reference").glob("*.ipynb")}
    files = [lessons.get(name, ROOT / "tests" / f"test_{name}.py") for name in tests.split()]
    return [str(path.relative_to(ROOT)) for path in files]


def first_failure(copy: Path, tests: Sequence[str]) -> str | None:
    """Run tests in a copy, offline and without MNIST, up to the first that fails; return its name, None if all pass."""
    environment = {**os.environ, "PYTHONPATH": str(copy), "KERAS_HOME": str(copy / "nowhere")}
    environment["TF_NUM_INTRAOP_THREADS"] = "1"
    for data in ("MNIST_NPZ", "TRANSFER_TUTORIAL_DATA"):
        environment.pop(data, None)
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    ran = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True)
    if ran.returncode not in (0, 1):
        raise RuntimeError(f"pytest ended with {ran.returncode}:\n{ran.stdout[-2000:]}{ran.stderr[-2000:]}")
    failed = re.search(r"(?m)^(?:FAILED|ERROR) (?:tests/)?(.+?)(?: - .*)?$", ran.stdout)
    return (failed[1] if failed else "a test") if ran.returncode else None


def plant(fault: Fault) -> tuple[str | None, float]:
    """Try a fault in a copy; return the test that notices it, if one does, and the seconds that this took."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "project"
        shutil.copytree(ROOT, copy, symlinks=True, ignore=LEFT_OUT)
        module = copy / "helpers" / f"{fault.module}.py"
        source = module.read_text(encoding="utf-8")
        if source.count(fault.old) != 1:
            raise ValueError(f"{fault.name}: {fault.old!r} occurs {source.count(fault.old)} times in {fault.module}")
        module.write_text(source.replace(fault.old, fault.new), encoding="utf-8")
        return first_failure(copy, paths(fault.tests)), time.monotonic() - start


def main() -> None:
    """Try every fault, or those named, and print as each ends who noticed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="a fault's name, or part of it, or a module")
    parser.add_argument("--jobs", type=int, default=2, help="faults tried at once (default: 2)")
    asked = parser.parse_args()
    chosen = [fault for fault in FAULTS if not asked.only or asked.only in fault.name or asked.only == fault.module]
    if not chosen:
        known = "; ".join(fault.name for fault in FAULTS)
        parser.error(f"--only: no fault has {asked.only!r} in its name; known are {known}")
    tests = " ".join(dict.fromkeys(name for fault in chosen for name in fault.tests.split()))
    print(f"Without a fault: {tests} ...", flush=True)
    failed, seconds = plant(Fault("no fault", "datasets", "def load_dataset(", "def load_dataset(", tests))
    if failed:
        sys.exit(f"{failed} fails without any fault; see python -m pytest, and mend that first")
    print(f"... all pass ({seconds:.0f} s)", flush=True)
    unnoticed = []
    with ThreadPoolExecutor(asked.jobs) as pool:
        trials = {pool.submit(plant, fault): fault for fault in chosen}
        for number, trial in enumerate(as_completed(trials), start=1):
            fault, (noticed, seconds) = trials[trial], trial.result()
            by = noticed or f"NOBODY of {fault.tests}"
            print(f"[{number}/{len(chosen)}] {fault.name}: noticed by {by} ({seconds:.0f} s)", flush=True)
            unnoticed += [] if noticed else [fault.name]
    sys.exit(f"Unnoticed: {'; '.join(unnoticed)}" if unnoticed else None)


if __name__ == "__main__":
    main()
