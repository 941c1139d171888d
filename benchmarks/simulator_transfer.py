"""How well simulated images teach a model to tell real planes apart: an answer in 4 minutes.

    python benchmarks/simulator_transfer.py brain --start runs/quickstart --root FETAL_PLANES_DB
    python benchmarks/simulator_transfer.py planes --start runs/quickstart --root FETAL_PLANES_DB
    python benchmarks/simulator_transfer.py brain --start ... --root ... --real

A whole pretraining says little about one change of the simulator: it takes long, and seeds differ
by more. Here the image tower of a run, with an output for each class, learns the brain planes of
simulated heads, or the nine planes that zero-shot classification chooses from, and is judged on
real *training* patients. Macro F1 counts where the answers fall, the area under the ROC curve (one
class against the others, mean over the classes that are there) only how they are ordered. `--real`
learns from three quarters of those patients and is judged on the last quarter, four times: what
images of this size hold for this tower.
"""

import argparse
import concurrent.futures
import functools
import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import numpy as np
import optax

import fetalclip_jax
from fetalclip_jax import labels
from fetalclip_jax.data.appearance import OTHER_MACHINES
from fetalclip_jax.data.augment import AugmentConfig, draw_zoom, train_augment
from fetalclip_jax.datasets.registry import open_source
from fetalclip_jax.evaluation.statistics.metrics import macro_f1
from fetalclip_jax.evaluation.statistics.ranking import auroc
from fetalclip_jax.labels import PLANES, Classes
from fetalclip_jax.models.clip import CLIP
from fetalclip_jax.models.preprocess import normalise, square_resize
from fetalclip_jax.phantom.simulator import PLANE_WEIGHTS, Phantom

_BATCH, _RATE, _WARMUP, _DECAY = 64, 5e-4, 30, 0.99
# With vertical flips, although `phantom_base` has none: what RESULTS.md compares was measured so.
_AUGMENT = AugmentConfig(
    rotate_degrees=15.0, translate=0.08, jitter=0.15, flip_vertical=0.5, zoom=0.15, **OTHER_MACHINES
)


# What is told apart, the planes that the phantom draws for it, and how many images of them.
_DRAWN = {plane: weight for plane, weight in PLANE_WEIGHTS.items() if plane in PLANES}
_TASKS = {
    "brain": (labels.TASKS["brain"], {"brain": 1.0}, 6000),
    "planes": (Classes("plane", PLANES), _DRAWN, 8000),
}


def numbered(examples, classes: Classes) -> np.ndarray:
    """The class of each example, int [n]; -1 for none."""
    named = (getattr(example, classes.column) for example in examples)
    return np.array([classes.names.index(n) if n in classes.names else -1 for n in named])


def squares(examples, size: int) -> np.ndarray:
    """uint8 [n, size, size]."""
    grey = (e.image if e.image.ndim == 2 else e.image.mean(-1).round() for e in examples)
    return np.stack([square_resize(one.astype(np.uint8), size) for one in grey])


