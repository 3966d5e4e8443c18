"""The network: its parameters and multiply-adds, the cut, and the initial weights."""

import math
from dataclasses import replace

import numpy as np
import pytest
from refusals import refused
from small import SMALL

from helpers import cnn
from helpers.backend import keras
from helpers.cnn import Architecture
from helpers.images import Dataset

LEARNT = ("conv1", "conv2", "dense1", "scores")  # the layers that have weights


@pytest.fixture(scope="module")
def published() -> keras.Model:
    return cnn.build_cnn(Architecture())


def weights(model: keras.Model) -> dict[str, np.ndarray]:
    """Return all weights of a network, by the names of layer and weight."""
    return {f"{layer.name}/{weight.name}": weight.numpy() for layer in model.layers for weight in layer.weights}


# Its cost


def test_the_published_network_has_600165_parameters(published: keras.Model):
    counts = cnn.layer_costs(published).set_index("layer")["parameters"]
    assert counts[list(LEARNT)].tolist() == [320, 9_248, 589_952, 645]
    assert counts.sum() == published.count_params() == 600_165


def test_the_convolutions_do_5503104_of_6093568_multiply_adds(published: keras.Model):
    counts = cnn.layer_costs(published).set_index("layer")["multiply_adds"]
    assert counts["conv1"] == 26 * 26 * 32 * (3 * 3 * 1)  # positions, filters, kernel
    assert counts["conv2"] == 24 * 24 * 32 * (3 * 3 * 32)
    assert counts["conv1"] + counts["conv2"] == 5_503_104
    assert counts["dense1"] == 12 * 12 * 32 * 128
    assert counts["scores"] == 128 * 5
    assert counts.sum() == 6_093_568


def test_the_table_of_costs_has_one_row_per_layer_from_input_to_output(published: keras.Model):
    costs = cnn.layer_costs(published)
    extractor = ["rescale", "conv1", "relu1", "conv2", "relu2", "pool"]
    head = ["dropout1", "flatten", "dense1", "relu3", "dropout2", "scores"]
    assert costs["layer"].tolist() == extractor + head
    shapes = {"conv1": (26, 26, 32), "conv2": (24, 24, 32), "pool": (12, 12, 32), "flatten": (4608,), "scores": (5,)}
    assert costs.set_index("layer")["output"][list(shapes)].to_dict() == shapes


def test_a_quarter_and_a_fifth_are_dropped(published: keras.Model):
    assert [published.get_layer(name).rate for name in ("dropout1", "dropout2")] == [0.25, 0.2]


def test_the_sizes_asked_for_are_the_sizes_built():
    sizes = Architecture((12, 12, 1), classes=3, filters=6, kernel_size=2, pool_size=5, dense_units=7)
    shapes = {name: weight.shape for name, weight in weights(cnn.build_cnn(sizes)).items() if "kernel" in name}
    assert shapes == {
        "conv1/kernel": (2, 2, 1, 6),
        "conv2/kernel": (2, 2, 6, 6),
        "dense1/kernel": (24, 7),  # 12 - 1 - 1 = 10 pixels, 2 x 2 pools of 5 x 5, 6 filters
        "scores/kernel": (7, 3),
    }


# Inputs and outputs


def test_uint8_images_go_in_are_scaled_to_0_to_1_and_probabilities_come_out(digits: Dataset):
    model = cnn.build_cnn(SMALL)
    probabilities = model.predict_on_batch(digits.test.images[:50])
    assert np.allclose(model.get_layer("rescale")(np.array([[0, 51, 255]], np.uint8)), [[0, 0.2, 1]])
    assert probabilities.shape == (50, 5)
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-6)


# The cut


def test_the_extractor_and_then_the_head_give_exactly_the_whole_networks_output(digits: Dataset):
    model = cnn.build_cnn(SMALL)
    extractor, head = cnn.cut(model)
    images = digits.test.images[:50]
    assert np.array_equal(head(extractor(images)), model(images))
    assert np.array_equal(extractor(images, training=True), extractor(images, training=False))  # nothing is random


