import keras
import mpmath
import numpy as np
import pytest
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_xent import ops
from tests.testing import (
    BACKEND,
    assert_all_close,
    compiled,
    finite_differences,
    gradient,
    hessian,
    normal,
    to_numpy,
)

OPTIONS = {
    "plain": {},
    "label_smoothing": {"label_smoothing": 0.1},
    "class_weight": {"class_weight": [1.0, 2.0, 0.0, 0.5, 3.0]},
    "focal_gamma": {"focal_gamma": 2.0},
    "flat_focal_gamma": {"focal_gamma": 0.5},
    "z_loss": {"z_loss": 1e-3},
    "all_but_focal": {
        "label_smoothing": 0.2,
        "class_weight": [1.0, 2.0, 0.0, 0.5, 3.0],
        "z_loss": 1e-2,
    },
    "all": {
        "label_smoothing": 0.2,
        "class_weight": [1.0, 2.0, 0.0, 0.5, 3.0],
        "focal_gamma": 1.5,
        "z_loss": 1e-2,
    },
}
options = pytest.mark.parametrize(
    "options", OPTIONS.values(), ids=OPTIONS.keys()
)


def reference(
    targets,
    logits,
    label_smoothing=0.0,
    class_weight=None,
    focal_gamma=0.0,
    z_loss=0.0,
):
    """The formula of the module, written out for one row in mpmath."""
    losses = []
    with mpmath.workdps(60):
        for target, row in zip(targets, logits, strict=True):
            row = [mpmath.mpf(float(x)) for x in row]
            total = sum(mpmath.exp(x) for x in row)
            lse = mpmath.log(total)
            finite = sum(mpmath.isfinite(x) for x in row)
            loss = z_loss * lse**2
            for k, x in enumerate(row):
                share = label_smoothing / finite if mpmath.isfinite(x) else 0
                t = (1 - label_smoothing) * float(target[k]) + share
                if t == 0:
                    continue
                w = 1 if class_weight is None else class_weight[k]
                rest = (total - mpmath.exp(x)) / total
                loss += w * t * rest**focal_gamma * (lse - x)
            losses.append(float(loss))
    return np.array(losses)


def one_hot(labels, classes):
    return np.eye(classes, dtype="float32")[labels]


def grid():
    """Logits with magnitudes up to ±1e4, ties and denormals: rows, labels."""
    rows = []
    for size in (0.0, 1e-40, 1e-3, 1.0, 30.0, 1e3, 1e4):
        for offset in (0.0, -1e4, 1e4):
            rows.append(size * normal(5, seed=len(rows)) + offset)
            rows.append(np.full(5, size) + offset)
    return np.array(rows, "float32")


def close(result, expected):
    error = np.abs(np.asarray(result, "float64") - expected)
    return np.all(error <= 2e-6 * np.abs(expected) + 1e-6)


@options
def test_softmax_kinds_equal_the_formula_at_any_magnitude(options):
    logits = grid()
    for label in range(5):
        labels = np.full(len(logits), label)
        expected = reference(one_hot(labels, 5), logits, **options)
        sparse = ops.sparse_softmax_crossentropy(labels, logits, **options)
        dense = ops.softmax_crossentropy(one_hot(labels, 5), logits, **options)
        assert close(to_numpy(sparse), expected)
        assert close(to_numpy(dense), expected)


@options
def test_dense_targets_equal_the_formula(options):
    logits = grid()
    targets = scipy.special.softmax(normal(len(logits), 5, seed=9), axis=1)
    expected = reference(targets, logits, **options)
    result = ops.softmax_crossentropy(targets, logits, **options)
    assert close(to_numpy(result), expected)


def test_gradient_is_softmax_minus_target_at_any_magnitude():
    logits = grid()
    labels = np.arange(len(logits)) % 5
    expected = scipy.special.softmax(logits.astype("float64"), axis=1)
    expected[np.arange(len(logits)), labels] -= 1
    sparse, _ = gradient(
        lambda x: ops.sparse_softmax_crossentropy(labels, x), logits
    )
    dense, _ = gradient(
        lambda x: ops.softmax_crossentropy(one_hot(labels, 5), x), logits
    )
    np.testing.assert_allclose(sparse, expected, rtol=0, atol=2e-6)
    np.testing.assert_allclose(dense, expected, rtol=0, atol=2e-6)


