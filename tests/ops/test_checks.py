import keras
import numpy as np
import pytest

from keras_xent.ops import checks


def test_class_weights_of_some_classes_leave_1_to_the_others():
    weights = {2: 0.5, np.int64(0): 3}
    assert checks.class_weights(weights, 4).tolist() == [3, 1, 0.5, 1]
    assert checks.class_weights({"2": 0.5, "0": 3}, 4).tolist() == [
        3,
        1,
        0.5,
        1,
    ]
    assert checks.class_weights(weights) == {2: 0.5, 0: 3.0}
    assert checks.class_weights({}, 2).tolist() == [1, 1]


def test_class_weights_of_all_classes_are_a_vector():
    assert checks.class_weights([1, 0.5], 2).tolist() == [1, 0.5]
    assert checks.class_weights((1, 0.5)).tolist() == [1, 0.5]
    assert checks.class_weights(None, 3) is None


@pytest.mark.parametrize(
    "weights",
    [
        {3: 1.0},
        {-1: 1.0},
        {0.5: 1.0},
        {"cat": 1.0},
        {0: -1.0},
        {0: np.nan},
        {0: None},
        [1.0, 2.0],
        "balanced",
    ],
    ids=str,
)
def test_class_weights_that_are_none(weights):
    with pytest.raises(ValueError, match="`class_weight`"):
        checks.class_weights(weights, 3)


@pytest.mark.parametrize("value", [0, 6, 2.0, True, "3", None])
def test_a_whole_number_in_a_range(value):
    for good in (1, 5, np.int64(3)):
        checks.whole("n", good, 1, 5)
    with pytest.raises(ValueError, match=r"whole number from 1 to 5\. Rec"):
        checks.whole("n", value, 1, 5)


def test_a_choice_names_what_there_is():
    checks.choice("norm", "l1", ("l1", "l2"))
    with pytest.raises(ValueError, match=r"'l1', 'l2'\. Received: norm='l3'"):
        checks.choice("norm", "l3", ("l1", "l2"))


@pytest.mark.parametrize("value", [0, -1.0, 1e-60, np.nan, np.inf, "1", None])
def test_what_is_not_above_0_is_an_error_that_names_it(value):
    with pytest.raises(ValueError, match=r"`alpha` must be .*Received: alpha="):
        checks.positive("alpha", value)


@pytest.mark.parametrize("value", [1, 1e-30, np.float32(2)])
def test_a_number_above_0_is_positive(value):
    checks.positive("alpha", value)


def test_some_rows_are_none_or_a_pair_within_all():
    assert checks.row_range(None, 5) is None
    assert checks.row_range([np.int64(2), 3], 5) == (2, 3)
    assert checks.row_range((9, 3), None) == (9, 3)
    start = keras.ops.convert_to_tensor(9)
    assert checks.row_range((start, 3), 5)[0] is start
    for wrong in ((3, 3), (-1, 2), (0, -1), 3, (1,), (0, 1, 2)):
        with pytest.raises(ValueError, match=r"`rows` must be .* the 5 rows"):
            checks.row_range(wrong, 5)
    with pytest.raises(ValueError, match=r"stay within the rows\. Received"):
        checks.row_range((-1, 2), None)


NO_NUMBERS = {
    "text": np.array(["a", "b"]),
    "a word": "a",
    "None": None,
    "objects": np.array([None, 1.0]),
    "complex": np.array([1j, 2.0]),
    "a ragged list": [[1.0], [2.0, 3.0]],
    "a dict": {},
}


@pytest.mark.parametrize("x", NO_NUMBERS.values(), ids=NO_NUMBERS)
@pytest.mark.parametrize("check", [checks.tensor, checks.array])
def test_what_is_no_array_of_numbers_is_an_error_that_names_it(check, x):
    with pytest.raises(ValueError, match=r"`labels` must be real numbers.*Rec"):
        check("labels", x)


def test_numbers_are_a_tensor_and_an_array_keeps_its_shape():
    for x in ([1, 2], (1.0, 2.0), np.array([True, False])):
        assert keras.ops.is_tensor(checks.tensor("x", x))
        assert checks.array("x", x).shape == (2,)
    tensor = keras.ops.convert_to_tensor([1.0])
    assert checks.array("x", tensor) is tensor
    low = keras.ops.cast(tensor, "bfloat16")
    assert checks.tensor("x", low).dtype == low.dtype


