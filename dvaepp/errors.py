"""Errors a user of the commands can cause, each one line: the argument, the rule, the first offender, the way out.

A command prints them as ``train: error: ...`` and exits with code 2 (see ``command``). Anything else that escapes is a
defect of ours and keeps its traceback.
"""

from __future__ import annotations


class UserError(ValueError):
    """Base of everything a command reports in one line."""


class ConfigError(UserError):
    """A hyper-parameter, preset or flag that cannot be used."""


class DataError(UserError):
    """A data set that is missing, damaged or not what it should be."""


class RunError(UserError):
    """A run folder or checkpoint that is missing, damaged, taken or of another configuration."""


class NonFiniteError(UserError):
    """A term of the objective became NaN or infinite during training."""
