"""Only metrics of one class and configuration are merged."""

import pytest

from keras_xent import metrics


@pytest.mark.parametrize(
    "other",
    [
        metrics.AveragePrecision(similarity=True),
        metrics.MatchAUC(similarity=True, resolution=3),
    ],
)
def test_another_class_or_configuration_is_an_error(other):
    with pytest.raises(ValueError, match="configured alike"):
        metrics.MatchAUC(similarity=True).merge_state([other])


def test_the_name_does_not_matter():
    one, two = (
        metrics.MatchAUC(similarity=False, name=name) for name in ("one", "two")
    )
    two.update_state([1, 0], [0.1, 0.9])
    one.merge_state(iter([two]))
    assert float(one.result()) == 1.0
