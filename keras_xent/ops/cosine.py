"""Logits that are cosines, with a margin between a row and its own class."""

import dataclasses
import typing

from keras import ops

from keras_xent._types import Tensor
from keras_xent.ops.blocks import in_place
from keras_xent.ops.description import (
    description,
    for_all,
    per_column,
    per_row,
)
from keras_xent.ops.dtypes import sums_dtype
from keras_xent.ops.logits import Logits
from keras_xent.ops.select import where
from keras_xent.ops.unit import unit_rows, unit_rows_back


@description
class CosineLogits(Logits):
    """x = scale · max_j cos(feature, vector_j), less for the target.

    The scale is on the left factor, so that the products are logits as they
    are. Of a block the margin touches one number per row: what the target
    loses, which is known before the pass.

    Args:
        scale: s > 0, a number or, where it is learned, a tensor.
        angular_margin, cosine_margin: As in `with_margin`, a number for all
            classes `()` or one for each `(classes,)`. None is no margin.
        sub_centers: How many vectors a class has, side by side.
        shift: What is added to the logit of the target, by `trained`.
        slope: Its derivative by the product of the target.
        of_scale: Its derivative by the scale, products being the same.
        learned_scale: The scale again, to take its gradient.
        shut: 0, or −inf for a class that is left out.
    """

    prepares = True
    reads_back = False
    learned = ("learned_scale",)

    scale: typing.Any = 1.0
    angular_margin: typing.Any = None
    cosine_margin: typing.Any = None
    sub_centers: int = 1
    shift: Tensor | None = per_row()
    slope: Tensor | None = per_row()
    of_scale: Tensor | None = per_row()
    learned_scale: Tensor | None = for_all()
    shut: Tensor | None = per_column()

    @property
    def vectors_per_column(self):
        return self.sub_centers

    @property
    def plain(self):
        more = self.shift, self.shut
        return self.sub_centers == 1 and all(x is None for x in more)

    @property
    def needs_own(self):
        return self.angular_margin is not None

    def features(self, features):
        unit = unit_rows(ops.cast(features, sums_dtype(features.dtype)))
        return unit * ops.cast(self.scale, unit.dtype)

    def vectors(self, block, axis):
        wide = sums_dtype(block.dtype)
        return unit_rows(ops.cast(block, wide), axis)

    def vectors_back(self, gradient, block, axis):
        return unit_rows_back(gradient, ops.cast(block, gradient.dtype), axis)

    def trained(self, labels, own):
        if not self.needs_own:
            return self
        scale = ops.cast(self.scale, own.dtype)
        fixed = ops.stop_gradient(scale)
        cosine = own / fixed
        margins = self._margins(labels, own.dtype)
        value = with_margin(cosine, *margins)
        slope = _slope(cosine, margins[0])
        is_learned = ops.is_tensor(self.scale)
        return dataclasses.replace(
            self,
            angular_margin=None,
            cosine_margin=None,
            shift=fixed * (value - cosine),
            slope=slope,
            of_scale=value - slope * cosine if is_learned else None,
            learned_scale=scale if is_learned else None,
        )

    def with_margin(self, labels, logits):
        if not self.needs_own:
            return logits
        scale = ops.cast(self.scale, logits.dtype)
        margins = self._margins(labels, logits.dtype)
        return scale * with_margin(logits / scale, *margins)

    def dense(self, products):
        if self.sub_centers == 1:
            return products
        return ops.max(self._by_column(products), axis=-1)

    def block(self, products, targets):
        logits = self.dense(products)
        if self.shut is not None:
            logits = logits + ops.cast(self.shut, logits.dtype)
        if self.shift is None:
            return logits
        shift = ops.cast(self.shift, logits.dtype)
        if not in_place():
            # Nothing is added, but transforms that differentiate the pass as it
            # is written find a derivative: `back` is not asked.
            change = _change(targets.pick(logits))
            shift = shift + (self.slope - 1) * change
            if self.learned_scale is not None:
                shift = shift + self.of_scale * _change(self.learned_scale)
        return targets.add(logits, shift)

    def back(self, gradient, products, logits, targets):
        found = {}
        if self.shift is not None:
            own = targets.pick(gradient)
            if self.learned_scale is not None:
                found["learned_scale"] = ops.sum(own * self.of_scale)
            gradient = targets.add(gradient, own * (self.slope - 1))
        if self.sub_centers > 1:
            best = ops.argmax(self._by_column(products), axis=-1)
            each = ops.arange(self.sub_centers, dtype=best.dtype)
            chosen = best[..., None] == each
            gradient = where(chosen, gradient[..., None], 0)
            gradient = ops.reshape(gradient, ops.shape(products))
        return gradient, found

    def filled(self, shut):
        return self.holding({"shut": shut})

    def gap(self, gap):
        if self.shift is None:
            return gap
        # Without the margin the target is higher by that much.
        return ops.maximum(gap + ops.stop_gradient(self.shift), 0)

    def _by_column(self, products):
        shape, each = ops.shape(products), self.sub_centers
        return ops.reshape(products, (*shape[:-1], shape[-1] // each, each))

    def _margins(self, labels, dtype):
        """The two margins of some classes."""
        return [
            ops.take(x, labels, axis=0) if len(x.shape) else x
            for x in (
                ops.cast(self.angular_margin, dtype),
                ops.cast(self.cosine_margin, dtype),
            )
        ]


def _change(x):
    """0, with the derivative of x."""
    return x - ops.stop_gradient(x)


def with_margin(cosine, angular_margin, cosine_margin):
    """cos(θ + a) − c of cos θ.

    Past θ + a > π, where cos(θ + a) would rise again, it is cos θ − a sin a,
    as in the code of ArcFace, so that a larger angle never costs less, for a up
    to π/2 at least. The
    gradient is finite where cos θ is ±1 and the angle has none: there the sine
    is taken for constant.
    """
    sine = _sine(cosine)
    turned = cosine * ops.cos(angular_margin) - sine * ops.sin(angular_margin)
    past = cosine - angular_margin * ops.sin(angular_margin)
    beyond = _beyond(cosine, angular_margin)
    return ops.where(beyond, past, turned) - cosine_margin


def _slope(cosine, angular_margin):
    """The derivative of `with_margin` by the cosine."""
    sine = _sine(cosine)
    none = sine == 0
    cotangent = where(none, 0, cosine / where(none, 1, sine))
    turned = ops.cos(angular_margin) + ops.sin(angular_margin) * cotangent
    return where(_beyond(cosine, angular_margin), 1, turned)


def _sine(cosine):
    """√(1 − cos²) ≥ 0, with a gradient of 0 where it is 0."""
    square = (1 - cosine) * (1 + cosine)
    # A cosine may be rounded to just above 1.
    none = square <= 0
    return where(none, 0, ops.sqrt(where(none, 1, square)))


def _beyond(cosine, angular_margin):
    """Whether θ + a > π, that is cos θ < cos(π − a)."""
    return cosine < -ops.cos(angular_margin)
