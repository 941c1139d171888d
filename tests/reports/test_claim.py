"""CLAIM 2024: what was recorded is told, and nothing else is."""

import dataclasses
import json

import numpy as np
import pytest

from fetalclip_jax import reports
from fetalclip_jax.evaluation import scoring
from fetalclip_jax.labels import PLANES, SIX_PLANES
from fetalclip_jax.reports import claim
from fetalclip_jax.reports.frame import Report
from fetalclip_jax.reports.reading import read
from tests.reports.conftest import (
    DATA,
    MODEL,
    PROTOCOL,
    REAL,
    STORE,
    ZERO_SHOT_LABELS,
    age_result,
    classification,
    few_shot_result,
    save,
)
from tests.reports.pages import Page

ENVIRONMENT = {
    "date": "2026-03-01",
    "python": "3.11.9",
    "packages": {"fetalclip_jax": "0.1.0", "jax": "0.10.2"},
    "commit": "0123456789abcdef+",
    "devices": {"NVIDIA H100": 2},
    "processor": "AMD EPYC",
    "cores": 16,
    "memory_gib": 128.0,
}
CONFIG = {
    "embed_dim": 192,
    "vision_cfg": {"layers": 2, "width": 128, "patch_size": 16, "image_size": 96},
    "text_cfg": {"layers": 3, "width": 64, "context_length": 44},
}


def planes(**fields):
    return classification("zero_shot.planes", PLANES, ZERO_SHOT_LABELS, **fields)


@pytest.fixture
def answers(tmp_path):
    """Item number -> sentences, and what is left to the authors, of results and a run."""

    def of(*results, workdir=None):
        folder = (workdir or tmp_path) / "results"
        save(results, folder)
        report = Report(read([workdir or folder]), tmp_path / "figures")
        page = Page(claim.section(report))
        told = {row[0].partition(".")[0]: row[1] for row in page.rows[1:]}
        return told, page.text.partition("For the authors to say")[2]

    return of


def test_there_are_44_items_in_order():
    assert [item.number for item in claim.ITEMS] == list(range(1, 45))


def test_data_partitions_and_reference_standard(answers):
    stores = {"fit": STORE | {"split": "pool", "copies": 5}, "test": STORE}
    data = REAL | {"citation": "Doe 2020", "licence": "CC BY 4.0", "stores": stores}
    bad = {"x": "truncated", "y": "truncated"}
    told, _ = answers(
        classification("probe.planes", SIX_PLANES, data=data | {"left_out": bad}),
        age_result(data=data | {"ages_from": "head circumference"}),
    )
    assert told["7"] == "clinic: Doe 2020; licence CC BY 4.0; real images."
    assert "antialiased bicubic" in told["9"]
    assert "5 augmented copies of each image of split 'pool'" in told["9"]
    assert "2 images of those used could not be read" in told["12"]
    assert "the WHO median at the measured circumference" in told["14"]
    assert "clinic, fitted on: 400 images of 67 patients in split 'pool'" in told["19"]
    assert told["19"].count("clinic, judged: 400 images of 67 patients in split 'test'") == 1
    assert "the patient. Splits, folds and support sets" in told["20"]
    assert "120 of 120 judged images have one" in told["20"]
    assert "120 images of 20 patients judged; left out: truncated (x, ...) (2)" in told["35"]
    assert "abdomen 20, brain 20" in told["36"]
    assert "head circumference" in told["36"]


def test_machines_of_the_judged_images_are_counted(answers):
    result = planes()
    machines = np.array(["Voluson E6"] * 100 + ["Aloka"] * 15 + [""] * 5)
    predictions = dataclasses.replace(result.predictions, groups={"machine": machines})
    told, authors = answers(dataclasses.replace(result, predictions=predictions))
    assert told["13"] == (
        "phantom, images of Zero-shot planes by machine: Voluson E6 100, Aloka 15, unknown 5."
    )
    assert "13. probes and settings" in authors


