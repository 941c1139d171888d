"""What another machine or operator would make of the same picture. NumPy and OpenCV only."""

import dataclasses

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

# Sliders of a time-gain curve, and as many across.
_SLIDERS = 6
# Black stays black: outside the sector there is nothing to amplify. What is darker than this is
# changed in proportion to its grey level.
_DARK = 32 / 255
# Sides in pixels are meant at this size of the image, and grow with it.
_SIDE = 96


@dataclasses.dataclass(frozen=True)
class Appearance:
    """Strengths of `change_appearance`; zero turns a part off. Shares are of black to white.

    None of them moves a pixel, so what a caption says of an image stays true of it.

    Attributes:
      gain: brightness shift of all echoes, within plus or minus this share.
      gamma: the logarithm of the grey curve's exponent is within plus or minus this.
      dynamic_range: the logarithm of the factor by which the range of echoes that is shown shrinks
        is within plus or minus this. White stays white; of a smaller range what was dark is black.
      depth_gain: brightness shift at each of six depths, within plus or minus this share: a
        time-gain curve that is set by hand.
      lateral_gain: the same at six places across: poor contact, shadows of the probe's edge.
      blur: standard deviation in pixels of a 96-pixel image, up to this, in half of the images.
      sharpen: edge enhancement of the other half, as a factor of up to this.
      speckle: standard deviation of added grain, up to this share.
      erase: probability of one to three black boxes, as where text was removed.
      clutter: probability of what machines draw over the picture: text, a grey bar, depth marks,
        calipers.
    """

    gain: float = 0.0
    gamma: float = 0.0
    dynamic_range: float = 0.0
    depth_gain: float = 0.0
    lateral_gain: float = 0.0
    blur: float = 0.0
    sharpen: float = 0.0
    speckle: float = 0.0
    erase: float = 0.0
    clutter: float = 0.0

    @property
    def changes_appearance(self) -> bool:
        """Whether any part is on."""
        return any(getattr(self, field) for field in LARGEST)


# The largest strength of each; beyond, a picture could show nothing any more.
LARGEST = {
    "gain": 0.5,
    "gamma": 2.0,
    "dynamic_range": 2.0,
    "depth_gain": 0.5,
    "lateral_gain": 0.5,
    "blur": 4.0,
    "sharpen": 4.0,
    "speckle": 0.5,
    "erase": 1.0,
    "clutter": 1.0,
}

# How much real machines, their settings and their overlays differ: strengths for models that learn
# from one simulator and are to read images of them all.
OTHER_MACHINES = {
    "gain": 0.05,
    "gamma": 0.4,
    "dynamic_range": 0.1,
    "depth_gain": 0.1,
    "lateral_gain": 0.1,
    "blur": 0.8,
    "sharpen": 1.0,
    "speckle": 0.06,
    "erase": 0.2,
    "clutter": 0.4,
}


def change_appearance(
    image: UInt8[np.ndarray, "h w *c"], rng: np.random.Generator, strengths: Appearance
) -> UInt8[np.ndarray, "h w *c"]:
    """Other gains, compression, sharpness, grain and overlays, at random within `strengths`."""
    # Every number is drawn whatever the strengths, and what needs many has a generator of its own,
    # so that turning one part off leaves the others as they were.
    gain, gamma, compression, sharpness = rng.uniform(-1, 1, 4)
    depth, lateral = rng.uniform(-1, 1, (2, _SLIDERS)).astype(np.float32)
    grain, erased, cluttered = rng.random(3)
    grains, boxes, clutter = (np.random.default_rng(rng.integers(2**32)) for _ in range(3))

    picture = image.astype(np.float32) / 255
    across = image.shape[:2] + (1,) * (image.ndim - 2)  # all colours change alike
    if strengths.speckle:
        noise = strengths.speckle * grain * _noise(image.shape[:2], grains)
        picture = _shifted(picture, noise.reshape(across))
    if strengths.blur or strengths.sharpen:
        picture = _resharpened(picture, strengths.blur * -sharpness, strengths.sharpen * sharpness)
    if strengths.depth_gain or strengths.lateral_gain:
        shift = np.add.outer(
            _curve(strengths.depth_gain * depth, len(image)),
            _curve(strengths.lateral_gain * lateral, image.shape[1]),
        )
        picture = _shifted(picture, shift.reshape(across))
    image = np.round(255 * np.clip(picture, 0, 1)).astype(np.uint8)
    if strengths.gain or strengths.gamma or strengths.dynamic_range:
        table = _grey_curve(
            strengths.gain * gain,
            np.exp(strengths.gamma * gamma),
            np.exp(strengths.dynamic_range * compression),
        )
        image = cv2.LUT(image, table)
    if erased < strengths.erase:
        image = _with_boxes(image, boxes)
    if cluttered < strengths.clutter:
        image = _with_clutter(image, clutter)
    return image


