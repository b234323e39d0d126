"""The text is what it says, and the model learns from it."""

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from tests.testing import only_on

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "examples"))

import english  # noqa: E402
import language_model  # noqa: E402
import memory  # noqa: E402

# NumPy, a command line and plain Keras: what it uses of the package is tested
# on every backend. PyTorch takes several times as long.
pytestmark = only_on("jax", "examples are tested on one backend")

without_gpu = pytest.mark.skipif(memory.on_gpu(), reason="a GPU can do it")

MODULE = b'''
"""Of the  module.

    Indented.
"""
x = "no docstring"


class A:
    """Of the class."""

    def f(self):
        "Of the method."

        def g():
            """Of the inner function."""


async def h():
    r"""Of the coroutine \\d."""


def silent():
    return """nor this"""
'''


def test_docstrings_are_taken_out():
    found = english.docstrings(MODULE).split("\n\n")
    assert found[:2] == ["Of the  module.", "Indented."]
    assert sorted(found[2:]) == [
        "Of the class.",
        "Of the coroutine \\d.",
        "Of the inner function.",
        "Of the method.",
    ]


@pytest.mark.parametrize("source", [b"def", b"x = '\0'", b"'\xff'", b"x = 1"])
def test_a_module_without_docstrings_gives_nothing(source):
    assert english.docstrings(source) == ""


def test_the_library_is_read_in_order_and_without_its_tests(
    tmp_path, monkeypatch
):
    for name in ["b.py", "a/x.py", "test/t.py", "site-packages/s.py", "e.py"]:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f'"""Of {name}."""' if name != "e.py" else "x = (")
    monkeypatch.setattr(english.sysconfig, "get_path", lambda _: tmp_path)
    found = english.library_docstrings()
    assert list(found.items()) == [
        ("a/x.py", "Of a/x.py."),
        ("b.py", "Of b.py."),
    ]


@pytest.fixture(scope="module")
def python_text():
    return english.python_text()


def test_python_has_much_to_read(python_text):
    assert sum(map(len, python_text.values())) > 1_500_000
    assert min(map(len, python_text.values())) > 0
    assert "if" in python_text["help('if')"]
    assert "regular expression" in python_text["re/__init__.py"]
    topics = english.help_topics()
    assert list(python_text)[: len(topics)] == list(topics)
    assert not any(name.startswith("test/") for name in python_text)


def test_whole_documents_are_held_out(python_text):
    seen, held = english.hold_out(python_text)
    assert seen.keys().isdisjoint(held)
    assert seen | held == python_text
    assert len(held) == round(0.02 * len(python_text))
    assert english.hold_out(python_text) == (seen, held)
    assert english.hold_out(python_text, seed=1)[1].keys() != held.keys()
    assert len(english.hold_out({"a": "x", "b": "y"})[1]) == 1


def test_a_decoded_text_is_the_text(python_text):
    vocabulary = english.Vocabulary(python_text, 50_000)
    assert 15_000 < len(vocabulary) < 50_000
    for text in python_text.values():
        ids = vocabulary.encode(text)
        assert ids.dtype == "int32"
        assert ids.min() > english.UNKNOWN
        assert vocabulary.decode(ids) == text


def test_the_most_frequent_words_are_known():
    vocabulary = english.Vocabulary({"a": "to be or not to be", "b": " to"}, 4)
    assert vocabulary.words == ["\N{REPLACEMENT CHARACTER}", " be", " to", "to"]
    assert vocabulary.encode("to see to be").tolist() == [3, 0, 2, 1]


def test_tidy_text_has_no_space_to_spare():
    assert english.tidy(" a \t b \r\n\n  \n\n c\u00a0d\n e ") == "a b\n\nc d\ne"


TABLE = """
Operators
=========

+-----+-----+
| "-" | "+" |
|=====|=====|
|     | ... |
+-----+-----+

>>> x -= 1
...
--
"""


def test_tidy_text_has_no_rulers():
    expected = 'Operators\n\n| "-" | "+" |\n| | ... |\n\n>>> x -= 1\n...\n--'
    assert english.tidy(TABLE) == expected
    assert english.tidy("----") == ""


def test_no_text_has_a_ruler(python_text):
    for text in python_text.values():
        assert english.tidy(text) == text
        lines = text.splitlines()
        assert not any(len(x) > 2 and set(x) <= set("-=+|* ") for x in lines)


