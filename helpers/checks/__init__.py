"""Exercises that answer back: a check says in the learner's terms what is wrong with an answer, or that it is right.

Each check takes the learner's answer and returns a `Reply`, which a notebook shows as text. There is no answer yet
while it is three dots, or while a planted bug does what it did. Only where nbgrader gives points does a check raise:
elsewhere an answer of the wrong kind is a wrong answer. A reply states facts of the number or function at hand and
guesses at no thoughts: it must be true on each dataset and with all parameters. There is a module for each lesson.
"""

from helpers.checks.cnn_build import convolved as convolved, multiply_adds as multiply_adds, parameters as parameters
from helpers.checks.data_split import baseline as baseline, tasks as tasks, three_parts as three_parts
from helpers.checks.freezing import (
    freeze_convolutions as freeze_convolutions,
    freeze_head as freeze_head,
    trainable as trainable,
)
from helpers.checks.pretrained_network import freeze_normalization as freeze_normalization, rescaled as rescaled
from helpers.checks.pretraining import cross_entropy as cross_entropy, descended as descended, updates as updates
from helpers.checks.replies import Reply as Reply
from helpers.checks.transfer_comparison import by_seed as by_seed, paired as paired, word as word