@pytest.mark.float64
@options
@pytest.mark.parametrize("scale", [0.1, 3.0])
def test_gradients_agree_with_finite_differences(options, scale):
    logits = scale * normal(3, 5).astype("float64")
    labels = np.array([0, 2, 4])
    targets = scipy.special.softmax(normal(3, 5, seed=1).astype("float64"), 1)

    def sparse(x):
        return ops.sparse_softmax_crossentropy(labels, x, **options)

    def dense(x):
        return ops.softmax_crossentropy(targets, x, **options)

    for function in (sparse, dense):
        grad, value = gradient(function, logits)
        assert value.dtype == np.float64
        expected = finite_differences(function, logits)
        np.testing.assert_allclose(grad, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.float64
def test_gradient_to_the_targets_agrees_with_finite_differences():
    logits = normal(3, 5).astype("float64")
    targets = scipy.special.softmax(normal(3, 5, seed=1).astype("float64"), 1)

    def function(t):
        return ops.softmax_crossentropy(t, logits)

    grad, _ = gradient(function, targets)
    expected = finite_differences(function, targets)
    np.testing.assert_allclose(grad, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2, -3])
@options
def test_any_axis_is_the_last_axis_moved(axis, options):
    last = normal(3, 4, 5)
    labels = np.arange(12).reshape(3, 4) % 5
    moved = np.moveaxis(last, -1, axis)
    targets = one_hot(labels, 5)
    expected = reference(
        targets.reshape(-1, 5), last.reshape(-1, 5), **options
    ).reshape(3, 4)
    sparse = ops.sparse_softmax_crossentropy(
        labels, moved, axis=axis, **options
    )
    dense = ops.softmax_crossentropy(
        np.moveaxis(targets, -1, axis), moved, axis=axis, **options
    )
    assert close(to_numpy(sparse), expected)
    assert close(to_numpy(dense), expected)


def test_sparse_labels_may_have_size_one_along_the_class_axis():
    logits = normal(2, 5, 3)
    labels = np.array([[0, 1, 2], [3, 4, 0]])
    expected = ops.sparse_softmax_crossentropy(labels, logits, axis=1)
    result = ops.sparse_softmax_crossentropy(labels[:, None], logits, axis=1)
    np.testing.assert_array_equal(to_numpy(result), to_numpy(expected))


def test_a_single_example_needs_no_batch_axis():
    logits = normal(5)
    expected = reference(one_hot([3], 5), logits[None])
    assert close(to_numpy(ops.sparse_softmax_crossentropy(3, logits)), expected)


@pytest.mark.parametrize(
    "dtype",
    [
        "int8",
        "uint8",
        "int16",
        "int32",
        "int64",
        "uint32",
        "float16",
        "float32",
        "float64",
        "bfloat16",
    ],
)
def test_labels_of_every_dtype_are_class_ids(dtype):
    logits = normal(3, 5)
    labels = keras.ops.cast(np.array([0, 3, 4], "int32"), dtype)
    expected = reference(one_hot([0, 3, 4], 5), logits)
    result = ops.sparse_softmax_crossentropy(labels, logits)
    assert close(to_numpy(result), expected)


def test_labels_stay_exact_where_float32_cannot_count():
    ids = np.array([2**24 + 1, 2**31 - 1], "int32")
    labels = ops.crossentropy.integer_labels(ids, (2, None), 1)
    assert to_numpy(labels).tolist() == ids.tolist()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_low_precision_logits_keep_classes_above_256_apart(dtype):
    logits = np.zeros((1, 1025), "float32")
    logits[0, 1000] = 20.0
    low = keras.ops.cast(logits, dtype)
    labels = np.array([1000])
    expected = reference(one_hot(labels, 1025), logits)
    result = ops.sparse_softmax_crossentropy(labels, low)
    assert to_numpy(result).dtype == np.float32
    assert close(to_numpy(result), expected)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_gradients_come_back_in_the_dtype_of_the_logits(dtype):
    low = keras.ops.cast(normal(4, 300), dtype)
    labels = np.array([0, 257, 258, 299])
    seen = []

    def function(x):
        seen.append(keras.backend.standardize_dtype(x.dtype))
        return ops.sparse_softmax_crossentropy(labels, x)

    grad, _ = gradient(function, low)
    expected = scipy.special.softmax(to_numpy(low).astype("float64"), 1)
    expected[np.arange(4), labels] -= 1
    assert seen[0] == dtype
    np.testing.assert_allclose(grad, expected, atol=4e-3)


