"""Guess the word in the middle: four losses for too many classes.

**The task.** Two words on either side of a gap, say which word is missing. The
vectors of the words are put side by side and go through two dense layers, the
last of which has a logit for every word of the vocabulary. The vectors are
trained along, so that words which fill the same gaps come to lie together. The
text is what ships with Python, as in `language_model.py`.

**The losses.** *full*: a softmax over all words, from logits. *linear*: the
same loss block by block, without the logits. *sampled*: a softmax over the
right word and a sample. *nce*: noise-contrastive estimation, a yes or no for
each word of a sample. All four are measured by the same figure, the perplexity
of the full softmax on held-out documents.

**The question.** Why does a hand-written `-sum(y * log(softmax(x)))`, with
weights that start at 0 and a learning rate of 0.5, not learn? `--naive` runs
it and mends one thing at a time.

**The commands.**

    python word_window.py                          # all four, one table
    python word_window.py --loss sampled --sampled 1000 --vocabulary 20000
    python word_window.py --text book.txt --words "sea,ship,whale"
    python word_window.py --naive

`KERAS_BACKEND=tensorflow` or `torch` before the command changes the backend.

**References.** Y. Bengio et al.: A neural probabilistic language model. JMLR
2003. T. Mikolov et al.: Distributed representations of words and phrases and
their compositionality. NIPS 2013.
"""

import argparse
import math
import os
import time

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import checks
import english
import keras
import numpy as np
from keras import ops

import keras_xent

SIDE = 2  # words on either side of the gap
LOSSES = ("full", "linear", "sampled", "nce")
HIDDEN = 64
NAIVE_VOCABULARY = 2000  # five runs, and one-hot vectors of that length
LEARNING_RATE = 0.003
WORDS = "file,string,returns,is,two"
FREQUENT = 1000  # the text has them often enough to say something of them
SIZES = {  # the usual one, the small one, and the least that works
    "vocabulary": (8000, 300, 3),
    "examples": (100_000, 8000, 1),
    "epochs": (3, 2, 1),
    "batch": (256, 64, 1),
    "width": (32, 16, 1),
    "sampled": (100, 20, 1),
}


def windows(ids, rng, most=None):
    """Neighbors `(n, 2 · SIDE)` and the words between them, all known."""
    middle = np.arange(SIDE, len(ids) - SIDE)
    middle = middle[ids[middle] != english.UNKNOWN]
    if most is not None and most < len(middle):
        middle = rng.choice(middle, most, replace=False)
    offsets = [i for i in range(-SIDE, SIDE + 1) if i]
    return ids[middle[:, None] + offsets], ids[middle]


def build_model(options, head, initializer="glorot_uniform"):
    keras.utils.set_random_seed(options.seed)
    words = keras.Input((2 * SIDE,), dtype="int32")
    vectors = keras.layers.Embedding(
        options.vocabulary, options.width, name="vectors"
    )(words)
    x = keras.layers.Flatten()(vectors)
    x = keras.layers.Dense(
        HIDDEN, activation="gelu", kernel_initializer=initializer
    )(x)
    return keras.Model(words, head(x))


def make(name, options):
    """The last layer and the loss that belong together."""
    size = options.vocabulary
    if name == "full":
        loss = keras_xent.losses.SparseSoftmaxCrossentropy()
        return keras.layers.Dense(size), loss
    # To NCE logits are log-probabilities: about −log(size) to start with.
    bias = keras.initializers.Constant(-math.log(size) * (name == "nce"))
    head = keras_xent.layers.LinearHead(
        size,
        use_bias=True,
        sampled=name in ("sampled", "nce"),
        bias_initializer=bias,
    )
    if name == "linear":
        return head, keras_xent.losses.LinearCrossentropy()
    # The ids are numbered by falling frequency, so "log_uniform" fits.
    cls = {
        "sampled": keras_xent.losses.SampledSoftmaxCrossentropy,
        "nce": keras_xent.losses.NoiseContrastiveEstimation,
    }[name]
    return head, cls(options.sampled)


def vectors_of(model):
    return np.array(model.get_layer("vectors").get_weights()[0])


