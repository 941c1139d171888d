"""Explanation, of maps that are made by hand."""

import dataclasses
import json
import types

import numpy as np
import pytest

from fetalclip_jax.data.columns import NUMBER_COLUMNS, TEXT_COLUMNS
from fetalclip_jax.evaluation import pictures, result, studies
from fetalclip_jax.evaluation.explanation import cam
from fetalclip_jax.evaluation.features.pixels import PixelStore
from fetalclip_jax.models.presets import VisionConfig

SIZE, GRID = 8, 4


@pytest.fixture
def model(lookup_model):
    """Prompts of each class have an axis of their own."""
    names = ("abdomen", "brain", "femur")

    def embed(text):
        return np.eye(3)[names.index(text)]

    found = lookup_model(embed)
    vision = VisionConfig(image_size=SIZE, patch_size=2, layers=3, width=64, pool_type="grid")
    found.config = types.SimpleNamespace(vision_cfg=vision)
    return found


@pytest.fixture
def prompts(tmp_path):
    path = tmp_path / "prompts.json"
    path.write_text(json.dumps({one: [one] for one in ("abdomen", "brain", "femur")}))
    return path


@pytest.fixture
def maps(monkeypatch):
    """What each method answers, and what it was asked."""
    asked = []
    left = np.zeros((GRID, GRID), np.float32)
    left[:, 0] = 1  # its last quarter is mixed with the next patch
    answers = {"hires_cam": left, "grad_cam": left[:, ::-1], "score_cam": 0 * left}

    def heat_maps(method, model, pixels, targets, block, **options):
        asked.append((method, pixels.copy(), targets, block, options))
        return np.repeat(answers[method][None], len(pixels), axis=0)

    monkeypatch.setattr(cam, "heat_maps", heat_maps)
    return asked


def store(count=4, empty=(), candidates=None):
    """Bright images whose left half is the head, but for those that are empty."""
    columns = {name: np.full(count, "") for name in TEXT_COLUMNS}
    columns |= {name: np.full(count, np.nan) for name in NUMBER_COLUMNS}
    columns["example_id"] = np.array([f"image{i}" for i in range(count)])
    columns["patient_id"] = np.array([f"patient{i // 2}" for i in range(count)])
    masks = np.zeros((count, 1, SIZE, SIZE), bool)
    masks[:, 0, :, :4] = True
    masks[list(empty)] = False
    return PixelStore(
        pixels=np.full((count, SIZE, SIZE, 3), 100, np.uint8),
        masks=masks,
        structures=("head",),
        columns=columns,
        copy=np.zeros(count, np.int32),
        fingerprint={"model": "m"},
        candidates=candidates or count,
    )


def run(model, prompts, judged, **options):
    study = studies.create("explanation.head", prompts=prompts, progress=False, **options)
    return study.run({"images": judged}, model)


def test_mass_and_hits_stand_beside_those_without_a_model(model, prompts, maps):
    found = run(model, prompts, store())
    values = {name: one.value for name, one in found.metrics.items()}
    assert list(values) == [
        *("hires_cam_mass", "score_cam_mass", "grad_cam_mass"),
        "hires_cam_hits",
    ]
    assert values["hires_cam_mass"] == values["hires_cam_hits"] == 1
    assert values["grad_cam_mass"] == 0
    assert not found.predictions.extra["grad_cam_hits"].any()
    # A map of nothing counts as chance, and is counted.
    assert values["score_cam_mass"] == 0.5
    assert found.details["empty_maps"] == {"hires_cam": 0, "score_cam": 4, "grad_cam": 0}
    # Every metric has chance and a central spot to beat.
    for kind in ("chance", "centre"):
        beside = {name: one for name, one in found.baselines.items() if name.startswith(kind)}
        assert [one.metric for one in beside.values()] == list(values)
        for one in beside.values():
            np.testing.assert_allclose(one.estimate.value, 0.5)
    assert found.predictions.prediction.tolist() == ["head"] * 4
    assert found.metrics["hires_cam_mass"].groups == 2


