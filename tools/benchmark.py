"""Time what the course compares, all in one process, run after run, and print medians and ratios. Needs MNIST.

MNIST_NPZ=.../mnist.npz python tools/benchmark.py [--repeats 3]

Nothing else should run on the machine meanwhile. Absolute times say little about another machine; the ratios say
more. The three ways to transfer from 5-9 to 0-4: *plain*, as published with the learning rate repaired (`fit` on
float32 arrays, features computed again in every epoch); *course*, the same recipe with features cached in half
precision; *fast*, the fast recipe. Repetition r uses seed r everywhere.
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from helpers import cnn
from helpers.backend import keras
from helpers.datasets import load_dataset
from helpers.experiment import Plan, compare
from helpers.images import Dataset, Split
from helpers.tasks import Task, split_tasks, subsample
from helpers.training import RECIPES, Recipe, Trainer, evaluate, predict
from helpers.transfer import STRATEGIES, Networks, Repetition, extract_features, freeze, target_seed

PUBLISHED, FAST = RECIPES["published"], RECIPES["fast"]
ARCHITECTURE = cnn.Architecture()


def seconds(work: Callable[[], object]) -> float:
    """Return the wall time of a call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def peak_gb() -> float:
    """Return the largest resident memory of this process so far, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def plain(source: Task, target: Task, seed: int) -> dict[str, float]:
    """Carry out both stages with `fit` on float32 arrays, the convolutions frozen in the second."""
    keras.utils.set_random_seed(seed)
    layers = [*cnn.feature_layers(ARCHITECTURE)[1:], *cnn.head_layers(ARCHITECTURE)]
    model = keras.Sequential([keras.Input(ARCHITECTURE.image_shape), *layers])
    times = []
    for task, frozen in ((source, 0), (target, 2)):
        x = task.train.images.astype("float32") / 255
        freeze(model, frozen)
        optimizer = keras.optimizers.Adadelta(PUBLISHED.learning_rate)
        model.compile(optimizer, loss="sparse_categorical_crossentropy", metrics=["accuracy"])
        fit = {"batch_size": PUBLISHED.batch_size, "epochs": PUBLISHED.epochs, "verbose": 0}
        times.append(seconds(lambda x=x, task=task, fit=fit: model.fit(x, task.train.labels, **fit)))
    scores = predict(model, target.test.images.astype("float32") / 255)
    return _stages(times, np.mean(scores.argmax(axis=1) == target.test.labels))


def with_helpers(source: Task, target: Task, seed: int, recipe: Recipe) -> dict[str, float]:
    """Carry out both stages as the course does; building and tracing count, as they do in `fit`."""
    start = time.perf_counter()
    model = cnn.build_cnn(ARCHITECTURE, seed)
    Trainer(model, recipe).train(source.train, seed)
    first = time.perf_counter() - start
    extractor, head = cnn.cut(model)
    cnn.initialize(head, target_seed(seed))
    features = extract_features(extractor, target.train)
    Trainer(head, recipe).train(features, target_seed(seed))
    both = time.perf_counter() - start
    return _stages([first, both - first], evaluate(model, target.test)[0])


def _stages(times: list[float], accuracy: float) -> dict[str, float]:
    return {"pretraining [s]": times[0], "transfer [s]": times[1], "both [s]": sum(times), "accuracy": accuracy}


def epochs(target: Task, repeats: int) -> pd.Series:
    """Return the median seconds of one epoch on the target task: all layers, frozen through `fit`, head on cached
    features.
    """
    recipe = replace(PUBLISHED, epochs=1, min_updates=1)
    whole = Trainer(cnn.build_cnn(ARCHITECTURE), recipe)
    frozen = cnn.build_cnn(ARCHITECTURE)
    freeze(frozen, 2)
    frozen.compile("adadelta", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    fit = {"batch_size": recipe.batch_size, "verbose": 0}
    frozen.fit(target.train.images[:256], target.train.labels[:256], **fit)  # traces
    extractor, head = cnn.cut(cnn.build_cnn(ARCHITECTURE))
    head = Trainer(head, recipe)
    rows = []
    for _ in range(repeats):
        features = extract_features(extractor, target.train)
        rows.append(
            {
                "all layers": whole.train(target.train).seconds,
                "frozen, fit": seconds(lambda: frozen.fit(target.train.images, target.train.labels, **fit)),
                "head on cached features": head.train(features).seconds,
                "extraction, once": features.seconds,
            }
        )
    return pd.DataFrame(rows).median()


def small(target: Task, repeats: int) -> pd.Series:
    """Return the median seconds of 300 updates on 10 labels per class with the fast recipe's batches, for the head and
    for the whole network.
    """
    few = subsample(target.train, 10)
    recipe = replace(FAST, min_updates=300)
    networks = Networks(ARCHITECTURE, recipe)
    features = extract_features(networks.extractor, few)
    rows = [
        {"head": networks.partly_frozen.train(features).seconds, "whole network": networks.whole.train(few).seconds}
        for _ in range(repeats)
    ]
    return pd.DataFrame(rows).median()


def throughput(target: Task, repeats: int) -> pd.Series:
    """Return GFLOP/s of training the whole network, here and by Keras's `fit`, of its second convolution alone, forward
    and backward, and of a float32 matrix product: medians of alternating runs.

    A training step costs three forward passes (outputs, gradients of weights, gradients of inputs) but for the first
    layer's gradient of the image, which nobody needs; a multiply-add is two operations.
    """
    import tensorflow as tf

    trainer = Trainer(cnn.build_cnn(ARCHITECTURE), replace(PUBLISHED, epochs=1, min_updates=50))
    part = Split(target.train.images[:6400], target.train.labels[:6400])
    costs = cnn.layer_costs(trainer.model).set_index("layer")["multiply_adds"]
    operations = 2 * (3 * costs.sum() - costs["conv1"]) * len(part)
    fitted = cnn.build_cnn(ARCHITECTURE)
    fitted.compile(keras.optimizers.Adadelta(1.0), loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    fit = {"batch_size": PUBLISHED.batch_size, "verbose": 0}
    fitted.fit(part.images[:256], part.labels[:256], **fit)  # traces
    convolution = second_convolution()
    batches = len(part) // PUBLISHED.batch_size
    alone = 2 * 3 * costs["conv2"] * PUBLISHED.batch_size * batches
    matrix = tf.random.normal((4096, 4096))
    tf.matmul(matrix, matrix).numpy()
    rows = []
    for _ in range(2 * repeats):
        product = seconds(lambda: tf.matmul(matrix, matrix).numpy())
        rows.append(
            {
                "training": operations / trainer.train(part).seconds,
                "the same by fit": operations / seconds(lambda: fitted.fit(part.images, part.labels, **fit)),
                "second convolution alone": alone / seconds(lambda: [convolution() for _ in range(batches)]),
                "matrix product": 2 * 4096**3 / product,
            }
        )
    return pd.DataFrame(rows).median() / 1e9


def second_convolution() -> Callable[[], object]:
    """Return a function that computes outputs and both gradients of the second convolution for one batch."""
    import tensorflow as tf

    layer = cnn.build_cnn(ARCHITECTURE).get_layer("conv2")
    maps = tf.random.normal((PUBLISHED.batch_size, *layer.input.shape[1:]))

    @tf.function
    def passes() -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(maps)
            outputs = layer(maps)
        return tape.gradient(outputs, [maps, layer.kernel.value], output_gradients=outputs)

    passes()  # traces
    return lambda: passes()[1].numpy()


def one_more(target: Task, repeats: int) -> pd.Series:
    """Return the median seconds of one more training at all labels with the fast recipe: scratch, and frozen
    features.
    """
    networks = Networks(ARCHITECTURE, FAST)
    control = STRATEGIES["random-frozen"]  # costs what frozen costs
    features = networks.extract(control, Repetition(0, target), target.train)
    rows = [
        {
            "scratch": networks.train(STRATEGIES["scratch"], Repetition(seed, target), target.train)[0].seconds,
            "frozen": networks.train(control, Repetition(0, target), target.train, features)[0].seconds,
        }
        for seed in range(repeats)
    ]
    return pd.DataFrame(rows).median()


def one_more_of_lesson_05(dataset: Dataset) -> pd.Series:
    """Return the seconds that one more seed and one more label budget add to lesson 05, five strategies each."""
    plan = Plan((5, 6, 7, 8, 9), (0, 1, 2, 3, 4), seeds=(0,))
    with tempfile.TemporaryDirectory() as folder:

        def compared(plan: Plan) -> float:
            return seconds(lambda: compare(dataset, plan, ARCHITECTURE, FAST, Path(folder), progress=False))

        others = compared(replace(plan, labels_per_class=(10, "all")))  # what the next finds in the folder
        budget = compared(plan)
        return pd.Series({"seed": others + budget, "budget of 50": budget})


def main() -> None:
    """Measure everything and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="repetitions, one seed each (default: 3)")
    repeats = parser.parse_args().repeats
    dataset = load_dataset("mnist")
    tasks = [split_tasks(dataset, [5, 6, 7, 8, 9], [0, 1, 2, 3, 4], seed=seed) for seed in range(repeats)]
    target = tasks[0][1]

    ways = {
        "fast": lambda seed: with_helpers(*tasks[seed], seed, FAST),
        "course": lambda seed: with_helpers(*tasks[seed], seed, PUBLISHED),
        "plain": lambda seed: plain(*tasks[seed], seed),
    }
    rows, memory = [], {}
    for name, way in ways.items():  # the leanest first, because peak memory only rises
        for seed in tqdm(range(repeats), desc=name):
            rows.append({"way": name, **way(seed)})
        memory[name] = peak_gb()
    table = pd.DataFrame(rows).groupby("way", sort=False)
    shown = table.median().assign(accuracy=table["accuracy"].mean(), peak_gb=memory)
    both = shown["both [s]"]
    ratios = f"plain / fast {both['plain'] / both['fast']:.1f}; plain / course {both['plain'] / both['course']:.1f}"
    show(f"both stages: medians, mean accuracy of {repeats} seeds, peak memory so far", shown.round(4), ratios)

    rates = throughput(target, repeats)
    show("GFLOP/s", rates.round(), f"training / matrix product {rates['training'] / rates['matrix product']:.2f}")
    show("300 updates on 10 labels per class [s]", small(target, repeats))
    more = one_more(target, repeats)
    show("one more in lesson 05 [s]", one_more_of_lesson_05(dataset))
    show("one more training at all labels [s]", more, f"frozen / scratch {more['frozen'] / more['scratch']:.2f}")
    per_epoch = epochs(target, repeats)
    fit, cached, once = per_epoch[["frozen, fit", "head on cached features", "extraction, once"]]
    five = 5 * fit / (5 * cached + once)
    ratios = f"fit / cached {fit / cached:.2f}; over 5 epochs, extraction counted, {five:.2f}"
    show("one epoch on 0-4 [s]", per_epoch, ratios)


def show(title: str, values: pd.Series | pd.DataFrame, ratios: str = "") -> None:
    """Print one result."""
    print(f"\n{title}\n{values.round(4).to_string()}\n{ratios}", flush=True)


if __name__ == "__main__":
    main()
