"""One label for a row, and an answer for each of its steps or pixels."""

from keras_xent.diagnosis import ends
from keras_xent.losses.kinds import (
    CLASS_IDS,
    DISTRIBUTION,
    NUMBERS,
    YES_NO,
)


def left_on(output):
    """Outputs `(n, ..., k)` beside labels `(n,)`, `(n, 1)` or `(n, k)`."""
    labels, scores = output.labels.shape[1:], output.y_pred.shape[1:]
    kind = output.expects.labels
    if kind not in (CLASS_IDS, DISTRIBUTION, NUMBERS, YES_NO):
        return
    inner = scores[:-1]
    of_rows = labels in ((), (1,)) or labels == scores[-1:]
    if output.expects.axis not in (-1, len(scores)) or not of_rows:
        return
    if not inner or labels == inner or all(size == 1 for size in inner):
        return
    if kind == CLASS_IDS and labels not in ((), (1,)):
        return  # One-hot rows.
    yield output.error(
        "label-format" if output.expects.is_softmax else "shape-broadcast",
        "There is one label for each row, but an answer for each of its steps "
        "or places: labels and outputs do not stand side by side.",
        {
            "shape of the labels": output.labels.shape,
            "shape of the outputs": output.y_pred.shape,
        },
        "A recurrent layer has return_sequences=True, which is for layers "
        "that follow it step by step, or Flatten or GlobalAveragePooling is "
        "missing behind convolutions, embeddings or attention.",
        ends.of_whole_rows(output),
    )
