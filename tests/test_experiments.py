"""The experiments behind "Does it hold?" and "Results": training, choices, and stored rows."""

import ast
import os
import re
import shlex
import subprocess
from typing import Any

import nbformat
import numpy as np
import pandas as pd
import pytest
from tiny_course import arrays, transfer_tutorial

from helpers.cnn import CONVOLUTIONS, Architecture, build_cnn
from helpers.experiment import Plan
from helpers.folders import REPOSITORY
from helpers.runner import notebooks, sweep
from helpers.statistics import interval
from helpers.transfer import SourceNetwork

EXPERIMENTS, STUDY = REPOSITORY / "docs" / "experiments", REPOSITORY / "docs" / "study"
PLAN = Plan((5, 6, 7, 8, 9), (0, 1, 2, 3, 4), ("scratch", "frozen"), (5,), (0,))


def defined(notebook: str) -> dict[str, Any]:
    """Return the names that a notebook imports and defines, without running the rest of it."""
    cells = nbformat.read(EXPERIMENTS / f"{notebook}.ipynb", as_version=4).cells
    code = ast.parse("\n".join(cell.source for cell in cells if cell.cell_type == "code"))
    kinds = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef)
    code.body = [node for node in code.body if isinstance(node, kinds) or ast.unparse(node).partition(" ")[0].isupper()]
    names: dict[str, Any] = {}
    exec(compile(code, notebook, "exec"), names)
    return names


@pytest.fixture(scope="module")
def comparison() -> dict[str, Any]:
    return defined("comparison")


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return pd.read_csv(STUDY / "trainings.csv", keep_default_na=False)


# Training


def test_shuffled_kernels_keep_their_values_and_lose_their_shape(comparison):
    base = SourceNetwork(build_cnn(Architecture((8, 8, 1), 5), seed=1), {}, pd.DataFrame(), "base")
    before = {name: base.model.get_layer(name).get_weights() for name in CONVOLUTIONS}
    mixed = comparison["shuffled"](base, seed=0)
    assert mixed.file != base.file
    for name, (kernels, bias) in before.items():
        after, same = mixed.model.get_layer(name).get_weights()
        flat, moved = (weights.reshape(-1, weights.shape[-1]) for weights in (kernels, after))
        np.testing.assert_array_equal(np.sort(flat, axis=0), np.sort(moved, axis=0))
        assert (flat != moved).mean() > 0.5
        np.testing.assert_array_equal(bias, same)


def test_shuffled_labels_are_the_same_labels_on_other_images(comparison):
    source, target = comparison["tasks_of"](PLAN, "digits")
    mixed, same = comparison["tasks_of"](PLAN, "digits", control="shuffled labels")
    np.testing.assert_array_equal(source.train.images[:], mixed.train.images[:])
    np.testing.assert_array_equal(np.bincount(source.train.labels), np.bincount(mixed.train.labels))
    assert 0.7 < (source.train.labels != mixed.train.labels).mean() < 0.9  # by chance, four out of five
    assert target.fingerprint == same.fingerprint


def test_a_control_pretrains_at_a_tenth_of_the_rate(comparison):
    controls = ("shuffled kernels", "shuffled labels", "shuffled labels, a tenth of the rate")
    rates = [comparison["pretraining_recipe"](control).learning_rate for control in controls]
    assert rates == [0.005, 0.005, 0.0005]


def test_tuning_never_sees_a_test_image(comparison):
    _, target = comparison["tasks_of"](PLAN, "digits")
    _, tuned_on = comparison["tasks_of"](PLAN, "digits", judged_on="validation")
    np.testing.assert_array_equal(tuned_on.test.images[:], target.validation.images[:])


def test_a_longer_recipe_makes_that_many_times_the_updates(comparison):
    longer = comparison["recipe"](0.005, length=2)
    assert [longer.updates(images) for images in (50, 48_000)] == [400, 2000]


def test_tuning_takes_the_fewest_validation_errors_and_the_recipe_when_several_are_equal(comparison):
    tried = [("0.0015", "1", "17"), ("0.005", "1", "4"), ("0.005", "2", "4"), ("0.015", "2", "4")]  # text, as in a file
    setting = {"question": "tuning", "task": "target", "strategy": "frozen", "labels_per_class": "10", "seed": "3"}
    table = pd.DataFrame(tried, columns=["learning_rate", "length", "errors"]).assign(**setting)
    best = comparison["chosen"](table)
    assert [(*index, *values) for index, *values in best.itertuples()] == [("frozen", "10", 3, 0.005, 1)]
    best = comparison["chosen"](table.assign(errors=["17", "4", "4", "3"]))
    assert best.loc[("frozen", "10", 3)].tolist() == [0.015, 2]


def test_an_exact_number_of_updates_may_be_less_than_an_epoch():
    recipe = defined("updates")["Exactly"](batch_size=48, min_updates=144)
    assert [recipe.updates(images) for images in (50, 48_000)] == [144, 144]


def test_intervals_over_images_too_are_wider_where_the_images_matter():
    rng = np.random.default_rng(0)
    hard = rng.random(400) < 0.3  # the same images for every seed
    wrong = [{("scratch", "10"): hard, ("frozen", "10"): hard & (rng.random(400) < 0.5)} for _ in range(10)]
    (row,) = defined("collect")["image_intervals"](wrong).itertuples()
    by_seed = [100 * (missed["scratch", "10"].mean() - missed["frozen", "10"].mean()) for missed in wrong]
    np.testing.assert_allclose((row.difference, row.t_low, row.t_high), interval(by_seed), atol=1e-3)
    of_seeds, of_both = row.seeds_high - row.seeds_low, row.both_high - row.both_low
    assert 0.6 < of_seeds / (row.t_high - row.t_low) < 1  # with ten seeds, bootstrap intervals are narrower than t
    assert of_both > 1.5 * of_seeds
    assert row.both_low < row.difference < row.both_high


