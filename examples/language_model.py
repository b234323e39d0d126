"""A causal transformer with 50,000 words in its head, on a laptop.

**The task.** Read a few words of English, say which one comes next. The text
is what ships with Python itself: the topics of `help()` and the docstrings of
the standard library. Whole topics and modules are held out to test on.

**The point.** The last layer gives a logit to each of 50,000 words at every
place of every window. `keras_xent.layers.LinearHead` and the loss
`LinearCrossentropy` train it without these logits: only blocks of them ever
exist. `--compare` shows what this saves in memory and what it costs in time,
and with `--largest` how many windows a step can hold either way.

**The figures.** *Perplexity*: the model is as uncertain as if it had to guess
among so many words. Its logarithm to base 2 is the *bits per token*. A model
that knows how frequent each word is, and nothing about what came before it,
gets the *unigram* perplexity: that is the one to beat. Words that occur in
held-out text only are unknown: no model can say them, they count nowhere, and
their share is printed.

**The commands.**

    python language_model.py                             # train, then talk
    python language_model.py --text book.txt --steps 2000
    python language_model.py --prompt "The module" --temperature 0.5
    python language_model.py --policy mixed_bfloat16     # on a GPU
    python language_model.py --compare --batch 64        # time and memory
    python language_model.py --compare --largest --memory 2
    python language_model.py --save model.keras --plots plots

`KERAS_BACKEND=tensorflow` or `torch` before the command changes the backend.

**References.** A. Vaswani et al.: Attention is all you need. NeurIPS 2017.
The embedding that is the head, too: O. Press, L. Wolf: Using the output
embedding to improve language models. EACL 2017.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import time

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import checks
import english
import keras
import memory
import numpy as np

import keras_xent

WIDTH, HEADS, BLOCKS = 128, 4, 2
SIZES = {  # the usual one, the small one, and the least that works
    "vocabulary": (50_000, 2000, 2),
    "window": (64, 32, 1),
    "batch": (4, 8, 1),
    "epochs": (4, 2, 1),
    "steps": (40, 60, 1),
}
POLICIES = ["float32", "mixed_bfloat16", "mixed_float16"]
LEARNING_RATE = 0.003  # at first; it falls to 0 along a cosine


def build_model(vocabulary, window, bias=None, fused=True):
    """Windows of words in, the logits of the word after each of them out."""
    words = keras.Input((window,), dtype="int32")
    embedding = keras.layers.ReversibleEmbedding(vocabulary, WIDTH)
    place = keras.ops.cumsum(keras.ops.ones_like(words), axis=1) - 1
    x = embedding(words) + keras.layers.Embedding(window, WIDTH)(place)
    for _ in range(BLOCKS):
        y = keras.layers.LayerNormalization()(x)
        attention = keras.layers.MultiHeadAttention(HEADS, WIDTH // HEADS)
        x = x + attention(y, y, use_causal_mask=True)
        y = keras.layers.LayerNormalization()(x)
        y = keras.layers.Dense(4 * WIDTH, activation="gelu")(y)
        x = x + keras.layers.Dense(WIDTH)(y)
    x = keras.layers.LayerNormalization()(x)
    if not fused:
        return keras.Model(words, embedding(x, reverse=True))
    head = keras_xent.layers.LinearHead(
        tied_to=embedding, use_bias=True, metrics=["accuracy", "perplexity"]
    )
    model = keras.Model(words, head(x))
    if bias is not None:
        head.bias.assign(bias)
    return model


def compile_model(model, steps, fused=True):
    rate = keras.optimizers.schedules.CosineDecay(LEARNING_RATE, steps)
    ignored = {"ignore_class": english.UNKNOWN}
    if fused:
        loss = keras_xent.losses.LinearCrossentropy(**ignored)
    else:
        loss = keras.losses.SparseCategoricalCrossentropy(
            from_logits=True, **ignored
        )
    model.compile(keras.optimizers.Adam(rate), loss)


class Windows(keras.utils.PyDataset):
    """Windows from anywhere in the text, others in every epoch."""

    def __init__(self, ids, options):
        super().__init__()
        self.ids, self.length = ids, options.window
        self.shape = options.steps, options.batch, 1
        self.rng = np.random.default_rng(options.seed)
        self.on_epoch_end()

    def __len__(self):
        return len(self.starts)

    def __getitem__(self, index):
        windows = self.ids[self.starts[index] + np.arange(self.length + 1)]
        return windows[:, :-1], windows[:, 1:]

    def on_epoch_end(self):
        last = len(self.ids) - self.length
        self.starts = self.rng.integers(last, size=self.shape)


def all_windows(ids, length):
    """Every word once as the one to come; the last window is padded."""
    rows = -(-(len(ids) - 1) // length)
    padded = np.full(rows * length + 1, english.UNKNOWN, "int32")
    padded[: len(ids)] = ids
    return padded[:-1].reshape(rows, length), padded[1:].reshape(rows, length)


def unigram(ids, size):
    """The logarithms of the words' shares; an absent one counts a tenth."""
    counts = np.bincount(ids, minlength=size).astype("float64")
    counts[english.UNKNOWN] = 0
    return np.log(np.maximum(counts, 0.1) / counts.sum())


