"""Segmentation studies, with decoders that draw what a test says."""

import dataclasses
import json
import types

import numpy as np
import pytest

from fetalclip_jax.data.columns import NUMBER_COLUMNS, TEXT_COLUMNS
from fetalclip_jax.evaluation import result as results
from fetalclip_jax.evaluation import studies
from fetalclip_jax.evaluation.features.pixels import PixelStore
from fetalclip_jax.evaluation.features.tokens import TokenStore
from fetalclip_jax.evaluation.heads import unetr
from fetalclip_jax.models.unetr import UNETRDecoder

SIZE = 32
MODEL = types.SimpleNamespace(fingerprint="m", encode_patches=None)


def ellipse(centre, radii):
    y, x = np.mgrid[:SIZE, :SIZE]
    return ((x - centre) / radii[0]) ** 2 + ((y - centre) / radii[1]) ** 2 <= 1


def make_store(ids, patients=None, structures=("head",), copies=0, spacing_mm=3.0, seed=0):
    """Ellipses of several sizes, the structures inside one another."""
    rng, count = np.random.default_rng(seed), len(ids)
    sizes = rng.uniform(7, 12, count)
    masks = np.stack(
        [
            [ellipse(15.5, (size / (k + 1), 0.8 * size / (k + 1))) for k in range(len(structures))]
            for size in sizes
        ]
    )
    columns = {name: np.full(count, "") for name in TEXT_COLUMNS}
    columns |= {name: np.full(count, np.nan) for name in NUMBER_COLUMNS}
    columns["example_id"] = np.array(ids)
    columns["patient_id"] = np.array(ids if patients is None else patients)
    columns["resized_spacing_mm"] = np.full(count, spacing_mm)
    columns["hc_mm"] = spacing_mm * 2 * np.pi * 0.9 * sizes
    of = np.repeat(np.arange(count), copies + 1)
    images = PixelStore(
        pixels=np.where(masks[:, 0], 200, 50).astype(np.uint8)[of, ..., None].repeat(3, -1),
        masks=masks[of],
        structures=tuple(structures),
        columns={name: values[of] for name, values in columns.items()},
        copy=np.tile(np.arange(copies + 1, dtype=np.int32), count),
        fingerprint={"model": "m", "image_size": SIZE},
    )
    return TokenStore.of(images, np.zeros((len(of), 4, 2, 2, 3), np.float16), (1, 1, 1, 2))


