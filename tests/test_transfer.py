"""Transfer: which weights freezing leaves trainable, where each strategy starts, and exact cached features."""

import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from refusals import refused
from small import ADAM, SMALL

from helpers import cnn, experiment, store, training, transfer
from helpers.backend import keras
from helpers.cnn import Architecture
from helpers.images import Split
from helpers.tasks import Task, subsample
from helpers.training import Recipe
from helpers.transfer import STRATEGIES, Networks, Repetition, SourceNetwork

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # from Keras, about NumPy
FRESH = 7  # the seed for weights that a strategy draws; pretraining uses seed 0


@pytest.fixture(scope="module")
def networks() -> Networks:
    """Compile the small networks once for most tests here."""
    return Networks(SMALL, ADAM)


@pytest.fixture(scope="module")
def source_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def source(tasks: tuple[Task, Task], networks: Networks, source_folder: Path) -> SourceNetwork:
    """Pretrain on the digits 5-9."""
    return experiment.pretrain(source_folder, tasks[0], networks, 0, watch=True)


@pytest.fixture(scope="module")
def repetition(tasks: tuple[Task, Task], source: SourceNetwork) -> Repetition:
    """Transfer from the source network to the digits 0-4, with a different seed."""
    return Repetition(FRESH, tasks[1], source)


@pytest.fixture(scope="module")
def images(tasks: tuple[Task, Task]) -> Split:
    """Take 20 images of each of the digits 0-4."""
    return subsample(tasks[1].train, 20)


def weights_of(model: keras.Model) -> dict[str, bytes]:
    """Return the weights of each layer that has any."""
    layers = (layer for layer in model.layers if layer.get_weights())
    return {layer.name: b"".join(weight.tobytes() for weight in layer.get_weights()) for layer in layers}


def trainable_parameters(model: keras.Model) -> int:
    return sum(math.prod(weight.shape) for weight in model.trainable_weights)


def same_weights(one: keras.Layer, other: keras.Layer) -> bool:
    return all(np.array_equal(*pair) for pair in zip(one.get_weights(), other.get_weights(), strict=True))


# Freezing


def test_freezing_leaves_590597_of_600165_parameters_trainable():
    model = cnn.build_cnn(Architecture())
    assert trainable_parameters(model) == 600_165
    transfer.freeze(model)
    assert trainable_parameters(model) == 590_597
    transfer.freeze(model, 1)
    assert trainable_parameters(model) == 600_165 - 320
    transfer.freeze(model, 0)
    assert trainable_parameters(model) == 600_165


def test_training_moves_the_trainable_weights_and_no_others(repetition: Repetition, images):
    networks, start = Networks(SMALL, ADAM, frozen_convs=1), cnn.build_cnn(SMALL)
    transfer.start_weights(start, STRATEGIES["frozen"], repetition)
    networks.train(STRATEGIES["frozen"], repetition, images)
    before, after = weights_of(start), weights_of(networks.partly_frozen.model)
    assert trainable_parameters(networks.partly_frozen.model) == 505
    assert list(before) == ["conv1", "conv2", "dense1", "scores"]
    assert [name for name in before if after[name] != before[name]] == ["conv2", "dense1", "scores"]


@pytest.mark.parametrize("frozen_convs", [3, 2.0, True])
def test_a_depth_other_than_0_1_or_2_is_refused(frozen_convs: object):
    with refused(f"frozen_convs: {frozen_convs!r} ", "0, 1 or 2"):
        Networks(SMALL, ADAM, frozen_convs)


# Starting points of the strategies


