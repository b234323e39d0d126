"""The losses over a sample are their definition, and TensorFlow's own."""

import keras
import numpy as np
import pytest
from scipy import special

from keras_xent import ops
from tests.testing import (
    BACKEND,
    assert_all_close,
    compiled,
    finite_differences,
    gradient,
    gradients,
    normal,
    only_on,
    thorough_on,
    to_numpy,
)

ROWS, SIZE, CLASSES, DRAWN = 5, 4, 12, 6
IDS = np.array([0, 1, 3, 3, 7, 11], "int32")  # 3 twice: with replacement
SAMPLED_COUNT = np.array([0.9, 0.8, 0.5, 0.5, 0.2, 0.1], "float32")
LABELS = {
    1: np.array([0, 3, 2, 11, 5], "int32"),  # three of them are in the sample
    2: np.array([[0, 3], [2, 4], [11, 1], [5, 6], [7, 8]], "int32"),
}
TRUE_COUNT = {
    several: normal(*labels.shape, seed=7) ** 2 + 0.1
    for several, labels in LABELS.items()
}
FEATURES = normal(ROWS, SIZE, seed=1)
VECTORS = normal(CLASSES, SIZE, seed=2)
BIAS = normal(CLASSES, seed=3)


def in_a_row(function):
    """A loss that takes its factors in a row, as `gradients` gives them."""

    def of_factors(labels, features, class_vectors=None, bias=None, **options):
        return function(
            labels,
            features,
            class_vectors=class_vectors,
            bias=bias,
            **options,
        )

    return of_factors


LOSSES = {
    "softmax": in_a_row(ops.sampled_softmax_crossentropy),
    "nce": in_a_row(ops.nce_loss),
}
each_loss = pytest.mark.parametrize("name", LOSSES)
each_number = pytest.mark.parametrize("several", LABELS)


def candidates(several=1, ids=IDS):
    return ids, TRUE_COUNT[several], SAMPLED_COUNT


def loss(name, several=1, labels=None, ids=IDS, **options):
    """A function of features, class vectors and bias."""
    labels = LABELS[several] if labels is None else labels

    def of_factors(features, vectors, bias):
        return LOSSES[name](
            labels,
            features,
            vectors,
            bias,
            candidates=candidates(several, ids),
            **options,
        )

    return of_factors


def definition(name, several, remove, subtract):
    """Row by row and class by class, in float64."""
    logits = FEATURES.astype("float64") @ VECTORS.T + BIAS
    labels = LABELS[several].reshape(ROWS, several)
    true_count = TRUE_COUNT[several].reshape(ROWS, several)
    losses = []
    for x, true, counts in zip(logits, labels, true_count, strict=True):
        z_true = x[true] - np.log(counts) * subtract
        noise = [
            x[k] - np.log(count) * subtract
            for k, count in zip(IDS, SAMPLED_COUNT.astype("float64"))  # noqa: B905
            if not (remove and k in true)
        ]
        if name == "softmax":
            total = special.logsumexp([*z_true, *noise])
            losses.append(np.mean(total - z_true))
        else:
            share = 1 / several
            losses.append(
                np.sum(share * np.logaddexp(0, -z_true))
                + np.sum((1 - share) * np.logaddexp(0, z_true))
                + np.sum(np.logaddexp(0, noise))
            )
    return np.array(losses)


@each_loss
@each_number
@pytest.mark.parametrize("remove", [True, False])
@pytest.mark.parametrize("subtract", [True, False])
def test_the_loss_is_its_definition(name, several, remove, subtract):
    result = loss(
        name,
        several,
        remove_accidental_hits=remove,
        subtract_log_q=subtract,
    )(FEATURES, VECTORS, BIAS)
    expected = definition(name, several, remove, subtract)
    np.testing.assert_allclose(to_numpy(result), expected, rtol=1e-5, atol=1e-6)


