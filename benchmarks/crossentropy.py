"""Cross-entropy from logits beside Keras's own and the backend's native loss.

    python benchmarks/crossentropy.py

Forward and backward on [1024, 32768] float32 logits, every case in a process of
its own. And one eager call on [32, 10], in turns with Keras's and the native
one: they take microseconds, and a machine may change its speed from one process
to the next.

    python benchmarks/crossentropy.py --kinds options --rounds 1

The same with each option alone, with a weight for each row (a quarter of them
0), and with logits of lower precision, in turns with the loss without; and the
focal losses of Keras and, on PyTorch, by the formula of torchvision.
"""

import harness
import numpy as np

LOSSES = ["sparse", "dense", "sigmoid"]
MAKERS = ("keras_xent", "Keras", "native")
KINDS = [*LOSSES, *("small " + kind for kind in LOSSES)]
NATIVE = {
    "PyTorch": "torch.nn.functional",
    "JAX": "optax",
    "TensorFlow graph": "tf.nn",
    "TensorFlow XLA": "tf.nn",
}
BIG, SMALL = (1024, 32768), (32, 10)

# The arguments of ours, for each option alone.
OPTIONS = {
    "plain": {},
    "label_smoothing": {"label_smoothing": 0.1},
    "class_weight": {"class_weight": {0: 2.0, 7: 0.5}},
    "pos_weight": {"pos_weight": 3.0},
    "focal_gamma": {"focal_gamma": 2.0},
    "z_loss": {"z_loss": 1e-4},
    "weights": {},
    "bfloat16": {},
    "float16": {},
}
FOCAL_PEERS = {
    "sparse": [],
    "dense": ["Keras focal"],
    "sigmoid": ["Keras focal", "torchvision's formula"],
}


def cases():
    return [*usual_cases(), *option_cases()]


def option_cases():
    for mode in NATIVE:
        for of in LOSSES:
            left_out = ("pos_weight",)
            if of == "sigmoid":
                left_out = ("class_weight", "z_loss")
            names = [name for name in OPTIONS if name not in left_out]
            for option in [*names, *FOCAL_PEERS[of]]:
                if option.startswith("torchvision") and mode != "PyTorch":
                    continue
                yield {
                    "mode": mode,
                    "kind": "options",
                    "of": of,
                    "option": option,
                }


def usual_cases():
    big = [
        {"mode": mode, "kind": kind, "loss": loss}
        for kind in LOSSES
        for mode in NATIVE
        for loss in MAKERS
    ]
    small = [
        {"mode": mode, "kind": "small " + kind}
        for kind in LOSSES
        for mode in NATIVE
        # A small call is eager: graph and XLA make no difference.
        if mode != "TensorFlow XLA"
    ]
    return big + small


def run(case):
    if case["kind"] == "options":
        return run_option(**case)
    if case["kind"].startswith("small"):
        return run_small(case["kind"].removeprefix("small "), case["mode"])
    kind = case["kind"]
    loss = make_loss(kind, case["loss"], case["mode"])

    def mean(logits, targets):
        return loss(targets, logits)

    return harness.time_and_memory(
        lambda: harness.step(mean, case["mode"]),
        make_data(kind, (8, 16), case["mode"]),
        make_data(kind, BIG, case["mode"]),
    )


def run_small(kind, mode):
    """µs of each call, and its ratio to that of Keras beside it."""
    logits, targets = make_data(kind, SMALL, mode)

    def call(name):
        loss = make_loss(kind, name, mode)
        return lambda: wait(loss(targets, logits))

    calls = {name: call(name) for name in MAKERS}
    return harness.in_turns(calls, dict.fromkeys(MAKERS, "Keras"))


def run_option(mode, of, option, kind):
    from keras import ops

    loss = option_loss(of, option)

    def step(loss):
        return harness.step(lambda x, y, *w: loss(y, x, *w), mode)

    def data(shape):
        logits, targets = make_data(of, shape, mode)
        if option in ("bfloat16", "float16"):
            logits = ops.cast(logits, option)
        if option != "weights":
            return logits, targets
        weights = (np.arange(shape[0]) % 4 > 0).astype("float32")
        return logits, targets, ops.convert_to_tensor(weights)

    arrays = data(BIG)
    measured = harness.time_and_memory(
        lambda: step(loss), data((8, 16)), arrays
    )
    steps = {"plain": step(make_class(of)()), option: step(loss)}
    given = {"plain": make_data(of, BIG, mode), option: arrays}
    calls = {
        name: lambda name=name: harness.wait(steps[name](*given[name]))
        for name in steps
    }
    peers = {option: "plain"}
    found = harness.in_turns(calls, peers, turns=5, repeats=1, warm=1)
    return measured | {"ratio": found[f"{option} ratio"]}


