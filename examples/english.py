"""English text for the examples: what ships with Python itself.

Two sources, about 2.2 million characters together: the topics of `help()`,
from `pydoc_data.topics`, and the docstrings of the standard library, taken
out of its source by `ast`. Every topic and every module is a document.

A vocabulary holds words, each with the space before it, punctuation and line
ends, so that a decoded text reads like the text that was encoded.
"""

import ast
import collections
import itertools
import re
import sysconfig
import typing
from pathlib import Path

import numpy as np

UNKNOWN = 0  # the id of words that are not in the vocabulary, and of padding
LEAST = 1000  # words that a file must have
PARTS = 20  # a file is cut into so many documents
NO_LIBRARY = {"site-packages", "dist-packages", "test", "tests", "idle_test"}
WORDS = re.compile(r" ?(?:\w+|-+|=+|\*+|\.+|>+|[^\w\s])|\n+")
RULERS = re.compile(r"^[-=+*~^|#_ ]{3,}$\n?", re.MULTILINE)


class TextError(Exception):
    """The text cannot be used; the message says why."""


def python_text():
    """All that ships with Python: a dict of documents by name."""
    return help_topics() | library_docstrings()


def help_topics():
    from pydoc_data.topics import topics

    return {f"help({name!r})": tidy(topics[name]) for name in sorted(topics)}


def library_docstrings():
    library = Path(sysconfig.get_path("stdlib"))
    documents = {}
    for path in sorted(library.rglob("*.py")):
        name = path.relative_to(library)
        if NO_LIBRARY.isdisjoint(name.parts):
            documents[name.as_posix()] = tidy(docstrings(path.read_bytes()))
    return {name: text for name, text in documents.items() if text}


def docstrings(source):
    """All docstrings of a module; none if Python cannot parse it."""
    try:
        nodes = list(ast.walk(ast.parse(source)))
    except (SyntaxError, ValueError):
        return ""
    kinds = ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef
    found = (ast.get_docstring(x) for x in nodes if isinstance(x, kinds))
    return "\n\n".join(filter(None, found))


def text_file(path):
    """A UTF-8 file, cut into parts of about the same length."""
    try:
        text = tidy(Path(path).read_text("utf-8-sig"))
    except OSError as error:
        raise TextError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise TextError(f"{path} is not UTF-8 text") from None
    words = WORDS.findall(text)
    if len(words) < LEAST:
        raise TextError(
            f"{path} has {len(words)} words; at least {LEAST} are needed"
        )
    ends = [len(words) * part // PARTS for part in range(PARTS + 1)]
    return {
        f"part {start}": "".join(words[start:end])
        for start, end in itertools.pairwise(ends)
    }


class Corpus(typing.NamedTuple):
    """A text in numbers.

    Attributes:
        vocabulary: The words of the part to train on.
        train, test: Ids, int32. Whole documents are held out to test on.
        documents: How many there are in each of the two.
    """

    vocabulary: "Vocabulary"
    train: np.ndarray
    test: np.ndarray
    documents: tuple


def corpus(size, text=None, small=False, seed=0):
    """Python's own text, or a file, with a vocabulary of at most `size`."""
    if text:
        documents = text_file(text)
    else:
        documents = help_topics() if small else python_text()
    parts = hold_out(documents, seed=seed)
    vocabulary = Vocabulary(parts[0], size)
    train, test = (
        vocabulary.encode("\n\n".join(part.values())) for part in parts
    )
    return Corpus(vocabulary, train, test, tuple(map(len, parts)))


def tidy(text):
    """No rulers, no space at line ends, one space or blank line at most."""
    text = re.sub(r"[^\S\n]+", " ", text)
    text = re.sub(r" ?\n ?", "\n", text)
    text = RULERS.sub("", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def hold_out(documents, share=0.02, seed=0):
    """Two dicts: the documents to train on, and whole ones to test on."""
    names = np.random.default_rng(seed).permutation(sorted(documents))
    held = set(names[: max(1, round(share * len(names)))].tolist())
    return (
        {name: text for name, text in documents.items() if name not in held},
        {name: text for name, text in documents.items() if name in held},
    )


class Vocabulary:
    """The most frequent words of some documents; id 0 is for all others."""

    def __init__(self, documents, size):
        counts = collections.Counter()
        for text in documents.values():
            counts.update(WORDS.findall(text))
        known = [word for word, _ in counts.most_common(size - 1)]
        self.words = ["\N{REPLACEMENT CHARACTER}", *known]
        self.ids = {word: index for index, word in enumerate(self.words)}

    def __len__(self):
        return len(self.words)

    def encode(self, text):
        """The ids of a tidy text, as int32."""
        ids = [self.ids.get(word, UNKNOWN) for word in WORDS.findall(text)]
        return np.array(ids, "int32")

    def decode(self, ids):
        return "".join(self.words[index] for index in ids)
