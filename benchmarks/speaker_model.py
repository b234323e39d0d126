"""What each step of examples/siamese_speaker.py buys, on recordings.

The recipe without one step at a time, and with what was tried and left out.
Every row is the mean over seeds; every training runs in a process of its own.
The speakers of `--unseen` are never trained on.

    python benchmarks/speaker_model.py --data DIR --unseen 6 --seeds 3
    python benchmarks/speaker_model.py --data DIR --unseen 6 --sounds

With `--sounds` it is the baseline's equal error rate with other waveforms: with
pre-emphasis, and with the silence at both ends trimmed.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

VARIANTS = {
    "the recipe": {},
    "no AS-norm: cosine": {"backend": "cosine"},
    "tower alone, AS-norm": {"deep": 1e4},
    "tower alone, symmetric KL divergence": {"backend": "none"},
    "linear path alone, AS-norm": {"deep": 1e-4, "epochs": 1},
    "weight of the tower 0.25": {"deep": 0.25},
    "weight of the tower 1": {"deep": 1.0},
    "no voices at other speeds": {"speeds": ()},
    "no masks": {"masks": False},
    "no noise": {"background": False},
    "no equalizer": {"equalizer": 0.0},
    "crops of 0.6 s": {"crop": 60, "crop_share": 0.0},
    "margin 4": {"margin": 4.0},
    "free scale of the logits": {"logit_scale": None},
    "tower alone, symmetric KL divergence, free scale, margin 4": {
        "backend": "none",
        "logit_scale": None,
        "margin": 4.0,
    },
    "twice the epochs": {"epochs": 40},
    "half the epochs": {"epochs": 10},
    "no least number of steps": {"steps": 1},
    "softmax over the speakers": {"loss": "softmax"},
    "AAM-softmax over the speakers": {"loss": "aam_softmax"},
    "angular prototypical": {"loss": "angular_prototypical"},
    "SupCon": {"loss": "supcon"},
    "AAM-softmax, tower alone": {"loss": "aam_softmax", "backend": "none"},
    "angular prototypical, tower alone": {
        "loss": "angular_prototypical",
        "backend": "none",
    },
    "SupCon, tower alone": {"loss": "supcon", "backend": "none"},
    "LSTM tower": {"tower": "lstm"},
}


def pre_emphasized(samples, rate):
    return np.append(samples[:1], samples[1:] - 0.97 * samples[:-1])


def trimmed(decibels):
    """Without what lies so far below the loudest 25 ms, at both ends."""

    def trim(samples, rate):
        frame = rate // 40
        count = len(samples) // frame
        if count < 4:
            return samples
        frames = samples[: count * frame].reshape(count, frame)
        power = np.square(frames).mean(axis=1)
        loud = np.flatnonzero(power > power.max() * 10 ** (-decibels / 10))
        return samples[loud[0] * frame : (loud[-1] + 1) * frame]

    return trim


SOUNDS = {
    "as recorded": lambda samples, rate: samples,
    "pre-emphasis of 0.97": pre_emphasized,
    "trimmed 25 dB below the loudest": trimmed(25),
    "trimmed 35 dB below the loudest": trimmed(35),
    "trimmed 45 dB below the loudest": trimmed(45),
}


def measure_sound(options, sound, seed):
    """Equal error rates of the baseline with other waveforms."""
    import audio
    import siamese_speaker
    import speaker_backend

    read = audio.read

    def changed(path):
        rate, samples = read(path)
        return rate, SOUNDS[sound](samples, rate)

    audio.read = changed
    arguments = arguments_of(options, seed)
    parsed = siamese_speaker.parse(arguments)[1]
    recipe = siamese_speaker.recipe_of(parsed)
    recipe = siamese_speaker.dataclasses.replace(recipe, speeds=())
    corpus = siamese_speaker.load_corpus(parsed, recipe)
    start = time.perf_counter()
    name = speaker_backend.BASELINES[0]
    baseline = speaker_backend.Baseline(corpus.training, seed)
    seconds = time.perf_counter() - start

    def compare(data):
        return baseline.compare(data)[name]

    return {"seconds": seconds, **error_rates(corpus, compare, True)}


def arguments_of(options, seed):
    arguments = ["--data", options.data, "--seed", str(seed)]
    if options.unseen:
        arguments += ["--unseen", *options.unseen]
    return arguments


def measure(options, changes, seed):
    """Equal error rates of one training, and its seconds."""
    import siamese_speaker
    import speaker_scores

    arguments = arguments_of(options, seed)
    if options.cache:
        arguments += ["--cache", options.cache]
    arguments += ["--backend", changes.pop("backend", "as_norm")]
    parsed = siamese_speaker.parse(arguments)[1]
    recipe = siamese_speaker.recipe_of(parsed)
    recipe = siamese_speaker.dataclasses.replace(recipe, **changes)
    corpus = siamese_speaker.load_corpus(parsed, recipe)
    start = time.perf_counter()
    parts = [corpus.training, *corpus.copies[: len(recipe.speeds)]]
    report = speaker_scores.Report("", every=1000)
    trained = siamese_speaker.train_batch(
        parts, None, corpus, recipe, parsed, seed, report
    )
    seconds = time.perf_counter() - start
    backend = trained.backend
    rates = error_rates(corpus, backend.compare, backend.similarity)
    return {"seconds": seconds, **rates}


def error_rates(corpus, compare, similarity):
    """The equal error rates of the seen and of the unseen speakers."""
    import siamese_speaker
    import speaker_scores

    rates = {}
    for group, data in siamese_speaker.groups(corpus):
        match, score = speaker_scores.every_pair(compare(data), data.speaker)
        metric, _ = speaker_scores.verification(match, score, similarity)
        rates[group] = float(metric.result())
    return rates


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--data", required=True, help="recordings, DIR/<speaker>/**/*.wav")
    add("--unseen", nargs="+", help="as of the example")
    add("--cache", help="as of the example")
    add("--seeds", type=int, default=3)
    add("--only", nargs="+", choices=VARIANTS, help="these rows")
    add("--sounds", action="store_true", help="of the baseline")
    add("--case", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        name, seed = options.case[0], int(options.case[1])
        if name in SOUNDS:
            figures = measure_sound(options, name, seed)
        else:
            figures = measure(options, dict(VARIANTS[name]), seed)
        print(json.dumps(figures))
        return
    print("| | seen | unseen | s |\n| --- | --- | --- | --- |")
    rows = SOUNDS if options.sounds else options.only or VARIANTS
    for variant in rows:
        found = []
        for seed in range(options.seeds):
            command = [sys.executable, *sys.argv]
            command += ["--case", variant, str(seed)]
            done = subprocess.run(
                command, check=True, capture_output=True, text=True
            )
            found.append(json.loads(done.stdout.splitlines()[-1]))
        cells = []
        for group in ("seen", "unseen"):
            rates = [100 * each[group] for each in found if group in each]
            mean = sum(rates) / max(1, len(rates))
            cells.append(
                f"{mean:.2f} ({', '.join(f'{rate:.1f}' for rate in rates)})"
            )
        seconds = sorted(each["seconds"] for each in found)
        cells.append(f"{seconds[len(seconds) // 2]:.0f}")
        print(f"| {variant} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
