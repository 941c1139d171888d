"""The map of features and what neighbours say."""

import types

import numpy as np
import pytest

from fetalclip_jax.evaluation import pictures, result, studies

MODEL = types.SimpleNamespace(fingerprint="m")


def run(store, column="planes", **options):
    study = studies.create(f"embedding_map.{column}", neighbours=5, resamples=50, **options)
    return study.run({"images": store}, MODEL)


def test_neighbours_of_clusters_agree_and_the_map_shows_them(make_classes, tmp_path):
    found = run(make_classes(8, prefix="p", distance=20.0))
    assert found.metrics["neighbour_agreement"].value == 1
    assert found.metrics["neighbour_agreement"].groups == 8
    # Seven of 42 images of other patients are of each class.
    np.testing.assert_allclose(found.baselines["chance"].estimate.value, 7 / 42)
    assert found.baselines["raw_pixels"].estimate.value > 0.9
    path = found.save(tmp_path)
    loaded = result.load(path)
    studies.check_predictions(loaded)
    assert loaded.predictions.extra["x"].shape == (48,)
    assert path.with_suffix(".csv").read_text().splitlines()[0].startswith(
        "example_id,patient_id,label,prediction,x,y,neighbour_agreement,chance,raw_pixels"
    )  # fmt: skip
    (picture,) = pictures.load(tmp_path, "embedding_map.planes")
    assert "48 images" in picture.caption
    assert f"{100 * sum(found.details['explained']):.0f} % of it" in picture.caption
    assert len(np.unique(picture.image.reshape(-1, 3), axis=0)) > 20


def test_labels_that_say_nothing_agree_by_chance(make_classes):
    found = run(make_classes(20, prefix="p", shuffle_labels=True))
    low, high = found.metrics["neighbour_agreement"].low, found.metrics["neighbour_agreement"].high
    assert low < found.baselines["chance"].estimate.value < high


def test_numbers_have_an_error_in_their_unit(make_store):
    days = np.linspace(100, 270, 24)
    angles = days / 100
    store = make_store(
        np.stack([np.cos(angles), np.sin(angles), 0 * angles], 1),
        ga_days=np.where(np.arange(24) == 3, np.nan, days),
        patient_id=np.array([f"p{i}" for i in range(24)]),
    )
    found = run(store, "ga_days", resample_by="image")
    assert found.details["left_out"] == {"no ga_days": 1}
    assert found.metrics["neighbour_error_days"].n == 23
    assert found.metrics["neighbour_error_days"].value < 12
    assert found.baselines["chance"].estimate.value > 35
    studies.check_predictions(found)


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("machine", {}, "has no column 'machine' to colour by; it has brain_plane, example_id"),
        ("planes", {"plane": np.full(24, "brain")}, "column 'plane' has brain alone"),
        ("planes", {}, "column 'plane' has no value alone"),
        ("hc_mm", {"hc_mm": np.full(24, 300.0)}, "column 'hc_mm' has 300.0 alone"),
        ("site", {"site": np.array([f"{i}" for i in range(41)])}, "has 41 values, of which at mo"),
    ],
)
def test_columns_that_tell_nothing_apart_are_refused(make_store, column, values, message):
    count = len(next(iter(values.values()), np.zeros(24)))
    store = make_store(np.random.default_rng(0).normal(size=(count, 4)), **values)
    with pytest.raises(ValueError, match=message) as error:
        run(store, column)
    assert "\n" not in str(error.value)


def test_options_that_make_no_map_are_refused():
    with pytest.raises(ValueError, match="method='tsne' is not one of pca, umap"):
        studies.create("embedding_map.planes", method="tsne")
    with pytest.raises(ValueError, match="neighbours=0 must be at least 1"):
        studies.create("embedding_map.planes", neighbours=0)
