"""Do several devices give what one gives, and what is sent between them?

**The task.** Train a model on one device and, from the same weights and on the
same batches, on several, and look for a difference. A CPU plays the devices:
that is slow, and all else is as on real ones. Three ways, one a backend:

- *JAX, `ModelParallel`*: the language model of `language_model.py`. Its words
  are spread over the devices of a group, and its windows over two groups. The
  head finds out by itself how the words lie: vectors of words stay where they
  are. Beside it Keras's loss, which has all logits.
- *TensorFlow, `MirroredStrategy`*, and *PyTorch, `DistributedDataParallel`*:
  the voices of `siamese_speaker.py`. The loss compares every two utterances of
  a batch. A replica has a share of them, misses most of the pairs, and trains
  another model. With `across_replicas=True` it compares its own with those of
  all, and trains the model of one device.

**What you write** is a layout for a variable on JAX, and a word in the loss and
in the metric elsewhere. On PyTorch there is one line more, after `evaluate`:

    keras_xent.metrics.all_reduce(model)

Mind what else looks at a whole batch: a `BatchNormalization` needs
`synchronized=True`, and dropout draws other numbers on each replica. The tower
here has no such layer, and its noise is off.

**The figures.** *Off* is the largest difference of a weight from one device.
*Pairs*: the metric has compared so many, of all test utterances in one batch.
*Memory* is that of a device in a step, in MB: the temporaries of the compiled
step (JAX), what is kept for the gradient (PyTorch), the peak of the process by
the number of its replicas (TensorFlow). *Sent* are the collectives of a step,
as the compiled program, the graph or the calls have them.

**The commands.**

    python distributed.py --devices 8
    KERAS_BACKEND=tensorflow python distributed.py --devices 4
    KERAS_BACKEND=torch python distributed.py --devices 4
    KERAS_BACKEND=torch python distributed.py --data recordings
"""

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import types

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import checks
import collectives
import numpy as np

# The devices of a CPU are made before Keras's backend starts. So this process
# imports neither, and starts others that do.
BACKEND = os.environ["KERAS_BACKEND"]
ON_JAX = BACKEND == "jax"
SIZES = {  # the usual ones, the small ones
    "devices": (8, 8) if ON_JAX else (4, 2),
    "batch": (32, 8) if ON_JAX else (216, 72),
    "steps": (5, 3) if ON_JAX else (12, 3),
    "words": (20_000, 20_000),
}
WINDOW = 32  # words that the language model sees
RATE = 0.01  # of the speaker model's optimizer
# On several devices or on one, and whether rows are compared across them.
WAYS = {
    "one device": (False, False),
    "each its own rows": (True, False),
    "across_replicas=True": (True, True),
}
COLUMNS = {  # how the figures are printed
    "loss": "9.4f",
    "equal error rate": "18.2%",
    "pairs": "9,",
    "memory": "9.1f",
    "off": "10.1e",
}
SHOWN = 5  # collectives, the largest ones


# JAX: the words of a language model over the devices


def on_jax(options):
    """The language model on one device and on all, by our loss and Keras's."""
    import english
    import keras
    import language_model

    ids = english.corpus(options.words, small=options.small).train
    # An epoch is a step: the last loss is that of the last step.
    an_epoch = types.SimpleNamespace(
        window=WINDOW, batch=options.batch, steps=1, seed=options.seed
    )
    found = {}
    for loss in ("LinearHead", "Keras's"):
        for devices in (1, options.devices):
            keras.distribution.set_distribution(
                spread_words(devices) if devices > 1 else None
            )
            keras.utils.set_random_seed(options.seed)
            fused = loss == "LinearHead"
            model = language_model.build_model(
                options.words, WINDOW, fused=fused
            )
            language_model.compile_model(model, options.steps, fused)
            windows = language_model.Windows(ids, an_epoch)
            history = model.fit(windows, epochs=options.steps, verbose=0)
            step = collectives.compiled_step(model, windows[0])
            weights = model.get_weights()
            if devices == 1:
                alone = weights
            temporary = step.memory_analysis().temp_size_in_bytes
            found[f"{loss}, {devices} device{'s' * (devices > 1)}"] = {
                "loss": history.history["loss"][-1],
                "memory": temporary / 2**20,
                "off": furthest(weights, alone),
                "sent": collectives.of_program(step.as_text()),
            }
    return found


