import dataclasses
import json
import types

import cv2
import numpy as np
import pytest

from fetalclip_jax.data.columns import columns
from fetalclip_jax.data.example import BadExampleError, Example
from fetalclip_jax.datasets import registry
from fetalclip_jax.evaluation import features, studies
from fetalclip_jax.evaluation.features import levels
from fetalclip_jax.evaluation.sheets import contact_sheet
from fetalclip_jax.evaluation.statistics import near_pairs

SIZE = 64


class Projection:
    """A model whose features are a fixed projection of pixels that were shrunk a little."""

    fingerprint = "m"
    config = types.SimpleNamespace(vision_cfg=types.SimpleNamespace(image_size=SIZE))

    def encode_pixels(self, batch):
        small = batch.astype(np.float32).mean(-1).reshape(-1, 16, 4, 16, 4).mean((2, 4))
        weights = np.random.default_rng(0).normal(size=(256, 64))
        return (small.reshape(len(batch), -1) @ weights).astype(np.float32)


class Listed(list):
    facts = None

    def metadata(self):
        return columns((one, None) for one in self)


def jpeg(image):
    return cv2.imdecode(
        cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 60])[1], cv2.IMREAD_UNCHANGED
    )


CHANGES = {
    "jpeg": jpeg,
    "noise": lambda x: np.clip(x + np.random.default_rng(0).normal(0, 6, x.shape), 0, 255).astype(
        np.uint8
    ),
    "gain": lambda x: np.clip(x * 1.2 + 5, 0, 255).astype(np.uint8),
    "crop": lambda x: x[1:-1, 1:-1],
}


@pytest.fixture(scope="module")
def planted():
    """Phantom images in two splits; four test images are altered images of the other split."""
    source = registry.open_source("phantom", split="test", image_size=SIZE)
    images = [source[i] for i in range(36)]
    pool = Listed(images[:24])
    copies = [
        dataclasses.replace(
            images[6 * k], example_id=f"copy-{name}", image=change(images[6 * k].image),
            patient_id="someone else" if k else images[0].patient_id,
        )
        for k, (name, change) in enumerate(CHANGES.items())
    ]  # fmt: skip
    return pool, Listed([*images[24:], *copies])


def stores_of(pool, judged):
    model = Projection()
    found = {}
    for name, source in (("pool", pool), ("judged", judged)):
        found[name] = features.encode(
            model, source, progress=False, fingerprint={"model": "m", "image_size": SIZE}
        )
        need = types.SimpleNamespace(level="images")
        found[f"{name}_images"] = levels.of("images").encode(
            model, source, need, levels.Working(fingerprint={"model": "m"})
        )
    return found


def run(stores, model, **options):
    study = studies.create("near_duplicates", **{"resamples": 50} | options)
    return study.run(stores, model)


def test_planted_copies_are_found_and_nothing_else(planted, model):
    result = run(stores_of(*planted), model)
    pairs = {(row["first"], row["second"]) for row in result.details["list"]}
    expected = {(planted[0][6 * k].example_id, f"copy-{name}") for k, name in enumerate(CHANGES)}
    assert pairs == expected
    assert result.details["pairs"] == result.details["pairs_across_splits"] == 4
    assert result.details["pairs_across_patients"] == 3
    # The pair of one patient comes last, for all are across splits.
    assert result.details["list"][-1]["second"] == "copy-jpeg"
    assert [row["same_patient"] for row in result.details["list"]] == [False] * 3 + [True]
    assert not any(row["labels_differ"] for row in result.details["list"])
    share = result.metrics["near_duplicate_share"]
    assert share.value == pytest.approx(8 / 40)
    assert share.low < share.value < share.high
    assert result.metrics["near_duplicate_share_across_splits"].value == pytest.approx(8 / 40)
    assert result.metrics["near_duplicate_share_across_patients"].value == pytest.approx(6 / 40)
    assert len(result.baselines) == 6
    for one in result.baselines.values():  # both have to agree, which is harder than one
        assert one.estimate.value >= result.metrics[one.metric].value
    row = result.predictions.rows()[-1]
    assert (row["prediction"], row["split"]) == (planted[0][18].example_id, "test")
    (picture,) = result.pictures
    assert picture.image.shape[1] > 3 * 2 * 180
    json.dumps(result.to_json(), allow_nan=False)


def test_validation_images_are_searched_unless_they_are_those_of_another_split(planted, model):
    stores = stores_of(*planted)
    apart = {
        "pool": stores["pool"].select(np.arange(12)),
        "validation": stores["pool"].select(np.arange(12, 24)),
    }
    result = run(stores | apart, model)
    assert result.details["images"] == {"fit": 12, "test": 16, "validation": 12}
    assert result.details["pairs_across_splits"] == 4
    same = run(stores | {"validation": stores["pool"]}, model)
    assert same.details["images"] == run(stores, model).details["images"] == {"fit": 24, "test": 16}
    needs = studies.create("near_duplicates").needs
    assert {need.role for need in needs if need.optional} == {"validation"}


def slow(features, thumbnails, patients, splits, least_cosine, least_correlation):
    found = []
    for i in range(len(features)):
        alike = [
            j
            for j in range(len(features))
            if j != i
            and features[i] @ features[j] >= least_cosine
            and thumbnails[i] @ thumbnails[j] >= least_correlation
        ]

        def of_others(j, i=i):
            return patients[i] != patients[j] and min(patients[i], patients[j]) >= 0

        def nearness(j, i=i, of_others=of_others):
            total = features[i] @ features[j] + thumbnails[i] @ thumbnails[j]
            return splits[i] != splits[j], of_others(j), total

        best = max(alike, key=nearness, default=-1)
        found.append(
            (
                best,
                len(alike),
                sum(splits[j] != splits[i] for j in alike),
                sum(of_others(j) for j in alike),
            )
        )
    return np.array(found).T