def test_simulated_images_are_no_evidence(answers):
    told, _ = answers(planes())
    assert "simulated images, no evidence about patients" in told["7"]


def test_model_software_and_hardware_of_the_evaluation(answers):
    model = MODEL | {"parameters": 1_423_473, "config": CONFIG, "trained_on": "phantom"}
    told, _ = answers(planes(model=model, environment=ENVIRONMENT), age_result(model=model))
    assert "1,423,473 parameters; vision transformer of 2 blocks, width 128" in told["22"]
    assert "to 96 pixels" in told["9"]
    assert "python 3.11.9, fetalclip_jax 0.1.0, jax 0.10.2, commit 0123456789ab with" in told["23"]
    assert "2 x NVIDIA H100, AMD EPYC, 16 cores, 128 GiB (2026-03-01)" in told["23"]
    assert "1 of the results do not record it" in told["23"]


def test_internal_and_external_data_by_what_the_model_was_trained_on(answers):
    model = MODEL | {"trained_on": "phantom"}
    unknown = {"name": "weights", "fingerprint": "beef"}
    told, _ = answers(planes(model=model), planes(model=model, data=REAL), planes(model=unknown))
    assert told["32"] == "quickstart: phantom, the kind of data it was trained on, split 'test'."
    assert told["33"] == (
        "quickstart: clinic, other data than it was trained on (phantom)."
        "weights: what it was trained on is not recorded."
    )


def test_training_of_a_run_that_is_a_source(answers, workdir):
    config = json.loads((workdir / "config.json").read_text())
    config |= {"seed": 7, "init_from": "", "optimizer": {"learning_rate": 0.001}}
    config["train"]["keep_best"] = "val_loss"
    (workdir / "config.json").write_text(json.dumps(config))
    told, _ = answers(planes(), workdir=workdir)
    assert told["24"] == "quickstart: random, seed 7."
    for words in ("steps 1200", "global batch 64", "learning rate 0.001", "seed 7"):
        assert words in told["25"]
    assert "the lowest val_loss is kept too" in told["26"]
    # The results lie in the run, which says what it was trained on.
    assert told["32"].startswith("quickstart: phantom")


def test_what_a_run_adapted_of_its_origin_is_told(answers, workdir):
    config = json.loads((workdir / "config.json").read_text())
    config |= {"init_from": "FetalCLIP_weights.pt"}
    config["lora"] = {"targets": ["visual/.*/query", "text/.*"], "rank": 4, "alpha": 8.0}
    (workdir / "config.json").write_text(json.dumps(config))
    told, _ = answers(planes(), workdir=workdir)
    assert told["24"] == (
        "quickstart: parameters and tokenizer of FetalCLIP_weights.pt; trained is LoRA of rank 4 "
        "and alpha 8 at visual/.*/query, text/.*."
    )


def test_what_nobody_recorded_is_for_the_authors_and_not_invented(answers):
    bare = dataclasses.replace(planes(), data={"name": "d"}, predictions=None, details={})
    told, authors = answers(bare)
    for number in ("5", "11", "18", "23", "24", "25", "33", "44"):
        assert number not in told
        assert f"{number}. " in authors
    assert "citation not recorded" in told["7"]
    assert not {"8", "9", "12", "14", "19", "20", "22", "32", "36"} & told.keys()
    # Of what is told in part, the rest is the authors'.
    assert "21. whether and how a size was calculated before" in authors


def test_statistics_and_failures_refer_to_what_is_on_the_page(evaluated):
    text = Page(reports.build([evaluated], evaluated / "report.html").read_text()).text
    failures = text[text.index("39. Analysis of failures") :]
    assert failures.startswith("39. Analysis of failuresSection Worst confident mistakes.")
    assert "No hypothesis is tested on this page." in text
    statistics = text[text.index("29. Uncertainty") :]
    assert "bootstrap over patients in 1,000 resamples" in statistics[:300]


