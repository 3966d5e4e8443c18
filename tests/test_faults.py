"""What can go wrong, row by row: bad input is refused in one sentence, damage is noticed, an interrupted run goes on.

`ROWS` are lists of what a learner, a teacher or a machine may do to the course. Each row has at least one case: a
command line in `REFUSED`, or a test here or in another file that `covers` it. Run this file as a script to see them
counted.
"""

import http.server
import os
import re
import shlex
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
from PIL import Image
from refusals import covers
from tiny_course import outputs, record, run, save_npz, start, status, wait_until

from helpers import datasets, plots, store
from helpers.provenance import provenance
from helpers.runner import notebooks

ROWS = """
the course: an unknown dataset; a missing file; a file that is no .npz; a file that lacks an array; images and
  labels of different length; MNIST that cannot be downloaded; label sets that overlap; an empty label set; a label
  set of one; a label that the data lacks; a validation fraction outside 0 to 1; a validation fraction that leaves a
  class without an image; epochs below 1; batch_size below 1; min_updates below 1; more labels per class than there
  are; an unknown strategy; an unknown lesson; an unknown parameter; an output folder that is not empty
the comparison: a budget of zero; a negative budget; a budget that is no number; a budget given twice; a seed given
  twice; pretrained features missing; features of other images; features of another network; features of another
  data type
JupyterLab: a kernel that dies; a lesson opened from another folder; two lessons at once on one run folder; no
  ipywidgets
data: a partial download; a download with a wrong hash; a damaged file in the cache; a damaged file of one's own;
  pickled objects; images of another size; images with two channels; float images that are no brightness; float
  labels; one-hot labels; letters as labels; three classes in all; a class with one image; duplicates between
  training and test
images of one's own: an empty folder; a folder without class folders; a folder without readable images; training and
  test folders with different classes; folders that differ only in letter case; a folder that may not be read; a
  class name that does not exist; names and numbers mixed; an image size below 8 or above 64; a .csv file without
  labels; a .csv file with 783 pixels; text in a pixel
artefacts: an artefact of another configuration; an artefact of other code; a truncated artefact; an altered
  artefact; an altered manifest; a run folder that cannot be written to; an output folder that cannot be written to;
  a process killed while it saves
interrupted runs: Ctrl-C, SIGTERM or SIGKILL; a cell that fails; a run that is still at work; nothing to resume; a
  damaged run.json; a damaged notebook or results file; data that changed in between; other options beside --resume
sweeps: a sweep of an unknown parameter; a sweep with a value of another type; an empty grid; an enormous grid; a
  scheduler that cannot be reached; a scheduler that disappears; workers without the package; workers with another
  version of the package; a folder of another sweep; a folder in which a sweep is at work; a worker that dies; a
  sweep that is stopped; kernels that start at once; a run that fails among others; a run that takes too much time
  or memory; rows that are no results; a damaged record
any value: a value of another type; a value that is no YAML; a number out of range; a name that does not exist; a
  name with markup in it
settings of other programs: Keras's, Matplotlib's and IPython's files, a module in the way; display options of
  pandas and NumPy; IPython that shows no values; what Matplotlib says of its file; templates of nbconvert; Dask's
  configuration; a damaged file of Dask's; a Git hook's variables; Python's variables; settings of progress bars
what may be missing: standard streams, or who reads them; a home that is named; a user with a home; the working
  directory; TensorFlow's usual name; a kernelspec
users' values: numbers as Python writes them; a number in another notation; words of YAML 1.1; a value that is none;
  a value that the notebook would see changed; a value that is given twice; values that papermill hands on; any
  annotation; very small classes
users' notebooks and files: a notebook that was executed before; files beside a notebook; files in a folder beside a
  notebook; IPython's commands among the parameters; a notebook without metadata, or with a mark; a notebook in
  another language; results in another encoding; results with another delimiter; bytes that are no UTF-8; an
  apostrophe in a command to paste
slow and crowded machines: a terminal that goes away; a kernel that takes minutes to start; output that comes late;
  a full disk; a full disk before anything is written; few files that may be open; workers that cannot be started; a
  handle that must be writable to be flushed
"""


# Refused: command lines that end with exit code 2 and one sentence, before a lesson starts and anything is written

