import json

import keras
import numpy as np
import pytest

from keras_xent import losses, ops
from tests.testing import normal, to_numpy, with_mask

PARTNER_LOSSES = {
    "triplet": losses.TripletHinge(1.0),
    "semi_hard": losses.TripletHinge(1.0, mining="semi_hard"),
    "all": losses.TripletHinge(1.0, mining="all"),
    "soft": losses.TripletHinge(1.0, mining="all", softness=0.5),
    "multi_similarity": losses.MultiSimilarity(),
    "prototypes": losses.PrototypicalCrossentropy(),
}
each_partner_loss = pytest.mark.parametrize("name", PARTNER_LOSSES)
each_with_a_distance = pytest.mark.parametrize(
    "cls", [losses.PairHinge, losses.TripletHinge]
)


@keras.saving.register_keras_serializable(package="tests")
def manhattan(x):
    return keras.ops.sum(keras.ops.abs(x[:, None] - x[None]), axis=-1)


def number(tensor):
    return float(to_numpy(tensor))


@each_with_a_distance
def test_a_registered_callable_is_saved_by_its_name(cls):
    loss = cls(1.0, distance=manhattan, softness=0.0)
    labels, x = np.array([0, 1, 0, 1]), normal(4, 3)
    config = json.loads(json.dumps(loss.get_config()))
    again = cls.from_config(config)
    assert again.distance is manhattan
    assert again.get_config() == loss.get_config()
    saved = json.loads(json.dumps(keras.saving.serialize_keras_object(loss)))
    again = keras.saving.deserialize_keras_object(saved)
    assert number(again(labels, x)) == number(loss(labels, x))
    assert number(loss(labels, x)) != number(cls(1.0, softness=0.0)(labels, x))


@each_with_a_distance
def test_a_function_of_ours_is_saved_by_its_own_name(cls):
    loss = cls(1.0, distance=ops.pairwise_cosine)
    assert loss.get_config()["distance"] == "cosine"


@each_with_a_distance
def test_an_unknown_distance_is_an_error_at_once(cls):
    with pytest.raises(ValueError, match="`distance` must be one of"):
        cls(1.0, distance="manhattan")


@each_partner_loss
def test_a_row_without_a_partner_does_not_count_in_the_mean(name):
    """Class 3 has one row: it is there for the others, and no loss itself."""
    labels, x = np.array([0, 1, 0, 3, 1]), normal(5, 3)
    loss = PARTNER_LOSSES[name]
    rows = to_numpy(loss.call(labels, keras.ops.convert_to_tensor(x)))
    assert rows[3] == 0
    assert number(loss(labels, x)) == pytest.approx(rows.sum() / 4, rel=1e-6)
    column = number(loss(labels[:, None], x))
    assert column == pytest.approx(rows.sum() / 4, rel=1e-6)


@each_partner_loss
@pytest.mark.parametrize("how", ["mask", "weight"])
def test_a_row_whose_partner_is_absent_does_not_count_in_the_mean(name, how):
    labels, x = np.array([0, 1, 0, 1, 0]), normal(5, 3)
    keep = np.array([True, True, True, False, True])
    loss = PARTNER_LOSSES[name]
    rows = to_numpy(
        loss.call(labels[keep], keras.ops.convert_to_tensor(x[keep]))
    )
    assert rows[1] == 0
    counted = 3
    if how == "mask":
        result = loss(labels, with_mask(x, keep))
    else:
        result = loss(labels, x, keep.astype("float32"))
        counted += 1  # A row of weight 0 does, as in all of Keras.
    assert number(result) == pytest.approx(rows.sum() / counted, rel=1e-5)


@each_partner_loss
def test_a_nan_label_is_seen(name):
    labels = keras.ops.convert_to_tensor(np.array([0.0, 0.0, 1.0, np.nan]))
    assert np.isnan(number(PARTNER_LOSSES[name](labels, normal(4, 3))))


@each_partner_loss
def test_weights_scale_rows(name):
    labels, x = np.array([0, 1, 0, 1, 0]), normal(5, 3)
    weight = np.array([1, 2, 3, 0.5, 1], "float32")
    loss = PARTNER_LOSSES[name]
    rows = to_numpy(loss.call(labels, keras.ops.convert_to_tensor(x)))
    expected = (weight * rows).mean()
    assert number(loss(labels, x, weight)) == pytest.approx(expected, rel=1e-5)


@each_partner_loss
def test_sequences_are_an_error(name):
    with pytest.raises(ValueError, match="one class id per row"):
        PARTNER_LOSSES[name](np.zeros((2, 3)), normal(2, 3, 4))


@pytest.mark.parametrize(
    ("cls", "kwargs", "name"),
    [
        (losses.PairHinge, {"margin": None}, "margin"),
        (losses.TripletHinge, {"margin": None}, "margin"),
        (losses.TripletHinge, {"margin": 1.0, "mining": "no"}, "mining"),
        (losses.TripletHinge, {"margin": 1.0, "softness": -1}, "softness"),
        (losses.MultiSimilarity, {"alpha": 0}, "alpha"),
        (losses.MultiSimilarity, {"epsilon": "0.1"}, "epsilon"),
        (losses.PrototypicalCrossentropy, {"distance": "l2"}, "distance"),
        (losses.PrototypicalCrossentropy, {"temperature": 0}, "temperature"),
    ],
)
def test_options_out_of_range_are_an_error_at_once(cls, kwargs, name):
    with pytest.raises(ValueError, match=f"`{name}`"):
        cls(**kwargs)


EVERY_LOSS = PARTNER_LOSSES | {
    "pair_hinge": losses.PairHinge(1.0),
    "symmetric_kl": losses.SymmetricKLHinge(2.0),
}


@pytest.mark.parametrize("name", EVERY_LOSS)
@pytest.mark.parametrize("weighted", [False, True])
def test_each_view_is_a_row_of_its_example(name, weighted):
    labels, x = np.array([0, 1, 0, 2]), normal(4, 2, 3)
    weight = np.array([1, 0.5, 2, 0], "float32") if weighted else None
    # All rows count: those of class 2 are partners of each other.
    loss = EVERY_LOSS[name]
    rows = loss.row_losses(
        np.repeat(labels, 2),
        keras.ops.convert_to_tensor(x.reshape(8, 3)),
        None if weight is None else np.repeat(weight, 2),
    )
    rows = to_numpy(rows).reshape(4, 2).mean(axis=1)
    expected = rows.mean() if weight is None else (rows * weight).sum() / 4
    assert number(loss(labels, x, weight)) == pytest.approx(expected, rel=1e-5)
    masked = loss(labels, with_mask(x, np.array([True, True, True, False])))
    expected = loss(labels[:3], x[:3])
    assert number(masked) == pytest.approx(number(expected), rel=1e-5)
