from .accuracy import Accuracy
from .known import find_measured, greater_is_better, headlines, is_known
from .metrics import ExactIoUMetric
from .protocol import PROTOCOLS, Protocol, apply_protocol
from .report import ClassReport, write_report

__all__ = [
    'Accuracy', 'ClassReport', 'ExactIoUMetric', 'PROTOCOLS', 'Protocol', 'apply_protocol', 'find_measured',
    'greater_is_better', 'headlines', 'is_known', 'write_report'
]
