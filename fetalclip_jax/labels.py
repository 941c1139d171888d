"""The class names the whole project uses."""

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