def moved(before, after):
    """How far the vectors are from where they started, in their own length."""
    change = np.linalg.norm(after - before, axis=1)
    return float(np.mean(change / np.linalg.norm(before, axis=1)))


def unigram(train, test, size):
    """Perplexity of a model that knows only how frequent each word is."""
    counts = np.maximum(np.bincount(train, minlength=size), 0.1)
    return float(np.exp(-np.log(counts / counts.sum())[test].mean()))


def train(options, data):
    """A row of the table for each loss, and the vectors of the last one."""
    (x, y), test = data["train"], data["test"]
    print(f"\n{'loss':9}{'s per epoch':>13}{'perplexity':>12}{'moved':>8}")
    for name in LOSSES if options.loss == "all" else [options.loss]:
        head, loss = make(name, options)
        model = build_model(options, head)
        model.compile(keras.optimizers.Adam(LEARNING_RATE), loss)
        before = vectors_of(model)
        clock = Clock()
        history = model.fit(
            x,
            y,
            batch_size=options.batch,
            epochs=options.epochs,
            validation_data=test,
            validation_batch_size=options.batch,
            callbacks=[clock],
            verbose=0,
        ).history
        perplexity = math.exp(min(history["val_loss"][-1], 700))
        after = vectors_of(model)
        print(
            f"{name:9}{min(clock.seconds):13.1f}{perplexity:12.1f}"
            f"{moved(before, after):8.2f}",
            flush=True,
        )
    return before, after


class Clock(keras.callbacks.Callback):
    """Seconds of each epoch, without the validation.

    The first one compiles: the least is that of an epoch.
    """

    def __init__(self):
        super().__init__()
        self.seconds = []

    def on_epoch_begin(self, epoch, logs=None):
        self.start = time.perf_counter()

    def on_test_begin(self, logs=None):
        self.seconds.append(time.perf_counter() - self.start)


