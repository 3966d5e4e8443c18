"""Kill runs of the course at random moments, resume each, and compare its results with those of an undisturbed run.

    python tools/kills.py [--kills 50] [--seed 0] [--jobs 2]

Lessons 01, 03 and 05 run offline with small parameters, on scikit-learn's digits. SIGKILL, SIGTERM and SIGINT take
turns; each is sent at a random moment between the run's first trace on disk and its end. After each kill, every
notebook must be readable, run.json must say what happened, no process may be left over, and `--resume` must complete
the run.
"""

import argparse
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import psutil
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
RUN = ["--dataset", "digits", "--only", "01,03,05"]
PARAMETERS = {
    "seeds": [0],
    "strategies": ["scratch", "frozen"],
    "labels_per_class": [10],
    "filters": 4,
    "dense_units": 16,
    "epochs": 1,
    "published_epochs": 1,
    "min_updates": 30,
}
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
PATIENCE = 10  # seconds for processes to end


def start(folder: Path, *arguments: str) -> subprocess.Popen:
    """Start the command line, with its output in a log next to the run's folder."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_NUM_INTRAOP_THREADS": "1"}
    environment.pop("MNIST_NPZ", None)
    command = [sys.executable, "-c", "from helpers.runner.cli import main; main()", "run", *arguments]
    with folder.with_suffix(".log").open("a") as log:
        return subprocess.Popen(command, cwd=folder.parent, env=environment, stdout=log, stderr=log)


def start_new(folder: Path) -> subprocess.Popen:
    """Start the run, and wait until it has left its first trace on disk."""
    given = [part for name, value in PARAMETERS.items() for part in ("-p", name, json.dumps(value))]
    process = start(folder, *RUN, *given, "--out", str(folder))
    while not (folder / "run.json").is_file():
        if process.poll() is not None:
            raise RuntimeError(folder.with_suffix(".log").read_text())
        time.sleep(0.01)
    return process


def results(folder: Path) -> pd.DataFrame:
    """Return the rows of a run without columns of seconds, which differ from run to run."""
    rows = pd.read_csv(folder / "results.csv", dtype=str)
    return rows[[column for column in rows if not column.endswith("seconds")]]


def left_alone(folder: Path) -> tuple[float, pd.DataFrame]:
    """Let a run finish; return the seconds since its first trace on disk, and its results."""
    process = start_new(folder)
    began = time.monotonic()
    if process.wait() != 0:
        raise RuntimeError(folder.with_suffix(".log").read_text())
    return time.monotonic() - began, results(folder)


def readable(notebook: Path) -> bool:
    """Tell whether a file contains a notebook with cells."""
    try:
        return bool(json.loads(notebook.read_text(encoding="utf-8"))["cells"])
    except ValueError:
        return False


def kill(folder: Path, number: int, delay: float, expected: pd.DataFrame) -> dict | None:
    """Kill a run after a delay, and resume it; return the findings, or None if the run had already finished."""
    process = start_new(folder)
    try:
        process.wait(delay)
        return None
    except subprocess.TimeoutExpired:
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(number)
    code, record = process.wait(), json.loads((folder / "run.json").read_text())
    _, left = psutil.wait_procs(family, timeout=PATIENCE)
    stopped_at = [lesson["number"] for lesson in record["lessons"] if lesson["status"] in ("running", "interrupted")]
    killed = number == signal.SIGKILL
    over = record["status"] == "done"  # killed while Python was exiting
    again = start(folder, "--resume", str(folder)).wait()
    return {
        "signal": signal.Signals(number).name,
        "after": f"{delay:.1f} s",
        "in lesson": " ".join(stopped_at) or "-",
        "exit code as documented": over or code == (-number if killed else 128 + number),
        "run.json true": over or record["status"] == ("running" if killed else "interrupted"),
        "notebooks readable": all(map(readable, folder.glob("lessons/*.ipynb"))),
        "no process left": not left,
        "resumed": again == 0 and json.loads((folder / "run.json").read_text())["status"] == "done",
        "results equal": again == 0 and results(folder).equals(expected),
    }


def main() -> None:
    """Kill runs as often as requested, and print each result and a table by signal; exit with 1 if a check failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="number of kills (default: 50)")
    parser.add_argument("--seed", type=int, default=0, help="seed for the random moments (default: 0)")
    parser.add_argument("--jobs", type=int, default=2, help="parallel runs (default: 2)")
    chosen = parser.parse_args()
    moments, began = random.Random(chosen.seed), time.monotonic()
    with tempfile.TemporaryDirectory() as here, ThreadPoolExecutor(chosen.jobs) as pool:
        alone = list(pool.map(left_alone, [Path(here, f"alone-{job}") for job in range(chosen.jobs)]))
        seconds, expected = min(took for took, _ in alone), alone[0][1]
        if not all(rows.equals(expected) for _, rows in alone):
            sys.exit("two undisturbed runs differ in their results")
        print(f"an undisturbed run: {seconds:.0f} s, {len(expected)} training runs")
        plans = [
            (number, moments.uniform(0, seconds)) for number in itertools.islice(itertools.cycle(SIGNALS), chosen.kills)
        ]

        def carry_out(position: int) -> dict:
            number, delay = plans[position]
            for attempt in itertools.count():
                found = kill(Path(here, f"run-{position}-{attempt}"), number, delay * 0.9**attempt, expected)
                if found:
                    return found

        rows = []
        for found in tqdm(pool.map(carry_out, range(chosen.kills)), total=chosen.kills):
            rows.append(found)
            wrong = [name for name, value in found.items() if value is False]
            tqdm.write(
                f"{found['signal']:8} after {found['after']:>7}, in lesson {found['in lesson']:3} {wrong or 'fine'}"
            )
    table = pd.DataFrame(rows)
    checks = [name for name in table if table[name].dtype == bool]
    print(f"\n{table.groupby('signal')[checks].sum().assign(kills=table.groupby('signal').size()).T.to_string()}")
    print(f"\n{len(table)} kills in {(time.monotonic() - began) / 60:.0f} minutes")
    sys.exit(0 if table[checks].all(axis=None) else 1)


if __name__ == "__main__":
    main()
