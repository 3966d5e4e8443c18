"""Backbones: where their weights come from, what a cut backbone returns, and a fair head."""

import json
import subprocess
import sys
from dataclasses import replace
from itertools import product

import h5py
import nbformat
import numpy as np
import pytest
from refusals import refused

from helpers import backbones, datasets
from helpers.cnn import Architecture
from helpers.experiment import Plan
from helpers.images import Split
from helpers.photos import load_photos
from helpers.runner import batch, notebooks
from helpers.store import sha256
from helpers.tasks import Task
from helpers.training import RECIPES, Recipe, predict
from helpers.transfer import Features

LESSON = notebooks.LESSONS / "06_pretrained_network.ipynb"


@pytest.fixture(scope="module")
def random():
    """Build MobileNet at 32 pixels with untrained weights."""
    return backbones.mobilenet(32)


# Weights


@pytest.mark.parametrize("width", backbones.WIDTHS)
def test_the_published_files_have_as_many_parameters_as_keras_builds(width):
    from helpers.backend import keras

    model = keras.applications.MobileNet(input_shape=(32, 32, 3), alpha=width, include_top=False, weights=None)
    assert backbones.PARAMETERS[width] == model.count_params()
    assert f"conv_pw_{backbones.BLOCKS}_relu" == model.layers[-1].name


