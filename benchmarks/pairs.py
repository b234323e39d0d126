"""All-pairs symmetric KL with a hinge, beside the broadcast formula.

    python benchmarks/pairs.py

Forward and backward over all pairs of 2048 embeddings of 128 entries. The
broadcast formula holds tensors of 2048 × 2048 × 128 numbers (2 GB each): it
needs up to 20 GB.
"""

import harness
import numpy as np

ROWS, COLUMNS, MARGIN = 2048, 128, 2.0
FORMULAS = ("keras_xent", "broadcast")


def cases():
    return [
        {"mode": mode, "kind": "pairs", "formula": formula}
        for mode in harness.MODES
        for formula in FORMULAS
    ]


def run(case):
    loss = {"keras_xent": ours, "broadcast": broadcast}[case["formula"]]
    return harness.time_and_memory(
        lambda: harness.step(loss, case["mode"]),
        make_data(8, 4),
        make_data(ROWS, COLUMNS),
        repeats=3,
    )


def make_data(rows, columns):
    from keras import ops

    rng = np.random.default_rng(0)
    logits = rng.normal(size=(rows, columns)).astype("float32")
    labels = rng.integers(0, rows // 8, rows).astype("int32")
    return ops.convert_to_tensor(logits), ops.convert_to_tensor(labels)


def ours(logits, labels):
    import keras_xent

    return keras_xent.losses.SymmetricKLHinge(MARGIN)(labels, logits)


def broadcast(logits, labels):
    """The same loss, as the definition reads."""
    from keras import ops

    log_p = ops.log_softmax(logits)
    p = ops.exp(log_p)
    divergence = ops.sum(
        (p[:, None] - p[None]) * (log_p[:, None] - log_p[None]), axis=-1
    )
    same = labels[:, None] == labels[None]
    itself = ops.eye(logits.shape[0], dtype="bool")
    match = ops.cast(same & ~itself, "float32")
    other = ops.cast(~same, "float32")
    pull = ops.sum(match * divergence) / ops.sum(match)
    push = ops.sum(other * ops.softplus(MARGIN - divergence)) / ops.sum(other)
    return (pull + push) / 2


def table(chosen, rounds):
    print(f"\n{ROWS} rows, {COLUMNS} columns\n")
    print("| | formula | s | peak MB | times faster | times less memory |")
    print("| --- | --- | --- | --- | --- | --- |")
    for start, case in enumerate(chosen):
        if case["formula"] != "keras_xent":
            continue
        for index, other in ((start, start + 1), (start + 1, start + 1)):
            cells = [
                case["mode"],
                chosen[index]["formula"],
                harness.show(harness.median(rounds, index, "seconds"), 3),
                harness.show(harness.median(rounds, index, "peak_mb"), 0),
                harness.show(harness.ratio(rounds, other, index, "seconds"), 1),
                harness.show(harness.ratio(rounds, other, index, "peak_mb"), 1),
            ]
            print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    harness.main(cases, run, [table])
