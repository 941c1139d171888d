"""Many decoders at once against each alone, against plain optax, and within a study."""

import types

import jax
import numpy as np
import optax
import pytest

from fetalclip_jax.data.columns import NUMBER_COLUMNS, TEXT_COLUMNS
from fetalclip_jax.evaluation import studies
from fetalclip_jax.evaluation.features.pixels import PixelStore
from fetalclip_jax.evaluation.features.tokens import TokenStore
from fetalclip_jax.evaluation.heads import dense, unetr
from fetalclip_jax.evaluation.heads.unetr import DecoderConfig, Dense, fit
from fetalclip_jax.losses.dice import dice_loss
from fetalclip_jax.models.preprocess import normalise
from fetalclip_jax.models.unetr import UNETRDecoder, initial_variables

SIZE, CLASSES = 16, 3
CONFIG = DecoderConfig(learning_rate=0.01, weight_decay=0.5, batch_size=4, epochs=3, width=2)


class Images:
    """Bright squares, and which rows were asked for."""

    def __init__(self, count=24):
        rng = np.random.default_rng(0)
        self.pixels = rng.integers(0, 60, (count, SIZE, SIZE), np.uint8)
        self.masks = np.zeros((count, SIZE, SIZE, CLASSES), bool)
        for image, (row, column) in enumerate(rng.integers(0, 8, (count, 2))):
            self.masks[image, row : row + 8, column : column + 8, 0] = True
            self.masks[image, row : row + 4, column : column + 4, 1] = True
            self.masks[image, row : row + 4, column + 4 : column + 8, 2] = True
        self.pixels[self.masks[..., 0]] += 150
        self.pixels = self.pixels[..., None].repeat(3, -1)
        self.tokens = rng.normal(size=(count, 4, 1, 1, 3)).astype(np.float16)
        self.asked = []

    def batch(self, rows):
        self.asked.append(rows)
        return Dense(self.pixels[rows], self.tokens[rows], self.masks[rows])


TRAIN = [np.arange(0, 13), np.arange(4, 9), np.arange(3)]
VALIDATION = [np.arange(14, 20), np.arange(14, 17), np.arange(18, 20)]


