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
