"""Models x data sets x studies: encodes what the studies read, runs them, keeps the results.

<output>/<model>/<data set>/<study>.json, .csv, .npz   see `evaluation.result`
        <model>/<data set>/pictures/<study>/           what a study shows, see `evaluation.pictures`
        <model>/<data set>/examples/<study>/           pictures of right and wrong answers
        <model>/<data set>/confusions/<study>/         what is mistaken for what, in pictures
        <model>/features/<data set>-<split>-<digest>/  stored features; reused when nothing changed
"""

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from fetalclip_jax import storage
from fetalclip_jax.config import trained_on
from fetalclip_jax.data.columns import CAPTION
from fetalclip_jax.evaluation import confusions, environment, examples, terminal
from fetalclip_jax.evaluation import result as result_files
from fetalclip_jax.evaluation.features import levels
from fetalclip_jax.evaluation.features.rows import Rows
from fetalclip_jax.evaluation.result import Result
from fetalclip_jax.evaluation.sources import DataSet, Sources
from fetalclip_jax.evaluation.studies.tasks import COLUMNS
from fetalclip_jax.evaluation.study import Need, Study
from fetalclip_jax.model import Model
from fetalclip_jax.parallel import distributed
from fetalclip_jax.run import is_lead
from fetalclip_jax.training.metrics import peak_rss_gib

# Of more candidates than this no picture tells anything: the days of an age, say.
_MOST_CANDIDATES = 30


@dataclasses.dataclass(frozen=True)
class Planned:
    """A study and the data sets it is meant for.

    Attributes:
      study: made by `studies.create`.
      data: names of data sets; empty for every one that has what the study needs.
    """

    study: Study
    data: tuple[str, ...] = ()


def evaluate(
    models: Mapping[str, Callable[[], Model]],
    data: Mapping[str, DataSet],
    studies: Sequence[Planned],
    output: storage.Path,
    *,
    batch_size: int = 64,
    workers: int = 2,
    seed: int = 0,
    keep_going: bool = False,
    beside: str = "",
    progress: bool = True,
    say: Callable[[str], None] = print,
) -> list[Result]:
    """Runs every study on every model and every data set that serves it.

    Args:
      models: name -> what loads it; one is in memory at a time.
      data: by name; empty takes the data set each model was trained on.
      studies: what to measure.
      output: folder of the results; see the module.
      batch_size: images per call of the image tower.
      workers: processes that read images.
      seed: of the augmented copies.
      keep_going: a study that cannot be run is said and passed over.
      beside: a data set of `data` whose images of the same classes stand beside those that are
        mistaken for others; "" for none.
      progress: show progress bars.
      say: gets a line for everything a user should know, such as what was left out.

    Raises:
      ValueError: a study that no data set serves, or whatever is wrong with model or data.
    """
    results = []
    for name, load in models.items():
        model = load()
        judged = _Judged(
            *(name, model, storage.path(output) / name),
            *(batch_size, workers, seed, say, progress, beside),
        )
        chosen = data or _own_data(name, model)
        if beside and beside not in chosen:
            raise ValueError(f"beside={beside!r} is not one of {', '.join(chosen)}")
        servable = _servable(name, model, studies, say, keep_going)
        if studies and not servable:
            continue  # it was said of each; other models may be judged
        sources = Sources(chosen, model.data, model.config.vision_cfg.image_size, say)
        for data_name, planned in _pairs(sources, servable, say, keep_going).items():
            for note in sources.notes(data_name):
                say(f"{data_name}: {note}")
            for study in planned:
                failure = None
                try:
                    results.append(judged.run(data_name, sources, study, planned))
                except ValueError as error:
                    if not keep_going:
                        raise
                    failure = str(error)
                # The processes of a job go on to the next study together.
                if failure := keep_going and distributed.found_anywhere(failure):
                    say(f"lacking: {data_name}, {study.name}: {failure}")
        del model, judged, sources  # before the next one is loaded
    return results


def _own_data(name: str, model: Model) -> dict[str, DataSet]:
    if model.data is None or not model.data.source:
        raise ValueError(
            f"{name} does not say what data it is judged on; pass --data KIND=FOLDER, such as "
            "--data hc18=HC18"
        )
    return {model.data.source: DataSet(model.data.source, model.data.root)}


def _servable(
    name: str,
    model: Model,
    studies: Sequence[Planned],
    say: Callable[[str], None],
    keep_going: bool,
) -> list[Planned]:
    """The studies that a model can be judged by, and a line for each that it cannot."""
    found = []
    for planned in studies:
        levels_read = {need.level for need in planned.study.needs}
        try:
            if levels_read & set(levels.OF_ONE_VIEW):
                model.check_one_view(f"{name}, {planned.study.name}: what it reads")
            found.append(planned)
        except ValueError as error:
            if not keep_going:
                raise
            say(f"lacking: {error}")
    return found


