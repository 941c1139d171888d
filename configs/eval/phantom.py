"""Every study of the package on the built-in phantom, with the same towers untrained beside it.

    fetalclip evaluate --config configs/eval/phantom.py --output results/phantom \\
        --config.models.pretrained.path=runs/quickstart
    fetalclip report results/phantom --output phantom.html

The phantom has a truth for everything that the paper measures, private data or not: planes, ages,
outlines of thirteen structures, clips of normal and abnormal hearts. Its images are simulated: the
numbers say that the studies work, and nothing about patients. `untrained` is the quickstart's
architecture; for a run of another one, `--config.models.untrained.path` takes its preset.

Hardware: two CPU cores, about forty minutes for both models; expect the README's values for the
quickstart's model.
"""

from fetalclip_jax.evaluation.config import add_data, add_model, add_study, default_config

IMAGES, CLIPS = ("phantom",), ("phantom_clips",)


def get_config():
    config = default_config()
    add_model(config, "pretrained")
    add_model(config, "untrained", path="ViT-Mi-16-96-conv")
    add_data(config, "phantom", kind="phantom")
    add_data(config, "phantom_clips", kind="phantom_clips")
    for task in ("planes", "brain"):
        for family in ("zero_shot", "probe", "few_shot", "knn", "nearest_centroid"):
            add_study(config, f"{family}.{task}", data=IMAGES)
    for study in ("zero_shot.merged", "probe.raw_pixels", "age", "retrieval", "near_duplicates"):
        add_study(config, study, data=IMAGES)
    for column in ("ga_days", "hc_mm"):
        add_study(config, f"regression.{column}", data=IMAGES)
    for task in ("head", "abdomen", "four_chamber"):
        add_study(config, f"segmentation.{task}", data=IMAGES)
        add_study(config, f"explanation.{task}", data=IMAGES)
    add_study(config, "few_shot_segmentation.head", data=IMAGES)
    add_study(config, "mislabels.planes", data=IMAGES)
    add_study(config, "embedding_map", data=IMAGES)
    add_study(config, "chd.concatenated", data=CLIPS)
    add_study(config, "chd.mean", data=CLIPS)
    return config.lock()
