"""One state of a metric from those of many processes of PyTorch."""

import math
import types
from typing import Any

import keras
from keras import ops

from keras_xent import _keras
from keras_xent.metrics.pair_buffer import PairBuffer
from keras_xent.metrics.score_histogram import ScoreHistogram
from keras_xent.metrics.sums import Sums

# How many variables the metrics of Keras have, all of them sums. All others of
# Keras are made of these.
_VARIABLES = {
    keras.metrics.AUC: 4,
    keras.metrics.FBetaScore: 4,
    keras.metrics.FalseNegatives: 1,
    keras.metrics.FalsePositives: 1,
    keras.metrics.IoU: 1,
    keras.metrics.Mean: 2,
    keras.metrics.Precision: 2,
    keras.metrics.PrecisionAtRecall: 4,
    keras.metrics.R2Score: 5,
    keras.metrics.Recall: 2,
    keras.metrics.RecallAtPrecision: 4,
    keras.metrics.SensitivityAtSpecificity: 4,
    keras.metrics.SpecificityAtSensitivity: 4,
    keras.metrics.Sum: 1,
    keras.metrics.TrueNegatives: 1,
    keras.metrics.TruePositives: 1,
}

# An attribute of a variable that was summed: how often it was written by then.
_MARK = "keras_xent_summed"

# What a process says of a state.
_FRESH, _SUMMED, _UPDATED = "not summed", "summed", "updated after a sum"


def all_reduce(metrics_or_model: Any, *, group: Any = None) -> None:
    """Adds up the states of metrics over the processes of PyTorch.

    In `fit` and `evaluate` on PyTorch each process has metrics of its own rows.
    Call this in every process after the last batch; then `result()`, and
    `model.get_metrics_result()`, are those of the rows of all processes:

    ```
    model.evaluate(x_of_this_process, y_of_this_process)
    keras_xent.metrics.all_reduce(model)
    logs = model.get_metrics_result()
    ```

    Sums and counts are added in float64, and the pairs of a
    `SpearmanCorrelation(capacity=n)` gathered, so that the result is the one of
    a single process. Only what `evaluate` itself returned and printed is that
    of its own rows.

    It is done once: called again, it changes nothing. Updates after it would
    count together with a sum that holds the rows of all processes already, so
    a call after such updates is an error. `reset_state()` starts anew, and so
    do the next epoch and the next `evaluate`.

    Nothing happens where there is nothing to do: in one process, in a process
    that is not in the group, and on TensorFlow and JAX, where
    `MirroredStrategy` and `DataParallel` add up by themselves. So it is with a
    model on a Keras later than 3.16 that adds up in `get_metrics_result`.
    Metrics that are given without their model are added up there, too: read
    their `result()` then, not that of the model.

    Args:
        metrics_or_model: A `keras.metrics.Metric`; a `keras.Model` for its
            loss, its compiled metrics and those of its layers, of heads as
            well; or a list, tuple or dict of these.
        group: A process group of `torch.distributed`, or None for all
            processes.

    Returns:
        None. The metrics are changed, to the same state in every process.

    Raises:
        TypeError: If something else than metrics and models is given.
        ValueError: If a metric is not known to add up: one of another class,
            with variables of its own. In every process alike, if one was summed
            before and updated since, or if the processes give metrics of
            different states.

    Example:

    >>> import keras
    >>> from keras_xent.metrics import all_reduce
    >>> metric = keras.metrics.Mean()
    >>> metric.update_state([1.0, 3.0])
    >>> all_reduce(metric)  # One process: nothing to add.
    >>> float(metric.result())
    2.0
    """
    singles = _single_metrics(metrics_or_model)
    distributed = _keras.processes(group)
    if distributed is None:
        return
    states = list({id(x): x for m in singles for x in _states(m)}.values())
    said = [None] * distributed.get_world_size(group)
    about = [_about(state) for state in states]
    distributed.all_gather_object(said, about, group=group)
    _check_agreement(said)
    fresh = [
        state
        for state, (*_, progress) in zip(states, about, strict=True)
        if progress == _FRESH
    ]
    for state in fresh:
        _check_additive(state)
    if fresh:
        _sum(fresh, distributed, group)
        for metric in singles:
            _mark(metric)


def _single_metrics(given):
    """Metrics that are reset one by one."""
    found = []
    for each in keras.tree.flatten(given):
        if isinstance(each, keras.Model):
            several = [] if _keras.model_sums_metrics() else each.metrics
        elif isinstance(each, keras.metrics.Metric):
            several = [each]
        else:
            raise TypeError(
                "all_reduce takes a keras.metrics.Metric, a keras.Model (of a "
                "DistributedDataParallel its `module`), or a list, tuple or "
                f"dict of these. Received: {type(each).__name__}"
            )
        for metric in several:
            found.extend(_keras.single_metrics(metric))
    return found