# Row | command, on the digits if it names no data | what the sentence says, "..." for parts left out
COMMANDS = """
an unknown dataset | --dataset letters | dataset: 'letters' is not known; allowed are mnist, mnist_5k,
an unknown dataset | --dataset MNIST | dataset: 'MNIST' is not known; ... and the path of an .npz file
an unknown dataset | --dataset letters.txt | dataset: there is no file ... letters.txt'; give the path of an .npz file
an unknown dataset | --dataset file.txt | dataset: 'file.txt' is not allowed; give the path of an .npz file
an unknown dataset | --dataset digits -p dataset mnist | dataset: given twice, as 'digits' and 'mnist'
a missing file | --dataset absent.npz | dataset: there is no file ... absent.npz'; give the path of an .npz file
a missing file | --dataset ~nosuchuser/absent.npz | dataset: there is no file ... absent.npz'
an empty folder | --dataset empty | dataset: 'empty' is empty; give one folder of images per class
a folder without readable images | --dataset folder.npz | dataset: 'folder.npz' has no readable image; give
MNIST that cannot be downloaded | --dataset mnist | dataset: "mnist" is not on this machine ... not be downloaded \
... set MNIST_NPZ to a mnist.npz that you have ... pass dataset="mnist_5k", which needs no download
label sets that overlap | -p source_classes '[4, 5]' | source_classes and target_classes both hold 4 ([4, 5] and
label sets that overlap | -p target_classes '[5, 6, 0]' | both hold 5, 6 ... a class belongs to one task only
an empty label set | -p target_classes [] | target_classes: [] is not allowed; give two or more classes
a label set of one | -p source_classes [7] | source_classes: [7] is not allowed; give two or more classes
a label set of one | -p source_classes '[7, 7]' | source_classes: [7, 7] is not allowed; ... each once
a label that the data lacks | -p target_classes '[1, 11]' | target_classes: digits has no class 11; its classes are 0, 1
a validation fraction outside 0 to 1 | -p validation_fraction 0 | validation_fraction: 0 is not allowed
a validation fraction outside 0 to 1 | -p validation_fraction .nan | validation_fraction: nan ... between 0 and 1
a validation fraction outside 0 to 1 | -p validation_fraction Infinity | validation_fraction: inf ... between 0 and 1
a validation fraction that leaves a class without an image | -p validation_fraction 0.001 | validation_fraction: 0.001 \
of 716 images in 5 classes leaves a class of digits without ... give a share that leaves each class one of both
a validation fraction that leaves a class without an image | -p validation_fraction 0.999 | validation_fraction: 0.999
epochs below 1 | -p epochs 0 | epochs: 0 is not allowed; give a whole number of at least 1
epochs below 1 | -p epochs -1 | epochs: -1 is not allowed; give a whole number of at least 1
batch_size below 1 | -p batch_size 0 | batch_size: 0 is not allowed; give a whole number of at least 1
min_updates below 1 | -p min_updates 0 | min_updates: 0 is not allowed; give a whole number of at least 1
more labels per class than there are | -p labels_per_class '[10, 1000]' | labels_per_class: 1000 is more than class 0
more labels per class than there are | --only 06 -p labels_per_class '[1000]' | labels_per_class: 1000 is more than
an unknown strategy | -p strategies '[scratch, magic]' | strategies: 'magic' is not known; allowed are scratch, frozen,
an unknown strategy | -p strategies '[frozen, frozen]' | strategies: ['frozen', 'frozen'] names one twice; give each
an unknown strategy | -p strategies [] | strategies: [] is not a list of strategies; allowed are scratch, frozen,
an unknown strategy | --only 05 -p strategies [reused-head] -p target_classes '[0, 1]' | strategies: ['reused-head'] \
leaves nothing to compare ... has 5 outputs and the target task 2 classes
an unknown lesson | --only 09 | lesson: '09' is not known; allowed are 00_whole_game, 01_data_split, 02_cnn_build
an unknown lesson | --only '' | lesson: '' is not known; allowed are
an unknown parameter | -p epoch 3 | epoch: no parameter of ... has this name; known are backbone_weights
an unknown parameter | --only 01 -p epochs 3 | epochs: no parameter of 01_data_split has this name
an output folder that is not empty | --out full | --out: 'full' exists and is not an empty folder; give a new one
a budget of zero | -p labels_per_class [0] | labels_per_class: 0 is not a label budget ... at least 1, or "all"
a negative budget | -p labels_per_class [-5] | labels_per_class: -5 is not a label budget ... at least 1, or "all"
a budget that is no number | -p labels_per_class [ten] | labels_per_class: 'ten' is not a label budget
a budget that is no number | -p labels_per_class [2.5] | labels_per_class: [2.5] is not a list like ... [10, 50, 'all']
a budget that is no number | -p labels_per_class [true] | labels_per_class: [True] is not a list like
a budget that is no number | -p labels_per_class [] | labels_per_class: [] is not a list with at least one entry
a budget given twice | -p labels_per_class '[5, 10, 5]' | labels_per_class: [5, 10, 5] holds an entry twice
a seed given twice | -p seeds '[0, 1, 0]' | seeds: [0, 1, 0] holds an entry twice; give each once
a run folder that cannot be written to | -p run_dir file/below | run_dir: 'file/below' is below a file, 'file'; give a
a run folder that cannot be written to | -p run_dir file | run_dir: 'file' is a file; give a folder that can be written
a run folder that cannot be written to | -p run_dir LONG | run_dir: 'aaa ... cannot be used (File name too long)
an output folder that cannot be written to | --out file/run | --out: 'file/run' is below a file, 'file'; give a folder
an output folder that cannot be written to | --out file | --out: 'file' is a file; give a folder that can be written to
an output folder that cannot be written to | --out LONG | --out: 'aaa ... cannot be used (File name too long)
nothing to resume | --resume absent | --resume: ... absent' holds no run.json of a run that could go on
nothing to resume | --resume full | --resume: ... full' holds no run.json of a run that could go on
other options beside --resume | --resume . --only 01 | --resume: takes everything from the run ... no other option
a value of another type | -p epochs 2.5 | epochs: 2.5 is not a whole number like the default, 1
a value of another type | -p epochs true | epochs: True is not a whole number
a value of another type | -p learning_rate fast | learning_rate: 'fast' is not a number like the default, 1.0
a value of another type | -p target_classes 5 | target_classes: 5 is not a list like the default
a value of another type | -p strategies scratch | strategies: 'scratch' is not a list like the default
a value of another type | -p labels_per_class [[10]] | labels_per_class: [[10]] is not a list like the default
a value of another type | -p dataset 5 | dataset: 5 is not a text like the default, 'mnist'
a value that is no YAML | -p target_classes '[1,' | target_classes: '[1,' cannot be read as YAML; values look like 3
a number in another notation | -p seed 2026-02-30 | seed: '2026-02-30' is not a whole number like the default, 0
a value that is no YAML | -p seed '!!python/object/apply:os.mkdir [made]' | seed: '!!python/object/apply:os.mk
a number out of range | -p learning_rate -1e-3 | learning_rate: -0.001 is not allowed; give a number above 0
a number out of range | -p filters 0 | filters: 0 is not allowed; give a whole number of at least 1
a number out of range | -p kernel_size 5 | kernel_size: 5 twice and pool_size 2 leave nothing of an image of 8 pixels
a number out of range | -p frozen_convs 3 | frozen_convs: 3 is not allowed; give 0, 1 or 2
a number out of range | -p seed -1 | seed: -1 is not a seed; give a whole number from 0 to 4294967295
a number out of range | --only 06 -p seeds [-1] | seeds: -1 is not a seed; give a whole number from 0 to 4294967295
a number in another notation | -p seed 010 | seed: '010' is not a whole number like the default, 0
a number in another notation | -p seed 0x10 | seed: '0x10' is not a whole number like the default, 0
a number in another notation | -p learning_rate 1:30 | learning_rate: '1:30' is not a number like the default, 1.0
a number in another notation | -p seeds 'range(3)' | seeds: 'range(3)' is not a list like the default, [0, 1
a value that is none | -p optimizer None | optimizer: None is not a text like the default, 'adadelta'
a value that is none | -p seeds '' | seeds: None is not a list like the default, [0, 1
a value that the notebook would see changed | -p recipe '{1: a}' | recipe: '{1: a}' is more than numbers, texts in UTF-8
a value that the notebook would see changed | -p recipe '!!binary aGk=' | recipe: '!!binary aGk=' is more than numbers
a value that is given twice | -p seed 1 -p seed 2 | seed: -p is given twice for it; give one value
bytes that are no UTF-8 | -p run_dir BYTES | run_dir: '\\udcff' cannot be read as YAML
bytes that are no UTF-8 | --out BYTES | --out: '\\udcff' is no UTF-8 text; give a folder that can be written to
a name that does not exist | -p recipe slow | recipe: 'slow' is not known; allowed are published, fast
a name that does not exist | -p optimizer fast | optimizer: 'fast' is not known; allowed are adadelta, adam, rmsprop
"""