def test_hits_are_removed_from_the_softmax_and_left_in_nce_by_default():
    for name, remove in (("softmax", True), ("nce", False)):
        result = to_numpy(loss(name)(FEATURES, VECTORS, BIAS))
        expected = definition(name, 1, remove, True)
        np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)
        assert not np.allclose(result, definition(name, 1, not remove, True))


@each_loss
@each_number
@pytest.mark.parametrize("remove", [True, False])
def test_values_and_gradients_are_those_of_tensorflow(name, several, remove):
    if BACKEND != "tensorflow":
        pytest.skip("needs TensorFlow")
    import tensorflow as tf

    # Of a hit that was drawn twice TensorFlow removes one.
    ids = np.array([0, 1, 3, 4, 7, 11]) if remove else IDS
    native = {"softmax": tf.nn.sampled_softmax_loss, "nce": tf.nn.nce_loss}

    def theirs(features, vectors, bias):
        return native[name](
            vectors,
            bias,
            LABELS[several].reshape(ROWS, several).astype("int64"),
            features,
            DRAWN,
            CLASSES,
            num_true=several,
            sampled_values=(
                ids.astype("int64"),
                TRUE_COUNT[several].reshape(ROWS, several),
                SAMPLED_COUNT,
            ),
            remove_accidental_hits=remove,
        )

    mine = loss(name, several, ids=ids, remove_accidental_hits=remove)
    grads, value = gradients(mine, FEATURES, VECTORS, BIAS)
    expected_grads, expected = gradients(theirs, FEATURES, VECTORS, BIAS)
    assert_all_close([value, *grads], [expected, *expected_grads])


@pytest.mark.float64
@each_loss
@each_number
def test_gradients_are_finite_differences(name, several):
    wide = [x.astype("float64") for x in (FEATURES, VECTORS, BIAS)]
    every = loss(name, several, remove_accidental_hits=True)
    for place in range(3):

        def of_one(x, place=place):
            factors = list(map(keras.ops.convert_to_tensor, wide))
            factors[place] = x
            return every(*factors)

        grad, _ = gradient(of_one, wide[place])
        expected = finite_differences(of_one, wide[place])
        np.testing.assert_allclose(grad, expected, rtol=1e-6, atol=1e-8)


def test_a_sample_of_all_other_classes_is_the_full_softmax():
    everything = np.arange(CLASSES)
    ones = np.ones(CLASSES, "float32")
    result, full = (
        gradients(function, FEATURES, VECTORS, BIAS)
        for function in (
            lambda *factors: LOSSES["softmax"](
                LABELS[1],
                *factors,
                candidates=(everything, ones[:ROWS], ones),
            ),
            lambda features, vectors, bias: ops.sparse_softmax_crossentropy(
                LABELS[1], features @ keras.ops.transpose(vectors) + bias
            ),
        )
    )
    assert_all_close([result[1], *result[0]], [full[1], *full[0]])


@pytest.mark.parametrize("unique", [True, False])
@thorough_on("tensorflow")
def test_the_gradient_approaches_the_full_one_as_the_sample_grows(unique):
    """The mean over many samples, which only log E can make right."""
    classes, rows, samples = 200, 8, 60
    vectors = normal(classes, SIZE, seed=12).astype("float64")
    logits = normal(rows, SIZE, seed=11) @ vectors.T
    labels = 9 * np.arange(rows)
    truth = special.softmax(logits, axis=1) @ vectors - vectors[labels]
    seeds = keras.random.SeedGenerator(0)

    def error(size, subtract=1):
        total = 0
        for _ in range(samples):
            drawn = ops.log_uniform_sample(
                labels, size, classes, unique=unique, seed=seeds
            )
            ids, true_count, count = map(to_numpy, drawn)
            true = np.log(true_count)[:, None]
            true = logits[np.arange(rows), labels][:, None] - subtract * true
            noise = logits[:, ids] - subtract * np.log(count)
            noise[labels[:, None] == ids] = -np.inf
            p = special.softmax(np.hstack([true, noise]), axis=1)
            total += (p[:, :1] - 1) * vectors[labels] + p[:, 1:] @ vectors[ids]
        return np.linalg.norm(total / samples - truth) / np.linalg.norm(truth)

    errors = [error(size) for size in (4, 20, 150)]
    assert errors[0] > 1.5 * errors[1] > 3 * errors[2]
    assert errors[2] < 0.12
    assert error(150, subtract=0) > 1.3 * errors[2]


