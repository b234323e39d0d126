import keras
import numpy as np
import pytest

from keras_xent import ops
from tests.ops.test_pairwise_divergence import exact, exact_kl
from tests.testing import (
    assert_all_close,
    finite_differences,
    gradient,
    normal,
    thorough_on,
    to_numpy,
)


def softplus(x):
    return np.logaddexp(0, np.asarray(x, "float64"))


def naive_loss(labels, logits, margin, softness, balanced, directed, weight):
    """The loss by a loop over pairs."""
    divergence, kl = exact(logits, logits), exact_kl(logits, logits)

    def hinge(d):
        if softness == 0:
            return max(0.0, margin - d)
        return softness * softplus((margin - d) / softness)

    sums, weights = {True: 0.0, False: 0.0}, {True: 0.0, False: 0.0}
    for i in range(len(labels)):
        for j in range(i + 1, len(labels)):
            same = bool(labels[i] == labels[j])
            if same:
                cost = divergence[i, j]
            elif directed:
                cost = hinge(kl[i, j]) + hinge(kl[j, i])
            else:
                cost = hinge(divergence[i, j])
            sums[same] += weight[i] * weight[j] * cost
            weights[same] += weight[i] * weight[j]
    if balanced:
        return sum(sums[k] / weights[k] / 2 for k in sums if weights[k])
    return sum(sums.values()) / sum(weights.values())


LABELS = np.array([0, 1, 0, 2, 1, 0, 3])


