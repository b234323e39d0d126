"""Each batch has P classes with K examples, the same for any workers."""

import collections
import itertools
import multiprocessing
import pickle
import warnings

import keras
import numpy as np
import pytest

from keras_xent.data import ClassBalancedBatches
from keras_xent.losses import SymmetricKLHinge
from tests.testing import only_on

# 7 classes of 2 to 14 examples, with gaps between their ids. A row is its own
# number, and that of its class.
SIZES = {3: 6, 4: 14, 7: 4, 8: 2, 20: 9, 21: 5, 40: 8}
IDS = np.random.default_rng(0).permutation(
    np.repeat(list(SIZES), list(SIZES.values()))
)
ROWS = np.stack([np.arange(len(IDS)), IDS], axis=1).astype("float32")

same_everywhere = only_on("torch", "NumPy alone")


def batches(classes=3, examples=4, **options):
    options = {"seed": 0, **options}
    return ClassBalancedBatches(ROWS, IDS, classes, examples, **options)


def numbers_in(batch):
    return batch[0][:, 0].astype(int)


def epoch_of(data):
    return np.stack([numbers_in(batch) for batch in data])


@same_everywhere
@pytest.mark.parametrize(("classes", "examples"), [(3, 4), (7, 2), (2, 9)])
def test_a_batch_has_so_many_examples_of_so_many_classes(classes, examples):
    for x, y in batches(classes, examples):
        assert len(x) == classes * examples
        np.testing.assert_array_equal(x[:, 1], y)
        assert set(collections.Counter(y.tolist()).values()) == {examples}
        assert len(set(y.tolist())) == classes


@same_everywhere
@pytest.mark.parametrize("classes", [2, 3, 5, 6, 7])
def test_each_class_is_in_as_many_batches_as_any_other(classes):
    seen = collections.Counter()
    for _, y in batches(classes, 2, batches_per_epoch=23):
        seen.update(set(y.tolist()))
    assert seen.keys() == SIZES.keys()
    assert max(seen.values()) - min(seen.values()) <= 1


@same_everywhere
@pytest.mark.parametrize("examples", [2, 4])
def test_the_examples_of_a_class_are_dealt_before_one_comes_again(examples):
    rows = epoch_of(batches(3, examples, batches_per_epoch=23))
    seen = np.bincount(rows.ravel(), minlength=len(IDS))
    for batch in rows:
        for hand in batch.reshape(3, examples):
            size = SIZES[IDS[hand[0]]]
            assert len(set(hand)) == min(size, examples)
    for name, size in SIZES.items():
        if size >= examples:
            assert np.ptp(seen[name == IDS]) <= 1


@same_everywhere
def test_a_small_class_gives_all_and_some_again():
    found = [
        np.bincount(numbers_in(batch)[batch[1] == 8], minlength=len(IDS))
        for batch in batches(2, 5, batches_per_epoch=20)
    ]
    counts = {tuple(n[n > 0]) for n in found if n.any()}
    # Now the one comes once more, now the other.
    assert counts == {(2, 3), (3, 2)}


@same_everywhere
def test_groups_are_mixed_anew_within_an_epoch():
    # Class 40 has 8 examples: two groups of 4, or all that can be made.
    data = batches(7, 4, batches_per_epoch=50)
    groups = {
        frozenset(numbers_in(batch)[batch[1] == 40].tolist()) for batch in data
    }
    assert len(groups) > 25


@same_everywhere
def test_by_default_each_example_is_seen_about_once():
    assert len(batches(3, 4)) == batches(3, 4).num_batches == 4
    assert len(batches(2, 2)) == 12
    y = np.arange(60) % 6
    data = ClassBalancedBatches(np.arange(60)[:, None], y, 3, 5, seed=0)
    seen = np.concatenate([batch[0][:, 0] for batch in data])
    assert sorted(seen) == list(range(60))


@same_everywhere
def test_a_batch_follows_from_seed_epoch_and_index():
    forward, backward = batches(), batches()
    first = epoch_of(forward)
    again = [numbers_in(backward[i]) for i in reversed(range(len(backward)))]
    np.testing.assert_array_equal(first, again[::-1])
    forward.on_epoch_begin()
    forward.on_epoch_end()
    second = epoch_of(forward)
    backward.epoch = 1
    np.testing.assert_array_equal(second, epoch_of(backward))
    other = epoch_of(batches(seed=1))
    for a, b in itertools.combinations([first, second, other], 2):
        assert not np.array_equal(a, b)


@same_everywhere
def test_without_a_seed_that_of_keras_counts():
    drawn = []
    for seed in (1, 1, 2):
        keras.utils.set_random_seed(seed)
        drawn.append(epoch_of(batches(seed=None)).tolist())
    assert drawn[0] == drawn[1] != drawn[2]


@same_everywhere
def test_several_inputs_tensors_weights_and_columns():
    x = {"a": keras.ops.convert_to_tensor(ROWS), "b": [ROWS[:, 0], ROWS]}
    weight = np.arange(len(IDS)) / 7
    data = ClassBalancedBatches(
        x, IDS[:, None], 3, 2, sample_weight=weight, seed=0
    )
    x, y, w = data[0]
    assert y.shape == (6, 1)
    np.testing.assert_array_equal(x["a"][:, 1:], y)
    np.testing.assert_array_equal(x["b"][0], x["a"][:, 0])
    np.testing.assert_array_equal(x["b"][1], x["a"])
    np.testing.assert_array_equal(w, x["a"][:, 0].astype(int) / 7)