@dataclass(frozen=True)
class Case:
    """A command line, the parts of the one sentence that answers it, and what prepares the working directory."""

    row: str
    command: str
    says: tuple[str, ...]
    prepare: Callable[[], object] = lambda: None

    def __str__(self) -> str:
        return f"{self.row}: {self.command}"


def commands() -> Iterator[Case]:
    """Read the table above."""
    for line in COMMANDS.strip().splitlines():
        row, command, says = line.split(" | ")
        digits = "" if "dataset" in command or "--resume" in command else "--dataset digits "
        yield Case(
            row, digits + command.replace("LONG", "a" * 300).replace("BYTES", "\udcff"), tuple(says.split(" ... "))
        )


def write_images(*names: str) -> None:
    """Write small images, each of another grey, below the folder `mine`."""
    for grey, name in enumerate(names):
        path = Path("mine", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), grey).save(path)


def write_table() -> None:
    """Write a .csv file with 64 columns of pixels, a word in one of them, and two rows of each of four classes."""
    table = pd.DataFrame(np.zeros((8, 64), int)).astype(object)
    table.iloc[3, 2] = "white"
    table.insert(0, "label", np.resize(np.arange(4), 8))
    table.to_csv("mine.csv", index=False)


def pictures() -> Iterator[Case]:
    """Return the cases of folders and tables of one's own images."""
    four = [f"{name}/{number}.png" for name in ("ants", "bees", "cats", "dogs") for number in range(4)]
    for row, says, names in (
        ("a folder without class folders", "holds no class folders; give one folder of images per class", ["1.png"]),
        ("three classes in all", "has the classes ants, bees, cats only; two tasks need two classes each", four[:12]),
    ):
        yield Case(row, "--dataset mine", (says,), partial(write_images, *names))
    chosen = "--dataset mine -p source_classes '[ants, bees]' -p target_classes "
    for row, target, says in (
        ("a class name that does not exist", "'[cat, dogs]'", "has no class cat; cats is meant perhaps; its classes"),
        ("a class name that does not exist", "'[3, 4]'", "has no class 3, 4; its classes are ants, bees, cats, dogs"),
        ("names and numbers mixed", "'[cats, 4]'", "has no class 4; its classes are ants, bees, cats, dogs"),
    ):
        yield Case(row, chosen + target, ("target_classes: mine " + says,), partial(write_images, *four))
    size = ("image_size: 65 is neither 0 nor a whole number from 8 to 64",)
    yield Case("an image size below 8 or above 64", "--dataset mine -p image_size 65", size)
    text = ("dataset: 'mine.csv' cannot be read as a .csv file with a header",)
    yield Case("text in a pixel", "--dataset mine.csv", text, write_table)


