"""Losses over a sample of the classes, beside those over all of them.

    python benchmarks/sampled.py
    python benchmarks/sampled.py --kinds rows kernel gather losses

`rows`: sampled softmax with 64 samples for features [1024, 128] and 10⁴, 10⁵
and 10⁶ classes, from the draw to the gradients of the features and of the rows
that it reads. `kernel`: the same, with the gradient of all class vectors as an
optimizer wants it. `gather`: what the framework takes of that, the gather of as
many class vectors by itself and the gradient of all of them. `losses`: what a
step costs by each of the losses, features [2048, 256] and 131,072 classes.
Every case runs in a process of its own.
"""

import harness
import numpy as np

SAMPLES = 64
# A process takes ten or twenty short steps to come to its speed.
REPEATS = {"rows": 200, "kernel": 20, "gather": 20, "losses": 5}
LOSSES = ("full", "linear", "sampled softmax", "NCE")


def cases():
    for mode in harness.MODES:
        for kind in ("rows", "kernel", "gather"):
            names = ["gather" if kind == "gather" else "keras_xent"]
            if mode == "TensorFlow graph" and kind == "kernel":
                # Its sampler and its search for hits do not compile.
                names.append("tf.nn.sampled_softmax_loss")
            for name in names:
                for v in (10**4, 10**5, 10**6):
                    yield case(mode, kind, name, 1024, 128, v)
        for name in LOSSES:
            yield case(mode, "losses", name, 2048, 256, 131_072)


def case(mode, kind, name, n, d, v):
    return dict(locals())


def run(case):
    data = make_data(case["n"], case["d"], case["v"])
    tiny = make_data(case["n"], 8, 1000)
    steps = {"rows": rows_step, "gather": gather_step}
    step = steps.get(case["kind"], whole_step)
    return harness.time_and_memory(
        lambda: step(case), tiny, data, repeats=REPEATS[case["kind"]]
    )


def make_data(n, d, v):
    """Features, class vectors, Zipfian labels, and a seed."""
    import keras
    from keras import ops

    rng = np.random.default_rng(0)
    vectors = rng.standard_normal(size=(v, d), dtype="float32")
    vectors /= np.sqrt(d)  # in place, or it would be float64
    labels = np.exp(rng.random(n) * np.log(v)).astype("int32") - 1
    return (
        ops.convert_to_tensor(
            rng.standard_normal(size=(n, d), dtype="float32")
        ),
        ops.convert_to_tensor(vectors),
        ops.convert_to_tensor(labels),
        keras.random.SeedGenerator(0).next(),
    )


def draw(labels, classes, seed):
    from keras_xent import heads, ops

    return ops.log_uniform_sample(
        labels, SAMPLES, classes, seed=heads.DrawnSeed(seed)
    )


def whole_step(case):
    """Value and gradients of the features and of all class vectors."""
    return harness.step(make_loss(case["name"]), case["mode"], count=2)


def make_loss(name):
    import keras
    from keras import ops

    import keras_xent

    if name == "full":
        full = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        return lambda x, w, y, seed: full(y, ops.matmul(x, ops.transpose(w)))
    if name == "linear":
        return lambda x, w, y, seed: ops.mean(
            keras_xent.ops.linear_softmax_crossentropy(y, x, class_vectors=w)
        )
    if name == "tf.nn.sampled_softmax_loss":
        import tensorflow as tf

        return lambda x, w, y, seed: tf.reduce_mean(
            tf.nn.sampled_softmax_loss(
                w, tf.zeros(w.shape[:1]), y[:, None], x, SAMPLES, w.shape[0]
            )
        )
    loss = keras_xent.ops.sampled_softmax_crossentropy
    if name == "NCE":
        loss = keras_xent.ops.nce_loss

    def sampled(x, w, y, seed):
        return ops.mean(
            loss(y, x, class_vectors=w, candidates=draw(y, w.shape[0], seed))
        )

    return sampled


def rows_step(case):
    """Value and gradients of the features and of the rows that are read.

    The rows are gathered first and numbered anew, so that no gradient has the
    size of the matrix. Hits are not looked for: their numbers are lost.
    """
    from keras import ops

    from keras_xent.ops import sampled_softmax_crossentropy

    def loss(x, rows, candidates):
        n = x.shape[0]
        _, *counts = candidates
        own = ops.arange(n, dtype="int32")
        sample = ops.arange(n, n + SAMPLES, dtype="int32")
        return ops.mean(
            sampled_softmax_crossentropy(
                own,
                x,
                class_vectors=rows,
                candidates=(sample, *counts),
                remove_accidental_hits=False,
            )
        )

    inner = harness.gradients(loss, case["mode"], count=2)

    def step(x, w, y, seed):
        candidates = draw(y, w.shape[0], seed)
        rows = ops.take(w, ops.concatenate([y, candidates.ids]), axis=0)
        return inner(x, rows, candidates)

    return harness.compiled(step, case["mode"])


def gather_step(case):
    """Value and gradient of all class vectors, of a sum over the rows read."""
    from keras import ops

    def loss(w, y):
        chosen = ops.concatenate([y, y[:SAMPLES]])
        return ops.sum(ops.square(ops.take(w, chosen, axis=0)))

    step = harness.step(loss, case["mode"])
    return lambda x, w, y, seed: step(w, y)


def table(chosen, rounds):
    for kind in dict.fromkeys(case["kind"] for case in chosen):
        print(f"\n{kind}\n")
        print("| | loss | classes | ms | of the first | peak MB |")
        print("| --- | --- | --- | --- | --- | --- |")
        first = None
        for index, case in enumerate(chosen):
            if case["kind"] != kind:
                continue
            key = case["mode"], kind != "losses" and case["name"]
            if first is None or first[0] != key:
                first = key, index
            seconds = harness.median(rounds, index, "seconds")
            ratio = harness.ratio(rounds, index, first[1], "seconds")
            cells = [
                case["mode"],
                case["name"],
                f"{case['v']:,}",
                harness.show(seconds and 1000 * seconds, 2),
                harness.show(ratio, 2),
                harness.show(harness.median(rounds, index, "peak_mb"), 0),
            ]
            print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    harness.main(cases, run, [table], usual=list(REPEATS))
