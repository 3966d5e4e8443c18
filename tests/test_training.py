"""Training: the number of updates, the learning rate, and the order of images; results match `fit`."""

import itertools
import math
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, strategies as st
from refusals import refused
from small import ADAM, SMALL, without_dropout

from helpers import cnn, training
from helpers.backend import keras
from helpers.images import Split
from helpers.tasks import Task, subsample
from helpers.training import Recipe, Trainer


@pytest.fixture(scope="module")
def images(tasks: tuple[Task, Task]) -> Split:
    """Take 20 images per class, 100 in total."""
    return subsample(tasks[1].train, 20)


@pytest.fixture(scope="module")
def trainer() -> Trainer:
    """Compile one small network for most tests here, because compiling takes longer than training."""
    return Trainer(cnn.build_cnn(SMALL), ADAM)


@pytest.fixture(scope="module")
def sure_trainer() -> Trainer:
    """Compile a network without dropout."""
    return Trainer(without_dropout(cnn.build_cnn(SMALL)), ADAM)


def losses(trainer: Trainer, split: Split, seed: int = 0, **options: object) -> np.ndarray:
    """Train from the weights of seed 0 and return the loss of each batch."""
    cnn.initialize(trainer.model, 0)
    return trainer.train(split, seed, **options).losses


# Number of updates


@pytest.mark.parametrize(
    ("images", "batch_size", "epochs", "min_updates", "updates"),
    [
        (27_536, 128, 5, 300, 1_080),  # MNIST's 0-4 minus a tenth: 215.125 batches, so 216 per epoch
        (50, 128, 5, 300, 300),  # 5 epochs of one batch are too few
        (3_840, 128, 10, 300, 300),  # 30 batches per epoch: both rules agree
        (3_841, 128, 10, 300, 310),  # one more image adds a batch to each epoch
    ],
)
def test_updates_are_those_of_the_epochs_but_never_too_few(images, batch_size, epochs, min_updates, updates):
    recipe = Recipe(batch_size=batch_size, epochs=epochs, min_updates=min_updates)
    assert recipe.updates(images) == updates
    assert replace(recipe, times=1.5).updates(images) == math.ceil(1.5 * updates)


# Learning rate


@pytest.mark.parametrize(
    ("update", "rate"),
    [
        (0, 0.2),  # a tenth of the way up
        (9, 2.0),  # the top, at the end of the first tenth
        (10, 2.0),  # cos 0 = 1
        (40, 1.5),  # a third of the way down: cos 60° = 1/2
        (70, 0.5),  # cos 120° = -1/2
        (99, 1 - 0.9993908270),  # cos 178°, almost nothing
    ],
)
def test_a_cosine_schedule_rises_for_a_tenth_of_the_updates_and_then_falls_to_zero(update: int, rate: float):
    recipe = Recipe(learning_rate=2.0, schedule="cosine")
    assert recipe.rate(update, 100) == pytest.approx(rate, rel=1e-6)


@given(st.integers(1, 500))
def test_a_cosine_schedule_reaches_the_learning_rate_but_never_zero(updates: int):
    rates = [Recipe(learning_rate=0.5, schedule="cosine").rate(update, updates) for update in range(updates)]
    assert max(rates) == 0.5 and min(rates) > 0


# Order of images


@given(st.integers(1, 60), st.integers(1, 80), st.integers(0, 2**32 - 1))
def test_every_epoch_visits_each_image_once_in_full_batches(images: int, batch_size: int, seed: int):
    batches = training.batch_indices(images, Recipe(batch_size=batch_size), seed)
    taken = list(itertools.islice(batches, math.ceil(3 * images / min(batch_size, images))))
    assert {len(batch) for batch in taken} == {min(batch_size, images)}
    stream = np.concatenate(taken)
    for epoch in range(3):
        assert sorted(stream[epoch * images : (epoch + 1) * images]) == list(range(images))


def test_the_seed_decides_the_order():
    orders = [next(training.batch_indices(100, ADAM, seed)).tolist() for seed in (1, 2, 1)]
    assert orders[0] == orders[2] != orders[1]


# Results of training


def test_each_loss_is_the_cross_entropy_of_its_batch(sure_trainer: Trainer, images: Split, monkeypatch):
    monkeypatch.setattr(sure_trainer, "recipe", replace(ADAM, learning_rate=1e-12))  # the weights hardly move
    computed = losses(sure_trainer, images, seed=4)
    probabilities = training.predict(sure_trainer.model, images.images)
    of_each = -np.log(probabilities[np.arange(100), images.labels])
    batches = training.batch_indices(100, ADAM, seed=4)
    assert computed == pytest.approx([of_each[next(batches)].mean() for _ in range(20)], abs=1e-5)


@pytest.mark.filterwarnings("ignore")  # from Keras, about its use of NumPy and about generators
def test_the_stream_gives_the_same_losses_as_fit_fed_the_same_batches(sure_trainer, images: Split, monkeypatch):
    recipe = replace(ADAM, schedule="cosine")
    monkeypatch.setattr(sure_trainer, "recipe", recipe)
    streamed = losses(sure_trainer, images, seed=7)

    fitted = without_dropout(cnn.build_cnn(SMALL))
    fitted.compile(keras.optimizers.Adam(recipe.learning_rate), "sparse_categorical_crossentropy")
    batches = ((images.images[batch], images.labels[batch]) for batch in training.batch_indices(100, recipe, 7))
    rates = keras.callbacks.LearningRateScheduler(lambda epoch: recipe.rate(epoch, 20))
    log = fitted.fit(batches, steps_per_epoch=1, epochs=20, callbacks=[rates], verbose=0)
    assert streamed == pytest.approx(log.history["loss"], abs=1e-5)
    assert streamed[0] - streamed[-1] > 0.05  # and the network learned something