@each_loss
def test_a_kernel_is_class_vectors_transposed(name):
    rows = to_numpy(loss(name)(FEATURES, VECTORS, BIAS))
    columns = LOSSES[name](
        LABELS[1],
        FEATURES,
        bias=BIAS,
        kernel=np.ascontiguousarray(VECTORS.T),
        candidates=candidates(),
    )
    np.testing.assert_allclose(to_numpy(columns), rows, rtol=1e-6)


@each_loss
def test_a_soft_cap_bounds_the_logits_before_log_e_is_taken_off(name):
    cap = 0.5
    product = FEATURES @ VECTORS.T + BIAS
    capped = LOSSES[name](
        LABELS[1], FEATURES, VECTORS, BIAS, candidates=candidates(), softcap=cap
    )
    # One-hot features pick a column of capped logits each.
    same = LOSSES[name](
        LABELS[1],
        np.eye(ROWS, dtype="float32"),
        (cap * np.tanh(product / cap)).T,
        candidates=candidates(),
    )
    np.testing.assert_allclose(to_numpy(capped), to_numpy(same), rtol=1e-5)


@each_loss
def test_axes_before_the_features_are_rows(name):
    flat = to_numpy(loss(name)(FEATURES, VECTORS, BIAS))
    folded = LOSSES[name](
        LABELS[1].reshape(1, ROWS, 1),
        FEATURES.reshape(1, ROWS, SIZE),
        VECTORS,
        BIAS,
        candidates=(IDS, TRUE_COUNT[1].reshape(1, ROWS), SAMPLED_COUNT),
    )
    assert folded.shape == (1, ROWS)
    np.testing.assert_allclose(to_numpy(folded)[0], flat, rtol=1e-6)


@each_loss
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_in_precision_float32_low_factors_are_multiplied_as_they_are(
    name, dtype
):
    low = [keras.ops.cast(x, dtype) for x in (FEATURES, VECTORS, BIAS)]
    wide = [to_numpy(keras.ops.cast(x, "float32")) for x in low]
    grads, value = gradients(loss(name, precision="float32"), *low)
    expected_grads, expected = gradients(loss(name), *wide)
    assert keras.backend.standardize_dtype(value.dtype) == "float32"
    for grad in grads:
        assert keras.backend.standardize_dtype(grad.dtype) == dtype
    assert_all_close([value], [expected], rtol=1e-5)
    assert_all_close(grads, expected_grads, rtol=2e-2, atol=5e-3)


@each_loss
@each_number
def test_compiles_with_the_same_result(name, several):
    function = loss(name, several)
    factors = list(map(keras.ops.convert_to_tensor, (FEATURES, VECTORS, BIAS)))
    np.testing.assert_allclose(
        to_numpy(compiled(function)(*factors)),
        to_numpy(function(*factors)),
        rtol=1e-5,
    )


def test_on_tensorflow_the_gradient_of_class_vectors_is_sparse():
    if BACKEND != "tensorflow":
        pytest.skip("the other backends know no sparse gradient here")
    import tensorflow as tf

    variable = tf.Variable(VECTORS)
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(loss("softmax")(FEATURES, variable, BIAS))
    grad = tape.gradient(value, variable)
    assert isinstance(grad, tf.IndexedSlices)
    assert grad.values.shape == (ROWS + DRAWN, SIZE)


@each_loss
@pytest.mark.parametrize("label", [-1, CLASSES])
def test_a_label_that_does_not_exist_is_nan_in_its_row_alone(name, label):
    labels = LABELS[1].copy()
    labels[2] = label
    labels = keras.ops.convert_to_tensor(labels)
    grads, value = gradients(loss(name, labels=labels), FEATURES, VECTORS, BIAS)
    broken = np.isnan(to_numpy(value))
    assert broken.tolist() == [False, False, True, False, False]
    assert all(np.isfinite(to_numpy(x)).all() for x in grads)


