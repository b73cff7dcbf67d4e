"""Errors that a user can do something about: tools end with their message, not with a traceback."""


class UserError(Exception):
    """The message says what was received, what is allowed, and the fix."""


class ConfigError(UserError, ValueError):
    """A command and its config do not go together."""


class InputError(UserError, ValueError):
    """An argument, or a file that it names, cannot be used."""


class SampleError(UserError, ValueError):
    """An image or a label cannot be trained on; names the file."""

    def __str__(self) -> str:
        # PyTorch hands an error of a worker process on as the text of its traceback. The message is the end of it.
        return super().__str__().rpartition(f'{type(self).__name__}: ')[2].strip()


class BrokenSampleError(SampleError):
    """A file that is missing, cannot be read, or is damaged; ``on_error='skip'`` of the dataset goes on without it."""


class LabelError(SampleError):
    """A label that can be read, but does not fit the image or the settings of the dataset; never skipped."""


class MissingDatasetError(UserError, FileNotFoundError):
    """A folder of the dataset is missing or empty; says where the data is published."""


class LostWorkerError(UserError, RuntimeError):
    """A process that loads data has died."""


class CheckpointError(UserError, RuntimeError):
    """A checkpoint cannot be had, read, written or used; names the file."""


class UnsafeCheckpointError(CheckpointError):
    """A checkpoint holds more than data, and nobody said that it is to be trusted."""


class DownloadError(CheckpointError):
    """The file cannot be downloaded; says where to put it by hand."""


class NonFiniteLossError(UserError, RuntimeError):
    """The loss was NaN or infinite too often in a row, or the weights are."""
