"""Backbones: whose weights are taken, what comes out where they are cut, a fair head; and the photos they are for."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import nbformat
import numpy as np
import pytest
from PIL import Image
from refusals import refused

from helpers import backbones, datasets
from helpers.cnn import Architecture
from helpers.images import Split
from helpers.runner import batch, notebooks
from helpers.store import sha256
from helpers.tasks import Task, budgets_for, whole_task
from helpers.training import RECIPES, predict
from helpers.transfer import Features

LESSON = notebooks.LESSONS / "06_pretrained_network.ipynb"


@pytest.fixture(scope="module")
def random():
    """Build MobileNet at 32 pixels with weights that nobody trained."""
    return backbones.mobilenet(32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make photos of two classes, not square and in colour: 10 to train on and 5 to test with, dark or light."""
    draws = np.random.default_rng(0)
    for split, count in (("train", 10), ("test", 5)):
        for name, brightness in (("dark", 60), ("light", 200)):
            (tmp_path / "photos" / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = draws.integers(brightness - 50, brightness + 50, (40, 60, 3), np.uint8)
                Image.fromarray(pixels).save(tmp_path / "photos" / split / name / f"{number}.png")
    return tmp_path / "photos"


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


@pytest.mark.parametrize("content", ["another network", "half", "text"])
def test_a_file_that_holds_no_weights_of_mobilenet_is_refused(random, tmp_path, content):
    file = tmp_path / "mine.weights.h5"
    random.save_weights(file)
    if content == "another network":
        with h5py.File(file, "w") as other:
            other["dense/kernel"] = np.zeros((4, 2))
    else:
        file.write_bytes(file.read_bytes()[:100_000] if content == "half" else b"weights")
    with refused("backbone_weights", "mine.weights.h5", "width 0.25", ".h5"):
        backbones.weights_file(0.25, str(file))


def test_a_file_that_is_not_there_is_refused():
    with refused("backbone_weights", "missing.h5", '"imagenet"', '"random"'):
        backbones.weights_file(0.25, "missing.h5")


def test_without_a_network_and_a_file_it_says_what_to_set(offline):
    says = "backbone_weights", "mobilenet_7_5_224_tf_no_top.h5", "TRANSFER_TUTORIAL_DATA"
    with refused(*says, error=datasets.DownloadError):
        backbones.weights_file(0.75)


def test_the_users_data_folder_comes_first(offline, random, tmp_path, monkeypatch):
    monkeypatch.setenv("TRANSFER_TUTORIAL_DATA", str(tmp_path))
    random.save_weights(tmp_path / "mine.weights.h5")
    mine = (tmp_path / "mine.weights.h5").rename(tmp_path / "mobilenet_2_5_224_tf_no_top.h5")
    assert backbones.weights_file() == mine
    assert backbones.weights_facts(0.25, "imagenet") == {"file": mine.name, "sha256": sha256(mine)}


# Features


def test_gray_images_of_any_size_become_features():
    images, backbone = np.zeros((3, 14, 14, 1), np.uint8), backbones.mobilenet(64)
    for block, features in ((3, (2, 2, 32)), (6, (2, 2, 128)), (13, (1, 1, 256))):
        assert predict(backbones.extractor(backbone, (14, 14, 1), block), images).shape == (3, *features)


def test_the_extractor_feeds_the_range_that_keras_feeds(random):
    from helpers.backend import keras

    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    fed = keras.applications.mobilenet.preprocess_input(images.astype("float32"))
    expected = random.predict_on_batch(fed).mean(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(predict(backbones.extractor(random, (32, 32, 3)), images), expected, rtol=1e-4, atol=0)
    wrong = predict(backbones.extractor(random, (32, 32, 3), rescale=False), images)
    assert not np.allclose(wrong, expected, rtol=0.1, atol=0)


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


def test_a_heads_network_takes_features_as_they_are(head, features):
    probabilities = head.train(features, features, 0)[1]
    np.testing.assert_allclose(head.network().predict_on_batch(features.images), probabilities, atol=1e-5)


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


# Photos


def test_a_folder_of_photos_is_a_task(folder):
    photos = datasets.load_photos(str(folder), 32)
    task = whole_task("photos", photos)
    assert task.classes == ("dark", "light")
    assert [len(split) for split in (task.train, task.validation, task.test)] == [20, 0, 10]
    for file, image, label in zip(photos.test_files, photos.test.images, photos.test.labels, strict=True):
        assert file.parent.name == photos.classes[label]
        assert abs(np.asarray(Image.open(file)).mean() - image.mean()) < 10


@pytest.mark.parametrize("size", [31, 225])
def test_a_size_that_the_network_cannot_take_is_refused(folder, size):
    with refused("photo_size", repr(size), "from 32 to 224"):
        datasets.load_photos(str(folder), size)


def test_photos_need_two_classes_with_images_in_both_sets(folder, tmp_path):
    (tmp_path / "one").mkdir()
    (folder / "train" / "dark").rename(tmp_path / "one" / "dark")
    with refused("photos", "class dark only", "two or more"):
        datasets.load_photos(str(tmp_path / "one"), 32)
    (folder / "train" / "dark").mkdir()
    with refused("photos", "no training image of class dark"):
        whole_task("photos", datasets.load_photos(str(folder), 32))


def test_an_archive_is_checked_by_content_before_anything_is_unpacked(offline, tmp_path, monkeypatch):
    monkeypatch.setenv("TRANSFER_TUTORIAL_DATA", str(tmp_path / "data"))
    (tmp_path / "data").mkdir()
    with zipfile.ZipFile(tmp_path / "data" / "hymenoptera_data.zip", "w") as archive:
        archive.writestr("hymenoptera_data/train/ants/1.png", "")
        archive.writestr("../outside.png", "")
    with refused("TRANSFER_TUTORIAL_DATA", "'hymenoptera_data.zip'", "published"):
        datasets.load_photos("ants_bees")
    assert not list(tmp_path.rglob("*.png"))


def test_without_a_network_and_photos_it_says_what_to_set(offline):
    says = "photos", '"ants_bees"', "TRANSFER_TUTORIAL_DATA", "hymenoptera_data.zip"
    with refused(*says, error=datasets.DownloadError):
        datasets.load_photos()


@pytest.mark.photos
def test_the_ants_and_bees_are_the_published_ones():
    photos = datasets.load_photos("ants_bees", 32)
    assert (len(photos.train), len(photos.test), photos.classes) == (244, 153, ("ants", "bees"))
    assert photos.notes == ("1 of 398 files is no image: train/ants/imageNotFound.gif",)


@pytest.mark.parametrize(("budgets", "taken"), [([10, 11, 500, "all"], [10, "all"]), ([99], ["all"])])
def test_a_budget_larger_than_a_class_is_all(budgets, taken):
    split = Split(np.empty((21, 8, 8, 1), np.uint8), np.repeat(np.arange(2, dtype=np.int32), [10, 11]))
    assert budgets_for(split, budgets) == taken


# A run


def test_a_lesson_whose_files_cannot_be_had_is_left_out(offline, tmp_path):
    run = batch.new("digits", [], ["01", "06"], tmp_path / "run")
    (note,) = [note for note in run.notes if "left out" in note]
    for word in ("Lesson 06", "backbone_weights", "could not be downloaded", "TRANSFER_TUTORIAL_DATA"):
        assert word in note
    assert [entry["number"] for entry in run.record["lessons"]] == ["01"]


@pytest.mark.parametrize(("only", "given"), [(["06"], []), (["01", "06"], [("photo_size", "64")])])
def test_a_lesson_that_is_asked_for_is_not_left_out(offline, tmp_path, only, given):
    with refused("backbone_weights", "TRANSFER_TUTORIAL_DATA", error=datasets.DownloadError):
        batch.new("digits", given, only, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_download_that_fails_is_one_line_in_a_notebook():
    assert datasets.DownloadError("photos", "why")._render_traceback_() == ["DownloadError: photos: why"]


@pytest.mark.outside
@pytest.mark.notebook
def test_lesson_06_saves_a_network_that_a_script_can_use(folder, tmp_path, monkeypatch):
    """Run it without a download, on random weights, then its lines for a script, in a process without this course."""
    lesson = nbformat.read(LESSON, as_version=4)
    lines = next(cell.source for cell in lesson.cells if "keras.saving.load_model(saved)" in cell.source)
    lesson.cells.append(nbformat.v4.new_code_cell("(folder / 'p.json').write_text(json.dumps(probabilities.tolist()))"))
    nbformat.write(lesson, tmp_path / "lesson.ipynb")
    monkeypatch.setenv("TRANSFER_TUTORIAL_HOME", str(tmp_path))
    small = {"dataset": "digits", "seeds": [0], "labels_per_class": [5], "filters": 4, "dense_units": 8}
    values = {**small, "photos": str(folder), "photo_size": 32, "backbone_weights": "random", "run_dir": "run"}
    notebooks.execute(notebooks.find(str(tmp_path / "lesson.ipynb")), tmp_path / "executed.ipynb", values)
    probabilities = json.loads((tmp_path / "run" / "p.json").read_text())
    script = "\n".join(
        [
            "import sys; from pathlib import Path",
            f"saved = Path({str(tmp_path / 'run' / 'photos.keras')!r})",
            f"photo = Path({str(folder / 'test' / 'dark' / '0.png')!r})",
            *[line for line in lines.splitlines() if not line.startswith("photo = ")],
            "assert 'helpers' not in sys.modules",
            "print(json.dumps([answer, probabilities.tolist()]))",
        ]
    )
    ran = subprocess.run([sys.executable, "-P", "-c", script], cwd=tmp_path, capture_output=True, text=True)
    answer, again = json.loads(ran.stdout.splitlines()[-1])
    assert answer.split(",")[0] == ["dark", "light"][int(np.argmax(again))]
    np.testing.assert_allclose(again, probabilities, atol=1e-5)
