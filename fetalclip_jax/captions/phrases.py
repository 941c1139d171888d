"""The words captions are composed of: several names for each view, in a clinician's terms.

The words of one class are kept out of the others' phrases (no "head" for a profile, no "spine"
for a kidney), so that text alone separates the planes.
"""

IMAGE_NOUNS = (
    "ultrasound",
    "ultrasound image",
    "fetal ultrasound",
    "fetal ultrasound image",
    "ultrasound scan",
    "prenatal ultrasound",
    "obstetric scan",
    "sonogram",
    "greyscale image",
)

# What the picture shows, as a noun phrase. `None` is a scan nothing is known about.
SUBJECTS = {
    "abdomen": (
        "the fetal abdomen",
        "a transverse section of the fetal abdomen",
        "the abdominal circumference plane",
        "the fetal abdomen with the stomach",
        "the fetal abdomen with stomach bubble and umbilical vein",
        "the fetal liver and stomach",
        "the upper abdomen of the fetus",
    ),
    "brain": (
        "the fetal brain",
        "the fetal head",
        "a transverse section of the fetal brain",
        "a transverse section of the fetal head",
        "the brain inside the fetal skull",
        "the head of the fetus",
        "the fetal head with the brain midline",
    ),
    "femur": (
        "the fetal femur",
        "the femur length view",
        "the fetal thigh with the femur",
        "the femur in its long axis",
        "the shaft of the fetal femur",
        "the fetal thigh bone",
        "the femoral diaphysis of the fetus",
    ),
    "heart": (
        "the fetal heart",
        "the four-chamber view",
        "the four-chamber view of the heart",
        "the fetal heart with its four chambers",
        "the fetal thorax with the heart",
        "the atria and ventricles of the heart",
        "a cardiac four-chamber view",
    ),
    "kidney": (
        "the fetal kidneys",
        "the fetal kidney",
        "a renal view of the fetus",
        "both fetal kidneys in transverse section",
        "the fetal kidneys with the renal pelvis",
        "the renal plane",
    ),
    "lips_nose": (
        "the fetal lips and nose",
        "the fetal nose and lips",
        "a coronal view of the fetal lips and nose",
        "the fetal upper lip and nostrils",
        "the lips and nostrils of the fetus",
        "the lower face with lips and nose",
    ),
    "profile_patient": (
        "the fetal profile",
        "the fetal face in profile",
        "a mid-sagittal view of the facial profile",
        "the facial profile of the fetus",
        "the fetal profile with forehead and chin",
        "a profile view of the fetus",
    ),
    "spine": (
        "the fetal spine",
        "a sagittal view of the fetal spine",
        "the vertebral column of the fetus",
        "the fetal spine with its vertebrae",
        "a longitudinal view of the spine",
        "the fetal vertebrae in a row",
    ),
    "cervix": (
        "the maternal cervix",
        "the uterine cervix",
        "the cervical canal and internal os",
        "the cervical length view",
        "the maternal cervix with the cervical canal",
        "a transvaginal view of the cervix",
    ),
    "other": (
        "a non-standard plane",
        "a non-standard fetal view",
        "a section outside the standard planes",
        "no standard plane",
        "an oblique section of the fetus",
    ),
    None: ("the fetus", "a fetal structure", "fetal anatomy", "a routine fetal examination"),
}

# A brain plane is named by its view or by the structures that define it; see `BRAIN_PATTERNS`.
BRAIN_VIEWS = {
    "trans-thalamic": ("trans-thalamic plane", "trans-thalamic view", "thalamic plane"),
    "trans-cerebellum": (
        "trans-cerebellum plane",
        "trans-cerebellar plane",
        "trans-cerebellar view",
        "cerebellar plane",
    ),
    "trans-ventricular": (
        "trans-ventricular plane",
        "trans-ventricular view",
        "ventricular plane",
    ),
}
BRAIN_STRUCTURES = {
    "trans-thalamic": ("thalami", "thalami and cavum septi pellucidi", "thalamus"),
    "trans-cerebellum": (
        "cerebellum",
        "cerebellum and cisterna magna",
        "cerebellum in the posterior fossa",
    ),
    "trans-ventricular": (
        "lateral ventricles",
        "lateral ventricles and choroid plexus",
        "lateral ventricles with choroid plexus",
    ),
}
BRAIN_PATTERNS = (
    "the fetal {organ} in the {view}",
    "the fetal {organ}, {view}",
    "the {view} of the fetal {organ}",
    "the fetal {organ} with the {structures}",
    "the {structures} of the fetal {organ}",
    "the fetal {organ} at the level of the {structures}",
)
BRAIN_ORGANS = ("brain", "brain", "head")

# Findings. "normal" may go unsaid, a defect never does.
NORMAL_FINDINGS = ("normal appearance", "no abnormality seen", "normal anatomy")
DEFECT_FINDINGS = {
    "ventricular_septal_defect": (
        "ventricular septal defect",
        "VSD",
        "ventricular septum defect",
    ),
    "hypoplastic_left_heart": (
        "hypoplastic left heart",
        "hypoplastic left heart syndrome",
        "hypoplastic left ventricle",
        "HLHS",
    ),
}

# Weights make "20 weeks and 3 days" and "0.53 mm/pixel" the rule, as in the age prompts.
AGE_PHRASES = (
    ("at {long}", 5),
    ("at a gestational age of {long}", 4),
    ("gestational age of {long}", 3),
    ("gestational age {long}", 3),
    ("at gestational age of {comma}", 1),
    ("GA {long}", 1),
    ("GA {short}", 1),
    ("gestational age of {comma}", 1),
)
SPACING_PHRASES = (
    ("with a pixel spacing of {spacing}", 5),
    ("pixel spacing of {spacing}", 4),
    ("pixel spacing {spacing}", 4),
    ("at {spacing}", 2),
    ("{spacing}", 2),
    ("pixel size {spacing}", 1),
    ("resolution {spacing}", 1),
)
