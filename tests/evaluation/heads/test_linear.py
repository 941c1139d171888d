"""The vmapped probe against a plain NumPy one, and against itself alone."""

import numpy as np
import pytest

from fetalclip_jax.evaluation.heads import linear
from fetalclip_jax.evaluation.heads.linear import ProbeConfig, fit


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 120)
    features = (rng.normal(size=(120, 5)) + np.eye(3, 5)[labels] * 2).astype(np.float32)
    return features, labels


ROWS = [np.arange(0, 70), np.arange(10, 47), np.arange(50, 57)]
HELD_OUT = [np.arange(70, 120), np.arange(50, 60), np.arange(100, 120)]
CONFIG = ProbeConfig(learning_rates=(0.02,), batch_size=16, epochs=12)


def by_hand(features, labels, train, held_out, seed, config, rate):
    """AdamW as PyTorch does it; one generator draws the weights, then the order of each epoch."""
    rng = np.random.default_rng(seed)
    bound = 1 / np.sqrt(features.shape[1])
    drawn = rng.uniform(-bound, bound, (features.shape[1] + 1, 3))
    parameters = [drawn[:-1].copy(), drawn[-1].copy()]
    first = [np.zeros_like(p) for p in parameters]
    second = [np.zeros_like(p) for p in parameters]
    best, count = (np.inf, None, None), 0

    def probabilities(x):
        logits = x @ parameters[0] + parameters[1]
        e = np.exp(logits - logits.max(1, keepdims=True))
        return e / e.sum(1, keepdims=True)

    for epoch in range(config.epochs):
        order = rng.permutation(train)
        for start in range(0, max(len(train) // config.batch_size, 1) * config.batch_size, 16):
            batch = order[start : start + config.batch_size]
            error = (probabilities(features[batch]) - np.eye(3)[labels[batch]]) / len(batch)
            count += 1
            for i, gradient in enumerate([features[batch].T @ error, error.sum(0)]):
                parameters[i] *= 1 - rate * config.weight_decay
                first[i] = 0.9 * first[i] + 0.1 * gradient
                second[i] = 0.999 * second[i] + 0.001 * gradient**2
                mean = first[i] / (1 - 0.9**count)
                parameters[i] -= rate * mean / (np.sqrt(second[i] / (1 - 0.999**count)) + 1e-8)
        chosen = probabilities(features[held_out])[np.arange(len(held_out)), labels[held_out]]
        loss = -np.log(chosen).mean()
        if loss < best[0]:
            best = (loss, epoch + 1, [p.copy() for p in parameters])
    return best


def test_padded_vmap_equals_numpy_adamw_run_by_run(data):
    features, labels = data
    config = ProbeConfig(learning_rates=(0.02,), batch_size=16, epochs=12, weight_decay=0.5)
    # Lengths 70, 37 and 7 rows: dropped last batches, resting runs and one short batch.
    probes = fit(features, labels, ROWS, HELD_OUT, num_classes=3, config=config, seeds=[3, 4, 5])
    for run, seed in enumerate([3, 4, 5]):
        loss, epoch, (weight, bias) = by_hand(
            features.astype(np.float64), labels, ROWS[run], HELD_OUT[run], seed, config, 0.02
        )
        np.testing.assert_allclose(probes.validation_loss[run], loss, rtol=1e-4)
        np.testing.assert_allclose(probes.weight[run], weight, atol=1e-4)
        np.testing.assert_allclose(probes.bias[run], bias, atol=1e-4)
        assert probes.best_epoch[run] == epoch


@pytest.mark.parametrize(("scaling", "run"), [("none", 1), ("standardise", 2)])
def test_a_run_does_not_depend_on_its_neighbours(data, scaling, run):
    features, labels = data
    config = ProbeConfig((0.02, 0.002), batch_size=16, epochs=6, feature_scaling=scaling)
    arguments = {"num_classes": 3, "config": config}
    together = fit(features, labels, ROWS, HELD_OUT, seeds=[3, 4, 5], **arguments)
    alone = fit(features, labels, [ROWS[run]], [HELD_OUT[run]], seeds=[3 + run], **arguments)
    np.testing.assert_allclose(alone.weight[0], together.weight[run], rtol=1e-4, atol=1e-6)
    assert alone.learning_rate[0] == together.learning_rate[run]


def test_rows_outside_a_run_are_never_read(data):
    features, labels = data
    kept = np.union1d(ROWS[2], HELD_OUT[2])
    spoiled = np.where(np.isin(np.arange(120), kept)[:, None], features, 1e6).astype(np.float32)
    arguments = {"num_classes": 3, "config": CONFIG}
    clean = fit(features, labels, ROWS[2:], HELD_OUT[2:], **arguments)
    found = fit(spoiled, labels, ROWS[2:], HELD_OUT[2:], **arguments)
    np.testing.assert_array_equal(clean.weight, found.weight)


def test_standardised_probe_is_blind_to_units(data):
    features, labels = data
    config = ProbeConfig((0.02,), batch_size=16, epochs=6, feature_scaling="standardise")
    units = np.array([1e3, 1e-2, 5, 1, 1], np.float32)
    offset = np.array([50, 0, -7, 1, 0], np.float32)
    one = fit(features, labels, ROWS, HELD_OUT, num_classes=3, config=config)
    other = fit(features * units + offset, labels, ROWS, HELD_OUT, num_classes=3, config=config)
    # The probes read raw features of either kind and say the same.
    np.testing.assert_allclose(
        one.logits(features), other.logits(features * units + offset), atol=2e-3
    )


def test_a_feature_that_never_varies_is_ignored(data):
    features, labels = data
    config = ProbeConfig((0.02,), batch_size=16, epochs=3, feature_scaling="standardise")
    constant = np.concatenate([features, np.full((120, 1), 3.0, np.float32)], 1)
    probes = fit(constant, labels, ROWS, HELD_OUT, num_classes=3, config=config)
    assert np.isfinite(probes.bias).all()
    assert (probes.weight[:, -1] == 0).all()


def test_the_learning_rate_of_the_lowest_validation_loss_is_kept(data):
    features, labels = data
    rates = (1e-6, 0.05)
    config = ProbeConfig(rates, batch_size=16, epochs=10)
    arguments = {"num_classes": 3, "seeds": [0, 1, 2]}
    both = fit(features, labels, ROWS, HELD_OUT, config=config, **arguments)
    single = [
        fit(
            features, labels, ROWS, HELD_OUT,
            config=ProbeConfig((rate,), batch_size=16, epochs=10), **arguments,
        )
        for rate in rates
    ]  # fmt: skip
    losses = np.stack([probes.validation_loss for probes in single])
    np.testing.assert_allclose(both.validation_loss, losses.min(0), rtol=1e-4)
    assert both.learning_rate.tolist() == [rates[i] for i in losses.argmin(0)]
    assert (both.learning_rate == 0.05).all()


def test_seeds_decide(data):
    features, labels = data
    one, two = (
        fit(
            features, labels, [ROWS[0]] * 3, [HELD_OUT[0]] * 3,
            num_classes=3, config=CONFIG, seeds=[7, 7, 8],
        )
        for _ in range(2)
    )  # fmt: skip
    np.testing.assert_array_equal(one.weight, two.weight)
    np.testing.assert_array_equal(one.weight[0], one.weight[1])
    assert np.abs(one.weight[0] - one.weight[2]).max() > 1e-3


def test_the_order_of_runs_is_kept_over_groups_and_threads(data):
    features, labels = data
    runs = [0, 1, 2, 2, 1, 1, 0]
    train, held_out = [ROWS[run] for run in runs], [HELD_OUT[run] for run in runs]
    arguments = {"num_classes": 3, "config": CONFIG}
    many = fit(features, labels, train, held_out, seeds=range(7), **arguments)
    for run in (0, 6):
        one = slice(run, run + 1)
        alone = fit(features, labels, train[one], held_out[one], seeds=[run], **arguments)
        np.testing.assert_allclose(alone.weight, many.select(one).weight, rtol=1e-4, atol=1e-6)
        assert alone.best_epoch == many.best_epoch[run]


def test_more_validation_rows_than_are_read_at_a_time(data):
    features, labels = data
    held_out = np.arange(50, 120)
    arguments = {"num_classes": 3, "config": CONFIG, "seeds": [3]}
    once = fit(features, labels, [ROWS[0]], [held_out], **arguments)
    thrice = fit(features, labels, [ROWS[0]], [np.tile(held_out, 3)], **arguments)
    np.testing.assert_allclose(thrice.validation_loss, once.validation_loss, rtol=1e-5)
    np.testing.assert_allclose(thrice.weight, once.weight, rtol=1e-4, atol=1e-6)


def test_the_bar_counts_images_of_epochs_that_have_ended(data, progress_bars, monkeypatch):
    ended, compute = [0], linear.train_epoch

    def train_epoch(*arguments, **options):
        found = compute(*arguments, **options)
        ended[0] += 70 * len(found[1])
        return found

    monkeypatch.setattr(linear, "train_epoch", train_epoch)
    bars = progress_bars(linear)
    arguments = {"num_classes": 3, "config": CONFIG, "progress": True}
    fit(*data, [ROWS[0]] * 7, [HELD_OUT[0]] * 7, **arguments)
    (bar,) = bars
    assert bar.total == bar.n == ended[0] == 12 * 7 * 70
    assert bar.moves[:3] == [0, 350, 490]  # five runs, then two


def test_refuses(data):
    features, labels = data
    with pytest.raises(ValueError, match="run 1 has no validation image"):
        fit(features, labels, ROWS[:2], [HELD_OUT[0], ROWS[0][:0]], num_classes=3, config=CONFIG)
    with pytest.raises(ValueError, match="'none' or 'standardise', found 'l2'"):
        ProbeConfig(feature_scaling="l2")
    with pytest.raises(ValueError, match="never reached a finite"):
        fit(features * np.nan, labels, ROWS, HELD_OUT, num_classes=3, config=CONFIG)
