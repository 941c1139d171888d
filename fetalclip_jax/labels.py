"""The class names the whole project uses."""

import dataclasses

# The official candidate order of the zero-shot plane task (FETAL_PLANES_DB evaluation).
PLANES = (
    "abdomen",
    "brain",
    "femur",
    "heart",
    "kidney",
    "lips_nose",
    "profile_patient",
    "spine",
    "cervix",
)
OTHER = "other"
BRAIN_PLANES = ("trans-thalamic", "trans-cerebellum", "trans-ventricular")
# The six-plane probe task; every plane that is not named here counts as "other".
SIX_PLANES = ("other", "abdomen", "brain", "cervix", "femur", "heart")
HEART_LABELS = ("normal", "ventricular_septal_defect", "hypoplastic_left_heart")


@dataclasses.dataclass(frozen=True)
class Classes:
    """What is told apart in classification.

    Attributes:
      column: of an example, that holds its class name.
      names: of the classes; examples with another name, or none, take no part.
      other: the class of names that are not in `names`; None leaves their examples out.
    """

    column: str
    names: tuple[str, ...]
    other: str | None = None


# What probes, and fine-tuning on labels, call "planes" and "brain".
TASKS = {
    "planes": Classes("plane", SIX_PLANES, OTHER),
    "brain": Classes("brain_plane", BRAIN_PLANES),
}


@dataclasses.dataclass(frozen=True)
class Outlined:
    """What is outlined in segmentation.

    Attributes:
      structures: names of the masks.
      plane: of the images that show them; "" for all that are outlined.
    """

    structures: tuple[str, ...]
    plane: str = ""


OUTLINED = {
    "head": Outlined(("head",), "brain"),
    "abdomen": Outlined(("abdomen", "stomach", "spine"), "abdomen"),
    "four_chamber": Outlined(
        (
            *("thorax", "aorta", "spine", "heart"),
            *("left_ventricle", "left_atrium", "right_atrium", "right_ventricle", "septum"),
        ),
        "heart",
    ),
}


def structures(task: str) -> tuple[str, ...]:
    """The masks of a task of `OUTLINED`; any other name is that of its one structure."""
    return OUTLINED[task].structures if task in OUTLINED else (task,)