def test_the_commands_ask_for_the_stored_trainings(rows, tmp_path, monkeypatch):
    logged = tmp_path / "transfer-tutorial"
    logged.write_text(f"#!/bin/sh\nprintf '%s\\0' \"$@\" END >> {tmp_path}/log\n")
    logged.chmod(0o755)
    text = (EXPERIMENTS / "README.md").read_text(encoding="utf-8")
    *commands, _, _ = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    environ = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    subprocess.run(["bash", "-ec", "".join(commands)], env=environ, cwd=REPOSITORY, check=True)
    monkeypatch.chdir(REPOSITORY)
    trained = dict.fromkeys(sorted(set(rows["question"])), 0)
    for command in (tmp_path / "log").read_text().split("\0END\0")[:-1]:
        _, notebook, *words = command.split("\0")
        if not notebook.endswith(".ipynb"):  # a lesson's rows are stored somewhere else
            continue
        given = [(words[place + 1], words[place + 2]) for place, word in enumerate(words) if word == "-p"]
        swept = [words[place + 1] for place, word in enumerate(words) if word == "--grid"]
        planned = sweep.plan(notebook, swept, None, given, tmp_path / "out")
        for run in planned.runs.values():
            values = {**planned.defaults, **run}
            if "question" in values:
                ways = values.get("strategies", range(7 if values["question"] == "alternatives" else 1))
                trained[values["question"]] += len(ways) * len(values["labels_per_class"])
    assert trained == rows[rows["task"] == "target"].groupby("question").size().to_dict()


# Stored rows


def test_every_training_is_stored_once(rows):
    assert not rows.duplicated(defined("collect")["KEYS"]).any()
    assert rows["errors"].between(0, rows["images"]).all()


def test_the_tuned_trainings_are_those_that_the_tuning_chose(rows, comparison):
    tuned = rows[rows["question"] == "tuned"].set_index(["strategy", "labels_per_class", "seed"]).sort_index()
    best = comparison["chosen"](rows)
    assert len(best) == 5 * 3 * 5  # strategies, label budgets, seeds
    pd.testing.assert_frame_equal(tuned[["learning_rate", "length"]], best, check_dtype=False)


# Collecting rows from sweeps


@pytest.mark.sweep
def test_a_sweep_tunes_another_trains_with_what_it_chose_and_the_rows_are_collected(tmp_path, rows):
    def experiment(name: str, *words: str) -> pd.DataFrame:
        common = [*("--dataset", "digits", "-p", "question", name), *("-p", "labels_per_class", "[5]")]
        common += ["-p", "strategies", "[scratch, frozen]", "--workers", "2", "--store", "kept", "--out", name]
        notebook = str(EXPERIMENTS / "comparison.ipynb")
        done = transfer_tutorial(tmp_path, "sweep", notebook, *common, *words)
        assert done.returncode == 0, done.stdout + done.stderr
        return pd.read_csv(tmp_path / name / "results.csv", keep_default_na=False)

    tuning = experiment("tuning", "--grid", "learning_rate=0.0001,0.005", "-p", "judged_on", "validation")
    assert len(tuning) == 2 * 2
    tuned = experiment("tuned", "--grid", "seed=0", "-p", "tuning", "tuning/results.csv")
    assert list(tuned["learning_rate"]) == [0.005, 0.005], "nothing is learned at the other rate"
    seeds = experiment("seeds", "--grid", "seed=0,1")
    on_target = seeds[seeds["task"] == "target"]
    for run, of_run in on_target.groupby("run"):
        with np.load(tmp_path / "seeds" / "runs" / run / "extra-wrong.npz") as wrong:
            missed = {name: int(wrong[f"{name}, 5"].sum()) for name in of_run["strategy"]}
        assert missed == of_run.set_index("strategy")["errors"].to_dict()
    assert len({*on_target["updates"]}) == 1
    notebooks.execute(
        notebooks.find(str(EXPERIMENTS / "collect.ipynb")), tmp_path / "c.ipynb", {"sweeps": str(tmp_path)}
    )
    assert f"trainings.csv: {4 + 2 + 2 * 3} rows of {len(rows)}, 0 of them known" in (tmp_path / "c.ipynb").read_text()


@pytest.mark.sweep
def test_the_commands_for_other_sets_train_and_judge_the_rule(tmp_path):
    page = notebooks.find(str(REPOSITORY / "docs" / "should_i_transfer.ipynb"))
    cells = nbformat.read(page.path, as_version=4).cells
    (block,) = re.findall(r"```bash\n(.*?)```", "\n".join(cell.source for cell in cells), re.DOTALL)
    starts, sources, show = map(shlex.split, block.replace("docs/", f"{REPOSITORY}/docs/").splitlines())
    np.savez(tmp_path / "mine.npz", **arrays(160, classes=(0, 1, 2, 3, 10, 11, 12, 13)))
    for command, small in ((starts, ["-p", "backbone_weights", "random", "-p", "blocks", "[6]"]), (sources, [])):
        words = [word.replace("seed=0,1,2", "seed=0") for word in command[1:]]
        done = transfer_tutorial(tmp_path, *words, "-p", "labels_per_class", "[5]", *small)
        assert done.returncode == 0, done.stdout + done.stderr
    notebooks.execute(page, tmp_path / "shown.ipynb", {show[-2]: str(tmp_path / show[-1])})
    assert "set 1, 5 labels: mean regret of the rule" in (tmp_path / "shown.ipynb").read_text()
