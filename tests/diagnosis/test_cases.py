"""How the tests run the cures of a report."""

import keras
import numpy as np
import pytest
from keras import layers

from tests.diagnosis.cases import (
    FLAGS,
    IDS,
    KERAS_SPARSE,
    ONE_HOT,
    SPARSE,
    flags,
    ids,
    look_at,
    run_cure,
    stack,
)


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(lambda: ids(IDS + 1), id="new labels"),
        pytest.param(
            lambda: ids(np.where(IDS == 2, -1, IDS), KERAS_SPARSE, units=2),
            id="a new loss",
        ),
        pytest.param(lambda: ids(ONE_HOT), id="ids of one-hot rows"),
        pytest.param(lambda: flags(2 * FLAGS - 1), id="flags"),
    ],
)
def test_a_cure_repairs_the_model(case):
    model, x, y, _ = case()
    report = look_at(model, x, y)
    names = {"model": model, "x": x, "y": y}
    assert len(report.findings) == 1
    assert run_cure(report, names).findings == ()
    assert names["model"].optimizer.iterations > 0


def test_a_cure_that_changes_nothing_is_seen():
    model, x, y, _ = stack(
        layers.Dense(3, activation="softmax"), loss=SPARSE, y=IDS
    )
    report = look_at(model, x, y)
    names = {"model": model, "x": x, "y": y}
    useless = type("Report", (), {"findings": [Nothing]})
    again = run_cure(useless, names)
    assert [f.code for f in again.findings] == [report.findings[0].code]


class Nothing:
    cure = "keras.layers.Dense(3)  # is put nowhere"


def test_a_cure_that_does_not_run_raises():
    model, x, y, _ = ids(IDS)
    broken = type("Report", (), {"findings": [type("F", (), {"cure": "z(x)"})]})
    with pytest.raises(NameError):
        run_cure(broken, {"model": model, "x": x, "y": y})


def test_a_model_of_the_cure_is_compiled():
    model, x, y, _ = ids(IDS)
    cure = "model = keras.Sequential([keras.Input((4,)), model])"
    report = type("Report", (), {"findings": [type("F", (), {"cure": cure})]})
    names = {"model": model, "x": x, "y": y}
    assert run_cure(report, names, epochs=1).findings == ()
    assert isinstance(names["model"].optimizer, keras.optimizers.SGD)
    assert np.all(names["y"] == IDS)
