"""Every class of error of a row: found with its place and its mend, and mended where that is safe.

`check_row` looks at one row, `mend_row` mends it, `validate` does both for whole files in constant memory.
"""

from __future__ import annotations

from tunesmith.data.validation.codes import CODES, GuideName
from tunesmith.data.validation.finding import Finding, Severity
from tunesmith.data.validation.validating import Fixed, Rules, Validation, validate

__all__ = ["CODES", "Finding", "Fixed", "GuideName", "Rules", "Severity", "Validation", "validate"]
