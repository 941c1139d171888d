"""`fetalclip evaluate`, `report` and `score` on a run and on other data."""

import csv
import json

import pytest

STUDIES = (
    "zero_shot.planes",
    "zero_shot.brain",
    "age",
    "probe.planes",
    "probe.raw_pixels",
    "few_shot.planes",
)


@pytest.fixture(scope="module")
def evaluated(trained):
    """Results of the quickstart's studies beside the run."""
    from fetalclip_jax import cli

    command = ["evaluate", "--model", str(trained), "--output", str(trained / "results")]
    options = ["--resamples=50", "--batch-size=16", "--workers=0"]
    assert cli.main([*command, *options, "--study", *STUDIES]) == 0
    return trained


def test_results_say_what_was_judged(evaluated):
    folder = evaluated / "results" / "tiny" / "phantom"
    assert {path.stem for path in folder.glob("*.json")} == set(STUDIES)
    found = json.loads((folder / "zero_shot.planes.json").read_text())
    assert found["study"] == "zero_shot.planes"
    assert found["data"]["simulated"] is True
    # The run's own test patients: none that it was trained on.
    assert found["data"]["stores"]["images"]["split"] == "test"
    assert found["data"]["stores"]["images"]["images"] == 60
    estimate = found["metrics"]["macro_f1"]
    assert estimate["low"] <= estimate["value"] <= estimate["high"]
    assert found["model"]["trained_on"] == "phantom"
    assert found["model"]["parameters"] > 0
    assert found["model"]["config"]["vision_cfg"]["image_size"] > 0
    assert found["environment"]["packages"].keys() >= {"jax", "numpy"}
    with (folder / "zero_shot.planes.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == estimate["n"]
    assert {"example_id", "patient_id", "label", "prediction"} <= rows[0].keys()


def test_several_views_of_each_image_are_another_model(trained, run, tmp_path):
    command = ["evaluate", "--study", "zero_shot.planes", "--resamples=50", "--workers=0"]
    model, output = f"both={trained}", tmp_path / "results"
    printed, error, status = run(
        *command, "--model", model, "--test-time-views=2", "--output", output
    )
    assert status == 0, error
    assert "both (2 views of each image) on phantom, zero_shot.planes" in printed
    found = json.loads((output / "both" / "phantom" / "zero_shot.planes.json").read_text())
    assert found["model"]["test_time_views"] == 2
    # Of the same name as they are: not the same model.
    _, error, status = run(*command, "--model", model, "--output", output)
    assert (status, "of other weights that are called 'both' too" in error) == (2, True)
    _, error, status = run(
        *("evaluate", "--model", trained, "--study", "explanation.head", "--workers=0"),
        *("--test-time-views=4", "--output", tmp_path / "maps"),
    )
    assert (status, "explanation.head: what it reads is of one view" in error) == (2, True)
    # What cannot be measured of one model keeps no other from being judged.
    printed, error, status = run(
        *("evaluate", "--model", trained, "--study", "explanation.head", "--workers=0"),
        *("--config.keep_going=True", "--test-time-views=4", "--output", tmp_path / "none"),
    )
    assert (status, "0 results in" in printed) == (0, True), error
    printed, error, status = run(
        *("evaluate", "--model", trained, "--study", "explanation.head", "zero_shot.brain"),
        *("--config.keep_going=True", "--test-time-views=2", "--resamples=50", "--workers=0"),
        *("--output", tmp_path / "rest"),
    )
    assert status == 0, error
    assert "lacking: tiny, explanation.head: what it reads is of one view" in printed
    assert "tiny (2 views of each image) on phantom, zero_shot.brain" in printed
    _, error, status = run(*command, "--model", model, "--test-time-views=3", "--output", output)
    assert (status, "model both: test_time_views=3: use 1" in error) == (2, True)


@pytest.mark.parametrize("flag", ["--test-time-views=2", "--dtype=bfloat16"])
def test_a_flag_of_models_without_a_model_is_refused(run, tmp_path, flag):
    command = ["evaluate", "--config", "configs/eval/phantom.py", "--output", tmp_path / "out"]
    _, error, status = run(*command, flag)
    assert status == 2
    name = flag[2:].partition("=")[0].replace("-", "_")
    assert f"pass --model PATH, or --config.models.NAME.{name}=" in error


def test_the_report_gathers_a_run_under_the_names_scripts_know(evaluated, run):
    _, error, status = run("report", evaluated, "--total-seconds=12.5")
    assert status == 0, error
    results = json.loads((evaluated / "results.json").read_text())
    for key in (
        "zero_shot.planes.macro_f1",
        "zero_shot.brain.macro_f1",
        "age.valid_prediction_rate",
        "age.constant_baseline",
        "age.mae_days",
        "probe.planes.macro_f1",
        "probe.raw_pixels.macro_f1",
        "few_shot.planes.2.mean",
        "few_shot.planes.4.low",
        "few_shot.planes.4.high",
        "train.seconds",
        "total.seconds",
        "peak_rss_gib",
    ):
        value = results
        for part in key.split("."):
            value = value[part]
        assert isinstance(value, float | int), key
    assert results["total"]["seconds"] >= 12.5
    page = (evaluated / "report.html").read_text()
    assert "data:image/png;base64," in page
    assert 'src="http' not in page


def test_stored_features_are_used_again(evaluated, run, monkeypatch, tmp_path):
    from fetalclip_jax.evaluation import features

    def never(*arguments, **options):
        raise AssertionError("encoded again")

    monkeypatch.setattr(features, "encode", never)
    command = ["evaluate", "--model", evaluated, "--output", evaluated / "results"]
    printed, error, status = run(*command, "--study", "zero_shot.planes", "--resamples=50")
    assert status == 0, error
    # What is printed can be read without the files: the classes, and what to compare with.
    assert "to compare with: a uniform guess" in printed
    assert "lips_nose" in printed


def test_score_agrees_with_evaluate(evaluated, run):
    folder = evaluated / "results" / "tiny" / "phantom"
    for study, metric in (("zero_shot.planes", "macro F1"), ("age", "valid prediction rate")):
        found = json.loads((folder / f"{study}.json").read_text())["metrics"]
        value = next(iter(found.values()))["value"]
        printed, error, status = run("score", folder / f"{study}.csv", "--resamples=20")
        assert status == 0, error
        assert f"{metric} {value:.3f} [" in printed


def test_a_study_that_no_data_set_serves_is_refused(trained, run, tmp_path, hc18_folder):
    command = ["evaluate", "--model", trained, "--output", tmp_path, "--study"]
    data = ["--data", f"hc18={hc18_folder()}"]
    _, error, status = run(*command, "probe.brain", *data)
    assert status == 2
    assert "probe.brain cannot be run: hc18 knows no brain_plane" in error
    study = ["regression.hc_mm", "--config.studies.regression_hc_mm.options.plane=liver"]
    _, error, status = run(*command, *study, "--data=phantom")
    assert status == 2
    assert "none of 96 images is of plane 'liver'; give the option plane another one, or" in error
    _, error, status = run(*command, "segmentation.heed", "--data=phantom")
    assert status == 2
    assert "phantom has no outline of heed, but of " in error
    assert "; did you mean head?" in error
    _, error, status = run(*command, "zero_shot.plane")
    assert status == 2
    assert "plane" in error
    _, error, status = run(*command, "nonsense")
    assert status == 2
    assert "study 'nonsense' is unknown; there are zero_shot.merged, zero_shot.planes" in error


def test_weights_without_a_data_set_ask_for_one(run, tmp_path):
    _, error, status = run(
        "evaluate", "--model=ViT-Mi-16-96-conv", "--output", tmp_path, "--study=age"
    )
    assert status == 2
    assert "pass --data KIND=FOLDER" in error
    _, error, status = run("evaluate", "--output", tmp_path, "--study=age")
    assert status == 2
    assert "no model to evaluate: pass --model" in error


def test_prompts_of_another_shape_are_refused(trained, run, tmp_path):
    prompts = tmp_path / "prompts.json"
    prompts.write_text('{"brain": "one string"}')
    command = ["evaluate", "--model", trained, "--output", tmp_path, "--study=zero_shot.planes"]
    _, error, status = run(*command, "--prompts", prompts)
    assert status == 2
    assert "prompts.json" in error


def test_images_that_cannot_be_read_are_said_and_read_again_once_mended(
    trained, run, tmp_path, hc18_folder
):
    root = hc18_folder()
    broken = root / "training_set" / "003_HC.png"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:60])
    command = ["evaluate", "--model", trained, "--data", f"hc18={root}", "--study=age"]
    command += ["--output", tmp_path / "results", "--protocol=paper", "--resamples=20"]
    printed, error, status = run(*command)
    assert status == 0, error
    assert "hc18 all: 1 of 20 images cannot be read and are left out, first 003_HC" in printed
    result = json.loads((tmp_path / "results" / "tiny" / "hc18" / "age.json").read_text())
    assert list(result["data"]["left_out"]) == ["003_HC.png"]
    assert result["metrics"]["valid_prediction_rate"]["n"] == 19
    # Said again where the features of last time are used.
    printed, error, status = run(*command)
    assert status == 0, error
    assert "1 of 20 images cannot be read" in printed
    broken.write_bytes(whole)
    printed, error, status = run(*command)
    assert status == 0, error
    assert "left out" not in printed