def option_loss(of, option):
    import keras

    if option == "Keras focal":
        return {
            "dense": keras.losses.CategoricalFocalCrossentropy,
            "sigmoid": keras.losses.BinaryFocalCrossentropy,
        }[of](from_logits=True)
    if option == "torchvision's formula":
        return torchvision_focal
    return make_class(of)(**OPTIONS[option])


def torchvision_focal(targets, logits, gamma=2.0):
    """What `torchvision.ops.sigmoid_focal_loss` computes, without its α."""
    import torch
    from torch.nn import functional

    p = torch.sigmoid(logits)
    losses = functional.binary_cross_entropy_with_logits(
        logits, targets, reduction="none"
    )
    p_of_target = p * targets + (1 - p) * (1 - targets)
    return (losses * (1 - p_of_target) ** gamma).mean()


def make_class(kind):
    import keras_xent

    return {
        "sparse": keras_xent.losses.SparseSoftmaxCrossentropy,
        "dense": keras_xent.losses.SoftmaxCrossentropy,
        "sigmoid": keras_xent.losses.SigmoidCrossentropy,
    }[kind]


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

    if name == "keras_xent":
        return make_class(kind)()
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


def option_table(chosen, rounds):
    for of in LOSSES:
        mine = [
            (i, case)
            for i, case in enumerate(chosen)
            if case["kind"] == "options" and case["of"] == of
        ]
        if not mine:
            continue
        modes = list(dict.fromkeys(case["mode"] for _, case in mine))
        print(f"\n{of}, s (ratio to plain), peak MB\n")
        print("| | " + " | ".join(modes) + " |")
        print("| --- " * (len(modes) + 1) + "|")
        for option in dict.fromkeys(case["option"] for _, case in mine):
            cells = [option]
            for mode in modes:
                found = {c["option"]: i for i, c in mine if c["mode"] == mode}
                if option not in found:
                    cells.append("–")
                    continue
                seconds, ratio, peak = (
                    harness.median(rounds, found[option], key)
                    for key in ("seconds", "ratio", "peak_mb")
                )
                cells.append(
                    f"{harness.show(seconds, 3)} ({harness.show(ratio, 2)}), "
                    f"{harness.show(peak, 0)}"
                )
            print("| " + " | ".join(cells) + " |")


def table(chosen, rounds):
    kinds = dict.fromkeys(case["kind"] for case in chosen)
    for kind in kinds:
        if kind not in LOSSES:
            continue
        print(f"\n{kind}, {BIG}\n")
        print("| | loss | s | of the faster peer | peak MB |")
        print("| --- | --- | --- | --- | --- |")
        for start, case in enumerate(chosen):
            if case["kind"] != kind or case["loss"] != "keras_xent":
                continue
            peers = [start + 1, start + 2]
            fastest = min(
                peers, key=lambda i: harness.median(rounds, i, "seconds")
            )
            for index in range(start, start + 3):
                name = chosen[index]["loss"]
                name = NATIVE[case["mode"]] if name == "native" else name
                cells = [
                    case["mode"],
                    name,
                    harness.show(harness.median(rounds, index, "seconds"), 3),
                    harness.show(
                        harness.ratio(rounds, index, fastest, "seconds"), 2
                    ),
                    harness.show(harness.median(rounds, index, "peak_mb"), 0),
                ]
                print("| " + " | ".join(cells) + " |")


def small_table(chosen, rounds):
    mine = [
        (i, case)
        for i, case in enumerate(chosen)
        if case["kind"].startswith("small")
    ]
    if not mine:
        return
    print(f"\n{SMALL}, one eager call, µs (ratio to Keras's)\n")
    print(f"| | | {' | '.join(MAKERS)} |")
    print("| --- | --- " + "| --- " * len(MAKERS) + "|")
    for index, case in mine:
        cells = [case["kind"].removeprefix("small "), case["mode"].split()[0]]
        for name in MAKERS:
            time = harness.median(rounds, index, name)
            ratio = harness.median(rounds, index, f"{name} ratio")
            cells.append(f"{harness.show(time, 0)} ({harness.show(ratio, 2)})")
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    harness.main(cases, run, [table, small_table, option_table], usual=KINDS)
