"""The whole course through the command line, on embedded digits: real papermill, real kernels, real TensorFlow."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from refresh_outputs import REFERENCE_PARAMETERS
from tiny_course import save_npz, transfer_tutorial

from helpers.store import write_text

pytestmark = pytest.mark.notebook
REFERENCE = Path(__file__).resolve().parent / "reference"
STORED = sorted(path.name for path in REFERENCE.glob("results-*.csv"))
TOLERANCE = 0.03  # in accuracy: on a different processor, 15 of 500 test images may be classified differently
OUT = "<u>run {0} 'é"
LETTERS = '"><script>alert(1)<&script><img src=x onerror=alert(1)>.npz'
SMALL = {  # fast, and with tasks of different sizes than in the lessons
    "source_classes": [10, 11, 12, 13, 14, 15, 16],
    "target_classes": [33, 34, 35],
    "seeds": [0],
    "strategies": ["scratch", "frozen", "random-frozen", "reused-head"],
    "labels_per_class": ["all"],
    "filters": 4,
    "dense_units": 8,
    "min_updates": 20,
    "published_epochs": 1,
}


def read_results(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype={"lesson": str, "labels_per_class": str})


def run_course(folder: Path, parameters: dict, *arguments: str) -> Path:
    """Run lessons from their own folder; return the run's folder, which has HTML markup in its name."""
    given = [part for name, value in parameters.items() for part in ("-p", name, json.dumps(value))]
    ran = transfer_tutorial(folder, "run", *given, *arguments, "--out", OUT)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "Open " in ran.stdout
    (folder / "printed").write_text(ran.stdout + ran.stderr)
    return folder / OUT


# The lessons in tests/reference/


