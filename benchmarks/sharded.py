"""What a head whose classes are spread over devices costs each of them.

    python benchmarks/sharded.py

For each mesh, data × model devices, the training step of a `LinearHead` with
`LinearCrossentropy` is compiled for so many devices that JAX only pretends to
have. From the compiled program come the temporary memory of a device and the
bytes that it sends in a step; beside them what `memory` and `sent` say on
paper, and a Dense layer with Keras's loss. Nothing is run: it needs no
accelerator, and says nothing of time.

    python benchmarks/sharded.py --paper

The same formulas for 256,000 classes and 8,192 features on 8, 64 and 512
devices.

    python benchmarks/sharded.py --in-batch

The losses in which the rows of a batch meet, under `DataParallel`: what a
device needs and sends, beside its share of a matrix of all pairs.
"""

import argparse
import json
import math
import os
import re
import subprocess
import sys

# Of a device: `ROWS` are those of one part of the batch.
ROWS, WIDTH, CLASSES, BLOCK = 256, 64, 32768, 1024
MESHES = ((1, 8), (2, 4), (4, 2), (8, 8))
# Axes of the kernel, (features, classes).
LAYOUTS = {"classes": (None, "model"), "both": ("data", "model")}
PAPER = {"rows": 8192, "width": 8192, "classes": 256_000, "block": 8192}
PAPER_MESHES = ((1, 8), (8, 8), (64, 8))
# Each beside how many views of an example it is given.
IN_BATCH = {
    "SupervisedContrastive": (1, {}),
    "InfoNCE": (2, {}),
    "SigmoidContrastive": (2, {}),
    "SymmetricKLHinge": (1, {"margin": 2.0}),
    "PairHinge": (1, {"margin": 2.0}),
    "TripletHinge": (1, {"margin": 1.0}),
    "MultiSimilarity": (1, {}),
    "PrototypicalCrossentropy": (1, {}),
}
IN_BATCH_ROWS, DEVICES = 2048, 8
MB, GB = 2**20, 2**30

NUMBER = {"pred": 1, "bf16": 2, "f16": 2, "s64": 8, "f64": 8}
SENDS = {
    # Bytes sent per byte of the result, by ring, in a group of k devices.
    "all-reduce": lambda k: 2 * (k - 1) / k,
    "all-gather": lambda k: (k - 1) / k,
    "reduce-scatter": lambda k: k - 1,
    "all-to-all": lambda k: (k - 1) / k,
    "collective-permute": lambda k: 1,
}


def weights(data, model, width, classes, layout):
    """Bytes of the kernel on a device; the same again for each of its like."""
    shard = 4 * width * classes / model
    return shard / data if layout == "both" else shard


def memory(data, model, rows, width, classes, block, layout):
    """Temporary bytes of a device.

    The kernel's gradient and a block of it, a block of logits with its
    gradient, and the features with theirs.
    """
    gradient = weights(data, model, width, classes, layout)
    return gradient + 4 * (width * block + 2 * rows * (block + width))


def sent(data, model, rows, width, classes, layout):
    """Bytes that a device sends in a step.

    Over the devices of the model the maximum, the sum and the target of each
    row, and the gradient of the features; over those of the data the gradient
    of its part of the kernel. Where that is spread over the data as well, a
    block is put together each time it is used: once forwards, twice backwards.
    """
    reduced = SENDS["all-reduce"]
    bytes_sent = 4 * rows * (3 + width) * reduced(model)
    shard = 4 * width * classes / model
    bytes_sent += shard * reduced(data)
    if layout == "both":
        bytes_sent += 3 * shard * SENDS["all-gather"](data)
    return bytes_sent


class CompiledError(Exception):
    """Takes the place of a step that need not be run."""


def measure(case):
    """What the compiled step of `fit` needs and sends."""
    import jax

    def compile_only(*arguments, jit=jax.jit, **options):
        compiled = jit(*arguments, **options)
        if [getattr(x, "__name__", "") for x in arguments] != ["train_step"]:
            return compiled

        def call(*arguments):
            raise CompiledError(compiled.lower(*arguments).compile())

        return call

    # Keras takes it from there when it is imported.
    jax.jit = compile_only

    import numpy as np

    network, rows = in_batch(case) if "loss" in case else with_head(case)
    try:
        network.fit(
            *(np.zeros((rows, WIDTH), "float32"), np.zeros(rows, "int32")),
            batch_size=rows,
            verbose=0,
        )
    except CompiledError as found:
        (step,) = found.args
    return {
        "memory": step.memory_analysis().temp_size_in_bytes,
        "sent": bytes_sent(step.as_text(), len(jax.devices())),
    }


def with_head(case):
    """A classifier under `ModelParallel`, and the rows of a batch."""
    import keras

    from keras_xent import layers, losses

    data, model = case["mesh"]
    mesh = keras.distribution.DeviceMesh((data, model), ("data", "model"))
    layout_map = keras.distribution.LayoutMap(mesh)
    layout_map[".*head/kernel"] = LAYOUTS[case["layout"]]
    keras.distribution.set_distribution(
        keras.distribution.ModelParallel(
            layout_map=layout_map, batch_dim_name="data"
        )
    )
    if case["head"] == "Dense":
        head = keras.layers.Dense(CLASSES, use_bias=False, name="head")
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    else:
        head = layers.LinearHead(CLASSES, name="head")
        loss = losses.LinearCrossentropy(block_size=BLOCK * model)
    network = keras.Sequential(
        [keras.Input((WIDTH,)), keras.layers.Dense(WIDTH)]
    )
    network.add(head)
    network.compile("sgd", loss)
    return network, ROWS * data


