"""Runs one batch through a model and writes down what is to be seen."""

import contextlib
import warnings

import keras
import numpy as np
from keras import ops, tree

from keras_xent import _keras, heads
from keras_xent.diagnosis import calls, data, probe
from keras_xent.diagnosis.evidence import (
    Evidence,
    Output,
    by_layer,
    host,
    is_zero,
)
from keras_xent.diagnosis.within import expectation_within
from keras_xent.ops.dtypes import dtype_of

# The steps of a schedule that are looked at: a warm-up begins at 0.
_LATER = (0, 1, 10, 100, 1000, 10_000)

# How far a weight is moved at most to see what lies behind weights of zero: as
# far as Adam's first step moves it.
_NUDGE = 1e-3


class Observer:
    """Collects `evidence` of one batch. Changes the weights of the model.

    Args:
        model: A compiled and built model.
        batch: `(x, y, sample_weight)`, structures of arrays.
        everything: `(y, sample_weight)`, of which the batch is a part; None
            if they are not known.
        stop: Called with the evidence before there is a loss: whether to stop.
    """

    def __init__(self, model, batch, everything, stop):
        is_all = everything is not None
        self.evidence = Evidence(model, *batch, is_all=is_all)
        self.evidence.learning_rate = float(host(model.optimizer.learning_rate))
        self.evidence.steps = int(host(model.optimizer.iterations))
        self._labels, self._weights = everything if is_all else batch[1:]
        self._stop = stop
        self._names = getattr(model, "output_names", None)
        self._losses = _keras.compiled_losses(model)
        self._pairs = None

    def run(self):
        evidence, model = self.evidence, self.evidence.model
        optimizer = model.optimizer
        scale = _loss_scale(optimizer)
        follower = _copy(getattr(optimizer, "inner_optimizer", optimizer))
        before = probe.copies(model.variables)
        self._draws = probe.generator_state()
        gradients = self._gradients(scale, follower)
        if scale != 1.0 and not _finite(gradients):
            # float16: the optimizer skips this step and lowers its scale.
            probe.put_back(model.variables, before)
            probe.set_generator_state(self._draws)
            gradients = self._gradients(1.0, _copy(optimizer.inner_optimizer))
        evidence.gradients = self._by_variable(gradients)
        evidence.bad_weights = [
            variable.path
            for variable, value in zip(model.variables, before, strict=True)
            if not np.all(np.isfinite(host(value)))
        ]
        if evidence.loss is None:
            return
        if follower is not None and not evidence.has_own_step:
            evidence.moved = _change(model, before)
            evidence.later_rate = _highest_rate(follower)
            self._same_dropout(before)
            evidence.loss_after = self._loss_now()
        if any(is_zero([each]) for each in evidence.gradients):
            probe.put_back(model.variables, before)
            probe.set_generator_state(self._draws)
            self._nudge()
            later = self._gradients(scale, None)
            evidence.later_gradients = self._by_variable(later)
            self._put_others(before)

    def _put_others(self, before):
        """The loss with other weights in all layers that have no gradient.

        If it is another loss, they are used, and something cuts the gradient.
        Afterwards the weights are again those of the later gradients.
        """
        evidence, model = self.evidence, self.evidence.model
        later = by_layer(evidence.later_gradients)
        dead = [
            variable
            for layer, gradients in by_layer(evidence.gradients).items()
            if is_zero(gradients) and is_zero(later[layer])
            for variable, _ in gradients
        ]
        if not dead:
            return
        now = probe.copies(model.variables)
        probe.put_back(model.variables, before)
        probe.set_generator_state(self._draws)
        draws = np.random.RandomState(0)
        for variable in dead:
            other = draws.normal(size=variable.shape)
            variable.assign(ops.subtract(other, variable))
        evidence.loss_without = self._loss_now()
        probe.put_back(model.variables, now)

    def _nudge(self):
        """A step down the gradient: the optimizer's may be none.

        Its rate may still be 0, and it may add up the gradients of several
        batches first.
        """
        for variable, gradient in self.evidence.gradients:
            size = 0.0 if gradient is None else float(np.abs(gradient).max())
            if 0 < size < np.inf:
                step = ops.cast(_NUDGE * (gradient / size), variable.dtype)
                variable.assign(ops.subtract(variable, step))

    def _gradients(self, scale, follower):
        """The gradients of one step, which `follower` then makes."""
        model = self.evidence.model
        with calls.watched(model) as (noted, ids):
            self._calls = noted
            self.evidence.ids = self.evidence.ids or ids
            recorder = probe.Recorder(scale, follower)
            with contextlib.suppress(probe.Stopped):
                step = probe.Probe(model, self._loss).step
                return step(*self._tensors(), recorder)
        return [None] * len(model.trainable_variables)

    def _by_variable(self, gradients):
        variables = self.evidence.model.trainable_variables
        arrays = [None if g is None else probe.as_array(g) for g in gradients]
        return list(zip(variables, arrays, strict=True))

    def _same_dropout(self, before):
        """Puts back all but what the optimizer has moved."""
        model = self.evidence.model
        probe.set_generator_state(self._draws)
        moved = {id(variable) for variable in model.trainable_variables}
        for variable, value in zip(model.variables, before, strict=True):
            if id(variable) not in moved:
                variable.assign(value)

    def _tensors(self):
        evidence = self.evidence
        batch = (evidence.x, evidence.y, evidence.sample_weight)
        return [as_tensors(part) for part in batch]

    def _loss_now(self):
        """The loss in training with the weights as they are."""
        x, y, weight = self._tensors()
        y_pred = probe.Probe(self.evidence.model, None)(x, training=True)
        return float(host(self._total(x, y, y_pred, weight)))

    def _loss(self, x, y, y_pred, weight):
        """The loss of the step; looks at what there is on the way."""
        evidence = self.evidence
        if self._pairs is None:
            flat = tree.flatten(y_pred)
            self._pairs = calls.seen(self._calls, flat)
            evidence.layers = [seen for seen, _ in self._pairs]
            self._see_outputs(y, y_pred, weight)
            if self._stop(evidence):
                raise probe.Stopped
        loss = self._total(x, y, y_pred, weight)
        if evidence.loss is None:
            evidence.loss = float(host(loss))
            if not np.isfinite(evidence.loss):
                calls.mark_bad_rows(self._pairs)
        self._pairs = self._calls = ()  # They hold all activations.
        return loss

    def _total(self, x, y, y_pred, weight):
        model = self.evidence.model
        if type(model).compute_loss is not keras.Model.compute_loss:
            takes_training = probe.takes(model.compute_loss, "training")
            training = {"training": True} if takes_training else {}
            return model.compute_loss(x, y, y_pred, weight, **training)
        losses = [ops.sum(extra) for extra in model.losses]
        if self._losses is not None:
            losses.append(self._losses(y, y_pred, weight))
        if not losses:
            raise ValueError(
                "The model has no loss. Give one to compile(optimizer, loss), "
                "or to add_loss within a layer. diagnose(model, x, y) cannot "
                "see a loss that is computed in a `train_step`: move it to "
                "`compute_loss`."
            )
        return sum(ops.cast(loss, "float32") for loss in losses)

    def _see_outputs(self, y, y_pred, weight):
        y, labels, names = (
            _like(each, y_pred, self._names)
            for each in (y, self._labels, data.names(y, "y"))
        )
        if self._losses is None:
            return
        given = self._losses.given
        y, labels, names = (
            _where_losses_are(each, given) for each in (y, labels, names)
        )
        tensors = []
        for path, loss, name in self._losses.resolve(y, y_pred):
            tensor = self._at(path, y_pred)
            if not tree.is_nested(y_pred):
                name = self._names[0] if self._names else None
            output = self._output(
                name,
                loss,
                tensor,
                *(
                    self._at(path, each)
                    for each in (y, labels, weight, self._weights)
                ),
                index=[each is tensor for each in tree.flatten(y_pred)].index(
                    True
                ),
            )
            output.labels_name = self._at(path, names)
            tensors.append(tensor)
            self.evidence.outputs.append(output)
        for output in self.evidence.outputs:
            output.names = tuple(x.name for x in self.evidence.outputs)
        self._see_metrics(y, y_pred, tensors)

    def _output(self, name, loss, tensor, y, labels, weight, weights, index):
        note, mask = heads.read_note(tensor), _keras.get_mask(tensor)
        similarity = heads.read_note(tensor, heads.SimilarityNote)
        if similarity is not None:
            numbers = (similarity.log_scale, similarity.bias)
            similarity = heads.SimilarityNote(
                similarity.head,
                *(None if each is None else host(each) for each in numbers),
            )
        last, before = None, []
        for seen, other in self._pairs:
            if other is tensor:
                last = last or seen  # Later ones have only handed it on.
            elif seen.values is not None and other.shape == tensor.shape:
                before.append(seen)
        return Output(
            name or (last.name if last else "output"),
            loss,
            expectation_within(loss, y, tensor),
            host(y),
            host(labels),
            dtype_of(labels if hasattr(labels, "dtype") else host(labels)),
            host(tensor),
            *(
                None if each is None else host(each)
                for each in (weight, mask, weights)
            ),
            head=None if note is None else note.head,
            similarity=similarity,
            last=last,
            before=tuple(before),
            index=index,
            inputs=len(tree.flatten(self.evidence.x)),
            model=self.evidence.model,
        )

    def _see_metrics(self, y, y_pred, tensors):
        model = self.evidence.model
        # A metric that fits no output is an error of `fit`, which says more.
        with contextlib.suppress(ValueError), warnings.catch_warnings():
            metrics = _keras.compiled_metrics(model, y, y_pred)
            self.evidence.metrics = [
                (output, metric)
                for tensor, group in zip(
                    tree.flatten(y_pred), metrics, strict=True
                )
                for metric in group
                for output, of in zip(
                    self.evidence.outputs, tensors, strict=True
                )
                if of is tensor
            ]

    def _at(self, path, structure):
        """What lies at the path of a loss; leaves serve every loss."""
        for key in path:
            if not tree.is_nested(structure):
                return structure
            if isinstance(structure, dict) and isinstance(key, int):
                key = list(structure)[key]
            elif not isinstance(structure, dict) and isinstance(key, str):
                key = self._names.index(key)
            structure = structure[key]
        return structure


