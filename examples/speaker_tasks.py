"""What one does with a saved speaker model: compare, find, sort recordings.

Every function takes a `Voice`, as `speaker_backend.load` returns it. `embed`
makes a vector of each recording, mostly of unit length, `score` says how much
alike two vectors are, and at `threshold` or above it is the same speaker.
"""

import dataclasses
import filecmp
import unicodedata
from pathlib import Path

import audio
import features
import numpy as np
from audio import SUFFIXES, DataError
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform
from speech import warn
from verification import MATCH, OTHER

import keras_xent

PRIOR = 0.05  # of a match, for the detection cost
BLOCK = 256  # recordings whose trials are scored at once
TOLD = 10  # bad lines named in one error, and runners-up


# Two recordings


def compare(voice, a, b):
    """Did one speaker speak both? Returns the score and the decision."""
    _check_exists([a, b])
    one, other = embed(voice, [a, b])[0]
    score = float(voice.score(one[None], other[None])[0, 0])
    # Whatever the model makes of noise: a recording is by who recorded it.
    copies = filecmp.cmp(a, b, shallow=False)
    same = copies or score >= voice.threshold
    print(f"score: {score:.4g}")
    print(f"threshold: {voice.threshold:.4g} (from it on: the same speaker)")
    print(
        f"decision: {'same' if same else 'different'} speaker"
        + (", for both are the same recording" if copies else "")
    )
    return score, same


# A list of trials


@dataclasses.dataclass(frozen=True)
class Trials:
    """Pairs of recordings of which is known whether they match."""

    names: list  # of the recordings, as the list has them, each once
    paths: list  # where they are
    match: np.ndarray
    first: np.ndarray  # row of names
    second: np.ndarray


def trials(voice, path, out=None, *, root=None):
    """Score a trial list in VoxCeleb's format, `1 a.wav b.wav`.

    The recordings lie relative to `root`, or else to the folder of the list.
    Each is embedded once. Prints the error rates and returns them; `out` is a
    file for the scores, `label a b score`, as `verification.py` reads it.
    """
    listed = read_trials(path, root)
    if out is not None:
        _check_out(out, [path, *listed.paths])
    embeddings, _ = embed(voice, listed.paths)
    score = score_pairs(voice, embeddings, listed.first, listed.second)
    figures = verify(listed.match, score, voice.threshold)
    matches = int(listed.match.sum())
    print(
        f"{len(score)} trials of {len(listed.names)} recordings: {matches} of "
        f"one speaker, {len(score) - matches} of two"
    )
    print(f"equal error rate: {figures['equal_error']:.2%}")
    print(
        f"least detection cost: {figures['min_cost']:.3f} (if {PRIOR:.0%} are "
        "of one speaker)"
    )
    print(
        f"at the threshold {voice.threshold:.4g}: "
        f"false matches {figures['false_match']:.2%}, "
        f"false non-matches {figures['false_non_match']:.2%}, "
        f"accuracy {figures['accuracy']:.2%}"
    )
    if out is not None:
        rows = zip(
            listed.match, listed.first, listed.second, score, strict=True
        )
        lines = [
            f"{int(flag)} {listed.names[a]} {listed.names[b]} {value:.7g}\n"
            for flag, a, b, value in rows
        ]
        try:
            with open(out, "w", encoding="utf-8") as file:
                file.writelines(lines)
        except OSError as error:
            raise DataError(f"{out} cannot be written: {error}") from error
    return figures


def read_trials(path, root=None):
    """`Trials` from a file. All lines that cannot be used are named."""
    path = Path(path)
    root = path.parent if root is None else Path(root)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    rows, match, pairs, missing, problems = {}, [], [], {}, []
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words:
            continue
        label, *names = words
        if len(names) != 2 or label.lower() not in MATCH | OTHER:
            problems.append(
                f"line {number}: {line.strip()!r} is not a label (1 or 0) and "
                "two recordings without spaces in their names"
            )
            continue
        for name in names:
            if name not in rows:
                missing[name] = not (root / name).is_file()
                rows[name] = len(rows)
        problems += [
            f"line {number}: {root / name} does not exist"
            for name in dict.fromkeys(names)
            if missing[name]
        ]
        match.append(label.lower() in MATCH)
        pairs.append([rows[name] for name in names])
    if problems:
        more = len(problems) - TOLD
        told = problems[:TOLD] + ([f"and {more} more"] if more > 0 else [])
        raise DataError("\n  ".join([f"{path}:", *told]))
    match = np.array(match, bool)
    if match.all() or not match.any():
        raise DataError(
            f"{path} must hold trials of one speaker (label 1) and of two "
            f"(label 0). Received: {match.sum()} and {(~match).sum()}"
        )
    first, second = np.array(pairs).T
    return Trials(
        list(rows), [root / name for name in rows], match, first, second
    )


