"""What each step of examples/siamese_speaker.py buys, on recordings.

The recipe without one step at a time, and with what was tried and left out.
Every row is the mean over seeds; every training runs in a process of its own.
The speakers of `--unseen` are never trained on.

    python benchmarks/speaker_model.py --data DIR --unseen 6 --seeds 3
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

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
    "no equaliser": {"equalizer": 0.0},
    "crops of 0.6 s": {"crop": 60, "crop_share": 0.0},
    "margin 4": {"margin": 4.0},
    "free scale of the logits": {"logit_scale": None},
    "twice the epochs": {"epochs": 40},
    "half the epochs": {"epochs": 10},
    "no least number of steps": {"steps": 1},
    "softmax over the speakers": {"loss": "softmax"},
    "LSTM tower": {"tower": "lstm"},
}


def measure(options, changes, seed):
    """Equal error rates of one training, and its seconds."""
    import siamese_speaker
    import speaker_scores

    arguments = ["--data", options.data, "--seed", str(seed)]
    if options.unseen:
        arguments += ["--unseen", *options.unseen]
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
    backend = trained.backend
    figures = {"seconds": time.perf_counter() - start}
    for group, data in siamese_speaker.groups(corpus):
        match, score = speaker_scores.every_pair(
            backend.compare(data), data.speaker
        )
        metric, _ = speaker_scores.verification(
            match, score, backend.similarity
        )
        figures[group] = float(metric.result())
    return figures


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--data", required=True, help="recordings, DIR/<speaker>/**/*.wav")
    add("--unseen", nargs="+", help="as of the example")
    add("--cache", help="as of the example")
    add("--seeds", type=int, default=3)
    add("--only", nargs="+", choices=VARIANTS, help="these rows")
    add("--case", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        changes = dict(VARIANTS[options.case[0]])
        print(json.dumps(measure(options, changes, int(options.case[1]))))
        return
    print("| | seen | unseen | s |\n| --- | --- | --- | --- |")
    for variant in options.only or VARIANTS:
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
