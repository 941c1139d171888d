"""Maps of a user's own images."""

import types

import numpy as np
import PIL.Image
import pytest

import fetalclip_jax
from fetalclip_jax import storage
from fetalclip_jax.data.example import BadExampleError
from fetalclip_jax.evaluation.explanation import cam, images
from fetalclip_jax.evaluation.features.pixels import PixelStore
from fetalclip_jax.models.presets import VisionConfig

PROMPTS = {"brain": ["brain"], "femur": ["femur"], "heart": ["heart"]}
SIZE, GRID = 8, 4


@pytest.fixture
def model(lookup_model):
    """The brightest third of an image's first row says what it is like."""
    found = lookup_model(lambda text: np.eye(3)[list(PROMPTS).index(text)])
    vision = VisionConfig(image_size=SIZE, patch_size=2, layers=3, width=64, pool_type="grid")
    found.config = types.SimpleNamespace(vision_cfg=vision)
    found.check_one_view = lambda what: None
    found.encode_pixels = lambda pixels: pixels[:, 0, :3, 0].astype(np.float32) + 1
    return found


@pytest.fixture
def store():
    pixels = np.zeros((5, SIZE, SIZE, 3), np.uint8)
    for row, brightest in enumerate((0, 1, 1, 2, 0)):
        pixels[row, 0, brightest] = 100
    names = np.array([f"image{i}" for i in range(5)])
    return PixelStore(
        pixels=pixels,
        masks=np.zeros((5, 0, SIZE, SIZE), bool),
        structures=(),
        columns={"example_id": names},
        copy=np.zeros(5, np.int32),
        fingerprint={},
    )


@pytest.fixture
def asked(monkeypatch):
    seen = []

    def heat_maps(method, model, pixels, targets, block, **options):
        seen.append((method, targets, block, options))
        heat = np.zeros((len(pixels), GRID, GRID), np.float32)
        heat[:-1, 0, 1] = 1
        return heat

    monkeypatch.setattr(cam, "heat_maps", heat_maps)
    return seen


def test_each_image_is_asked_for_what_it_is_most_like(model, store, asked):
    found = images.explain(model, store, PROMPTS, batch_size=2, progress=False)
    names = ["brain", "femur", "femur", "heart", "brain"]
    assert found.columns["answer"].tolist() == found.columns["class"].tolist() == names
    (method, targets, block, _) = asked[0]
    assert (method, block) == ("hires_cam", 3)
    np.testing.assert_allclose(targets[0], [1, -0.5, -0.5])
    np.testing.assert_allclose(targets[3], [-0.5, -0.5, 1])
    np.testing.assert_allclose(found.columns["score"][0], 100 * 101 / np.hypot(101, 2**0.5), 1e-5)
    # The map is largest over the second patch of two pixels, and the last map is largest nowhere.
    assert found.columns["x"].tolist()[:4] == [2] * 4
    assert found.columns["x"][4] == found.columns["y"][4] == ""
    pictures = dict(found.pictures())
    assert list(pictures) == [f"image{i}" for i in range(5)]
    assert pictures["image0"].ndim == 3


def test_maps_are_called_after_their_images_and_none_is_written_over():
    names = ["a.png", "b.png", "b.jpg", "c/a.png", "d.e.png", "f", "f.png", "G.png", "g.jpg"]
    found = images.file_names(names)
    assert found == ["a", "b.png", "b.jpg", "c/a", "d.e", "f", "f.png", "G.png", "g.jpg"]
    assert len({f"{name}.png".casefold() for name in found}) == len(names)


def test_one_class_may_be_asked_for_alone(model, store, asked):
    found = images.explain(
        model, store, PROMPTS, name="femur", method="score_cam", block=1, against_others=False
    )
    assert set(found.columns["class"]) == {"femur"}
    assert found.columns["answer"][0] == "brain"
    (method, targets, block, _) = asked[0]
    assert (method, block) == ("score_cam", 1)
    np.testing.assert_allclose(targets, [[0, 1, 0]] * 5)


def test_what_cannot_be_asked_is_refused(model, store, asked):
    with pytest.raises(ValueError, match="no class 'liver', only brain, femur, heart"):
        images.explain(model, store, PROMPTS, name="liver")
    with pytest.raises(ValueError, match="block=4 is no block"):
        images.explain(model, store, PROMPTS, block=4)
    with pytest.raises(ValueError, match="one class and nothing to set it against"):
        images.explain(model, store, {"brain": ["brain"]})
    assert asked == []


def test_a_model_of_several_views_is_refused_before_it_encodes(model, store, asked, monkeypatch):
    ten = fetalclip_jax.load("ViT-Mi-16-96-conv", test_time_views=10)
    monkeypatch.setattr(model, "check_one_view", ten.check_one_view, raising=False)
    monkeypatch.setattr(model, "encode_pixels", lambda pixels: pytest.fail("it encodes"))
    with pytest.raises(ValueError, match="an activation map is of one view of an image"):
        images.explain(model, store, PROMPTS)


def test_one_file_is_a_source(tmp_path):
    PIL.Image.fromarray(np.full((4, 6), 9, np.uint8)).save(tmp_path / "a.png")
    source = images.OneImage(storage.path(tmp_path / "a.png"))
    assert len(source) == 1
    assert source[0].image.shape == (4, 6)
    assert source.metadata()["example_id"].tolist() == ["a.png"]
    (tmp_path / "a.png").write_bytes(b"torn")
    with pytest.raises(BadExampleError, match=r"a\.png: cannot decode"):
        source[0]
