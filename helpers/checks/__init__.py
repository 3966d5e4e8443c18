"""Exercises that answer back: a check says in the learner's terms what is wrong with an answer, or that it is right.

Each check takes the learner's answer and returns a `Reply`, which a notebook shows as text. There is no answer yet
while it is three dots, or while a planted bug does what it did. No check raises: an answer of the wrong kind is a wrong
answer. A reply states facts of the number or function at hand and guesses at no thoughts: it must be true on each
dataset and with all parameters. There is a module for each lesson.
"""

from helpers.checks.cnn_build import convolved, multiply_adds, parameters
from helpers.checks.data_split import baseline, tasks, three_parts
from helpers.checks.freezing import freeze_convolutions, freeze_head, trainable
from helpers.checks.pretrained_network import freeze_normalization, rescaled
from helpers.checks.pretraining import cross_entropy, descended, updates
from helpers.checks.replies import Reply
from helpers.checks.transfer_comparison import by_seed, paired, word

__all__ = [
    "Reply",
    "baseline",
    "by_seed",
    "convolved",
    "cross_entropy",
    "descended",
    "freeze_convolutions",
    "freeze_head",
    "freeze_normalization",
    "multiply_adds",
    "paired",
    "parameters",
    "rescaled",
    "tasks",
    "three_parts",
    "trainable",
    "updates",
    "word",
]