def test_a_run_of_the_same_sign_is_one_word():
    text = 'See --all... >>> x**2 == -1 """a_b""" (c).\n\n===>'
    expected = [
        "See",
        " --",
        "all",
        "...",
        " >>>",
        " x",
        "**",
        "2",
        " ==",
        " -",
    ]
    expected += ["1", ' "', '"', '"', "a_b", '"', '"', '"', " (", "c", ")"]
    expected += [".", "\n\n", "===", ">"]
    assert english.WORDS.findall(text) == expected


def test_a_file_is_cut_into_parts(tmp_path):
    path = tmp_path / "text.txt"
    text = "\n".join(f"Line {i} über alles." for i in range(600))
    path.write_text(text, "utf-8")
    parts = english.text_file(path)
    assert len(parts) == english.PARTS
    assert "".join(parts.values()) == text
    lengths = list(map(len, parts.values()))
    assert max(lengths) < 1.2 * min(lengths)


def test_windows_hold_each_word_and_the_next():
    ids = np.arange(100, 150, dtype="int32")
    options = language_model.parse(["--small", "--window", "7"])[1]
    windows = language_model.Windows(ids, options)
    first = [windows[index] for index in range(len(windows))]
    windows.on_epoch_end()
    second = [windows[index] for index in range(len(windows))]
    assert len(first) == options.steps
    assert not np.array_equal(first[0], second[0])
    for x, y in first + second:
        assert x.shape == y.shape == (options.batch, 7)
        assert (np.diff(x) == 1).all()
        assert (y == x + 1).all()
    assert min(x.min() for x, _ in first) == 100
    assert max(y.max() for _, y in first) == 149