@pytest.mark.parametrize(
    ("name", "convolutions", "head"),
    [
        ("scratch", "fresh", "fresh"),
        ("frozen", "pretrained", "fresh"),
        ("head-first", "pretrained", "fresh"),
        ("fine-tuned", "pretrained", "fresh"),
        ("random-frozen", "fresh", "fresh"),
        ("reused-head", "pretrained", "pretrained"),
    ],
)
def test_each_strategy_starts_from_the_weights_that_its_name_says(
    repetition: Repetition, source: SourceNetwork, name, convolutions, head
):
    givers = {"fresh": cnn.build_cnn(SMALL, transfer.target_seed(FRESH)), "pretrained": source.model}
    model = cnn.build_cnn(SMALL, seed=99)
    transfer.start_weights(model, STRATEGIES[name], repetition)
    for layer in ("conv1", "conv2"):
        assert same_weights(model.get_layer(layer), givers[convolutions].get_layer(layer))
    for layer in ("dense1", "scores"):
        assert same_weights(model.get_layer(layer), givers[head].get_layer(layer))


def test_a_strategy_that_needs_pretrained_features_is_refused_without_them(networks, tasks, images):
    with refused("strategy 'fine-tuned' ", "pass a repetition with a source"):
        networks.train(STRATEGIES["fine-tuned"], Repetition(FRESH, tasks[1]), images)


def test_a_network_is_reset_for_every_training(networks, source: SourceNetwork, tasks, images):
    first, probabilities = networks.train(STRATEGIES["scratch"], Repetition(FRESH, tasks[1]), images)
    networks.train(STRATEGIES["fine-tuned"], Repetition(1, tasks[1], source), images)
    again, probabilities_again = networks.train(STRATEGIES["scratch"], Repetition(FRESH, tasks[1]), images)
    assert np.array_equal(again.losses, first.losses)
    assert np.array_equal(probabilities_again, probabilities)


# Head first


def test_head_first_trains_the_head_as_frozen_does_then_everything_at_a_tenth_of_the_rate_for_half_the_updates(
    networks: Networks, repetition: Repetition, images
):
    frozen, _ = networks.train(STRATEGIES["frozen"], repetition, images)
    head = networks.trained_head(frozen)
    done, probabilities = networks.train(STRATEGIES["head-first"], repetition, images, head=head)
    assert list(head.weights) == ["dense1", "scores"]
    assert np.array_equal(done.losses[:20], frozen.losses)
    assert (done.updates, len(done.losses), done.recipe) == (30, 30, ADAM)
    assert done.seconds > frozen.seconds

    network = cnn.build_cnn(SMALL)
    transfer.copy_weights(repetition.source.model, network)
    for name, weights in head.weights.items():
        network.get_layer(name).set_weights(weights)
    before = weights_of(network)
    gentle = replace(ADAM, learning_rate=3e-4, min_updates=10)
    by_hand = training.Trainer(network, gentle).train(images, transfer.target_seed(FRESH))
    assert done.losses[20:] == pytest.approx(by_hand.losses, abs=1e-6)  # the same images in the same order, too
    assert probabilities == pytest.approx(training.predict(network, repetition.target.test.images), abs=1e-5)
    after = weights_of(networks.whole.model)
    assert not any(after[name] == before[name] for name in before)  # nothing is frozen anymore


def test_head_first_is_the_same_whether_the_head_is_at_hand_or_trained_again(
    networks: Networks, repetition: Repetition, images
):
    head = networks.trained_head(networks.train(STRATEGIES["frozen"], repetition, images)[0])
    networks.train(STRATEGIES["random-frozen"], repetition, images)
    given, probabilities = networks.train(STRATEGIES["head-first"], repetition, images, head=head)
    alone, probabilities_alone = networks.train(STRATEGIES["head-first"], repetition, images)
    assert np.array_equal(given.losses, alone.losses)
    assert np.array_equal(probabilities, probabilities_alone)


# Cached features


def test_cached_features_give_the_same_losses_as_the_frozen_network_dropout_included(networks: Networks, images: Split):
    network = cnn.build_cnn(SMALL, FRESH)
    transfer.freeze(network)
    features = transfer.extract_features(cnn.cut(network)[0], images, dtype="float32")
    through = training.Trainer(network, ADAM).train(images, seed=3).losses

    cnn.initialize(networks.partly_frozen.model, FRESH)
    assert networks.partly_frozen.train(features, seed=3).losses == pytest.approx(through, abs=1e-5)
    assert through[0] - through[-1] > 0.05  # and the network learned something


