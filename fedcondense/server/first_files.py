"""The commented SERVER.toml and STUDY.toml that `fedcondense-server init` writes."""

from __future__ import annotations

_SERVER = """\
# What the coordinator decides alone. Every key: docs/ref-settings.md.
# Paths are relative to the folder of this file; it holds no secret.

study = "STUDY.toml"    # what all sites agreed on
runs = "runs"           # one directory a run: sealed contributions, global set, report

threads = 2             # processes that evaluate, one core each
device = "auto"         # the first CUDA device, or the CPU

[address]
# Every name and address that sites use. A new one needs a new certificate: move keys/server.pem
# and keys/server.key away and give `fedcondense-server init SERVER.toml` again.
names = ["{name}"]
listen = "{listen}"
port = 8444             # the only port that sites need
admin_port = 8445       # of 127.0.0.1, as the next one: this machine is the server's alone
health_port = 8446

[time]
deadline = "72 h"       # after the start of a run; who has not contributed by then is missing
joining = "30 min"      # nobody is asked before a quorum is online, or this time is over

# Images that the global synthetic set is scored on. Nothing is ever trained on them, and no site
# sees them: class folders named as in the study, an npz archive, or phantoms to try the software.
[evaluation]
kind = "phantoms"
images_per_class = 100
seed = 1000
# kind = "folder"
# path = "evaluation"

# What the server takes in. No contribution is ever larger than 64 MiB.
[limits]
attempts = 5
stored_megabytes = 2048
"""

_STUDY = """\
# What all sites agree on. Its digest is what they pin: after the first one has, nothing in here
# can change. `fedcondense-server init SERVER.toml` prints the digest again. Every key:
# docs/ref-settings.md.

name = "chest"
classes = ["COVID", "Lung_Opacity", "Normal", "Viral_Pneumonia"]    # the order is the labels'
images_per_class = 20    # synthetic images that each site makes of each class
quorum = 2               # sites without which nothing is opened
rounds = 1               # in each further one, sites refine from the global synthetic set
seed = 0                 # public: evaluation

[image]
size = 112               # pixels; every site presents its images in this form
channels = 1

[network]
width = 32
depth = 4

[distill]
method = "idm"
preset = "short"

# Without differential privacy there is no formal guarantee; every site's audits run all the same.
# [privacy]
# mode = "dp-embed"
# epsilon = 8.0
# unit = "patient"

[evaluation]
networks = 5
"""


def server_toml(name: str) -> str:
    """A SERVER.toml for a server that sites find by this name or address."""
    listen = "::" if ":" in name else "0.0.0.0"  # the former hears IPv4, too
    return _SERVER.replace("{name}", name).replace("{listen}", listen)


def study_toml() -> str:
    """A STUDY.toml to begin with."""
    return _STUDY
