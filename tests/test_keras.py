"""The one door to what Keras keeps private: each entry, and that it is one."""

import ast
import functools
import importlib
import inspect
import pathlib
import re

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_xent
from keras_xent import _keras
from tests.testing import (
    BACKEND,
    autocast,
    compiled,
    gradient,
    only_on,
    to_numpy,
    with_mask,
)

ROOT = pathlib.Path(__file__).parents[1]
DOOR = ROOT / "keras_xent" / "_keras.py"
PRIVATE = ".".join(("keras", "src"))  # No file but the door spells it out.
OURS = [file for file in (ROOT / "keras_xent").rglob("*.py") if file != DOOR]

# What Python keeps private, or only seems to.
PYTHON = {"_getframe", "_asdict", "_replace", "_fields"}

# Classes whose private attributes somebody could come to like.
KERAS = [
    *(keras.Model, keras.Sequential, keras.Operation, keras.KerasTensor),
    *(layers.Layer, keras.losses.Loss, keras.metrics.BinaryAccuracy),
    *(keras.callbacks.Callback, keras.optimizers.Optimizer),
    *(keras.Variable, keras.random.SeedGenerator),
]

ROWS = np.ones((2, 3), "float32")

is_about_the_source = only_on("torch", "the source is the same everywhere")


def model(*more, **options):
    made = keras.Sequential([keras.Input((3,)), layers.Dense(1), *more])
    made.compile("sgd", **{"loss": "mse", **options})
    return made


# Replicas -------------------------------------------------------------------
#
# Several are in tests/losses/test_across_replicas.py.


def test_one_replica_has_nobody_to_ask():
    assert _keras.replicas(ops.convert_to_tensor(ROWS)) is None


@only_on("torch", "there are no such processes elsewhere")
def test_one_that_is_alone_has_no_replicas(monkeypatch):
    monkeypatch.setattr(_keras, "processes", lambda group=None: "others")
    monkeypatch.setattr(_keras, "Processes", lambda *_: "together")
    assert _keras.replicas(None) == "together"
    with _keras.alone():
        assert _keras.replicas(None) is None
    assert _keras.replicas(None) == "together"


# One door -------------------------------------------------------------------


@is_about_the_source
def test_no_other_file_imports_what_keras_keeps_private():
    named = [
        str(file.relative_to(ROOT))
        for folder in ("keras_xent", "tests", "examples", "benchmarks", "docs")
        for file in (ROOT / folder).rglob("*.*")
        if file.suffix in (".py", ".md") and PRIVATE in file.read_text()
    ]
    assert named == ["keras_xent/_keras.py"]


class Private(ast.NodeVisitor):
    """The names with an underscore that a source defines, and touches."""

    def __init__(self, source):
        self.defined, self.of_self, self.of_others = set(), set(), set()
        self.visit(ast.parse(source))

    def add(self, names, name):
        if re.match("_[^_]", str(name)):
            names.add(name)

    def visit_Attribute(self, node):
        is_self = getattr(node.value, "id", None) in ("self", "cls")
        self.add(self.of_self if is_self else self.of_others, node.attr)
        if is_self and isinstance(node.ctx, ast.Store):
            self.add(self.defined, node.attr)
        self.generic_visit(node)

    def visit_FunctionDef(self, node):
        self.add(self.defined, node.name)
        self.generic_visit(node)

    visit_ClassDef = visit_FunctionDef  # noqa: N815

    def visit_Name(self, node):
        if isinstance(node.ctx, ast.Store):
            self.add(self.defined, node.id)

    def visit_Call(self, node):
        if getattr(node.func, "id", "") in ("getattr", "setattr", "hasattr"):
            self.add(self.of_others, getattr(node.args[1], "value", None))
        self.generic_visit(node)


@functools.cache
def of_class(cls):
    try:
        return Private(inspect.cleandoc("\n" + inspect.getsource(cls)))
    except (OSError, TypeError):  # made by a function, or in C
        return Private("")


def of_keras(*kinds):
    """What classes of Keras, and those of the backend above, define."""
    bases = {base for kind in kinds for base in kind.__mro__}
    return set().union(
        *(of_class(base).defined for base in bases if not is_ours(base))
    )


def is_ours(cls):
    return cls.__module__.split(".")[0] == "keras_xent"


