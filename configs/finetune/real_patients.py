"""How many real patients a model needs: pretrained, from nothing, and both data sets at once.

    fetalclip sweep --config configs/finetune/real_patients.py:validation,runs/quickstart \\
        --workdir runs/real_patients --config.data.root=FETAL_PLANES_DB

4 to 420 patients of the training split of FETAL_PLANES_DB, two seeds each of which draws its own,
the fewer among the more. Training starts from the run that is named, or from nothing, or from
nothing with the built-in phantom as half of every batch; what starts from nothing takes twice the
steps, for it has more to learn. Few patients stand in a batch several times, augmented anew.
Captions are made of the metadata.

Points are judged on validation patients, 256 others are the most to train on;
`real_patients.py:test,runs/quickstart` judges the official test patients, once all is chosen; a
third argument is the number of seeds. The page has macro F1 against the number of patients, paired
differences at each, and the patients that pretraining saves. None at all is the pretrained model
itself: `fetalclip evaluate --config configs/eval/real_transfer.py`, which judges other patients and
is no point of that figure.

    fetalclip train --config configs/finetune/real_patients.py --workdir runs/tuned \\
        --config.init_from=runs/quickstart --config.data.root=FETAL_PLANES_DB

is one run on all patients that are not held out.

Hardware: two CPU cores, 3 GiB. Expect two to four minutes a point and core, 45 minutes in all.
"""

from fetalclip_jax import sweeps
from fetalclip_jax.config import default_config

# Of those at hand in a partial download too. For decisions two fifths of the official training
# patients are held out; for the report few, by whom no choice is made.
_PATIENTS = {"validation": (4, 16, 64, 256), "test": (4, 16, 64, 420)}
_HELD_OUT = {"validation": 0.4, "test": 0.05}
_STEPS = 200


def get_config(argument="validation"):
    judged, _, _ = _parts(argument)
    config = default_config()
    config.data.fetal_planes_db.validation_share = _HELD_OUT[judged]
    config.data.source = "fetal_planes_db"
    config.captions.positives = "facts"  # captions of few facts: one plane is one meaning
    config.augment.update({"rotate_degrees": 10.0, "jitter": 0.2, "zoom": 0.1})
    config.train.steps = _STEPS
    config.train.global_batch_size = 64
    config.train.checkpoint_every = 200
    config.optimizer.learning_rate = 3e-4
    config.optimizer.warmup_steps = 30
    config.compute.scan_layers = False
    return config.lock()


def sweep(argument="validation"):
    judged, origin, seeds = _parts(argument)
    starts = sweeps.zipped(
        sweeps.values("init_from", [origin, "", ""]),
        sweeps.values("data.mixture", [(), (), (("phantom", "", 0.5),)]),
        sweeps.values("train.steps", [_STEPS, 2 * _STEPS, 2 * _STEPS]),
        sweeps.values("optimizer.learning_rate", [3e-4, 1e-3, 1e-3]),
    )
    points = sweeps.product(
        starts,
        sweeps.values("data.train_patients", _PATIENTS[judged]),
        sweeps.values("seed", range(seeds)),
    )
    return sweeps.Sweep(points, studies=("zero_shot.planes", "zero_shot.brain"), patients=judged)


def _parts(argument):
    """ "test,runs/quickstart,3": whom points are judged on, the pretrained run, and seeds."""
    judged, *others = argument.split(",")
    if judged not in _PATIENTS:
        raise ValueError(f"{judged!r} is not one of {', '.join(_PATIENTS)}")
    origin, seeds = [*others, "", ""][:2]
    return judged, origin or "runs/quickstart", int(seeds or 2)
