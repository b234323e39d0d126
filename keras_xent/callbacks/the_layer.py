"""The layer of a model that a callback is about."""

from keras_xent import _keras


class TheLayer:
    """One kind of layer, of which a model has one or the user names one.

    Args:
        kind: The class of the layer.
        given: The layer that the user named, or None.
        what: What the callback does with it, for an error.

    Raises:
        ValueError: if `given` is of another kind.
    """

    def __init__(self, kind, given, what):
        if given is not None and not isinstance(given, kind):
            raise ValueError(
                f"`layer` must be a keras_xent.layers.{kind.__name__}. "
                f"Received: {given!r}"
            )
        self.kind, self.given, self.what = kind, given, what

    def of(self, model):
        """The layer in a model, or an error if there is not exactly one."""
        if self.given is not None:
            return self.given
        found = [
            layer
            for layer in _keras.flat_layers(model)
            if isinstance(layer, self.kind)
        ]
        if len(found) == 1:
            return found[0]
        raise ValueError(
            f"{self.what}, a keras_xent.layers.{self.kind.__name__}. This "
            f"model has {len(found)} of them: add one, or name the `layer`."
        )
