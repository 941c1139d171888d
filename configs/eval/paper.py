"""Every table of the FetalCLIP paper (arXiv 2502.14807).

    fetalclip evaluate --config configs/eval/paper.py:OFFICIAL --output results/paper \\
        --config.models.fetalclip.path=FetalCLIP_weights.pt \\
        --config.data.fetal_planes_db.root=FPDB --config.data.hc18.root=HC18
    fetalclip report results/paper --output paper.html

OFFICIAL is a folder of the official repository's data files: `five_planes_prompts.json`,
`brain_subplanes_prompts.json` and `splits/`, and, made by hand from its script,
`age_templates.json` (a JSON list of prompts with {weeks}, {days} and {pixel_spacing}). Without it
the prompts are this project's own, and what needs the split files is left out and named.

The paper's clips of hearts and its outlined abdomens and four-chamber views are private. Your own
take their place: `--config.data.clips.root=FOLDER` (docs/heart_defects.md), and
`--config.data.abdomen.root`, `--config.data.four_chamber.root` (folders with columns
`mask.STRUCTURE`, docs/data_set.md). Of HC18's official lists 18 of 161 test ids are trained on too;
they are left out unless `--config.studies.segmentation_head.options.variant=official`
(docs/segmentation.md).

Hardware: one accelerator: about 100,000 images through a ViT-L/14, minutes; on two CPU cores the
zero-shot tables take hours. Expect the published numbers of FetalCLIP (printed beside, labelled)
for its published weights, to the spread of augmented copies and seeds.
"""

import pathlib

from fetalclip_jax.evaluation.config import add_data, add_model, add_study, default_config


def get_config(official: str = ""):
    config = default_config()
    config.keep_going = True  # a part of the data gives a part of the tables
    add_model(config, "fetalclip", config="FetalCLIP")
    add_data(config, "fetal_planes_db", kind="fetal_planes_db", needs_root=True)
    add_data(config, "hc18", kind="hc18", needs_root=True)
    add_data(config, "clips", kind="clips", needs_root=True)
    for name in ("abdomen", "four_chamber"):
        add_data(config, name, kind="image_text", needs_root=True)
    folder, lacking = pathlib.Path(official), []
    if official and not folder.is_dir():
        raise ValueError(f"{official} is no folder; give that of the official data files, or none")

    def file(name: str, what: str) -> dict:
        if official and (folder / name).exists():
            return {what: str(folder / name)}
        lacking.append(f"{what}: no official {name}; this project's own are used")
        return {}

    planes, brain = (
        file(f"{name}_prompts.json", "prompts") for name in ("five_planes", "brain_subplanes")
    )
    templates = file("age_templates.json", "templates")
    paper = {"protocol": "paper"}
    fpdb = ("fetal_planes_db",)
    add_study(config, "zero_shot.planes", paper | planes, fpdb)
    add_study(config, "zero_shot.brain", paper | brain, fpdb)
    merged = {"prompts": planes.get("prompts"), "brain_prompts": brain.get("prompts")}
    add_study(config, "zero_shot.merged", paper | {k: v for k, v in merged.items() if v}, fpdb)
    add_study(config, "age", paper | templates, ("hc18",))
    if official and (folder / "splits").is_dir():
        for study in ("probe.planes", "probe.brain", "few_shot.planes", "few_shot.brain"):
            add_study(config, study, paper | {"splits": str(folder / "splits")}, fpdb)
        for study in ("segmentation.head", "few_shot_segmentation.head"):
            add_study(config, study, paper | {"splits": str(folder / "splits")}, ("hc18",))
    else:
        lacking.append(
            "probes, few-shot curves and segmentation of heads: no official splits/; they are left "
            "out"
        )
    for task in ("abdomen", "four_chamber"):
        add_study(config, f"segmentation.{task}", paper, (task,))
    add_study(config, "chd.concatenated", paper, ("clips",))
    config.lacking = tuple(lacking)
    return config.lock()