def score_pairs(voice, embeddings, first, second):
    """The scores of some pairs of rows, without those of all others."""
    score = np.empty(len(first), "float32")
    order = np.argsort(first, kind="stable")
    ordered, rows = first[order], np.unique(first)
    for start in range(0, len(rows), BLOCK):
        a = rows[start : start + BLOCK]
        ends = np.searchsorted(ordered, [a[0], a[-1] + 1])
        pairs = order[slice(*ends)]
        b, column = np.unique(second[pairs], return_inverse=True)
        table = voice.score(embeddings[a], embeddings[b])
        score[pairs] = table[np.searchsorted(a, first[pairs]), column]
    return score


def verify(match, score, threshold):
    """The error rates of these scores, a dict of floats."""
    metric = keras_xent.metrics.VerificationMetrics(
        p_target=PRIOR, similarity=True, resolution=9, name="trials"
    )
    found = metric(match, score)
    same = score >= threshold
    return {
        "equal_error": float(found["trials_equal_error_rate"]),
        "min_cost": float(found["trials_min_detection_cost"]),
        "false_match": float(np.mean(same[~match])),
        "false_non_match": float(np.mean(~same[match])),
        "accuracy": float(np.mean(same == match)),
    }


# Known speakers


def enrol(voice, directory):
    """The voices of `directory/<speaker>/**`: names, and a vector for each.

    A speaker's vector is the mean over the recordings, of length 1 if theirs
    are.
    """
    paths, speakers = [], []
    for path, speaker in recordings(directory):
        if speaker:
            paths.append(path)
            speakers.append(speaker)
        else:
            warn(f"{path} is skipped: it lies in no speaker's folder")
    if not paths:
        raise DataError(
            f"{directory} holds no recording of a known speaker; expected are "
            f"DIR/<speaker>/**/*.wav ({', '.join(SUFFIXES)})"
        )
    embeddings, kept = embed(voice, paths, skip=True)
    speakers = np.array(speakers)
    names, speaker = np.unique(speakers[kept], return_inverse=True)
    if left_out := sorted({*speakers.tolist()} - {*names.tolist()}):
        warn(f"no recording can be used, left out: {', '.join(left_out)}")
    mean = np.stack(
        [embeddings[speaker == row].mean(axis=0) for row in range(len(names))]
    )
    if np.allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-3):
        mean /= np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12)
    return names.tolist(), mean


def identify(voice, enrolled, path):
    """Who of the enrolled speaks there? Returns a name, or None for nobody."""
    _check_exists([path])
    names, embeddings = enrolled
    one, _ = embed(voice, [path])
    score = voice.score(one, embeddings)[0]
    order = np.argsort(-score, kind="stable")
    best = order[0]
    known = bool(score[best] >= voice.threshold)
    if known:
        print(f"{path}: {names[best]}, score {score[best]:.4g}")
    else:
        print(f"{path}: nobody who is enrolled")
    print(f"threshold: {voice.threshold:.4g} (from it on: the same speaker)")
    for row in order[known : TOLD + known]:
        print(f"  {score[row]:>8.4g}  {names[row]}")
    if len(order) > TOLD + known:
        print(f"  and {len(order) - TOLD - known} with lower scores")
    return names[best] if known else None


# Many recordings


def embeddings(voice, paths, out):
    """Save vectors as .npz: `embeddings`, `paths` and `speakers`.

    `paths` is one path or many; a folder stands for all recordings in it.
    `speakers` are the names of folders: the first one below a folder that was
    given, or the one that a recording lies in; "" if there is none.
    """
    if isinstance(paths, str | Path):
        paths = [paths]
    if Path(out).suffix != ".npz":
        raise DataError(f"{out}: the name must end in .npz")
    found = []
    for path in map(Path, paths):
        if path.is_dir():
            found += recordings(path)
        else:
            found.append((path, path.parent.name))
    _check_exists([path for path, _ in found])
    _check_out(out, [path for path, _ in found])
    vectors, kept = embed(voice, [path for path, _ in found], skip=True)
    try:
        np.savez(
            out,
            embeddings=vectors,
            paths=np.array([str(found[row][0]) for row in kept]),
            speakers=np.array([found[row][1] for row in kept]),
        )
    except OSError as error:
        raise DataError(f"{out} cannot be written: {error}") from error
    print(f"{out}: {len(vectors)} embeddings of {vectors.shape[1]} numbers")


