"""Captions say what the metadata says, in many phrasings, the same ones for the same key."""

import re
import subprocess
import sys

import numpy as np
import pytest

from fetalclip_jax.captions.synthesis import caption, caption_corpus, state
from fetalclip_jax.labels import BRAIN_PLANES, OTHER, PLANES

# Words that name a class and must not turn up in the captions of another.
CLASS_WORDS = {
    "abdomen": r"abdom|stomach|liver",
    "brain": r"brain|\bhead",
    "femur": r"femur|femor|thigh",
    "heart": r"heart|cardiac|four-chamber|atria",
    "kidney": r"kidney|renal",
    "lips_nose": r"lip|nose|nostril",
    "profile_patient": r"profile",
    "spine": r"spine|vertebra",
    "cervix": r"cervi",
}
BRAIN_WORDS = {
    "trans-thalamic": r"thalam",
    "trans-cerebellum": r"cerebell",
    "trans-ventricular": r"ventric",
}
AGE = r"20 weeks and 3 days|20 weeks, 3 days|20w3d"


def many(n=600, **fields):
    return [caption(**fields, key=(0, "image", variant)) for variant in range(n)]


@pytest.mark.parametrize("plane", PLANES)
def test_every_caption_names_its_plane_and_no_other(plane):
    for text in many(plane=plane, ga_days=143, resized_spacing_mm=0.53):
        named = {name for name, words in CLASS_WORDS.items() if re.search(words, text.lower())}
        assert named == {plane}, text


@pytest.mark.parametrize("plane", [OTHER, None])
def test_a_view_outside_the_planes_names_none_of_them(plane):
    for text in many(plane=plane):
        assert not any(re.search(words, text.lower()) for words in CLASS_WORDS.values()), text


@pytest.mark.parametrize("brain_plane", BRAIN_PLANES)
def test_brain_planes_are_named_beside_the_brain(brain_plane):
    texts = many(plane="brain", brain_plane=brain_plane)
    assert all(re.search("brain|head", text) for text in texts)
    for name, words in BRAIN_WORDS.items():
        share = np.mean([bool(re.search(words, text)) for text in texts])
        # Some say only "fetal head", as the age prompts do.
        assert 0.75 < share < 0.95 if name == brain_plane else share == 0


def test_a_brain_image_of_unknown_plane_names_no_brain_plane():
    for text in many(plane="brain"):
        assert re.search("brain|head", text)
        assert not any(re.search(words, text) for words in BRAIN_WORDS.values()), text


def test_a_brain_plane_alone_is_a_brain_image():
    fields = {"brain_plane": "trans-thalamic", "key": (1, "a", 0)}
    assert caption(**fields) == caption(plane="brain", **fields)


@pytest.mark.parametrize("plane", PLANES)
def test_hundreds_of_phrasings_per_plane(plane):
    texts = many(2000, plane=plane, ga_days=143, resized_spacing_mm=0.53)
    assert len(set(texts)) > 700
    assert len(set(many(2000, plane=plane))) > 150  # the view alone


@pytest.mark.parametrize(
    ("plane", "both", "neither"), [("heart", (0.70, 0.80), 0.03), ("brain", (0.86, 0.94), 0.01)]
)
def test_how_often_age_and_spacing_are_stated(plane, both, neither):
    texts = many(2000, plane=plane, ga_days=143, resized_spacing_mm=0.527)
    age = np.array([bool(re.search(AGE, text)) for text in texts])
    spacing = np.array(["0.53 mm/pixel" in text for text in texts])
    assert both[0] < (age & spacing).mean() < both[1]
    for rarer in (age & ~spacing, ~age & spacing, ~age & ~spacing):
        assert neither < rarer.mean() < 0.15
    in_prompt_words = np.mean(["20 weeks and 3 days" in text for text in texts])
    assert in_prompt_words > 0.75 * age.mean()


def test_no_number_without_its_metadata():
    assert not any(re.search(r"\d", text) for text in many(plane="spine"))
    assert not any("mm/pixel" in text for text in many(plane="spine", ga_days=143))
    assert not any("week" in text for text in many(plane="spine", resized_spacing_mm=0.5))


def test_one_week_and_one_day_are_singular():
    texts = " ".join(many(plane="heart", ga_days=8))
    assert "1 week and 1 day" in texts
    assert "1 weeks" not in texts
    assert "1 days" not in texts