@pytest.mark.parametrize("how", [lambda f: f, compiled], ids=["eager", "jit"])
@pytest.mark.parametrize("bad", [-1, 5, -100, -(2**31), 2**31 - 1])
def test_a_label_out_of_range_is_nan(bad, how):
    logits = normal(3, 5)
    labels = keras.ops.convert_to_tensor(np.array([0, bad, 4], "int32"))
    for options in OPTIONS.values():
        function = how(
            lambda y, x, options=options: ops.sparse_softmax_crossentropy(
                y, x, **options
            )
        )
        result = to_numpy(function(labels, logits))
        assert np.isnan(result[1])
        expected = reference(one_hot([0, 0, 4], 5), logits, **options)
        assert close(result[[0, 2]], expected[[0, 2]])


@pytest.mark.parametrize("bad", [0.5, np.nan, np.inf, 3e9])
def test_a_float_label_that_is_no_class_id_is_nan(bad):
    labels = keras.ops.convert_to_tensor(np.array([0.0, bad], "float32"))
    result = to_numpy(ops.sparse_softmax_crossentropy(labels, normal(2, 5)))
    assert np.isnan(result).tolist() == [False, True]


@pytest.mark.parametrize("bad", [-1, 5])
def test_a_label_out_of_range_in_host_memory_is_an_error(bad):
    with pytest.raises(ValueError, match=rf"\[0, 5\).*{bad}"):
        ops.sparse_softmax_crossentropy(np.array([0, bad]), normal(2, 5))


def test_a_label_that_int32_cannot_hold_is_an_error():
    with pytest.raises(ValueError, match="int32"):
        ops.sparse_softmax_crossentropy(np.array([0, 2**32 + 3]), normal(2, 5))


@pytest.mark.parametrize("ignore", [-1, 2, -100, 255, [2, -1], [-1]])
def test_ignored_labels_cost_nothing_and_pass_no_gradient(ignore):
    ids = np.atleast_1d(ignore)
    labels = np.array([0, ids[0], 4, ids[-1]])
    logits = normal(4, 5).copy()
    logits[1] = np.nan
    logits[3] = -np.inf
    grad, value = gradient(
        lambda x: ops.sparse_softmax_crossentropy(
            labels, x, ignore_class=ignore
        ),
        logits,
    )
    expected = reference(one_hot([0, 4], 5), logits[[0, 2]])
    assert close(value[[0, 2]], expected)
    assert value[[1, 3]].tolist() == [0, 0]
    assert np.all(grad[[1, 3]] == 0)
    assert np.all(grad[[0, 2]] != 0)


@pytest.mark.parametrize("kind", ["sparse", "dense"])
@options
def test_masked_classes_have_no_probability_and_no_gradient(kind, options):
    logits = normal(2, 5).copy()
    logits[:, 3] = -np.inf
    labels = np.array([0, 4])
    targets = one_hot(labels, 5)

    def function(x):
        if kind == "sparse":
            return ops.sparse_softmax_crossentropy(labels, x, **options)
        return ops.softmax_crossentropy(targets, x, **options)

    grad, value = gradient(function, logits)
    assert close(value, reference(targets, logits, **options))
    assert np.all(np.isfinite(grad))
    assert np.all(grad[:, 3] == 0)
    assert np.any(grad[:, 0] != 0)


def test_a_masked_class_that_is_the_target_costs_more_than_float32_holds():
    logits = np.array([[0.0, -np.inf]], "float32")
    sparse = ops.sparse_softmax_crossentropy(np.array([1]), logits)
    dense = ops.softmax_crossentropy(np.array([[0.0, 1.0]], "float32"), logits)
    assert to_numpy(sparse) >= np.finfo("float32").max
    assert to_numpy(dense) >= np.finfo("float32").max


