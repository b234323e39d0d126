"""Contrastive losses block by block, beside the formula with all pairs.

    python benchmarks/contrastive.py

Forward and backward for embeddings of 256 entries: 8192 of 4096 ids
(`SupervisedContrastive`), 8192 rows and as many columns (`InfoNCE` from both
sides, `SigmoidContrastive`), beside the formula with all pairs in `keras.ops`,
`optax.losses.ntxent` and pytorch-metric-learning's `SupConLoss` (left out where
they are not installed). InfoNCE's formula is that of open_clip. Every case runs
in a process of its own.

    python benchmarks/contrastive.py --kinds large

65,536 embeddings, and 65,536 rows and columns, whose pairs would be 16 GB.
`blocks` sets the block size. On a GPU: gpu.py.
"""

import harness
import numpy as np

LOSSES = ("supervised", "info_nce", "sigmoid")
PEERS = {
    ("JAX", "supervised"): ["optax"],
    ("PyTorch", "supervised"): ["pytorch-metric-learning"],
}
DENSE = "all pairs"
ROWS, MANY, DIM, TEMPERATURE, BIAS = 8192, 65_536, 256, 0.1, -10.0


def cases():
    for mode in harness.MODES:
        for kind in LOSSES:
            for loss in ("keras_xent", DENSE, *PEERS.get((mode, kind), [])):
                yield case(mode, kind, kind, loss, ROWS)
    for mode in harness.MODES:
        for loss in LOSSES:
            yield case(mode, "large", loss, "keras_xent", MANY, repeats=1)
        for size in (64, 128, 256, 512, 1024):
            for loss in LOSSES:
                yield case(
                    mode, "blocks", loss, "keras_xent", ROWS, block_size=size
                )


def case(mode, kind, name, loss, n, **more):
    return dict(mode=mode, kind=kind, name=name, loss=loss, n=n, **more)


def run(case):
    function = make_loss(case["name"], case["loss"], case.get("block_size"))
    views = 1 if case["name"] == "supervised" else 2
    return harness.time_and_memory(
        lambda: harness.step(function, case["mode"]),
        make_data(1024, views, 4),  # Several blocks, as in the large one.
        make_data(case["n"], views, DIM),
        repeats=case.get("repeats", 3),
    )


def make_data(n, views, dim, dtype="float32"):
    """Embeddings `(n, views, dim)`, half of them near another, and ids."""
    from keras import ops

    rng = np.random.default_rng(0)
    count = n if views == 2 else n // 2
    of_id = rng.normal(size=(count, 1, dim))
    of_id = np.broadcast_to(of_id, (count, 2, dim)).reshape(n, views, dim)
    x = (of_id + rng.normal(size=(n, views, dim))).astype("float32")
    ids = np.arange(n) * count // n
    return (
        ops.convert_to_tensor(x, dtype=dtype),
        ops.convert_to_tensor(ids.astype("int32")),
    )


def make_loss(name, loss, block_size=None):
    """A function of embeddings and ids."""
    import keras_xent

    if loss == DENSE:
        return {
            "supervised": supervised,
            "info_nce": info_nce,
            "sigmoid": sigmoid,
        }[name]
    if loss != "keras_xent":
        return peer(loss)
    losses = keras_xent.losses
    ours = {
        "supervised": losses.SupervisedContrastive,
        "info_nce": losses.InfoNCE,
        "sigmoid": losses.SigmoidContrastive,
    }[name](temperature=TEMPERATURE, block_size=block_size)
    return lambda x, ids: ours(ids, x)


def supervised(x, ids):
    """All pairs at once, as the definition reads."""
    from keras import ops

    x = ops.normalize(x[:, 0], axis=-1)
    logits = ops.matmul(x, ops.transpose(x)) / TEMPERATURE
    own = ops.eye(x.shape[0], dtype="bool")
    match = ops.cast((ids[:, None] == ids[None]) & ~own, x.dtype)
    logits = ops.where(own, ops.cast(-1e9, x.dtype), logits)
    log_p = logits - ops.logsumexp(logits, axis=1, keepdims=True)
    return -ops.mean(ops.sum(match * log_p, axis=1) / ops.sum(match, axis=1))


def info_nce(x, ids):
    """As in open_clip, whose ids are those of the rows."""
    import keras
    from keras import ops

    x = ops.normalize(x, axis=-1)
    logits = ops.matmul(x[:, 0], ops.transpose(x[:, 1])) / TEMPERATURE
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return (loss(ids, logits) + loss(ids, ops.transpose(logits))) / 2


def sigmoid(x, ids):
    """As in the paper of SigLIP, whose ids are those of the rows."""
    from keras import ops

    x = ops.normalize(x, axis=-1)
    logits = ops.matmul(x[:, 0], ops.transpose(x[:, 1])) / TEMPERATURE + BIAS
    signs = 2 * ops.eye(x.shape[0], dtype=x.dtype) - 1
    return -ops.sum(ops.log_sigmoid(signs * logits)) / x.shape[0]


def peer(name):
    if name == "optax":
        import optax

        def ntxent(x, ids):
            return optax.losses.ntxent(x[:, 0], ids, TEMPERATURE).mean()

        return ntxent
    from pytorch_metric_learning import losses

    loss = losses.SupConLoss(temperature=TEMPERATURE)
    return lambda x, ids: loss(x[:, 0], ids)


def table(chosen, rounds):
    print(
        "\n| | loss | formula | n × dim | s | of all pairs | peak MB | "
        "of all pairs |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for index in range(len(chosen)):
        print("| " + " | ".join(row(chosen, rounds, index)) + " |")


def row(chosen, rounds, index):
    case = chosen[index]
    dense = [
        other
        for other, c in enumerate(chosen)
        if c["loss"] == DENSE
        and all(c[key] == case[key] for key in ("mode", "name", "n"))
    ]
    time, memory = (
        harness.ratio(rounds, index, dense[0], key) if dense else None
        for key in ("seconds", "peak_mb")
    )
    name = case["loss"]
    if "block_size" in case:
        name += f", blocks of {case['block_size']}"
    return [
        case["mode"],
        case["name"],
        name,
        f"{case['n']} × {DIM}",
        harness.show(harness.median(rounds, index, "seconds"), 2),
        harness.show(time, 2),
        harness.show(harness.median(rounds, index, "peak_mb"), 0),
        "–" if memory is None else f"1/{1 / memory:.0f}",
    ]


if __name__ == "__main__":
    harness.main(cases, run, [table], usual=LOSSES)
