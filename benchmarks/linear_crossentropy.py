"""Cross-entropy of a linear classifier, with the logits and without.

    python benchmarks/linear_crossentropy.py

Forward and backward of both factors, features [2048, 256] and kernels of 32,768
and 131,072 classes in float32, beside Keras's own Dense product and loss, the
backend's native pair and its fused peers: `torch.nn.functional.
linear_cross_entropy`, `tokamax` and `jax-cce` (`pip install tokamax cce-jax`;
left out where they are not installed). Every case runs in a process of its own.

    python benchmarks/linear_crossentropy.py --kinds classes rows blocks

`classes` and `rows` double v and n step by step, `blocks` sets the block size.
`--plot FILE` draws `classes`. On a GPU: gpu.py.

    python benchmarks/linear_crossentropy.py --kinds cosine

is the loss on a `CosineHead` with an angular margin of 0.2, beside ArcFace's
formula in Keras and pytorch-metric-learning's (left out where it is missing).
"""

import harness
import numpy as np

PEERS = {
    "PyTorch": ["torch linear_cross_entropy"],
    "JAX": ["optax", "tokamax", "jax-cce"],
    "TensorFlow graph": ["tf.nn"],
    "TensorFlow XLA": ["tf.nn"],
}
ARCFACE = {"PyTorch": ["pytorch-metric-learning"]}
SCALE, MARGIN = 30.0, 0.2
FUSED = ["torch linear_cross_entropy", "tokamax", "jax-cce"]
KERNEL = [
    "keras_xent",
    "Keras",
    "optax",
    "tf.nn",
    "tokamax",
    "pytorch-metric-learning",
]
ROWS, FEATURES = 2048, 256


def cases():
    """The two sizes first: they are what runs without `--kinds`."""
    for mode, peers in PEERS.items():
        for kind in ("32768", "131072"):
            for loss in ("keras_xent", "keras_xent vectors", "Keras", *peers):
                yield case(mode, kind, loss, ROWS, int(kind))
        for v in (8192, 16384, 32768, 65536, 131072):
            for loss in ("keras_xent", "Keras"):
                yield case(mode, "classes", loss, ROWS, v)
        for n in (512, 1024, 2048, 4096, 8192):
            yield case(mode, "rows", "keras_xent", n, 32768)
        for loss in ("keras_xent", "Keras", *ARCFACE.get(mode, [])):
            yield case(mode, "cosine", loss, ROWS, 131072)
        for size in (256, 512, 1024, 2048, 4096, 8192):
            yield case(
                mode, "blocks", "keras_xent", ROWS, 32768, block_size=size
            )


def case(mode, kind, loss, n, v, **more):
    return dict(mode=mode, kind=kind, loss=loss, n=n, v=v, d=FEATURES, **more)


def run(case):
    loss = make_loss(case)
    n, d, v = case["n"], case["d"], case["v"]
    measured = harness.time_and_memory(
        lambda: harness.step(loss, case["mode"], count=2),
        make_data(case, n, 8, 8192),
        make_data(case, n, d, v),
    )
    gradient_mb = 4 * d * v / 2**20
    return {**measured, "gradient_mb": gradient_mb}


def vectors(case):
    """Whether the weights are `[v, d]`, one row per class."""
    return case["loss"] not in KERNEL


def make_data(case, n, d, v):
    from keras import ops

    rng = np.random.default_rng(0)
    features = rng.normal(size=(n, d)).astype("float32")
    shape = (v, d) if vectors(case) else (d, v)
    weights = rng.standard_normal(size=shape, dtype="float32")
    weights /= np.sqrt(d)  # in place, or it would be float64
    labels = rng.integers(0, v, n).astype("int32")
    return (
        ops.convert_to_tensor(features),
        ops.convert_to_tensor(weights),
        ops.convert_to_tensor(labels),
    )


def make_loss(case):
    import keras
    from keras import ops

    import keras_xent

    name = case["loss"]
    if case["kind"] == "cosine":
        return arcface(case)
    if name.startswith("keras_xent"):
        key = "class_vectors" if vectors(case) else "kernel"
        size = case.get("block_size")

        def fused(x, weights, labels):
            losses = keras_xent.ops.linear_softmax_crossentropy(
                labels, x, **{key: weights}, block_size=size
            )
            return ops.mean(losses)

        return fused
    if name == "Keras":
        keras_loss = keras.losses.SparseCategoricalCrossentropy(
            from_logits=True
        )
        if vectors(case):
            return lambda x, w, y: keras_loss(y, x @ ops.transpose(w))
        return lambda x, w, y: keras_loss(y, ops.matmul(x, w))
    return peer(name)