def _pairs(
    sources: Sources, studies: Sequence[Planned], say: Callable[[str], None], keep_going: bool
) -> dict[str, list[Study]]:
    """Which studies run on which data set, and a line for each that cannot."""
    pairs: dict[str, list[Study]] = {}
    for planned in studies:
        reasons = {}
        for name in planned.data or sources:
            try:
                reasons[name] = sources.lacks(name, planned.study)
            except ValueError as error:
                if not keep_going:
                    raise
                reasons[name] = f"cannot be opened ({error})"
        serving = [name for name, reason in reasons.items() if not reason]
        refused = [f"{name} {reason}" for name, reason in reasons.items() if reason]
        if not keep_going and (not serving or (planned.data and refused)):
            raise ValueError(f"study {planned.study.name} cannot be run: {'; '.join(refused)}")
        for name in serving:
            pairs.setdefault(name, []).append(planned.study)
        if refused:
            say(f"{planned.study.name}: not on {'; '.join(refused)}")
    if not pairs:
        raise ValueError("no data set serves any of the studies")
    return pairs


class _Judged:
    """One model with the stores that studies share."""

    def __init__(self, name, model, folder, batch_size, workers, seed, say, progress, beside=""):
        self._name, self._model, self._folder = name, model, folder
        self._batch_size, self._workers, self._seed = batch_size, workers, seed
        self._say, self._progress, self._beside = say, progress, beside
        self._stores: dict[tuple, Rows] = {}
        self._environment = environment.describe()

    def run(
        self, data_name: str, sources: Sources, study: Study, planned: Sequence[Study]
    ) -> Result:
        """Runs one of the studies planned for a data set, which share their stores."""
        start = time.time()
        plan = _merged([need for one in planned for need in one.needs])
        needs = [need for need in study.needs if sources.has(data_name, need)]
        views = {}
        for need in needs:
            key = (data_name, *_key(need))
            if key not in self._stores:
                self._stores[key] = self._store(data_name, sources, plan[_key(need)])
            views[need.name] = _view(self._stores[key], need)
        result = study.run(views, self._model)
        cost = {"seconds": time.time() - start, "peak_rss_gib": peak_rss_gib()}
        result = dataclasses.replace(
            result,
            model=self._about(),
            data=self._data(data_name, sources, needs, views),
            cost=cost,
            environment=self._environment,
        )
        folder = self._folder / data_name
        distributed.on_lead(lambda: self._check_place(folder / f"{study.name}.json", result))
        result.save(folder)
        if is_lead() and _shows_pictures(result):
            first = result.predictions.example_id[0]
            shown = next(n for n in needs if first in views[n.name].columns["example_id"])
            _, source = sources.open(data_name, shown.role, bool(shown.masks))
            examples.keep(folder, result.study, result.predictions, source)
            reference = self._reference(sources, result.study)
            confusions.keep(folder, result.study, result.predictions, source, reference)
        self._say(terminal.lines(result))
        return result

    def _reference(self, sources: Sources, study: str) -> tuple[str, Any, str] | None:
        """The data set that stands beside mistaken images, and its column of the study's classes.

        Raises:
          ValueError: it is none of the data sets.
        """
        if not self._beside:
            return None
        task = study.partition(".")[2]
        return self._beside, sources.open(self._beside, "test")[1], COLUMNS.get(task, task)

    def _about(self) -> dict[str, Any]:
        """The model, as a result says which it is."""
        return {
            "name": self._name,
            "fingerprint": self._model.fingerprint,
            "parameters": sum(leaf.size for leaf in jax.tree.leaves(self._model.params)),
            "trained_on": " + ".join(trained_on(self._model.data)),
            "config": dataclasses.asdict(self._model.config),
            "test_time_views": self._model.test_time_views,
        }

    def _check_place(self, path: storage.Path, result: Result) -> None:
        """Says what is replaced; results of other weights are not mixed with these.

        Raises:
          ValueError: the folder holds a result of other weights under this name.
        """
        for other in result_files.find(self._folder):
            kept = json.loads(other.read_text(encoding="utf-8"))
            if kept["model"].get("fingerprint") != result.model["fingerprint"]:
                raise ValueError(
                    f"{other} is a result of other weights that are called {self._name!r} too; "
                    "choose another --output, or another name: --model NAME=PATH"
                )
            before, now = kept["protocol"].get("name"), result.protocol.get("name")
            if other == path and before != now:
                self._say(f"{path} was of protocol {before!r} and is replaced")

    def _store(self, data_name: str, sources: Sources, need: Need) -> Rows:
        split, source = sources.open(data_name, need.role, bool(need.masks))
        fingerprint = {
            "model": self._model.fingerprint,
            "data": source.description,
            "image_size": self._model.config.vision_cfg.image_size,
            "transform": need.transform,
            "copies": need.copies,
            "only": {name: sorted(values) for name, values in need.only.items()},
            "seed": self._seed,
        }
        if need.level not in ("feature", "metadata"):
            fingerprint |= {"level": need.level, "masks": need.masks, "how": dict(need.how)}
        if CAPTION in source.facts.columns:
            fingerprint["captions"] = True  # stores of earlier versions kept none
        # Through JSON, so that what is read back compares equal.
        fingerprint = json.loads(json.dumps(fingerprint))
        level = levels.of(need.level)
        if not level.KEPT:
            return self._encode(level, source, need, fingerprint)
        digest = hashlib.sha256(json.dumps(fingerprint, sort_keys=True).encode()).hexdigest()[:12]
        path = self._folder / "features" / f"{data_name}-{split}-{digest}"
        # The processes of a job encode together, all of them or none.
        if distributed.on_lead(lambda: self._is_kept(level, path)):
            distributed.wait_for_disk(path)
            store = level.load(path)
        else:
            store = self._encode(level, source, need, fingerprint)
            if is_lead():
                store.save(path)
        for note in getattr(store, "notes", ()):
            self._say(f"{data_name} {split}: {note}")
        if store.left_out:
            name, reason = store.left_out[0]
            self._say(
                f"{data_name} {split}: {len(store.left_out)} of {len(source)} {need.unit} "
                f"cannot be read and are left out, first {name}: {reason}"
            )
        return store

    def _encode(self, level, source, need: Need, fingerprint: Mapping[str, Any]) -> Rows:
        if need.only and not _of_kind(source.metadata(), need).any():
            raise ValueError(need.why_none(len(source)))
        return level.encode(self._model, source, need, self._working(fingerprint))

    def _is_kept(self, level, path: storage.Path) -> bool:
        """Whether the store of an earlier evaluation is there, whole."""
        if not path.is_dir():
            return False
        try:
            level.load(path)
        except ValueError as error:
            self._say(f"{error}; encoding again")
            storage.rmtree(path)
            return False
        return True

    def _working(self, fingerprint: Mapping[str, Any]) -> levels.Working:
        return levels.Working(
            self._batch_size, self._workers, self._seed, fingerprint, self._progress
        )

    def _trained_on(self, name: str, sources: Sources, store: Rows) -> list[str]:
        """A line if the model was trained on some of what is judged."""
        trained = np.isin(store.clean().patients(), list(sources.trained_patients(name)))
        if not trained.any():
            return []
        line = (
            f"{trained.sum()} of {len(trained)} judged images are of patients that this model was "
            "trained on or chosen by; judge its test patients alone, as the protocol 'default' "
            "does where no splits or shares are given"
        )
        self._say(f"{name}: {line}")
        return [line]

    def _data(self, name, sources: Sources, needs, stores) -> dict[str, Any]:
        facts = sources.facts(name)
        about = {
            "name": name,
            "kind": sources.kind(name),
            "simulated": facts.simulated,
            "ages_from": facts.ages_from,
            "citation": facts.citation,
            "licence": facts.licence,
            "stores": {},
            "left_out": {},
            "notes": sources.notes(name, {need.role for need in needs}),
        }
        for need in needs:
            split, source = sources.open(name, need.role, bool(need.masks))
            store = stores[need.name]
            about["stores"][need.name] = {
                "split": split,
                "images": int((store.copy == 0).sum()),
                "patients": len(set(store.patients())),
                "copies": need.copies,
                "transform": need.transform,
            }
            if sources.may_be_trained_on(name, need.role):
                about["notes"] += self._trained_on(name, sources, store)
            about["left_out"] |= dict(store.left_out)
            about["notes"] += [note for note in source.notes if note not in about["notes"]]
        return about