def _states(metric):
    """The metrics with variables of their own, in and under a metric."""
    own, inside = _keras.metric_parts(metric)
    return [metric] * bool(own) + [x for part in inside for x in _states(part)]


def _own(state):
    return _keras.metric_parts(state)[0]


def _about(state):
    """What processes have to agree on, and how far a state is."""
    marks = [getattr(variable, _MARK, None) for variable in _own(state)]
    written = [_keras.times_written(variable) for variable in _own(state)]
    progress = _SUMMED if marks == written else _UPDATED
    if all(mark is None for mark in marks):
        progress = _FRESH
    shapes = [tuple(variable.shape) for variable in _own(state)]
    return type(state).__name__, shapes, state.name, progress


def _check_agreement(said):
    """Raises unless all processes have said the same, and nothing is lost."""
    for number, states in enumerate(said):
        kinds = [state[:2] for state in states]
        if kinds != [state[:2] for state in said[0]]:
            raise ValueError(
                "all_reduce expects metrics of the same states in every "
                f"process. Received in process 0: {_shown(said[0])}; in "
                f"process {number}: {_shown(states)}. A compiled metric may "
                "have its state from its first update on: give each process "
                "a batch."
            )
    for same in zip(*said, strict=True):
        progress = [state[3] for state in same]
        if _UPDATED in progress or len(set(progress)) > 1:
            kind, _, name, _ = same[0]
            raise ValueError(
                f"The metric {name!r} ({kind}) was summed over processes "
                "before. Expected no update since then, or a reset_state() in "
                f"every process. Received, by process: {', '.join(progress)}. "
                "Call reset_state() before the next rows, and all_reduce once, "
                "after the last."
            )


def _shown(states):
    return (
        ", ".join(f"{name} ({kind})" for kind, _, name, _ in states) or "none"
    )


def _check_additive(state):
    """Raises on a metric whose variables may be anything."""
    if isinstance(state, (ScoreHistogram, Sums, PairBuffer)):
        return
    of_keras = [cls for cls in type(state).__mro__ if cls in _VARIABLES]
    # One that is derived from these may have more of its own.
    if not of_keras or len(_own(state)) > _VARIABLES[of_keras[0]]:
        raise ValueError(
            "all_reduce expects metrics whose state is a sum, as those of "
            "keras_xent and of Keras are. Received: "
            f"{type(state).__name__} {state.name!r} with variables of its own. "
            "If they add up, keep each in a keras.metrics.Sum or Mean inside "
            "of it, or sum each in every process with "
            "torch.distributed.all_reduce(variable.value); if they do not, "
            "gather what it has seen and update one metric with it."
        )


def _sum(states, distributed, group):
    buffers = [state for state in states if isinstance(state, PairBuffer)]
    for buffer in buffers:
        parts = [
            _gathered(variable, distributed, group)
            for variable in _own(buffer)[:2]
        ]
        buffer.assign_all(zip(*parts, strict=True))
    sums = [state for state in states if not isinstance(state, PairBuffer)]
    parts = [ops.cast(v, "float64") for state in sums for v in _own(state)]
    if not parts:
        return
    total = ops.concatenate([ops.ravel(part) for part in parts])
    distributed.all_reduce(total, group=group)
    start = 0
    for state in sums:
        values = []
        for variable in _own(state):
            stop = start + math.prod(variable.shape)
            values.append(ops.reshape(total[start:stop], variable.shape))
            start = stop
        if isinstance(state, Sums):
            state.assign_sum(*values)
            continue
        for variable, value in zip(_own(state), values, strict=True):
            variable.assign(ops.cast(value, variable.dtype))


def _gathered(variable, distributed, group):
    """The value of a variable in each process, a list."""
    value = ops.convert_to_tensor(variable)
    size = distributed.get_world_size(group)
    values = [ops.zeros_like(value) for _ in range(size)]
    distributed.all_gather(values, value, group=group)
    return values


def _mark(metric):
    """Remembers that a metric was summed, until it is reset."""
    for variable in metric.variables:
        setattr(variable, _MARK, _keras.times_written(variable))
    metric.reset_state = types.MethodType(_reset_state, metric)


def _reset_state(metric):
    """Forgets it, and lets the metric have the method of its class again."""
    del metric.reset_state
    for variable in metric.variables:
        vars(variable).pop(_MARK, None)
    metric.reset_state()