def test_a_defect_is_always_named_and_normal_sometimes():
    vsd = many(plane="heart", label="ventricular_septal_defect")
    assert all(re.search("septal defect|septum defect|VSD", text) for text in vsd)
    hlhs = many(plane="heart", label="hypoplastic_left_heart")
    assert all(re.search("hypoplastic left|HLHS", text) for text in hlhs)
    other = many(20, plane="abdomen", label="gastroschisis_suspected")
    assert all("gastroschisis suspected" in text for text in other)
    normal = many(plane="heart", label="normal")
    share = np.mean([bool(re.search("normal|abnormality", text)) for text in normal])
    assert 0.4 < share < 0.6
    assert not any(re.search("defect|VSD|hypoplastic|HLHS", text) for text in normal)


def test_the_key_decides_the_wording():
    fields = {"plane": "heart", "ga_days": 143, "resized_spacing_mm": 0.53}
    assert caption(**fields, key=(0, "a", 1)) == caption(**fields, key=(np.int64(0), "a", 1))
    texts = {
        caption(**fields, key=key) for key in [(0, "a", 1), (0, "a", 2), (0, "b", 1), (1, "a")]
    }
    assert len(texts) == 4
    # A number and its digits, or parts joined elsewhere, are other keys.
    assert caption(**fields, key=(1, "2")) != caption(**fields, key=("1", 2))


def test_captions_are_the_same_in_every_process():
    code = (
        "from fetalclip_jax.captions.synthesis import caption_corpus\n"
        "print('\\n'.join(caption_corpus(20, 3)))"
    )
    outputs = set()
    for hash_seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": hash_seed, "PYTHONPATH": ":".join(filter(None, sys.path))},
            capture_output=True,
            text=True,
            check=True,
        )
        outputs.add(done.stdout.strip())
    assert outputs == {"\n".join(caption_corpus(20, 3))}


def test_wording_is_pinned():
    # Prepared records and trained vocabularies rest on these; change them knowingly.
    assert list(caption_corpus(3, 0)) == PINNED


PINNED = [
    "Ultrasound image of the ventricular plane of the fetal brain, GA 25w2d, "
    "pixel spacing 0.16 mm/pixel.",
    "The four-chamber view of the heart on a fetal ultrasound, normal appearance at gestational "
    "age of 10 weeks, 3 days, pixel spacing of 1.32 mm/pixel.",
    "A fetal ultrasound image of a non-standard plane at 37 weeks and 3 days, 1.01 mm/pixel.",
]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"plane": "thorax"}, r"plane is 'thorax'; it must be one of abdomen"),
        ({"plane": "brain", "brain_plane": "sagittal"}, r"brain_plane is 'sagittal'"),
        ({"plane": "heart", "brain_plane": "trans-thalamic"}, r"but plane is 'heart'"),
        ({"ga_days": -1}, r"gestational age is -1"),
        ({"ga_days": float("nan")}, r"gestational age is nan"),
        ({"ga_days": 143.5}, r"gestational age is 143\.5"),
        ({"resized_spacing_mm": 0.0}, r"pixel spacing is 0\.0"),
        ({"resized_spacing_mm": float("nan")}, r"pixel spacing is nan"),
    ],
)
def test_wrong_metadata_is_an_error_in_every_variant(fields, message):
    for variant in range(30):
        with pytest.raises(ValueError, match=message):
            caption(**fields, key=(variant,))


def test_facts_are_what_the_text_states_and_no_more():
    fields = {"ga_days": 143, "resized_spacing_mm": 0.5333}
    for variant in range(400):
        key = (0, "image", variant)
        found = state(plane="brain", brain_plane="trans-cerebellum", **fields, key=key)
        assert found.text == caption(
            plane="brain", brain_plane="trans-cerebellum", **fields, key=key
        )
        stated = {
            "plane=brain": True,
            "brain_plane=trans-cerebellum": "cerebell" in found.text.lower(),
            "ga_days=143": re.search(AGE, found.text) is not None,
            "resized_spacing=0.53 mm/pixel": "0.53 mm/pixel" in found.text,
        }
        assert found.facts == tuple(fact for fact, said in stated.items() if said)
    for variant in range(100):
        found = state(plane="heart", label="normal", key=(0, "image", variant))
        said = re.search("normal", found.text) is not None
        assert found.facts == ("plane=heart", "label=normal")[: 1 + said]
    assert state(key=(0,)).facts == ()


def test_spacings_that_are_written_alike_are_one_fact():
    facts = {
        state(plane="femur", resized_spacing_mm=0.53 + tiny, key=(0, i)).facts
        for tiny in (-0.004, 0.004)
        for i in range(200)
    }
    assert facts == {("plane=femur",), ("plane=femur", "resized_spacing=0.53 mm/pixel")}
