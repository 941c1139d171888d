"""What a result keeps is enough to measure it again, whatever the study."""

import numpy as np
import pytest

from fetalclip_jax.evaluation import result as results
from fetalclip_jax.evaluation import studies
from fetalclip_jax.labels import BRAIN_PLANES

ADAMW = {"solver": "adamw", "learning_rates": (0.02,), "batch_size": 16, "epochs": 3, "runs": 2}


@pytest.fixture(scope="module")
def stores(make_classes, make_store):
    rng = np.random.default_rng(0)
    count = 30
    heads = make_store(
        rng.normal(size=(count, 8)),
        plane=np.repeat("brain", count),
        brain_plane=np.array(BRAIN_PLANES)[rng.integers(0, 3, count)],
        patient_id=np.char.add("p", (np.arange(count) // 3).astype(str)),
        hc_mm=rng.uniform(120, 300, count),
        ga_days=np.where(np.arange(count) % 2, rng.integers(100, 260, count), np.nan),
        resized_spacing_mm=np.full(count, 0.5),
    )
    return {
        "fit": make_classes(12, prefix="pool", copies=2, distance=2),
        "test": make_classes(8, prefix="test", distance=2, seed=1),
        "images": heads,
    }


def stores_of(study, stores):
    """Under the names that a study has for them."""
    if study.startswith("regression."):
        rows = np.arange(len(stores["images"])) < 15
        return {"fit": stores["images"].select(rows), "test": stores["images"].select(~rows)}
    if study.split(".")[0] in ("mislabels", "near_duplicates"):
        return {"pool": stores["fit"], "judged": stores["test"]}
    return stores


@pytest.mark.parametrize(
    ("study", "options"),
    [
        ("probe.planes", ADAMW | {"copies": 2, "redraws": 2}),
        ("probe.raw_pixels", {"penalties": (1e-2,)}),
        ("few_shot.planes", ADAMW | {"sizes": (1, 2), "support_sets": 2}),
        ("zero_shot.brain", {}),
        ("zero_shot.merged", {}),
        ("age", {}),
        ("retrieval", {}),
        ("near_duplicates", {"least_correlation": 0.5}),
        ("mislabels.planes", {"penalties": (1e-2,), "planted": 0.2}),
        ("nearest_centroid.planes", {}),
        ("knn.planes", {"ks": (3,)}),
        ("regression.hc_mm", {}),
        ("regression.ga_days", {"spacing": "none"}),
    ],
)
def test_saved_predictions_give_the_metrics_again(stores, lookup_model, tmp_path, study, options):
    def embed(text):
        return np.random.default_rng(list(text.encode())).normal(size=8)

    made = studies.create(study, resamples=50, **options)
    result = made.run(stores_of(study, stores), lookup_model(embed))
    kept = results.load(result.save(tmp_path))
    found = studies.measures(kept)
    assert found.keys() == result.metrics.keys()
    for name, estimate in result.metrics.items():
        assert found[name].measure.value == pytest.approx(estimate.value, abs=1e-9), name
        assert len(found[name].rows) == estimate.n
    np.testing.assert_array_equal(kept.predictions.patients(), result.predictions.patients())
    assert (kept.validation is None) == (result.validation is None)


def test_without_predictions_there_is_nothing_to_measure():
    bare = results.Result("age", {})
    with pytest.raises(ValueError, match="age has no predictions beside its JSON"):
        studies.measures(bare)