def test_a_small_training_learns_the_digits(trainer: Trainer, tasks: tuple[Task, Task], monkeypatch):
    _, target = tasks
    monkeypatch.setattr(trainer, "recipe", replace(ADAM, learning_rate=1e-2, min_updates=150, schedule="cosine"))
    losses(trainer, target.train)
    accuracy, _ = training.evaluate(trainer.model, target.test)
    assert accuracy > 0.9  # chance level is 0.2


# Repeatability


def test_the_same_seed_gives_bitwise_identical_losses_in_a_new_trainer_and_in_a_used_one(trainer, images, tasks):
    losses(trainer, tasks[0].train, seed=6)
    new = Trainer(cnn.build_cnn(SMALL, seed=0), ADAM)  # which leaves the weights unchanged
    used = losses(trainer, images, seed=5)
    assert np.array_equal(new.train(images, seed=5).losses, used)
    assert (losses(trainer, images, seed=6) != used).all()


def test_the_seed_decides_what_dropout_drops(trainer: Trainer, images: Split):
    alike = Split(np.repeat(images.images[:1], 32, axis=0), np.repeat(images.labels[:1], 32))  # order is irrelevant
    first, second = losses(trainer, alike, seed=5), losses(trainer, alike, seed=6)
    assert (first != second).all()
    assert np.array_equal(first, losses(trainer, alike, seed=5))


# Evaluation on validation images


@pytest.mark.parametrize(
    ("min_updates", "looks"),
    [
        (20, [4, 8, 12, 16, 20]),
        (23, [5, 9, 14, 18, 23]),  # multiples of 4.6, rounded
        (4, [1, 2, 3, 4]),  # fewer updates than evaluations
    ],
)
def test_the_validation_split_is_looked_at_five_times_at_most(
    trainer: Trainer, images: Split, monkeypatch: pytest.MonkeyPatch, min_updates: int, looks: list[int]
):
    monkeypatch.setattr(trainer, "recipe", replace(ADAM, min_updates=min_updates))
    done = trainer.train(images, validation=images)
    assert done.history["update"].tolist() == looks
    assert done.history["epoch"].tolist() == pytest.approx([0.32 * update for update in looks])  # 32 of 100 images


def test_history_holds_means_since_the_last_look_and_validation_now(trainer: Trainer, images: Split, tasks):
    validation = tasks[1].validation
    done = trainer.train(images, validation=validation)
    assert done.history["loss"].tolist() == pytest.approx(done.losses.reshape(5, 4).mean(axis=1).tolist())
    accuracy, probabilities = training.evaluate(trainer.model, validation)
    own = -np.log(probabilities[np.arange(len(validation)), validation.labels]).mean()
    last = done.history.iloc[-1]
    assert (last["validation_accuracy"], last["validation_loss"]) == pytest.approx((accuracy, own), abs=1e-5)


def test_seconds_do_not_cover_the_looks(trainer: Trainer, images: Split, monkeypatch: pytest.MonkeyPatch):
    evaluate = training.evaluate

    def slowly(*arguments: object, **options: object) -> object:
        time.sleep(0.05)
        return evaluate(*arguments, **options)

    monkeypatch.setattr(training, "evaluate", slowly)
    start = time.perf_counter()
    seconds = trainer.train(images, validation=images).seconds
    assert 0 < seconds < time.perf_counter() - start - 5 * 0.05


# After a change of `trainable`


def test_a_model_whose_trainable_was_changed_needs_a_new_trainer(trainer: Trainer, images: Split):
    layer = trainer.model.get_layer("conv1")
    layer.trainable = False
    with pytest.raises(RuntimeError, match="trainable was changed after the model was compiled; make a new Trainer"):
        trainer.train(images)
    layer.trainable = True
    assert trainer.train(images).updates == 20


# Results


def test_accuracy_is_the_share_of_images_whose_most_probable_class_is_the_right_one(tasks: tuple[Task, Task]):
    model, test = cnn.build_cnn(SMALL), tasks[1].test
    kernel, _ = model.get_layer("scores").get_weights()
    model.get_layer("scores").set_weights([0 * kernel, np.array([0, 0, 5, 0, 0])])  # always predicts 2
    accuracy, probabilities = training.evaluate(model, test)
    assert accuracy == np.sum(test.labels == 2) / len(test)
    assert probabilities[:, 2] == pytest.approx(math.exp(5) / (math.exp(5) + 4))


# Recipes


def test_the_published_recipe_is_adadelta_1_batches_of_128_and_5_epochs():
    assert training.named_recipe("published") == Recipe("adadelta", 1.0, 128, 5, 300, "constant") == Recipe()


@pytest.mark.parametrize(
    ("parameter", "value", "allowed"),
    [
        ("batch_size", 0, "whole number of at least 1"),
        ("epochs", 5.0, "whole number of at least 1"),
        ("min_updates", True, "whole number of at least 1"),
        ("learning_rate", 0.0, "number above 0"),
        ("learning_rate", math.nan, "number above 0"),
        ("learning_rate", "0.1", "number above 0"),
        ("times", -1, "number above 0"),
        ("optimizer", "Adam", "adadelta, adam, rmsprop, sgd"),
        ("schedule", "linear", "constant, cosine"),
        ("recipe", "slow", "published, fast"),
    ],
)
def test_a_recipe_that_cannot_be_followed_is_refused(parameter: str, value: object, allowed: str):
    with refused(f"{parameter}: {value!r} ", allowed):
        training.named_recipe(value) if parameter == "recipe" else Recipe(**{parameter: value})