def test_the_class_is_asked_for_against_the_others(model, prompts, maps):
    run(model, prompts, store(), methods=("grad_cam",), block=2, channels=7, batch_size=3)
    run(model, prompts, store(), methods=("grad_cam",), against_others=False)
    run(model, prompts, store(), methods=("grad_cam",), plane="femur", against_others=False)
    (against, alone, femur) = maps
    np.testing.assert_allclose(against[2], [[-0.5, 1, -0.5]] * 4)
    np.testing.assert_allclose(alone[2], [[0, 1, 0]] * 4)
    np.testing.assert_allclose(femur[2], [[0, 0, 1]] * 4)
    assert (against[3], alone[3]) == (2, 3)
    assert against[4] == {"channels": 7, "batch_size": 3, "progress": False}


def test_what_is_left_out_is_counted(model, prompts, maps):
    judged = store(5, empty=[0, 3], candidates=12)
    judged = dataclasses.replace(judged, without_outline={"head": 4})
    found = run(model, prompts, judged, images=5)
    assert len(found.predictions.example_id) == 3
    assert found.details["left_out"] == {
        "no outline of head": 4,
        "empty outline of head": 2,
        "not among the 5 chosen by hash": 3,
    }
    with pytest.raises(ValueError, match="'head' is empty in all 2 images of plane 'brain'"):
        run(model, prompts, store(2, empty=[0, 1]))


def test_predictions_hold_every_metric_and_the_picture_is_kept(model, prompts, maps, tmp_path):
    found = run(model, prompts, store())
    path = found.save(tmp_path / "saved")
    studies.check_predictions(result.load(path))
    (picture,) = pictures.load(tmp_path / "saved", found.study)
    assert picture.name == "maps_head"
    assert all(f"image{i}" in picture.caption for i in range(4))
    measured = studies.measures(result.load(path))
    assert set(measured) == set(found.metrics)


def test_needs_name_the_outline_and_bound_the_images(prompts):
    study = studies.create("explanation.stomach", images=7)
    (need,) = study.needs
    assert (need.level, need.masks, need.how) == ("pixels", ("stomach",), {"images": 7})
    assert need.only == {"plane": ("abdomen",)}
    assert studies.create("explanation.septum").plane == "heart"
    assert studies.create("explanation.nose", plane="lips_nose").plane == "lips_nose"


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("explanation.nose", {}, "which prompts speak of 'nose' is not known, only of head,"),
        ("explanation.head", {"plane": "skull"}, "have no class 'skull', only abdomen, brain"),
        ("explanation.head", {"prompts": "brain"}, "the prompts 'brain' have no class 'brain'"),
        ("explanation.head", {"methods": ("cam",)}, "must be some of hires_cam, score_cam"),
        ("explanation.head", {"methods": ()}, "must be some of hires_cam, score_cam"),
        ("explanation.head", {"images": 0}, "images=0 and batch_size=32 must be at least 1"),
        ("explanation.head", {"block": -1}, "block=-1 at least 0"),
    ],
)
def test_refusals_say_what_there_is(name, options, message):
    with pytest.raises(ValueError, match=message) as error:
        studies.create(name, **options)
    assert "\n" not in str(error.value)


def test_prompts_of_one_class_have_nothing_to_be_set_against(tmp_path):
    path = tmp_path / "one.json"
    path.write_text(json.dumps({"brain": ["a brain"]}))
    with pytest.raises(ValueError, match="the class 'brain' alone and nothing to set it against"):
        studies.create("explanation.head", prompts=path)
    assert studies.create("explanation.head", prompts=path, against_others=False).plane == "brain"


def test_a_block_that_is_none_is_refused_before_anything_is_made(model, prompts, maps):
    with pytest.raises(ValueError, match="block=4 is no block"):
        run(model, prompts, store(), block=4)
    assert maps == []
