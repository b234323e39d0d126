"""Datasets, as `fit` takes them."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_xent import diagnose
from tests.diagnosis.cases import SPARSE, stack
from tests.testing import normal

MANY = normal(256, 4)
CLASSES = np.arange(256) % 3


class Batches(keras.utils.PyDataset):
    def __init__(self, *arrays):
        super().__init__()
        self.arrays = arrays

    def __len__(self):
        return len(self.arrays[0]) // 16

    def __getitem__(self, index):
        rows = slice(16 * index, 16 * index + 16)
        return tuple(each[rows] for each in self.arrays)


def generator(*arrays):
    batches = Batches(*arrays)
    return (batches[index] for index in range(len(batches)))


def loader(*arrays):
    data = pytest.importorskip("torch.utils.data")
    torch = pytest.importorskip("torch")
    tensors = [torch.from_numpy(np.asarray(each)) for each in arrays]
    return data.DataLoader(data.TensorDataset(*tensors), batch_size=16)


def tf_data(*arrays):
    tf = pytest.importorskip("tensorflow")
    return tf.data.Dataset.from_tensor_slices(arrays).batch(16)


every_kind = pytest.mark.parametrize(
    "kind", [Batches, generator, loader, tf_data]
)


def model():
    return stack(layers.Dense(3), loss=SPARSE)[0]


@every_kind
def test_a_healthy_dataset_gets_no_finding(kind):
    report = diagnose(model(), kind(MANY, CLASSES))
    assert report.findings == ()
    assert report.rows == 32


@every_kind
def test_wrong_labels_of_a_dataset_are_found(kind):
    report = diagnose(model(), kind(MANY, CLASSES + 1))
    assert [each.code for each in report.findings] == ["labels-out-of-range"]


@every_kind
def test_the_weights_of_a_dataset_count(kind):
    report = diagnose(model(), kind(MANY, CLASSES, 0.0 * MANY[:, 0]))
    assert [each.code for each in report.findings] == ["all-masked"]


@pytest.mark.parametrize("kind", [Batches, loader, tf_data])
def test_labels_and_rows_beyond_the_first_batch_are_looked_at(kind):
    y = np.where(np.arange(256) == 200, 3, CLASSES)
    report = diagnose(model(), kind(MANY, y))
    assert [each.code for each in report.findings] == ["labels-out-of-range"]
    assert report.labels == 256
    x = np.where(np.arange(256)[:, None] == 200, np.nan, MANY)
    (found,) = diagnose(model(), kind(x.astype("float32"), CLASSES)).findings
    assert found.code == "nonfinite-gradient"
    assert found.evidence["rows"] == [200]


def test_a_generator_gives_no_more_than_is_needed():
    batches = generator(MANY, CLASSES)
    report = diagnose(model(), batches)
    assert len(list(batches)) == 16 - 2
    assert "missing-class" in report.unchecked


def test_all_labels_are_known_where_the_dataset_ends():
    report = diagnose(model(), Batches(MANY, 0 * CLASSES))
    assert [each.code for each in report.findings] == ["constant-targets"]


def test_a_dataset_without_end_is_left_in_time():
    class Endless(Batches):
        @property
        def num_batches(self):
            return None

        def __getitem__(self, index):
            return super().__getitem__(index % 16)

    report = diagnose(model(), Endless(MANY, 0 * CLASSES))
    assert report.findings == ()
    assert report.labels == 32 * 16


def test_what_cannot_be_taken_is_said():
    one = model()
    with pytest.raises(ValueError, match="Leave out y"):
        diagnose(one, Batches(MANY, CLASSES), CLASSES)
    with pytest.raises(ValueError, match="needs the labels"):
        diagnose(one, Batches(MANY))
    with pytest.raises(ValueError, match="holds no batch"):
        diagnose(one, iter([]))
    with pytest.raises(ValueError, match="a batch size"):
        diagnose(one, iter([(MANY[0], CLASSES[0])]))
    with pytest.raises(ValueError, match="of classes"):
        diagnose(one, MANY, CLASSES, {0: 1.0, 1: 2.0, 2: 1.0})
