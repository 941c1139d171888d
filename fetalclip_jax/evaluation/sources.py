"""The data sets of an evaluation, each split opened once."""

import dataclasses
import difflib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from fetalclip_jax import storage
from fetalclip_jax.config import trained_on
from fetalclip_jax.datasets import registry
from fetalclip_jax.datasets.protocol import Source, SourceFacts
from fetalclip_jax.evaluation.study import Need, Study


@dataclasses.dataclass(frozen=True)
class DataSet:
    """Where a data set lies.

    Attributes:
      kind: one of `datasets.registry.KINDS`.
      root: its folder; "" for what needs none.
      options: of its kind.
      seed: of its splits; None for that of training, where a model was trained on the data, else 0.
      judged: role of the patients that stand in for the test in studies: "test", or "validation"
        for a choice among models, which no test patient may help to make.
      splits: role -> the split that takes it, where that is not its kind's: {"test":
        "official_train"} judges the training patients of a model that saw none of them; "" for
        no split, so that nothing is done in that role.
    """

    kind: str
    root: str = ""
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    seed: int | None = None
    judged: str = "test"
    splits: Mapping[str, str] = dataclasses.field(default_factory=dict)


class Sources:
    """Opens splits by what they are for.

    A data set that the model was trained on is split as it was for training, so that no image is
    judged that was learned from.
    """

    def __init__(
        self,
        data: Mapping[str, DataSet],
        trained: ConfigDict | None,
        image_size: int,
        say: Callable[[str], None] = print,
    ):
        """`trained` is `config.data` of the run that made the model, or None."""
        self._data = {name: _as_trained(one, trained) for name, one in data.items()}
        self._trained = trained
        self._image_size = image_size
        self._say = say
        self._opened: dict[tuple[str, str, bool], Source] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(self._data)

    def kind(self, name: str) -> str:
        return self._data[name].kind

    def facts(self, name: str) -> SourceFacts:
        """Of a data set.

        Raises:
          ValueError: a name that was not given, a role or split there is none of, or what is
            wrong with its folder.
        """
        if name not in self._data:
            raise ValueError(f"data set {name!r} is not one of {', '.join(self._data)}")
        if not any(opened == name for opened, _, _ in self._opened):
            self._split(name, registry.roles(self._data[name].kind)["all"])
        facts = next(s.facts for (opened, *_), s in self._opened.items() if opened == name)
        _check_splits(name, self._data[name].splits, facts)
        roles = {**facts.roles, **self._data[name].splits}
        return dataclasses.replace(facts, roles={k: split for k, split in roles.items() if split})

    def lacks(self, name: str, study: Study) -> str:
        """Why a data set cannot serve a study, or ""."""
        facts = self.facts(name)
        for need in study.needs:
            if need.optional:
                continue
            role = self._role(name, need.role)
            if role not in facts.roles:
                return f"has no images to {role!r}; it has {', '.join(facts.roles)}"
            if need.role == "all" and self._judged(name) != "test":
                return f"is judged on its {self._judged(name)} patients, and {study.name} on all"
            if need.role == "fit" and self._judged(name) != "test" and not _apart(facts):
                return (
                    f"is judged on its {self._judged(name)} patients, some of whom {study.name} "
                    "would learn from"
                )
            if lacking := [one for one in need.masks if one not in self._outlined(name, role)]:
                return _without_outline(lacking, self._outlined(name, role))
            missing = [column for column in need.columns if column not in facts.columns]
            if missing:
                return f"knows no {', '.join(missing)}"
        return ""

    def has(self, name: str, need: Need) -> bool:
        """Whether a data set has the images of a need; says why one that may be absent is."""
        if self._role(name, need.role) not in self.facts(name).roles:
            return False
        if need.optional:
            try:
                self.open(name, need.role, bool(need.masks))
            except ValueError as error:
                self._say(f"{name}: done without the images to {need.role}: {error}")
                return False
        return True

    def open(self, name: str, role: str, masks: bool = False) -> tuple[str, Source]:
        """The split that a role means, and its source; `masks` asks for outlined examples."""
        split = self.facts(name).roles[self._role(name, role)]
        return split, self._split(name, split, masks)

    def notes(self, name: str, roles: Collection[str] = ("test",)) -> list[str]:
        """What must be said of how a data set is judged by a study that reads these roles."""
        own, splits = registry.roles(self.kind(name)), self._data[name].splits
        if "test" not in roles and "all" not in splits:
            return []
        split = splits.get("test", own["test"])
        if split != own["test"]:
            return [
                f"judged on the patients of its split {split!r}, not on its test patients "
                f"({own['test']!r}): a choice among models may be made on them, and the best of "
                "several scores higher on them than on others"
            ]
        if self._judged(name) == "test":
            return []
        return [
            f"judged on the {self._judged(name)} patients, by which models may be chosen: the best "
            "of several scores higher on them than on others"
        ]

    def trained_patients(self, name: str) -> set[str]:
        """Patients of a data set that the model learned from, if of fewer then drawn among these,
        or was chosen by.
        """
        one, trained = self._data[name], self._trained
        if trained is None or not _is_trained(one, trained):
            return set()
        roles, found = registry.roles(one.kind), set()
        for role in ("train", "validation"):
            # By what is only mixed in nothing is chosen.
            if role in roles and (role == "train" or one.kind == trained.source):
                # Divided as for training, whatever the shares of this evaluation are.
                source = registry.open_source(
                    one.kind,
                    one.root or trained_on(trained)[one.kind],
                    roles[role],
                    options=trained[one.kind].to_dict(),
                    image_size=self._image_size,
                    seed=trained.seed,
                )
                found |= set(map(str, source.metadata()["patient_id"]))
        return found - {""}

    def may_be_trained_on(self, name: str, role: str) -> bool:
        """Whether the patients of a role may be some that the model learned from.

        Never those of the test split as it was at training.
        """
        one, trained = self._data[name], self._trained
        if role == "all" or trained is None or one.kind not in trained:
            return role == "all"
        as_trained = one.options == trained[one.kind].to_dict() and one.seed == trained.seed
        return role == "test" and not (as_trained and not one.splits)

    def _judged(self, name: str) -> str:
        return self._data[name].judged

    def _role(self, name: str, role: str) -> str:
        return self._judged(name) if role == "test" else role

    def _outlined(self, name: str, role: str) -> tuple[str, ...]:
        """Structures that the examples of a data set have masks of."""
        if registry.MASKS_OPTION not in registry.default_options()[self.kind(name)]:
            return ()
        return self.open(name, role, masks=True)[1].facts.masks

    def _split(self, name: str, split: str, masks: bool = False) -> Source:
        key = (name, split, masks)
        if key not in self._opened:
            one = self._data[name]
            options = dict(one.options) | ({registry.MASKS_OPTION: True} if masks else {})
            source = registry.open_source(
                one.kind,
                one.root,
                split,
                options=options,
                image_size=self._image_size,
                seed=one.seed,
            )
            self._opened[key] = source
        return self._opened[key]


