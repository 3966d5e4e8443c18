"""Exercises that respond: a check says in the learner's terms what is wrong with an answer, or that it is right.

A check takes the learner's answer and returns a `Reply`, which a notebook shows as text. An answer counts as missing if
it is still three dots, or still the original code with a planted bug; only a wrong answer gets a hint. A check raises
no error even if an answer has the wrong type; only under nbgrader does it raise one for any answer that is not right. A
reply states facts about the number or function at hand and does not guess what the learner thought, so it must be true
for any dataset and any parameters.
"""

from helpers.checks.cnn_build import convolved as convolved, multiply_adds as multiply_adds, parameters as parameters
from helpers.checks.data_split import baseline as baseline, tasks as tasks, three_parts as three_parts
from helpers.checks.decide import leaks as leaks, regret as regret, standard_error as standard_error
from helpers.checks.freezing import (
    freeze_convolutions as freeze_convolutions,
    freeze_head as freeze_head,
    trainable as trainable,
)
from helpers.checks.pretrained_network import freeze_normalization as freeze_normalization, rescaled as rescaled
from helpers.checks.pretraining import cross_entropy as cross_entropy, descended as descended, updates as updates
from helpers.checks.replies import Reply as Reply
from helpers.checks.transfer_comparison import (
    by_seed as by_seed,
    paired as paired,
    transfer as transfer,
    word as word,
)