def arcface(case):
    """The loss with an angular margin, from features and class vectors."""
    import math

    import keras
    from keras import ops

    from keras_xent.ops import linear
    from keras_xent.ops.cosine import CosineLogits, with_margin

    if case["loss"] == "keras_xent":
        margins = [ops.convert_to_tensor(m, "float32") for m in (MARGIN, 0.0)]

        def blockwise(x, weights, labels):
            loss, _ = linear.losses_and_terms(
                labels,
                x,
                kernel=weights,
                logits=CosineLogits(SCALE, *margins),
                row_weights=ops.ones_like(x[:, 0]) / x.shape[0],
                summed=True,
            )
            return loss

        return blockwise
    if case["loss"] == "Keras":
        keras_loss = keras.losses.SparseCategoricalCrossentropy(
            from_logits=True
        )

        def dense(x, weights, labels):
            cosines = ops.normalize(x, axis=1) @ ops.normalize(weights, axis=0)
            own = ops.one_hot(labels, weights.shape[1], dtype="bool")
            turned = with_margin(cosines, MARGIN, 0.0)
            return keras_loss(labels, SCALE * ops.where(own, turned, cosines))

        return dense
    from pytorch_metric_learning.losses import ArcFaceLoss

    def theirs(x, weights, labels):
        loss = ArcFaceLoss(
            num_classes=2,
            embedding_size=x.shape[1],
            margin=math.degrees(MARGIN),
            scale=SCALE,
        )
        loss.num_classes = weights.shape[1]
        del loss.W
        loss.W = weights
        return loss(x, labels.long())

    return theirs


def peer(name):
    if name == "torch linear_cross_entropy":
        import torch

        options = torch.nn.LinearCrossEntropyOptions(
            chunking_method=None, batch_chunk_size=256
        )
        fused = torch.nn.functional.linear_cross_entropy
        return lambda x, w, y: fused(x, w, y.long(), options=options)
    if name == "optax":
        import optax

        plain = optax.softmax_cross_entropy_with_integer_labels
        return lambda x, w, y: plain(x @ w, y).mean()
    if name == "tf.nn":
        import tensorflow as tf

        plain = tf.nn.sparse_softmax_cross_entropy_with_logits
        return lambda x, w, y: tf.reduce_mean(plain(y, x @ w))
    if name == "tokamax":
        import tokamax
        from absl import flags

        flags.FLAGS([name])  # It would read this script's own arguments.
        fused = tokamax.linear_softmax_cross_entropy_loss
        return lambda x, w, y: fused(x, y, w, reduction="mean")
    if name == "jax-cce":
        import jax_cce

        return lambda x, w, y: jax_cce.linear_cross_entropy(
            x, w, y, chunk_size=1024
        )
    if name == "Liger":
        from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

        fused = LigerFusedLinearCrossEntropyLoss()
        return lambda x, w, y: fused(w, x, y.long())
    from cut_cross_entropy import linear_cross_entropy

    return lambda x, w, y: linear_cross_entropy(x, w, y.long())


def table(chosen, rounds):
    for kind in dict.fromkeys(case["kind"] for case in chosen):
        print(f"\n{kind}\n")
        print(
            "| | loss | n × d × v | s | of Keras | of the fused peer | "
            "peak MB | beyond the gradient | of Keras |"
        )
        print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
        for index, case in enumerate(chosen):
            if case["kind"] == kind:
                cells = row(chosen, rounds, index)
                print("| " + " | ".join(cells) + " |")


def row(chosen, rounds, index):
    case = chosen[index]
    alike = [
        other
        for other, c in enumerate(chosen)
        if all(c[key] == case[key] for key in ("mode", "kind", "n", "v"))
    ]
    keras = [i for i in alike if chosen[i]["loss"] == "Keras"]
    fused = [i for i in alike if chosen[i]["loss"] in FUSED]
    fused = [i for i in fused if harness.median(rounds, i, "seconds")]
    fused.sort(key=lambda i: harness.median(rounds, i, "seconds"))
    peak = harness.median(rounds, index, "peak_mb")
    gradient = harness.median(rounds, index, "gradient_mb")
    beyond = None if peak is None else peak - gradient
    share, whole = None, None
    if keras:
        whole = harness.median(rounds, keras[0], "peak_mb")
    if whole and beyond:
        share = beyond / whole
    name = case["loss"]
    if "block_size" in case:
        name += f", blocks of {case['block_size']}"
    ratios = [
        harness.ratio(rounds, index, peers[0], "seconds") if peers else None
        for peers in (keras, fused)
    ]
    return [
        case["mode"],
        name,
        f"{case['n']} × {case['d']} × {case['v']}",
        harness.show(harness.median(rounds, index, "seconds"), 2),
        *(harness.show(ratio, 2) for ratio in ratios),
        harness.show(peak, 0),
        harness.show(beyond, 0),
        "–" if share is None else f"1/{1 / share:.0f}",
    ]


def plot(chosen, rounds, path):
    """Time and memory against the number of classes, on two log axes."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    labels = {"seconds": "seconds", "peak_mb": "peak memory, MB"}
    modes = dict.fromkeys(c["mode"] for c in chosen if c["kind"] == "classes")
    for axis, (key, label) in zip(axes, labels.items(), strict=True):
        for color, mode in enumerate(modes):
            for loss, style in (("keras_xent", "-"), ("Keras", ":")):
                points = [
                    (c["v"], harness.median(rounds, i, key))
                    for i, c in enumerate(chosen)
                    if (c["kind"], c["mode"], c["loss"])
                    == ("classes", mode, loss)
                ]
                axis.plot(
                    *zip(*points, strict=True),
                    style,
                    marker="o",
                    color=f"C{color}",
                    label=f"{mode}, {loss}",
                )
        axis.set(xscale="log", yscale="log", xlabel="classes", ylabel=label)
        axis.set_xticks([], minor=True)
        sizes = sorted({c["v"] for c in chosen if c["kind"] == "classes"})
        axis.set_xticks(sizes, [f"{size:,}" for size in sizes])
        axis.grid(alpha=0.3)
    handles = axes[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=4)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    harness.main(cases, run, [table], usual=["32768", "131072"], plot=plot)
