"""What the quickstart judges its model by: a part of `phantom.py` that two cores do in minutes.

    fetalclip evaluate --config configs/eval/quickstart.py --model runs/quickstart \\
        --output runs/quickstart/results

The decoder takes half as many steps as by default, clips are fewer, and maps are of fewer images.

Hardware: two CPU cores, about three minutes; expect the README's values.
"""

from fetalclip_jax.evaluation.config import add_data, add_study, default_config

IMAGES, CLIPS = ("phantom",), ("phantom_clips",)


def get_config():
    config = default_config()
    add_data(config, "phantom", kind="phantom")
    clips = {"pool_clips": 300, "test_clips": 200, "frames": 4}
    add_data(config, "phantom_clips", kind="phantom_clips", options=clips)
    for study in (
        *("zero_shot.planes", "zero_shot.brain", "age", "probe.planes", "probe.raw_pixels"),
        *("few_shot.planes", "regression.ga_days", "regression.hc_mm", "retrieval"),
        *("mislabels.planes", "embedding_map.planes"),
    ):
        add_study(config, study, data=IMAGES)
    add_study(config, "segmentation.head", {"epochs": 4}, data=IMAGES)
    add_study(config, "explanation.head", {"images": 60, "methods": ("hires_cam",)}, data=IMAGES)
    add_study(config, "chd.mean", {"num_frames": 4}, data=CLIPS)
    return config.lock()
