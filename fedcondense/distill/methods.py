"""The one table, method name → function, and the one way to run what a study names."""

from __future__ import annotations

from typing import Protocol, cast, runtime_checkable

import torch

from fedcondense.config.study import Study
from fedcondense.distill.checkpoints import Checkpoints
from fedcondense.distill.coresets import select_forgetting, select_herding, select_random
from fedcondense.distill.dm import distill_dm
from fedcondense.distill.embedded import distill_embedded
from fedcondense.distill.idm import distill_idm
from fedcondense.distill.mtt import distill_mtt
from fedcondense.distill.source import EmbeddedSource, Source
from fedcondense.distill.synthetic import SyntheticSet
from fedcondense.distill.trajectories import ExpertStore
from fedcondense.errors import DeviceMemoryError
from fedcondense.learning.randomness import Seed
from fedcondense.progress import Step, Watch, silent


@runtime_checkable
class Method(Protocol):
    """What every method is: a function of the images that a site may use, and of the study."""

    def __call__(
        self,
        source: Source,
        study: Study,
        *,
        seed: Seed,
        watch: Watch = silent,
        checkpoints: Checkpoints | None = None,
        experts: ExpertStore | None = None,
    ) -> SyntheticSet:
        """Condense `source` into a synthetic set."""


METHODS: dict[str, Method] = {
    "random": select_random,
    "herding": select_herding,
    "forgetting": select_forgetting,
    "dm": distill_dm,
    "idm": distill_idm,
    "mtt": distill_mtt,
    "pruned-mtt": distill_mtt,
}


# the methods that can do with class means in place of images, then algorithms of their own
EMBEDDED = frozenset({"dm", "idm"})


def distill(
    source: Source,
    study: Study,
    *,
    seed: Seed,
    watch: Watch = silent,
    checkpoints: Checkpoints | None = None,
    experts: ExpertStore | None = None,
) -> SyntheticSet:
    """Condense `source` by the study's method, in the form that fits what the source grants.

    Where a GPU's memory does not suffice, once more with every batch halved, from the last
    checkpoint on.

    Raises:
        DivergedError: the method left the finite numbers.
        DeviceMemoryError: halved batches do not fit either.
    """
    method = _method(source, study)
    kept = {"seed": seed, "watch": watch, "checkpoints": checkpoints, "experts": experts}
    try:
        return method(source, study, **kept)  # type: ignore[arg-type]
    except torch.OutOfMemoryError:
        watch(Step("halving the batches: the device is out of memory", 0, 1))
    try:
        return method(source, with_halved_batches(study), **kept)  # type: ignore[arg-type]
    except torch.OutOfMemoryError as error:
        raise DeviceMemoryError(
            f"the memory of {source.device} does not suffice, also with halved batches",
            hint="lower image.size, network.width or the batches of [distill], or change device",
        ) from error


def _method(source: Source, study: Study) -> Method:
    name = study.distill.method
    if isinstance(source, EmbeddedSource) and name in EMBEDDED:
        return cast(Method, distill_embedded)  # it asks for more than a `Source`: that is given
    return METHODS[name]


def with_halved_batches(study: Study) -> Study:
    """The study with half of every batch that is matched, at least one image.

    Batches of experts stay: they are part of what experts are kept under.
    """
    settings = study.distill
    halved = {
        name: max(1, getattr(settings, name) // 2)
        for name in ("real_batch", "training_batch", "synthetic_batch")
        if hasattr(settings, name)
    }
    return study.model_copy(update={"distill": settings.model_copy(update=halved)})
