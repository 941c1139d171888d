"""Answers to the items of CLAIM 2024 about model, training, statistics and results.

Each function yields sentences from what results and runs recorded, and none where nothing was.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from fetalclip_jax.reports import naming, provenance
from fetalclip_jax.reports.claim_data import together
from fetalclip_jax.reports.frame import Report
from fetalclip_jax.reports.naming import number
from fetalclip_jax.reports.reading import Evaluated


def architecture(report: Report) -> Iterator[str]:
    for one in report.contents.evaluated:
        model = one.result.model
        count = number(model.get("parameters"))
        vision, text = (provenance.tower(one, name) for name in ("vision_cfg", "text_cfg"))
        if not (count or vision or text):
            continue
        words = f"{one.model_name}: contrastive image and text towers"
        if count:
            words += f", {count:,.0f} parameters"
        if facts := _facts(
            ("{} blocks", vision.get("layers")),
            ("width {}", vision.get("width")),
            ("patches of {} pixels", vision.get("patch_size")),
            ("images of {} pixels", vision.get("image_size")),
        ):
            words += f"; vision transformer of {facts}"
        if facts := _facts(
            ("{} blocks", text.get("layers")),
            ("width {}", text.get("width")),
            ("{} tokens", text.get("context_length")),
        ):
            words += f"; text transformer of {facts}"
        if vision or text:
            words += _facts(("; shared dimension {}", model["config"].get("embed_dim")))
        if views := provenance.views_in_words(one.result):
            words += f"; {views}"
        yield f"{words}; fingerprint {model.get('fingerprint', 'not recorded')}."


def software(report: Report) -> Iterator[str]:
    recorded = [one for one in report.contents.evaluated if one.result.environment]
    for one in recorded:
        yield f"Evaluation: {_software(one.result.environment)}."
        yield f"Evaluation ran on {_hardware(one.result.environment)}."
    silent = len(report.contents.evaluated) - len(recorded)
    if recorded and silent:
        yield f"{silent} of the results do not record it."


def initialisation(report: Report) -> Iterator[str]:
    for run in report.contents.runs:
        if start := run.config.get("init_from"):
            lora = run.config.get("lora", {})
            adapted = f"; trained is {_lora(lora)}" if lora.get("targets") else ""
            yield f"{run.name}: parameters and tokenizer of {start}{adapted}."
        elif "init_from" in run.config:
            yield f"{run.name}: random, seed {run.config.get('seed', 'not recorded')}."


def _lora(settings: Mapping[str, Any]) -> str:
    return (
        f"LoRA of rank {settings['rank']} and alpha {settings['alpha']:g} at "
        f"{', '.join(settings['targets'])}"
    )


def training(report: Report) -> Iterator[str]:
    for run in report.contents.runs:
        config, train = run.config, run.train
        facts = [
            ("objective", config.get("loss", {}).get("kind")),
            ("steps", train.get("steps") or config.get("train", {}).get("steps")),
            ("global batch", config.get("train", {}).get("global_batch_size")),
            ("learning rate", config.get("optimizer", {}).get("learning_rate")),
            ("schedule", config.get("optimizer", {}).get("schedule")),
            ("weight decay", config.get("optimizer", {}).get("weight_decay")),
            ("seed", config.get("seed")),
            ("augmentation", _plain(config.get("augment"))),
            ("hardware", train.get("device")),
            ("images seen", train.get("images_seen")),
            ("seconds", train.get("seconds") and round(train["seconds"])),
        ]
        known = [f"{name} {value}" for name, value in facts if value not in (None, "")]
        if known:
            yield f"{run.name}: {', '.join(known)}. All settings: Configuration and environment."


def selection(report: Report) -> Iterator[str]:
    for run in report.contents.runs:
        kept = run.config.get("train", {}).get("keep_best")
        if kept is not None:
            words = f"{run.name}: the last step, unless a model was named by another one"
            yield f"{words}; that with the lowest {kept} is kept too." if kept else f"{words}."
    pairs = [
        (naming.title(one.result.study), f"{words}.")
        for one in report.contents.evaluated
        if (words := _chosen(one))
    ]
    yield from together(pairs)


def ensembles(report: Report) -> Iterator[str]:
    pairs = []
    for one in report.contents.evaluated:
        runs = number(one.result.details.get("runs"))
        if runs and runs > 1:
            scores = one.result.details.get("scores", "scores not recorded")
            words = f"metrics are means over {runs:.0f} probes; single predictions are by {scores}."
            pairs.append((naming.title(one.result.study), words))
    yield from together(pairs)


def metrics(report: Report) -> Iterator[str]:
    for one in report.contents.evaluated:
        names = [naming.metric(name).words for name in one.result.metrics]
        if names:
            yield f"{naming.title(one.result.study)}: {', '.join(names)}."


def uncertainty(report: Report) -> Iterator[str]:
    pairs = [
        (naming.title(one.result.study), f"{provenance.interval(one)}{provenance.seed(one)}.")
        for one in report.contents.evaluated
    ]
    yield from together(pairs)
    if any(provenance.by_t(one) for one in report.contents.evaluated):
        yield (
            f"{provenance.SCALES} Degrees of freedom of several sources of chance are joined by "
            "Satterthwaite's formula. Rates of 0 or 1 have Clopper and Pearson's interval."
        )
    compared = report.has_section("compar")
    yield f"Tests: section {compared}." if compared else "No hypothesis is tested on this page."


def robustness(report: Report) -> Iterator[str]:
    for words in ("subgroup", "calibration", "data efficiency"):
        if heading := report.has_section(words):
            yield f"Section {heading}."
    for one in report.contents.evaluated:
        details = one.result.details
        metric = next(
            (x for x in ("macro_f1", "auroc") if f"{x}_deviation_over_runs" in details), ""
        )
        spread = number(details.get(f"{metric}_deviation_over_runs"))
        if spread is not None:
            yield (
                f"{naming.title(one.result.study)} of {one.label}: standard deviation of the "
                f"{naming.metric(metric).words} over runs {spread:.3f}."
            )


def performance(report: Report) -> Iterator[str]:
    yield from together(
        (naming.title(one.result.study), f"headline table, on {provenance.where(one)}.")
        for one in report.contents.evaluated
    )


def precision(report: Report) -> Iterator[str]:
    yield "95 % intervals stand beside the figures of the headline table."
    if heading := report.has_section("classification"):
        yield f"Confusions and scores of each class: section {heading}."


def failures(report: Report) -> Iterator[str]:
    for words in ("mistakes", "example images", "classification"):
        if heading := report.has_section(words):
            yield f"Section {heading}."


def protocol(report: Report) -> Iterator[str]:
    if any("name" in one.result.protocol for one in report.contents.evaluated):
        yield (
            "Sections Protocols and Configuration and environment; results.json holds all settings."
        )


def availability(report: Report) -> Iterator[str]:
    yield "The software is fetalclip_jax, Apache-2.0."
    for one in report.contents.evaluated:
        if licence := one.result.data.get("licence"):
            yield f"{one.data_name}: licence {licence}."


def _chosen(one: Evaluated) -> str:
    """How a probe's penalty, or its epoch, was chosen; "" where nothing was."""
    protocol, details = one.result.protocol, one.result.details
    solver, folds = protocol.get("solver"), number(details.get("folds"))
    penalties, rates = (protocol.get(name) or () for name in ("penalties", "learning_rates"))
    if solver == "logistic" and penalties:
        what = f"penalty, one of {len(penalties)}, chosen by the loss"
    elif solver == "adamw":
        what = "epoch and learning rate" if len(rates) > 1 else "epoch"
        what += " of each probe chosen by the loss"
    else:
        return ""
    if one.result.curve:
        as_many = "" if protocol.get("splits") else ", as many others as it learns from"
        return f"{what} on the validation patients of each support set{as_many}"
    if folds and solver == "logistic":
        return (
            f"{what} in {folds:.0f}-fold cross-validation by patient, over the patients that the "
            "probe is then fitted on"
        )
    return f"{what} on the held-out one of {folds:.0f} folds by patient" if folds else ""


def _facts(*pairs: tuple[str, Any]) -> str:
    """ "2 blocks, width 128" of what was recorded."""
    return ", ".join(words.format(value) for words, value in pairs if value is not None)


def _software(environment: Mapping[str, Any]) -> str:
    packages = environment.get("packages", {})
    words = [f"python {environment.get('python', 'not recorded')}"]
    words += [f"{name} {version}" for name, version in packages.items()]
    if commit := environment.get("commit"):
        changed = " with changes" if commit.endswith("+") else ""
        words.append(f"commit {commit.removesuffix('+')[:12]}{changed}")
    return ", ".join(words)


def _hardware(environment: Mapping[str, Any]) -> str:
    devices = environment.get("devices", {})
    words = [f"{count} x {kind}" for kind, count in devices.items()]
    if processor := environment.get("processor"):
        words.append(f"{processor}, {environment.get('cores', '?')} cores")
    if memory := environment.get("memory_gib"):
        words.append(f"{memory:g} GiB")
    return f"{', '.join(words)} ({environment.get('date', 'day not recorded')})"


def _plain(value: Any) -> str:
    return ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, Mapping) else ""
