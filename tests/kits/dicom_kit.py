"""Small DICOM films with a planted patient, written as a hospital's archive would."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import UID, ComputedRadiographyImageStorage, ExplicitVRLittleEndian, generate_uid

NAME, PATIENT, BORN = "Mustermann^Erika", "PAT-4711", "19640812"
PLANTED = (NAME, "Mustermann", PATIENT, BORN, "Klinikum Musterstadt", "ACC-99")


def film(side: int = 16, bits: int = 12, seed: int = 0) -> np.ndarray:
    """Stored values that fill the range of their bits."""
    values = np.random.default_rng(seed).integers(0, 2**bits, (side, side))
    return values.astype(np.uint8 if bits == 8 else np.uint16)


def write_dicom(
    path: Path,
    pixels: np.ndarray,
    *,
    bits: int | None = None,
    syntax: UID | None = None,
    **tags: Any,
) -> Path:
    """Write `pixels` as DICOM, uncompressed, or compressed in `syntax` (RLE) by pydicom.

    Tags that are None are left out.
    """
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = ComputedRadiographyImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    allocated = 8 * pixels.dtype.itemsize
    stored = bits or allocated
    values: dict[str, Any] = {
        "SOPClassUID": meta.MediaStorageSOPClassUID,
        "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
        "PatientName": NAME,
        "PatientID": PATIENT,
        "PatientBirthDate": BORN,
        "InstitutionName": "Klinikum Musterstadt",
        "AccessionNumber": "ACC-99",
        "Modality": "CR",
        "BurnedInAnnotation": "NO",
        "PhotometricInterpretation": "MONOCHROME2",
        "SamplesPerPixel": 1,
        "Rows": pixels.shape[-2],
        "Columns": pixels.shape[-1],
        "BitsAllocated": allocated,
        "BitsStored": stored,
        "HighBit": stored - 1,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
        "PixelData": pixels.tobytes() + b"\0" * (pixels.nbytes % 2),
    }
    for keyword, value in (values | tags).items():
        if value is not None:
            setattr(dataset, keyword, value)
    if dataset.get("PixelData") is not None:
        dataset["PixelData"].VR = "OB" if allocated == 8 else "OW"
    if syntax is not None:
        dataset.compress(syntax, generate_instance_uid=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path