def test_a_row_without_a_finite_logit_is_nan():
    logits = np.array([[-np.inf, -np.inf], [0.0, 0.0]], "float32")
    targets = one_hot([0, 0], 2)
    sparse = ops.sparse_softmax_crossentropy(np.array([0, 0]), logits)
    dense = ops.softmax_crossentropy(targets, logits)
    assert np.isnan(to_numpy(sparse)).tolist() == [True, False]
    assert np.isnan(to_numpy(dense)).tolist() == [True, False]


@options
@pytest.mark.parametrize("function", ["sparse", "dense", "large sparse"])
def test_a_row_without_a_finite_logit_passes_no_gradient(
    options, function, monkeypatch
):
    if "large" in function:
        monkeypatch.setattr(ops.own_softmax, "SMALL_SIZE", 0)
    logits = np.tile(np.float32([0, 1, 2, 3, 4]), (2, 1))
    logits[0] = -np.inf

    def losses(x):
        if function == "dense":
            return ops.softmax_crossentropy(one_hot([0, 0], 5), x, **options)
        return ops.sparse_softmax_crossentropy([0, 0], x, **options)

    grad, value = gradient(losses, logits)
    assert np.isnan(value).tolist() == [True, False]
    assert np.all(grad[0] == 0)
    assert np.all(grad[1] != 0)


@pytest.mark.filterwarnings("ignore:`targets` should be distributions")
@pytest.mark.parametrize("p", [0.0, 1.0])
def test_focal_loss_of_a_certain_class_has_no_gradient(p):
    logits = np.array([[200.0, 0.0]], "float32")
    grad, value = gradient(
        lambda x: ops.softmax_crossentropy(
            np.array([[p, 0.0]], "float32"), x, focal_gamma=0.5
        ),
        logits,
    )
    assert value.tolist() == [0.0]
    assert grad.tolist() == [[0.0, 0.0]]


def test_nan_logits_give_nan_under_every_option():
    logits = np.array([[np.nan, 0.0, 1.0, 2.0, 3.0]], "float32")
    for options in OPTIONS.values():
        sparse = ops.sparse_softmax_crossentropy([1], logits, **options)
        dense = ops.softmax_crossentropy(one_hot([1], 5), logits, **options)
        assert np.isnan(to_numpy(sparse)).all()
        assert np.isnan(to_numpy(dense)).all()


def test_a_negative_target_on_the_device_is_nan():
    targets = keras.ops.convert_to_tensor(
        np.array([[1.5, -0.5], [1.0, 0.0]], "float32")
    )
    result = ops.softmax_crossentropy(targets, normal(2, 2))
    assert np.isnan(to_numpy(result)).tolist() == [True, False]


def test_targets_that_are_not_a_distribution_are_an_error():
    with pytest.raises(ValueError, match="negative"):
        ops.softmax_crossentropy(np.array([[1.5, -0.5]]), normal(1, 2))


def test_targets_that_do_not_sum_to_one_are_a_warning_at_the_users_line():
    with pytest.warns(UserWarning, match="sum to 1.*SigmoidC") as caught:
        ops.softmax_crossentropy(np.array([[1.0, 1.0]]), normal(1, 2))
    assert caught[0].filename == __file__


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("shape", [(4,), (4, 1)])
def test_ids_for_the_dense_loss_are_an_error_and_no_warning(shape):
    ids = np.array([0, 2, 1, 2]).reshape(shape)
    with pytest.raises(ValueError, match="SparseSoftmaxCrossentropy"):
        ops.softmax_crossentropy(ids, normal(4, 3))


@pytest.mark.parametrize("dense", [False, True])
def test_some_class_weights_are_those_of_all(dense):
    labels, logits = np.array([0, 2, 1, 2]), normal(4, 3)
    function = ops.sparse_softmax_crossentropy
    if dense:
        labels, function = one_hot(labels, 3), ops.softmax_crossentropy
    for some in ({2: 0.25}, {"2": 0.25}):
        np.testing.assert_array_equal(
            to_numpy(function(labels, logits, class_weight=some)),
            to_numpy(function(labels, logits, class_weight=[1, 1, 0.25])),
        )
    with pytest.raises(ValueError, match="`class_weight` weighs class 3"):
        function(labels, logits, class_weight={3: 1.0})


