import numpy as np
import pytest

from keras_xent import losses
from tests.testing import normal, to_numpy


def number(tensor):
    return float(to_numpy(tensor))


def test_distances_may_be_flat_or_a_column():
    distance, match = np.abs(normal(5)), np.array([1, 0, 0, 1, 0])
    loss = losses.SoftplusHinge(margin=1.0)
    expected = number(loss(match, distance))
    for y in (match, match[:, None], match.astype(bool)):
        for d in (distance, distance[:, None]):
            assert number(loss(y, d)) == expected


def test_embeddings_in_place_of_distances_are_an_error():
    with pytest.raises(ValueError, match="SymmetricKLHinge"):
        losses.SoftplusHinge(1.0)(np.array([1, 0]), normal(2, 8))


def test_given_pairs_may_be_those_of_a_batch():
    """Contrastive loss of all pairs, and of the same pairs one by one."""
    labels, x = np.array([0, 0, 1, 1]), normal(4, 3)
    first, second = np.triu_indices(4, 1)
    distance = np.linalg.norm(x[first] - x[second], axis=1)
    match = labels[first] == labels[second]
    options = {"margin": 2.0, "softness": 0.0, "squared": True}
    given = losses.SoftplusHinge(**options)(match, distance)
    batch = losses.PairHinge(**options, balanced=False)(labels, x)
    assert number(batch) == pytest.approx(number(given), rel=1e-5)


def test_a_pair_weighs_the_product_of_its_rows():
    """Two rows that match: doubling one weight doubles the pair."""
    logits, labels = normal(2, 4), np.array([3, 3])
    loss = losses.SymmetricKLHinge(margin=1.0, reduction="sum")
    once = number(loss(labels, logits, np.array([1.0, 1.0])))
    mean = losses.SymmetricKLHinge(
        margin=1.0, reduction="mean_with_sample_weight"
    )
    # The only pair: its weighted mean does not depend on its weight.
    assert number(mean(labels, logits, np.array([2.0, 3.0]))) == pytest.approx(
        number(mean(labels, logits)), rel=1e-6
    )
    assert once == pytest.approx(2 * number(mean(labels, logits)), rel=1e-6)


def test_a_weight_moves_the_mean_towards_its_pairs():
    logits = np.array([[4, 0], [0, 4], [0, 4]], "float32")
    labels = np.array([0, 0, 0])
    loss = losses.SymmetricKLHinge(1.0, reduction="mean_with_sample_weight")
    # Three pairs, of which (1, 2) costs nothing and the others d / 2 each.
    even = number(loss(labels, logits))
    # Now the others weigh half: (½ + ½) d of ½ + ½ + 1, not 2 d of 3.
    less = number(loss(labels, logits, np.array([0.5, 1.0, 1.0])))
    assert less / even == pytest.approx((1 / 2) / (2 / 3), rel=1e-5)


@pytest.mark.parametrize(
    "cls", [losses.SoftplusHinge, losses.SymmetricKLHinge, losses.PairHinge]
)
def test_options_out_of_range_are_an_error_at_once(cls):
    with pytest.raises(ValueError, match="`margin`"):
        cls(margin=None)
    with pytest.raises(ValueError, match="`softness`"):
        cls(margin=1.0, softness=-0.1)
