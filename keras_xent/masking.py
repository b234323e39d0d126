"""Keras masks, read and set in one place.

A mask travels with a tensor, as an attribute where the tensor takes one and in
a table of Keras's own where it does not (JAX arrays). Keras has no public
function that reads it.
"""

from keras.src.backend import get_keras_mask, set_keras_mask

__all__ = ["get_keras_mask", "set_keras_mask"]