def variables(x):
    yield keras.Variable(x)
    if BACKEND == "tensorflow":
        import tensorflow as tf

        yield tf.Variable(x)


def test_variables_are_logits_along_any_axis():
    logits, labels = normal(2, 3, 4), np.arange(8).reshape(2, 4) % 3
    targets = np.moveaxis(one_hot(labels, 3), -1, 1)
    for x in variables(logits):
        for function, y in (
            (ops.sparse_softmax_crossentropy, labels),
            (ops.softmax_crossentropy, targets),
        ):
            np.testing.assert_array_equal(
                to_numpy(function(y, x, axis=1)),
                to_numpy(function(y, logits, axis=1)),
            )
        np.testing.assert_array_equal(
            to_numpy(ops.sigmoid_crossentropy(targets, x)),
            to_numpy(ops.sigmoid_crossentropy(targets, logits)),
        )


@pytest.mark.skipif(BACKEND == "tensorflow", reason="its Hessians are slow")
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_the_hessian_is_right_where_the_answer_is_sure(gamma):
    rows = [[100, 0, -100], [3, 2, 1], [50, 0, 0], [12, 0, 0], [0, 0, 0]]
    for row in np.array(rows, "float32"):
        p = scipy.special.softmax(row.astype("float64"))
        rest, s = p[1:].sum(), -np.log(p[0])
        # f(s) = (1 − exp(−s))^γ s, by its derivatives.
        first = second = 0.0
        if rest > 0:
            rise = gamma * rest ** (gamma - 1) * p[0]
            first = rise * s + rest**gamma
            second = 2 * rise - rise * s
            second += gamma * (gamma - 1) * rest ** (gamma - 2) * p[0] ** 2 * s
        slope = p - [1, 0, 0]
        bend = np.diag(p) - np.outer(p, p)
        expected = second * np.outer(slope, slope) + first * bend
        for function, y in (
            (ops.sparse_softmax_crossentropy, 0),
            (ops.softmax_crossentropy, np.array([1.0, 0.0, 0.0])),
        ):
            result = hessian(
                lambda x, f=function, y=y: f(y, x, focal_gamma=gamma), row
            )
            np.testing.assert_allclose(result, expected, rtol=1e-3, atol=1e-5)


def test_a_class_of_weight_zero_costs_nothing_even_if_it_is_impossible():
    logits = np.array([[-np.inf, 1.0, 2.0]], "float32")
    weights = [0.0, 1.0, 1.0]
    grad, value = gradient(
        lambda x: ops.sparse_softmax_crossentropy(
            np.array([0]), x, class_weight=weights
        ),
        logits,
    )
    assert value.tolist() == [0]
    assert np.all(grad == 0)


@pytest.mark.skipif(
    BACKEND != "tensorflow", reason="only its sizes are unknown"
)
@pytest.mark.parametrize("jit_compile", [False, True])
def test_sizes_unknown_at_first_are_checked_when_the_data_flows(jit_compile):
    import tensorflow as tf

    def traced(function, *specs):
        return tf.function(
            function,
            jit_compile=jit_compile,
            input_signature=[tf.TensorSpec(*spec) for spec in specs],
        )

    matrix, vector = ((None, None), tf.float32), ((None,), tf.int32)
    dense = traced(ops.softmax_crossentropy, matrix, matrix)
    assert np.isnan(dense(np.eye(3)[:1], normal(4, 3))).all()
    assert not np.isnan(dense(np.eye(3), normal(3, 3))).any()
    assert np.isnan(dense(np.ones((4, 1)), normal(4, 1))).all()
    sigmoid = traced(ops.sigmoid_crossentropy, matrix, matrix)
    assert np.isnan(sigmoid(np.ones((1, 3)), normal(4, 3))).all()
    sparse = traced(ops.sparse_softmax_crossentropy, vector, matrix)
    assert np.isnan(sparse(np.zeros(4, "int32"), normal(4, 1))).all()
    weighted = traced(
        lambda y, x: ops.sparse_softmax_crossentropy(
            y, x, class_weight=[1.0, 5.0]
        ),
        vector,
        matrix,
    )
    result = weighted(np.array([0, 1, 2], "int32"), normal(3, 3)).numpy()
    assert np.isnan(result).tolist() == [False, False, True]


