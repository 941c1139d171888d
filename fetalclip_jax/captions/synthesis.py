"""Captions from metadata: what the picture shows, how old the fetus is, how large a pixel is.

Pretraining captions state the view, the gestational age in weeks and days and the *resized*
pixel spacing (FetalCLIP, arXiv 2502.14807). Here they are composed of templates and synonyms, and
not every caption says everything: a text tower should learn what each part means by itself.
"""

import dataclasses
import hashlib
import operator
from collections.abc import Iterator, Sequence
from numbers import Real

import numpy as np

from fetalclip_jax.captions import phrases, wording
from fetalclip_jax.labels import BRAIN_PLANES, HEART_LABELS, OTHER, PLANES

# Shares of captions that state (age and spacing, age alone, spacing alone, neither).
_STATED = (0.75, 0.10, 0.08, 0.07)
# Head images carry the age task, so nearly all of their captions state both.
_STATED_BRAIN = (0.90, 0.04, 0.03, 0.03)
_BRAIN_PLANE_UNSAID = 0.15
_NORMAL_UNSAID = 0.5
_SPACING_FIRST = 0.2

_LEADS = (
    "{noun} of {subject}",
    "{noun} showing {subject}",
    "{noun}: {subject}",
    "{article} {noun} of {subject}",
    "{subject} on {article} {noun}",
    "{subject} seen on {article} {noun}",
    "{subject}",
)


@dataclasses.dataclass(frozen=True)
class Statement:
    """A caption, and what it says however it is worded.

    Attributes:
      text: the caption.
      facts: what the text states, each as `kind=value`, in a fixed order; what an image is known
        to show but its caption leaves out is not among them. Numbers are as they are written: two
        spacings that round to the same text are the same fact.
    """

    text: str
    facts: tuple[str, ...]


def caption(
    *,
    plane: str | None = None,
    brain_plane: str | None = None,
    label: str | None = None,
    ga_days: Real | None = None,
    resized_spacing_mm: Real | None = None,
    key: Sequence[int | np.integer | str],
) -> str:
    """The text of `state` of the same arguments, which says what they are and may raise."""
    return state(
        plane=plane,
        brain_plane=brain_plane,
        label=label,
        ga_days=ga_days,
        resized_spacing_mm=resized_spacing_mm,
        key=key,
    ).text


def state(
    *,
    plane: str | None = None,
    brain_plane: str | None = None,
    label: str | None = None,
    ga_days: Real | None = None,
    resized_spacing_mm: Real | None = None,
    key: Sequence[int | np.integer | str],
) -> Statement:
    """One caption for one image and the facts in it; unknown fields are None and go unsaid.

    Args:
      plane: one of `PLANES`, "other", or None.
      brain_plane: one of `BRAIN_PLANES`; only for a brain image (or one of unknown plane).
      label: a finding; "normal" is said in half of the captions, anything else always.
      ga_days: gestational age in days.
      resized_spacing_mm: millimetres per pixel after resizing to the training resolution.
      key: integers and strings, such as (seed, example_id, variant). The wording is a pure
        function of the metadata and the key, the same in every process and on every machine.

    Raises:
      ValueError: unknown plane or brain plane, or a number that cannot be an age or a spacing.
    """
    plane = _checked_plane(plane, brain_plane)
    rng = np.random.default_rng(_seed_of(key))
    subject, says_brain_plane = _subject(rng, plane, brain_plane)
    lead = _lead(rng, subject)
    finding = _finding(rng, label)
    stated = rng.choice(4, p=_STATED_BRAIN if plane == "brain" else _STATED)
    # Worded even where they go unsaid: a wrong number must always be an error.
    age = [] if ga_days is None else [_age(rng, ga_days)]
    spacing = [] if resized_spacing_mm is None else [_spacing(rng, resized_spacing_mm)]
    age, spacing = age * (stated in (0, 1)), spacing * (stated in (0, 2))
    details = age + spacing
    if rng.random() < _SPACING_FIRST:
        details.reverse()
    facts = {
        "plane": plane,
        "brain_plane": brain_plane if says_brain_plane else None,
        "label": label if finding else None,
        "ga_days": int(ga_days) if age else None,
        "resized_spacing": wording.pixel_spacing(resized_spacing_mm) if spacing else None,
    }
    return Statement(
        _joined([lead, *finding], details),
        tuple(f"{kind}={value}" for kind, value in facts.items() if value is not None),
    )


