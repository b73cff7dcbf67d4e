"""Errors of a user's making that a tool ends with as a sentence."""


class ConfigError(ValueError):
    """A command and its config do not go together; the message says what to change."""


class NonFiniteLossError(RuntimeError):
    """The loss was NaN or infinite too often in a row, or the weights are; the message says where to look."""
