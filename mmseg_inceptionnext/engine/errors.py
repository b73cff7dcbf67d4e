"""Errors of a user's making that a tool ends with as a sentence."""


class ConfigError(ValueError):
    """A command and its config do not go together; the message says what to change."""