@pytest.fixture(autouse=True, scope="module")
def two_at_once():
    """Three runs are then two groups, of which the second is filled up."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unetr, "runs_together", lambda *_: 2)
        yield


@pytest.fixture(scope="module")
def trained(two_at_once):
    return fit(Images(), TRAIN, VALIDATION, classes=CLASSES, config=CONFIG, seeds=[3, 4, 5])


def orders(rows, seed):
    """Batches of each epoch: of 13 rows three batches; three rows are repeated to make four."""
    rng, steps = np.random.default_rng(seed), max(len(rows) // 4, 1)
    for _ in range(CONFIG.epochs):
        order = rng.permutation(rows)
        while len(order) < 4:
            order = np.concatenate([order, rng.permutation(rows)])
        yield order[: 4 * steps].reshape(steps, 4)


def inputs(data, rows):
    tokens = np.moveaxis(data.tokens[rows], 1, 0).astype(np.float32)
    return normalise(data.pixels[rows]), tuple(tokens)


def programs():
    """A step by optax, and logits."""
    decoder, optimiser = UNETRDecoder(CLASSES, 2), optax.adamw(0.01, weight_decay=0.5)

    @jax.jit
    def step(variables, moments, images, tokens, masks):
        def loss_of(params):
            logits, updates = decoder.apply(
                variables | {"params": params}, images, tokens, True, mutable="batch_stats"
            )
            return dice_loss(logits, masks), updates

        gradients, updates = jax.grad(loss_of, has_aux=True)(variables["params"])
        changes, moments = optimiser.update(gradients, moments, variables["params"])
        return {"params": optax.apply_updates(variables["params"], changes), **updates}, moments

    return step, jax.jit(decoder.apply)


def by_optax(run, step, evaluate):
    """The loss on all validation images at once, and variables, after each epoch."""
    data, held_out = Images(), VALIDATION[run]
    variables = initial_variables(UNETRDecoder(CLASSES, 2), SIZE, (1, 1, 3), seed=3 + run)
    moments = optax.adamw(0.01).init(variables["params"])
    for batches in orders(TRAIN[run], 3 + run):
        for rows in batches:
            variables, moments = step(variables, moments, *inputs(data, rows), data.masks[rows])
        # All six images at once, so that one program does; those of this run are then compared.
        logits = evaluate(variables, *inputs(data, np.arange(14, 20)))[held_out - 14]
        yield float(dice_loss(logits, data.masks[held_out])), variables


def test_runs_together_equal_plain_optax_one_by_one(trained):
    assert len(trained) == 3
    data, rows = Images(), np.arange(14, 20)
    found = list(trained.probabilities(data, rows))
    assert [list(of_batch) for of_batch, _ in found] == [[14, 15, 16, 17], [18, 19]]
    probabilities = np.concatenate([values for _, values in found], axis=1)
    step, evaluate = programs()
    for run in range(3):
        losses, variables = zip(*by_optax(run, step, evaluate), strict=True)
        best = int(np.argmin(losses))
        np.testing.assert_allclose(trained.validation_loss[run], losses[best], rtol=1e-3)
        assert trained.best_epoch[run] == best + 1
        # Biases before a normalisation follow the signs of rounding errors: compare what is seen.
        expected = jax.nn.sigmoid(evaluate(variables[best], *inputs(data, rows)))
        np.testing.assert_allclose(probabilities[run], expected, atol=5e-3)
        one, other = trained.variables["params"], variables[best]["params"]
        for name in ("first_tap_1", "pointwise", "kernel"):
            one, other = one[name], other[name]
        np.testing.assert_allclose(one[run], other, atol=1e-3)


def test_some_of_the_runs(trained):
    some = trained.select(slice(1, 3))
    assert len(some) == 2
    (_, values), *_ = some.probabilities(Images(), np.arange(3))
    (_, expected), *_ = trained.probabilities(Images(), np.arange(3))
    np.testing.assert_allclose(values, expected[1:], atol=1e-6)


def test_a_worse_epoch_is_not_kept(monkeypatch):
    # What is validated: a loss that falls, and then rises.
    losses = iter([[0.5, 0.3], [0.2, 0.3], [0.9, 0.1]])
    monkeypatch.setattr(unetr, "loss_of_sums", lambda _: np.array(next(losses)))
    seen = []
    keep = unetr.unetr_step.keep_better

    def keep_better(state, better):
        seen.append(jax.tree.map(np.array, state["variables"]))
        return keep(state, better)

    monkeypatch.setattr(unetr.unetr_step, "keep_better", keep_better)
    found = fit(Images(), TRAIN[1:], VALIDATION[1:], classes=CLASSES, config=CONFIG)
    np.testing.assert_array_equal(found.best_epoch, [2, 3])
    np.testing.assert_array_equal(found.validation_loss, [0.2, 0.1])
    for run, epoch in enumerate(found.best_epoch):
        jax.tree.map(
            lambda kept, then, run=run: np.testing.assert_array_equal(kept[run], then[run]),
            found.variables,
            seen[epoch - 1],
        )
    different = jax.tree.map(lambda a, b: (a[0] != b[0]).any(), found.variables, seen[2])
    assert different["params"]["head"]["kernel"]
    assert different["batch_stats"]["half_1"]["norm_1"]["mean"]


@pytest.mark.parametrize(
    ("count", "steps_per_epoch", "steps"), [(13, None, 3), (1, None, 1), (3, 5, 5), (9, 1, 1)]
)
def test_an_epoch_shows_every_row_as_often_as_the_others(count, steps_per_epoch, steps):
    config = DecoderConfig(batch_size=4, steps_per_epoch=steps_per_epoch)
    assert unetr._steps(np.arange(count), config) == steps
    order = dense.batches_without_end(np.arange(count) + 100, 4, np.random.default_rng(0))
    batches = np.stack([next(order) for _ in range(6)])
    times = np.unique(batches, return_counts=True)[1]
    if count < 4:
        assert len(times) == count  # each in every batch
        assert all(len(set(batch)) == count for batch in batches)
        assert np.ptp([np.bincount(batch - 100, minlength=count) for batch in batches]) <= 1
    else:  # none twice within one shuffle
        complete = count // 4 * 4
        assert len(set(batches.ravel()[:complete])) == complete


def test_the_cosine_schedule_ends_near_0(monkeypatch):
    rates = []
    step = unetr.unetr_step.train_step
    monkeypatch.setattr(
        unetr.unetr_step,
        "train_step",
        lambda state, batch, now, *rest, **more: (
            rates.append(float(now[0])) or step(state, batch, now, *rest, **more)
        ),
    )
    config = DecoderConfig(0.01, "cosine", batch_size=4, epochs=3, steps_per_epoch=2, width=2)
    fit(Images(), TRAIN[:2], VALIDATION[:2], classes=CLASSES, config=config)
    expected = 0.005 * (1 + np.cos(np.pi * np.arange(6) / 6))
    np.testing.assert_allclose(rates, expected, rtol=1e-5)


def test_tokens_that_are_not_finite_are_refused():
    data = Images()
    data.tokens[5] = np.nan
    with pytest.raises(ValueError, match="run 1: the loss of epoch 1 is not finite; are"):
        fit(
            data,
            [np.arange(5), np.arange(4, 12)],
            VALIDATION[:2],
            classes=CLASSES,
            config=CONFIG,
        )


@pytest.mark.parametrize(
    ("train", "validation", "message"),
    [
        ([[1, 2], []], [[3], [3]], "run 1 has no training image with a mask"),
        ([[1, 2], [1]], [[], [3]], "run 0 has no validation image with a mask"),
    ],
)
def test_runs_without_images_are_refused(train, validation, message):
    parts = [[np.array(rows, int) for rows in part] for part in (train, validation)]
    with pytest.raises(ValueError, match=message):
        fit(Images(), *parts, classes=CLASSES, config=CONFIG)


@pytest.mark.parametrize(
    ("name", "value", "needed"),
    [
        ("batch_size", 0, "at least 1"),
        ("epochs", 0, "at least 1"),
        ("steps_per_epoch", 0, "at least 1"),
        ("learning_rate", -1.0, "a number above 0"),
        ("learning_rate", float("inf"), "a number above 0"),
    ],
)
def test_configurations_that_train_nothing_are_refused(name, value, needed):
    with pytest.raises(ValueError, match=f"^{name}={value:g} must be {needed}$"):
        DecoderConfig(**{name: value})


def test_unknown_schedules_are_refused():
    with pytest.raises(ValueError, match="'constant' or 'cosine', found 'linear'"):
        DecoderConfig(schedule="linear")


def test_each_image_is_read_once_for_all_runs():
    data = Images()
    rows = [np.arange(4), np.arange(4)]
    fit(data, rows, rows, classes=CLASSES, config=CONFIG)
    assert all(list(asked) == [0, 1, 2, 3] for asked in data.asked[1:])


def test_a_class_that_no_image_shows_is_learned_with_the_others():
    data = Images()
    data.masks[..., 1] = False
    found = fit(data, TRAIN[:2], VALIDATION[:2], classes=CLASSES, config=CONFIG)
    assert 0 < found.validation_loss[0] < 2 / 3  # the absent one counts as 0
    (_, values), *_ = found.probabilities(data, np.arange(2))
    assert np.isfinite(values).all()


def test_a_study_trains_decoders_that_outline_what_they_see():
    data = Images()
    columns = {name: np.full(24, "") for name in TEXT_COLUMNS}
    columns |= {name: np.full(24, np.nan) for name in NUMBER_COLUMNS}
    columns["patient_id"] = columns["example_id"] = np.array([f"p{i}" for i in range(24)])
    images = PixelStore(
        pixels=data.pixels,
        masks=np.moveaxis(data.masks, -1, 1),
        structures=("abdomen", "stomach", "spine"),
        columns=columns,
        copy=np.zeros(24, np.int32),
        fingerprint={"model": "m", "image_size": SIZE},
    )
    store = TokenStore.of(images, data.tokens, (1, 1, 1, 2))
    parts = {"fit": store.select(np.arange(14)), "test": store.select(np.arange(14, 24))}
    study = studies.create(
        "segmentation.abdomen", folds_run=2, epochs=8, steps_per_epoch=20, batch_size=4, width=2,
        learning_rate=0.03, resamples=50, progress=False,
    )  # fmt: skip
    result = study.run(parts, types.SimpleNamespace(fingerprint="m", encode_patches=None))
    one_mask = result.baselines["constant_mask_dice"].estimate
    assert result.metrics["dice_abdomen"].value > 0.9 > 0.3 > one_mask.high
