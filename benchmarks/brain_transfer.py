"""How well simulated brains teach a model to tell real brain planes apart: an answer in 4 minutes.

    python benchmarks/brain_transfer.py --start runs/quickstart --root FETAL_PLANES_DB
    python benchmarks/brain_transfer.py --start runs/quickstart --root FETAL_PLANES_DB --real

A whole pretraining says little about one change of the simulator: it takes long, and seeds differ
by more. Here the image tower of a run, with three outputs, learns the brain planes of simulated
heads alone and is judged on real *training* patients. Macro F1 counts where the answers fall, the
area under the ROC curve (one plane against the others, mean of three) only how they are ordered.
`--real` learns from three quarters of those patients and is judged on the last quarter, four times:
what images of this size hold for this tower.
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
from fetalclip_jax.data.appearance import OTHER_MACHINES
from fetalclip_jax.data.augment import AugmentConfig, draw_zoom, train_augment
from fetalclip_jax.datasets.registry import open_source
from fetalclip_jax.evaluation.statistics.metrics import macro_f1
from fetalclip_jax.evaluation.statistics.ranking import auroc
from fetalclip_jax.labels import BRAIN_PLANES
from fetalclip_jax.models.clip import CLIP
from fetalclip_jax.models.preprocess import normalise, square_resize
from fetalclip_jax.phantom.simulator import Phantom

_BATCH, _RATE, _WARMUP, _DECAY = 64, 5e-4, 30, 0.99
_AUGMENT = AugmentConfig(
    rotate_degrees=15.0, translate=0.08, jitter=0.15, flip_vertical=0.5, zoom=0.15, **OTHER_MACHINES
)


def squares(examples, size: int):
    """Images uint8 [n, size, size], planes int [n] and patients of what shows a brain plane."""
    shown = [e for e in examples if e.brain_plane in BRAIN_PLANES]
    images = [e.image if e.image.ndim == 2 else e.image.mean(-1).round() for e in shown]
    images = np.stack([square_resize(one.astype(np.uint8), size) for one in images])
    planes = np.array([BRAIN_PLANES.index(e.brain_plane) for e in shown])
    return images, planes, np.array([e.patient_id for e in shown])


def learn(model, images, planes, steps: int, seed: int):
    """A function of uint8 images that gives log probabilities, from averaged parameters."""
    head = {"kernel": jnp.zeros((model.config.embed_dim, 3)), "bias": jnp.zeros(3)}
    params = {"tower": model.params, "head": head}
    weight = jnp.asarray(len(planes) / 3 / np.bincount(planes, minlength=3))

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
    def step(params, average, state, pixels, labels):
        def loss(params):
            right = jnp.take_along_axis(scores(params, pixels), labels[:, None], 1)[:, 0]
            return -(right * weight[labels]).mean()

        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        params = optax.apply_updates(params, updates)
        average = jax.tree.map(lambda a, p: _DECAY * a + (1 - _DECAY) * p, average, params)
        return params, average, state

    def batch(number):
        rng = np.random.default_rng((seed, number))
        rows = rng.integers(0, len(images), _BATCH)
        zooms = [draw_zoom(rng, _AUGMENT) for _ in rows]
        pairs = zip(images[rows], zooms, strict=True)
        return np.stack([train_augment(i, rng, _AUGMENT, zoom) for i, zoom in pairs]), planes[rows]

    average, state = jax.tree.map(jnp.copy, params), optimizer.init(params)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        following = pool.submit(batch, 0)
        for number in range(steps):
            pixels, labels = following.result()
            following = pool.submit(batch, number + 1)
            params, average, state = step(params, average, state, pixels, labels)
    answer = jax.jit(scores)

    def log_probabilities(pixels):
        padded = np.concatenate([pixels, pixels[: -len(pixels) % _BATCH]])
        parts = [answer(average, padded[i : i + _BATCH]) for i in range(0, len(padded), _BATCH)]
        return np.concatenate(parts)[: len(pixels)]

    return log_probabilities


def say(what: str, planes, answers) -> None:
    """One row of a table."""
    areas = []
    for plane in range(3):
        scores, at = np.unique(answers[:, plane], return_inverse=True)
        others, of_it = (
            np.bincount(at[(planes == plane) == wanted], minlength=len(scores))[None]
            for wanted in (False, True)
        )
        areas.append(auroc(others, of_it)[0])
    each = " ".join(f"{area:.3f}" for area in areas)
    f1 = macro_f1(planes, answers.argmax(1))
    print(f"| {what} | {len(planes)} | {f1:.3f} | {np.mean(areas):.3f} ({each}) |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--start", required=True, help="folder of a trained run")
    parser.add_argument("--root", required=True, help="folder of FETAL_PLANES_DB")
    parser.add_argument("--images", type=int, default=6000, help="simulated ones")
    parser.add_argument("--steps", type=int, default=500, help=f"of {_BATCH} images each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--real", action="store_true", help="learn from real patients")
    arguments = parser.parse_args()
    model = fetalclip_jax.load(arguments.start)
    size = model.config.vision_cfg.image_size
    source = open_source("fetal_planes_db", arguments.root, "official_train")
    rows = [i for i in range(len(source)) if source.bare(i).brain_plane in BRAIN_PLANES]
    images, planes, patients = squares((source[i] for i in rows), size)
    print(f"| judged on | images | macro F1 | area ({', '.join(BRAIN_PLANES)}) |")
    print("|---|---|---|---|")
    if arguments.real:
        names, patient = np.unique(patients, return_inverse=True)
        fold = np.random.default_rng(0).integers(0, 4, len(names))[patient]
        answers = np.zeros((len(planes), 3), np.float32)
        for one in range(4):
            known = fold != one
            answer = learn(model, images[known], planes[known], arguments.steps, arguments.seed)
            answers[~known] = answer(images[~known])
        say("real patients, from others", planes, answers)
        return
    phantom = Phantom(77 + arguments.seed, size, 2, {"brain": 1.0})
    drawn = squares((phantom[i] for i in range(arguments.images)), size)
    kept = round(0.93 * len(drawn[1]))
    answer = learn(model, drawn[0][:kept], drawn[1][:kept], arguments.steps, arguments.seed)
    say("simulated fetuses", drawn[1][kept:], answer(drawn[0][kept:]))
    say("real patients", planes, answer(images))


if __name__ == "__main__":
    main()
