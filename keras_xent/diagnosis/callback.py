"""Diagnoses the first batch of a fit, and the step that breaks it."""

import collections
import dataclasses

import keras
import numpy as np
from keras import tree

from keras_xent import _keras
from keras_xent._warnings import warn
from keras_xent.diagnosis import course, curve, probe
from keras_xent.diagnosis.codes import OF_TRAINED
from keras_xent.diagnosis.evidence import STEPS, host
from keras_xent.diagnosis.examine import look
from keras_xent.diagnosis.report import Report
from keras_xent.diagnosis.start import blind_loss

# A training diverges when the loss of a batch exceeds this multiple of the
# largest among the first steps. Batches differ, but not by so much.
_DIVERGED = 10.0
_FIRST_STEPS = 10


@dataclasses.dataclass(frozen=True)
class _Call:
    """One call of `train_function`.

    Attributes:
        step: The number of its first batch.
        weights: The weights before it.
        draws: The state of PyTorch's generators before it.
        batches: Its batches, `steps_per_execution` of them or fewer.
    """

    step: int
    weights: list
    draws: object
    batches: list


class Diagnose(keras.callbacks.Callback):
    """Says what is wrong at the first batch of `fit`, and when it breaks later.

    At the first batch it does what `keras_xent.diagnose` does, and warns if
    there is a finding. After 100 steps it looks once more, for what should have
    been learned by then (`predicts-prior`, `pairs-not-separated`,
    `collapsed-embeddings`). All the while it watches the loss: once that is NaN
    or infinite, or ten times what it was in the first ten steps, it runs the
    batch of that step again, with the weights from before it, and warns with
    the step, the layer and the rows.
    At the end of an epoch, after 100 steps and then ever more rarely, it reads
    the curve of the loss, and says in one line if the loss of a cross-entropy
    stays at that of equal probabilities (`not-learning`) or of the frequencies
    of the labels (`predicts-prior`), and of any loss, if that of the validation
    data rises while that of the training falls (`overfitting`).
    It says so once, and does not stop the training:
    `keras.callbacks.TerminateOnNaN` does.

    The training itself stays what it is without this callback: the same
    batches, weights and seeds. Codes that need all labels (`constant-targets`,
    `missing-class`, and `one-kind-of-pairs` of match flags) are not looked for,
    because a batch of rare labels may well hold none of them: call
    `keras_xent.diagnose(model, x, y)` for these. Of a loss of ids it warns if
    the batch holds no match.

    Args:
        watch: Whether to go on after the first batch. That keeps two copies of
            the weights, makes one in each step, and waits for the loss of each
            step.

    Attributes:
        report: The `keras_xent.diagnosis.Report` of the first batch, None
            before it.
        later: The report of the batch after 100 steps, None before it.
        curve: A `keras_xent.diagnosis.Finding` for each thing that the curve
            has said, with what was seen, the likely cause and the cure.
        trouble: The report of the step that broke the training, None if none
            did.
        step: The number of that step, counted from 1 over all epochs, or None.

    Raises:
        ValueError: If `watch` is no bool. In `fit` it raises nothing: where it
            cannot look, it warns, and the training goes on without it.

    References:
        See `keras_xent.diagnose`.

    Example:

    >>> import warnings
    >>> import keras, numpy as np
    >>> from keras_xent.callbacks import Diagnose
    >>> x, y = np.eye(4, dtype="float32"), np.array([[0], [1], [1], [0]])
    >>> model = keras.Sequential([keras.Input((4,)),
    ...                           keras.layers.Dense(1, activation="sigmoid")])
    >>> loss = keras.losses.BinaryCrossentropy(from_logits=True)
    >>> model.compile("sgd", loss)
    >>> watcher = Diagnose()
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     history = model.fit(x, y, verbose=0, callbacks=[watcher])
    >>> watcher.report.findings[0].code
    'probabilities-as-logits'
    """

    def __init__(self, *, watch: bool = True) -> None:
        super().__init__()
        if not isinstance(watch, bool):
            raise ValueError(
                f"`watch` must be True or False. Received: watch={watch!r}"
            )
        self.watch = watch
        self._inner = None
        self._forget()

    def _forget(self):
        self.report = self.later = self.trouble = self.step = None
        self.curve, self._course = (), None
        self._watching = self.watch
        self._steps = self._rows = 0
        self._mean = self._usual = 0.0
        # Two, because a gradient that is not finite shows in the loss one step
        # later, when all weights are NaN.
        self._recent = collections.deque(maxlen=2)

    def on_train_begin(self, logs=None):
        self._forget()
        strategy = getattr(self.model, "distribute_strategy", None)
        if getattr(strategy, "num_replicas_in_sync", 1) > 1:
            warn(
                "keras_xent.callbacks.Diagnose sees nothing of a model that "
                "runs on several replicas. Call keras_xent.diagnose(model, x, "
                "y) on one before fit."
            )
            return
        # On JAX, `self.model` copies the state of the training into the model
        # at each use; in the middle of a step that undoes the step.
        self._leave()
        self._trained = self.model
        self._fit = self._trained.history
        # Callbacks do not see batches. The function that trains on them does.
        self._inner = self._trained.train_function
        self._trained.train_function = self._train

    def on_epoch_begin(self, epoch, logs=None):
        self._rows, self._mean = 0, 0.0

    def on_epoch_end(self, epoch, logs=None):
        if self._course is None or not (self._watching and self._recent):
            return
        try:
            for output, reading in self._course.end_epoch(logs or {}):
                self._say(epoch, output, reading)
        except Exception as error:
            self._give_up(error)

    def _say(self, epoch, output, reading):
        """Warns of what a curve says, once, and in one line."""
        overfits = reading.code == curve.OVERFITTING
        if any(
            found.where == output.where
            and (found.code == curve.OVERFITTING) == overfits
            for found in self.curve
        ):
            return
        seen = ()
        if not overfits:
            call = self._recent[-1]
            report, evidence = self._look(call, call.batches[-1])
            if not course.confirms(output, evidence):
                return
            # The same in other words explains nothing.
            seen = (
                evidence,
                [
                    each
                    for each in report.findings
                    if each.code != curve.PREDICTS_PRIOR
                ],
            )
        found = course.finding(output, reading, *seen)
        self.curve = (*self.curve, found)
        told = [*self.report.findings, *(self.later or self.report).findings]
        if seen and any(each.code == curve.PREDICTS_PRIOR for each in told):
            return  # The first batch or that after 100 steps has said it.
        warn(
            f"keras_xent.callbacks.Diagnose, {output.where}, epoch "
            f"{epoch + 1}: {found.summary} {found.cause}"
        )

    def on_train_end(self, logs=None):
        self._leave()

    def _leave(self):
        """Takes this callback out of the way of the training."""
        self._recent.clear()
        if self._inner is None:
            return
        # Another may stand before it, or have taken its place.
        above, now = None, self._trained.train_function
        while now != self._train and _is_of_another(now):
            above, now = now.__self__, now.__self__._inner
        if now == self._train and above is None:
            self._trained.train_function = self._inner
        elif now == self._train:
            above._inner = self._inner
        self._inner = None

    def _train(self, *arguments):
        """Keras's `train_function`: on JAX it takes and returns the state."""
        *state, source = arguments
        inner = self._inner
        if self._trained.history is not self._fit:
            # Another callback has cut off the `fit` that this was for.
            self._leave()
            return inner(*arguments)
        try:
            taken, batches = _keras.batches_of_call(
                source, self._trained.steps_per_execution
            )
        except BaseException:
            self._leave()
            raise
        if not batches:
            raise StopIteration
        try:
            if not self._trained.built:  # TensorFlow's first step builds it.
                self._trained(
                    keras.utils.unpack_x_y_sample_weight(batches[0])[0]
                )
            call = _Call(
                self._steps + 1,
                self._weights(*state),
                probe.generator_state(),
                batches,
            )
            if call.step == 1:
                self._diagnose(call, *state)
            elif call.step > STEPS and self.later is None:
                self._diagnose_later(call, *state)
            self._recent.append(call)
            self._steps += len(batches)
            # PyTorch's takes a list, the others an iterator.
            again = taken if isinstance(source, list) else iter(taken)
            result = inner(*state, again)
            if self._watching:
                logs, *state = result if state else (result,)
                self._watch(logs, batches, *state)
        except BaseException:
            self._leave()
            raise
        if not self._watching:
            self._leave()
        return result

    def _variables(self):
        model = self._trained
        return [*model.trainable_variables, *model.non_trainable_variables]

    def _weights(self, state=None):
        """Copies of the weights: JAX's step destroys its arguments."""
        if state is None:
            return probe.copies(self._variables())
        return [keras.ops.copy(value) for group in state[:2] for value in group]

    def _diagnose(self, call, state=None):
        try:
            self.report, evidence = self._look(call, call.batches[0], state)
        except Exception as error:
            self._give_up(error)
            return
        if self.report.findings:
            warn(str(self.report))
        if _is_broken(self.report):
            self._watching = False  # It is broken already, and that is said.
        if not self.report.errors:
            self._course = course.Course(evidence)
        blind = [blind_loss(output) for output in evidence.outputs]
        self._usual = max([0.0, *(abs(each) for each in blind if each)])

    def _diagnose_later(self, call, state=None):
        """Looks for what the model should have learned by now."""
        try:
            seen, _ = self._look(call, call.batches[0], state)
        except Exception as error:
            self._give_up(error)
            return
        known = {found.code for found in self.report.findings}
        if any(found.code != curve.OVERFITTING for found in self.curve):
            known.add(curve.PREDICTS_PRIOR)  # The curve has said it.
        found = [each for each in seen.findings if each.code in OF_TRAINED]
        checked = [code for code in seen.checked if code in OF_TRAINED]
        of_trained = {"findings": found, "checked": checked, "unchecked": {}}
        self.later = Report(**vars(seen) | of_trained)
        if any(found.code not in known for found in self.later.findings):
            warn(f"After {call.step - 1} steps:\n{self.later}")

    def _give_up(self, error):
        """What is wrong with the model, its own step says, in its words."""
        warn(
            "keras_xent.callbacks.Diagnose could not look at this training, "
            f"which goes on without it: {error!r}"
        )
        self._watching = False

    def _look(self, call, batch, state=None):
        """The report and the evidence of a batch, with the weights of then."""
        model, variables = self._trained, self._variables()
        batch = keras.utils.unpack_x_y_sample_weight(
            tree.map_structure(_present, batch)
        )
        if state is None:
            now = probe.copies(variables)
            draws = probe.generator_state()
        else:
            # On JAX the variables are empty while the model trains.
            probe.put_back(model.optimizer.variables, state[2])
            probe.put_back(model.metrics_variables, state[3])
        probe.put_back(variables, call.weights)
        probe.set_generator_state(call.draws)
        try:
            return look(model, batch)
        finally:
            if state is None:
                probe.put_back(variables, now)
                probe.set_generator_state(draws)
            else:
                _keras.release_variables(model)

    def _watch(self, logs, batches, state=None):
        """Looks at the loss of the batches that have just been trained on."""
        if "loss" not in logs:
            return
        if self._course is not None:
            self._course.add(logs, batches)
        # Keras logs the mean over the rows of the epoch so far.
        rows = sum(len(tree.flatten(batch)[0]) for batch in batches)
        mean, before = float(host(logs["loss"])), self._mean * self._rows
        self._rows, self._mean = self._rows + rows, mean
        loss = (mean * self._rows - before) / rows
        # A loss without a lower bound may well fall far below 0.
        if np.isfinite(loss) and loss <= _DIVERGED * self._usual:
            if self._steps <= _FIRST_STEPS:
                self._usual = max(self._usual, abs(loss))
        elif np.isfinite(loss) and (
            self._steps == len(batches) or not self._usual
        ):
            # There is nothing to exceed: it is the first, or those before it
            # were 0, as of a batch without a pair.
            self._usual = abs(loss)
        else:
            self._find_trouble(loss, state)

    def _find_trouble(self, loss, state):
        """Warns with the step, the layer and the rows that broke it."""
        call = self._recent[-1]
        if not np.isfinite(loss) and not _are_finite(call.weights):
            call = self._recent[0]  # The step before has broken the weights.
        for index, batch in enumerate(call.batches):
            try:
                report, evidence = self._look(call, batch, state)
            except Exception as error:
                self._give_up(error)
                return
            self.step = call.step + index
            if not np.isfinite(loss) and _is_broken(report):
                break
        if np.isfinite(loss):
            found = course.diverged(self._trained, evidence, loss, self._usual)
            both = {"findings": [found, *report.findings]}
            report = Report(**vars(report) | both)
        self.trouble, self._watching = report, False
        warn(
            f"Step {self.step}: the loss has become {loss:.4g}. The batch of "
            f"this step, with the weights from before it:\n{report}"
        )


def _is_broken(report):
    return any(f.code == "nonfinite-gradient" for f in report.findings)


def _is_of_another(function):
    return isinstance(getattr(function, "__self__", None), Diagnose)


def _are_finite(weights):
    return all(np.isfinite(host(value)).all() for value in weights)


def _present(leaf):
    """None where TensorFlow says by an `Optional` that there is nothing."""
    return None if hasattr(leaf, "has_value") else leaf