def _loss_scale(optimizer):
    """What a `LossScaleOptimizer` multiplies the loss by now; 1 of others."""
    scale = getattr(optimizer, "dynamic_scale", None)  # None before the first
    if scale is None:
        return getattr(optimizer, "initial_scale", 1.0)
    return float(host(scale))


def _change(model, before):
    """The largest change of a weight, as a share of the size of all."""
    largest, squares, count = 0.0, 0.0, 0
    trainable = {id(variable) for variable in model.trainable_variables}
    for variable, value in zip(model.variables, before, strict=True):
        if id(variable) in trainable:
            old, new = host(value), host(variable)
            largest = max(largest, float(np.abs(new - old).max(initial=0)))
            squares += float(np.sum(np.square(old, dtype="float64")))
            count += old.size
    size = np.sqrt(squares / max(1, count))
    return largest / size if size else largest


def _highest_rate(optimizer):
    """The highest rate of the steps to come."""
    now, config = int(host(optimizer.iterations)), optimizer.get_config()
    if config.get("gradient_accumulation_steps"):
        # Its `iterations` is no variable, but a share of one.
        config["gradient_accumulation_steps"] = None
    other = type(optimizer).from_config(config)
    rates = []
    for step in _LATER:
        other.iterations.assign(now + step)
        rates.append(float(host(other.learning_rate)))
    return max(rates)