@pytest.fixture(scope="module")
def reference_results(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder with the results of the lessons in tests/reference/.

    Usually, nbval has just saved them in the run folder that all kernels share; otherwise the lessons are run.
    """
    left = home / "runs" / "lessons"
    if not all((left / name).is_file() for name in STORED):
        run = run_course(tmp_path_factory.mktemp("reference"), REFERENCE_PARAMETERS, "--only", "03,04,05,06,07")
        left = run / "artefacts"
    return left


@pytest.mark.parametrize("name", STORED)
def test_results_agree_with_the_stored_ones(reference_results, name):
    stored, fresh = read_results(REFERENCE / name), read_results(reference_results / name)
    exact = ["lesson", "task", "classes", "strategy", "labels_per_class", "seed", "updates", "test_images"]
    assert fresh[exact].equals(stored[exact])
    by_chance = (stored["task"] == "photos") & (stored["strategy"] != "frozen")  # hardly better than guessing
    assert (fresh["test_accuracy"] - stored["test_accuracy"])[~by_chance].abs().max() <= TOLERANCE
    assert fresh["train_seconds"].notna().all()


# A run of lessons 01 to 05 on letters, and a repetition of its lesson 05


@pytest.fixture(scope="module")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run lessons with small parameters on letters, including duplicates, into a path with spaces."""
    folder, letters = tmp_path_factory.mktemp("some where"), np.resize(np.arange(10, 36), 2080)
    train = np.random.default_rng(0).integers(0, 256, (2080, 8, 8), np.uint8)
    test = np.concatenate([train[:-4:-1], ~train[-4::-1]])
    save_npz(folder / LETTERS, x_train=train, y_train=letters, x_test=test, y_test=letters)
    return run_course(folder, SMALL, "--dataset", LETTERS, "--only", "01,02,03,04,05")


@pytest.mark.outside
def test_every_lesson_runs_and_leaves_its_pages(small_run):
    record = json.loads((small_run / "run.json").read_text())
    assert [lesson["status"] for lesson in record["lessons"]] == ["done"] * 5
    assert len(list((small_run / "lessons").glob("*.ipynb"))) == len(list((small_run / "html").glob("*.html"))) == 5
    index = (small_run / "index.html").read_text()
    assert "data:image/png" in index and "random-frozen" in index
    assert set(read_results(small_run / "results.csv")["lesson"]) == {"03", "04", "05"}


@pytest.mark.outside
def test_tasks_of_other_sizes_name_the_right_classes(small_run):
    rows = read_results(small_run / "results.csv")
    assert set(rows["classes"]) == {"10 11 12 13 14 15 16", "33 34 35"}
    assert "reused-head" not in set(rows["strategy"])
    lesson = (small_run / "lessons" / "05_transfer_comparison.ipynb").read_text()
    assert "reused-head is left out: the source task's head has 7 outputs and the target task 3 classes" in lesson
    assert "one seed gives no interval" in lesson


@pytest.mark.outside
def test_images_that_are_in_training_and_test_are_reported(small_run):
    assert "Note: 3 of 2080 test images are also training images" in (small_run.parent / "printed").read_text()
    assert json.loads((small_run / "run.json").read_text())["dataset"]["test images also in training"] == 3
    lesson = (small_run / "lessons" / "01_data_split.ipynb").read_text()
    assert re.search(r"test images that are also training images +3\b", lesson)


def make_hostile(folder: Path) -> dict[str, str]:
    """Write other programs' settings and a conflicting module into a folder; return variables that point there."""
    files = {
        "keras.json": '{"image_data_format": "channels_first", "floatx": "float64", "backend": "jax"}',
        "matplotlibrc": "text.usetex: True\nfigure.dpi: 40\naxes.facecolor: black\n",
        "profile_default/startup/00.py": "import pandas\npandas.set_option('display.max_rows', 2)\n",
        "profile_default/ipython_config.py": "c = get_config()\nc.InteractiveShell.ast_node_interactivity = 'none'\n",
        "startup.py": "raise RuntimeError('PYTHONSTARTUP')",
        "helpers.py": "",
        "nbconvert/templates/basic/index.html.j2": "{% another %}",
    }
    for name, text in files.items():
        write_text(folder / name, text)
    paths = {"MATPLOTLIBRC": "matplotlibrc", "PYTHONSTARTUP": "startup.py"}
    paths |= dict.fromkeys(["KERAS_HOME", "IPYTHONDIR", "JUPYTER_PATH", "GIT_DIR"], "")
    short = {"KERAS_MAX_EPOCHS": "1", "KERAS_BACKEND": "jax", "LC_ALL": "C"}
    short |= {"PYTHONWARNINGS": "error", "PYTHONOPTIMIZE": "1", "MPLBACKEND": "nonsense"}
    return {name: str(folder / path) for name, path in paths.items()} | short


def pictures(run: Path, lesson: str) -> list[str]:
    """Return the figures in one of a run's notebooks, except figures of seconds, which always differ."""
    cells = json.loads(next((run / "lessons").glob(f"{lesson}_*.ipynb")).read_text(encoding="utf-8"))["cells"]
    shown = [output for cell in cells for output in cell.get("outputs", []) if "image/png" in output.get("data", {})]
    alt_texts = [output["metadata"]["image/png"]["alt"] for output in shown]
    return [out["data"]["image/png"] for out, text in zip(shown, alt_texts, strict=True) if "seconds" not in text]


@pytest.mark.outside
def test_a_run_repeated_from_its_record_gives_the_same_whatever_other_programs_settings(
    small_run, tmp_path, monkeypatch
):
    first = json.loads((small_run / "run.json").read_text())
    recorded = first["lessons"][4]["parameters"]
    for variable, value in make_hostile(tmp_path).items():
        monkeypatch.setenv(variable, value)
    again = run_course(tmp_path, recorded, "--only", "05")
    second = json.loads((again / "run.json").read_text())
    assert all(first[part] == second[part] for part in ("dataset", "made_with"))
    before, after = (pd.read_csv(run / "results.csv", dtype=str) for run in (small_run, again))
    compared = [column for column in after if not column.endswith("seconds")]
    assert len(after) == 1 + 3 and len(compared) == 14
    assert before[before["lesson"] == "05"][compared].reset_index(drop=True).equals(after[compared])
    pairs = list(zip(pictures(small_run, "05"), pictures(again, "05"), strict=True))
    assert [one == other for one, other in pairs] == [True] * 3  # comparing the figures themselves would print too much