def test_a_flag_is_true_or_false_and_nothing_like_it():
    assert checks.flag("balanced", True) is True
    assert checks.flag("balanced", np.False_) is False
    for value in (1, 0.0, "no", None, [], np.array([True, False])):
        with pytest.raises(ValueError, match=r"`balanced` must be True or Fal"):
            checks.flag("balanced", value)


@pytest.mark.parametrize("value", [10**30, 10**400, 1e300, 1j, np.inf, [1.0]])
def test_a_number_is_one_that_tensors_hold(value):
    with pytest.raises(ValueError, match=r"`margin` must be a finite number"):
        checks.number("margin", value, -np.inf)


def test_a_whole_number_fits_into_int32():
    with pytest.raises(ValueError, match=r"from 1 to 2147483647\. Received"):
        checks.whole("block_size", 2**31, 1)


@pytest.mark.parametrize("value", [[], {}, np.array(["l1"]), b"l1", 1])
def test_a_choice_is_a_name(value):
    with pytest.raises(ValueError, match="`norm` must be one of 'l1'"):
        checks.choice("norm", value, {"l1": 1})


@pytest.mark.parametrize("weights", [["1", "2"], [1e300, 1.0], [[1.0], [2, 3]]])
def test_weights_of_classes_are_numbers_of_float32(weights):
    with pytest.raises(ValueError, match="`class_weight` must be a vector"):
        checks.class_weights(weights)


def test_ids_to_ignore_and_thresholds_are_no_ragged_lists():
    for check in (lambda x: checks.id_tuple("id", x), checks.threshold):
        with pytest.raises(ValueError, match="Received"):
            check([[1], [2, 3]])


def test_rows_are_whole_numbers_or_tensors():
    for wrong in ((0.5, 1.0), ("0", 1), (True, 2), (None, 1)):
        with pytest.raises(ValueError, match="`rows` must be"):
            checks.row_range(wrong, 5)


@pytest.mark.parametrize("value", [-(2**31), 2**31 - 1])
def test_the_first_and_the_last_id_of_int32_are_ids(value):
    checks.int32_range(np.array([value]))
    assert checks.id_tuple("ignore_class", 2**31 - 1) == (2**31 - 1,)


@pytest.mark.parametrize("value", [-(2**31) - 1, 2**31])
def test_an_id_beyond_int32_is_an_error(value):
    with pytest.raises(ValueError, match="fit into int32"):
        checks.int32_range(np.array([0, value]))
    with pytest.raises(ValueError, match="fit into int32"):
        checks.id_tuple("ignore_class", [0, value])


@pytest.mark.parametrize(
    "value", [3, -1, (), [0, -100], np.array([2, 1]), None]
)
def test_class_ids_to_ignore_are_one_several_or_none(value):
    expected = () if value is None else np.ravel(value).tolist()
    assert checks.id_tuple("ignore_class", value) == tuple(expected)


@pytest.mark.parametrize("value", [0.5, [[1]], "1"])
def test_what_is_no_class_id_cannot_be_ignored(value):
    with pytest.raises(ValueError, match="`ignore_class` must be an integer"):
        checks.id_tuple("ignore_class", value)


@pytest.mark.parametrize("labels", [[-1], [3], [4], [0, -1], [1.5]])
def test_a_label_that_is_no_class_is_an_error_unless_it_is_ignored(labels):
    checks.label_range([0, 1, 2], 3)
    checks.label_range([1.0, 2.0], 3)
    with pytest.raises(ValueError, match="`labels` must"):
        checks.label_range(labels, 3)
    if labels != [1.5]:
        checks.label_range(labels, 3, ignored=(-1, 3, 4))
        checks.label_range(labels, None)


def test_a_label_among_several_that_are_ignored_may_be_wrong():
    with pytest.raises(ValueError, match="Received the label 7"):
        checks.label_range([0, -1, 7], 3, ignored=(-1, 5))