def test_the_papers_matrix_says_what_it_lacks(trained, run, tmp_path, hc18_folder):
    command = ["evaluate", "--config=configs/eval/paper.py", "--output", tmp_path]
    options = [f"--config.data.hc18.root={hc18_folder()}", "--model", trained]
    # A mistaken folder costs its own tables alone.
    options += ["--data", "fetal_planes_db=nowhere", "--config.studies.age.options.resamples=20"]
    printed, error, status = run(*command, *options)
    assert status == 0, error
    assert "zero_shot.planes: not on fetal_planes_db cannot be opened" in printed
    assert "clips: no folder given (--data clips=FOLDER); not measured: chd.concatenated" in printed
    assert "abdomen: no folder given" in printed
    assert "not measured: \n" not in printed
    assert "age valid_prediction_rate on HC18 training set, 999 images: FetalCLIP 0.834" in printed
    result = json.loads((tmp_path / "tiny" / "hc18" / "age.json").read_text())
    assert result["protocol"]["name"] == "paper"
    assert result["protocol"]["resample_by"] == "image"
    assert result["protocol"]["resamples"] == 20
    assert result["data"]["stores"]["images"]["split"] == "all"


def test_studies_of_a_file_are_chosen_and_changed_by_flags(trained, run, tmp_path, hc18_folder):
    command = ["evaluate", "--config=configs/eval/paper.py", "--output", tmp_path]
    command += ["--study", "age", "--resample-by=patient", "--resamples=20", "--model", trained]
    printed, error, status = run(*command, "--data", f"hc18={hc18_folder()}")
    assert status == 0, error
    assert "1 results" in printed
    # What no chosen study waits for is not lacking.
    assert "no folder given" not in printed
    result = json.loads((tmp_path / "tiny" / "hc18" / "age.json").read_text())
    assert (result["protocol"]["name"], result["protocol"]["resample_by"]) == ("paper", "patient")
    _, error, status = run(*command, "--copies=3")
    assert status == 2
    assert "--copies is read by none of the studies: age" in error
    _, error, status = run(
        "evaluate", "--config=configs/eval/paper.py:nowhere", "--output", tmp_path
    )
    assert status == 2
    assert "nowhere is no folder; give that of the official data files" in error


