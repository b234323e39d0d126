"""A head's note lies on one tensor."""

import keras
import numpy as np
import pytest

from keras_xent import _keras, heads, layers
from tests.testing import normal, only_on


def tensor():
    return keras.ops.convert_to_tensor(np.ones(3, "float32"))


def test_a_note_belongs_to_the_tensor_and_not_to_its_value():
    noted, same = tensor(), tensor()
    note = heads.Note("head", {}, "features")
    heads.leave_note(noted, note)
    assert heads.read_note(noted) is note
    assert heads.read_note(same) is None
    assert heads.read_note(noted + 0) is None


def test_two_tensors_have_two_notes():
    notes = [heads.Note("first", {}), heads.Note("second", {})]
    tensors = [tensor(), tensor()]
    for each, note in zip(tensors, notes, strict=True):
        heads.leave_note(each, note)
    assert [heads.read_note(each) for each in tensors] == notes


def test_the_last_note_stays():
    noted = tensor()
    heads.leave_note(noted, heads.Note("first", {}))
    heads.leave_note(noted, heads.Note("second", {}))
    assert heads.read_note(noted).head == "second"


def test_what_holds_no_tensor_has_no_note():
    assert heads.read_note(np.ones(3)) is None


def test_a_note_is_read_by_those_it_is_for():
    noted = tensor()
    note = heads.SimilarityNote("head", 0.0)
    heads.leave_note(noted, note)
    assert heads.read_note(noted) is None
    assert heads.read_note(noted, heads.SimilarityNote) is note


@pytest.fixture
def laid_out():
    """A distribution with a layout for the output of a head and of a model."""
    before = keras.distribution.distribution()
    mesh = keras.distribution.DeviceMesh(
        (1, 1), ("data", "model"), keras.distribution.list_devices()[:1]
    )
    layout_map = keras.distribution.LayoutMap(mesh)
    layout_map["head/output"] = ("data", None)
    layout_map["model/output"] = ("data", None)
    distribution = keras.distribution.ModelParallel(
        layout_map=layout_map, batch_dim_name="data"
    )
    keras.distribution.set_distribution(distribution)
    yield
    keras.distribution.set_distribution(before)


@only_on("jax", "Keras has a ModelParallel on JAX only")
@pytest.mark.usefixtures("laid_out")
@pytest.mark.parametrize(
    "make",
    [
        lambda: layers.LinearHead(5, name="head"),
        lambda: layers.CosineHead(5, name="head"),
        lambda: layers.SimilarityHead(name="head"),
    ],
)
def test_an_output_that_is_laid_out_anew_has_the_note_of_its_head(make):
    import jax

    heads_of_notes, head = [], make()

    @jax.jit
    def call(x):
        output = head(x)
        note = _keras.get_tensor_attr(output, heads.NOTE)
        heads_of_notes.append(note and note.head)
        return output

    head(normal(4, 3))
    call(normal(4, 3))
    assert heads_of_notes == [head]


@only_on("jax", "Keras has a ModelParallel on JAX only")
@pytest.mark.usefixtures("laid_out")
@pytest.mark.parametrize("around", [False, True])
@pytest.mark.parametrize(
    "make",
    [
        lambda: layers.LinearHead(5, name="head"),
        lambda: layers.SimilarityHead(name="head"),
    ],
)
def test_a_model_whose_output_is_laid_out_must_not_end_in_a_head(make, around):
    inputs = keras.Input((3,))
    model = keras.Model(inputs, make()(inputs), name="model")
    if around:
        model = keras.Model(inputs, model(inputs), name="around")
    with pytest.raises(ValueError, match=r"'model/output'.*Narrow the key"):
        model(normal(4, 3), training=True)


def test_a_call_that_fails_leaves_nothing_for_the_next():
    class Fails(heads.NotingLayer):
        def call(self, x, fail=False):
            if fail:
                heads.leave_note(x, heads.Note("lost", {}))
                raise ZeroDivisionError
            return x + 1

    layer = Fails()
    with pytest.raises(ZeroDivisionError):
        layer(normal(2), fail=True)
    assert heads.read_note(layer(normal(2))) is None