def report(start, held_out):
    bits = f"{math.log2(held_out):.2f} bits per token"
    print(f"{start}held-out perplexity {held_out:.1f}, {bits}", flush=True)


def report_epoch(epoch, logs):
    train = f"train perplexity {logs['perplexity']:.1f}"
    report(f"epoch {epoch + 1}: {train}, ", logs["val_perplexity"])


def generate(model, vocabulary, options):
    """The prompt and what the model would go on with."""
    rng = np.random.default_rng(options.seed)
    ids = vocabulary.encode(english.tidy(options.prompt)).tolist()
    for _ in range(options.length):
        seen = ids[-options.window :]
        window = np.full((1, options.window), english.UNKNOWN, "int32")
        window[0, : len(seen)] = seen
        logits = model.predict_on_batch(window)[0, len(seen) - 1]
        logits = logits[1 : len(vocabulary)].astype("float64")
        scores = (logits - logits.max()) / options.temperature
        shares = np.exp(scores) / np.exp(scores).sum()
        ids.append(1 + int(rng.choice(len(shares), p=shares)))
    return vocabulary.decode(ids)


def train(options):
    """From the text to a trained model and what it says."""
    start = time.perf_counter()
    size = options.vocabulary
    corpus = english.corpus(size, options.text, options.small, options.seed)
    vocabulary, ids, test, (seen, held) = corpus
    known = test[test != english.UNKNOWN]
    if len(ids) <= options.window or not len(known):
        raise english.TextError("the text is too short for these windows")
    print(
        f"{seen} documents to train on, {len(ids):,} words; "
        f"{held} held out, {len(test):,} words\n"
        f"vocabulary: {size:,} entries, {len(vocabulary) - 1:,} in use\n"
        f"unknown words: {1 - len(known) / len(test):.1%} of those held out; "
        "they count nowhere"
    )
    log_shares = unigram(ids, size)
    baseline = float(np.exp(-log_shares[known].mean()))
    report("unigram: ", baseline)

    keras.utils.set_random_seed(options.seed)
    model = build_model(size, options.window, log_shares)
    compile_model(model, options.epochs * options.steps)
    history = model.fit(
        Windows(ids, options),
        epochs=options.epochs,
        validation_data=all_windows(test, options.window),
        validation_batch_size=16,
        callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=report_epoch)],
        verbose=0,
    ).history
    print(f"{time.perf_counter() - start:.0f} s on {keras.backend.backend()}")
    if options.save:
        model.save(options.save)
    if options.plots:
        plot(history, baseline, options.plots)
    print("\n" + generate(model, vocabulary, options))