@each_loss
def test_a_label_that_is_never_drawn_is_nan(name):
    counts = TRUE_COUNT[1].copy()
    counts[1] = 0
    value = LOSSES[name](
        LABELS[1],
        FEATURES,
        VECTORS,
        candidates=(IDS, counts, SAMPLED_COUNT),
    )
    assert np.isnan(to_numpy(value)).tolist() == [False, True, *[False] * 3]


@each_loss
@pytest.mark.parametrize("wrong", [[-1, 3], [12, 3], [1.5, 3]])
def test_a_candidate_on_the_device_that_does_not_exist_is_nan(name, wrong):
    wrong = keras.ops.convert_to_tensor(np.array(wrong, "float32"))
    value = LOSSES[name](
        LABELS[1],
        FEATURES,
        VECTORS,
        candidates=(wrong, TRUE_COUNT[1], SAMPLED_COUNT[:2]),
        subtract_log_q=False,
    )
    assert np.isnan(to_numpy(value)).all()


def test_where_the_whole_sample_is_a_hit_the_softmax_has_nothing_to_lose():
    ones = np.ones(1, "float32")
    grad, value = gradient(
        lambda x: LOSSES["softmax"](
            [4], x, VECTORS, candidates=([4], ones, ones)
        ),
        FEATURES[:1],
    )
    assert value.tolist() == [0]
    assert np.all(grad == 0)


@each_loss
def test_logits_of_any_size_are_exact(name):
    """A float64 reference at logits near 1e4."""
    features = 100 * FEATURES
    vectors = 100 * VECTORS
    value = to_numpy(
        LOSSES[name](LABELS[1], features, vectors, candidates=candidates())
    )
    logits = np.float64(features) @ np.float64(vectors).T
    ids = np.concatenate([LABELS[1][:, None], np.tile(IDS, (ROWS, 1))], axis=1)
    counts = np.concatenate(
        [TRUE_COUNT[1][:, None], np.tile(SAMPLED_COUNT, (ROWS, 1))], axis=1
    )
    z = np.take_along_axis(logits, ids, 1) - np.log(np.float64(counts))
    if name == "softmax":
        z[:, 1:][ids[:, 1:] == ids[:, :1]] = -np.inf
        expected = special.logsumexp(z, axis=1) - z[:, 0]
    else:
        expected = np.logaddexp(0, -z[:, 0]) + np.logaddexp(0, z[:, 1:]).sum(1)
    np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-3)


def test_no_row_gives_no_loss():
    empty = LOSSES["nce"](
        np.zeros(0, "int32"),
        np.zeros((0, SIZE), "float32"),
        VECTORS,
        candidates=(IDS, np.zeros(0, "float32"), SAMPLED_COUNT),
    )
    assert empty.shape == (0,)