def our_classes():
    for file in OURS:
        name = ".".join(file.relative_to(ROOT).with_suffix("").parts)
        module = importlib.import_module(name.removesuffix(".__init__"))
        for cls in vars(module).values():
            if inspect.isclass(cls) and cls.__module__ == module.__name__:
                yield cls


@is_about_the_source
def test_nobody_else_touches_what_keras_keeps_private():
    found = [Private(file.read_text()) for file in OURS]
    defined, of_self, of_others = (
        set().union(*(getattr(each, name) for each in found))
        for name in ("defined", "of_self", "of_others")
    )
    # Of no class of ours, so of Keras's or of another's.
    assert (of_self | of_others) - defined - PYTHON == set()
    # Of ours and of one of Keras's: which of them is meant, nobody sees.
    taken = of_keras(*KERAS)
    assert {"_tracker", "_direction", "_losses_override"} <= taken
    assert of_others & taken == set()


def test_no_class_takes_a_name_that_keras_keeps_private_in_its_base():
    classes = list(our_classes())
    assert keras_xent.losses.SymmetricKLHinge in classes
    clashes = {
        cls.__name__: of_class(cls).of_self & of_keras(cls) for cls in classes
    }
    assert {k: names for k, names in clashes.items() if names} == {}


@is_about_the_source
def test_each_entry_has_a_test():
    source = pathlib.Path(__file__).read_text()
    assert [n for n in _keras.__all__ if f"_keras.{n}(" not in source] == []


@pytest.mark.parametrize(
    ("error", "ask"),
    [
        (ImportError, lambda: _keras._of_keras("losses.loss", "gone")),
        (ImportError, lambda: _keras._of_keras("gone", "gone")),
        (RuntimeError, lambda: _keras._attribute(layers.Dense(1), "gone")),
    ],
)
def test_what_is_gone_is_an_error_that_names_the_version(error, ask):
    with pytest.raises(
        error, match=f"gone of Keras, which Keras {keras.__version__}"
    ):
        ask()


# Tensors --------------------------------------------------------------------


def test_a_tensor_keeps_the_mask_it_is_given():
    mask = np.array([[True, False, True], [True, True, False]])
    tensor = with_mask(ROWS, mask)
    np.testing.assert_array_equal(to_numpy(_keras.get_mask(tensor)), mask)
    assert _keras.get_mask(ops.ones(3)) is None
    # As a layer leaves it.
    tensor = layers.Masking(1.0)(np.array([[[1.0], [2.0]]], "float32"))
    assert to_numpy(_keras.get_mask(tensor)).tolist() == [[False, True]]
    _keras.set_mask(tensor, ops.ones((1, 2), "bool"))
    assert to_numpy(_keras.get_mask(tensor)).all()


def test_a_tensor_keeps_an_attribute():
    tensor, other = ops.ones(3), ops.ones(3)
    _keras.set_tensor_attr(tensor, "_keras_xent_test", "kept")
    assert _keras.get_tensor_attr(tensor, "_keras_xent_test") == "kept"
    assert _keras.get_tensor_attr(other, "_keras_xent_test") is None


def test_a_symbolic_call_is_told_from_another():
    seen = []

    class Asks(layers.Layer):
        def call(self, x):
            seen.append(_keras.in_symbolic_scope())
            return x

    Asks()(keras.Input((3,)))
    Asks()(ROWS)
    assert (seen[0], seen[-1]) == (True, False)


def test_losses_are_reduced_as_keras_reduces_them():
    losses, weight = ops.convert_to_tensor([1.0, 2.0, 6.0]), [2.0, 1.0, 5.0]
    mask = ops.convert_to_tensor([True, True, False])
    for reduction, expected in [
        ("sum_over_batch_size", 2.0),
        ("sum", 4.0),
        ("mean_with_sample_weight", 4 / 3),
    ]:
        reduced = _keras.reduce_weighted_values(
            losses,
            sample_weight=ops.convert_to_tensor(weight),
            mask=mask,
            reduction=reduction,
        )
        assert float(reduced) == pytest.approx(expected)


def test_variables_are_read_in_their_own_dtype():
    read = []

    class Reads(layers.Layer):
        def build(self, shape):
            self.scale = self.add_weight(name="scale", shape=())

        def call(self, x):
            read.append(ops.convert_to_tensor(self.scale).dtype)
            with _keras.without_autocast():
                read.append(ops.convert_to_tensor(self.scale).dtype)
            return x

    Reads(dtype="mixed_bfloat16")(ROWS)
    found = [keras.backend.standardize_dtype(each) for each in read[-2:]]
    assert found == ["bfloat16", "float32"]