def plot(history, baseline, folder):
    """The learning curve, as a PNG file."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axis = figure.subplots()
    epochs = range(1, len(history["perplexity"]) + 1)
    axis.plot(epochs, history["perplexity"], "o-", label="train")
    axis.plot(epochs, history["val_perplexity"], "o-", label="held out")
    axis.axhline(baseline, color="#333333", linestyle="--", label="unigram")
    axis.set(xlabel="epoch", ylabel="perplexity", xticks=epochs)
    axis.legend(frameon=False)
    figure.savefig(folder / "language_model.png", dpi=120)


# Time and memory, with the loss fused and not


def compare(options):
    """A table: both losses, each measurement in a process of its own."""
    print(
        f"training on {keras.backend.backend()} in {options.policy}: windows "
        f"of {options.window} words, {options.vocabulary:,} logits each\n"
        f"{'loss':8}{'windows':>8}{'seconds per step':>18}"
        f"{'tokens per second':>19}{'peak memory':>13}",
        flush=True,
    )
    held = {loss: compared(loss, options) for loss in ("fused", "unfused")}
    print("The memory is what training needs beyond the model and optimizer.")
    if options.largest:
        for loss, batch in held.items():
            found = f"{batch} windows at most"
            if not batch:
                found = f"not even {options.batch} windows"
            print(f"{loss}: {found}")


def compared(loss, options):
    """Prints a row for each batch; the last one that fits, 0 if none does."""
    batch, held = options.batch, 0
    while True:
        measured = in_a_process(loss, batch, options)
        if measured is None:
            print(f"{loss:8}{batch:8}      does not fit", flush=True)
            return held
        seconds, peak = measured
        speed = batch * options.window / seconds
        print(
            f"{loss:8}{batch:8}{seconds:18.3f}{speed:19,.0f}{peak:10,.0f} MB",
            flush=True,
        )
        if not options.largest:
            return batch
        batch, held = 2 * batch, batch


def in_a_process(loss, batch, options):
    """What `measure` says of a loss and a batch, in a process of its own.

    `None` where the memory is too small: what stops the process for want of
    memory does not stop this one.
    """
    command = [sys.executable, __file__, "--measure", loss]
    command += ["--batch", str(batch)]
    for name in ("vocabulary", "window", "policy", "memory"):
        if getattr(options, name) is not None:
            command += [f"--{name}", str(getattr(options, name))]
    if options.largest:
        command += ["--largest"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if memory.ended(done.returncode, done.stderr):
        return None
    if done.returncode:
        print(done.stderr, file=sys.stderr)
        sys.exit(done.returncode)
    return json.loads(done.stdout.splitlines()[-1])


def measure(options):
    """Seconds per step, and the peak memory beyond the model in MB.

    `None` where there is less memory than that. A model with few words goes
    first: it loads the backend's own machinery.
    """
    try:
        for size in (10, options.vocabulary):
            seconds, peak = measure_words(size, options)
    except Exception as error:
        if memory.refused(error):
            return None
        raise
    if options.memory is not None and peak > 1024 * options.memory:
        return None
    return seconds, peak


def measure_words(size, options):
    fused = options.measure == "fused"
    steps = 20 if memory.on_gpu() else 5
    model = build_model(size, options.window, fused=fused)
    compile_model(model, 100, fused)
    model.optimizer.build(model.trainable_variables)
    shape = steps * options.batch, options.window + 1
    ids = np.random.default_rng(0).integers(1, size, shape, "int32")
    x, y = ids[:, :-1], ids[:, 1:]
    peak = memory.peak_since_now()
    model.fit(x[: options.batch], y[: options.batch], verbose=0)
    start = time.perf_counter()
    model.fit(x, y, batch_size=options.batch, verbose=0)
    return (time.perf_counter() - start) / steps, peak()


# The command line


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--text", metavar="FILE", help="a UTF-8 file, instead of Python's text")
    add("--vocabulary", type=int, metavar="N", help="rows of the head: 50000")
    add("--window", type=int, metavar="N", help="words the model sees: 64")
    add("--batch", type=int, metavar="N", help="windows in a step: 4")
    add("--epochs", type=int, metavar="N", help="lines of the report: 4")
    add("--steps", type=int, metavar="N", help="in an epoch: 40")
    add("--seed", type=checks.seed, default=0, help="default: 0")
    add("--small", action="store_true", help="all of it small: a test")
    add("--prompt", default="This module", help="how the sample begins")
    add(
        "--length",
        type=checks.at_least(0),
        default=60,
        metavar="N",
        help="of the sample",
    )
    add(
        "--temperature",
        type=checks.finite(above=0),
        default=0.7,
        help="0.7; 1 is bolder",
    )
    add(
        "--policy",
        choices=POLICIES,
        default="float32",
        help="the dtypes, as keras.config.set_dtype_policy has it: float32",
    )
    add("--compare", action="store_true", help="with the unfused loss; no more")
    add(
        "--largest",
        action="store_true",
        help="compare batches from --batch on, doubled while they fit",
    )
    add(
        "--memory",
        type=checks.finite(above=0),
        metavar="GB",
        help="what fits --largest; without a GPU it has to be said",
    )
    add("--measure", choices=["fused", "unfused"], help=argparse.SUPPRESS)
    add(
        "--plots",
        type=checks.plots_folder,
        metavar="DIR",
        help="write a PNG file there",
    )
    add(
        "--save",
        type=checks.writable_file(".keras"),
        metavar="FILE.keras",
        help="save the model",
    )
    options = parser.parse_args(arguments)
    for name, (usual, small, least) in SIZES.items():
        if getattr(options, name) is None:
            setattr(options, name, small if options.small else usual)
        if getattr(options, name) < least:
            parser.error(f"--{name} must be at least {least}")
    if not english.tidy(options.prompt):
        parser.error("--prompt needs a word at least")
    if options.compare and (options.save or options.plots):
        parser.error("--compare does no more: leave out --save and --plots")
    if options.largest and not (options.compare or options.measure):
        parser.error("--largest is for --compare")
    if options.memory is not None and not options.largest:
        parser.error("--memory is for --largest")
    return parser, options


def refuse(parser, options):
    """Says what cannot work without a GPU."""
    if memory.on_gpu():
        return
    if options.policy == "mixed_float16" and keras.backend.backend() == "jax":
        parser.error(
            "JAX's attention takes float16 on a GPU only. Without one choose "
            "--policy mixed_bfloat16"
        )
    if options.largest and options.memory is None:
        parser.error("without a GPU --largest needs --memory GB")


def main(arguments=None):
    parser, options = parse(arguments)
    if options.compare:  # takes nothing of the GPU for itself
        compare(options)
        return
    refuse(parser, options)
    keras.config.set_dtype_policy(options.policy)
    if options.measure:
        print(json.dumps(measure(options)))
        return
    try:
        train(options)
    except english.TextError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
