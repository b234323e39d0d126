"""What a loss takes: the kinds of its outputs and of its labels.

Each loss names its own in `output_kind` and `label_kind`, which a subclass
inherits; `keras_xent.diagnose` reads them.
"""

# Kinds of outputs
LOGITS = "logits"
PROBABILITIES = "probabilities"
DISTANCES = "distances"
EMBEDDINGS = "embeddings"
FEATURES = "features"  # of a `LinearHead`, which holds the classes

# Kinds of labels
CLASS_IDS = "class ids"
DISTRIBUTION = "a distribution"
YES_NO = "yes or no"
MATCHES = "match flags"
IDENTITIES = "identities"  # class ids that are only compared with each other

NUMBERS = "numbers"  # outputs or labels of any size
UNKNOWN = "unknown"