@pytest.mark.device
def test_autocast_does_not_reach_inside():
    with _keras.full_precision():
        assert ops.matmul(ROWS, ROWS.T).shape == (2, 2)
    if BACKEND != "torch":
        return
    import torch

    x = ops.ones((2, 2))
    with autocast():
        assert (x @ x).dtype is torch.bfloat16
        with _keras.full_precision():
            assert (x @ x).dtype is torch.float32


def test_the_dtype_of_autocast_is_known():
    x = ops.convert_to_tensor(ROWS)
    assert _keras.autocast_dtype(x) is None
    if BACKEND != "torch":
        return
    import torch

    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast("cpu", dtype=dtype):
            assert f"torch.{_keras.autocast_dtype(x)}" == str(dtype)
            # Where Keras traces shapes there is nothing to multiply.
            assert _keras.autocast_dtype(x.to("meta")) is None
            with _keras.full_precision():
                assert _keras.autocast_dtype(x) is None


def test_what_is_traced_or_shaped_only_does_not_compute_now():
    x = ops.convert_to_tensor(ROWS)
    assert _keras.computes_now(x) == (BACKEND == "torch")
    if BACKEND != "torch":
        return
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    assert not _keras.computes_now(x.to("meta"))
    with FakeTensorMode():
        assert not _keras.computes_now(torch.ones(2))
    asked = []

    @torch.compile(backend="eager", fullgraph=True)
    def traced(x):
        asked.append(_keras.computes_now(x))
        return x + 1

    traced(x)
    assert asked == [False]


def test_a_tensor_of_a_compiled_function_is_traced():
    asked = []

    def f(x):
        asked.append(_keras.is_traced(x))
        return x + 1

    x = ops.convert_to_tensor(ROWS)
    f(x)
    compiled(f)(x)
    assert asked[0] is False
    assert asked[-1] is (BACKEND != "torch")


def test_an_axis_is_moved_under_vmap_as_well():
    x = np.arange(24.0, dtype="float32").reshape(2, 3, 4)

    def last(x):
        return _keras.moveaxis(x, 0, -1)

    np.testing.assert_array_equal(to_numpy(last(x)), np.moveaxis(x, 0, -1))
    if BACKEND == "torch":
        import torch

        result = torch.func.vmap(last)(torch.as_tensor(x))
        np.testing.assert_array_equal(result, np.moveaxis(x, 1, -1))


def square(x):
    """With a gradient of its own, which is 10 times too large."""

    def grad(*arguments, upstream=None):
        if upstream is None:
            (upstream,) = arguments
        return 20 * x * upstream

    return x * x, grad


def test_a_gradient_of_its_own_is_taken_where_a_transform_allows_it():
    slope, _ = gradient(_keras.own_gradient(square), ROWS)
    np.testing.assert_array_equal(slope, 20 * ROWS)
    own = _keras.own_gradient(square)
    if BACKEND == "torch":
        import torch

        slope = torch.func.grad(lambda x: own(x).sum())(torch.as_tensor(ROWS))
        np.testing.assert_array_equal(slope, 2 * ROWS)
    if BACKEND == "jax":
        import jax

        _, slope = jax.jvp(own, (ROWS,), (ROWS,))
        np.testing.assert_array_equal(slope, 2 * ROWS)


def test_an_error_inside_a_gradient_of_its_own_is_not_swallowed():
    def wrong(x):
        raise TypeError("wrong")

    with pytest.raises(TypeError, match="wrong"):
        _keras.own_gradient(wrong)(ops.convert_to_tensor(ROWS))


def test_a_backward_pass_that_is_recorded_is_told_from_another():
    recorded = []

    def noting(x):
        value, grad = square(x)

        def noted(*arguments, upstream=None):
            recorded.append(_keras.records_backward_pass())
            return grad(*arguments, upstream=upstream)

        return value, noted

    gradient(_keras.own_gradient(noting), ROWS)
    assert recorded == [False]
    if BACKEND == "torch":
        import torch

        x = torch.as_tensor(ROWS).requires_grad_(True)
        total = _keras.own_gradient(noting)(x).sum()
        torch.autograd.grad(total, x, create_graph=True)
        assert recorded == [False, True]