def neighbors(vectors, vocabulary, word, number=4):
    """The words whose vectors point most nearly the same way."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = unit[: min(len(vocabulary), FREQUENT)]
    closeness = unit @ unit[vocabulary.ids[word]]
    order = np.argsort(-closeness)
    found = [vocabulary.words[i].strip() for i in order if i]
    return [other for other in found if other != word.strip()][:number]


def words_to_show(asked, vocabulary):
    """All words that were asked for, or the usual ones that there are."""
    words = (WORDS if asked is None else asked).split(",")
    words = [word.strip() for word in words]
    rank = {word: vocabulary.ids.get(f" {word}", FREQUENT) for word in words}
    known = [word for word in words if rank[word] < FREQUENT]
    unknown = [repr(word) for word in words if word not in known]
    if asked is not None and unknown:
        most = min(len(vocabulary), FREQUENT) - 1
        raise english.TextError(
            f"--words: not among the {most:,} most frequent words of the "
            f"text: {', '.join(unknown)}. Upper and lower case differ"
        )
    return known


def show_neighbors(words, vocabulary, before, after):
    print(f"\n{'word':12}{'its neighbors before':38}and after")
    for word in words:
        old, new = (
            ", ".join(neighbors(vectors, vocabulary, f" {word}"))[:36]
            for vectors in (before, after)
        )
        print(f"{word:12}{old:38}{new}")


# The question


def handwritten(reduce):
    """-sum(y * log(softmax(x))), as one writes it the first time."""

    def loss(y, x):
        y = ops.one_hot(ops.cast(y, "int32"), x.shape[-1])
        rows = -ops.sum(y * ops.log(ops.softmax(x)), axis=-1)
        return reduce(rows)

    return loss


def naive(options, data):
    """Mends one thing at a time."""
    zeros, random = "zeros", "glorot_uniform"
    mean = handwritten(ops.mean)
    ours = keras_xent.losses.SparseSoftmaxCrossentropy()
    steps = [
        ("as written", handwritten(ops.sum), zeros, "sgd"),
        ("the mean, not the sum, of the batch", mean, zeros, "sgd"),
        ("weights that start at random", mean, random, "sgd"),
        ("Adam with a rate of 0.003", mean, random, "adam"),
        ("the cross-entropy from logits", ours, random, "adam"),
    ]
    print(f"\n{'':38}{'loss':>8}{'perplexity':>12}{'moved':>8}")
    (x, y), test = data["train"], data["test"]
    for text, loss, initializer, optimizer in steps:
        head = keras.layers.Dense(
            options.vocabulary, kernel_initializer=initializer
        )
        model = build_model(options, head, initializer)
        rates = {
            "sgd": keras.optimizers.SGD(0.5),
            "adam": keras.optimizers.Adam(LEARNING_RATE),
        }
        model.compile(rates[optimizer], loss)
        before = vectors_of(model)
        model.fit(x, y, batch_size=options.batch, epochs=1, verbose=0)
        # Whatever it was trained with, all are measured alike.
        model.compile(loss=ours)
        last = model.evaluate(*test, batch_size=options.batch, verbose=0)
        perplexity = math.exp(last) if last < 700 else math.inf
        distance = moved(before, vectors_of(model))
        print(f"{text:38}{last:8.2f}{perplexity:12.1f}{distance:8.2f}")
    print(ANSWER)


ANSWER = """
A sum over the batch makes every step as many times too long as the batch has
rows, so the weights fly off, and log(softmax(x)) of a word that has become
impossible is log(0). With the mean, weights of 0 keep the hidden units at 0:
no gradient gets past them, the vectors stay where they were, and all that is
learned is the bias, how frequent each word is. At random they learn, slowly at
first, since words are rare and plain gradient steps at their vectors small;
Adam scales them. Only then does the loss itself matter: from logits it is exact
however sure the model is."""


# The command line


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--loss", choices=[*LOSSES, "all"], default="all")
    add("--naive", action="store_true", help="answer the question; no more")
    add("--text", metavar="FILE", help="a UTF-8 file, instead of Python's text")
    add(
        "--vocabulary",
        type=int,
        metavar="N",
        help="words: 8000; 2000 with --naive",
    )
    add("--examples", type=int, metavar="N", help="in an epoch: 100000")
    add("--epochs", type=int, metavar="N", help="3")
    add("--batch", type=int, metavar="N", help="examples in a step: 256")
    add("--width", type=int, metavar="N", help="of a word's vector: 32")
    add("--sampled", type=int, metavar="N", help="words in a sample: 100")
    add(
        "--words",
        metavar="A,B",
        help=f"to look at; default: those of {WORDS} that the text has",
    )
    add("--seed", type=checks.seed, default=0, help="default: 0")
    add("--small", action="store_true", help="all of it small: a test")
    options = parser.parse_args(arguments)
    if options.naive and not options.small and options.vocabulary is None:
        options.vocabulary = NAIVE_VOCABULARY
    for name, (usual, small, least) in SIZES.items():
        if getattr(options, name) is None:
            setattr(options, name, small if options.small else usual)
        if getattr(options, name) < least:
            parser.error(f"--{name} must be at least {least}")
    if options.naive and options.words is not None:
        parser.error("--naive does no more: leave out --words")
    if options.sampled >= options.vocabulary:
        parser.error("--sampled must be below --vocabulary")
    return parser, options


def main(arguments=None):
    parser, options = parse(arguments)
    start = time.perf_counter()
    try:
        corpus = english.corpus(
            options.vocabulary, options.text, options.small, options.seed
        )
        words = words_to_show(options.words, corpus.vocabulary)
    except english.TextError as error:
        parser.error(str(error))
    rng = np.random.default_rng(options.seed)
    data = {
        "train": windows(corpus.train, rng, options.examples),
        "test": windows(corpus.test, rng),
    }
    if not len(data["train"][1]) or not len(data["test"][1]):
        parser.error("the text is too short for these windows")
    baseline = unigram(data["train"][1], data["test"][1], options.vocabulary)
    print(
        f"{len(data['train'][1]):,} windows to train on, "
        f"{len(data['test'][1]):,} held out; {options.vocabulary:,} words; "
        f"{keras.backend.backend()}\n"
        f"the frequency of words alone: perplexity {baseline:.1f}"
    )
    if options.naive:
        naive(options, data)
    else:
        before, after = train(options, data)
        show_neighbors(words, corpus.vocabulary, before, after)
    print(f"\n{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
