"""File names as old archives have them pass the whole of a hospital's path."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hospital_kit import CLASSES, Hospital, films
from PIL import Image

from fedcondense.site.contribute import preview


@pytest.mark.usefixtures("audits_pass")
def test_a_name_that_is_no_utf8_is_condensed_and_sealed(tmp_path: Path) -> None:
    arrays = films((8, 8, 8))
    for row, (pixels, label) in enumerate(zip(arrays["images"], arrays["labels"], strict=True)):
        folder = tmp_path / "data" / CLASSES[label]
        folder.mkdir(parents=True, exist_ok=True)
        odd = os.fsdecode(b"M\xfcller-%d.png" % row)  # in Latin-1
        Image.fromarray(pixels).save(folder / odd)
    images = {"kind": "folder", "path": str(tmp_path / "data")}
    hospital = Hospital(tmp_path / "site", held_out=0.2, settings={"images": images})

    preview(hospital.site, hospital.study, round=1)
    sealed = hospital.contribute()

    assert hospital.open(sealed).site == "site-1"
    assert b"ller-" not in hospital.plaintext(sealed)
