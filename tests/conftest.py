"""Fixtures and markers. No test downloads anything, and none touches the repository's own run folder."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import numpy as np
import pytest
from PIL import Image
from tiny_course import arrays, save_npz, write_course

from helpers import datasets
from helpers.images import Dataset
from helpers.runner import notebooks
from helpers.tasks import Task, split_tasks

if TYPE_CHECKING:
    from playwright.sync_api import Browser

REPOSITORY = Path(__file__).resolve().parents[1]
CACHED = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras")) / "datasets" / "mnist.npz"
NO_MNIST = "MNIST is not available: set MNIST_NPZ to a mnist.npz"
DATA = Path(os.environ.get("TRANSFER_TUTORIAL_DATA") or os.devnull).expanduser().absolute()
MNIST_AT_HAND = bool(os.environ.get("MNIST_NPZ")) or CACHED.is_file() or (DATA / "mnist.npz").is_file()
IN_CI = bool(os.environ.get("CI"))  # in CI, a missing browser is a failure
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

hypothesis.settings.register_profile("course", deadline=None, derandomize=True, database=None, max_examples=60)
hypothesis.settings.load_profile("course")

if os.environ.get("MNIST_NPZ"):  # notebook kernels start in different folders
    os.environ["MNIST_NPZ"] = str(Path(os.environ["MNIST_NPZ"]).expanduser().absolute())
if os.environ.get("TRANSFER_TUTORIAL_DATA"):
    os.environ["TRANSFER_TUTORIAL_DATA"] = str(DATA)


def pytest_configure(config: pytest.Config) -> None:
    """Give the whole session an empty home for run folders; nbval's kernels inherit it, but use no fixtures."""
    home = tempfile.TemporaryDirectory(prefix="transfer-tutorial-")
    os.environ["TRANSFER_TUTORIAL_HOME"] = home.name
    os.environ["TQDM_DISABLE"] = "1"  # a bar that only slow machines show would differ from the stored outputs
    for name in notebooks.THREADS:  # the tests run in one process per core
        os.environ.setdefault(name, "1")
    config.add_cleanup(home.cleanup)


@pytest.hookimpl(tryfirst=True)  # before pytest selects by marker
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests that execute lessons or need MNIST, skip the latter if MNIST is missing, and run lessons first."""
    tests, lessons, pages = REPOSITORY / "tests", REPOSITORY / "notebooks", REPOSITORY / "docs"
    for item in items:
        if item.path.suffix == ".ipynb" and item.path.parent != pages:
            item.add_marker("notebook")
        if item.path.parent == lessons or "mnist" in getattr(item, "fixturenames", ()):
            item.add_marker("mnist")
            if not MNIST_AT_HAND:
                item.add_marker(pytest.mark.skip(reason=NO_MNIST))
    order = {lessons: 0, tests / "reference": 1, tests / "test_course.py": 2}  # test_course needs the reference results
    items.sort(key=lambda item: order.get(item.path, order.get(item.path.parent, 3)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Run the lessons in tests/reference/ and the test of their results in one process, since they share a home."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduler(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return "reference" if re.match("tests/(reference/|test_course)", file) else file

    return Scheduler(config, log)


@pytest.fixture(scope="session")
def home() -> Path:
    """Return the home for run folders that the whole session shares."""
    return Path(os.environ["TRANSFER_TUTORIAL_HOME"])


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """Name a run folder, which does not exist yet, for one test."""
    return tmp_path / "runs"


@pytest.fixture(scope="session")
def digits() -> Dataset:
    """Load scikit-learn's 1,797 handwritten digits, 8x8."""
    return datasets.load_dataset("digits")


@pytest.fixture(scope="session")
def tasks(digits: Dataset) -> tuple[Task, Task]:
    """Split the digits as the course does: 5-9 is the source task, 0-4 the target task."""
    return split_tasks(digits, [5, 6, 7, 8, 9], [0, 1, 2, 3, 4])


@pytest.fixture(scope="session")
def mnist() -> Dataset:
    """Load the real MNIST; if it is missing, skip the tests that need it."""
    return datasets.load_dataset("mnist")


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Go offline, with an empty cache for Keras; return the cache's folder."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        for spelling in (name, name.lower()):
            monkeypatch.setenv(spelling, "http://127.0.0.1:9")  # the discard port, where nothing listens
    for spelling in ("NO_PROXY", "no_proxy", "MNIST_NPZ", "TRANSFER_TUTORIAL_DATA"):
        monkeypatch.delenv(spelling, raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    return tmp_path / "keras" / "datasets"


@pytest.fixture
def photo_folder(tmp_path: Path) -> Path:
    """Make non-square color photos of two classes, dark and light: 10 for training and 5 for testing."""
    draws = np.random.default_rng(0)
    for split, count in (("train", 10), ("test", 5)):
        for name, brightness in (("dark", 60), ("light", 200)):
            (tmp_path / "photos" / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = draws.integers(brightness - 50, brightness + 50, (40, 60, 3), np.uint8)
                Image.fromarray(pixels).save(tmp_path / "photos" / split / name / f"{number}.png")
    return tmp_path / "photos"


@pytest.fixture
def course(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Replace the lessons with three tiny ones, and work in an empty folder; return the lessons' folder."""
    write_course(tmp_path / "notebooks")
    monkeypatch.setattr(notebooks, "LESSONS", tmp_path / "notebooks")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "notebooks"


@pytest.fixture(scope="module")  # while Playwright runs, no test in the same process can start an event loop
def browser() -> Iterator["Browser"]:
    """Start a headless Chromium that connects to no host on its own."""
    missing = pytest.fail if IN_CI else pytest.skip
    if CHROMIUM is None:
        missing("no Chromium: neither chromium nor google-chrome is on the PATH")
    if find_spec("playwright") is None:
        missing("playwright is not installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*flags, "--disable-sync"])
        yield browser
        browser.close()


def cloned(folder: Path) -> Path:
    """Copy the files of a clone into a new folder, keeping symbolic links."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=REPOSITORY, capture_output=True)
    if listed.returncode:
        pytest.skip("this is not a git repository, so the files of a clone are unknown")
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (REPOSITORY / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, folder / name, follow_symlinks=False)
    return folder


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    return cloned(tmp_path / "clone")


@pytest.fixture
def npz(tmp_path: Path) -> Callable[..., Path]:
    """Write a valid .npz file, but replace some arrays, or leave them out if None is given; return its path."""

    def write(**changed: np.ndarray | None) -> Path:
        save_npz(tmp_path / "mine.npz", **{**arrays(), **changed})
        return tmp_path / "mine.npz"

    return write


@pytest.fixture
def python() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run code in a fresh Python process in the repository's root; variables that are None are removed."""

    def run(code: str, *arguments: object, **environment: str | None) -> subprocess.CompletedProcess[str]:
        environ = {**os.environ, **environment}
        return subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments)],
            cwd=REPOSITORY,
            env={name: value for name, value in environ.items() if value is not None},
            capture_output=True,
            text=True,
        )

    return run
