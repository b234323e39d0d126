"""A head's note lies on one tensor."""

import keras
import numpy as np

from keras_xent import heads


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
