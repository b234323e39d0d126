"""The table of codes: all that a `Finding` may say, in the order of the checks.

The table in the documentation of `keras_xent.diagnose` is this one, and each
code but those of curves is a heading of the page.
"""

_PAGE = "https://OWNER.github.io/keras_xent/diagnose"

INPUTS = {
    "input-format": "inputs of a shape or a type that the model cannot take",
    "ids-out-of-range": "an id that an `Embedding` has no row for",
}

LABELS = {
    "all-masked": "no row counts",
    "label-format": "class ids for one-hot rows or the other way round",
    "shape-broadcast": "(n,) beside (n, 1) becomes (n, n)",
    "labels-out-of-range": "a label names a class that does not exist",
    "targets-not-distribution": "targets are no probabilities",
    "label-precision": "a float type that cannot hold the labels",
}

OUTPUTS = {
    "single-class": "the softmax of one class, which is always 1",
    "probabilities-as-logits": "softmax or sigmoid is applied twice",
    "logits-as-probabilities": "a softmax or sigmoid is missing",
    "bounded-logits": "scores cut off before softmax or sigmoid",
    "unreachable-targets": "numbers that the last activation cannot give",
    "not-a-distance": "negative, or different from a to b and from b to a",
    "one-kind-of-pairs": "only matches, or none",
    "margin-out-of-reach": "a margin far from all distances",
    "temperature-out-of-reach": "one, or a scale, that cosines cannot use",
    "collapsed-embeddings": "all embeddings are alike",
    "pairs-not-separated": "trained, and matches lie no closer",
    "constant-inputs": "all rows of the inputs are the same",
}

# What explains a wrong loss.
CAUSES = {**INPUTS, **LABELS, **OUTPUTS}

# What is looked for if none of these is an error.
REST = {
    "constant-targets": "all labels are the same",
    "missing-class": "a class never occurs",
    "metric-mismatch": "a metric that cannot be right for the output",
    "initial-loss": "the loss is far above that of knowing nothing",
    "unscaled-inputs": "so it is, because the inputs are too large",
    "predicts-prior": "the model gives every row the same answer",
    "step-too-large": "one step of the optimizer makes the loss rise",
    "step-too-small": "a learning rate of 0, or one that moves nothing",
    "nonfinite-gradient": "a loss or a gradient is NaN or infinite",
    "nothing-trainable": "no weight may change",
    "dead-gradient": "a layer gets no gradient",
    "vanishing-gradient": "the first of many layers get hardly any",
    "saturated": "outputs or losses lie where nothing changes them",
    "zero-initialized": "units that are equal and stay equal",
}

# All that `diagnose` looks for.
LOOKED_FOR = {**CAUSES, **REST}

# What the callback alone says, because only a curve shows it.
OF_CURVES = {
    "not-learning": "the loss stays at that of equal probabilities",
    "overfitting": "the loss of the validation data rises, the other falls",
}

CODES = {**LOOKED_FOR, **OF_CURVES}

# What can only be said of many labels.
OF_ALL_LABELS = ("constant-targets", "missing-class")

# What can only be said of a model that has trained.
OF_TRAINED = ("predicts-prior", "pairs-not-separated", "collapsed-embeddings")


def address(code):
    """Where a code is explained."""
    heading = "what-your-curve-says" if code in OF_CURVES else code
    return f"{_PAGE}#{heading}"