def _grey_curve(gain: float, gamma: float, compression: float) -> UInt8[np.ndarray, "256"]:
    """Grey level -> grey level. Echoes are shown on a logarithmic scale that ends at white."""
    before = np.arange(256) / 255
    shift = gain - (1 - before) * (compression - 1)
    return np.round(255 * _shifted(before, shift) ** gamma).astype(np.uint8)


def _shifted(picture: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Gains are factors of echoes: on the logarithmic scale that is shown they are shifts."""
    return np.clip(picture + shift * np.minimum(1, picture / _DARK), 0, 1)


def _curve(levels: Float32[np.ndarray, "n"], length: int) -> Float32[np.ndarray, "{length}"]:
    """Levels at evenly spaced places, joined."""
    places = np.linspace(0, length - 1, len(levels))
    return np.interp(np.arange(length), places, levels).astype(np.float32)


def _noise(shape: tuple[int, int], rng: np.random.Generator) -> Float32[np.ndarray, "h w"]:
    """Grain of standard deviation 1."""
    height, width = shape
    noise = rng.standard_normal((height, width), np.float32)
    # From electronic noise to coarse speckle, which is wider than it is deep.
    size = rng.uniform(0.3, 1.2) * max(height, width) / _SIDE
    noise = cv2.GaussianBlur(noise, (0, 0), 1.5 * size, sigmaY=size)
    return noise / noise.std()


def _resharpened(picture: np.ndarray, blur: float, sharpen: float) -> np.ndarray:
    pixel = max(picture.shape[:2]) / _SIDE
    if blur > 0:
        return cv2.GaussianBlur(picture, (0, 0), max(blur * pixel, 1e-3))
    if sharpen > 0:
        smooth = cv2.GaussianBlur(picture, (0, 0), pixel)
        return np.clip(picture + sharpen * (picture - smooth), 0, 1)
    return picture


def _with_boxes(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    image, size = image.copy(), np.array(image.shape[:2])
    for _ in range(rng.integers(1, 4)):
        box = np.ceil(rng.uniform(0.06, 0.3, 2) * size).astype(int)
        top, left = rng.integers(size - box + 1)
        image[top : top + box[0], left : left + box[1]] = 0
    return image


def _with_clutter(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each kind in half of the pictures that have any."""
    image = image.copy()
    for draw in (_text, _grey_bar, _depth_marks, _calipers):
        if rng.random() < 0.5:
            draw(image, rng)
    return image


def _level(image: np.ndarray, level: float) -> tuple[float, ...] | float:
    return (level,) * 3 if image.ndim == 3 else level


def _text(image: np.ndarray, rng: np.random.Generator) -> None:
    """Two to five lines of figures in one of the upper corners, or below."""
    height, width = image.shape[:2]
    scale = max(height, width) / _SIDE
    line = 4 * scale
    left = rng.choice((0.02, 0.8)) * width
    top = rng.choice((0.06, 0.2, 0.8)) * height
    level = _level(image, rng.uniform(120, 255))
    for row in range(rng.integers(2, 6)):
        words = "".join(rng.choice(list("0123456789.-/ cmHz"), rng.integers(3, 9)))
        place = int(left), int(top + row * line)
        cv2.putText(image, words, place, cv2.FONT_HERSHEY_PLAIN, 0.3 * scale, level, 1, cv2.LINE_AA)


def _grey_bar(image: np.ndarray, rng: np.random.Generator) -> None:
    """The scale of grey levels at one side, white on top."""
    height, width = image.shape[:2]
    wide, long = max(1, round(0.02 * width)), round(rng.uniform(0.1, 0.3) * height)
    top = rng.integers(0, height - long)
    left = rng.choice((0, width - wide))
    bar = np.linspace(255, 0, long).astype(np.uint8)[:, None]
    image[top : top + long, left : left + wide] = bar if image.ndim == 2 else bar[..., None]


def _depth_marks(image: np.ndarray, rng: np.random.Generator) -> None:
    """Short lines at even distances down one side."""
    height, width = image.shape[:2]
    left = rng.choice((0, width - max(1, width // 48)))
    for row in np.arange(rng.uniform(0, 10), height, rng.uniform(0.04, 0.1) * height):
        image[int(row), left : left + max(1, width // 48)] = rng.uniform(150, 255)


def _calipers(image: np.ndarray, rng: np.random.Generator) -> None:
    """Two crosses, mostly with a dotted line from one to the other."""
    height, width = image.shape[:2]
    level = _level(image, rng.uniform(180, 255))
    ends = rng.uniform(0.15, 0.85, (2, 2)) * (width, height)
    size = max(3, round(0.04 * width))
    for end in ends:
        cv2.drawMarker(image, tuple(end.astype(int).tolist()), level, cv2.MARKER_CROSS, size)
    if rng.random() < 0.7:
        count = max(2, int(np.hypot(*(ends[1] - ends[0])) / (3 * width / _SIDE)))
        for x, y in np.linspace(ends[0], ends[1], count).astype(int):
            image[y, x] = level