@only_on("torch", "others differentiate their tapes and traces")
@pytest.mark.parametrize("again", [False, True])
def test_gradients_of_a_function_may_be_differentiated(again):
    import torch

    x, y = (torch.as_tensor(ROWS).requires_grad_(z) for z in (True, False))
    upstream = torch.full_like(x, 3.0)
    with torch.set_grad_enabled(again):
        found = _keras.gradients(lambda x, y: x * x * y, (x, y), upstream)
    assert found[1] is None
    torch.testing.assert_close(found[0], 6 * x * y)
    assert found[0].requires_grad == again


# Layers ---------------------------------------------------------------------


def test_layers_are_found_at_any_depth():
    inner = layers.LSTM(1, name="inner")
    outer = keras.Sequential([layers.Bidirectional(inner)])
    outer.build((None, 2, 3))
    names = [layer.name for layer in _keras.flat_layers(outer)]
    assert outer.name in names
    assert "forward_inner" in names


def test_the_operations_before_a_tensor_are_found_once():
    x = start = keras.Input((3,), name="start")
    dense = layers.Dense(3)
    layers.Dense(3)(x)  # beside the way
    for _ in range(40):  # Each path to the start would be one of 2 ** 40.
        x = x + dense(x)
    found = _keras.operations_before(x)
    assert len(found) == 42
    assert found.count(dense) == 1
    assert [each.name for each in found if "dense" in each.name] == [dense.name]
    assert [each.name for each in _keras.operations_before(start)] == ["start"]
    assert _keras.operations_before(ops.ones(3)) == []


def test_a_built_layer_takes_another_while_it_is_unlocked():
    layer = layers.Dense(1)
    layer.build((None, 3))
    with pytest.raises(ValueError, match="already built"):
        layer.other = layers.Dense(1)
    with _keras.unlocked(layer):
        layer.other = layers.Dense(1)
    with pytest.raises(ValueError, match="already built"):
        layer.another = layers.Dense(1)
    assert layer.other in _keras.flat_layers(layer)


# Training -------------------------------------------------------------------


def two_outputs():
    start = keras.Input((3,))
    ends = [layers.Dense(2, name=name)(start) for name in ("a", "b")]
    both = keras.Model(start, ends)
    mine = keras.losses.MeanSquaredError()
    both.compile(
        "sgd",
        loss=[mine, "mae"],
        loss_weights=[1.0, 3.0],
        metrics=[["mae"], None],
        weighted_metrics=[["mse"], ["mse"]],
    )
    return both, mine


def test_the_losses_of_a_compiled_model():
    both, mine = two_outputs()
    y = [np.zeros((2, 2), "float32"), np.ones((2, 2), "float32")]
    losses = _keras.compiled_losses(both)
    assert losses.given == [mine, "mae"]
    y_pred = both(ROWS)
    (first, loss, _), (second, other, _) = losses.resolve(y, y_pred)
    assert (first, second) == ((0,), (1,))
    assert loss is mine
    assert other.fn is keras.losses.mean_absolute_error
    a, b = (to_numpy(each) for each in y_pred)
    expected = np.mean(a**2) + 3 * np.mean(np.abs(b - 1))
    assert float(losses(y, y_pred, None)) == pytest.approx(expected, rel=1e-5)
    assert _keras.compiled_losses(model(loss=None)) is None


def test_the_metrics_of_a_compiled_model():
    both, _ = two_outputs()
    y = [np.zeros((2, 2), "float32")] * 2
    found = _keras.compiled_metrics(both, y, both(ROWS))
    names = [[metric.name for metric in group] for group in found]
    assert names == [["mae", "mse"], ["mse"]]
    alone = model()
    assert _keras.compiled_metrics(alone, y[0], alone(ROWS)) == [[]]


