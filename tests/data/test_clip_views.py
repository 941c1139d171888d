"""What a model is shown of a clip."""

import pickle

import numpy as np
import pytest

from fetalclip_jax.data import clip_views, views
from fetalclip_jax.data.clip_views import ClipViews, sampled
from fetalclip_jax.data.example import BadExampleError, Example


def numbered(frames, *, size=(6, 8), **known):
    """A clip of which every frame tells its number."""
    return Example(
        "c",
        np.zeros(size, np.uint8),
        frames=[np.full(size, k, np.uint8) for k in range(frames)],
        **known,
    )


def view(example, **arguments):
    return ClipViews(views.Views([example], 4, only=arguments.pop("only", {})), **arguments)(0)


def test_frames_are_the_middles_of_equal_parts():
    assert sampled(8, 8).tolist() == list(range(8))
    assert sampled(24, 4).tolist() == [3, 9, 15, 21]
    assert sampled(9, 1).tolist() == [4]
    assert sampled(100, 3).tolist() == [16, 50, 83]
    for length in (1, 2, 7, 30):
        for count in (1, 3, 8):
            middles = (np.arange(count) + 0.5) / count * length
            np.testing.assert_array_equal(sampled(length, count), np.floor(middles + 1e-9))


def test_of_a_shorter_clip_frames_come_again():
    assert sampled(3, 8).tolist() == [0, 0, 0, 1, 1, 2, 2, 2]
    found = view(numbered(3), num_frames=8)
    assert found.frames == 3
    assert found.pixels[:, 2, 2].tolist() == [0, 0, 0, 1, 1, 2, 2, 2]


def test_pixels_are_those_of_each_frame_as_an_image():
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (12, 6, 8), dtype=np.uint8)
    clip = Example("c", frames[6], frames=frames, pixel_spacing_mm=0.5, patient_id="p")
    found = view(clip, num_frames=4)
    for place, number in enumerate((1, 4, 7, 10)):
        alone = views.Views([Example("i", frames[number])], 4)(0)
        np.testing.assert_array_equal(found.pixels[place], alone.pixels[0])
        np.testing.assert_array_equal(found.thumbnails[place], alone.thumbnails[0])
    assert found.resized_spacing_mm == 1.0
    assert (found.example.patient_id, found.example.image.size) == ("p", 0)
    # What goes from process to process holds no frames.
    assert found.example.frames is None


def test_a_frame_with_colour_among_grey_ones():
    frames = [np.full((6, 6, 3), k, np.uint8) for k in range(4)]
    frames[2][..., 0] = 200
    found = view(Example("c", frames[0], frames=frames), num_frames=4)
    assert found.pixels.shape == (4, 4, 4, 3)
    assert found.pixels[:, 0, 0].tolist() == [[0] * 3, [1] * 3, [200, 2, 2], [3] * 3]


def test_only_frames_that_are_shown_are_read():
    class Counted(list):
        def __getitem__(self, number):
            read.append(number)
            return super().__getitem__(number)

    read = []
    clip = Example("c", np.zeros((6, 8), np.uint8), frames=Counted(numbered(30).frames))
    view(clip, num_frames=3)
    assert read == [5, 15, 25]
    read.clear()
    assert view(clip, num_frames=3, only={"label": ("normal",)}) is None
    assert read == []


def test_every_frame_needs_clips_of_one_length():
    found = view(numbered(5), num_frames=5, sampling="every")
    assert found.pixels[:, 2, 2].tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match=r"c has 7 frames, and sampling='every' .*num_frames=5"):
        view(numbered(7), num_frames=5, sampling="every")


def test_what_cannot_be_read_is_returned_and_what_cannot_be_asked_is_refused():
    class Damaged(list):
        def __getitem__(self, number):
            raise BadExampleError("c", "frame 3 cannot be decoded")

    found = view(Example("c", np.zeros((6, 8), np.uint8), frames=Damaged([0] * 9)), num_frames=2)
    assert isinstance(found, BadExampleError)
    with pytest.raises(ValueError, match="c is an image and no clip"):
        view(Example("c", np.zeros((6, 8), np.uint8)), num_frames=2)
    with pytest.raises(ValueError, match="num_frames=0 must be at least 1"):
        clip_views.check(0, "uniform")
    with pytest.raises(ValueError, match="sampling='random' is not one of uniform, every"):
        clip_views.check(8, "random")


def test_it_can_be_sent_to_another_process():
    made = ClipViews(views.Views([numbered(9)], 4), num_frames=3)
    assert pickle.loads(pickle.dumps(made))(0).pixels[:, 2, 2].tolist() == [1, 4, 7]