def _shows_pictures(result: Result) -> bool:
    """Whether single answers are worth a picture: one of a few classes, with scores."""
    found = result.predictions
    if found is None or found.scores is None or len(found.candidates) > _MOST_CANDIDATES:
        return False
    return set(np.unique(found.label)) <= set(found.candidates)


def _key(need: Need) -> tuple:
    how = json.dumps(dict(need.how), sort_keys=True)
    return need.role, need.transform, need.level, need.masks, how


def _merged(needs: Sequence[Need]) -> dict[tuple, Need]:
    """One store for all needs of the same images: the most copies, all kinds of images."""
    merged: dict[tuple, Need] = {}
    for need in needs:
        found = merged.get(_key(need))
        if found is None:
            merged[_key(need)] = need
            continue
        same = found.only == need.only
        merged[_key(need)] = dataclasses.replace(
            found,
            copies=max(found.copies, need.copies),
            only=found.only if same else {},
        )
    return merged


def _view(store: Rows, need: Need) -> Rows:
    """The rows of a shared store that one study asked for."""
    rows = (store.copy <= need.copies) & _of_kind(store.columns, need)
    if not rows.any():
        raise ValueError(need.why_none(len(store)))
    return store if rows.all() else store.select(rows)


def _of_kind(columns: Mapping[str, np.ndarray], need: Need) -> np.ndarray:
    """Which rows have the values that a need asks for."""
    found = [np.isin(columns[name], values) for name, values in need.only.items()]
    return np.logical_and.reduce([np.ones(len(columns["example_id"]), bool), *found])
