"""Artefacts: one is found only if its provenance is the same, and whole, or not at all."""

import json
import shutil
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest
from refusals import covers, refused

from helpers import artefacts

ORIGIN = {"task": "digits", "classes": [5, 6], "seed": 0}


def save(folder: Path, content: bytes = b"weights", origin: dict = ORIGIN, **facts: object) -> Path:
    return artefacts.save(folder, "pretrained", origin, ".bin", lambda path: path.write_bytes(content), **facts)


def manifest_of(folder: Path) -> Path:
    (manifest,) = folder.glob("pretrained-*.json")
    return manifest


# Where it is


def test_the_run_folder_is_below_the_home_else_the_repository_and_naming_it_does_not_create_it(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    assert artefacts.run_folder("runs/mine") == home / "runs" / "mine"
    assert artefacts.run_folder() == home / "runs" / "lessons"
    assert not artefacts.run_folder("runs/never").exists()
    monkeypatch.setenv("TRANSFER_TUTORIAL_HOME", "")
    below_the_repository = Path(__file__).resolve().parents[1] / "runs" / "lessons"
    assert artefacts.run_folder() == below_the_repository
    monkeypatch.delenv("TRANSFER_TUTORIAL_HOME")
    assert artefacts.run_folder() == below_the_repository


@pytest.mark.parametrize("run_dir", ["", None, 3])
def test_a_run_folder_without_a_name_is_refused(run_dir: object):
    with refused(f"run_dir: {run_dir!r} ", "give a path"):
        artefacts.run_folder(run_dir)


def test_a_run_folder_that_is_a_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TRANSFER_TUTORIAL_HOME", str(tmp_path))
    (tmp_path / "taken").write_text("")
    with refused("run_dir: 'taken' ", "give a folder"):
        artefacts.run_folder("taken")


# What is found


def test_what_was_saved_is_found_with_its_facts_and_as_nothing_else(run_folder: Path):
    saved = save(run_folder, b"weights", row={"test_errors": 3})
    assert artefacts.load(run_folder, "pretrained", ORIGIN) == (saved, {"row": {"test_errors": 3}})
    assert saved.read_bytes() == b"weights"
    assert sorted(run_folder.iterdir()) == sorted([saved, manifest_of(run_folder)])  # and no temporary one
    assert artefacts.load(run_folder, "features", ORIGIN) is None


def test_nothing_is_found_in_a_folder_that_is_not_there(run_folder: Path):
    assert artefacts.load(run_folder, "pretrained", ORIGIN) is None


@covers("an artefact of another configuration")
@pytest.mark.parametrize("changed", [{"seed": 1}, {"classes": [6, 5]}, {"task": "mnist"}, {"epochs": 5}])
def test_an_artefact_made_from_something_else_is_not_found(run_folder: Path, changed: dict):
    save(run_folder)
    with warnings.catch_warnings(action="error"):
        assert artefacts.load(run_folder, "pretrained", {**ORIGIN, **changed}) is None


def test_artefacts_of_several_origins_live_side_by_side(run_folder: Path):
    files = [save(run_folder, b"weights %d" % seed, {**ORIGIN, "seed": seed}, seed=seed) for seed in (0, 1)]
    for seed, file in enumerate(files):
        assert artefacts.load(run_folder, "pretrained", {**ORIGIN, "seed": seed}) == (file, {"seed": seed})


def test_saving_again_replaces_what_was_there(run_folder: Path):
    save(run_folder, b"first", round=1)
    second = save(run_folder, b"second", round=2)
    assert artefacts.load(run_folder, "pretrained", ORIGIN) == (second, {"round": 2})


# What is damaged


def altered(**changed: object) -> Callable[[Path, Path], object]:
    return lambda _, manifest: manifest.write_text(json.dumps({**json.loads(manifest.read_text()), **changed}))


def exchanged(_: Path, manifest: Path) -> None:
    """Put a sound manifest in the place of another."""
    save(manifest.parent, b"other weights", {**ORIGIN, "seed": 1})
    (other,) = set(manifest.parent.glob("*.json")) - {manifest}
    shutil.copy(other, manifest)


DAMAGE = {  # what is done to an artefact and its manifest
    "content cut": lambda saved, _: saved.write_bytes(b"weight"),
    "content gone": lambda saved, _: saved.write_bytes(b""),
    "other content": lambda saved, _: saved.write_bytes(b"Weights"),
    "content longer": lambda saved, _: saved.write_bytes(b"weights."),
    "no file": lambda saved, _: saved.unlink(),
    **{
        f"a manifest {text!r}": lambda _, manifest, text=text: manifest.write_text(text)
        for text in ("", "{", "[]", "null", "{}", '{"file": 3}')
    },
    "a manifest of bytes that are no text": lambda _, manifest: manifest.write_bytes(b"\xff\xfe\x00"),
    "another file": altered(file="pretrained-0000000000000000.bin"),
    "another checksum": altered(sha256="0" * 64),
    "another provenance": altered(provenance={**ORIGIN, "seed": 1}),
    "other facts": altered(facts={"row": {"test_errors": 0}}),
    "another manifest": exchanged,
}


@covers("an altered artefact", "an altered manifest")
@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_what_is_damaged_is_reported_by_name_not_used_and_can_be_made_again(run_folder: Path, damage):
    saved = save(run_folder, row={"test_errors": 3})
    manifest = manifest_of(run_folder)
    damage(saved, manifest)
    with pytest.warns(UserWarning, match=rf"{manifest.name} .* damaged; it is made again"):
        assert artefacts.load(run_folder, "pretrained", ORIGIN) is None
    save(run_folder)
    assert artefacts.load(run_folder, "pretrained", ORIGIN)[0].read_bytes() == b"weights"


# What is left behind


def test_nothing_is_left_when_writing_fails_half_way(run_folder: Path):
    def write(path: Path) -> None:
        path.write_bytes(b"half of it")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        artefacts.save(run_folder, "pretrained", ORIGIN, ".bin", write)
    assert list(run_folder.iterdir()) == []


def test_an_earlier_artefact_survives_when_writing_a_new_one_fails(run_folder: Path):
    saved = save(run_folder, round=1)

    def write(path: Path) -> None:
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space left"):
        artefacts.save(run_folder, "pretrained", ORIGIN, ".bin", write)
    assert artefacts.load(run_folder, "pretrained", ORIGIN) == (saved, {"round": 1})
    assert len(list(run_folder.iterdir())) == 2


def test_a_text_is_written_whole_or_not_at_all(tmp_path: Path):
    artefacts.write_text(tmp_path / "new" / "index.html", "naïve → ☃")
    assert (tmp_path / "new" / "index.html").read_text(encoding="utf-8") == "naïve → ☃"
    with pytest.raises(UnicodeEncodeError):
        artefacts.write_text(tmp_path / "new" / "index.html", "no text: \ud800")
    assert (tmp_path / "new" / "index.html").read_text(encoding="utf-8") == "naïve → ☃"
    assert len(list((tmp_path / "new").iterdir())) == 1


def test_result_rows_are_left_as_a_table_that_names_the_lesson(run_folder: Path):
    rows = pd.DataFrame({"strategy": ["scratch", "frozen"], "test_errors": [7, 5], "share": [0.9876543210987654, 1]})
    path = artefacts.save_results(run_folder, "05", rows)
    assert path == run_folder / "results-05.csv"
    assert path.read_text() == "lesson,strategy,test_errors,share\n05,scratch,7,0.9876543210987654\n05,frozen,5,1.0\n"


def test_a_run_may_keep_its_result_rows_elsewhere(run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TRANSFER_TUTORIAL_RESULTS", str(tmp_path / "own"))
    path = artefacts.save_results(run_folder, "05", pd.DataFrame({"strategy": ["scratch"]}))
    assert path == tmp_path / "own" / "results-05.csv"
    assert path.is_file() and not run_folder.exists()


SAVE_AGAIN_AND_AGAIN = """
import sys
from pathlib import Path
from helpers import artefacts
folder, name = Path(sys.argv[1]), sys.argv[2]
(folder.parent / name).touch()
while not all((folder.parent / each).exists() for each in ("one", "two")):
    pass  # start together
for count in range(50):
    by = f"{name} {count}"
    write = lambda path: path.write_bytes(by.encode() * 10_000)
    artefacts.save(folder, "pretrained", {"seed": 0}, ".bin", write, by=by)
"""


def test_two_processes_that_save_at_once_end_with_valid_artefacts(run_folder: Path, python):
    found = []
    with ThreadPoolExecutor() as pool, warnings.catch_warnings(action="error"):
        processes = [pool.submit(python, SAVE_AGAIN_AND_AGAIN, run_folder, name) for name in ("one", "two")]
        while not all(process.done() for process in processes):
            if (seen := artefacts.load(run_folder, "pretrained", {"seed": 0})) is not None:
                found.append(seen)
        found.append(artefacts.load(run_folder, "pretrained", {"seed": 0}))
    assert [process.result().stderr for process in processes] == ["", ""]
    assert found[-1][1]["by"] in ("one 49", "two 49")
    assert all(file.read_bytes() == facts["by"].encode() * 10_000 for file, facts in found)
    assert not list(run_folder.glob(".*"))  # nothing half-written


# What an artefact is made from


def test_what_an_artefact_is_made_from_names_values_versions_and_code():
    origin = artefacts.provenance(task="digits", classes=(5, 6), seed=0)
    assert {name: origin[name] for name in ORIGIN} == ORIGIN
    assert set(origin["versions"]) == {"tensorflow", "keras", "numpy", "scikit-learn"}
    assert len(origin["code"]) == 64


def test_the_same_is_made_from_the_same(run_folder: Path):
    save(run_folder, origin=artefacts.provenance(**ORIGIN))
    assert artefacts.load(run_folder, "pretrained", artefacts.provenance(**ORIGIN)) is not None


@covers("an artefact of other code")
@pytest.mark.parametrize("module", artefacts.MAKERS)
def test_an_artefact_made_by_other_code_is_not_found(run_folder: Path, monkeypatch: pytest.MonkeyPatch, module: str):
    save(run_folder, origin=artefacts.provenance(**ORIGIN))
    monkeypatch.setitem(artefacts.CODE, module, "0" * 64)
    assert artefacts.load(run_folder, "pretrained", artefacts.provenance(**ORIGIN)) is None


def test_a_process_goes_by_the_code_that_it_has_loaded_whatever_is_edited_meanwhile(tmp_path: Path, python):
    shutil.copytree(Path(artefacts.__file__).parent, tmp_path / "helpers")
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]); from helpers import artefacts\n"
        "code = artefacts.provenance()['code']\n"
        "with Path(artefacts.__file__).with_name('training.py').open('a') as source: source.write('# edited\\n')\n"
        "print(code, artefacts.provenance()['code'])"
    )
    (first, after_edit), (second, _) = (python(code, tmp_path).stdout.split() for _ in range(2))
    assert first == after_edit != second


def test_an_artefact_made_with_another_version_is_not_found(run_folder: Path, monkeypatch: pytest.MonkeyPatch):
    save(run_folder, origin=artefacts.provenance(**ORIGIN))
    monkeypatch.setattr(artefacts.importlib.metadata, "version", lambda package: "0.0")
    assert artefacts.load(run_folder, "pretrained", artefacts.provenance(**ORIGIN)) is None


def test_a_folder_is_free_after_its_block_even_if_a_child_was_forked_in_it(tmp_path: Path, python):
    code = (
        "import os, sys, time\nfrom pathlib import Path\nfrom helpers.artefacts import lock\n"
        "folder = Path(sys.argv[1])\n"
        "with lock('--out', folder):\n"
        "    child = os.fork()\n"
        "    if not child: time.sleep(60)\n"
        "try:\n"
        "    with lock('--out', folder): print('free')\n"
        "finally: os.kill(child, 9)"
    )
    done = python(code, tmp_path)
    assert done.stdout == "free\n", done.stderr
