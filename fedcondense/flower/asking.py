"""What sites are asked and told, put together from the run directory: read once, sent to each."""

from __future__ import annotations

from dataclasses import replace

from fedcondense.config.study import LARGEST_GLOBAL_SET
from fedcondense.errors import RunDirectoryError
from fedcondense.files.storage import read_arrays
from fedcondense.flower.messages import Ask
from fedcondense.server.run_directory import RunDirectory

ARRAYS = ("images", "labels", "soft")  # in the order in which they travel


def ask_of_round(run: RunDirectory, round: int) -> Ask:
    """The request for a contribution: from the second round on with what the one before gave.

    Raises:
        RunDirectoryError: that is missing.
    """
    if round == 1:
        return Ask(run.description_path.read_bytes(), round)
    return _with_result(run, round, given=round - 1)


def result_of_round(run: RunDirectory, round: int) -> Ask:
    """The message that tells what a concluded round gave; without a set that no site takes in.

    Raises:
        RunDirectoryError: the round is not concluded.
    """
    told = _with_result(run, round, given=round)
    return told if len(told.data) <= LARGEST_GLOBAL_SET else replace(told, data=b"")


def _with_result(run: RunDirectory, round: int, *, given: int) -> Ask:
    try:
        arrays = read_arrays(run.global_set(given) / "set.safetensors")
        result = run.result(given).read_bytes()
    except OSError:
        raise RunDirectoryError(
            f"{run.path.name}: what round {given} gave cannot be read",
            hint=f"move round-{given:03d}/done.json away, and the round is concluded again",
        ) from None
    data = b"".join(arrays[name].tobytes() for name in ARRAYS if name in arrays)
    return Ask(run.description_path.read_bytes(), round, result=result, data=data)
