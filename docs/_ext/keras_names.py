"""Where keras.io has what is named in backticks.

keras.io has no index that Sphinx could read, and nothing is fetched while the
site is built. So the pages that hold a name are listed here; what is on none of
them leads to the page of its package.
"""

import re

SITE = "https://keras.io/api/"
# The page of each package, and those that have names of it.
PACKAGES = {
    "callbacks": "callbacks/",
    "config": "utils/config_utils/",
    "distribution": "distribution/",
    "layers": "layers/",
    "losses": "losses/",
    "metrics": "metrics/",
    "ops": "ops/",
    "random": "random/",
    "utils": "utils/",
}
PAGES = {
    "callbacks/early_stopping/": ["callbacks.EarlyStopping"],
    "callbacks/terminate_on_nan/": ["callbacks.TerminateOnNaN"],
    "distribution/layout_map/": [
        "distribution.DeviceMesh",
        "distribution.LayoutMap",
    ],
    "distribution/data_parallel/": ["distribution.DataParallel"],
    "distribution/model_parallel/": ["distribution.ModelParallel"],
    "layers/base_layer/": ["layers.Layer"],
    "layers/core_layers/dense/": ["layers.Dense"],
    "layers/core_layers/embedding/": ["layers.Embedding"],
    "losses/probabilistic_losses/": [
        "losses.BinaryCrossentropy",
        "losses.BinaryFocalCrossentropy",
        "losses.CategoricalCrossentropy",
        "losses.CategoricalFocalCrossentropy",
        "losses.KLDivergence",
        "losses.SparseCategoricalCrossentropy",
    ],
    "losses/regression_losses/": ["losses.MeanSquaredError"],
    "metrics/base_metric/": ["metrics.Metric"],
    "metrics/accuracy_metrics/": [
        "metrics.BinaryAccuracy",
        "metrics.CategoricalAccuracy",
        "metrics.SparseCategoricalAccuracy",
    ],
    "metrics/classification_metrics/": ["metrics.AUC"],
    "metrics/reduction_metrics/": ["metrics.Mean", "metrics.Sum"],
    "models/model/": ["Model"],
    "models/model_training_apis/": [
        "Model.compile",
        "Model.evaluate",
        "Model.fit",
        "Model.predict",
    ],
    "models/sequential/": ["Sequential"],
    "random/seed_generator/": ["random.SeedGenerator"],
    "utils/python_utils/": [
        "utils.PyDataset",
        "utils.set_random_seed",
        "utils.to_categorical",
    ],
}
FOUND = {name: page for page, names in PAGES.items() for name in names}
NAME = re.compile(
    r"(?:(?:keras\.)?([mM]odel\.\w+)|keras\.(\w+(?:\.\w+)?))(?:\(.*\))?"
)


def address(code):
    """The address of what stands in backticks, None if it is not Keras's."""
    match = NAME.fullmatch(code)
    if match is None:
        return None
    method, name = match.groups()
    # `model.fit` is `Model.fit`; `model.x` may be anything.
    name = name or f"M{method[1:]}"
    if name in FOUND:
        return f"{SITE}{FOUND[name]}#{anchor(name)}"
    package = PACKAGES.get(name.partition(".")[0])
    return package and SITE + package


def anchor(name):
    """The heading of a name on its page."""
    owner, _, last = name.rpartition(".")
    if owner == "Model":
        return f"{last}-method"
    return f"{last.lower()}-{'class' if last[0].isupper() else 'function'}"
