"""Checks of the gradient: does it reach the layers, and is it a number?"""

import numpy as np

from keras_xent.diagnosis import (
    arrival,
    collapse,
    cures,
    data,
    ends,
    masks,
    nonfinite,
)
from keras_xent.diagnosis.activations import reach
from keras_xent.diagnosis.evidence import (
    NAMED,
    bad_rows,
    by_layer,
    host,
    is_finite,
    is_zero,
)
from keras_xent.diagnosis.report import ERROR, WARNING, Finding
from keras_xent.diagnosis.start import blind_loss, mean_loss
from keras_xent.losses.kinds import DISTANCES, EMBEDDINGS, IDENTITIES, UNKNOWN

# A layer is saturated when this share of its outputs lies at a bound. ReLU
# layers of trained networks have up to 95 % zeros.
_SATURATED = 0.99

# How near to a bound counts as being there, as a share of the range: a sigmoid
# there has 1/1000 of its largest slope.
_AT_BOUND = 2.5e-4

# Sums in another order differ by less, as a share of the largest gradient.
_ROUNDING = 1e-6

# The share of the rows, or of the entries of a loss that nobody knows, that
# have a loss but no gradient.
_STUCK = 0.5

# So many entries with a gradient lie apart from those without one by chance in
# less than one of 1,000,000 batches.
_ENOUGH = 16

# A loss below this share of that of knowing nothing has converged: gradients
# that are 0 are right then.
_CONVERGED = 1e-3


def findings(evidence):
    checks = [_nonfinite, arrival.nothing_trainable, _equal_units]
    if _has_converged(evidence):
        checks += [_saturated]
    elif not _at_one_point(evidence):
        checks += [_stuck, arrival.vanishing, arrival.dead, _saturated]
    # Each of these explains what comes after it.
    for check in checks:
        found = list(check(evidence))
        yield from found
        if found:
            return


def _at_one_point(evidence):
    """Whether no gradient is what `collapsed-embeddings` has said."""
    outputs = evidence.outputs
    return bool(outputs) and all(
        any(collapse.collapsed(evidence, output)) for output in outputs
    )


def _nonfinite(evidence):
    bad = {
        layer: gradients
        for layer, gradients in by_layer(evidence.gradients).items()
        if not is_finite(gradients)
    }
    if np.isfinite(evidence.loss) and not bad:
        yield from _nan_labels(evidence)
        return
    numbers = {"loss": evidence.loss}
    where, cause, cure = _first_nonfinite(evidence, numbers)
    if bad:
        numbers["layers with such a gradient"] = list(bad)[:NAMED]
    kind = "gradient" if np.isfinite(evidence.loss) else "loss"
    yield Finding(
        "nonfinite-gradient",
        ERROR,
        where or (f"layer {next(reversed(bad))!r}" if bad else "the loss"),
        f"The {kind} is NaN or infinite. One step by it, and every weight is "
        "NaN for good.",
        numbers,
        cause,
        cure,
    )


def _nan_labels(evidence):
    """NaN among all labels, in rows that the batch has left out."""
    for output in evidence.outputs:
        # A loss that nobody knows may take NaN for a label that is missing.
        if output.expects.labels == UNKNOWN:
            continue
        labels = output.counted(output.labels, whole=True)
        rows = np.isnan(labels) & output.known(labels)
        if rows.any():
            yield Finding(
                "nonfinite-gradient",
                ERROR,
                f"the labels of {output.where}",
                "Labels are NaN. The loss of such a row is NaN, and after one "
                "step by it so is every weight.",
                {"labels": rows.size, "NaN among them": int(rows.sum())},
                "Labels that are missing, or 0/0 in making them.",
                data.without_bad_rows(
                    [output.labels_name], *evidence.everything
                ),
            )