def caption_corpus(n: int, seed: int) -> Iterator[str]:
    """`n` captions over all planes, labels, ages (10-40 weeks) and spacings (0.10-1.60 mm/pixel).

    Meant for training a vocabulary; the ages and spacings are spread evenly, so that no number is
    rare.
    """
    rng = np.random.default_rng(seed)
    # Brain planes and heart labels multiply the phrases of two classes, hence their extra weight.
    planes = (*PLANES, OTHER, None, "brain", "brain", "heart")
    for index in range(n):
        plane = planes[rng.integers(len(planes))]
        brain_plane = label = None
        if plane == "brain":
            brain_plane = (*BRAIN_PLANES, None)[rng.integers(len(BRAIN_PLANES) + 1)]
        if plane == "heart":
            label = (*HEART_LABELS, None)[rng.integers(len(HEART_LABELS) + 1)]
        yield caption(
            plane=plane,
            brain_plane=brain_plane,
            label=label,
            ga_days=int(rng.integers(70, 281)),
            resized_spacing_mm=float(rng.uniform(0.1, 1.6)),
            key=("corpus", seed, index),
        )


def _checked_plane(plane: str | None, brain_plane: str | None) -> str | None:
    if plane is not None and plane not in (*PLANES, OTHER):
        raise ValueError(
            f"plane is {plane!r}; it must be one of {', '.join((*PLANES, OTHER))} (or None)"
        )
    if brain_plane is None:
        return plane
    if brain_plane not in BRAIN_PLANES:
        raise ValueError(
            f"brain_plane is {brain_plane!r}; it must be one of {', '.join(BRAIN_PLANES)} (or None)"
        )
    if plane not in ("brain", None):
        raise ValueError(
            f"brain_plane is {brain_plane!r} but plane is {plane!r}; "
            "only an image of plane 'brain' has a brain plane"
        )
    return "brain"


def _seed_of(key: Sequence[int | np.integer | str]) -> int:
    """A 64-bit seed from the key; Python's own hash of a string changes from run to run."""
    # A NumPy integer must give the captions of the Python integer it equals.
    parts = [
        f"s{len(part)}:{part}" if isinstance(part, str) else f"i{operator.index(part)}"
        for part in key
    ]
    digest = hashlib.blake2b("|".join(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def _pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[rng.integers(len(options))]


def _weighted(rng: np.random.Generator, options: Sequence[tuple[str, int]]) -> str:
    point = rng.integers(sum(weight for _, weight in options))
    for text, weight in options:
        if point < weight:
            return text
        point -= weight
    raise AssertionError("weights do not cover their own sum")


def _subject(
    rng: np.random.Generator, plane: str | None, brain_plane: str | None
) -> tuple[str, bool]:
    """What is shown, in words, and whether they tell the brain plane."""
    # Age prompts speak of a head or brain without its plane; some captions must do so too.
    if brain_plane is None or rng.random() < _BRAIN_PLANE_UNSAID:
        return _pick(rng, phrases.SUBJECTS[plane]), False
    words = _pick(rng, phrases.BRAIN_PATTERNS).format(
        organ=_pick(rng, phrases.BRAIN_ORGANS),
        view=_pick(rng, phrases.BRAIN_VIEWS[brain_plane]),
        structures=_pick(rng, phrases.BRAIN_STRUCTURES[brain_plane]),
    )
    return words, True


def _lead(rng: np.random.Generator, subject: str) -> str:
    noun = _pick(rng, phrases.IMAGE_NOUNS)
    article = "an" if noun[0] in "aeiou" else "a"
    return _pick(rng, _LEADS).format(noun=noun, article=article, subject=subject)


def _finding(rng: np.random.Generator, label: str | None) -> list[str]:
    if label is None:
        return []
    if label == "normal":
        if rng.random() < _NORMAL_UNSAID:
            return []
        return [_pick(rng, phrases.NORMAL_FINDINGS)]
    return [_pick(rng, phrases.DEFECT_FINDINGS.get(label, (label.replace("_", " "),)))]


def _age(rng: np.random.Generator, ga_days: Real) -> str:
    return _weighted(rng, phrases.AGE_PHRASES).format(
        long=wording.age_long(ga_days),
        comma=wording.age_comma(ga_days),
        short=wording.age_short(ga_days),
    )


def _spacing(rng: np.random.Generator, resized_spacing_mm: Real) -> str:
    phrase = _weighted(rng, phrases.SPACING_PHRASES)
    return phrase.format(spacing=wording.pixel_spacing(resized_spacing_mm))


def _joined(parts: Sequence[str], details: Sequence[str]) -> str:
    """Words that attach ("at", "with") follow a space, the rest follows a comma."""
    text = ", ".join(parts)
    for detail in details:
        text += f" {detail}" if detail.startswith(("at ", "with ")) else f", {detail}"
    return f"{text[0].upper()}{text[1:]}."
