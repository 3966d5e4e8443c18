"""The run folder: its location, and the result rows that lessons save in it."""

from pathlib import Path

import pandas as pd
import pytest
from refusals import refused

from helpers import folders


def test_the_run_folder_is_below_the_home_else_the_repository_and_naming_it_does_not_create_it(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    assert folders.run_folder("runs/mine") == home / "runs" / "mine"
    assert folders.run_folder() == home / "runs" / "lessons"
    assert not folders.run_folder("runs/never").exists()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TRANSFER_TUTORIAL_HOME", "~/course")
    assert folders.run_folder() == tmp_path / "course" / "runs" / "lessons"
    assert folders.run_folder("~/mine") == tmp_path / "mine"
    monkeypatch.setenv("TRANSFER_TUTORIAL_HOME", "")
    assert folders.run_folder() == Path(__file__).resolve().parents[1] / "runs" / "lessons"


def test_a_run_folder_that_is_a_file_or_has_no_name_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TRANSFER_TUTORIAL_HOME", str(tmp_path))
    (tmp_path / "taken").write_text("")
    with refused("run_dir: 'taken' ", "choose a writable folder"):
        folders.run_folder("taken")
    with refused("run_dir: '' ", "give a path"):
        folders.run_folder("")


def test_result_rows_are_left_as_a_table_that_names_the_lesson(run_folder: Path):
    rows = pd.DataFrame({"strategy": ["scratch", "frozen"], "test_errors": [7, 5], "share": [0.9876543210987654, 1]})
    path = folders.save_results(run_folder, "05", rows)
    assert path == run_folder / "results-05.csv"
    assert path.read_text() == "lesson,strategy,test_errors,share\n05,scratch,7,0.9876543210987654\n05,frozen,5,1.0\n"


def test_a_run_may_keep_its_result_rows_elsewhere(run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TRANSFER_TUTORIAL_RESULTS", str(tmp_path / "own"))
    path = folders.save_results(run_folder, "05", pd.DataFrame({"strategy": ["scratch"]}))
    assert path == tmp_path / "own" / "results-05.csv"
    assert path.is_file() and not run_folder.exists()
