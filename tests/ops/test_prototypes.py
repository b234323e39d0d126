import itertools

import keras
import numpy as np
import pytest

from keras_xent import ops
from tests.testing import finite_differences, gradient, normal, to_numpy

LABELS = np.array([0, 1, 0, 2, 1, 0, 3])
DISTANCES = ["squared_euclidean", "cosine"]
each_distance = pytest.mark.parametrize("distance", DISTANCES)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def naive(labels, x, distance, temperature, there=None):
    """The losses of the rows by loops over classes; 0 for a row alone."""
    x = np.asarray(x, "float64")
    there = np.ones(len(labels), bool) if there is None else there
    if distance == "cosine":
        x = unit(x)
    rows = np.zeros(len(labels))
    for i in np.flatnonzero(there):
        logits = {}
        for k in np.unique(labels[there]):
            members = there & (labels == k) & (np.arange(len(x)) != i)
            if not members.any():
                continue
            prototype = x[members].mean(axis=0)
            if distance == "cosine":
                logits[k] = x[i] @ unit(prototype) / temperature
            else:
                logits[k] = -np.sum((x[i] - prototype) ** 2) / temperature
        if labels[i] in logits:
            total = np.logaddexp.reduce(list(logits.values()))
            rows[i] = total - logits[labels[i]]
    return rows


@each_distance
@pytest.mark.parametrize("temperature", [0.1, 1.0, 7.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_equals_loops_over_classes(distance, temperature, weighted):
    x = normal(7, 4)
    weight = np.array([1, 2, 0.5, 0, 1, 0, 1]) if weighted else None
    rows = ops.prototypical_crossentropy(
        LABELS,
        x,
        distance=distance,
        temperature=temperature,
        sample_weight=weight,
    )
    there = None if weight is None else weight != 0
    expected = naive(LABELS, x, distance, temperature, there)
    np.testing.assert_allclose(to_numpy(rows), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("distance", "usual"), [("squared_euclidean", 1.0), ("cosine", 0.1)]
)
def test_each_distance_has_its_own_temperature(distance, usual):
    rows = ops.prototypical_crossentropy(
        LABELS, normal(7, 4), distance=distance
    )
    expected = naive(LABELS, normal(7, 4), distance, usual)
    np.testing.assert_allclose(to_numpy(rows), expected, rtol=1e-5, atol=1e-6)


def test_cosine_is_the_softmax_loss_of_ge2e():
    """Speakers × utterances, as the paper has it, with w = 10 and b = −5."""
    e = unit(normal(4, 3, 5).astype("float64"))
    losses = np.zeros((4, 3))
    for j in range(4):
        for i in range(3):
            similarity = np.empty(4)
            for k in range(4):
                utterances = e[k] if k != j else np.delete(e[k], i, axis=0)
                center = unit(utterances.mean(axis=0))
                similarity[k] = 10 * (e[j, i] @ center) - 5
            losses[j, i] = -similarity[j] + np.log(np.exp(similarity).sum())
    rows = ops.prototypical_crossentropy(
        np.repeat(np.arange(4), 3), normal(4, 3, 5).reshape(12, 5),
        distance="cosine",
    )  # fmt: skip
    np.testing.assert_allclose(to_numpy(rows), losses.ravel(), rtol=1e-5)


@pytest.mark.float64
@each_distance
def test_gradients_agree_with_finite_differences(distance):
    weight = np.array([1, 2, 0.5, 0, 1, 3, 1])
    upstream = np.array([1.0, -2.0, 0.5, 3.0, 1.5, 1.0, 4.0])

    def function(x):
        rows = ops.prototypical_crossentropy(
            LABELS, x, distance=distance, temperature=0.7, sample_weight=weight
        )
        return rows * keras.ops.convert_to_tensor(upstream)

    x = normal(7, 4).astype("float64")
    grad, value = gradient(function, x)
    assert value.dtype == np.float64
    expected = finite_differences(function, x)
    np.testing.assert_allclose(grad, expected, rtol=1e-6, atol=1e-8)
    assert np.all(grad[3] == 0)
    # A row alone in its class is a prototype for the others.
    assert np.any(grad[6] != 0)


@each_distance
@pytest.mark.parametrize("labels", [[0, 0, 0], [0, 1, 2], [5], []])
def test_rows_that_have_no_choice_cost_nothing(labels, distance):
    grad, rows = gradient(
        lambda x: ops.prototypical_crossentropy(
            np.array(labels, "int32"), x, distance=distance
        ),
        normal(3, 4)[: len(labels)],
    )
    assert rows.tolist() == [0] * len(labels)
    assert np.all(grad == 0)


@each_distance
@pytest.mark.parametrize("value", [0.0, 1.0, 1e4])
def test_equal_embeddings_are_a_guess_and_have_no_gradient(distance, value):
    labels = np.array([0, 0, 1, 1, 2])
    grad, rows = gradient(
        lambda x: ops.prototypical_crossentropy(labels, x, distance=distance),
        np.full((5, 3), value, "float32"),
    )
    np.testing.assert_allclose(rows, [np.log(3)] * 4 + [0], rtol=1e-4)
    np.testing.assert_allclose(grad, 0, atol=1e-4)


@each_distance
def test_far_prototypes_do_not_overflow(distance):
    labels, x = np.array([0, 0, 1, 1, 2]), 1e4 * normal(5, 3)
    grad, rows = gradient(
        lambda x: ops.prototypical_crossentropy(labels, x, distance=distance), x
    )
    expected = naive(
        labels, x, distance, 1.0 if distance == "squared_euclidean" else 0.1
    )
    np.testing.assert_allclose(rows, expected, rtol=1e-4, atol=1e-4)
    assert np.isfinite(grad).all()


@each_distance
def test_the_order_of_rows_does_not_matter(distance):
    x, order = normal(7, 4), np.array([3, 1, 6, 0, 5, 2, 4])
    rows, again = (
        to_numpy(
            ops.prototypical_crossentropy(LABELS[i], x[i], distance=distance)
        )
        for i in (np.arange(7), order)
    )
    np.testing.assert_allclose(again, rows[order], rtol=1e-5)


@each_distance
def test_a_nan_is_seen(distance):
    labels = keras.ops.convert_to_tensor(np.array([0.0, 0.0, 1.0, np.nan]))
    rows = to_numpy(
        ops.prototypical_crossentropy(labels, normal(4, 3), distance=distance)
    )
    assert np.isnan(rows).tolist() == [False, False, False, True]
    for bad, labels in itertools.product(
        (np.nan, np.inf), ([0, 0, 1, 1], [0, 0, 0, 0])
    ):
        x = normal(4, 3).copy()
        x[0, 0] = bad
        rows = ops.prototypical_crossentropy(
            np.array(labels), x, distance=distance
        )
        assert np.isnan(to_numpy(rows)).all()


@pytest.mark.parametrize(
    ("kwargs", "name"),
    [
        ({"distance": "euclidean"}, "distance"),
        ({"temperature": 0.0}, "temperature"),
        ({"temperature": "1"}, "temperature"),
        ({"sample_weight": np.ones(3)}, "sample_weight"),
    ],
)
def test_options_out_of_range_are_an_error_that_names_them(kwargs, name):
    with pytest.raises(ValueError, match=f"`{name}`"):
        ops.prototypical_crossentropy(np.zeros(2), normal(2, 3), **kwargs)
