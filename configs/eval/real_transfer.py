"""What models read of real ultrasound: planes, brain planes and ages, without labels and with few.

    fetalclip evaluate --config configs/eval/real_transfer.py --output results/validation \\
        --config.models.quickstart.path=runs/quickstart --config.models.longer.path=runs/longer \\
        --config.data.fetal_planes_db.root=FPDB --config.data.hc18.root=HC18
    fetalclip report results/validation --output validation.html

`validation`, the argument that holds where there is none, judges real patients by whom models may
be chosen: the official training patients of FETAL_PLANES_DB (`fetal_planes_db_halves` divides them
for probes, which learn from one half and are tested on the other) and a half of the HC18 ids, by a
hash. `real_transfer.py:test` judges the official test patients and the other half of HC18, for
models that are chosen already: look once. Results and report say which patients they are of, and
which of them a model's last training saw (not that of a run it was started from); the report shows
what is mistaken for what, beside images of the built-in phantom.

A model that saw no head of HC18 may be judged on all:
`--config.studies.age.options.role=all`. The heads of FETAL_PLANES_DB have ages where a
`measurements.csv` with circumferences lies beside its table (docs/data_set.md).

Hardware: two CPU cores, a few minutes a model of the quickstart's size. Expect of
`configs/phantom_base.py`, which saw simulated images alone, a macro F1 of 0.81 for planes (chance:
0.15).
"""

from fetalclip_jax.evaluation.config import add_data, add_study, default_config

PATIENTS = ("validation", "test")
SIZES = (2, 4, 8, 16, 32, 64)  # labelled patients; as many others validate
FPDB, HALVES, HC18 = "fetal_planes_db", "fetal_planes_db_halves", "hc18"


def get_config(patients: str = "validation"):
    if patients not in PATIENTS:
        raise ValueError(f"{patients!r} is not one of {', '.join(PATIENTS)}")
    config = default_config()
    config.keep_going = True  # a part of the data gives a part of the tables
    add_data(config, "phantom", kind="phantom")
    config.beside = "phantom"  # what it draws of a plane, beside what is mistaken for one
    halves = {"test_share": 0.5}  # of HC18's ids; what is no test here is judged in validation
    if patients == "test":
        add_data(config, FPDB, kind=FPDB, needs_root=True)
        add_data(config, HC18, kind=HC18, options=halves, needs_root=True)
        learned = FPDB
    else:
        # What is judged is learned from by nothing, constant answers included.
        judged = {"train": "", "fit": "", "test": "official_train", "all": "official_train"}
        add_data(config, FPDB, kind=FPDB, needs_root=True, splits=judged)
        add_data(
            config,
            HALVES,
            kind=FPDB,
            options={"validation_share": 0.5},
            needs_root=True,
            splits={"fit": "train", "test": "validation"},
        )
        config.data[HALVES].root = config.data[FPDB].get_ref("root")
        others = {"train": "", "fit": "", "test": "not_test"}
        add_data(config, HC18, kind=HC18, options=halves, needs_root=True, splits=others)
        learned = HALVES
    for task in ("planes", "brain"):
        add_study(config, f"zero_shot.{task}", data=(FPDB,))
    add_study(config, "age", data=(HC18, FPDB))
    for task in ("planes", "brain"):
        add_study(config, f"probe.{task}", data=(learned,))
        add_study(config, f"few_shot.{task}", {"sizes": SIZES}, data=(learned,))
    return config.lock()
