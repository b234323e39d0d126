"""Data: the batches that losses of pairs need."""

from keras_xent.data.class_balanced_batches import ClassBalancedBatches

__all__ = ["ClassBalancedBatches"]
