import json

import numpy as np
import pytest

from fetalclip_jax.evaluation import few_shot, probes, splits
from fetalclip_jax.labels import SIX_PLANES

FAST = probes.ProbeConfig((0.02,), batch_size=16, epochs=10, feature_scaling="standardise")


@pytest.fixture(scope="module")
def pool(make_classes):
    return make_classes(20, prefix="pool", copies=1, distance=12)


@pytest.fixture(scope="module")
def held_out(make_classes):
    return make_classes(15, prefix="test", distance=12, seed=1)


def evaluate(pool, held_out, **arguments):
    return probes.evaluate(
        pool, held_out, **({"config": FAST, "runs": 2, "progress": False} | arguments)
    )


def test_separable_planes_are_learnt(pool, held_out):
    result = evaluate(pool, held_out)
    assert result["macro_f1"] == 1
    assert result["macro_f1_interval"] == [1, 1]
    assert result["accuracy"] == result["top2_accuracy"] == 1
    assert result["classes"] == list(SIX_PLANES)
    # 15 kidneys count as "other"; the confusion adds up 5 folds x 2 runs.
    np.testing.assert_array_equal(result["confusion"], np.eye(6) * 15 * 10)
    assert (result["runs"], result["folds"], result["count"]) == (10, 5, 90)
    assert result["patients"] == 15
    assert result["learning_rates_chosen"] == {"0.02": 10}
    json.dumps(result, allow_nan=False)


def test_shuffled_labels_are_not_learnt(make_classes, held_out):
    shuffled = make_classes(20, prefix="pool", copies=1, shuffle_labels=True)
    result = evaluate(shuffled, held_out)
    assert result["macro_f1"] < result["chance_macro_f1"] + 0.12
    low, high = result["macro_f1_interval"]
    assert low < result["macro_f1"] < high


def test_raw_pixels_get_the_tuned_probe(pool, held_out):
    result = evaluate(pool, held_out, inputs="raw_pixels", config=None)
    assert result["feature_scaling"] == "standardise"
    assert set(result["learning_rates_chosen"]) == {"0.0003", "0.003"}
    assert result["macro_f1"] == 1  # the thumbnails give the plane away


def test_published_protocol_is_the_default():
    assert (
        probes.ProbeConfig(
            learning_rates=(3e-4,),
            weight_decay=0.01,
            batch_size=64,
            epochs=50,
            feature_scaling="none",
        )
        == probes.PAPER
    )
    assert (few_shot.PAPER.batch_size, few_shot.PAPER.epochs) == (16, 100)
    assert few_shot.PAPER.learning_rates == (3e-4,)
    assert few_shot.PAPER_BRAIN.learning_rates == (1e-4,)


def test_trains_on_copies_and_validates_on_clean_images_of_others(pool, held_out):
    data = probes.ProbeData(pool, held_out, "planes", "features")
    train, validation = data.rows((np.array(["pool0", "pool1"]), np.array(["pool2"])))
    assert (pool.copy[train] == 1).all()
    assert (pool.copy[validation] == 0).all()
    assert (len(train), len(validation)) == (12, 6)
    assert set(data.patients[train]) == {"pool0", "pool1"}


def test_without_copies_clean_images_train(pool, held_out):
    data = probes.ProbeData(pool.clean(), held_out, "planes", "features")
    train, _ = data.rows((np.array(["pool0"]), np.array(["pool2"])))
    assert len(train) == 6


def test_official_folds_replace_drawn_ones(pool, held_out):
    folds = splits.folds_by_patient(pool.patients(), 2, seed=9)
    result = evaluate(pool, held_out, patient_splits=folds)
    assert (result["folds"], result["runs"]) == (2, 4)


def test_refuses(pool, held_out, make_classes, make_store):
    with pytest.raises(ValueError, match=r"20 patients are in the pool.*'pool0'"):
        evaluate(pool, pool)
    with pytest.raises(ValueError, match="store has no brain_plane"):
        evaluate(pool, held_out, task="brain")
    with pytest.raises(ValueError, match="inputs must be one of"):
        evaluate(pool, held_out, inputs="pixels")
    with pytest.raises(ValueError, match="encoded by model 'm2', not by 'm'"):
        evaluate(pool, make_store([[0.0] * 8], plane=["brain"], model="m2"))
    with pytest.raises(ValueError, match="no clean image"):
        evaluate(pool.select(pool.copy == 1), held_out)


class TestFewShot:
    CONFIG = probes.ProbeConfig((0.02,), batch_size=16, epochs=20)

    def run(self, pool, held_out, **arguments):
        defaults = {"config": self.CONFIG, "support_sets": 3, "runs": 2, "progress": False}
        return few_shot.evaluate(pool, held_out, **(defaults | arguments))

    def test_more_patients_are_better(self, make_classes):
        pool = make_classes(40, prefix="pool", copies=1, distance=2)
        held_out = make_classes(30, prefix="test", distance=2, seed=1)
        curve = self.run(pool, held_out, patients=(1, 16))
        assert list(curve) == ["1", "16"]
        assert curve["16"]["mean"] > curve["1"]["mean"] + 0.1
        for point in curve.values():
            assert len(point["runs"]) == 6
            assert point["mean"] == pytest.approx(np.mean(point["runs"]))
            assert point["low"] < point["mean"] < point["high"]
        assert curve["16"]["train_images"] == 16 * 6
        json.dumps(curve, allow_nan=False)

    def test_a_size_does_not_depend_on_the_others(self, pool, held_out):
        alone = self.run(pool, held_out, patients=(2,))
        together = self.run(pool, held_out, patients=(2, 8))
        assert alone["2"]["runs"] == together["2"]["runs"]

    def test_official_support_sets(self, pool, held_out):
        given = {2: splits.support_sets(pool.patients(), 2, 4, seed=3)}
        curve = self.run(pool, held_out, patient_splits=given)
        assert curve["2"]["support_sets"] == 4
        assert len(curve["2"]["runs"]) == 8

    def test_too_large_for_the_pool(self, pool, held_out):
        with pytest.raises(ValueError, match="pool has 20: choose sizes up to 10"):
            self.run(pool, held_out, patients=(16,))

    def test_interval_draws_sets_then_runs(self):
        times = few_shot._nested_draws(np.random.default_rng(0), 4000, 5, 3)
        assert times.shape == (4000, 15)
        assert (times.sum(1) == 15).all()
        # A set comes as often as it is drawn, always with all its runs' share.
        per_set = times.reshape(4000, 5, 3).sum(2)
        assert (per_set % 3 == 0).all()
        np.testing.assert_allclose(times.mean(0), 1, atol=0.1)