@pytest.mark.parametrize("rows", [0, 1])
def test_empty_and_single_row_batches_are_defined(rows):
    logits = normal(1, 5)[:rows]
    labels = np.array([2])[:rows]
    targets = one_hot(labels, 5)
    for result in (
        ops.sparse_softmax_crossentropy(labels, logits),
        ops.softmax_crossentropy(targets, logits),
        ops.sparse_softmax_crossentropy(labels, logits, label_smoothing=0.1),
    ):
        assert tuple(result.shape) == (rows,)


@pytest.mark.parametrize("run", [lambda f: f, compiled], ids=["eager", "jit"])
def test_only_the_values_of_the_logits_count_and_not_what_made_them(run):
    """Keras on TensorFlow looks through a softmax at what it was given."""
    logits, labels = normal(4, 3), np.array([0, 1, 2, 0])

    def behind_a_softmax(x):
        p = keras.activations.softmax(x)
        return ops.sparse_softmax_crossentropy(labels, p)

    result = to_numpy(
        run(behind_a_softmax)(keras.ops.convert_to_tensor(logits))
    )
    values = scipy.special.softmax(logits, axis=-1)
    expected = ops.sparse_softmax_crossentropy(labels, values)
    np.testing.assert_allclose(result, to_numpy(expected), rtol=1e-5)


def test_one_class_is_an_error_that_names_the_cure():
    for function in (ops.softmax_crossentropy, ops.sparse_softmax_crossentropy):
        with pytest.raises(ValueError, match=r"always 0.*SigmoidCrossentropy"):
            function(np.zeros((3, 1)), np.zeros((3, 1), "float32"))


def test_integer_logits_are_an_error():
    for function in (
        ops.softmax_crossentropy,
        ops.sparse_softmax_crossentropy,
        ops.sigmoid_crossentropy,
    ):
        with pytest.raises(ValueError, match=r"floating point.*int"):
            function(np.zeros((2, 3)), np.zeros((2, 3), "int32"))


@pytest.mark.parametrize(
    ("function", "shape", "hint"),
    [
        (ops.softmax_crossentropy, (4,), "SparseSoftmaxCrossentropy"),
        (ops.softmax_crossentropy, (1, 3), "same shape"),
        (ops.softmax_crossentropy, (4, 1), "SparseSoftmaxCrossentropy"),
        (ops.sparse_softmax_crossentropy, (4, 3), "one-hot"),
        (ops.sparse_softmax_crossentropy, (3,), "without the axis"),
        (ops.sparse_softmax_crossentropy, (1,), "without the axis"),
        (ops.sigmoid_crossentropy, (4,), "same shape"),
        (ops.sigmoid_crossentropy, (4, 1), "same shape"),
    ],
)
def test_shapes_that_do_not_fit_are_an_error(function, shape, hint):
    with pytest.raises(ValueError, match=hint):
        function(np.zeros(shape, "int32"), normal(4, 3))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("label_smoothing", 1.0),
        ("label_smoothing", -0.1),
        ("focal_gamma", -1.0),
        ("focal_gamma", "2"),
        ("z_loss", float("nan")),
        ("class_weight", [1.0, 2.0]),
        ("class_weight", [1.0, -2.0, 1.0]),
        ("class_weight", 2.0),
        ("axis", 2),
        ("axis", 0.5),
        ("ignore_class", 1.5),
        ("ignore_class", 2**31),
    ],
)
def test_options_out_of_range_are_an_error_that_names_them(option, value):
    with pytest.raises(ValueError, match=f"`{option}`"):
        ops.sparse_softmax_crossentropy([0, 1], normal(2, 3), **{option: value})


