"""How big a fetus is at an age, and how ages and fields of view are distributed.

Sources:
  Head circumference: WHO fetal growth chart (Kiserud et al., PLoS Med 2017).
  Abdomen, femur: `biometry.hadlock` (age to measurement).
  Cerebellum: transverse diameter in mm is close to the age in weeks until 24 weeks (Goldstein et
  al., Am J Obstet Gynecol 1987;156:1065-9) and grows faster after.
"""

import dataclasses

import numpy as np

from fetalclip_jax.biometry import ellipses, hadlock, who_chart
from fetalclip_jax.labels import HEART_LABELS

# Ages of the zero-shot age task: 14 weeks 0 days to 38 weeks 6 days.
FIRST_DAY, LAST_DAY = 98, 272
# Resized spacing at 224 px that the pretraining data show, mm, and its peak.
SPACING_RANGE_MM, SPACING_PEAK_MM = (0.2, 1.0), 0.53
_REFERENCE_SIZE = 224
_DEFECT_PROBABILITIES = (0.70, 0.15, 0.15)


def hc_mm(ga_days: int, z_score: float) -> float:
    """Head circumference in mm `z_score` standard deviations from the WHO median.

    The standard deviation on either side is the distance of the 2.5th or 97.5th percentile / 1.96.
    """
    weeks = ga_days / 7.0
    median = float(who_chart.hc_mm(weeks, 50.0))
    bound = float(who_chart.hc_mm(weeks, 97.5 if z_score > 0 else 2.5))
    return median + abs(z_score) / 1.96 * (bound - median)


@dataclasses.dataclass(frozen=True)
class Fetus:
    """What all images of one patient share.

    Attributes:
      ga_days: gestational age.
      hc_mm, ac_mm, fl_mm: head and abdominal circumference, femur length.
      cephalic_index: head width / head length.
      heart_label: one of `HEART_LABELS`.
      bone_gain: how mineralised and echogenic the bones are, 0.8 to 1.2.
      brain_db: echogenicity of brain tissue against the reference tissue.
    """

    ga_days: int
    hc_mm: float
    ac_mm: float
    fl_mm: float
    cephalic_index: float
    heart_label: str
    bone_gain: float
    brain_db: float

    @property
    def ga_weeks(self) -> float:
        return self.ga_days / 7.0

    @property
    def head_semi_axes_mm(self) -> tuple[float, float]:
        """Semi-axes of the outer skull ellipse whose circumference is `hc_mm`."""
        semi_major = self.hc_mm / ellipses.circumference(1.0, self.cephalic_index)
        return float(semi_major), float(semi_major * self.cephalic_index)

    @property
    def cerebellum_mm(self) -> float:
        """Transverse cerebellar diameter."""
        weeks = self.ga_weeks
        return weeks + 0.9 * max(weeks - 24.0, 0.0)


def maturity(ga_days: int) -> float:
    """How far bone and brain have come: 0 until 16 weeks, 1 from 37."""
    return min(max((ga_days - 112) / 150, 0.0), 1.0)


def draw_ga_days(rng: np.random.Generator) -> int:
    """An age: one peak near 142 days, bulk 110 to 200, a thin tail to 270."""
    while True:
        pick = rng.random()
        if pick < 0.52:
            days = rng.normal(142.0, 8.0)
        elif pick < 0.80:
            days = rng.normal(152.0, 24.0)
        else:
            days = 150.0 + rng.gamma(2.0, 26.0)
        if FIRST_DAY <= days < LAST_DAY + 1:
            return int(days)


def draw_fetus(rng: np.random.Generator) -> Fetus:
    """A fetus; HC lies inside the WHO 2.5 to 97.5 percentile band at its own age."""
    ga_days = draw_ga_days(rng)
    size, abdomen, femur = rng.standard_normal(3)
    z_score = float(np.clip(size, -1.9, 1.9))
    weeks = ga_days / 7.0
    return Fetus(
        ga_days=ga_days,
        hc_mm=hc_mm(ga_days, z_score),
        # A large head goes with a large body; 5 % and 4 % are the charts' spreads.
        ac_mm=hadlock.ac_mm(weeks)
        * (1 + 0.05 * float(np.clip(0.6 * z_score + 0.8 * abdomen, -2, 2))),
        fl_mm=hadlock.fl_mm(weeks)
        * (1 + 0.04 * float(np.clip(0.6 * z_score + 0.8 * femur, -2, 2))),
        cephalic_index=float(np.clip(rng.normal(0.785, 0.03), 0.71, 0.86)),
        heart_label=str(rng.choice(HEART_LABELS, p=_DEFECT_PROBABILITIES)),
        bone_gain=float(rng.uniform(0.85, 1.15)),
        brain_db=float(rng.uniform(-13.5, -7.5)) - 8.0 * maturity(ga_days),
    )


def _within_two(deviations: float) -> float:
    return float(np.clip(deviations, -2, 2))


def draw_field_of_view_mm(
    rng: np.random.Generator, fetus: Fetus, patient_depth: float, structure_mm: float, zoom: float
) -> float:
    """Longer side of the displayed window in mm (224 x resized spacing).

    At least 1.25 x `structure_mm`, the length that has to fit; `zoom` above 1 narrows the field.

    The field grows with the fetus, but with a spread of its own (`patient_depth`, the operator's
    habit, plus a spread per image), so that sizes in pixels alone do not give the age: the
    logarithm of a head's size in pixels spreads by about 0.2, as it does in HC18 (0.18 among
    head circumferences of 100 to 342 mm).
    """
    head_length = 2.0 * fetus.head_semi_axes_mm[0]
    typical = _REFERENCE_SIZE * SPACING_PEAK_MM * (head_length / 62.0) ** 0.6 / zoom
    field = typical * float(np.exp(0.18 * patient_depth + 0.12 * rng.standard_normal()))
    low, high = (s * _REFERENCE_SIZE for s in SPACING_RANGE_MM)
    return float(np.clip(field, max(low, 1.25 * structure_mm), high - 1.0))
