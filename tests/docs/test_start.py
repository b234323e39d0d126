"""The chooser of the pages for beginners names what works."""

import pathlib
import re

import keras
import numpy as np
import pytest

import keras_xent
from keras_xent import layers, losses
from tests.testing import normal, only_on

START = pathlib.Path(__file__).parents[2] / "docs" / "start"
ROWS, CLASSES, DIM = 16, 8, 4
ROW = re.compile(r"^\| ([^|]+) \| ([^|]+) \| `([^|]+)` \| `([^|]+)` \|")

IDS = np.arange(ROWS) % 4
LABELS = {
    "class ids: 0, 1, 2, …": IDS,
    "a row per example: one-hot, mixed or smoothed": np.eye(CLASSES)[IDS],
    "a teacher's logits": normal(ROWS, CLASSES),
    "class ids, and a sample of the classes has to do": IDS,
    "1 or 0 for each question": normal(ROWS, CLASSES) > 0,
    "1, 0, or −1 where it is not known": np.sign(normal(ROWS, CLASSES)),
    "class ids of thousands of people": IDS,
    "class ids, several examples of each in a batch": IDS,
    "class ids, a distance and a margin are wanted": IDS,
    "match or no match, for given pairs": IDS[:, None] == 0,
    "the number of the pair: 0, 1, 2, …": np.arange(ROWS),
    "numbers, of which only the order counts": normal(ROWS, 1),
}

pytestmark = only_on("torch", "the pages are the same everywhere")


def rows():
    """The rows of the table: question, labels, last layer, loss."""
    lines = (START / "which_loss.md").read_text().splitlines()
    return [match.groups() for match in map(ROW.match, lines) if match]


@pytest.mark.parametrize(("asked", "labels", "layer", "loss"), rows())
def test_what_the_table_puts_together_trains(asked, labels, layer, loss):
    inputs = keras.Input((DIM,))
    scope = {
        "Dense": keras.layers.Dense,
        "layers": layers,
        "losses": losses,
        "n": CLASSES,
        "d": DIM,
        "hidden": keras.layers.Dense(DIM)(inputs),
        "other": keras.layers.Dense(DIM)(inputs),
    }
    # The sample of the page is larger than the classes here.
    loss = loss.replace("(64)", "(4)")
    model = keras.Model(inputs, eval(layer, scope))
    model.compile("sgd", loss=eval(loss, scope))
    x, y = normal(ROWS, DIM), np.asarray(LABELS[labels])
    y = y if y.dtype.kind == "i" else y.astype("float32")
    history = model.fit(x, y, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    if not isinstance(model.loss, losses.SpearmanLoss):
        assert not keras_xent.diagnose(model, x, y).errors


def test_the_table_has_a_loss_for_each_kind_of_labels():
    found = rows()
    assert {labels for _, labels, *_ in found} == set(LABELS)
    choices = [row[:2] for row in found]
    assert len(set(choices)) == len(choices)