def spread_words(devices):
    """Two groups share the batch; in each the words lie on its devices."""
    from keras import distribution

    mesh = distribution.DeviceMesh((2, devices // 2), ("batch", "words"))
    layout = distribution.LayoutMap(mesh)
    # The embedding, (words, features), is the head's kernel as well.
    layout["reversible_embedding.*/embeddings"] = ("words", None)
    layout["linear_head.*/bias"] = ("words",)
    return distribution.ModelParallel(layout_map=layout, batch_dim_name="batch")


# TensorFlow: replicas in one process


def on_tensorflow(options):
    """The speaker model in `fit`, by each of the ways."""
    import keras
    import memory
    import tensorflow as tf

    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0],
        [tf.config.LogicalDeviceConfiguration()] * options.devices,
    )
    names = [f"CPU:{device}" for device in range(options.devices)]
    mirrored = tf.distribute.MirroredStrategy(names)
    training, (x, y), test = utterances(options)
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(options.batch)
    found = {}
    for name, (several, across) in WAYS.items():
        strategy = mirrored if several else tf.distribute.get_strategy()
        with strategy.scope():
            model, loss = speaker_model(training, options, across)
            model.compile(keras.optimizers.Adam(RATE), loss)
            graphs = collectives.noted_graphs(model, tf)
            model.fit(
                data.take(1), shuffle=False, verbose=0
            )  # Makes the graph.
            sent = collectives.of_graph(graphs[-1])
            memory.give_back()
            peak = memory.peak_since_now()
            model.fit(data.skip(1), shuffle=False, verbose=0)
            used = peak() / strategy.num_replicas_in_sync
            figures = evaluated(model, loss, across, *test)
        weights = model.get_weights()
        if not several:
            alone = weights
        figures |= {"memory": used, "off": furthest(weights, alone)}
        found[name] = {**figures, "sent": sent}
    return found


# PyTorch: a process for each device


def on_torch(options):
    """The speaker model in a plain loop, by each of the ways."""
    import torch
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel

    rank = int(os.environ["RANK"])
    dist.init_process_group(
        "gloo",
        init_method=f"file://{os.environ['MEET']}",
        rank=rank,
        world_size=options.devices,
    )
    training, (x, y), test = utterances(options)
    found = {}
    for name, (several, across) in WAYS.items():
        if not several and rank > 0:
            continue  # The others wait for the first.
        mine = slice(rank, None, options.devices) if several else slice(None)
        model, loss = speaker_model(training, options, across)
        module = DistributedDataParallel(model) if several else model
        optimizer = torch.optim.Adam(model.parameters(), RATE, eps=1e-7)
        for start in range(0, len(x), options.batch):
            batch = slice(start, start + options.batch)
            rows, ids = (torch.tensor(part[batch][mine]) for part in (x, y))
            with collectives.watched(torch) as seen:
                optimizer.zero_grad()
                loss(ids, module(rows, training=True)).backward()
                optimizer.step()
        own = (part[mine] for part in test)
        figures = evaluated(model, loss, across, *own, several)
        weights = model.get_weights()
        if rank > 0:
            continue
        if not several:
            alone = weights
        found[name] = {**figures, "off": furthest(weights, alone), **seen}
    dist.destroy_process_group()
    return found


# The speaker model