def load(key):
    """One example of two arrays, by a name."""
    row = ROWS[int(key.removesuffix(".wav"))]
    return {"row": row, "pair": [row[:1], row[1:]]}


KEYS = [f"{n}.wav" for n in range(len(IDS))]


@same_everywhere
def test_a_loader_makes_examples_of_keys():
    data = ClassBalancedBatches(KEYS, IDS, 3, 2, loader=load, seed=0)
    for loaded, plain in zip(data, batches(3, 2), strict=True):
        np.testing.assert_array_equal(loaded[0]["row"], plain[0])
        np.testing.assert_array_equal(loaded[0]["pair"][1], plain[0][:, 1:])
        np.testing.assert_array_equal(loaded[1], plain[1])


@same_everywhere
def test_it_can_be_sent_to_another_process():
    data = ClassBalancedBatches(KEYS, IDS, 3, 2, loader=load, seed=0)
    data.epoch = 3
    sent = pickle.loads(pickle.dumps(data))
    np.testing.assert_array_equal(sent[1][0]["row"], data[1][0]["row"])


def seen_in_fit(data, epochs):
    """The rows of each batch that is trained on, in order."""
    seen = []

    class Model(keras.Sequential):
        def train_step(self, *arguments):
            seen.append(keras.ops.convert_to_numpy(arguments[-1][0]))
            return super().train_step(*arguments)

    model = Model([keras.layers.Dense(4)])
    model.compile("sgd", SymmetricKLHinge(2.0), run_eagerly=True)
    # Keras would give the batches of an epoch in another order.
    model.fit(data, epochs=epochs, shuffle=False, verbose=0)
    return np.stack(seen)


@pytest.mark.filterwarnings("ignore:os.fork")
@pytest.mark.parametrize("workers", ["none", "threads", "processes"])
def test_fit_sees_each_batch_once_with_any_workers(workers):
    data = batches(
        3,
        2,
        batches_per_epoch=5,
        workers=1 if workers == "none" else 3,
        use_multiprocessing=workers == "processes",
    )
    place = {}
    for data.epoch in range(4):
        place |= {x.tobytes(): len(place) + i for i, (x, _) in enumerate(data)}
    data.epoch = 0
    seen = [place[x.tobytes()] for x in seen_in_fit(data, epochs=3)]
    # On JAX and PyTorch, Keras begins an epoch to build the model by its first
    # batch. Workers have made others by then, which are not lost.
    assert seen[0] in (0, 1, 5)
    assert np.diff(seen).tolist() == [1] * 14
    assert data.epoch in (3, 4)
    for child in multiprocessing.active_children():
        child.join(30)  # They are told to end, and take a moment to.
    assert not multiprocessing.active_children()


@pytest.mark.parametrize(
    ("x", "options"),
    [
        ([ROWS[:, :1], ROWS[:, 1:]], {"sample_weight": np.ones(len(IDS))}),
        (KEYS, {"loader": lambda key: load(key)["pair"], "workers": 2}),
    ],
)
def test_it_trains_a_model_of_two_inputs(x, options):
    a, b = keras.Input((1,)), keras.Input((1,))
    joined = keras.layers.Concatenate()([a, b])
    model = keras.Model([a, b], keras.layers.Dense(4)(joined))
    model.compile("adam", SymmetricKLHinge(2.0), run_eagerly=True)
    data = ClassBalancedBatches(x, IDS, 3, 2, seed=0, **options)
    history = model.fit(data, epochs=2, verbose=0, validation_data=data)
    assert np.all(np.isfinite(history.history["val_loss"]))


@same_everywhere
def test_classes_of_one_example_are_left_out_with_a_warning():
    y = np.array([0, 0, 1, 1, 2, 3, 3, 9])
    with pytest.warns(UserWarning, match="2 of 5 classes .* 25.0%") as record:
        data = ClassBalancedBatches(np.arange(8), y, 2, 2, seed=0)
    assert record[0].filename == __file__
    seen = {int(i) for _ in range(5) for _, ids in data for i in ids}
    assert seen == {0, 1, 3}
    assert len(data) == 2


@same_everywhere
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes_per_batch": 1}, "`classes_per_batch` must be a whole"),
        ({"examples_per_class": 1}, "`examples_per_class` must be a whole"),
        ({"batches_per_epoch": 0}, "`batches_per_epoch` must be a whole"),
        ({"seed": -1}, "`seed` must be a whole number"),
        ({"classes_per_batch": 8}, "takes as many classes .* 7, of 7 classes"),
        ({"y": IDS.astype(str)}, "np.unique"),
        ({"y": np.where(IDS == 8, np.nan, IDS)}, "not NaN"),
        ({"y": np.eye(48)}, "y.argmax"),
        ({"y": IDS[:-1]}, r"shapes \(48, 2\) for 47 ids"),
        ({"x": [ROWS, ROWS[:5]]}, r"\(48, 2\), \(5, 2\) for 48 ids"),
        ({"x": list(range(48))}, "a list of keys a `loader`"),
        ({"x": ROWS.tolist()}, r"shapes \(\), \(\), \(\), \(\), \.\.\. for"),
        ({"x": KEYS[:5], "loader": load}, r"shapes \(5,\) for 48 ids"),
        ({"sample_weight": np.ones(5)}, r"shape \(5,\) for 48 ids"),
    ],
)
def test_what_is_wrong_is_said(changes, message):
    right = {
        "x": ROWS,
        "y": IDS,
        "classes_per_batch": 3,
        "examples_per_class": 2,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match=message):
            ClassBalancedBatches(**right | changes)