def test_features_of_mnist_are_cached_and_larger_ones_are_computed_on_demand():
    extractor = Networks(cnn.Architecture(), ADAM).extractor
    for images, most in ((27_536, transfer.MOST_CACHED), (5_139, transfer.MOST_CACHED_TEST)):  # for digits 0 to 4
        features = transfer.FeaturesOnDemand(extractor, np.zeros((images, 28, 28, 1), np.uint8), "float16")
        assert 0.8 * most < math.prod(features.shape) * 2 < most
    large = Split(np.zeros((33_000, 28, 28, 1), np.uint8), np.zeros(33_000, np.int32))
    assert isinstance(transfer.extract_features(extractor, large).images, transfer.FeaturesOnDemand)


def test_features_on_demand_give_the_same_losses_and_probabilities(
    repetition: Repetition, networks: Networks, images, monkeypatch: pytest.MonkeyPatch
):
    cached, probabilities = networks.train(STRATEGIES["frozen"], repetition, images)
    monkeypatch.setattr(transfer, "MOST_CACHED", 0)
    monkeypatch.setattr(transfer, "MOST_CACHED_TEST", 0)
    features = networks.extract(STRATEGIES["frozen"], repetition, images)
    assert all(isinstance(each.images, transfer.FeaturesOnDemand) for each in features)
    on_demand, probabilities_again = networks.train(STRATEGIES["frozen"], repetition, images, features)
    assert on_demand.losses == pytest.approx(cached.losses, abs=1e-5)
    assert probabilities_again == pytest.approx(probabilities, abs=1e-5)


def test_a_strategy_refuses_features_of_other_images_or_weights(repetition: Repetition, networks, tasks, images):
    features = networks.extract(STRATEGIES["frozen"], repetition, images)
    random = networks.extract(STRATEGIES["random-frozen"], Repetition(FRESH, tasks[1]), images)
    for given, message in (
        (features[::-1], "were not computed from the 100 images given"),
        ((features[0], features[0]), f"were not computed from the {len(tasks[1].test)} images given"),
        (random, "these were computed by a different network, or with different weights"),
    ):
        with refused("features: ", message):
            networks.train(STRATEGIES["frozen"], repetition, images, given)


# The pretrained network


def test_a_pretrained_network_is_read_back_and_not_trained_again(
    tasks, networks, source: SourceNetwork, source_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Networks, "train", None)  # calling it would fail
    again = experiment.pretrain(source_folder, tasks[0], networks, 0)
    assert again.file == source.file
    assert (again.row, again.history.to_dict()) == (source.row, source.history.to_dict())
    assert weights_of(again.model) == weights_of(source.model)


def test_a_network_pretrained_unwatched_is_the_same_and_trained_again_where_its_curve_is_asked_for(
    tasks, networks: Networks, source: SourceNetwork, run_folder: Path
):
    unwatched = experiment.pretrain(run_folder, tasks[0], networks, 0)
    watched = experiment.pretrain(run_folder, tasks[0], networks, 0, watch=True)
    assert (len(unwatched.history), len(watched.history)) == (0, 5)
    assert unwatched.file == watched.file == source.file


def test_a_pretrained_network_is_found_only_for_the_same_task_architecture_recipe_and_seed(
    tasks: tuple[Task, Task], source: SourceNetwork, source_folder: Path
):
    def found(task: Task = tasks[0], architecture: Architecture = SMALL, recipe: Recipe = ADAM, seed: int = 0) -> bool:
        origin = experiment.pretraining_provenance(task, Networks(architecture, recipe), seed)
        return store.find(source_folder, "pretrained.weights.h5", origin) is not None

    assert found()
    assert not found(task=tasks[1]) and not found(seed=1)
    for field, value in (("filters", 5), ("dense_units", 8), ("classes", 6), ("kernel_size", 2)):
        assert not found(architecture=replace(SMALL, **{field: value}))
    for field, value in (("learning_rate", 1e-2), ("min_updates", 21), ("schedule", "cosine"), ("optimizer", "sgd")):
        assert not found(recipe=replace(ADAM, **{field: value}))