@pytest.mark.parametrize("labels", [["cat"], np.array([None])])
def test_labels_are_numbers(labels):
    with pytest.raises(ValueError, match="Labels must be numbers"):
        checks.int32_range(labels)


def test_a_float_that_loses_digits_is_no_class_id():
    checks.exact_ids(np.array([2.0**24, np.nan]))
    with pytest.raises(ValueError, match="16777217"):
        checks.exact_ids(np.array([2.0**24 + 1]))


@pytest.mark.parametrize("low", [0, -np.inf])
def test_a_number_may_have_no_highest_value(low):
    checks.number("beta", 0, low)
    checks.number("beta", 1e30, low)
    for wrong in (np.nan, np.inf, True, "1", None):
        with pytest.raises(ValueError, match="`beta` must be a finite number"):
            checks.number("beta", wrong, low)


def test_a_range_of_numbers_has_its_ends_or_all_but_the_last():
    for good in (0, 0.5, 1):
        checks.number("share", good, 0, 1)
    for wrong in (-0.1, 1.1):
        with pytest.raises(ValueError, match=r"finite number in \[0, 1\]\."):
            checks.number("share", wrong, 0, 1)
    checks.number("share", 0.9, 0, 1, high_open=True)
    with pytest.raises(ValueError, match=r"finite number in \[0, 1\)\."):
        checks.number("share", 1, 0, 1, high_open=True)


def test_a_number_without_bounds_is_whole_or_an_error():
    checks.whole("n", -(10**9))
    checks.whole("n", 0, 0)
    checks.whole("n", 7, high=7)
    with pytest.raises(ValueError, match=r"whole number from 0\. Rec"):
        checks.whole("n", -1, 0)
    with pytest.raises(ValueError, match=r"whole number to 7\. Rec"):
        checks.whole("n", 8, high=7)


@pytest.mark.parametrize("axis", [-3, -1, 0, 2])
def test_an_axis_is_counted_from_the_front(axis):
    assert checks.axis(axis, 3) == range(3)[axis]


@pytest.mark.parametrize("axis", [-4, 3, 1.0, True, None])
def test_an_axis_that_there_is_not(axis):
    with pytest.raises(ValueError, match=r"`axis` must be .* from -3 to 2"):
        checks.axis(axis, 3)


@pytest.mark.parametrize(
    ("dtype", "widened"),
    [("float16", "float32"), ("float32", "float32"), ("float64", "float64")],
)
@pytest.mark.float64
def test_logits_are_float32_at_least_unless_they_are_left(dtype, widened):
    x = np.zeros(2, dtype)
    logits = checks.logits(x)
    assert keras.backend.standardize_dtype(logits.dtype) == widened
    left = checks.logits(x, widen=False)
    assert keras.backend.standardize_dtype(left.dtype) == dtype


@pytest.mark.float64
@pytest.mark.parametrize("other", ["float32", "float64"])
def test_two_are_compared_in_the_wider_of_their_dtypes(other):
    pair = (np.zeros(1, "float32"), np.zeros(1, other))
    for given in (pair, pair[::-1]):
        for x in checks.one_dtype(*map(keras.ops.convert_to_tensor, given)):
            assert keras.backend.standardize_dtype(x.dtype) == other


def test_a_softmax_has_two_classes_at_least():
    assert checks.classes((3, 2), -1) == 2
    assert checks.classes((3, None), -1) is None
    for count in (0, 1):
        with pytest.raises(ValueError, match=rf"that is {count} class"):
            checks.classes((3, count), -1)


def test_values_are_looked_at_in_host_memory_only():
    assert checks.host_array([1, 2.5]).tolist() == [1, 2.5]
    assert checks.host_array(np.array(["a"])) is None
    assert checks.host_array([[1], [1, 2]]) is None
    assert checks.host_array(None) is None
    tensor = keras.ops.ones(2)
    assert checks.host_array(tensor) is None
    assert checks.host_array([tensor, 1]) is None


@pytest.mark.parametrize("value", [1.0, np.nan])
def test_a_value_that_may_be_nan_is_told_from_others(value):
    x = np.array([0.0, 1.0, np.nan])
    expected = ~np.isnan(x) if np.isnan(value) else x != value
    np.testing.assert_array_equal(checks.differs(x, value), expected)