@pytest.mark.parametrize("steps", [1] if BACKEND == "torch" else [1, 2])
def test_the_batches_of_a_call_are_told_apart(steps):
    seen = []
    trained = model(steps_per_execution=steps)
    trained.make_train_function()
    inner = trained.train_function

    def look(*arguments):
        *state, source = arguments
        taken, batches = _keras.batches_of_call(source, steps)
        if not batches:
            raise StopIteration
        seen.append([to_numpy(x)[:, 0].tolist() for x, *_ in batches])
        again = taken if isinstance(source, list) else iter(taken)
        return inner(*state, again)

    trained.train_function = look
    x = np.repeat(np.arange(6, dtype="float32")[:, None], 3, axis=1)
    trained.fit(x, x[:, :1], batch_size=2, shuffle=False, verbose=0)
    batches = [[0, 1], [2, 3], [4, 5]]
    expected = [batches[i : i + steps] for i in range(0, 3, steps)]
    assert seen == expected


def test_the_arguments_of_a_loss_of_keras():
    loss = keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, ignore_class=3, axis=1
    )
    expected = {"from_logits": True, "ignore_class": 3, "axis": 1}
    assert _keras.loss_arguments(loss).items() >= expected.items()


def test_losses_that_another_model_has_collected_are_lent():
    lender, inner = model(), model(layers.ActivityRegularization(l2=1.0))
    inner(ROWS)
    own = len(inner.losses)
    with _keras.lent_losses(inner, lender):
        assert len(inner.losses) == own  # There is nothing to lend.
    with _keras.lent_losses(lender, inner):
        assert len(lender.losses) == 0
    assert own == 1


@only_on("jax", "the others keep their weights where they are")
def test_weights_are_released():
    import jax

    held = keras.Sequential([keras.Input((3,)), layers.Dense(1237)])
    held.compile("sgd", "mse")

    def kernels():
        return sum(x.shape == (3, 1237) for x in jax.live_arrays())

    assert kernels() == 1
    _keras.release_variables(held)
    assert kernels() == 0
    _keras.release_variables(object())  # Where there is no such thing.


def test_the_variables_of_an_optimizer_stay_those_it_was_built_for():
    trained = model(layers.Dense(1))
    trained.optimizer.build(trained.trainable_variables)
    expected = [variable.path for variable in trained.trainable_variables]
    trained.layers[0].trainable = False
    found = _keras.optimized_variables(trained.optimizer)
    assert [variable.path for variable in found] == expected


def test_the_seeds_of_all():
    before = _keras.global_seed_generator()
    try:
        _keras.set_global_seed_generator(None)
        assert _keras.global_seed_generator() is None
        mine = keras.random.SeedGenerator(7)
        _keras.set_global_seed_generator(mine)
        state = to_numpy(ops.copy(mine.state.value))
        keras.random.normal((2,))
        assert (to_numpy(mine.state.value) != state).any()
    finally:
        _keras.set_global_seed_generator(before)


# Which way is better --------------------------------------------------------


class Score(keras.metrics.Metric):
    """A metric that rises."""

    def __init__(self, keys=(), **kwargs):
        super().__init__(**kwargs)
        self.keys = keys
        self.total = self.add_weight(name="total", initializer="zeros")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.total.assign_add(1.0)

    def result(self):
        total = ops.convert_to_tensor(self.total)
        return dict.fromkeys(self.keys, total) if self.keys else total


def better(of, monitor):
    """Which way Keras's callbacks find better, when they are told nothing."""
    stopper = keras.callbacks.EarlyStopping(monitor, mode="auto")
    stopper.set_model(of)
    try:
        stopper._set_monitor_op()
    except ValueError:
        return None
    return "up" if stopper.monitor_op is ops.greater else "down"


def fitted(metric):
    trained = model(metrics=[metric])
    trained.fit(ROWS, np.ones((2, 1), "float32"), verbose=0)
    return trained


def test_a_metric_says_which_way_is_better():
    for direction in ("up", "down"):
        metric = Score(name="score")
        assert better(fitted(Score(name="score")), "score") is None
        _keras.set_direction(metric, direction)
        assert better(fitted(metric), "val_score") == direction


def test_each_result_of_a_metric_says_which_way_is_better():
    metric = Score(keys=("risen", "fallen"), name="score")
    _keras.set_directions(metric, {"risen": "up", "fallen": "down"})
    trained = fitted(metric)
    assert better(trained, "val_risen") == "up"
    assert better(trained, "val_fallen") == "down"


def test_the_metrics_of_a_layer_say_which_way_is_better():
    metric = Score(name="score")
    _keras.set_direction(metric, "up")
    trained = model()
    with _keras.unlocked(trained):
        trained.group = _keras.MetricGroup([metric])
    assert better(trained, "score") == "up"


