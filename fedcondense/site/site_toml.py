"""The commented SITE.toml that `fedcondense-site init` writes; every key is in ref-settings."""

from __future__ import annotations

from fedcondense.site.readiness import UNKNOWN_DIGEST

_TEXT = """\
# {name}: what this site decides alone. Every key: docs/ref-settings.md.
# Paths are relative to the folder of this file. `fedcondense-site check` says what is missing.

name = "{name}"
seed = {seed}    # start, sampling, augmentation; this site's own secret
state = "state"    # keys, ledger, cache; mode 0700, and in your backups

# From the server operator. Compare digest and fingerprint by voice or on paper, never by mail.
study = "study.toml"
study_digest = "{unknown}"
run_signing_fingerprint = "{unknown}"

threads = 2
device = "auto"    # the first CUDA device, or the CPU

[server]
address = "server.example.org:8444"    # outbound only: this site never listens
authority = "authority.pem"    # from the server operator; no other certificate is trusted

# Where the images are: class folders of DICOM, PNG or JPEG files, named as in the study; or a CSV
# file with the columns path, label, patient_id (docs/ref-data.md).
[images]
kind = "folder"
path = "images"
# burned_in = "unstated"    # also DICOM that does not say whether names are written into it

# What this site asks of a release; it can ask for more than the study, never for less.
[release]
min_patients_per_class = 100    # smaller classes are left out
audits = "quick"    # "full" adds membership inference, and hours
# needs_approval = true    # nothing leaves before the data officer has signed it
# officer = "..."    # fingerprint of the officer's key
# officer_key = "/media/officer/officer.key"    # made by `init` where it is missing

# What is answered at most, whatever the server asks.
[limits]
max_rounds = 10
max_requests_per_round = 50
max_synthetic_images = 20000
max_megabytes_in = 64

# Only for a study with differential privacy: the one budget of these patients, in all studies.
# [ledger]
# epsilon = 8.0
# delta = 1e-6
# unit = "patient"

# Numbers that this site makes public; differential privacy needs them before it reads an image.
# [declared]
# images = 5000
# patients = 4000

# What the data officer's own page says of the data; none of it leaves. Every key may be left out.
# [about]
# modality = "chest radiographs, CR and DX, front"
# inclusion = "adults, first film of a stay"
# period = "2019 to 2023"
# legal_basis = "..."
# ethics = "..."
# dpia = "..."
"""


def site_toml(name: str, seed: int) -> str:
    """The text for a site of that name, with its own seed."""
    return _TEXT.format(name=name, seed=seed, unknown=UNKNOWN_DIGEST)
