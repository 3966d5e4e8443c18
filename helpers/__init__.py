"""What the five lessons share, in the order in which data flows through it.

`data`, `runs`, `cnn`, `training`, `transfer`, `comparison`, `plots`, `checks`; then `lessons`, `sweep`, `report` and
`cli`, which know notebooks and no models. Importing TensorFlow takes several seconds, so Keras is imported (through
`backend`) inside the functions that need it: parameters are checked, data loaded and `transfer-tutorial --help`
printed without it.
"""

__version__ = "1.0.0"