def in_batch(case):
    """A model of embeddings under `DataParallel`, and the rows of a batch."""
    import keras

    from keras_xent import losses

    keras.distribution.set_distribution(keras.distribution.DataParallel())
    views, options = IN_BATCH[case["loss"]]
    shape = (views, WIDTH) if views > 1 else (WIDTH,)
    network = keras.Sequential([keras.Input((WIDTH,))])
    network.add(keras.layers.Dense(views * WIDTH))
    network.add(keras.layers.Reshape(shape))
    network.compile("sgd", getattr(losses, case["loss"])(**options))
    return network, IN_BATCH_ROWS


def bytes_sent(program, devices):
    """What a device sends in a run of a compiled program."""
    times = repeats(program)
    total, computation = 0, None
    for line in program.splitlines():
        if head := re.match(r"(?:ENTRY )?%?([\w.\-]+) \(.*\{$", line):
            computation = head[1]
        found = re.search(rf"= (.*?) ({'|'.join(SENDS)})(?:-start)?\(", line)
        if found:
            kind = found[2]
            size = sum(
                NUMBER.get(dtype, 4)
                * math.prod(int(x) for x in shape.split(",") if x)
                for dtype, shape in re.findall(r"(\w+)\[([\d,]*)\]", found[1])
            )
            size *= SENDS[kind](group(line, devices))
            total += size * times.get(computation, 1)
    return total


def repeats(program):
    """How often the body of each loop is run."""
    found = {}
    for line in program.splitlines():
        body = re.search(r"body=%([\w.\-]+)", line)
        count = re.search(r'known_trip_count":\{"n":"(\d+)"', line)
        if body:
            found[body[1]] = int(count[1])
    return found


def group(line, devices):
    """How many devices take part in a collective."""
    if found := re.search(r"replica_groups=\[\d+,(\d+)\]", line):
        return int(found[1])
    if found := re.search(r"replica_groups=\{\{([\d,]+)\}", line):
        return len(found[1].split(","))
    if found := re.search(r"replica_groups=mesh\[(.*?)\].*? \{(.*?)\}", line):
        sizes = dict(re.findall(r"('\w+')=(\d+)", found[1]))
        return math.prod(int(sizes[axis]) for axis in found[2].split(","))
    return devices


def in_a_process(case, count):
    done = subprocess.run(
        [sys.executable, sys.argv[0], "--case", json.dumps(case)],
        env={
            **os.environ,
            "KERAS_BACKEND": "jax",
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={count}",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def places(meshes):
    """Each mesh with each layout that it makes a difference to."""
    for mesh in meshes:
        for layout in LAYOUTS:
            if layout == "classes" or mesh[0] > 1:
                yield mesh, layout


def shown(sizes, unit):
    return " | ".join(f"{size / unit:.2f}" for size in sizes)


def check():
    print(
        f"{ROWS} rows of a part of the batch, {WIDTH} features, {CLASSES} "
        f"classes, blocks of {BLOCK}, float32; MB of a device\n"
    )
    print(
        "| data × model | kernel over | temporary | on paper | Dense "
        "| sent | on paper | Dense |"
    )
    print("| --- " * 8 + "|")
    for mesh, layout in places(MESHES):
        case = {"mesh": mesh, "layout": layout}
        ours, dense = (
            in_a_process({**case, "head": head}, math.prod(mesh))
            for head in ("LinearHead", "Dense")
        )
        paper = (
            memory(*mesh, ROWS, WIDTH, CLASSES, BLOCK, layout),
            sent(*mesh, ROWS, WIDTH, CLASSES, layout),
        )
        cells = (
            *(ours["memory"], paper[0], dense["memory"]),
            *(ours["sent"], paper[1], dense["sent"]),
        )
        numbers = shown(cells, MB)
        print(f"| {mesh[0]} × {mesh[1]} | {layout} | {numbers} |", flush=True)


def paper():
    rows, width, classes, block = PAPER.values()
    print(
        f"{rows} rows of a part of the batch, {width} features, {classes:,} "
        f"classes, blocks of {block}, float32; GB of a device\n"
    )
    print(
        "| devices | data × model | kernel over | kernel | with Adam "
        "| temporary | logits alone | sent |"
    )
    print("| --- " * 8 + "|")
    for mesh, layout in places(PAPER_MESHES):
        kernel = weights(*mesh, width, classes, layout)
        cells = (
            kernel,
            3 * kernel,
            memory(*mesh, *PAPER.values(), layout),
            4 * rows * classes / mesh[1],
            sent(*mesh, rows, width, classes, layout),
        )
        print(
            f"| {math.prod(mesh)} | {mesh[0]} × {mesh[1]} | {layout} "
            f"| {shown(cells, GB)} |"
        )


def all_in_batch():
    print(
        f"{IN_BATCH_ROWS} rows on {DEVICES} devices, embeddings of {WIDTH}, "
        "float32; MB of a device\n"
    )
    print("| loss | temporary | a matrix of its pairs | sent |")
    print("| --- " * 4 + "|")
    for loss in IN_BATCH:
        found = in_a_process({"loss": loss}, DEVICES)
        pairs = 4 * IN_BATCH_ROWS**2 / DEVICES
        cells = found["memory"], pairs, found["sent"]
        print(f"| `{loss}` | {shown(cells, MB)} |", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument(
        "--paper", action="store_true", help="only the formulas, large"
    )
    parser.add_argument(
        "--in-batch", action="store_true", help="losses whose rows meet"
    )
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(measure(json.loads(arguments.case))))
    elif arguments.paper:
        paper()
    elif arguments.in_batch:
        all_in_batch()
    else:
        check()


if __name__ == "__main__":
    main()
