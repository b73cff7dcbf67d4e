"""What a run prints: losses, validations, and warnings that matter. The log file has everything."""
import logging
import time
import warnings
from contextlib import contextmanager
from datetime import timedelta
from typing import Iterator, Tuple

from mmengine.logging import print_log

DUMPS = (  # how MMEngine's records begin that go to the log file only
    '\n' + '-' * 60 + '\nSystem environment', 'Config:\n', 'Hooks will be executed', 'paramwise_options', 'Exp name: ',
    'Distributed training is not used', 'The prefix is not set in metric class', '"FileClient" will be deprecated',
    '"HardDiskBackend" is the alias', 'Checkpoints will be saved to', 'The previous best checkpoint',
    'absent from labels and predictions')
TABLES = ('per class, in percent', )  # of each validation of a training
WARNINGS = {  # that nobody can do anything about, by the module that gives them
    r'mmseg\.engine\.hooks\.visualization_hook': 'The draw is False',
    r'mmengine\.structures\.pixel_data': 'The shape of value will convert',
    r'mmseg_inceptionnext\.evaluation\.metrics': 'Mean of empty slice',  # the mean is NaN then, and is shown so
}


def keep_in_file(logger: logging.Logger, beginnings: Tuple[str, ...]) -> None:
    """Takes the records that begin so from a logger's console."""
    for handler in logger.handlers:
        if not isinstance(handler, logging.FileHandler):
            handler.addFilter(lambda record: not record.getMessage().startswith(beginnings))


def silence_warnings() -> None:
    """Silences what libraries warn of in each run, by name."""
    for module, message in WARNINGS.items():
        warnings.filterwarnings('ignore', message, module=module)


@contextmanager
def timed(stage: str) -> Iterator[None]:
    """Says how long a stage took."""
    begin = time.monotonic()
    yield
    print_log(f'{stage}: done in {timedelta(seconds=round(time.monotonic() - begin))}', logger='current')
