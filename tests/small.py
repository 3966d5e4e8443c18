"""A small network and a short recipe, which most tests of trainings use."""

from helpers.backend import keras
from helpers.cnn import Architecture
from helpers.training import Recipe

SMALL = Architecture(image_shape=(8, 8, 1), filters=4, dense_units=16)
ADAM = Recipe(optimizer="adam", learning_rate=3e-3, batch_size=32, epochs=1, min_updates=20)


def without_dropout(model: keras.Model) -> keras.Model:
    for name in ("dropout1", "dropout2"):
        model.get_layer(name).rate = 0.0
    return model
