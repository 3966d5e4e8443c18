"""Plant one fault at a time in a copy of the project, and report which test notices it.

    python tools/mutations.py [--only NAME] [--jobs 2]

Each fault in `faults.txt` is a slip that would affect users, listed with the tests that could notice it: a module's
tests or, if only a lesson can, the comparison with that lesson's reference outputs. The tests run offline, without
MNIST, from an empty run folder, up to the first failure. First, they all run once without any fault, because a test
that fails anyway would prove nothing. The exit code is 1 if a fault goes unnoticed.
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
    """A replacement in a helper, and tests that could notice it: "tasks" for tests/test_tasks.py, "05" for lesson 05.

    The text to replace is short and occurs only once in the module.
    """

    name: str
    module: str
    old: str
    new: str
    tests: str


def read_faults(text: str) -> list[Fault]:
    """Read the faults in `faults.txt`."""
    faults = []
    for heading, listed in re.findall(r"(?m)^== (.+)\n((?:[^=\n].*\n)+)", text):
        module, tests = heading.split(": ")
        for name, *replaced in re.findall(r"(?m)^(\w.*)\n((?:-.*\n)+)((?:\+.*\n)+)", listed):
            old, new = ("\n".join(line[2:] for line in part.splitlines()) for part in replaced)
            faults.append(Fault(name, module, old, new, tests))
    return faults


FAULTS = read_faults(Path(__file__).with_name("faults.txt").read_text(encoding="utf-8"))


def paths(tests: str) -> list[str]:
    """Return the files of tests and lessons, given their short names, such as "tasks 05"."""
    lessons = {path.name[:2]: path for path in (ROOT / "tests" / "reference").glob("*.ipynb")}
    files = [lessons.get(name, ROOT / "tests" / f"test_{name}.py") for name in tests.split()]
    return [str(path.relative_to(ROOT)) for path in files]


def first_failure(copy: Path, tests: Sequence[str]) -> str | None:
    """Run tests in a copy, offline and without MNIST; return the name of the first one that fails, or None."""
    environment = {**os.environ, "PYTHONPATH": str(copy), "KERAS_HOME": str(copy / "nowhere")}
    environment["TF_NUM_INTRAOP_THREADS"] = "1"
    for data in ("MNIST_NPZ", "TRANSFER_TUTORIAL_DATA"):
        environment.pop(data, None)
    command = [sys.executable, "-m", "pytest", "-n", "0", "-x", "-q", "-p", "no:cacheprovider", *tests]
    ran = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True)
    if ran.returncode not in (0, 1):
        raise RuntimeError(f"pytest ended with {ran.returncode}:\n{ran.stdout[-2000:]}{ran.stderr[-2000:]}")
    failed = re.search(r"(?m)^(?:FAILED|ERROR) (?:tests/)?(.+?)(?: - .*)?$", ran.stdout)
    return (failed[1] if failed else "a test") if ran.returncode else None


def plant(fault: Fault) -> tuple[str | None, float]:
    """Try a fault in a copy; return the name of a test that notices it, if any, and the seconds taken."""
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
    """Try every fault, or the chosen ones, and print which test noticed each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="a fault's name, part of a name, or a module")
    parser.add_argument("--jobs", type=int, default=2, help="faults to try in parallel (default: 2)")
    asked = parser.parse_args()
    chosen = [fault for fault in FAULTS if not asked.only or asked.only in fault.name or asked.only == fault.module]
    if not chosen:
        known = "; ".join(fault.name for fault in FAULTS)
        parser.error(f"--only: no fault has {asked.only!r} in its name; known faults: {known}")
    tests = " ".join(dict.fromkeys(name for fault in chosen for name in fault.tests.split()))
    print(f"Without a fault: {tests} ...", flush=True)
    failed, seconds = plant(Fault("no fault", "datasets", "def load_dataset(", "def load_dataset(", tests))
    if failed:
        sys.exit(f"{failed} fails without any fault; run python -m pytest and fix that first")
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
