"""The last layer of a model that is to tell faces, voices, products apart."""

import math
import typing
from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from keras_xent.layers.head import Head, Initializer, checked_units
from keras_xent.ops import checks
from keras_xent.ops.cosine import CosineLogits
from keras_xent.ops.dtypes import sums_dtype
from keras_xent.ops.unit import unit_rows

Margin: typing.TypeAlias = float | Sequence[float] | np.ndarray

# In `predict` so much of the class vectors is made unit vectors at a time: of
# a million of them 2 GB would be copied otherwise, and products this large lose
# nothing by being apart.
PREDICT_BLOCK_BYTES = 2**26


@keras.saving.register_keras_serializable(package="keras_xent")
class CosineHead(Head):
    """The last layer of a classifier whose logits are cosines, with a margin.

    ```
    logit_k = s · cos θ_k,   θ_k the angle between features and class vector k
    logit_y = s · (cos(θ_y + a) − c)   of the label y, in training
    ```

    Whoever is told apart by cosines later, a face, a voice, a product, is
    trained on cosines, and asked to be closer to its own class than to others
    by a margin:

    - no margin: NormFace;
    - `cosine_margin=0.35`: CosFace, AM-softmax;
    - `angular_margin=0.5`: ArcFace, AAM-softmax; in speech 0.2;
    - `sub_centers=3`: sub-center ArcFace. A class has several vectors, of which
      the best counts, so that wrong labels and unlike pictures of one class do
      not spoil each other.

    As a `LinearHead`, it returns its *features* in training and leaves the rest
    to the loss, `keras_xent.losses.LinearCrossentropy` for all classes, block
    by block, or a sampled one, `LinearHead`'s docstring says more. `predict`
    gives the cosines, without scale and margin; `evaluate` a loss with the
    scale and without the margin. No unit vectors of the classes are stored.

    ```
    outputs = keras_xent.layers.CosineHead(100_000, angular_margin=0.2)(hidden)
    model.compile(optimizer, loss=keras_xent.losses.LinearCrossentropy())
    ```

    Past θ + a > π, where the cosine would rise again, a logit is
    s · (cos θ − a sin a − c), as in ArcFace's code.

    Args:
        units: The number of classes.
        scale: s > 0. 30 to 64 are common; less than log(units) or so keeps the
            loss from becoming small.
        angular_margin: a in [0, π/2), in radians: one number, or one per class,
            more for rare ones. A variable of the layer, if any margin is not 0,
            which `keras_xent.callbacks.MarginSchedule` raises. Weights that are
            loaded from a head with other margins leave those of this head.
        cosine_margin: c ≥ 0: one number, or one per class. A variable, too.
        sub_centers: How many vectors a class has.
        learn_scale: Whether the scale is trained, by its logarithm, beginning
            with `scale`.
        precision: In what products of features and weights are made. `None` is
            the dtype of the features: bfloat16 under `mixed_bfloat16`.
            `"float32"` makes them in float32 at least. The cosine that the
            margin is put on is always computed so.
        metrics: Any of "accuracy", "top_5_accuracy", or another number for the
            5, "perplexity", "entropy" and "z_loss", as in `LinearHead`. In
            training the accuracies are those without a margin, as in
            `evaluate`; the others have it.
        sampled: Whether the loss is one over a sample of the classes, as in
            `LinearHead`. With
            `SampledSoftmaxCrossentropy(batch_classes=True)` it is Partial FC.
        seed: A whole number, to draw the same samples in every training.
            `None` draws it, too.
        kernel_initializer: How the class vectors begin. Their lengths matter
            to no logit, only to how fast they turn.
        **kwargs: What every layer of Keras takes, such as `name` and `dtype`.

    Shapes:
        Input: features `(batch, ..., d)`, of any length. Features of zeros have
        no direction; their cosines are 0.
        Output: cosines `(batch, ..., units)`; in training the features. The
        weights are `(d, units · sub_centers)`, the vectors of a class side by
        side; transposed with `sampled`.

    Raises:
        ValueError: if a number is out of range, a margin has another number of
            classes, or a metric is unknown.

    References:
        [Wang et al., 2017](https://arxiv.org/abs/1704.06369), NormFace;
        [Wang et al., 2018](https://arxiv.org/abs/1801.09414), CosFace;
        [Deng et al., 2019](https://arxiv.org/abs/1801.07698), ArcFace;
        [Deng et al., 2020](https://doi.org/10.1007/978-3-030-58621-8_43),
        sub-centers.

    Example:

    >>> import keras, numpy as np
    >>> import keras_xent
    >>> head = keras_xent.layers.CosineHead(3, scale=10.0, cosine_margin=0.3)
    >>> features = np.array([[3.0, 4.0]], "float32")
    >>> head.build(features.shape)
    >>> vectors = np.array([[1, 0, 2], [0, 1, -2]])
    >>> head.set_weights([vectors, *head.get_weights()[1:]])
    >>> cosines = keras.ops.convert_to_numpy(head(features))
    >>> print([f"{cosine:.2f}" for cosine in cosines[0]])
    ['0.60', '0.80', '-0.14']
    >>> loss = keras_xent.losses.LinearCrossentropy()
    >>> label = np.array([1])
    >>> print(f"{float(loss(label, head(features))):.3f}")
    0.127
    >>> print(f"{float(loss(label, head(features, training=True))):.3f}")
    1.314
    """

    def __init__(
        self,
        units: int,
        *,
        scale: float = 30.0,
        angular_margin: Margin = 0.0,
        cosine_margin: Margin = 0.0,
        sub_centers: int = 1,
        learn_scale: bool = False,
        precision: str | None = None,
        metrics: Sequence[str] | str | None = (),
        sampled: bool = False,
        seed: int | None = None,
        kernel_initializer: Initializer = "glorot_uniform",
        **kwargs: typing.Any,
    ) -> None:
        units = checked_units(units)
        _check_scale(scale)
        checks.whole("sub_centers", sub_centers, 1)
        margins = {
            "angular_margin": _checked(
                "angular_margin", angular_margin, units, math.pi / 2
            ),
            "cosine_margin": _checked(
                "cosine_margin", cosine_margin, units, math.inf
            ),
        }
        super().__init__(
            units,
            precision=precision,
            metrics=metrics,
            sampled=sampled,
            seed=seed,
            kernel_initializer=kernel_initializer,
            **kwargs,
        )
        self.sub_centers = int(sub_centers)
        self.learn_scale = checks.flag("learn_scale", learn_scale)
        self._scale = float(scale)
        self._full_margins = margins
        self.angular_margin = self.cosine_margin = None
        if any(np.any(margin) for margin in margins.values()):
            self.angular_margin, self.cosine_margin = (
                self.add_weight(
                    name=name,
                    shape=margin.shape,
                    initializer=keras.initializers.Zeros(),
                    dtype="float32",
                    trainable=False,
                )
                for name, margin in margins.items()
            )
            self.set_margins(1.0)
        self._log_scale = None
        if learn_scale:
            self._log_scale = self.add_weight(
                name="log_scale",
                shape=(),
                initializer=keras.initializers.Constant(math.log(scale)),
                dtype="float32",
            )

    def build(self, input_shape: tuple) -> None:
        self._add_kernel(input_shape)

    @property
    def scale(self) -> float:
        """The scale in use."""
        if self._log_scale is None:
            return self._scale
        return math.exp(float(ops.convert_to_numpy(self._log_scale)))

    def set_margins(self, share: float) -> None:
        """Sets the margins to a share of those that the layer was made with.

        Args:
            share: From 0, no margin, to 1.
        """
        checks.number("share", share, 0, 1)
        if self.angular_margin is None:
            return
        for name, margin in self._full_margins.items():
            getattr(self, name).assign(share * margin)

    def save_own_variables(self, store: dict) -> None:
        for name, variable in self._learned().items():
            store[name] = variable
        if self.angular_margin is not None:
            for name, margin in self._full_margins.items():
                store[name] = getattr(self, name)
                store[f"full_{name}"] = margin

    def load_own_variables(self, store: dict) -> None:
        learned, names = self._learned(), set(store.keys())
        margins = {x for x in names if x.endswith("_margin")}
        if set(learned) != names - margins:
            raise ValueError(
                f"Layer {self.name!r} has the weights {sorted(learned)}, and "
                f"{sorted(names - margins)} are to be loaded: make the head "
                "with the same `learn_scale` and `sampled`, and build it."
            )
        for name, variable in learned.items():
            variable.assign(store[name])
        if self.angular_margin is None or not margins:
            return
        full = self._full_margins
        same = [
            np.array_equal(store[f"full_{name}"], full[name]) for name in full
        ]
        if all(same):
            for name in full:
                getattr(self, name).assign(store[name])

    def _learned(self):
        """The weights that a file of them must have, by name."""
        found = [getattr(self, "_kernel", None), self._log_scale]
        return {x.name: x for x in found if x is not None}

    def _logits(self, training):
        scale = self._scale
        if self._log_scale is not None:
            scale = ops.exp(ops.convert_to_tensor(self._log_scale))
        margins = {}
        if training and self.angular_margin is not None:
            margins = {
                "angular_margin": ops.convert_to_tensor(self.angular_margin),
                "cosine_margin": ops.convert_to_tensor(self.cosine_margin),
            }
        return CosineLogits(
            scale=scale, sub_centers=self.sub_centers, **margins
        )

    def _predict(self, features, matrix, logits, dtype):
        """The cosines, from products in that dtype."""
        features = ops.cast(features, sums_dtype(dtype))
        features = ops.cast(unit_rows(features), dtype)
        (matrix,) = matrix.values()
        axis = 0 if self.sampled else 1
        bytes_of_class = 4 * matrix.shape[1 - axis] * self.sub_centers
        classes = max(PREDICT_BLOCK_BYTES // bytes_of_class, 1)
        size = classes * self.sub_centers
        products = []
        for start in range(0, matrix.shape[axis], size):
            index = [slice(None), slice(None)]
            index[axis] = slice(start, start + size)
            block = logits.vectors(matrix[tuple(index)], 1 - axis)
            block = ops.cast(block, dtype)
            if self.sampled:
                block = ops.transpose(block)
            products.append(logits.dense(ops.matmul(features, block)))
        return ops.concatenate(products, axis=-1)

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "scale": self._scale,
            **{name: x.tolist() for name, x in self._full_margins.items()},
            "sub_centers": self.sub_centers,
            "learn_scale": self.learn_scale,
        }


def _check_scale(scale):
    checks.number("scale", scale, -np.inf)
    if not 0 < scale < np.inf:
        raise ValueError(
            "`scale` must be above 0: a logit is scale · cosine, between ±scale"
            f". Received: scale={scale!r}; 30 is common."
        )


def _checked(name, margin, units, end):
    """A margin as an array, `()` or `(units,)`, or an error."""
    array = np.asarray(margin)
    good = array.dtype.kind in "fiu" and array.shape in ((), (units,))
    if good and np.all((array >= 0) & (array < end)):
        return array.astype("float64")
    below = f" and below π/2 = {end:.4f}, in radians" if end < math.inf else ""
    raise ValueError(
        f"`{name}` must be a number from 0{below}, or one for each of the "
        f"{units} classes. Received: {name}={margin!r}"
    )
