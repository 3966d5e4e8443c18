"""Bad input is refused with exit code 2 and one sentence, before a lesson starts and before anything is written."""

import os
import shlex
import sys
from pathlib import Path

import pytest
from tiny_course import run

from helpers.runner import notebooks
from helpers.store import write_text


@pytest.fixture
def folder(tmp_path: Path, offline: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work offline in a folder where some names are taken, and fail at once if a lesson is started."""
    for name in ("home/file", "work/file", "work/file.txt", "work/full/mine"):
        write_text(tmp_path / name, "")
    monkeypatch.setenv("TRANSFER_TUTORIAL_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(notebooks, "execute", lambda *given: pytest.fail("a lesson was started"))
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


def files(folder: Path) -> dict[str, bytes | None]:
    """Return each path below a folder with its content, without the empty folders in Keras's cache."""
    paths = {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}
    return {str(path): content for path, content in paths.items() if content is not None or "keras" not in path.parts}


def check_refusal(folder: Path, command: str, *says: str) -> None:
    """Run a command, on the digits by default; expect a refusal with these parts and no changes to files."""
    before, imported = files(folder), "tensorflow" in sys.modules
    data = [] if "dataset" in command or "--resume" in command else ["--dataset", "digits"]
    ended = run(*data, *shlex.split(command))
    assert ended.exit_code == 2, ended.output
    said = ended.output[ended.output.rindex("Error: ") :]  # a download shows a progress bar first
    assert len(said.splitlines()) == 1
    assert all(part in said for part in says), said
    assert files(folder) == before
    assert ("tensorflow" in sys.modules) == imported


@pytest.mark.parametrize(
    ("command", "says"),
    [
        # data
        ("--dataset letters", "dataset: 'letters' is not known; allowed: mnist, mnist_5k,"),
        ("--dataset ~nosuchuser/absent.npz", "dataset: there is no file"),
        ("--dataset file.txt", "dataset: 'file.txt' has an unsupported format; give the path of an .npz file"),
        ("--dataset mnist", 'dataset: "mnist" is not on this machine and could not be downloaded'),
        # classes and splits
        ("-p source_classes '[4, 5]'", "source_classes and target_classes both contain 4 ([4, 5] and"),
        ("-p validation_fraction 0.001", "validation_fraction: 0.001 of 716 images in 5 classes leaves a class of"),
        # numbers, and words that YAML would read as numbers
        ("-p epochs 0", "epochs: 0 is not allowed; give a whole number of at least 1"),
        ("-p epochs 2.5", "epochs: 2.5 is not a whole number like the default, 1"),
        ("-p epochs true", "epochs: True is not a whole number"),
        ("-p learning_rate 1:30", "learning_rate: '1:30' is not a number like the default, 1.0"),
        ("-p seed 010", "seed: '010' is not a whole number like the default, 0"),
        ("-p seed -1", "seed: -1 is not a seed; give a whole number from 0 to 4294967295"),
        ("-p kernel_size 5", "kernel_size: 5 and pool_size 2 leave nothing of an image of 8 pixels"),
        ("-p frozen_convs 3", "frozen_convs: 3 is not allowed; give 0, 1 or 2"),
        # names
        ("-p recipe slow", "recipe: 'slow' is not known; allowed: published, fast"),
        ("-p optimizer None", "optimizer: None is not text like the default, 'adadelta'"),
        ("-p epoch 3", "has this name; known parameters: backbone_weights"),
        ("--only 01 -p epochs 3", "epochs: no parameter of 01_data_split has this name"),
        ("--only 09", "lesson: '09' is not known; allowed: 00_whole_game, 01_data_split, 02_cnn_build"),
        # the comparison
        ("-p strategies scratch", "strategies: 'scratch' is not a list like the default"),
        ("--only 05 -p strategies [reused-head] -p target_classes '[0, 1]'", "leaves nothing to compare"),
        ("-p labels_per_class [ten]", "labels_per_class: 'ten' is not a label budget"),
        ("--only 06 -p seeds [-1]", "seeds: -1 is not a seed; give a whole number from 0 to 4294967295"),
        # your own images
        (
            "--only 07 -p my_images absent",
            "my_images: there is no folder or file 'absent'; give flowers, or the path of",
        ),
        ("--only 07 -p my_images full", "my_images: 'full' has no class folders; "),
        ("--only 07 -p labels 1", "labels: 1 is too few; use at least two per class"),
        ("--only 07 -p my_images flowers -p photo_size 300", "photo_size: 300 is not a whole number from 32 to 224"),
        # values that cannot be read, or would be altered on the way to the notebook
        ("-p target_classes '[1,'", "target_classes: '[1,' cannot be read as YAML; values look like 3"),
        ("-p seed '!!python/object/apply:os.mkdir [made]'", "seed: '!!python/object/apply:os.mk"),
        ("-p recipe '{1: a}'", "recipe: '{1: a}' is not allowed; use numbers, UTF-8 text"),
        ("-p run_dir \udcff", "run_dir: '\\udcff' cannot be read as YAML"),
        ("-p seed 1 -p seed 2", "seed: -p sets it twice; set it once"),
        ("--dataset digits -p dataset mnist", "dataset: is given twice, as 'digits' and 'mnist'"),
        # folders
        ("-p run_dir file/below", "run_dir: 'file/below' is inside 'file', which is a file; choose a writable folder"),
        ("--out file", "--out: 'file' is a file; choose a writable folder"),
        ("--out full", "--out: 'full' exists and is not an empty folder; choose a new folder"),
        (f"--out {'a' * 300}", "cannot be used (File name too long)"),
        ("--out \udcff", "--out: '\\udcff' is not valid UTF-8; choose a writable folder"),
        ("--resume absent", "absent' has no usable run.json; give the folder"),
        ("--resume . --only 01", "--resume: the parameters come from the run to resume; omit options"),
    ],
)
def test_bad_input_gets_one_sentence_and_leaves_nothing(folder: Path, command: str, says: str):
    check_refusal(folder, command, says)


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b'{"lessons": [{"name": "9"}]}'])
def test_a_damaged_record_of_a_run_is_refused(folder: Path, content: bytes):
    Path("run.json").write_bytes(content)
    check_refusal(folder, "--resume .", "--resume: ", "has no usable run.json")


def test_a_folder_without_permission_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch):
    Path("locked").mkdir()
    for locked in (folder / "home", Path("locked")):
        locked.chmod(0o555)
    if os.geteuid() == 0:  # root can write anywhere
        monkeypatch.setattr(os, "access", lambda path, mode, **_: bool(os.stat(path).st_mode & 0o200))
    says = "cannot be written to; choose a writable folder"
    check_refusal(folder, "-p run_dir mine", f"run_dir: 'mine' {says}")
    check_refusal(folder, "--out locked/run", f"--out: 'locked/run' {says}")
