"""The one table: method name → function."""

from __future__ import annotations

from fedcondense.distill.idm import distill_idm

METHODS = {"idm": distill_idm}
