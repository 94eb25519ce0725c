"""One experiment on one machine: a study, its images, and how they are parted over sites."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import AfterValidator, Field, model_validator

from fedcondense.config.loading import Settings, parse_settings, read_toml, with_absolute_paths
from fedcondense.config.methods import Method
from fedcondense.config.privacy import Budget, NoPrivacy, Privacy
from fedcondense.config.site import (
    Device,
    ImageCsv,
    ImageFolder,
    ImageNpz,
    ImageSource,
    ReleasePolicy,
)
from fedcondense.config.study import (
    MOST_ROUNDS,
    Architecture,
    ClassName,
    EvaluationProtocol,
    ImageSpec,
    NetworkSpec,
    PublicSeed,
    Study,
)
from fedcondense.config.sweep import Reference, checked_axes, completed
from fedcondense.errors import SettingsError


class ReleaseMode(StrEnum):
    """Whether the gate's refusal stops a contribution. Only a scenario can say `study-only`."""

    ENFORCED = "enforced"
    STUDY_ONLY = "study-only"


class Partition(Settings):
    """How training images are dealt to sites; a group never crosses a site."""

    kind: Literal["dirichlet", "site", "even"] = Field(
        "dirichlet", description="uneven by class; as the data says; every class in equal parts"
    )
    sites: int = Field(4, ge=1, le=200, description="ignored by `site`, where the data says")
    alpha: float = Field(
        0.5, gt=0, le=1e4, description="label skew of `dirichlet`: small is uneven"
    )


class External(Settings):
    """A second test set, scored beside the first; nothing is ever trained on it.

    Its path is relative to the folder that the images are in. Images of a group that is trained
    on are left out.
    """

    path: Path = Field(description="an npz archive, or a folder of class folders")
    classes: tuple[ClassName, ...] | None = Field(
        None, description="classes that are tested; left out: all that the study knows"
    )


class Continual(Settings):
    """Classes that come one stage after another, and a memory of synthetic images (GDumb).

    Zhao et al. 2023, sec. 5.6; Prabhu et al., ECCV 2020. There is no federation and no gate: all
    training images are in one place. Each stage condenses its new classes and adds them to the
    memory; fresh networks learn from the memory alone and are tested on all classes so far.
    Classes are dealt as evenly as they go; where they do not, earlier stages have one more.
    """

    stages: int = Field(5, ge=2, le=255, description="stages to an order of the classes")
    orders: int = Field(5, ge=1, le=100, description="random orders of the classes")