# Its initial weights


def test_the_same_seed_gives_the_same_weights_and_another_one_others_in_each_layer():
    one, again, other = (weights(cnn.build_cnn(SMALL, seed)) for seed in (3, 3, 4))
    assert all(np.array_equal(one[name], again[name]) for name in one)
    assert all((one[f"{name}/kernel"] != other[f"{name}/kernel"]).all() for name in LEARNT)


# Glorot and Bengio 2010: uniform within plus or minus sqrt(6 / (inputs + outputs)) of a unit
LIMITS = {
    "conv1": math.sqrt(6 / (9 * 1 + 9 * 32)),
    "conv2": math.sqrt(6 / (9 * 32 + 9 * 32)),
    "dense1": math.sqrt(6 / (4608 + 128)),
    "scores": math.sqrt(6 / (128 + 5)),
}


@pytest.mark.parametrize("name", LEARNT)
def test_weights_are_drawn_as_keras_draws_them(published: keras.Model, name: str):
    kernel, limit = weights(published)[f"{name}/kernel"], LIMITS[name]
    assert 0.95 * limit < np.abs(kernel).max() <= limit
    assert abs(kernel.mean()) < 3 * limit / math.sqrt(3 * kernel.size)  # three standard errors of a uniform mean
    assert kernel.std() == pytest.approx(limit / math.sqrt(3), rel=0.1)
    assert not weights(published)[f"{name}/bias"].any()


def test_the_head_alone_starts_from_the_same_weights_as_inside_the_whole_network():
    _, head = cnn.cut(cnn.build_cnn(SMALL, seed=1))
    cnn.initialize(head, seed=2)
    whole = weights(cnn.build_cnn(SMALL, seed=2))
    assert all(np.array_equal(weight, whole[name]) for name, weight in weights(head).items())


def test_a_layers_draw_does_not_depend_on_how_many_classes_there_are():
    five, three = (weights(cnn.build_cnn(replace(SMALL, classes=classes))) for classes in (5, 3))
    assert all(np.array_equal(five[f"{name}/kernel"], three[f"{name}/kernel"]) for name in ("conv1", "conv2", "dense1"))


# Bad input


@pytest.mark.parametrize(
    ("parameter", "value"), [("filters", 0), ("kernel_size", 3.0), ("pool_size", -1), ("dense_units", True)]
)
def test_a_size_below_1_or_not_whole_is_refused(parameter: str, value: object):
    with refused(f"{parameter}: {value!r} ", "whole number of at least 1"):
        Architecture(**{parameter: value})


@pytest.mark.parametrize(("kernel_size", "pool_size"), [(5, 1), (3, 5)])
def test_a_kernel_and_a_pool_that_leave_nothing_of_the_image_are_refused(kernel_size: int, pool_size: int):
    with refused(f"kernel_size: {kernel_size} ", f"pool_size {pool_size} ", "8 pixels"):
        Architecture((8, 8, 1), kernel_size=kernel_size, pool_size=pool_size)


# TensorFlow's start-up

IMPORT_TRAIN_AND_RETRACE = """
from helpers.backend import keras
from helpers import cnn, training
import numpy as np
import os
import tensorflow as tf

model = cnn.build_cnn(cnn.Architecture((8, 8, 1), filters=2, dense_units=2))
model.compile(loss="sparse_categorical_crossentropy")
model.train_on_batch(np.zeros((2, 8, 8, 1), np.uint8), np.zeros(2))
add = tf.function(lambda x, y: x + y)
for y in range(8):
    add(tf.zeros(2), y)
print(os.environ["TF_CPP_MIN_LOG_LEVEL"])
"""


def test_importing_keras_training_and_retracing_write_nothing_and_a_process_started_then_inherits_that(python):
    finished = python(IMPORT_TRAIN_AND_RETRACE, TF_CPP_MIN_LOG_LEVEL=None)
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, "3\n", "")