def as_tensors(structure):
    """As `fit` does it: NumPy's float64 becomes Keras's float type."""

    def as_tensor(x):
        is_double = isinstance(x, np.ndarray) and x.dtype == "float64"
        dtype = keras.config.floatx() if is_double else None
        return None if x is None else ops.convert_to_tensor(x, dtype)

    return tree.map_structure(as_tensor, structure)


def _like(y, y_pred, names):
    """Labels in the container of the outputs: list or dictionary."""
    if tree.is_nested(y) != tree.is_nested(y_pred):
        one, like = tree.flatten(y), tree.flatten(y_pred)
        return (
            tree.pack_sequence_as(y_pred, one) if len(one) == len(like) else y
        )
    if isinstance(y, dict) and isinstance(y_pred, (list, tuple)):
        return [y[name] for name in names]
    if isinstance(y, (list, tuple)) and isinstance(y_pred, dict):
        if len(y) != len(y_pred):
            return y  # of those that have a loss
        return dict(zip(y_pred, y, strict=True))
    if isinstance(y, tuple) and isinstance(y_pred, list):
        return list(y)
    if isinstance(y, list) and isinstance(y_pred, tuple):
        return tuple(y)
    return y


def _where_losses_are(y, losses):
    """Labels with None for outputs that have no loss: `fit` takes the rest."""
    if not tree.is_nested(losses):
        return y
    rest = tree.flatten(y)
    present = [each is not None for each in tree.flatten(losses)]
    if all(present) or len(rest) != sum(present):
        return y
    rest = iter(rest)
    return tree.pack_sequence_as(
        losses, [next(rest) if each else None for each in present]
    )


def _copy(optimizer):
    """An optimizer of the same kind in the same state; None if it has none."""
    try:
        copied = type(optimizer).from_config(optimizer.get_config())
    except (NotImplementedError, TypeError, ValueError):
        return None  # An optimizer without a configuration.
    if optimizer.built:
        copied.build(_keras.optimized_variables(optimizer))
        probe.put_back(copied.variables, probe.copies(optimizer.variables))
    return copied


def _finite(gradients):
    return all(
        g is None or np.isfinite(probe.as_array(g)).all() for g in gradients
    )