class Scenario(Settings):
    """A study played on one machine, once per partition seed."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$", description="of the study")
    classes: tuple[ClassName, ...] | None = Field(
        None, description="left out: the data's own, in its order"
    )
    images: ImageSource | None = Field(None, description="left out: given with --data")
    external: External | None = Field(None, description="a second test set; left out: none")
    image: ImageSpec = Field(ImageSpec(), description="the form of images")
    network: NetworkSpec = Field(NetworkSpec(), description="the ConvNet that matches and scores")
    images_per_class: int = Field(
        5, ge=1, le=1_000, description="ipc: stored synthetic images per class and site"
    )
    distill: Method = Field(description="the method and its settings")
    privacy: Privacy = Field(NoPrivacy(), description="what a release guarantees formally")
    evaluation: EvaluationProtocol = Field(EvaluationProtocol(), description="how sets are scored")
    partition: Partition = Field(Partition(), description="how images are dealt to sites")
    seeds: tuple[PublicSeed, ...] = Field(
        (0,), min_length=1, description="one repetition each: another partition of the same images"
    )
    quorum: int | None = Field(None, ge=1, description="left out: all sites but one, at least one")
    rounds: int = Field(
        1, ge=1, le=MOST_ROUNDS, description="from the second on sites refine what they sent"
    )
    release: ReleaseMode = Field(
        ReleaseMode.ENFORCED,
        description="`study-only`: a refused set stays on this machine and is studied all the same",
    )
    site: ReleasePolicy = Field(ReleasePolicy(), description="the release policy of every site")
    ledger: Budget | None = Field(
        None, description="the budget of every site; left out: what the study asks for"
    )
    device: Device = Field("cpu", description="`auto` takes the first CUDA device, or the CPU")
    read: Literal["test", "validation"] = Field(
        "test", description="validation: a part of train stands in for test, to choose settings"
    )
    random_draws: int = Field(5, ge=1, le=100, description="draws of random real images")
    architectures: tuple[Architecture, ...] = Field(
        (), description="networks that the global set and the ceiling are also tested with"
    )
    cross_networks: int = Field(
        2, ge=1, le=100, description="fresh networks to a set for each of `architectures`"
    )
    consistency: tuple[Annotated[int, Field(ge=1, le=10_000)], ...] = Field(
        (), description="numbers k of nearest real images whose classes are looked at; empty: none"
    )
    continual: Continual | None = Field(
        None, description="classes that come in stages, in place of the federation"
    )
    sweep: Annotated[dict[str, Any], AfterValidator(checked_axes)] | None = Field(
        None, description="axes: lists that take the place of keys; left out: one cell"
    )
    reference: tuple[Reference, ...] = Field(
        (), description="published figures beside those of a sweep"
    )

    @model_validator(mode="after")
    def _seeds_differ(self) -> Scenario:
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds: each stands once")
        return self

    @model_validator(mode="after")
    def _asks_fit_together(self) -> Scenario:
        if problems := "; ".join(self._contradictions()):
            raise ValueError(problems)
        return self

    def _contradictions(self) -> Iterator[str]:
        for key in ("architectures", "consistency"):
            if len(set(getattr(self, key))) < len(getattr(self, key)):
                yield f"{key}: each stands once"
        if list(self.consistency) != sorted(self.consistency):
            yield "consistency: numbers ascend"
        if Architecture.CONVNET in self.architectures and self.image.size >> self.network.depth < 1:
            yield "network.depth: too many blocks for the ConvNet of `architectures`"
        if self.site.needs_approval:
            yield "site.needs_approval: there is no data officer in a simulation"
        if self.continual is None:
            return
        of_a_federation = ("architectures", "consistency", "external", "sweep")
        for key in of_a_federation:
            if getattr(self, key):
                yield f"{key}: not beside [continual], which plays no federation"
        if len(self.seeds) > 1:
            yield "seeds: one beside [continual], which has its own orders"

    @model_validator(mode="after")
    def _references_have_cells(self) -> Scenario:
        if self.reference and self.sweep is None:
            raise ValueError("reference: stands beside the cells of a [sweep], and there is none")
        return self

    def study(self, classes: tuple[str, ...], sites: int, seed: int) -> Study:
        """The study that the sites of one repetition agree on.

        Raises:
            SettingsError: the parts do not fit together.
        """
        quorum = self.quorum or max(1, sites - 1)
        if quorum > sites:
            raise SettingsError(
                f"{self.name}: quorum: {quorum} of {sites} sites can never be met",
                hint="lower quorum or raise partition.sites",
            )
        values = {
            "name": self.name,
            "classes": classes,
            "image": self.image.model_dump(mode="json"),
            "network": self.network.model_dump(mode="json"),
            "images_per_class": self.images_per_class,
            "distill": self.distill.model_dump(mode="json"),
            "privacy": self.privacy.model_dump(mode="json"),
            "evaluation": self.evaluation.model_dump(mode="json"),
            "quorum": quorum,
            "rounds": self.rounds,
            "seed": seed,
        }
        study = parse_settings(Study, values, self.name)
        if self.rounds > 1 and not study.fits_a_request(sites):
            raise SettingsError(
                f"{self.name}: rounds: the global set of {sites} sites is above the 64 MB that "
                "sites take in",
                hint="lower images_per_class or image.size, or play one round",
            )
        return study


def load_scenario(path: Path, data: Path | None = None) -> Scenario:
    """Read a scenario; `data` replaces its images, paths in it are relative to its folder.

    Raises:
        SettingsError: a key is wrong, or no images are named.
    """
    values = completed(read_toml(path))
    if data is not None:
        kind = {".npz": "npz", ".csv": "csv"}.get(data.suffix, "folder")
        values["images"] = {"kind": kind, "path": str(data.absolute())}
    scenario = parse_settings(Scenario, values, path.name)
    if scenario.images is None:
        raise SettingsError(
            f"{path.name}: images: no images are named",
            hint="add --data PATH (class folders, a CSV file or an npz), or an [images] table",
        )
    return _with_absolute_paths(scenario, path.parent.absolute())


def _with_absolute_paths(scenario: Scenario, folder: Path) -> Scenario:
    changes: dict[str, Any] = {}
    if isinstance(scenario.images, ImageFolder | ImageCsv | ImageNpz):
        images = with_absolute_paths(scenario.images, folder)
        changes["images"] = images
        folder = images.path.parent  # the external images are a neighbour of the images
    if scenario.external is not None:
        path = folder / scenario.external.path
        changes["external"] = scenario.external.model_copy(update={"path": path})
    return scenario.model_copy(update=changes)


def scenario_toml(scenario: Scenario) -> str:
    """The scenario as TOML, every default written out: reading it again gives an equal one.

    A sweep is written as it was given: what it leaves out differs from cell to cell.
    """
    given = scenario.sweep is not None
    values = scenario.model_dump(mode="json", exclude_none=True, exclude_unset=given)
    return tomli_w.dumps(values)