def cluster(voice, directory, out, count=None):
    """How many voices are in a folder, and who is who?

    Average linkage: two groups are one voice if the mean score between them is
    at or above the threshold. With `count`, there are as many voices. Writes
    `out/dendrogram.png`. Returns the recordings and the voice of each, from 0.
    """
    paths = [path for path, _ in recordings(directory)]
    if count is not None and not 1 <= count <= len(paths):
        raise DataError(
            f"{len(paths)} recordings in {directory} cannot be {count} voices"
        )
    try:
        Path(out).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{out} cannot be a folder: {error}") from error
    vectors, kept = embed(voice, paths, skip=True)
    if len(kept) < max(2, count or 0):
        raise DataError(
            f"{directory} holds {len(kept)} recording(s) that can be used; "
            f"at least {max(2, count or 0)} are needed"
        )
    paths = [paths[row] for row in kept]
    tree, top = linkage(voice.score(vectors, vectors))
    if count is None:
        label = hierarchy.fcluster(tree, top - voice.threshold, "distance") - 1
    else:
        label = hierarchy.cut_tree(tree, n_clusters=count)[:, 0]
    # The largest voice comes first, of equal ones the one met first.
    _, met, label, sizes = np.unique(
        label, return_index=True, return_inverse=True, return_counts=True
    )
    label = np.argsort(np.lexsort((met, -sizes)))[label]
    names = [str(path.relative_to(directory)) for path in paths]
    print(f"{len(paths)} recordings, {len(sizes)} voices")
    for voice_id in range(len(sizes)):
        rows = np.flatnonzero(label == voice_id)
        print(f"\nvoice {voice_id + 1}, {len(rows)} recordings")
        print("\n".join(f"  {names[row]}" for row in rows))
    import speaker_plots

    path = Path(out) / "dendrogram.png"
    speaker_plots.save_dendrogram(
        path, tree, top, label, names, voice.threshold
    )
    print(f"\n{path}: which recordings are alike")
    return paths, label


def linkage(score):
    """The tree of average linkage, and the score at its height 0."""
    score = np.asarray(score, "float64")
    pairs = squareform((score + score.T) / 2, checks=False)
    return hierarchy.average(pairs.max() - pairs), pairs.max()


# Reading


def recordings(directory):
    """All recordings below a folder, and the first folder that each is in.

    Of kinds that cannot be read, too: `embed` says so.
    """
    found = []
    for path in audio.files(directory):
        parts = path.relative_to(directory).parts
        speaker = parts[0] if len(parts) > 1 else ""
        # File systems differ in how they spell an accent.
        found.append((path, unicodedata.normalize("NFC", speaker)))
    if not found:
        raise DataError(f"{directory} holds no {', '.join(SUFFIXES)}")
    return found


def embed(voice, paths, *, skip=False):
    """The vectors of recordings, and the rows of those that could be used.

    One that cannot be used is an error, or with `skip` a warning.
    """
    vectors, kept, skipped = [], [], []
    for row, path in enumerate(features.progress(paths, "embedding")):
        try:
            vectors.append(voice.embed([path])[0])
            kept.append(row)
        except DataError as error:
            why = str(error)
            if str(path) not in why:
                why = f"{path}: {why}"
            if not skip:
                raise DataError(why) from error
            skipped.append(why)
    for why in skipped[:TOLD]:
        warn(f"skipped: {why}")
    if len(skipped) > TOLD:
        warn(f"and {len(skipped) - TOLD} more are skipped")
    if not kept:
        raise DataError("no recording can be used")
    return np.stack(vectors), kept


def _check_exists(paths):
    missing = [str(path) for path in paths if not Path(path).is_file()]
    if missing:
        more = f" and {len(missing) - TOLD} more" * (len(missing) > TOLD)
        raise DataError(f"no such file: {', '.join(missing[:TOLD])}{more}")


def _check_out(out, inputs):
    """Before hours of work: can the result be written, and over nothing?"""
    out = Path(out)
    if out.is_dir() or not out.parent.is_dir():
        raise DataError(f"{out} cannot be written: it is no file in a folder")
    if out.resolve() in {Path(path).resolve() for path in inputs}:
        raise DataError(f"{out} would be overwritten, and it is to be read")