def resumed(content: bytes) -> Case:
    """Return the case of a run.json with this content."""
    says = ("--resume: ", "holds no run.json of a run that could go on")
    return Case("a damaged run.json", "--resume .", says, lambda: Path("run.json").write_bytes(content))


REFUSED = [
    *commands(),
    Case(
        "a file that is no .npz",
        "--only 01 --dataset mine.npz",
        ("dataset: 'mine.npz' cannot be read as an .npz file with the arrays x_train, y_train", "pickled objects"),
        lambda: store.write_text(Path("mine.npz"), "label,pixel\n1,255\n"),
    ),
    Case(
        "a class with one image",
        "--only 05 --dataset mine.npz -p source_classes '[0, 9]' -p target_classes '[1, 2]' -p labels_per_class [1]",
        ("dataset: mine.npz has a single training image of class 9; give each class two or more",),
        lambda: save_npz("mine.npz", y_train=np.append(np.resize(np.arange(9), 199), 9)),
    ),
    *pictures(),
    Case(
        "a damaged file in the cache",
        "--dataset mnist",
        ('dataset: "mnist" is not on this machine and could not be downloaded',),
        lambda: store.write_text(Path(os.environ["KERAS_HOME"], "datasets", "mnist.npz"), "half of it"),
    ),
    *map(
        resumed, (b"", b'{"status": "run', b"[]", b"{}", b"\xff", b'{"lessons": [3]}', b'{"lessons": [{"name": "9"}]}')
    ),
]