@settings(deadline=None, max_examples=20)
@given(
    st.lists(st.floats(-50, 50, width=32), min_size=3, max_size=3),
    st.floats(-100, 100, width=32),
)
def test_a_constant_added_to_all_logits_changes_nothing(row, shift):
    logits = np.array([row], "float32")
    shifted = logits + np.float32(shift)
    # The shift rounds the logits themselves, by up to 1 ulp of 150.
    plain = to_numpy(ops.sparse_softmax_crossentropy([1], logits))
    moved = to_numpy(ops.sparse_softmax_crossentropy([1], shifted))
    np.testing.assert_allclose(plain, moved, atol=5e-5)


# The backend's own functions


@pytest.mark.skipif(BACKEND != "tensorflow", reason="TensorFlow's functions")
def test_agrees_with_tensorflow():
    import tensorflow as tf

    logits, labels = normal(8, 5, scale=3.0), np.arange(8) % 5
    targets = scipy.special.softmax(normal(8, 5, seed=2), axis=1)
    pairs = [
        (
            ops.sparse_softmax_crossentropy(labels, logits),
            tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits),
        ),
        (
            ops.softmax_crossentropy(targets, logits),
            tf.nn.softmax_cross_entropy_with_logits(targets, logits),
        ),
        (
            ops.sigmoid_crossentropy(targets, logits),
            tf.nn.sigmoid_cross_entropy_with_logits(targets, logits),
        ),
        (
            ops.sigmoid_crossentropy(targets, logits, pos_weight=2.0),
            tf.nn.weighted_cross_entropy_with_logits(targets, logits, 2.0),
        ),
    ]
    for ours, theirs in pairs:
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.device
@pytest.mark.skipif(BACKEND != "torch", reason="PyTorch's functions")
@pytest.mark.parametrize("axis", [1, 2])
def test_agrees_with_torch(axis):
    import torch
    from torch.nn import functional

    # By Keras, so that theirs are on the device of ours.
    logits = keras.ops.convert_to_tensor(normal(4, 5, 3, scale=3.0))
    labels = keras.ops.convert_to_tensor(np.arange(12).reshape(4, 3) % 5)
    targets = keras.ops.convert_to_tensor(normal(4, 5, 3, seed=2))
    targets = torch.softmax(targets, 1)
    weight = keras.ops.convert_to_tensor([1.0, 2.0, 0.5, 3.0, 1.0])

    def moved(x):
        return x.moveaxis(1, axis)

    pairs = [
        (
            ops.sparse_softmax_crossentropy(labels, moved(logits), axis=axis),
            functional.cross_entropy(logits, labels, reduction="none"),
        ),
        (
            ops.sparse_softmax_crossentropy(
                labels,
                moved(logits),
                axis=axis,
                class_weight=weight.tolist(),
                ignore_class=3,
            ),
            functional.cross_entropy(
                logits, labels, weight, reduction="none", ignore_index=3
            ),
        ),
        (
            ops.softmax_crossentropy(
                moved(targets), moved(logits), axis=axis, label_smoothing=0.1
            ),
            functional.cross_entropy(
                logits, targets, reduction="none", label_smoothing=0.1
            ),
        ),
        (
            ops.sigmoid_crossentropy(targets, logits, pos_weight=2.0),
            functional.binary_cross_entropy_with_logits(
                logits, targets, reduction="none", pos_weight=2 * weight[0]
            ),
        ),
    ]
    assert_all_close(*zip(*pairs, strict=True))


@pytest.mark.skipif(BACKEND != "jax", reason="optax")
def test_agrees_with_optax():
    import optax

    logits, labels = normal(8, 5, scale=3.0), np.arange(8) % 5
    targets = scipy.special.softmax(normal(8, 5, seed=2), axis=1)
    hard = one_hot(labels, 5)
    pairs = [
        (
            ops.sparse_softmax_crossentropy(labels, logits),
            optax.softmax_cross_entropy_with_integer_labels(logits, labels),
        ),
        (
            ops.softmax_crossentropy(targets, logits),
            optax.softmax_cross_entropy(logits, targets),
        ),
        (
            ops.sigmoid_crossentropy(targets, logits),
            optax.sigmoid_binary_cross_entropy(logits, targets),
        ),
        (
            ops.sigmoid_crossentropy(hard, logits, focal_gamma=2.0),
            optax.sigmoid_focal_loss(logits, hard, gamma=2.0),
        ),
    ]
    for ours, theirs in pairs:
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