def utterances(options):
    """Speech to train on, the batches one after the other, and the tests."""
    import speech
    from speaker_pairs import Rows

    if options.data:
        corpus = speech.wav_folder(options.data, 0, options.seed, speeds=())
    else:
        corpus = speech.japanese_vowels()
    rows = Rows(corpus.training, options.batch, options.seed)
    if rows.batch_size < options.batch:
        sys.exit(f"--batch must be at most {rows.batch_size}, all there are")
    batches = []
    while len(batches) < options.steps:
        batches += [rows[index] for index in range(len(rows))]
        rows.on_epoch_end()
    x, y = map(np.concatenate, zip(*batches[: options.steps], strict=True))
    tests = slice(len(corpus.test.rows) // options.devices * options.devices)
    test = corpus.test.segments[tests], corpus.test.segment_speaker[tests]
    return corpus.training, (x, y), test


def speaker_model(training, options, across):
    """The tower of `siamese_speaker.py`, and the loss of a batch's pairs."""
    import keras
    from speaker_tower import RECIPES, build_tower

    import keras_xent

    keras.utils.set_random_seed(options.seed)
    quiet = {"noise": 0.0, "frame_dropout": 0.0}
    recipe = dataclasses.replace(RECIPES["cepstrum"], **quiet)
    loss = keras_xent.losses.SymmetricKLHinge(
        recipe.margin, softness=recipe.softness, across_replicas=across
    )
    return build_tower(training, recipe), loss


def evaluated(model, loss, across, x, y, processes=False):
    """What `evaluate` says of the test utterances, all in one batch."""
    import keras_xent

    metric = keras_xent.metrics.EqualErrorRate(
        distance="symmetric_kl", across_replicas=across
    )
    model.compile(loss=loss, metrics=[metric])
    model.evaluate(x, y, batch_size=len(x), verbose=0)
    if processes:
        keras_xent.metrics.all_reduce(model)
    logs = model.get_metrics_result()
    return {
        "loss": float(logs["loss"]),
        "equal error rate": float(logs["equal_error_rate"]),
        "pairs": int(metric.histogram.counts().sum()),
    }


def furthest(weights, others):
    """The largest difference of two lists of arrays."""
    pairs = zip(weights, others, strict=True)
    return max(float(np.abs(one - other).max()) for one, other in pairs)


# The processes, the table and the command line


def in_processes(options, arguments):
    """What the first of the processes has found that have the devices."""
    count = options.devices if BACKEND == "torch" else 1
    simulated = f"--xla_force_host_platform_device_count={options.devices}"
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            **os.environ,
            "MEET": f"{folder}/meet",
            "CUDA_VISIBLE_DEVICES": "",
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {simulated}",
            # What `fit` has compiled is not compiled again to be read.
            "JAX_COMPILATION_CACHE_DIR": folder,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        if count > 1:
            environment["OMP_NUM_THREADS"] = "1"
        started = [
            subprocess.Popen(
                [sys.executable, __file__, *arguments, "--found"],
                env={**environment, "RANK": str(rank)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in range(count)
        ]
        try:
            said = [process.communicate() for process in started]
        finally:
            for process in started:
                process.kill()
    for process, (_, errors) in zip(started, said, strict=True):
        if process.returncode:
            sys.exit(errors[-3000:])
    return json.loads(said[0][0].splitlines()[-1])


def show(found):
    """The table, and what is sent."""
    rows = list(found.values())
    columns = {name: form for name, form in COLUMNS.items() if name in rows[0]}
    widths = {
        name: form.rstrip(",%ef").split(".")[0]
        for name, form in columns.items()
    }
    print(f"{'':22}" + "".join(f"{name:>{widths[name]}}" for name in columns))
    for name, figures in found.items():
        cells = (
            f"{figures[column]:{form}}" for column, form in columns.items()
        )
        print(f"{name:22}" + "".join(cells))
    for name, figures in found.items():
        if figures["sent"]:
            print(f"\nsent in a step, {name}:")
        for kind, shape, times in figures["sent"][:SHOWN]:
            print(f"{times:4} × {kind} {shape}".replace("None", "?"))
        if more := figures["sent"][SHOWN:]:
            total = sum(times * collectives.size(x) for _, x, times in more)
            print(f"   and {total:,} numbers in smaller ones")


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add, whole = parser.add_argument, checks.at_least
    add("--devices", type=whole(2), help="8 on JAX, 4 elsewhere")
    add("--batch", type=whole(2), help="rows for all devices together")
    add("--steps", type=whole(2), help="of each training")
    add("--words", type=whole(2), help="of the language model: 20000")
    add("--data", metavar="DIR", help="recordings, DIR/<speaker>/**/*.wav")
    add("--seed", type=checks.seed, default=0, help="default: 0")
    add("--small", action="store_true", help="all of it small: a test")
    add("--found", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    for name, (usual, small) in SIZES.items():
        if getattr(options, name) is None:
            setattr(options, name, small if options.small else usual)
    devices = options.devices
    if ON_JAX and (devices % 2 or options.words % (devices // 2)):
        parser.error("--devices must be even, and half of them divide --words")
    shares = 2 if ON_JAX else devices
    if options.batch % shares:
        parser.error(f"--batch must be a multiple of {shares}")
    return options


def main(arguments=None):
    """Prints what was found, and returns it: figures by name, for each way."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parse(arguments)
    if options.found:
        run = {"jax": on_jax, "tensorflow": on_tensorflow, "torch": on_torch}
        print(json.dumps(run[BACKEND](options)))
        return None
    found = in_processes(options, arguments)
    show(found)
    return found


if __name__ == "__main__":
    main()