def _first_nonfinite(evidence, numbers):
    """Where it begins, why, and the cure; adds to the numbers."""
    found = nonfinite.in_data(evidence, numbers)
    if found:
        return found
    weights = evidence.bad_weights
    if weights:
        numbers["weights that are not finite"] = weights[:NAMED]
        return (
            f"weight {weights[0]!r}",
            "The weights are not finite any more: a step before this one has "
            "broken them.",
            "callbacks = [keras_xent.callbacks.Diagnose()]  # names that step",
        )
    masked = masks.masked_row(evidence, numbers)
    if masked is not None:
        return masked
    for seen in evidence.layers:
        if seen.bad_rows:
            numbers["rows"] = evidence.of_data(seen.bad_rows[:NAMED])
            numbers["activation"] = seen.activation or "none"
            found = nonfinite.of_exponential(evidence, seen)
            if found:
                return (f"layer {seen.name!r}", *found)
            return (
                f"layer {seen.name!r}",
                f"This layer is the first whose output is not finite: {_HOW}",
                _KEPT_ABOVE_0,
            )
    for output in evidence.outputs:
        rows = bad_rows(output.y_pred)
        if rows:
            numbers["rows"] = evidence.of_data(rows[:NAMED])
            return (
                output.where,
                "All layers that can be seen give finite numbers, so it is "
                f"something between them, in a `call`: {_HOW}",
                _KEPT_ABOVE_0,
            )
    for look in (nonfinite.in_loss, nonfinite.in_slope_of_loss):
        found = look(evidence, numbers)
        if found:
            return found
    return (
        None,
        "All values are finite, their derivatives are not: a root or a norm at "
        "0, or a where() whose other branch is infinite."
        if np.isfinite(evidence.loss)
        else "Something is added to the losses of the outputs, by add_loss or "
        f"compute_loss, that is not finite: {_HOW}",
        "# for a norm: keras.ops.sqrt(keras.ops.maximum(squares, 1e-12))",
    )


_HOW = (
    "a log or root of 0 or less, a division by 0, an overflow (in float16 "
    "above 65504), or a mask of -inf over a whole row."
)

_KEPT_ABOVE_0 = "# for log(x): keras.ops.log(keras.ops.maximum(x, 1e-6))"


def _has_converged(evidence):
    for output in evidence.outputs:
        blind, loss = blind_loss(output), mean_loss(output, output.y_pred)
        if loss is None or blind is None:
            return False
        if loss > _CONVERGED * blind:
            return False
        # Nothing above 0 is a loss that is nowhere better than at the start;
        # or there is no match in this batch, which is of another code.
        ids = output.expects.labels == IDENTITIES
        alone = evidence.steps == 0 or evidence.rows == 1
        if blind == 0 and alone and not ids:
            return False
    return bool(evidence.outputs)


def _stuck(evidence):
    for output in evidence.outputs:
        if output.head is None:
            yield from _stuck_rows(evidence, output)


def _stuck_rows(evidence, output):
    """Rows that have a loss but no gradient: the loss is flat there."""
    gradient = nonfinite.gradient_by_outputs(output)
    losses = output.compute(output.y_pred)
    if gradient is None or not losses.ndim or len(losses) != len(gradient):
        return
    blind = blind_loss(output) or 0.0
    # A weight may be of an entry of a row: rows are counted here.
    rows = output.counted(np.arange(len(losses)))
    worth = losses.reshape(len(losses), -1).sum(axis=1)[rows]
    high = worth > _CONVERGED * abs(blind)
    if not high.any():
        return
    flat = (gradient.reshape(len(gradient), -1) == 0)[rows][high]
    values = output.y_pred.reshape(len(gradient), -1)[rows]
    if output.expects.outputs == UNKNOWN and _is_clipped(values[high], flat):
        of, share = "entries", float(flat.mean())
    else:
        of, share = "rows", float(flat.all(axis=1).mean())
    if share < _STUCK:
        return
    yield output.warning(
        "saturated",
        "The loss is flat where the outputs lie: it is not small, but has no "
        "gradient there, so that nothing pulls the outputs away.",
        {
            f"share of the {of} without a gradient": share,
            "their mean loss": float(worth[high].mean()),
            "outputs from": float(output.y_pred.min()),
            "to": float(output.y_pred.max()),
        },
        "The loss clips its input, as in log(clip(p, 1e-7, 1)): outside the "
        "bounds its gradient is 0. Or everything lies beyond a hard margin.",
        data.scaled(evidence.x) + _never_flat(output),
    )


def _never_flat(output):
    """Code of a loss that has a gradient wherever the outputs lie."""
    kind = output.expects.outputs
    if kind == EMBEDDINGS:
        loss = "keras_xent.losses.SymmetricKLHinge(margin=2.0)"
        return cures.loss_line(output, loss)
    if kind == DISTANCES:
        loss = "keras_xent.losses.SoftplusHinge(margin=2.0)"
        return cures.loss_line(output, loss)
    return cures.from_logits(output)


