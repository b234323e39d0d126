"""Cross-entropy from logits beside Keras's own and the backend's native loss.

    python benchmarks/crossentropy.py

Forward and backward on [1024, 32768] float32 logits, and one eager call on
[32, 10]. Every case runs in a process of its own.
"""

import harness
import numpy as np

KINDS = ["sparse", "dense", "sigmoid", "small sparse", "small dense"]
NATIVE = {
    "PyTorch": "torch.nn.functional",
    "JAX": "optax",
    "TensorFlow graph": "tf.nn",
    "TensorFlow XLA": "tf.nn",
}
BIG, SMALL = (1024, 32768), (32, 10)


def cases():
    return [
        {"mode": mode, "kind": kind, "loss": loss}
        for kind in KINDS
        for mode in NATIVE
        # A small call is eager: graph and XLA make no difference.
        if not (kind.startswith("small") and mode == "TensorFlow XLA")
        for loss in ("keras_xent", "Keras", "native")
    ]


def run(case):
    kind = case["kind"].removeprefix("small ")
    loss = make_loss(kind, case["loss"], case["mode"])
    if case["kind"].startswith("small"):
        logits, targets = make_data(kind, SMALL, case["mode"])
        return {"us": harness.call_time(lambda: wait(loss(targets, logits)))}

    def mean(logits, targets):
        return loss(targets, logits)

    return harness.time_and_memory(
        lambda: harness.step(mean, case["mode"]),
        make_data(kind, (8, 16), case["mode"]),
        make_data(kind, BIG, case["mode"]),
    )


def wait(value):
    if hasattr(value, "block_until_ready"):
        value.block_until_ready()


def make_data(kind, shape, mode):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=shape).astype("float32")
    labels = rng.integers(0, shape[1], shape[0]).astype("int32")
    targets = labels
    if kind == "dense":
        targets = np.full(shape, 0.1 / shape[1], "float32")
        targets[np.arange(shape[0]), labels] += 0.9
    elif kind == "sigmoid":
        targets = (rng.random(shape) < 0.5).astype("float32")
    from keras import ops

    return ops.convert_to_tensor(logits), ops.convert_to_tensor(targets)


def make_loss(kind, name, mode):
    import keras

    import keras_xent

    if name == "keras_xent":
        return {
            "sparse": keras_xent.losses.SparseSoftmaxCrossentropy,
            "dense": keras_xent.losses.SoftmaxCrossentropy,
            "sigmoid": keras_xent.losses.SigmoidCrossentropy,
        }[kind]()
    if name == "Keras":
        return {
            "sparse": keras.losses.SparseCategoricalCrossentropy,
            "dense": keras.losses.CategoricalCrossentropy,
            "sigmoid": keras.losses.BinaryCrossentropy,
        }[kind](from_logits=True)
    return native_loss(kind, mode)


def native_loss(kind, mode):
    if mode == "PyTorch":
        from torch.nn import functional

        if kind == "sigmoid":
            return lambda y, x: functional.binary_cross_entropy_with_logits(
                x, y
            )
        if kind == "dense":
            return lambda y, x: functional.cross_entropy(x, y)
        return lambda y, x: functional.cross_entropy(x, y.long())
    if mode == "JAX":
        import optax

        function = {
            "sparse": optax.softmax_cross_entropy_with_integer_labels,
            "dense": optax.softmax_cross_entropy,
            "sigmoid": optax.sigmoid_binary_cross_entropy,
        }[kind]
        return lambda y, x: function(x, y).mean()
    import tensorflow as tf

    function = {
        "sparse": tf.nn.sparse_softmax_cross_entropy_with_logits,
        "dense": tf.nn.softmax_cross_entropy_with_logits,
        "sigmoid": tf.nn.sigmoid_cross_entropy_with_logits,
    }[kind]
    return lambda y, x: tf.reduce_mean(function(y, x))


def table(chosen, rounds):
    for kind in dict.fromkeys(case["kind"] for case in chosen):
        small = kind.startswith("small")
        key, unit = ("us", "µs") if small else ("seconds", "s")
        print(f"\n{kind}, {SMALL if small else BIG}\n")
        print(f"| | loss | {unit} | of the faster peer | peak MB |")
        print("| --- | --- | --- | --- | --- |")
        for start, case in enumerate(chosen):
            if case["kind"] != kind or case["loss"] != "keras_xent":
                continue
            peers = [start + 1] if small else [start + 1, start + 2]
            fastest = min(peers, key=lambda i: harness.median(rounds, i, key))
            for index in range(start, start + 3):
                name = chosen[index]["loss"]
                name = NATIVE[case["mode"]] if name == "native" else name
                cells = [
                    case["mode"],
                    name,
                    harness.show(
                        harness.median(rounds, index, key), 0 if small else 3
                    ),
                    harness.show(harness.ratio(rounds, index, fastest, key), 2),
                    harness.show(harness.median(rounds, index, "peak_mb"), 0),
                ]
                print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    harness.main(cases, run, [table])