@pytest.mark.parametrize("balanced", [True, False])
@pytest.mark.parametrize("directed", [True, False])
@pytest.mark.parametrize("softness", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("weighted", [True, False])
def test_pair_loss_equals_a_loop_over_pairs(
    balanced, directed, softness, weighted
):
    logits = normal(7, 5)
    weight = np.array([1, 2, 0.5, 0, 1, 3, 1], "float32")
    weight = weight if weighted else np.ones(7, "float32")
    rows = to_numpy(
        ops.symmetric_kl_hinge(
            LABELS, logits, 2.0, softness=softness, balanced=balanced,
            directed=directed, sample_weight=weight if weighted else None,
        )
    )  # fmt: skip
    expected = naive_loss(
        LABELS, logits, 2.0, softness, balanced, directed, weight
    )
    assert rows.shape == (7,)
    np.testing.assert_allclose(
        np.average(rows, weights=weight), expected, rtol=1e-5
    )


@pytest.mark.parametrize("balanced", [True, False])
def test_a_row_alone_is_worth_its_pairs(balanced):
    """Rows 0 and 2 of three match: row 1 has no match to pay for."""
    logits = np.array([[2.0, 0.0], [-40.0, 0.0], [0.0, 2.0]], "float32")
    rows = to_numpy(
        ops.symmetric_kl_hinge(
            np.array([0, 1, 0]), logits, 1.0, softness=0.0, balanced=balanced
        )
    )
    assert rows[1] == 0
    np.testing.assert_allclose(rows[0], rows[2], rtol=1e-6)
    assert rows[0] > 0


@pytest.mark.parametrize("directed", [True, False])
@pytest.mark.parametrize("labels", [[0, 0, 0], [0, 1, 2], [5], []])
def test_a_batch_of_one_kind_of_pairs_or_none_is_finite(labels, directed):
    logits = normal(3, 4)[: len(labels)]
    ids = np.array(labels, "int32")
    grad, rows = gradient(
        lambda x: ops.symmetric_kl_hinge(ids, x, 2.0, directed=directed),
        logits,
    )
    assert rows.shape == (len(labels),)
    assert np.isfinite(rows).all()
    assert np.isfinite(grad).all()
    assert np.any(rows != 0) == (len(labels) == 3)


def test_matches_pull_and_others_push():
    logits = normal(2, 4)
    towards, _ = gradient(
        lambda x: ops.symmetric_kl_hinge(np.array([0, 0]), x, 9.0), logits
    )
    away, _ = gradient(
        lambda x: ops.symmetric_kl_hinge(np.array([0, 1]), x, 9.0), logits
    )
    before = exact(logits, logits)[0, 1]
    step = 1e-2
    nearer, farther = logits - step * towards, logits - step * away
    assert exact(nearer, nearer)[0, 1] < before
    assert exact(farther, farther)[0, 1] > before


def test_the_gradient_does_not_die_beyond_the_margin():
    logits = np.array([[3.0, 0.0], [0.0, 3.0]], "float32")
    labels = np.array([0, 1])
    hard, _ = gradient(
        lambda x: ops.symmetric_kl_hinge(labels, x, 1.0, softness=0.0), logits
    )
    soft, _ = gradient(
        lambda x: ops.symmetric_kl_hinge(labels, x, 1.0, softness=1.0), logits
    )
    assert np.all(hard == 0)
    assert np.all(soft != 0)


def test_class_ids_above_float32_stay_apart():
    ids = np.array([2**24, 2**24 + 1], "int32")
    apart = ops.symmetric_kl_hinge(ids, np.zeros((2, 3), "float32"), 1.0)
    assert np.all(to_numpy(apart) > 0)
    with pytest.raises(ValueError, match="int32"):
        ops.symmetric_kl_hinge(
            np.array([3, 2**32 + 3]), np.zeros((2, 3), "float32"), 1.0
        )


def test_a_nan_label_or_embedding_is_nan():
    ids = keras.ops.convert_to_tensor(np.array([0.0, np.nan], "float32"))
    rows = to_numpy(ops.symmetric_kl_hinge(ids, normal(2, 3), 1.0))
    assert np.isnan(rows[1])
    broken = normal(3, 3).copy()
    broken[0, 0] = np.nan
    rows = to_numpy(ops.symmetric_kl_hinge(np.array([0, 0, 1]), broken, 1.0))
    assert np.isnan(rows).all()


@pytest.mark.float64
@pytest.mark.parametrize("directed", [True, False])
@pytest.mark.parametrize("balanced", [True, False])
def test_pair_gradients_agree_with_finite_differences(directed, balanced):
    weight = np.array([1, 2, 0.5, 0, 1, 3, 1])

    def function(x):
        rows = ops.symmetric_kl_hinge(
            LABELS,
            x,
            2.0,
            softness=0.7,
            balanced=balanced,
            directed=directed,
            sample_weight=weight,
        )
        return rows * keras.ops.convert_to_tensor(weight)

    logits = normal(7, 4).astype("float64")
    grad, value = gradient(function, logits)
    assert value.dtype == np.float64
    expected = finite_differences(function, logits)
    np.testing.assert_allclose(grad, expected, rtol=1e-6, atol=1e-8)


# Any distance --------------------------------------------------------------

DISTANCES = ["euclidean", "squared_euclidean", "cosine", "symmetric_kl"]


def exact_distance(x, name):
    x = np.asarray(x, "float64")
    square = ((x[:, None] - x[None]) ** 2).sum(axis=-1)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    return {
        "euclidean": np.sqrt(square),
        "squared_euclidean": square,
        "cosine": 1 - unit @ unit.T,
        "symmetric_kl": exact(x, x),
    }[name]


def naive_pair_loss(
    labels, distance, margin, softness, squared, balanced, weight
):
    """The loss by a loop over pairs of a known distance."""
    sums, weights = {True: 0.0, False: 0.0}, {True: 0.0, False: 0.0}
    for i in range(len(labels)):
        for j in range(i + 1, len(labels)):
            same = bool(labels[i] == labels[j])
            cost = distance[i, j]
            if not same:
                cost = max(0.0, margin - cost)
                if softness:
                    lacking = margin - distance[i, j]
                    cost = softness * softplus(lacking / softness)
            sums[same] += weight[i] * weight[j] * cost ** (1 + squared)
            weights[same] += weight[i] * weight[j]
    if balanced:
        return sum(sums[k] / weights[k] / 2 for k in sums if weights[k])
    return sum(sums.values()) / sum(weights.values())


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("softness", [0.0, 0.5])
@pytest.mark.parametrize("squared", [True, False])
@pytest.mark.parametrize("balanced", [True, False])
def test_pair_hinge_equals_a_loop_over_pairs(
    distance, softness, squared, balanced
):
    x, weight = normal(7, 5), np.array([1, 2, 0.5, 0, 1, 3, 1], "float32")
    rows = ops.pair_hinge(
        LABELS, x, 1.5, distance=distance, softness=softness,
        squared=squared, balanced=balanced, sample_weight=weight,
    )  # fmt: skip
    expected = naive_pair_loss(
        LABELS, exact_distance(x, distance), 1.5, softness, squared, balanced,
        weight,
    )  # fmt: skip
    result = np.average(to_numpy(rows), weights=weight)
    np.testing.assert_allclose(result, expected, rtol=1e-5)


def test_squared_and_hard_is_the_contrastive_loss_of_tensorflow_addons():
    """`tfa.losses.ContrastiveLoss`: y d² + (1 − y) max(m − d, 0)²."""
    match = np.array([1.0, 0.0, 1.0, 0.0, 0.0], "float32")
    distance = np.array([0.3, 0.2, 2.0, 0.9, 3.0], "float32")
    lacking = np.maximum(1.0 - distance, 0)
    expected = match * distance**2 + (1 - match) * lacking**2
    result = ops.softplus_hinge(
        match, distance, 1.0, softness=0.0, squared=True
    )
    np.testing.assert_allclose(to_numpy(result), expected, rtol=1e-6)


@pytest.mark.float64
@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("squared", [True, False])
def test_pair_hinge_gradients_agree_with_finite_differences(distance, squared):
    weight = np.array([1, 2, 0.5, 0, 1, 3, 1])

    def function(x):
        rows = ops.pair_hinge(
            LABELS, x, 2.0, distance=distance, softness=0.7, squared=squared,
            sample_weight=weight,
        )  # fmt: skip
        return rows * keras.ops.convert_to_tensor(weight)

    x = normal(7, 4).astype("float64")
    grad, value = gradient(function, x)
    assert value.dtype == np.float64
    expected = finite_differences(function, x)
    np.testing.assert_allclose(grad, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("squared", [True, False])
def test_equal_embeddings_have_no_gradient(distance, squared):
    """Nor NaN: the slope of a root is infinite at 0."""
    grad, rows = gradient(
        lambda x: ops.pair_hinge(
            np.array([0, 0, 1]), x, 2.0, distance=distance, softness=0.0,
            squared=squared,
        ),
        np.ones((3, 4), "float32"),
    )  # fmt: skip
    # Half of the margin, and nothing for the match.
    cost = 4.0 if squared else 2.0
    np.testing.assert_allclose(rows.mean(), cost / 2, rtol=1e-5)
    np.testing.assert_allclose(grad, 0, atol=1e-5)


def test_pair_hinge_takes_a_callable():
    def doubled(x):
        return 2 * ops.pairwise_euclidean(x)

    x = normal(7, 4)
    result = ops.pair_hinge(LABELS, x, 2.0, distance=doubled)
    expected = ops.pair_hinge(LABELS, 2 * x, 2.0)
    np.testing.assert_allclose(to_numpy(result), to_numpy(expected), rtol=1e-5)
    with pytest.raises(ValueError, match=r"per pair.*\(7, 7\).*\(7, 4\)"):
        ops.pair_hinge(LABELS, x, 2.0, distance=lambda x: x)


@pytest.mark.parametrize("softness", [1e-12, 1e-3, 0.5, 10.0])
def test_softplus_hinge_equals_its_formula(softness):
    distance = np.array([0.0, 1e-3, 0.9, 1.0, 1.1, 30.0, 1e4], "float32")
    margin = np.float64(1.0)
    push = softness * softplus((margin - distance) / softness)
    for match, expected in ((1, distance), (0, push)):
        result = ops.softplus_hinge(
            np.full(7, match), distance, 1.0, softness=softness
        )
        np.testing.assert_allclose(
            to_numpy(result), expected, rtol=1e-6, atol=1e-7
        )


@pytest.mark.parametrize("softness", [1e-40, 1e-35, 1e-12, 1e-6])
def test_no_softness_is_the_limit_of_little_softness(softness):
    distance = np.array([0.0, 0.5, 1.0, 2.0, 1e4], "float32")
    none = np.zeros(5)
    hard = to_numpy(ops.softplus_hinge(none, distance, 1.0, softness=0.0))
    soft = to_numpy(ops.softplus_hinge(none, distance, 1.0, softness=softness))
    np.testing.assert_allclose(soft, hard, atol=1e-6)
    assert hard.tolist() == [1.0, 0.5, 0.0, 0.0, 0.0]


@pytest.mark.float64
def test_softplus_hinge_gradients_agree_with_finite_differences():
    match = np.array([1.0, 0.0, 0.0, 0.5])
    distance = np.array([0.3, 0.2, 3.0, 1.0])

    def function(x):
        return ops.softplus_hinge(match, x, 1.0, softness=0.3)

    grad, _ = gradient(function, distance)
    expected = finite_differences(function, distance)
    np.testing.assert_allclose(grad, expected, rtol=1e-6)


def test_an_infinite_distance_costs_a_non_match_nothing():
    distance = np.array([np.inf, np.inf], "float32")
    grad, value = gradient(
        lambda x: ops.softplus_hinge(np.array([0, 1]), x, 1.0), distance
    )
    assert value.tolist() == [0, np.inf]
    assert np.isfinite(grad).all()


def test_match_flags_outside_0_1_are_an_error_or_nan():
    distance = normal(2)
    with pytest.raises(ValueError, match="SymmetricKLHinge"):
        ops.softplus_hinge(np.array([0, 7]), distance, 1.0)
    flags = keras.ops.convert_to_tensor(np.array([0, 7]))
    result = to_numpy(ops.softplus_hinge(flags, distance, 1.0))
    assert np.isnan(result).tolist() == [False, True]


@pytest.mark.parametrize(
    ("kwargs", "name"),
    [
        ({"margin": "2"}, "margin"),
        ({"margin": float("nan")}, "margin"),
        ({"margin": 1.0, "softness": -1.0}, "softness"),
        ({"margin": 1.0, "softness": None}, "softness"),
    ],
)
def test_options_out_of_range_are_an_error_that_names_them(kwargs, name):
    with pytest.raises(ValueError, match=f"`{name}`"):
        ops.softplus_hinge(np.zeros(2), normal(2), **kwargs)
    with pytest.raises(ValueError, match=f"`{name}`"):
        ops.symmetric_kl_hinge(np.zeros(2), normal(2, 3), **kwargs)


def test_labels_that_do_not_fit_the_embeddings_are_an_error():
    with pytest.raises(ValueError, match="one class id per row"):
        ops.symmetric_kl_hinge(np.zeros((3, 2)), normal(3, 4), 1.0)
    with pytest.raises(ValueError, match="matrix"):
        ops.symmetric_kl_hinge(np.zeros(3), normal(3), 1.0)


@pytest.mark.parametrize("scale", [1e-25, 1.0, 1e20])
def test_only_the_ratios_of_the_weights_count(scale):
    weight = np.array([1, 2, 0.5, 0, 1, 3, 1])
    expected = ops.symmetric_kl_hinge(
        LABELS, normal(7, 4), 2.0, sample_weight=weight
    )
    scaled = (scale * weight).astype("float32")
    result = ops.symmetric_kl_hinge(
        LABELS, normal(7, 4), 2.0, sample_weight=scaled
    )
    np.testing.assert_allclose(to_numpy(result), to_numpy(expected), rtol=1e-5)


def test_weights_that_are_all_0_cost_nothing():
    rows = ops.symmetric_kl_hinge(
        LABELS, normal(7, 4), 2.0, sample_weight=np.zeros(7)
    )
    assert not to_numpy(rows).any()


@pytest.mark.parametrize("bad", [-1.0, np.nan])
def test_a_weight_that_is_no_weight_makes_the_loss_nan(bad):
    weight = np.array([1, 1, bad, 1, 1, 1, 1])
    rows = ops.symmetric_kl_hinge(
        LABELS, normal(7, 4), 2.0, sample_weight=weight
    )
    assert np.isnan(to_numpy(rows)).all()


@pytest.mark.parametrize("shape", [(7, 1), (1,), (3,), ()])
def test_weights_for_other_rows_are_an_error(shape):
    with pytest.raises(ValueError, match="`sample_weight`"):
        ops.symmetric_kl_hinge(
            LABELS, normal(7, 4), 2.0, sample_weight=np.ones(shape)
        )


def test_float_ids_that_would_collide_are_an_error():
    with pytest.raises(ValueError, match="could collide"):
        ops.symmetric_kl_hinge(
            np.array([2.0**24, 2.0**24 + 1]), normal(2, 3), 1.0
        )


def test_names_are_no_ids():
    with pytest.raises(ValueError, match="must be numbers"):
        ops.symmetric_kl_hinge(["a", "b"], normal(2, 3), 1.0)


@pytest.mark.parametrize(
    ("op", "options"),
    [
        (ops.symmetric_kl_hinge, {}),
        (ops.symmetric_kl_hinge, {"directed": True, "balanced": False}),
        (ops.pair_hinge, {}),
        (ops.pair_hinge, {"distance": "cosine", "balanced": False}),
        (ops.pair_hinge, {"distance": lambda x: abs(x[:, None, 0] - x[:, 0])}),
    ],
)
@thorough_on("jax")
def test_some_rows_are_those_of_all(op, options):
    labels = np.array([0, 1, 1, 2, 0, 0, 1, 0, np.nan])
    weight = np.array([1, 2, 0, 0.5, 1, 3, 0.1, 1, 1], "float32")
    x = normal(9, 4, seed=3, scale=2.0)
    options = {"margin": 2.0, "sample_weight": weight, **options}

    def of(rows, part=slice(None)):
        return gradient(lambda x: op(labels, x, rows=rows, **options)[part], x)

    for start, size in [(0, 3), (2, 5), (4, 0)]:
        some, whole = of((start, size)), of(None, slice(start, start + size))
        assert_all_close(some, whole)
    assert np.isnan(of((7, 2))[1]).tolist() == [False, True]


@pytest.mark.parametrize("light", [1e-3, 1e-7])
def test_some_rows_of_light_partners_are_rows_of_the_whole(light):
    # Next to the other row of its class each is nothing.
    labels, x = np.array([1, 2, 1, 2, 3, 3]), normal(6, 3)
    weight = np.array([1, light, light, 0.7, 0.3, light], "float32")
    given = {"margin": 2.0, "sample_weight": weight}
    some = ops.pair_hinge(labels, x, rows=(1, 4), **given)
    whole = ops.pair_hinge(labels, x, **given)[1:5]
    assert_all_close([some], [whole], rtol=1e-5)


def test_rows_that_there_are_not_are_an_error():
    with pytest.raises(ValueError, match="rows=\\(3, 2\\)"):
        ops.pair_hinge(np.arange(4), normal(4, 2), 1.0, rows=(3, 2))
