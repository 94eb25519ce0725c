"""The page that a site's data officer reads: what would leave, and what was tried against it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fedcondense.config.site import SiteConfig
from fedcondense.config.study import Study
from fedcondense.data.dataset import LabeledImages
from fedcondense.exchange.contribution import Payload, decode_payload
from fedcondense.files.storage import read_arrays, write_arrays
from fedcondense.privacy.likeness import Kind
from fedcondense.privacy.matches import closest_pictures
from fedcondense.privacy.record_page import Approving, Likeness, LocalRecord, write_record_page
from fedcondense.site.officer import is_approved_here, pinned_officer
from fedcondense.site.payload import payload_of
from fedcondense.site.state import LocalFigures, RoundState

SHOWN = 12


def keep_likenesses(
    state: RoundState, payload: Payload, study: Study, train: LabeledImages
) -> None:
    """Keep the pictures of the set that are most like a patient's, each beside that patient's."""
    matches = closest_pictures(decode_payload(payload), study=study, train=train)[:SHOWN]
    arrays: dict[str, np.ndarray] = {
        "labels": np.array([match.label for match in matches], dtype=np.int64),
        "likeness": np.array([match.likeness for match in matches], dtype=np.float64),
        "is_part": np.array([match.kind is not Kind.WHOLE for match in matches], dtype=np.bool_),
    }
    for number, match in enumerate(matches):
        arrays[f"synthetic.{number}"] = match.synthetic
        arrays[f"training.{number}"] = match.training
    write_arrays(state.likenesses, arrays)


def write_page(
    site: SiteConfig, study: Study, state: RoundState, payload: Payload, record: Mapping[str, Any]
) -> Path:
    """Write the page of the kept set and its record, refused or not; it stays at the site."""
    figures = state.figures()
    local = LocalRecord(
        site=site.name,
        study=study,
        payload=payload,
        record=record,
        audits=state.audits(payload.sha256),
        training=_learned_from(figures),
        likenesses=_likenesses(state, study),
        approving=Approving(
            needed=site.release.needs_approval,
            officer=pinned_officer(site),
            given=is_approved_here(site, state, payload.sha256),
            command=f"fedcondense-site approve SITE.toml {record['round']}",
        ),
        about=_about(site),
    )
    write_record_page(state.page, local)
    return state.page


def write_page_again(site: SiteConfig, study: Study, state: RoundState) -> Path:
    """Write the page anew from what is kept, since the officer has decided."""
    return write_page(site, study, state, payload_of(state, study), state.record())


def _about(site: SiteConfig) -> dict[str, str]:
    """What site.toml says, by the words under which the page shows it."""
    about = site.about
    said = {
        "Modality": about.modality,
        "Who is included": about.inclusion,
        "Period": about.period,
        "Legal basis": about.legal_basis,
        "Ethics vote": about.ethics,
        "Impact assessment": about.dpia,
    }
    return {subject: words for subject, words in said.items() if words is not None}


def _learned_from(figures: LocalFigures) -> dict[str, int]:
    """Images of each class that is in the set: no other class is shown by it."""
    counts = figures.class_counts.items()
    return {name: count for name, count in counts if name not in figures.left_out}


def _likenesses(state: RoundState, study: Study) -> tuple[Likeness, ...]:
    if not state.likenesses.exists():
        return ()
    arrays = read_arrays(state.likenesses)
    return tuple(
        Likeness(
            synthetic=arrays[f"synthetic.{number}"],
            real=arrays[f"training.{number}"],
            class_name=study.classes[label],
            likeness=float(arrays["likeness"][number]),
            part="a part of an image" if arrays["is_part"][number] else "whole image",
        )
        for number, label in enumerate(arrays["labels"].tolist())
    )