@pytest.mark.parametrize("block_size", [1, 7, 16, 100])
def test_blocks_find_what_all_pairs_at_once_do(block_size):
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(6, 5))[rng.integers(0, 6, 40)]
    values = [near_pairs.centred(centres + 0.4 * rng.normal(size=(40, 5))) for _ in range(2)]
    patients, splits = rng.integers(-1, 4, 40), rng.integers(0, 2, 40)
    found = near_pairs.search(*values, patients, splits, 0.6, 0.5, block_size=block_size)
    expected = slow(*values, patients, splits, 0.6, 0.5)
    for ours, theirs in zip(
        (found.partner, found.count, found.across_splits, found.across_patients),
        expected,
        strict=True,
    ):
        np.testing.assert_array_equal(ours, theirs)
    assert (found.partner == -1).any()
    everything = near_pairs.search(*values, patients, splits, 0.6, -1.0)
    np.testing.assert_array_equal(found.by_features[:, 0], everything.count > 0)
    np.testing.assert_array_equal(found.by_features[:, 1], everything.across_splits > 0)
    np.testing.assert_array_equal(found.by_features[:, 2], everything.across_patients > 0)
    assert found.pairs == expected[1].sum() // 2


def test_features_in_a_narrow_cone_are_told_apart():
    rng = np.random.default_rng(0)
    narrow = 100 + rng.normal(size=(20, 32))
    narrow[1] = narrow[0] + 1e-3
    found = near_pairs.centred(narrow)
    cosine = found @ found.T - np.eye(20)
    assert cosine[0, 1] > 0.999
    cosine[0, 1] = cosine[1, 0] = 0
    assert cosine.max() < 0.7


def test_blank_images_are_like_nothing(make_store, model):
    store = make_store(np.ones((3, 4)), raw_pixels=np.zeros((3, 256), np.uint8))
    result = run({"all": store}, model, roles=("all",))
    assert result.metrics["near_duplicate_share"].value == 0
    assert "near_duplicate_share_across_splits" not in result.metrics
    assert result.pictures == []


def test_labels_of_a_pair_that_differ_are_said(make_store, model):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (6, 256)).astype(np.uint8)
    found = rng.normal(size=(6, 8))
    found[1], pixels[1] = found[0], pixels[0]
    store = make_store(found, raw_pixels=pixels, plane=np.array(["brain", "femur"] * 3))
    (pair,) = run({"all": store}, model, roles=("all",)).details["list"]
    assert pair["labels_differ"] == ["plane"]
    assert pair["same_patient"] is None  # not known


def test_other_patients_are_those_that_are_known_to_be_others(make_store, model):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (3, 256)).astype(np.uint8).repeat(2, 0)
    found = rng.normal(size=(3, 8)).repeat(2, 0)

    def judged(*patients):
        store = make_store(found, raw_pixels=pixels, patient_id=np.array(patients))
        return run({"all": store}, model, roles=("all",))

    share = "near_duplicate_share_across_patients"
    some = judged("a", "b", "", "", "c", "")
    assert some.details["pairs_across_patients"] == 1
    assert (some.metrics[share].value, some.metrics[share].n) == (pytest.approx(2 / 3), 3)
    assert some.baselines["pixels_alone_across_patients"].estimate.n == 3
    assert [row["same_patient"] for row in some.details["list"]] == [False, None, None]
    none = judged(*[""] * 6)
    assert none.details["pairs"] == 3
    assert none.details["pairs_across_patients"] is None
    assert share not in none.metrics
    assert {one.metric for one in none.baselines.values()} == {"near_duplicate_share"}


def test_refusals(make_store, model):
    store = make_store(np.ones((2, 4)))
    with pytest.raises(ValueError, match="there is one image only; a pair takes two"):
        run({"all": make_store(np.ones((1, 4)))}, model, roles=("all",))
    with pytest.raises(
        ValueError, match="2 images are in two of the roles fit, test, first 'image0'"
    ):
        run({"pool": store, "judged": store}, model)
    with pytest.raises(ValueError, match="was encoded by model 'other', not by 'm'"):
        run({"all": make_store(np.ones((2, 4)), model="other")}, model, roles=("all",))
    for options in ({"roles": ("train",)}, {"roles": ("fit", "fit")}, {"roles": ()}):
        with pytest.raises(ValueError, match="must be different ones of fit, test"):
            studies.create("near_duplicates", **options)
    with pytest.raises(ValueError, match="must lie between -1 and 1"):
        studies.create("near_duplicates", least_cosine=1.5)


def test_images_are_read_when_asked_for_and_one_that_cannot_be_read_stays_grey():
    class Broken(Listed):
        def __getitem__(self, index):
            if index == 1:
                raise BadExampleError("b", "damaged")
            return super().__getitem__(index)

    source = Broken([Example(name, np.zeros((4, 4), np.uint8)) for name in "ab"])
    need = types.SimpleNamespace(level="images")
    store = levels.of("images").encode(None, source, need, levels.Working())
    assert store.select(np.array([1])).image("a").shape == (4, 4)
    assert store.image("b") is None
    sheet = contact_sheet([[store.image("a"), store.image("b")]], 3)
    assert len(np.unique(sheet[100, :180])) == 1
    assert sheet[100, 90] == 0 < sheet[100, 270] < 255
