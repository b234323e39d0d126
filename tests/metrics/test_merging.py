"""Only metrics of one class and configuration are merged."""

import re

import pytest

from keras_xent import metrics
from keras_xent.metrics.joint_histogram import JointHistogram
from keras_xent.metrics.pair_buffer import PairBuffer


@pytest.mark.parametrize(
    ("cls", "one", "other"),
    [
        (metrics.MatchAUC, {"similarity": True}, {"similarity": False}),
        (metrics.ScoreHistogram, {}, {"threshold": 0.5}),
        (metrics.ExpectedCalibrationError, {"norm": "l1"}, {"norm": "max"}),
        (metrics.ReliabilityDiagram, {"bins": 5}, {"bins": 6}),
        (metrics.BrierScore, {}, {"from_logits": False}),
        (metrics.Perplexity, {}, {"ignore_class": [0]}),
        (metrics.SpearmanCorrelation, {}, {"capacity": 8}),
        (JointHistogram, {"resolution": 0}, {"resolution": 1}),
        (PairBuffer, {"capacity": 2}, {"capacity": 3}),
    ],
)
def test_another_configuration_is_an_error(cls, one, other):
    key, value = next(iter(other.items()))
    message = rf"configured alike.*Received.*{key}={re.escape(repr(value))}"
    with pytest.raises(ValueError, match=message):
        cls(**one).merge_state([cls(**other)])


def test_the_name_does_not_matter():
    one, two = (
        metrics.MatchAUC(similarity=False, name=name) for name in ("one", "two")
    )
    two.update_state([1, 0], [0.1, 0.9])
    one.merge_state(iter([two]))
    assert float(one.result()) == 1.0