class Drawing(unetr.Decoders):
    """Stands for trained decoders: run r draws the truth moved by r pixels to the right."""

    def __init__(self, numbers):
        runs = np.ones(len(numbers), int)
        super().__init__(UNETRDecoder(1), {}, 0.5 * runs, runs, 8)
        object.__setattr__(self, "numbers", list(numbers))

    def __len__(self):
        return len(self.numbers)

    def select(self, runs):
        return Drawing(self.numbers[runs])

    def probabilities(self, data, rows, *, progress=False):
        for part in np.array_split(rows, max(1, len(rows) // 3)):
            true = data.batch(part).masks.astype(np.float32)
            yield part, np.stack([0.9 * np.roll(true, run, 2) for run in self.numbers])


@pytest.fixture
def trained(monkeypatch):
    """What decoders were asked to learn; they draw as `Drawing` does."""
    calls = []

    def fit(data, train_rows, validation_rows, *, classes, config, seeds, progress):
        calls.append(types.SimpleNamespace(
            data=data, train=train_rows, validation=validation_rows, classes=classes,
            config=config, seeds=seeds,
        ))  # fmt: skip
        return Drawing([*range(len(train_rows))])

    monkeypatch.setattr(unetr, "fit", fit)
    return calls


def names(prefix, count):
    return [f"{prefix}{i}" for i in range(count)]


def run(name="segmentation.head", fit=None, test=None, **options):
    study = studies.create(name, resamples=60, progress=False, **options)
    fit = make_store(names("a", 20)) if fit is None else fit
    test = make_store(names("b", 9), seed=1) if test is None else test
    return study.run({"fit": fit, "test": test}, MODEL)


def check_measured_again(result, tmp_path):
    """The files hold all that the metrics are functions of."""
    filled = dataclasses.replace(result, environment={"made": "here"}, data={"name": "d"})
    kept = results.load(filled.save(tmp_path))
    studies.check_predictions(kept)
    again = studies.measures(kept)
    assert list(again) == list(result.metrics)


def test_needs_say_which_images_and_outlines():
    fit, test = studies.create("segmentation.abdomen", copies=2).needs
    assert (fit.role, test.role, fit.copies, test.copies) == ("fit", "test", 2, 0)
    assert fit.masks == ("abdomen", "stomach", "spine")
    assert fit.only == {"plane": ("abdomen",)}
    assert fit.how == {"taps": "code", "tokens": "auto"}
    any_of, _ = studies.create("segmentation.femur").needs
    assert (any_of.masks, dict(any_of.only)) == (("femur",), {})
    listed = studies.create("few_shot_segmentation.head", splits="lists").needs
    assert [need.role for need in listed] == ["all", "all"]
    alone, _ = studies.create("segmentation.head", inputs="image").needs
    assert alone.how["tokens"] == "recomputed"


def test_published_protocols():
    one = studies.create("segmentation.head", protocol="paper").settings
    few = studies.create("few_shot_segmentation.head", protocol="paper").settings
    for each in (one, few):
        found = each.decoder()
        assert (found.learning_rate, found.weight_decay, found.schedule) == (3e-4, 0.01, "constant")
        assert (found.batch_size, found.epochs, found.steps_per_epoch) == (8, 100, None)
        assert (each.runs, each.resample_by, each.transform) == (5, "image", "opencv")
    assert (one.folds, one.folds_run) == (5, 5)
    assert (few.sizes, few.support_sets, few.copies) == ((1, 2, 4, 8, 16, 32), 5, 10)


def test_folds_by_patient_are_learned_and_others_tested(trained, tmp_path):
    fit = make_store(names("a", 20), [f"p{i // 2}" for i in range(20)], copies=2)
    result = run(fit=fit, copies=2, folds_run=2, runs=2)
    (call,) = trained
    assert len(call.train) == 4  # two folds, twice
    for train, validation in zip(call.train, call.validation, strict=True):
        assert set(fit.copy[train]) == {1, 2}
        assert set(fit.copy[validation]) == {0}
        owners = fit.patients()
        assert len(set(owners[train])) == 8
        assert len(set(owners[validation])) == 2
        assert not set(owners[train]) & set(owners[validation])
    assert len(set(call.seeds.tolist())) == 4
    metrics = result.metrics
    assert list(metrics)[:3] == ["dice", "image_dice", "hausdorff95_mm"]
    assert (metrics["dice"].n, metrics["dice"].groups) == (9, 9)
    # Runs move the truth by 0, 1, 2 and 3 pixels.
    true = make_store(names("b", 9), seed=1).images.mask("head")
    moved = [np.roll(true, r, 2) for r in range(4)]
    expected = np.mean([2 * (one & true).sum() / (one.sum() + true.sum()) for one in moved])
    assert metrics["dice"].value == pytest.approx(expected)
    assert metrics["dice"].low < expected < metrics["dice"].high
    assert result.details["run_values"]["dice"][0] == 1
    assert result.details["train_images"] == 32
    check_measured_again(result, tmp_path)


def test_the_chance_of_training_is_in_the_interval(trained):
    both, one = run(runs=4), run(runs=1)
    assert one.details["run_values"] == {}
    width = both.metrics["dice"].high - both.metrics["dice"].low
    values = both.details["run_values"]["dice"]
    assert width > 2 * np.std(values, ddof=1) / 2  # of the mean of four


def test_heads_are_measured_and_compared_with_constants(trained, tmp_path):
    result = run()
    # The perfect decoder's circumference is that of the annotation.
    baseline = result.details["annotation_hc_error"]["mae_mm"]
    assert f"are {baseline:.1f} mm off" in result.details["notes"][0]
    assert result.metrics["hc_mae_mm"].value == pytest.approx(baseline, abs=0.1)
    assert baseline < 3.0  # one pixel
    assert result.baselines["constant_hc_mae_mm"].estimate.value > 5 * baseline
    low, high = (result.metrics[f"hc_{name}_limit_mm"].value for name in ("lower", "upper"))
    assert low < result.metrics["hc_bias_mm"].value < high
    dice = result.baselines["constant_mask_dice"].estimate.value
    assert 0.6 < dice < result.metrics["dice"].value == 1
    assert {"head_dice", "hc_mm", "hc_mm_of_ellipse"} <= set(result.predictions.extra)
    assert result.predictions.label.tolist() == ["head"] * 9
    (picture,) = result.pictures
    assert picture.image.dtype == np.uint8
    assert "Dice 1.000" in picture.caption


def test_each_structure_of_several_has_its_metrics(trained, tmp_path):
    structures = ("abdomen", "stomach", "spine")
    result = run(
        "segmentation.abdomen",
        make_store(names("a", 10), structures=structures),
        make_store(names("b", 6), structures=structures, seed=1),
        runs=2,
    )
    assert trained[0].classes == 3
    for name in structures:
        for metric in ("dice", "image_dice", "hausdorff95_mm"):
            assert f"{metric}_{name}" in result.metrics
    mean = np.mean([result.metrics[f"dice_{name}"].value for name in structures])
    assert result.metrics["dice"].value == pytest.approx(mean)
    assert not any(name.startswith("hc_") for name in result.metrics)
    check_measured_again(result, tmp_path)


def test_the_image_alone_reads_no_tokens(trained):
    fit = make_store(names("a", 20))
    run(fit=dataclasses.replace(fit, tokens=None), inputs="image")
    batch = trained[0].data.batch(np.array([2, 5]))
    assert not batch.tokens.any()
    np.testing.assert_array_equal(batch.pixels, fit.pixels(np.array([2, 5])))


def test_images_with_empty_masks_are_tested_and_not_learned_from(trained, tmp_path):
    fit, test = make_store(names("a", 20)), make_store(names("b", 9), seed=1)
    fit.images.masks[3], test.images.masks[[2, 4]] = False, False
    result = run(fit=fit, test=test)
    assert result.details["left_out"] == {"training images with empty masks": 1}
    metrics = result.metrics
    assert [metrics[name].n for name in ("dice", "image_dice", "hausdorff95_mm")] == [9, 7, 7]
    assert (
        "2 of the 9 test images show no head: what is drawn there lowers the Dice"
        in (result.details["notes"])
    )
    (picture,) = result.pictures  # nothing is drawn in these two: they are no worst ones
    assert "0.000" not in picture.caption
    # One mask for all images draws heads in these two as well.
    constant = result.baselines["constant_mask_image_dice"].estimate
    assert constant.n == 9
    others = run(fit=fit, test=test.select(~np.isin(np.arange(9), [2, 4]))).baselines
    for name, share in (("constant_mask_image_dice", 7 / 9), ("constant_mask_dice", None)):
        alone, found = others[name].estimate.value, result.baselines[name].estimate.value
        assert found == pytest.approx(share * alone) if share else found < alone - 0.05
    check_measured_again(result, tmp_path)


@pytest.mark.parametrize("study", ["segmentation", "few_shot_segmentation"])
def test_a_structure_that_no_test_image_shows_is_refused_before_training(trained, study):
    structures = ("abdomen", "stomach", "spine")
    stores = [make_store(names(one, 20), structures=structures) for one in "ab"]
    stores[1].images.masks[:, 1:] = False
    message = "no image to test shows stomach, spine: all masks are empty; choose a study of the"
    with pytest.raises(ValueError, match=message):
        run(f"{study}.abdomen", *stores)
    assert not trained


def test_images_without_an_outline_are_counted(trained, write):
    def lacking(store, count):
        images = dataclasses.replace(store.images, without_outline={"head": count})
        return dataclasses.replace(store, images=images)

    fit, test = make_store(names("a", 20)), make_store(names("b", 9), seed=1)
    result = run(fit=lacking(fit, 7), test=lacking(test, 2))
    assert result.details["left_out"] == {
        "training images with no outline of head": 7, "test images with no outline of head": 2,
    }  # fmt: skip
    both = lacking(hc18(), 4)
    listed = run(fit=both, test=both, splits=write("probing", FOLDS, ["5"]))
    assert listed.details["left_out"] == {"no outline of head": 4}


def test_a_fold_without_a_structure_is_refused(trained):
    structures = ("abdomen", "stomach")
    fit = make_store(names("a", 20), structures=structures)
    fit.images.masks[1:, 1] = False
    message = "fold 0: no (training|validation) image shows stomach; choose fewer folds or another"
    with pytest.raises(ValueError, match=message):
        run("segmentation.abdomen", fit, make_store(names("b", 6), structures=structures))


def test_stores_that_do_not_go_together_are_refused(trained):
    with pytest.raises(ValueError, match="1 patients are in the images to learn from and in the"):
        run(test=make_store(["b1", "a3"]))
    with pytest.raises(ValueError, match="encoded by model 'm', not by 'other'"):
        studies.create("segmentation.head").run(
            {"fit": make_store(["a"]), "test": make_store(["b"])},
            types.SimpleNamespace(fingerprint="other"),
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "raw"}, "variant='raw' is not one of clean, official"),
        ({"taps": "figure"}, "taps='figure' is not one of code, paper"),
        ({"inputs": "pixels"}, "inputs='pixels' is not one of tokens, image"),
        ({"tokens": "memory"}, "tokens='memory' is not one of auto, stored, recomputed"),
        ({"folds": 1}, "folds=1 must be at least 2"),
        ({"epochs": 0}, "segmentation.head: epochs=0 must be at least 1"),
        ({"copies": -1}, "copies=-1 and steps_per_epoch=25 must be at least 0"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        studies.create("segmentation.head", **options)


@pytest.fixture
def write(tmp_path):
    def write(kind, lists, tested):
        folder = tmp_path / kind / "segmentation_hc"
        folder.mkdir(parents=True)
        (folder / "train_val_split.json").write_text(json.dumps(lists))
        (folder / "test_id.json").write_text(json.dumps({one: "test" for one in tested}))
        return str(tmp_path)

    return write


# Numbers 0 to 11, of which 3 has a second image.
HC18 = [*(f"{i:03d}_HC" for i in range(12)), "003_2HC"]


def hc18(**options):
    return make_store(HC18, [one[:3] for one in HC18], **options)


FOLDS = {"0": [["000", "001", "003"], ["004"]], "1": [["004", "001"], ["000", "777"]]}


def test_official_lists_choose_images_and_say_what_is_amiss(trained, write, tmp_path):
    root = write("probing", FOLDS, ["5", "6", "3", "8", "888"])
    store = hc18()
    result = run(fit=store, test=store, splits=root, folds_run=5)
    shown = store.columns["example_id"]
    assert [shown[rows].tolist() for rows in trained[0].train] == [
        ["000_HC", "001_HC", "003_HC"], ["001_HC", "004_HC"],
    ]  # fmt: skip
    assert shown[trained[0].validation[1]].tolist() == ["000_HC"]
    assert result.predictions.example_id.tolist() == ["005_HC", "006_HC", "008_HC"]
    assert "1 of the 5 test images are learned from too" in result.details["notes"][0]
    assert "not tested" in result.details["notes"][0]
    lacking = "images listed to {} that the data lacks, such as {}"
    assert result.details["lacking"][lacking.format("learn from", "'777'")] == 1
    assert result.details["lacking"][lacking.format("test", "'888'")] == 1
    assert result.details["unlisted"] == {"images that no list names": 6}
    assert result.details["sizes_count"] == "images"
    assert result.protocol["variant"] == "clean"

    official = run(fit=store, test=store, splits=root, variant="official")
    assert official.predictions.example_id.tolist() == ["003_HC", "005_HC", "006_HC", "008_HC"]
    assert "tested all the same" in official.details["notes"][0]


@pytest.mark.parametrize("patients", [[one[:3] for one in HC18], [f"P{one[:3]}" for one in HC18]])
def test_another_image_of_a_patient_that_is_learned_from_is_refused_unless_official(
    trained, write, patients
):
    root = write("probing", FOLDS, ["5", "003_2HC"])
    store = make_store(HC18, patients)
    what = (
        "1 images to test show patients that other listed images are learned from, such as "
        f"'003_2HC' of patient {patients[-1]!r}"
    )
    with pytest.raises(ValueError, match=f"{what}: a decoder would be tested on patients it"):
        run(fit=store, test=store, splits=root)
    assert not trained
    official = run(fit=store, test=store, splits=root, variant="official")
    assert official.predictions.example_id.tolist() == ["005_HC", "003_2HC"]
    assert f"{what}; they are tested all the same (variant 'official')" in official.details["notes"]
    # Of images whose patients are not known nothing of the kind can be said.
    unknown = make_store(HC18, [""] * len(HC18))
    assert len(run(fit=unknown, test=unknown, splits=root).predictions.example_id) == 2


def test_lists_of_another_data_set_are_refused(trained, write):
    root = write("probing", FOLDS, ["5"])
    other = make_store(names("x", 5))
    with pytest.raises(ValueError, match="the data has no image of any of its 5 ids, such as '0'"):
        run(fit=other, test=other, splits=root)
    part = make_store(["000_HC", "001_HC", "004_HC"])
    with pytest.raises(ValueError, match=r"test_id.json: none of its 1 ids .*, such as '5'"):
        run(fit=part, test=part, splits=root)


def few(**options):
    fit = options.pop("fit", make_store(names("a", 20), copies=1))
    return run("few_shot_segmentation.head", fit, copies=1, **options)


def test_a_curve_has_a_point_for_every_size(trained, tmp_path):
    result = few(sizes=(1, 4, 8), support_sets=3, runs=2)
    (call,) = trained
    assert [len(rows) for rows in call.train] == [1] * 6 + [4] * 6 + [8] * 6
    assert [len(rows) for rows in call.validation] == [1] * 6 + [4] * 6 + [8] * 6
    assert [point["patients"] for point in result.curve] == [1, 4, 8]
    last = result.curve[-1]
    assert last["mean"] == result.metrics["dice"].value
    assert (last["low"], last["high"]) == pytest.approx(
        (result.metrics["dice"].low, result.metrics["dice"].high)
    )
    assert last["mean"] == pytest.approx(np.mean(last["runs"]))
    assert (last["support_sets"], last["pool_patients"], last["train_images"]) == (3, 20, 8)
    # Runs of larger sizes are moved farther here.
    assert result.curve[0]["mean"] > last["mean"]
    assert set(result.predictions.runs) == {"1", "4", "8"}
    check_measured_again(result, tmp_path)


def test_decoders_of_a_size_do_not_depend_on_the_other_sizes(trained):
    few(sizes=(1, 2), support_sets=2, runs=2)
    few(sizes=(1, 2, 4), support_sets=2, runs=2)
    fewer, more = trained
    np.testing.assert_array_equal(fewer.seeds, more.seeds[:8])
    assert len(set(fewer.seeds[:4].tolist())) == 4
    for ours, theirs in zip(fewer.train, more.train[:8], strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_one_support_set_has_no_interval(trained):
    result = few(sizes=(2,), support_sets=1)
    assert result.curve[0]["low"] is None
    assert result.metrics["image_dice"].low is None


def test_fewer_patients_than_shots(trained):
    result = few(sizes=(4, 32), support_sets=2)
    assert [point["patients"] for point in result.curve] == [4]
    reason = "support sets of 32 patients and as many to validate on, more than the 20 there are"
    assert result.details["lacking"][reason] == 2
    with pytest.raises(ValueError, match=r"sizes=\[32\]: 20 patients can be learned from"):
        few(sizes=(32,))


def test_support_sets_that_show_no_mask_of_a_structure_are_counted(trained):
    structures = ("abdomen", "stomach")
    fit = make_store(names("a", 20), structures=structures)
    fit.images.masks[:, 1] = False
    result = run(
        "few_shot_segmentation.abdomen", fit, make_store(names("b", 6), structures=structures),
        copies=0, sizes=(2,), support_sets=2,
    )  # fmt: skip
    reason = "support sets of 2 patients of which no training image shows stomach"
    assert result.details["lacking"][reason] == 2


SETS = {
    "1": [[["000"], ["001"]], [["003"], ["004"]]],
    "2": [[["000", "777"], ["001", "003"]], [["000", "001"], ["004", "003"]]],
}


def test_listed_support_sets_are_those_that_are_learned(trained, write):
    root = write("few_data_training", SETS, ["5", "6", "7", "0"])
    store = hc18(copies=1)
    result = few(fit=store, test=store, splits=root, sizes=(1, 2), support_sets=9)
    shown = store.columns["example_id"]
    assert [shown[rows].tolist() for rows in trained[0].train[:2]] == [["000_HC"], ["003_HC"]]
    # One of the sets of two lacks an image: as many are drawn among the four listed and there.
    drawn = [shown[rows].tolist() for rows in (*trained[0].train[2:], *trained[0].validation[2:])]
    assert len(trained[0].train) == 4
    assert {one for rows in drawn for one in rows} <= {"000_HC", "001_HC", "003_HC", "004_HC"}
    (reason,) = [one for one in result.details["lacking"] if "of which one is" in one]
    assert reason == (
        "listed support sets of 2 images of which one is missing; as many sets of that size were "
        "drawn among the 4 listed images there are"
    )
    assert result.predictions.example_id.tolist() == ["005_HC", "006_HC", "007_HC"]
    assert result.details["sizes_count"] == "images"