def _check_splits(name: str, splits: Mapping[str, str], facts: SourceFacts) -> None:
    known_splits = (*facts.splits, "")
    for role, split in splits.items():
        for what, given, known in (
            ("role", role, facts.roles),
            ("split", split, known_splits),
        ):
            if given not in known:
                raise ValueError(
                    f"data set {name}: splits={dict(splits)}: there is no {what} {given!r}; use "
                    f"{', '.join(filter(None, known))}"
                )


def _without_outline(lacking: Sequence[str], outlined: Sequence[str]) -> str:
    words = f"has no outline of {', '.join(lacking)}, but of {', '.join(outlined) or 'nothing'}"
    near = [one for name in lacking for one in difflib.get_close_matches(name, outlined, 1, 0.7)]
    return f"{words}; did you mean {' and '.join(near)}?" if near else words


def _as_trained(one: DataSet, trained) -> DataSet:
    """The data set with the splits of training, where it is the one that was trained on.

    What is given still counts: with another seed a simulator draws other patients.
    """
    if trained is None or not _is_trained(one, trained):
        return dataclasses.replace(one, seed=one.seed or 0)
    root = one.root or trained_on(trained)[one.kind]
    options = trained[one.kind].to_dict() | dict(one.options)
    seed = trained.seed if one.seed is None else one.seed
    return DataSet(one.kind, root, options, seed, one.judged, one.splits)


def _is_trained(one: DataSet, trained: ConfigDict) -> bool:
    """Whether it is the data set that was trained on."""
    roots = trained_on(trained)
    if one.kind not in roots:
        return False
    there = roots[one.kind]
    return _resolved(one.root or there) == _resolved(there) or registry.is_one_data_set(one.kind)


def _apart(facts: SourceFacts) -> bool:
    """Whether the patients that probes learn from are none of those of the validation."""
    return facts.roles["fit"] == facts.roles.get("train")


def _resolved(root: str) -> storage.Path:
    return storage.path(root).resolve()