def test_weights_saved_by_keras_are_loaded(random, tmp_path):
    random.save_weights(tmp_path / "mine.weights.h5")
    again = backbones.mobilenet(64, 0.25, backbones.weights_file(0.25, str(tmp_path / "mine.weights.h5")))
    for one, other in zip(random.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_random_weights_are_drawn_by_the_seed(random):
    same, other = backbones.mobilenet(32, seed=0), backbones.mobilenet(32, seed=1)
    for layer in (layer for layer in random.layers if hasattr(layer, "kernel")):
        drawn = [model.get_layer(layer.name).get_weights()[0] for model in (random, same, other)]
        np.testing.assert_array_equal(drawn[0], drawn[1])
        assert (drawn[0] != drawn[2]).mean() > 0.9


def test_a_width_without_published_weights_is_refused():
    with refused("backbone_width", "0.3", "0.25, 0.5, 0.75, 1.0"):
        backbones.weights_file(0.3, "random")


@pytest.mark.parametrize("content", ["another network", "another width", "half of the file", "text", "not a number"])
def test_damaged_weights_are_refused_in_one_sentence(random, tmp_path, content):
    file, says = tmp_path / "mine.weights.h5", "is damaged or does not contain MobileNet's weights for"
    random.save_weights(file)
    if content == "another width":
        backbones.mobilenet(32, 0.5).save_weights(file)
        says = "is for backbone_width 0.5, not 0.25"
    elif content == "not a number":
        with h5py.File(file, "a") as weights:
            weights["layers/conv2d/vars/0"][0, 0, 0, 0] = np.nan
    elif content == "another network":
        with h5py.File(file, "w") as other:
            other["dense/kernel"] = np.zeros((4, 2))
    else:
        file.write_bytes(file.read_bytes()[:1_000_000] if content == "half of the file" else b"weights")
    with refused("backbone_weights: 'mine.weights.h5' ", says):
        backbones.weights_file(0.25, str(file))


def test_a_single_flipped_bit_in_the_published_file_is_noticed(tmp_path):
    content = bytearray(backbones.PACKAGED.read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / backbones.PACKAGED.name).write_bytes(content)
    with refused("backbone_weights", backbones.PACKAGED.name, "is damaged"):
        backbones.weights_file(0.25, str(tmp_path / backbones.PACKAGED.name))


def test_a_file_that_is_not_there_is_refused():
    with refused("backbone_weights", "missing.h5", '"imagenet"', '"random"'):
        backbones.weights_file(0.25, "missing.h5")


def test_without_a_network_and_a_file_it_says_what_to_set(offline):
    says = "backbone_weights", "mobilenet_7_5_224_tf_no_top.h5", "TRANSFER_TUTORIAL_DATA"
    with refused(*says, error=datasets.DownloadError):
        backbones.weights_file(0.75)


def test_another_width_is_looked_for_in_the_users_folder(offline, tmp_path, monkeypatch):
    monkeypatch.setenv("TRANSFER_TUTORIAL_DATA", str(tmp_path))
    backbones.mobilenet(32, 0.5).save_weights(tmp_path / "mine.weights.h5")
    mine = (tmp_path / "mine.weights.h5").rename(tmp_path / "mobilenet_5_0_224_tf_no_top.h5")
    assert backbones.weights_facts(0.5, "imagenet") == {"file": mine.name, "sha256": sha256(mine)}


def test_the_weights_in_the_package_need_no_network(offline):
    facts = {"file": "mobilenet_2_5_224_tf_no_top.h5", "sha256": backbones.PACKAGED_SHA256}
    assert backbones.weights_facts(0.25, "imagenet") == facts
    assert backbones.PACKAGED_SHA256 in (backbones.PACKAGED.parent / "README.md").read_text(encoding="utf-8")


# Features


def test_gray_images_of_any_size_become_features():
    images, backbone = np.zeros((3, 14, 14, 1), np.uint8), backbones.mobilenet(64)
    for block, features in ((3, (2, 2, 32)), (6, (2, 2, 128)), (13, (1, 1, 256))):
        assert predict(backbones.extractor(backbone, (14, 14, 1), block), images).shape == (3, *features)


@pytest.mark.parametrize("width", backbones.WIDTHS)
def test_the_heads_of_all_cuts_get_equally_many_numbers(width):
    backbone = backbones.mobilenet(64, width)
    cuts = [backbones.extractor(backbone, (28, 28, 1), *cut).output_shape[1:] for cut in backbones.CUTS.items()]
    assert [np.prod(shape) for shape in cuts] == [2048 * width] * 3


def test_the_extractor_feeds_the_range_that_keras_feeds(random):
    from helpers.backend import keras

    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    fed = keras.applications.mobilenet.preprocess_input(images.astype("float32"))
    expected = random.predict_on_batch(fed).mean(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(predict(backbones.extractor(random, (32, 32, 3)), images), expected, rtol=1e-4, atol=0)


def test_the_features_of_a_photo_do_not_depend_on_the_others(random):
    extractor = backbones.extractor(random, (32, 32, 3))
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    np.testing.assert_allclose(extractor(images)[:1], extractor(images[:1]), rtol=1e-4)


@pytest.fixture(scope="module")
def features() -> Split:
    draws = np.random.default_rng(0)
    labels = np.tile(np.arange(2, dtype=np.int32), 20)
    return Split(draws.normal(labels[:, None, None, None], 1, (40, 1, 1, 6)).astype("float32"), labels)


@pytest.fixture(scope="module")
def head() -> backbones.Head:
    return backbones.Head((1, 1, 6), Architecture((32, 32, 3), 2, dense_units=8), RECIPES["fast"])


def test_a_head_does_not_care_how_small_features_are(head, features):
    tiny = Split(features.images * np.float32(1e-16), features.labels)
    np.testing.assert_allclose(head.train(features, features, 0)[1], head.train(tiny, tiny, 0)[1], atol=1e-3)


def test_what_a_head_says_does_not_depend_on_the_other_test_images(head, features):
    few = Split(features.images[:5], features.labels[:5])
    of_all, of_few = (head.train(features, test, 0)[1] for test in (features, few))
    np.testing.assert_allclose(of_few, of_all[:5], atol=1e-6)


def test_a_head_scales_all_features_by_those_that_it_trains_on(head, features):
    head.train(features, Split(features.images + 3, features.labels), 0)
    np.testing.assert_allclose(head.scaler.mean_, features.images.mean(axis=(0, 1, 2)), rtol=1e-5)


def test_the_features_of_a_budget_are_drawn_by_the_seed(head, features, monkeypatch):
    trained, train = [], head.train
    monkeypatch.setattr(head, "train", lambda few, test, seed: trained.append(few.images[:]) or train(few, test, seed))
    cached, task = Features(features.images, features.labels, "", "", 1.0), Task("photos", (0, 1), *[features] * 3)
    for seed in (0, 1, 0):
        head.row(task, "frozen", 5, seed, cached, cached)
    assert np.array_equal(trained[0], trained[2]) and not np.array_equal(trained[0], trained[1])


# Comparisons

SMALL = Architecture((8, 8, 1), 2, filters=4, dense_units=4)
QUICK = Recipe("adam", 0.005, 8, 1, 2)


def test_photos_are_compared_with_the_same_test_photos_and_with_budgets_that_classes_can_fill(random, photo_folder):
    photos = load_photos(str(photo_folder), 32)
    rows = backbones.compare_photos(photos, [4, 50, "all"], [0, 1], SMALL, QUICK, random)
    found = rows.groupby(["strategy", "labels_per_class", "seed"]).size()
    assert set(found.index) == set(product(["scratch", "frozen", "random-frozen"], [4, "all"], [0, 1]))
    assert set(found) == {1} and set(rows["task"]) == {"photos"} and set(rows["test_images"]) == {10}


def test_a_trained_backbone_beats_random_weights_on_the_flowers():
    flowers = load_photos("flowers", 96)
    backbone = backbones.mobilenet(96, weights=backbones.weights_file())
    rows = backbones.compare_photos(flowers, ["all"], [0], SMALL, Recipe("adam", 0.005, 48, 1, 60), backbone)
    accuracy = rows.set_index("strategy")["test_accuracy"]
    assert accuracy["frozen"] > 0.6 > 0.5 > accuracy["random-frozen"]


def test_cuts_add_their_rows_to_those_of_the_comparison(random, digits, run_folder):
    plan, network = Plan([5, 6, 7], [0, 1, 2], ["scratch"], [2, 5], [0]), backbones.mobilenet(64)
    rows = backbones.compare_cuts(digits, plan, SMALL, QUICK, run_folder, network)
    assert rows["strategy"].tolist() == [*["scratch"] * 2, *["block 3"] * 2, *["block 6"] * 2, *["block 13"] * 2]
    assert rows["labels_per_class"].tolist() == [2, 5] * 4 and rows["test_images"].nunique() == 1
    few = replace(plan, labels_per_class=[2])
    alone = backbones.compare_cuts(digits, few, SMALL, QUICK, run_folder, network)
    assert rows["test_errors"][rows["labels_per_class"] == 2].tolist() == alone["test_errors"].tolist()


# A run


def test_a_lesson_whose_weights_cannot_be_had_is_refused(offline, tmp_path):
    with refused("backbone_weights", "TRANSFER_TUTORIAL_DATA", error=datasets.DownloadError):
        batch.new("digits", [("backbone_width", "0.5")], ["06"], tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_download_that_fails_is_one_line_in_a_notebook():
    assert datasets.DownloadError("photos", "why")._render_traceback_() == ["DownloadError: photos: why"]


@pytest.mark.outside
@pytest.mark.notebook
def test_lesson_06_saves_a_network_that_a_script_can_use(photo_folder, tmp_path, monkeypatch):
    """Run the lesson on random weights, then its code for a script in a process without this course."""
    lesson = nbformat.read(LESSON, as_version=4)
    lines = next(cell.source for cell in lesson.cells if "keras.saving.load_model(saved)" in cell.source)
    lesson.cells.append(nbformat.v4.new_code_cell("(folder / 'p.json').write_text(json.dumps(probabilities.tolist()))"))
    nbformat.write(lesson, tmp_path / "lesson.ipynb")
    monkeypatch.setenv("TRANSFER_TUTORIAL_HOME", str(tmp_path))
    small = {"dataset": "digits", "seeds": [0], "labels_per_class": [5], "filters": 4, "dense_units": 8}
    values = {**small, "photos": str(photo_folder), "photo_size": 32, "backbone_weights": "random", "run_dir": "run"}
    notebooks.execute(notebooks.find(str(tmp_path / "lesson.ipynb")), tmp_path / "executed.ipynb", values)
    probabilities = json.loads((tmp_path / "run" / "p.json").read_text())
    script = "\n".join(
        [
            "import sys; from pathlib import Path",
            f"saved = Path({str(tmp_path / 'run' / 'photos.keras')!r})",
            f"photo = Path({str(photo_folder / 'test' / 'dark' / '0.png')!r})",
            *[line for line in lines.splitlines() if not line.startswith("photo = ")],
            "assert 'helpers' not in sys.modules",
            "print(json.dumps([answer, probabilities.tolist()]))",
        ]
    )
    ran = subprocess.run([sys.executable, "-P", "-c", script], cwd=tmp_path, capture_output=True, text=True)
    answer, again = json.loads(ran.stdout.splitlines()[-1])
    assert answer.split(",")[0] == ["dark", "light"][int(np.argmax(again))]
    np.testing.assert_allclose(again, probabilities, atol=1e-5)