@pytest.fixture
def working_folder(tmp_path: Path, offline: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with a few names taken, offline, and fail at once if a lesson is started."""
    for taken in ("home/file", "work/file", "work/file.txt", "work/full/mine", "work/folder.npz/class/mine"):
        store.write_text(tmp_path / taken, "")
    (tmp_path / "work" / "empty").mkdir()
    monkeypatch.setenv("TRANSFER_TUTORIAL_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(notebooks, "execute", lambda *given: pytest.fail("a lesson was started"))
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


def files(folder: Path) -> dict[str, bytes | None]:
    """Return each path below a folder with its content; of Keras's cache the files alone, not its empty folders."""
    found = {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}
    return {str(path): content for path, content in found.items() if content is not None or "keras" not in path.parts}


def check_refusal(says: tuple[str, ...], folder: Path, *command: str) -> None:
    """Run a command line; it must end with exit code 2 and one sentence with these parts, and leave all as it was."""
    before, imported = files(folder), "tensorflow" in sys.modules
    ended = run(*command)
    assert ended.exit_code == 2, ended.output
    said = ended.output[ended.output.rindex("Error: ") :]  # a download shows a progress bar first
    assert len(said.splitlines()) == 1
    assert all(part in said for part in says), said
    assert files(folder) == before
    assert ("tensorflow" in sys.modules) == imported


@pytest.mark.parametrize("case", REFUSED, ids=str)
def test_bad_input_gets_one_clear_sentence_and_leaves_nothing(working_folder: Path, case: Case):
    case.prepare()
    check_refusal(case.says, working_folder, *shlex.split(case.command))


# Cases that take more than a command line


@covers("a missing file")
def test_a_wrong_mnist_file_is_refused_by_its_variable(working_folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MNIST_NPZ", "nowhere/mnist.npz")
    check_refusal(("MNIST_NPZ: there is no file", "nowhere/mnist.npz"), working_folder, "--dataset", "mnist")


@covers("a download with a wrong hash")
@covers("pickled objects")
def test_mnist_of_other_content_is_refused_by_its_variable(working_folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MNIST_NPZ", "mine.npz")
    save_npz("mine.npz")
    says = ("MNIST_NPZ: 'mine.npz' is not MNIST, x_train, y_train, x_test, y_test differ", "as Keras provides it")
    check_refusal(says, working_folder, "--dataset", "mnist")
    save_npz("mine.npz", y_test=np.array([None] * 200))
    check_refusal(
        ("MNIST_NPZ: 'mine.npz' cannot be read", "without pickled objects"), working_folder, "--dataset", "mnist"
    )
    save_npz("mine.npz", y_test=np.array(["five"] * 200))
    check_refusal(("MNIST_NPZ: 'mine.npz' cannot be used: y_test is <U4",), working_folder, "--dataset", "mnist")


@pytest.fixture
def served(working_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bytes, int], None]]:
    """Serve a file in the place of every download; the function says what arrives, and how long it claims to be."""
    answer: dict[str, bytes | int] = {}

    class Server(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(answer["length"]))
            self.end_headers()
            self.wfile.write(answer["content"])

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setattr(datasets, "KERAS_DATASETS", f"http://127.0.0.1:{server.server_port}/")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield lambda content, length: answer.update(content=content, length=length)
        server.shutdown()


@covers("a partial download")
@covers("a download with a wrong hash")
@pytest.mark.parametrize(("length", "why"), [(100, "not whole, or another file"), (1000, "could not be downloaded")])
@pytest.mark.parametrize("dataset", ["mnist", "fashion_mnist"])
def test_a_download_that_is_not_what_was_published_is_not_kept(
    working_folder: Path, served, dataset: str, length: int, why: str
):
    served(b"PK" * 50, length)
    says = (f'dataset: "{dataset}" is not on this machine', why, 'pass dataset="mnist_5k"')
    check_refusal(says, working_folder, "--only", "01", "--dataset", dataset)


@covers("a run folder that cannot be written to")
@covers("an output folder that cannot be written to")
def test_a_folder_without_permission_is_refused(working_folder: Path, monkeypatch: pytest.MonkeyPatch):
    Path("locked").mkdir()
    for folder in (working_folder / "home", Path("locked")):
        folder.chmod(0o555)
    if os.geteuid() == 0:  # whom no permission stops
        monkeypatch.setattr(os, "access", lambda path, mode, **_: bool(os.stat(path).st_mode & 0o200))
    says = "cannot be written to; give a folder that can be written to"
    check_refusal((f"run_dir: 'mine' {says}",), working_folder, "--dataset", "digits", "-p", "run_dir", "mine")
    check_refusal((f"--out: 'locked/run' {says}",), working_folder, "--dataset", "digits", "--out", "locked/run")


@covers("no ipywidgets")
def test_buttons_without_ipywidgets_say_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    with pytest.raises(ImportError, match="need ipywidgets: run `python -m pip install ipywidgets`, then restart"):
        plots.browse(plots.sample_images, label=[0, 1])


# Artefacts that are damaged, and run folders that are shared


@covers("a truncated artefact", "a damaged notebook or results file")
def test_what_was_damaged_is_named_and_made_again(course, home: Path):
    assert run("--only", "03", "-p", "run_dir", "damaged", "--out", "run").exit_code == 0
    results = Path("run/results.csv").read_bytes()
    (weights,) = home.glob("damaged/weights-*.bin")
    (manifest,) = home.glob("damaged/weights-*.json")
    for name in ("lessons/03_pretraining.ipynb", "artefacts/results-03.csv"):
        weights.write_bytes(b"weights")
        Path("run", name).write_bytes(Path("run", name).read_bytes()[:-20])
        again = run("--resume", "run")
        assert again.exit_code == 0, again.output
        assert "Note: notebook or results of lesson 03_pretraining are damaged; the lesson is run again" in again.output
        made_again = f"{manifest.name} or the file it describes is damaged; it is made again"
        assert made_again in outputs("run", "03_pretraining")
        assert weights.read_bytes() == b"weights" * 1000
        assert Path("run/results.csv").read_bytes() == results


@covers("two lessons at once on one run folder")
def test_two_runs_at_once_share_a_run_folder_and_keep_their_own_results(course, home: Path):
    Path("trap").write_text(  # both wait for each other, then save the same weights
        "import time\nPath(f'here-{strategies[0]}').touch()\n"
        "while len(list(Path().glob('here-*'))) < 2: time.sleep(0.001)"
    )
    shared = ("--only", "05", "-p", "run_dir", "shared", "-p", "trap", "trap")
    one = start(course, *shared, "-p", "strategies", "[scratch]", "--out", "scratch")
    other = run(*shared, "-p", "strategies", "[frozen]", "--out", "frozen")
    printed, errors = one.communicate(timeout=60)
    assert (one.returncode, other.exit_code) == (0, 0), printed + errors + other.output
    for strategy in ("scratch", "frozen"):
        rows = Path(strategy, "results.csv").read_text().splitlines()[1:]
        assert len(rows) == 6
        assert {row.split(",")[3] for row in rows} == {strategy}
    origin = provenance(lesson="05")
    assert store.find(home / "shared", "weights.bin", origin)[0].read_bytes() == b"weights" * 1000
    assert len(list((home / "shared").iterdir())) == 2


@covers("a process killed while it saves")
def test_a_process_killed_while_it_saves_leaves_nothing_that_is_read(run_folder: Path, python):
    code = (
        "import os, sys; from pathlib import Path; from helpers import store\n"
        "def make(path): path.write_bytes(b'half of it'); os.kill(os.getpid(), 9)\n"
        "store.load_or_make(Path(sys.argv[1]), 'weights.bin', {'seed': 0}, make)"
    )
    assert python(code, run_folder).returncode == -signal.SIGKILL
    assert store.find(run_folder, "weights.bin", {"seed": 0}) is None
    made, _ = store.load_or_make(
        run_folder, "weights.bin", {"seed": 0}, lambda path: {"n": path.write_bytes(b"weights")}
    )
    assert made.read_bytes() == b"weights"


# Runs that are interrupted


HANG = "import os, time\nPath('pid').write_text(str(os.getpid()))\nwhile True: time.sleep(0.01)"
TRAPPED = ("--only", "05", "--dataset", "own.npz", "-p", "labels_per_class", "[1, 2, all]", "-p", "trap", "trap")
TRAPPED += ("--out", "run")


def hung_kernel() -> psutil.Process:
    """Wait until a lesson is caught in the trap; return its kernel."""
    wait_until(lambda: Path("pid").is_file() and Path("pid").read_text())
    kernel = psutil.Process(int(Path("pid").read_text()))
    Path("pid").unlink()
    return kernel


def is_over(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def check_finished(folder: str) -> None:
    """Resume a run; it must end with all its results."""
    resumed = run("--resume", folder)
    assert resumed.exit_code == 0, resumed.output
    assert (record(folder)["status"], set(status(folder))) == ("done", {"done"})
    assert len(Path(folder, "results.csv").read_text().splitlines()) == 13


def check_stop(course: Path, number: int, *arguments: str) -> None:
    """Stop a run whose lesson hangs; it must say so, and leave a notebook that can be read and no kernel."""
    Path("trap").write_text(HANG)
    process = start(course, *arguments)
    kernel = hung_kernel()
    Path("trap").write_text("raise KeyError")  # for a second run, which should not come so far
    time.sleep(0.5)  # what the cell has printed is under way
    second = run("--resume", "run")
    assert second.exit_code == 2
    assert second.output.startswith("Error: --resume: another process is at work in 'run'; wait until it ends")
    assert record("run")["status"] == "running"
    process.send_signal(number)
    _, errors = process.communicate(timeout=20)
    stopped = "running" if number == signal.SIGKILL else "interrupted"
    assert (record("run")["status"], status("run")) == (stopped, [stopped])
    if number != signal.SIGKILL:
        assert process.returncode == 128 + number
        assert "--resume" in errors and "Traceback" not in errors
        assert outputs("run", "05_comparison") == "before\n"
    assert len(notebooks.code_cells(Path("run/lessons/05_comparison.ipynb"))) == 6  # readable, with papermill's own
    wait_until(lambda: is_over(kernel))


@covers("Ctrl-C, SIGTERM or SIGKILL")
@covers("a run that is still at work")
def test_a_run_that_is_stopped_leaves_no_kernel_and_can_go_on_but_not_twice_at_once(course):
    save_npz("own.npz")
    check_stop(course, signal.SIGINT, *TRAPPED)
    check_stop(course, signal.SIGHUP, "--resume", "run")
    check_stop(course, signal.SIGKILL, "--resume", "run")
    Path("trap").unlink()
    check_finished("run")


@covers("a kernel that dies")
def test_a_kernel_that_dies_ends_the_run_with_the_cell_and_what_to_do(course):
    save_npz("own.npz")
    Path("trap").write_text("import os\nos._exit(1)")
    died = run(*TRAPPED)
    assert died.exit_code == 1
    assert "lesson 05_comparison, cell [4]: DeadKernelError: " in died.output
    assert "most often memory ran out, so shut other kernels down before you go on" in died.output
    assert "To go on: transfer-tutorial run --resume" in died.output
    assert "Traceback" not in died.output
    Path("trap").unlink()
    check_finished("run")


# Nothing is left out


def covered() -> Iterator[str]:
    """Yield the rows that tests say they cover, in this file and the others."""
    for path in Path(__file__).parent.glob("test_*.py"):
        for rows in re.findall(r"(?ms)^@covers\((.+?)\)$", path.read_text(encoding="utf-8")):
            yield from re.findall('"(.+?)"', rows)


def counted() -> dict[str, dict[str, int]]:
    """Count the cases of each row of each list."""
    cases = Counter([*(case.row for case in REFUSED), *covered()])
    lists = dict(line.split(": ") for line in re.sub(r"\s+ ", " ", ROWS).strip().splitlines())
    found = {title: {row: cases.pop(row, 0) for row in rows.split("; ")} for title, rows in lists.items()}
    return found | {"no list": dict(cases)}


def test_each_row_has_a_case_and_each_case_a_row():
    found = counted()
    assert not found.pop("no list")
    assert not [row for rows in found.values() for row, cases in rows.items() if not cases]


if __name__ == "__main__":
    for title, rows in counted().items():
        print(f"\n{title}: {len(rows)} rows, {sum(rows.values())} cases")
        for row, cases in rows.items():
            print(f"{cases:6}  {row}")