def test_training_alone_has_no_checklist(workdir):
    text = reports.build([workdir], workdir / "report.html").read_text()
    assert "CLAIM 2024" not in text


def test_simulated_and_real_data_of_one_report_are_both_named(answers):
    told, _ = answers(planes(), planes(data=REAL))
    assert told["7"].count("licence not recorded") == 2
    assert DATA["name"] in told["7"]
    assert REAL["name"] in told["7"]


def test_of_a_file_that_was_scored_nothing_is_made_up(tmp_path):
    rows = [{"label": "a", "prediction": "a"}, {"label": "b", "prediction": "a"}] * 3
    (tmp_path / "predictions.json").write_text(json.dumps(rows))
    scoring.score(tmp_path / "predictions.json", resamples=20).save(tmp_path / "scored")
    report = Report(read([tmp_path / "scored"]), tmp_path / "figures")
    page = Page(claim.section(report))
    told = {row[0].partition(".")[0]: row[1] for row in page.rows[1:]}
    # Nobody knows the model, nor whence images and labels came and what was left out of them.
    assert not {"7", "8", "9", "12", "14", "19", "20", "22", "32", "33", "42"} & told.keys()
    assert "variance of 20 bootstrap resamples of patients, seed 0" in told["29"]
    assert "Evaluation: python" in told["23"]


@pytest.mark.parametrize("config", ["ViT", ["a"], {"vision_cfg": 5}, {"vision_cfg": {"layers": 2}}])
def test_a_configuration_of_another_shape_is_told_as_far_as_it_goes(answers, config):
    told, _ = answers(planes(model=MODEL | {"parameters": "12", "config": config}))
    expected = "quickstart: contrastive image and text towers, 12 parameters"
    if isinstance(config, dict) and isinstance(config["vision_cfg"], dict):
        expected += "; vision transformer of 2 blocks"
    assert told["22"] == f"{expected}; fingerprint f00d."


def test_how_a_probe_was_chosen_follows_its_solver_and_its_splits(answers):
    logistic = PROTOCOL | {"name": "tuned", "solver": "logistic", "penalties": [0.1, 0.01]}
    adamw = PROTOCOL | {"name": "paper", "solver": "adamw", "learning_rates": [1e-3, 1e-4]}
    probe = classification("probe.planes", SIX_PLANES, protocol=logistic)
    probe.details["folds"] = 5
    other = dataclasses.replace(probe, study="probe.brain", protocol=adamw)
    official = few_shot_result(protocol=adamw | {"splits": "official"})
    told, _ = answers(
        probe,
        other,
        few_shot_result(protocol=logistic),
        dataclasses.replace(official, study="few_shot.brain"),
    )
    assert told["26"] == (
        "Linear probe, six planes: penalty, one of 2, chosen by the loss in 5-fold "
        "cross-validation by patient, over the patients that the probe is then fitted on."
        "Linear probe, brain planes: epoch and learning rate of each probe chosen by the loss on "
        "the held-out one of 5 folds by patient."
        "Few-shot planes: penalty, one of 2, chosen by the loss on the validation patients of each "
        "support set, as many others as it learns from."
        "Few-shot brain planes: epoch and learning rate of each probe chosen by the loss on the "
        "validation patients of each support set."
    )


def test_intervals_are_described_with_their_seed_and_scale(answers):
    told, _ = answers(planes(environment=ENVIRONMENT), age_result(protocol=PROTOCOL | {"seed": 7}))
    assert "Zero-shot planes: 95 % interval: Student's t, variance of 1,000" in told["29"]
    assert "bootstrap resamples of patients, seed 0." in told["29"]
    assert "on the logit scale for rates and scores, on the logarithm for errors" in told["29"]
    assert "bootstrap over patients in 1,000 resamples, seed 7." in told["29"]