def _is_clipped(values, flat):
    """Whether it is the value of an entry that makes the loss flat there.

    The loss of a maximum, or of one entry in a row, is flat in the others at
    any value.
    """
    rest, flat = values[~flat], values[flat]
    if rest.size < _ENOUGH:
        return False
    return not np.any((flat > rest.min()) & (flat < rest.max()))


def too_few(evidence):
    """What the batch is too small for: a layer has too few outputs in it."""
    small = any(not _is_enough(seen) for seen in _with_ends(evidence))
    return ("saturated",) if small else ()


def _is_enough(seen):
    return seen.sample.size >= 1 / (1 - _SATURATED)


def _with_ends(evidence):
    """Layers whose activation may be at an end, but for those of outputs."""
    last = [output.last for output in evidence.outputs]
    for seen in evidence.layers:
        if seen.activation in (None, "linear", "softmax") or seen in last:
            continue
        if not any(_is_handed_on(seen, each) for each in evidence.outputs):
            yield seen


def _saturated(evidence):
    for seen in filter(_is_enough, _with_ends(evidence)):
        low, high = float(seen.sample.min()), float(seen.sample.max())
        if low == high and low not in reach(seen.activation, seen.sample):
            continue  # All the same, where it has a slope.
        near = _AT_BOUND * (high - low)
        at_low = float(np.mean(seen.sample <= low + near))
        at_high = float(np.mean(seen.sample >= high - near))
        share = min(1.0, at_low + at_high)
        if share < _SATURATED:
            continue
        yield Finding(
            "saturated",
            WARNING,
            f"layer {seen.name!r}",
            "Nearly all outputs of this layer lie at the ends of its "
            f"{seen.activation}, where it is flat and lets no gradient "
            "through.",
            {
                "share at an end": share,
                f"at {low:.4g}": at_low,
                f"at {high:.4g}": at_high if high > low else at_low,
            },
            "The inputs of the layer are too large, or negative for every row: "
            "data that are not scaled, large weights, or a learning rate that "
            "has thrown them there.",
            data.scaled(evidence.x) + _away_from_the_ends(evidence, seen),
        )


def _away_from_the_ends(evidence, seen):
    """Code of first weights for the layer, where it has weights."""
    paths = [
        path
        for path in by_layer(evidence.gradients)
        if path.rpartition("/")[2] == seen.name
    ]
    note = "# and LayerNormalization() before the activation"
    return ends.first_weights(paths) + note if paths else note


def _is_handed_on(seen, output):
    """Whether the output is that of this layer in another shape."""
    return seen.sample.size == output.y_pred.size and np.array_equal(
        seen.sample, output.y_pred.reshape(-1)
    )


def _largest(pair):
    gradient = pair[1]
    return 0.0 if gradient is None else float(np.abs(gradient).max())


_APART = """\
for variable in model.trainable_variables:
    weights = keras.ops.convert_to_numpy(variable)
    units = weights.shape[-1] if weights.ndim > 1 else 1
    if units > 1 and np.all(weights == weights[..., :1]):
        first = keras.initializers.GlorotUniform()
        variable.assign(first(weights.shape))"""


def _equal_units(evidence):
    size = max(map(_largest, evidence.gradients), default=0.0)
    equal = []
    later = evidence.later_gradients or evidence.gradients
    for first, second in zip(evidence.gradients, later, strict=True):
        # Zero weights behind a layer hide it for one step only.
        variable, gradient = second if is_zero([first]) else first
        if gradient is None or gradient.ndim < 2 or gradient.shape[-1] < 2:
            continue
        if any(name in variable.name for name in ("bias", "gamma", "beta")):
            continue
        weights = host(variable)
        apart = np.abs(gradient - gradient[..., :1]).max()
        if np.all(weights == weights[..., :1]) and apart <= _ROUNDING * size:
            equal.append((variable, weights))
    if not equal:
        return
    first, weights = equal[0]
    yield Finding(
        "zero-initialized",
        ERROR,
        f"layer {first.path.rpartition('/')[0]!r}",
        "All units of a layer have the same weights and the same gradient: "
        "they stay copies of one unit for ever.",
        {
            "layers": [v.path.rpartition("/")[0] for v, _ in equal][:NAMED],
            "units": weights.shape[-1],
            "largest weight": float(np.abs(weights).max()),
        },
        "The kernel was initialized with zeros or another constant.",
        _APART,
    )
