"""Feature stores and models made by hand, so that every expected answer is known."""

import io

import numpy as np
import pytest
from tqdm import tqdm

from fetalclip_jax.data.columns import NUMBER_COLUMNS, TEXT_COLUMNS
from fetalclip_jax.evaluation.features import FeatureStore


@pytest.fixture(scope="session")
def make_store():
    """Build a store from features and the columns that matter to a test."""

    def make(image_features, *, copy=None, raw_pixels=None, model="m", **columns):
        count = len(image_features)
        filled = {name: np.full(count, "") for name in TEXT_COLUMNS}
        filled |= {name: np.full(count, np.nan) for name in NUMBER_COLUMNS}
        filled["example_id"] = np.array([f"image{i}" for i in range(count)])
        filled |= {name: np.asarray(values) for name, values in columns.items()}
        return FeatureStore(
            image_features=np.asarray(image_features, np.float32),
            columns=filled,
            raw_pixels=np.zeros((count, 256), np.uint8) if raw_pixels is None else raw_pixels,
            copy=np.zeros(count, np.int32) if copy is None else np.asarray(copy, np.int32),
            fingerprint={"model": model},
        )

    return make


@pytest.fixture(scope="session")
def make_classes(make_store):
    """A store of six planes: `patients` x 6 images, one cluster of features per plane."""
    names = np.array(["kidney", "abdomen", "brain", "cervix", "femur", "heart"])

    def make(patients, *, prefix, copies=0, distance=3.0, seed=0, shuffle_labels=False):
        rng = np.random.default_rng([seed, patients, copies])
        planes = np.repeat(np.tile(np.arange(6), patients), copies + 1)
        patient = np.repeat(np.arange(patients), 6 * (copies + 1))
        shown = np.eye(6, 8)[planes] * distance
        labels = rng.permutation(planes) if shuffle_labels else planes
        features = shown + rng.normal(size=shown.shape)
        pixels = np.zeros((len(planes), 256), np.uint8)
        pixels[np.arange(len(planes)), planes] = 200
        return make_store(
            features,
            copy=np.tile(np.arange(copies + 1), 6 * patients),
            raw_pixels=pixels,
            plane=names[labels],
            patient_id=np.char.add(prefix, patient.astype(str)),
            example_id=np.char.add(prefix + "-", np.arange(len(planes)).astype(str)),
        )

    return make


class LookupModel:
    """A text tower that looks its features up; counts the rows of every call."""

    fingerprint = "m"
    logit_scale = 20.0

    def __init__(self, embed):
        self.embed, self.texts, self.calls = embed, [], []

    def tokenize(self, texts):
        self.texts.extend(texts)
        return np.arange(len(self.texts) - len(texts), len(self.texts), dtype=np.int32)[:, None]

    def encode_text(self, tokens):
        self.calls.append(len(tokens))
        return np.stack([self.embed(self.texts[i]) for i in tokens[:, 0]]).astype(np.float32)


@pytest.fixture(scope="session")
def lookup_model():
    return LookupModel


@pytest.fixture
def progress_bars(monkeypatch):
    """`watch(module)`: the progress bars that the module shows from now on, drawn nowhere."""

    def watch(module):
        shown = []

        class Bar(tqdm):
            def __init__(self, *arguments, **options):
                super().__init__(*arguments, **options, file=io.StringIO())
                shown.append(self)
                self.moves = [0]

            def update(self, n=1):
                super().update(n)
                self.moves.append(self.n)

        monkeypatch.setattr(module, "tqdm", Bar)
        return shown

    return watch