@each_loss
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": [0, 1]}, "`labels` must be"),
        ({"labels": [0, 1, 2, 3, CLASSES]}, "Received the label 12"),
        ({"labels": np.ones((ROWS, 2, 2), "int32")}, "`labels` must be"),
        ({"labels": [0, 1, 2, 3, 0.5]}, "not a whole number"),
        ({"candidates": (IDS, SAMPLED_COUNT)}, "Received 2 things"),
        ({"candidates": (IDS, SAMPLED_COUNT, SAMPLED_COUNT)}, "each label"),
        (
            {"candidates": (IDS, TRUE_COUNT[1], TRUE_COUNT[1])},
            "that of each id",
        ),
        (
            {"candidates": ([12], TRUE_COUNT[1], [1.0])},
            "`candidates` must be class ids, from 0 to 11.*Received the id 12",
        ),
        ({"class_vectors": VECTORS.T}, "`class_vectors` must have shape"),
        ({"class_vectors": VECTORS[:1]}, "single logit"),
        ({"class_vectors": VECTORS.astype("int32")}, "floating point"),
        ({"kernel": VECTORS.T}, "Give the weights of the classes once"),
        ({"bias": BIAS[1:]}, "`bias` must hold one number per class"),
        ({"softcap": 0}, "`softcap` must be above 0"),
        ({"precision": "float64"}, "`precision` must be .*'float32'"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_an_error(name, change, message):
    arguments = {
        "labels": LABELS[1],
        "features": FEATURES,
        "class_vectors": VECTORS,
        "candidates": candidates(),
        **change,
    }
    with pytest.raises(ValueError, match=message):
        LOSSES[name](**arguments)


# The classes of the batch --------------------------------------------------


def with_batch_classes(labels, subtract):
    """Class by class: those of the batch once, and those of the sample."""
    logits = FEATURES.astype("float64") @ VECTORS.T + BIAS
    batch = sorted(set(labels.tolist()))
    columns = [logits[:, k] for k in batch]
    for k, count in zip(IDS, SAMPLED_COUNT, strict=True):
        if k not in batch:
            columns.append(logits[:, k] - (np.log(count) if subtract else 0))
    total = special.logsumexp(np.stack(columns, axis=1), axis=1)
    return total - logits[np.arange(ROWS), labels]


@pytest.mark.parametrize("subtract", [False, True])
@pytest.mark.parametrize(
    "labels", [[0, 3, 2, 11, 5], [2, 2, 2, 2, 4], [8, 9, 8, 9, 0]], ids=str
)
def test_classes_of_the_batch_count_once_for_every_row(labels, subtract):
    labels = np.array(labels, "int32")
    found = ops.sampled_softmax_crossentropy(
        labels,
        FEATURES,
        class_vectors=VECTORS,
        bias=BIAS,
        candidates=candidates(),
        batch_classes=True,
        subtract_log_q=subtract,
        remove_accidental_hits=False,  # they are removed all the same
    )
    expected = with_batch_classes(labels, subtract)
    np.testing.assert_allclose(to_numpy(found), expected, rtol=1e-5)


def test_classes_of_the_batch_go_with_one_label_per_row():
    with pytest.raises(ValueError, match="goes with one label per row"):
        ops.sampled_softmax_crossentropy(
            LABELS[2],
            FEATURES,
            class_vectors=VECTORS,
            candidates=candidates(2),
            batch_classes=True,
        )


def test_a_label_that_does_not_exist_adds_class_zero_to_the_batch():
    def found(labels):
        return to_numpy(
            ops.sampled_softmax_crossentropy(
                keras.ops.convert_to_tensor(labels),
                FEATURES,
                class_vectors=VECTORS,
                candidates=candidates(),
                batch_classes=True,
            )
        )

    losses = found(np.array([0, 3, 99, 11, 5], "int32"))
    assert np.isnan(losses).tolist() == [False, False, True, False, False]
    # Row 0 is of class 0, which stands in for it.
    np.testing.assert_allclose(
        losses[[0, 1, 3, 4]],
        found(np.array([0, 3, 0, 11, 5], "int32"))[[0, 1, 3, 4]],
        rtol=1e-6,
    )


@only_on("tensorflow", "only there a gradient names a class several times")
def test_keras_sees_an_overflow_in_any_gradient_of_a_class():
    """A loss scale of float16 falls only if Keras sees that it was too high."""
    import tensorflow as tf

    vectors = tf.Variable(VECTORS)
    # Of class 3 only the first gradient overflows.
    labels = np.array([3, 3, 0, 1, 2], "int32")
    scale = keras.ops.convert_to_tensor([3e38, 1, 1, 1, 1], "float32")
    with tf.GradientTape() as tape:
        losses = ops.sampled_softmax_crossentropy(
            labels,
            keras.ops.cast(FEATURES, "float16"),
            class_vectors=vectors,
            candidates=candidates(),
        )
        total = tf.reduce_sum(losses * scale)
    gradient = tape.gradient(total, vectors)
    assert not np.isfinite(to_numpy(gradient.values)).all()
    assert not to_numpy(keras.ops.all(keras.ops.isfinite(gradient)))