def test_results_of_other_weights_are_not_mixed(evaluated, run, tmp_path):
    command = ["evaluate", "--model", "tiny=ViT-Mi-16-96-conv", "--data=phantom"]
    command += ["--output", evaluated / "results", "--study=zero_shot.planes", "--resamples=20"]
    _, error, status = run(*command)
    assert status == 2
    assert "is a result of other weights that are called 'tiny' too" in error


def test_data_checks_retrieval_and_other_heads_run_and_are_reported(trained, run, tmp_path):
    studies = ("retrieval", "near_duplicates", "mislabels.planes", "knn.planes",
               "nearest_centroid.brain", "regression.hc_mm")  # fmt: skip
    command = ["evaluate", "--model", trained, "--output", tmp_path, "--resamples=20"]
    printed, error, status = run(*command, "--workers=0", "--study", *studies)
    assert status == 0, error
    folder = tmp_path / "tiny" / "phantom"
    assert {path.stem for path in folder.glob("*.json")} == set(studies)
    assert "to compare with: a list in random order" in printed
    checked = json.loads((folder / "near_duplicates.json").read_text())
    # Both splits are searched, and features that probes encoded serve.
    assert checked["details"]["images"] == {"fit": 96, "test": 60}
    assert len(list((tmp_path / "tiny" / "features").iterdir())) == 2
    _, error, status = run("report", tmp_path, "--output", tmp_path / "page.html")
    assert status == 0, error
    page = (tmp_path / "page.html").read_text()
    for heading in ("Retrieval", "Supervised regression", "Near-duplicates and doubtful labels"):
        assert f">{heading}</h2>" in page
    assert "cannot be calibrated" not in page


def test_captions_of_a_folder_are_searched(trained, run, tmp_path):
    import numpy as np
    from PIL import Image

    folder = tmp_path / "images"
    folder.mkdir()
    rows = [("image", "caption"), ("a.png", "A fetal heart."), ("b.png", "a fetal  HEART."),
            ("c.png", "A femur, 20 weeks.")]  # fmt: skip
    for name, _ in rows[1:]:
        pixels = np.random.default_rng(list(name.encode())).integers(0, 255, (40, 40), np.uint8)
        Image.fromarray(pixels).save(folder / name)
    with (folder / "captions.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    command = ["evaluate", "--model", trained, "--data", f"mine:image_text={folder}", "--output"]
    command += [tmp_path / "results", "--protocol=paper", "--study", "retrieval"]
    _, error, status = run(*command, "--resamples=20")
    assert status == 0, error
    found = json.loads((tmp_path / "results/tiny/mine/retrieval.json").read_text())
    assert found["details"]["captions_of_the_data"] == 3
    assert found["details"]["meanings"] == 2
    # A store that an earlier version filled without captions is of another name.
    (store,) = (tmp_path / "results/tiny/features").iterdir()
    assert json.loads((store / "meta.json").read_text())["fingerprint"]["captions"] is True