def test_logs_of_a_callback_say_which_way_is_better():
    trained = model()
    notice = _keras.announce(trained, {"risen": "up", "fallen": "down"})
    assert better(trained, "risen") == "up"
    assert better(trained, "val_fallen") == "down"
    _keras.unannounce(trained, notice)
    assert better(trained, "risen") is None
    assert better(trained, "fallen") is None


def test_the_paths_of_the_layers_that_are_called_are_known():
    seen = []

    class Asks(layers.Layer):
        def call(self, x):
            seen.append(_keras.enclosing_paths())
            return x

    inputs = keras.Input((ROWS.shape[1],))
    inner = keras.Model(inputs, Asks(name="asks")(inputs), name="inner")
    outer = keras.Model(inputs, inner(inputs), name="outer")
    seen.clear()
    outer(ROWS)
    # Paths of variables: what a layer was first called in is before it.
    assert seen == [["outer", "inner", "asks"]]
    assert _keras.enclosing_paths() == []


# Processes of PyTorch -------------------------------------------------------


def test_one_process_is_no_several():
    assert _keras.processes() is None


@only_on("torch", "there are no such processes elsewhere")
def test_several_processes_are_those_of_the_group(monkeypatch, tmp_path):
    import torch.distributed as dist

    meet = f"file://{tmp_path / 'meet'}"
    dist.init_process_group("gloo", init_method=meet, rank=0, world_size=1)
    try:
        assert _keras.processes() is None
        sizes = {None: 2, "one": 1, "another": -1}
        monkeypatch.setattr(dist, "get_world_size", sizes.get)
        assert _keras.processes() is dist
        assert _keras.processes("one") is None
        assert _keras.processes("another") is None
    finally:
        monkeypatch.undo()
        dist.destroy_process_group()


def test_a_tensor_that_nobody_copied():
    x = ops.ones((2,))
    assert not _keras.copied_by_ddp(x)
    assert not _keras.copied_by_ddp(np.ones(2))
    if BACKEND == "torch":
        assert not _keras.copied_by_ddp(x.clone().requires_grad_() * 2)


@only_on("torch", "nothing is written in place elsewhere")
def test_writing_into_a_variable_is_counted():
    metric = keras.metrics.Sum()
    before = _keras.times_written(metric.total)
    assert _keras.times_written(metric.total) == before
    metric.update_state(0.0)
    assert _keras.times_written(metric.total) > before


def test_a_model_that_sums_its_metrics_is_known(monkeypatch):
    defined = {
        name
        for cls in keras.Model.__mro__
        if "get_metrics_result" in vars(cls)
        for name in [cls.__module__]
    }
    sums = f"{PRIVATE}.backend.torch.trainer" in defined
    assert _keras.model_sums_metrics() is sums

    def get_metrics_result(self):
        return {}

    get_metrics_result.__module__ = f"{PRIVATE}.backend.torch.trainer"
    monkeypatch.setattr(keras.Model, "get_metrics_result", get_metrics_result)
    assert _keras.model_sums_metrics()


def test_the_metrics_of_a_model_are_found_one_by_one():
    made = model(metrics=["mae", keras.metrics.AUC(name="auc")])
    made.evaluate(ROWS, ROWS[:, :1], verbose=0)
    found = [
        metric.name
        for each in made.metrics
        for metric in _keras.single_metrics(each)
    ]
    assert found == ["loss", "mae", "auc"]
    group = _keras.MetricGroup([keras.metrics.Mean(name="m")])
    assert _keras.single_metrics(group) == group.metrics


def test_the_parts_of_a_metric_are_known():
    metric = keras_xent.metrics.EqualErrorRate(similarity=True)
    assert _keras.metric_parts(metric) == ([], [metric.histogram])
    own, inside = _keras.metric_parts(keras.metrics.Mean())
    assert [len(own), len(inside)] == [2, 0]


def test_a_gradient_to_what_asks_for_none_is_not_made():
    constant = ops.convert_to_tensor(ROWS)
    assert _keras.may_want_gradient(constant) == (BACKEND != "torch")
    assert _keras.may_want_gradient(keras.Variable(ROWS).value)


def test_without_replicas_a_mean_is_left_as_it_is():
    mean = ops.convert_to_tensor(np.float32(3))
    assert float(_keras.scale_loss_for_distribution(mean)) == 3