def test_a_damaged_pretrained_network_is_reported_and_trained_again(
    tasks, networks: Networks, source: SourceNetwork, source_folder: Path, run_folder: Path
):
    shutil.copytree(source_folder, run_folder)
    file = run_folder / source.file
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.warns(UserWarning, match=r"pretrained-.* damaged; creating it again"):
        again = experiment.pretrain(run_folder, tasks[0], networks, 0)
    assert weights_of(again.model) == weights_of(source.model)


def test_pretraining_is_scratch_on_the_source_task_and_moves_every_layer(
    source: SourceNetwork, tasks: tuple[Task, Task]
):
    row, untrained = source.row, cnn.build_cnn(SMALL, seed=0)
    for layer in ("conv1", "conv2", "dense1", "scores"):
        assert not same_weights(source.model.get_layer(layer), untrained.get_layer(layer))
    assert (row["task"], row["strategy"], row["labels_per_class"], row["seed"]) == ("source", "scratch", "all", 0)
    assert row["classes"] == "5 6 7 8 9"
    accuracy, _ = training.evaluate(source.model, tasks[0].test)
    assert row["test_accuracy"] == pytest.approx(accuracy)
    assert source.history["update"].iloc[-1] == row["updates"] == ADAM.updates(len(tasks[0].train))


# Random draws


def test_a_fresh_head_is_not_the_one_that_pretraining_began_with(tasks, images, source: SourceNetwork):
    # with this learning rate nothing moves, so a trained network still has the weights that it started from
    still = Networks(SMALL, Recipe(optimizer="sgd", learning_rate=1e-30, batch_size=32, epochs=1, min_updates=1))
    pretraining, heads = cnn.build_cnn(SMALL, seed=0), {}
    for name, model in (("scratch", still.whole.model), ("frozen", still.partly_frozen.model)):
        still.train(STRATEGIES[name], Repetition(0, tasks[1], source), images)
        heads[name] = [model.get_layer(layer).kernel.numpy() for layer in ("dense1", "scores")]
    for fresh, shared, earlier in zip(heads["frozen"], heads["scratch"], ("dense1", "scores"), strict=True):
        assert np.array_equal(fresh, shared)
        assert not np.array_equal(fresh, pretraining.get_layer(earlier).kernel.numpy())


# Choosing strategies


def test_all_six_strategies_apply_to_tasks_of_equal_size_in_one_order_and_three_train_no_features():
    names = ["scratch", "frozen", "head-first", "fine-tuned", "random-frozen", "reused-head"]
    chosen, left_out = transfer.strategies_for(names[::-1], 5, 5)
    assert [strategy.name for strategy in chosen] == names == list(STRATEGIES)
    assert [strategy.name for strategy in chosen if strategy.freezes] == ["frozen", "random-frozen", "reused-head"]
    assert left_out == {}


def test_a_head_of_another_size_cannot_be_reused_and_the_reason_is_given():
    chosen, left_out = transfer.strategies_for(["reused-head", "frozen", "scratch"], 7, 3)
    assert [strategy.name for strategy in chosen] == ["scratch", "frozen"]
    assert left_out == {
        "reused-head": "the source task's head has 7 outputs and the target task 3 classes, so it cannot be reused"
    }


@pytest.mark.parametrize(
    ("names", "why"),
    [
        (["scratch", "froze"], "'froze' is not known; allowed: scratch, frozen, head-first, fine-tuned"),
        (["scratch", "frozen", "scratch"], "names a strategy twice; list each once"),
        ("scratch", "'scratch' is not a list of strategies"),
    ],
    ids=repr,
)
def test_a_list_of_strategies_that_is_none_is_refused(names: object, why: str):
    with refused("strategies: ", why):
        transfer.strategies_for(names, 5, 5)
