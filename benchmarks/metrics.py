"""The score histogram's update and result, beside keras.metrics.AUC(200).

    python benchmarks/metrics.py

`update` counts 100,000 scores, `result` runs in every training step. Compiled
as in `fit`; eager on PyTorch.
"""

import harness
import numpy as np

SCORES = 100_000


def cases():
    return [
        {"mode": mode, "kind": kind, "metric": metric}
        for kind in ("update", "result")
        for mode in harness.MODES
        for metric in ("MatchAccuracy", "AUC")
    ]


def run(case):
    import keras

    import keras_xent

    metric = {
        "MatchAccuracy": keras_xent.metrics.MatchAccuracy,
        "AUC": keras.metrics.AUC,
    }[case["metric"]]()
    rng = np.random.default_rng(0)
    scores = keras.ops.convert_to_tensor(rng.random(SCORES).astype("float32"))
    flags = keras.ops.convert_to_tensor(rng.integers(0, 2, SCORES))
    metric.update_state(flags, scores)
    calls = jax_calls if case["mode"] == "JAX" else plain_calls
    call = calls(metric, flags, scores, case["mode"])[case["kind"]]
    return {"ms": harness.call_time(call, repeats=100) / 1000}


def plain_calls(metric, flags, scores, mode):
    def update():
        metric.update_state(flags, scores)

    calls = {"update": update, "result": metric.result}
    if mode == "PyTorch":
        return calls
    import tensorflow as tf

    xla = mode == "TensorFlow XLA"
    return {k: tf.function(f, jit_compile=xla) for k, f in calls.items()}


def jax_calls(metric, flags, scores, mode):
    import jax

    state = [variable.value for variable in metric.variables]
    update = jax.jit(metric.stateless_update_state)
    result = jax.jit(metric.stateless_result)
    return {
        "update": lambda: jax.block_until_ready(update(state, flags, scores)),
        "result": lambda: jax.block_until_ready(result(state)),
    }


def table(chosen, rounds):
    for kind in dict.fromkeys(case["kind"] for case in chosen):
        print(f"\n{kind}, ms\n")
        print("| | MatchAccuracy, 65,281 bins | AUC, 200 thresholds |")
        print("| --- | --- | --- |")
        for start, case in enumerate(chosen):
            if case["kind"] != kind or case["metric"] == "AUC":
                continue
            cells = [
                harness.show(harness.median(rounds, index, "ms"), 2)
                for index in (start, start + 1)
            ]
            print("| " + " | ".join([case["mode"], *cells]) + " |")


if __name__ == "__main__":
    harness.main(cases, run, [table])
