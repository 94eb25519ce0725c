"""All errors that an operator can act on; each has a stable code and a hint.

    FedcondenseError
    ├── SettingsError          FC101  exit 2
    ├── RunDirectoryError      FC102
    ├── Interrupted            FC103
    ├── WorkerLost             FC104
    ├── ImageError             FC201
    ├── DataError              FC202
    ├── TooFewImages           FC203
    ├── DivergedError          FC301
    ├── ExpertsRejected        FC302
    ├── DeviceMemoryError      FC303
    ├── ReleaseRefused         FC401  exit 3
    ├── ContributionRejected   FC402
    ├── KeyFileError           FC403
    ├── DescriptionRejected    FC404
    ├── ApprovalMissing        FC405  exit 3
    ├── BudgetExhausted        FC406  exit 3
    ├── LedgerError            FC407
    ├── EnrolmentRejected      FC408
    ├── LimitExceeded          FC409
    ├── QuorumMissed           FC501
    ├── FederationError        FC502
    └── InternalError          FC901

Codes are never reused. To a peer goes the code alone; message and hint stay with the operator.
"""

from __future__ import annotations

from typing import ClassVar


class FedcondenseError(Exception):
    """What is wrong and where (`message`), and what to do about it (`hint`).

    Both are lower case without a full stop and hold no patient data.
    """

    code: ClassVar[str]
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class SettingsError(FedcondenseError):
    """A TOML file, or what it names, cannot be used as it is."""

    code = "FC101"
    exit_code = 2


class RunDirectoryError(FedcondenseError):
    """The run directory holds something else, or cannot be written."""

    code = "FC102"


class Interrupted(FedcondenseError):
    """The operator stopped the run; what was finished is kept."""

    code = "FC103"


class WorkerLost(FedcondenseError):
    """A process that computed for us was killed, most often for lack of memory."""

    code = "FC104"


class ImageError(FedcondenseError):
    """One image cannot be read."""

    code = "FC201"


class DataError(FedcondenseError):
    """An image source as a whole cannot be used."""

    code = "FC202"


class TooFewImages(FedcondenseError):
    """No class at this site is large enough to condense."""

    code = "FC203"


class DivergedError(FedcondenseError):
    """The distillation left the finite numbers."""

    code = "FC301"


class ExpertsRejected(FedcondenseError):
    """Kept experts are not those of these images and settings, or have changed on disk."""

    code = "FC302"


class DeviceMemoryError(FedcondenseError):
    """The computation does not fit into the memory of its device."""

    code = "FC303"


class ReleaseRefused(FedcondenseError):
    """The gate refused; nothing leaves the site."""

    code = "FC401"
    exit_code = 3


class ContributionRejected(FedcondenseError):
    """Received bytes are not a contribution that this run accepts.

    `reason` is one word of a closed list (docs/ref-contribution-format.md); the text names no
    value from the bytes.
    """

    code = "FC402"

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"contribution rejected: {reason}",
            hint="see the reason in docs/ref-contribution-format.md",
        )
        self.reason = reason


class KeyFileError(FedcondenseError):
    """A key file is missing, malformed, or readable by others."""

    code = "FC403"


class DescriptionRejected(FedcondenseError):
    """A run description is not the one that this site agreed to."""

    code = "FC404"


class ApprovalMissing(FedcondenseError):
    """The data officer has not signed what would leave, or signed something else."""

    code = "FC405"
    exit_code = 3


class BudgetExhausted(FedcondenseError):
    """The site's ledger does not allow what a study would cost; no image was read for it."""

    code = "FC406"
    exit_code = 3


class LedgerError(FedcondenseError):
    """The site's ledger is lost, was altered or rolled back; nothing can be charged to it."""

    code = "FC407"


class EnrolmentRejected(FedcondenseError):
    """An enrolment request is malformed, altered, or of a key that is not accepted."""

    code = "FC408"


class LimitExceeded(FedcondenseError):
    """A request goes beyond what the site answers at most; no image was read for it."""

    code = "FC409"


class QuorumMissed(FedcondenseError):
    """Fewer valid contributions than the study's quorum; none of them is used."""

    code = "FC501"


class FederationError(FedcondenseError):
    """A Flower process failed or never became ready."""

    code = "FC502"


class InternalError(FedcondenseError):
    """An error of our own; a peer is told this code and nothing else."""

    code = "FC901"