def learn(model, images, truth, count: int, steps: int, seed: int):
    """A function of uint8 images that gives log probabilities, from averaged parameters."""
    head = {"kernel": jnp.zeros((model.config.embed_dim, count)), "bias": jnp.zeros(count)}
    params = {"tower": model.params, "head": head}
    weight = jnp.asarray(len(truth) / count / np.bincount(truth, minlength=count).clip(1))

    def scores(params, pixels):
        tower = {"params": params["tower"]}
        features = model.module.apply(tower, normalise(pixels), method=CLIP.encode_image)
        features /= jnp.linalg.norm(features, axis=1, keepdims=True)
        logits = 10 * features @ params["head"]["kernel"] + params["head"]["bias"]
        return jax.nn.log_softmax(logits)

    rate = optax.warmup_cosine_decay_schedule(0, _RATE, min(_WARMUP, steps // 2), steps)
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(rate, b2=0.98, weight_decay=0.1)
    )

    @functools.partial(jax.jit, donate_argnums=(1, 2))
    def step(params, average, state, pixels, classes):
        def loss(params):
            right = jnp.take_along_axis(scores(params, pixels), classes[:, None], 1)[:, 0]
            return -(right * weight[classes]).mean()

        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        params = optax.apply_updates(params, updates)
        average = jax.tree.map(lambda a, p: _DECAY * a + (1 - _DECAY) * p, average, params)
        return params, average, state

    def batch(number):
        rng = np.random.default_rng((seed, number))
        rows = rng.integers(0, len(images), _BATCH)
        zooms = [draw_zoom(rng, _AUGMENT) for _ in rows]
        pairs = zip(images[rows], zooms, strict=True)
        return np.stack([train_augment(i, rng, _AUGMENT, zoom) for i, zoom in pairs]), truth[rows]

    average, state = jax.tree.map(jnp.copy, params), optimizer.init(params)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        following = pool.submit(batch, 0)
        for number in range(steps):
            pixels, classes = following.result()
            following = pool.submit(batch, number + 1)
            params, average, state = step(params, average, state, pixels, classes)
    answer = jax.jit(scores)

    def log_probabilities(pixels):
        padded = np.concatenate([pixels, pixels[: -len(pixels) % _BATCH]])
        parts = [answer(average, padded[i : i + _BATCH]) for i in range(0, len(padded), _BATCH)]
        return np.concatenate(parts)[: len(pixels)]

    return log_probabilities


def say(what: str, names, truth, answers) -> None:
    """One row of a table."""
    areas = {}
    for label in np.unique(truth):
        scores, at = np.unique(answers[:, label], return_inverse=True)
        others, of_it = (
            np.bincount(at[(truth == label) == wanted], minlength=len(scores))[None]
            for wanted in (False, True)
        )
        areas[names[label]] = auroc(others, of_it)[0]
    each = ", ".join(f"{name} {area:.3f}" for name, area in areas.items())
    f1, area = macro_f1(truth, answers.argmax(1), len(names)), np.mean(list(areas.values()))
    print(f"| {what} | {len(truth)} | {f1:.3f} | {area:.3f} ({each}) |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=_TASKS)
    parser.add_argument("--start", required=True, help="folder of a trained run")
    parser.add_argument("--root", required=True, help="folder of FETAL_PLANES_DB")
    parser.add_argument("--images", type=int, help="simulated ones (default: 6000, planes 8000)")
    parser.add_argument("--steps", type=int, default=500, help=f"of {_BATCH} images each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--real", action="store_true", help="learn from real patients")
    arguments = parser.parse_args()
    classes, weights, count = _TASKS[arguments.task]
    fixed = (len(classes.names), arguments.steps, arguments.seed)
    model = fetalclip_jax.load(arguments.start)
    size = model.config.vision_cfg.image_size
    source = open_source("fetal_planes_db", arguments.root, "official_train")
    bare = [source.bare(i) for i in range(len(source))]
    truth = numbered(bare, classes)
    shown = np.flatnonzero(truth >= 0)
    images, truth = squares((source[int(i)] for i in shown), size), truth[shown]
    print("| judged on | images | macro F1 | area under the curve |")
    print("|---|---|---|---|")
    if arguments.real:
        patients = np.unique([bare[i].patient_id for i in shown], return_inverse=True)[1]
        fold = np.random.default_rng(0).integers(0, 4, patients.max() + 1)[patients]
        answers = np.zeros((len(truth), len(classes.names)), np.float32)
        for one in range(4):
            known = fold != one
            answers[~known] = learn(model, images[known], truth[known], *fixed)(images[~known])
        say("real patients, from others", classes.names, truth, answers)
        return
    phantom = Phantom(77 + arguments.seed, size, 2, weights)
    drawn = [phantom[i] for i in range(arguments.images or count)]
    pictures, shown = squares(drawn, size), numbered(drawn, classes)
    kept = round(0.93 * len(shown))
    answer = learn(model, pictures[:kept], shown[:kept], *fixed)
    say("simulated fetuses", classes.names, shown[kept:], answer(pictures[kept:]))
    say("real patients", classes.names, truth, answer(images))


if __name__ == "__main__":
    main()