@pytest.mark.parametrize("count", [8, 9, 10, 15])
def test_all_windows_ask_for_every_word_once(count):
    ids = np.arange(1, count + 1, dtype="int32")
    x, y = language_model.all_windows(ids, 7)
    assert x.shape == y.shape == (-(-(count - 1) // 7), 7)
    assert y[y > 0].tolist() == ids[1:].tolist()
    assert (x[y > 0] + 1 == y[y > 0]).all()


def test_the_unigram_is_the_share_of_each_word():
    found = language_model.unigram(np.array([0, 1, 1, 1, 3]), 4)
    expected = np.array([0.1, 3, 0.1, 1]) / 4
    np.testing.assert_allclose(np.exp(found), expected)


def figures(printed):
    """The unigram's held-out perplexity and those after each epoch."""
    lines = re.findall(
        r"^(unigram: |epoch \d+: train perplexity [\d.]+, )"
        r"held-out perplexity ([\d.]+), ([\d.]+) bits per token$",
        printed,
        re.MULTILINE,
    )
    for _, perplexity, bits in lines:
        assert math.log2(float(perplexity)) == pytest.approx(
            float(bits), abs=0.01
        )
    assert [line[0][:7] for line in lines] == [
        "unigram",
        *(f"epoch {i}" for i in range(1, len(lines))),
    ]
    return [float(line[1]) for line in lines]


LOAD = """
import sys, keras, keras_xent, numpy as np
model = keras.saving.load_model(sys.argv[1])
logits = model.predict(np.ones((1, 32), "int32"), verbose=0)
print(logits.shape, float(np.abs(logits).max()))
"""


def test_from_the_text_to_a_saved_model(tmp_path, capsys):
    path, plots = tmp_path / "model.keras", tmp_path / "plots"
    arguments = ["--small", "--prompt", "The class", "--length", "5"]
    language_model.main(
        [*arguments, "--save", str(path), "--plots", str(plots)]
    )
    printed = capsys.readouterr().out
    unigram, *epochs = figures(printed)
    assert len(epochs) == 2
    assert epochs[1] < 0.75 * unigram
    assert epochs[1] > 20
    assert re.search(r"^unknown words: [\d.]+% of", printed, re.MULTILINE)
    assert "\nThe class" in printed
    assert (plots / "language_model.png").stat().st_size > 5000

    loaded = subprocess.run(
        [sys.executable, "-c", LOAD, path],
        env=os.environ,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert loaded.returncode == 0, loaded.stderr
    model = keras.saving.load_model(path)
    logits = model.predict(np.ones((1, 32), "int32"), verbose=0)
    shape, largest = loaded.stdout.rsplit(maxsplit=1)
    assert shape == str(logits.shape) == "(1, 32, 2000)"
    assert float(largest) == pytest.approx(np.abs(logits).max(), rel=1e-4)


@pytest.fixture(autouse=True)
def policy():
    """As it was before; an option sets it for the whole process."""
    before = keras.config.dtype_policy()
    yield
    keras.config.set_dtype_policy(before)


@pytest.fixture
def one_block(monkeypatch):
    """Compiles faster."""
    monkeypatch.setattr(language_model, "BLOCKS", 1)


@pytest.mark.usefixtures("one_block")
def test_a_text_of_ones_own(tmp_path, capsys):
    path = tmp_path / "text.txt"
    path.write_text("One two three four five. " * 300)
    arguments = ["--text", path, "--small", "--length", "11", "--prompt", "One"]
    language_model.main(
        [*map(str, arguments), "--steps", "40", "--temperature", "0.1"]
    )
    printed = capsys.readouterr().out
    unigram, *epochs = figures(printed)
    assert unigram == pytest.approx(6, abs=0.2)
    assert epochs[-1] < 2
    assert " five. One two three four" in printed


class Parrot:
    """A model that gives the word after the last one the highest logit."""

    def __init__(self, size):
        self.size, self.seen = size, []

    def predict_on_batch(self, window):
        self.seen.append(window[0].tolist())
        return 50.0 * np.eye(self.size)[(window + 1) % self.size]


def test_the_sample_goes_on_from_the_last_words():
    words = english.Vocabulary({"a": "a b c d e f g"}, 20)
    options = language_model.parse(
        ["--prompt", "a", "--length", "5", "--window", "3"]
    )[1]
    parrot = Parrot(20)
    assert language_model.generate(parrot, words, options) == "a b c d e f"
    assert parrot.seen[:2] == [[1, 0, 0], [1, 2, 0]]
    assert parrot.seen[-1] == [3, 4, 5]


@pytest.mark.usefixtures("one_block")
def test_mixed_precision_is_as_good_as_float32(tmp_path, capsys):
    reached = []
    for policy in ["float32", "mixed_bfloat16"]:
        path = tmp_path / f"{policy}.keras"
        arguments = ["--small", "--epochs", "1", "--length", "0"]
        arguments += ["--policy", policy, "--save", str(path)]
        language_model.main(arguments)
        reached += figures(capsys.readouterr().out)
        head = keras.saving.load_model(path).layers[-1]
        assert head.dtype_policy.name == policy
        assert head.bias.dtype == "float32"
    unigram, full, _, mixed = reached
    assert full < 0.8 * unigram
    assert mixed == pytest.approx(full, rel=0.005)


@pytest.mark.usefixtures("one_block")
@pytest.mark.parametrize("loss", ["fused", "unfused"])
def test_each_loss_is_measured(loss, capsys):
    policy = "mixed_bfloat16"
    language_model.main(["--small", "--measure", loss, "--policy", policy])
    seconds, peak = json.loads(capsys.readouterr().out)
    assert 0 < seconds < 60
    assert 0 <= peak < 2000
    assert keras.config.dtype_policy().name == policy


def test_what_there_is_no_memory_for_is_no_error(capsys):
    arguments = ["--small", "--batch", "1000000000000000"]
    language_model.main([*arguments, "--measure", "fused"])
    assert json.loads(capsys.readouterr().out) is None


def test_more_than_the_limit_does_not_fit(monkeypatch, capsys):
    monkeypatch.setattr(
        language_model, "measure_words", lambda *_: (1.0, 500.0)
    )
    arguments = ["--measure", "fused", "--largest", "--memory"]
    for limit in ("0.4", "0.5"):
        language_model.main([*arguments, limit])
    first, second = capsys.readouterr().out.splitlines()
    assert json.loads(first) is None
    assert json.loads(second) == [1.0, 500.0]


def test_another_error_is_raised(monkeypatch):
    def fail(*_):
        raise ValueError("shapes do not match")

    monkeypatch.setattr(language_model, "measure_words", fail)
    with pytest.raises(ValueError, match="do not match"):
        language_model.main(["--measure", "fused"])


@pytest.fixture
def processes(monkeypatch):
    """What is asked of processes; each says that it took 8 s and 27.2 MB.

    Up to 20 windows fit where the loss is fused, and no more than 5 otherwise.
    """
    asked = []

    def run(command, **_):
        asked.append(" ".join(command[2:]))
        loss, batch = command[3], int(command[5])
        fits = batch <= (20 if loss == "fused" else 5)
        printed = "noise\n[8.0, 27.2]\n" if fits else "null\n"
        return subprocess.CompletedProcess(command, 0, printed, "")

    monkeypatch.setattr(language_model.subprocess, "run", run)
    return asked


def test_both_are_compared_in_a_table(processes, capsys):
    language_model.main(["--compare", "--batch", "3"])
    printed = capsys.readouterr().out
    for loss in ("fused", "unfused"):
        assert re.search(rf"^{loss} +3 +8\.000 +24 +27 MB$", printed, re.M)
    assert "at most" not in printed
    options = "--batch 3 --vocabulary 50000 --window 64 --policy float32"
    assert processes == [
        f"--measure {loss} {options}" for loss in ("fused", "unfused")
    ]


def test_the_largest_batch_is_found_by_doubling(processes, capsys):
    arguments = "--compare --largest --memory 1.5 --policy mixed_float16"
    language_model.main([*arguments.split(), "--batch", "3"])
    printed = capsys.readouterr().out
    tried = [int(line.split()[3]) for line in processes]
    assert tried == [3, 6, 12, 24, 3, 6]
    for line in processes:
        assert line.endswith("--policy mixed_float16 --memory 1.5 --largest")
    assert re.search(r"^fused +24 +does not fit$", printed, re.M)
    assert printed.endswith(
        "fused: 12 windows at most\nunfused: 3 windows at most\n"
    )


def test_nothing_fits(processes, capsys):
    arguments = ["--compare", "--largest", "--memory", "1", "--batch", "9"]
    language_model.main(arguments)
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "unfused: not even 9 windows"


@pytest.mark.parametrize("code", [-9, 0])
def test_a_process_that_is_killed_does_not_fit(code, monkeypatch):
    def run(command, **_):
        return subprocess.CompletedProcess(command, code, "[8.0, 27.2]\n", "")

    monkeypatch.setattr(language_model.subprocess, "run", run)
    options = language_model.parse(["--compare"])[1]
    found = language_model.in_a_process("fused", 3, options)
    assert found == (None if code else [8.0, 27.2])


@without_gpu
def test_the_error_of_a_process_is_shown(capfd):
    arguments = ["--compare", "--largest", "--vocabulary", "20"]
    with pytest.raises(SystemExit, match="2"):
        language_model.main(arguments)
    assert "a GPU --largest needs --memory GB" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot read"),
        (b"", "has 0 words; at least 1000"),
        (b"too short", "has 2 words"),
        (b"\xff\xfe" * 2000, "is not UTF-8"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(
    content, words, tmp_path, capsys
):
    path = tmp_path / "text.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SystemExit, match="2"):
        language_model.main(["--text", str(path)])
    printed = capsys.readouterr()
    assert words in printed.err
    assert not printed.out


def test_a_text_without_a_word_twice_is_refused(tmp_path, capsys):
    path = tmp_path / "text.txt"
    path.write_text(" ".join(f"w{i}" for i in range(1200)))
    for arguments in [["--text", path], ["--text", path, "--window", 5000]]:
        with pytest.raises(SystemExit, match="2"):
            language_model.main(list(map(str, arguments)))
        assert "too short" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--vocabulary", "1"], "--vocabulary must be at least 2"),
        (["--steps", "0"], "--steps must be at least 1"),
        (["--epochs", "0"], "--epochs must be at least 1"),
        (["--length", "-1"], "--length: must be at least 0"),
        (["--temperature", "0"], "--temperature: must be above 0"),
        (["--temperature", "nan"], "--temperature: must be a finite"),
        (["--temperature", "inf"], "--temperature: must be a finite"),
        (["--seed", "-1"], "--seed: must be at least 0"),
        (["--plots", __file__], "--plots: cannot write"),
        (["--save", f"{__file__}/a.keras"], "--save: cannot write"),
        (["--compare", "--save", "a.keras"], "--compare does no more"),
        (["--largest"], "--largest is for --compare"),
        (["--compare", "--memory", "1"], "--memory is for --largest"),
        (["--memory", "0"], "--memory: must be above 0"),
        (["--policy", "bfloat16"], "from 'float32', 'mixed_bfloat16', 'mixed_"),
        (["--prompt", " "], "--prompt needs a word"),
        (["--save", "model"], "ends in .keras"),
    ],
)
def test_what_cannot_work_is_said_at_once(arguments, words, capsys):
    with pytest.raises(SystemExit, match="2"):
        language_model.main(arguments)
    printed = capsys.readouterr()
    assert words in printed.err
    assert not printed.out


@without_gpu
def test_what_cannot_work_without_a_gpu_is_said_at_once(capsys):
    with pytest.raises(SystemExit, match="2"):
        language_model.main(["--policy", "mixed_float16"])
    assert "choose --policy mixed_bfloat16" in capsys.readouterr().err
