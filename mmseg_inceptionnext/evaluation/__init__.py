from .metrics import ExactIoUMetric
from .protocol import PROTOCOLS, Protocol, apply_protocol
from .report import ClassReport, write_report

__all__ = ['ClassReport', 'ExactIoUMetric', 'PROTOCOLS', 'Protocol', 'apply_protocol', 'write_report']
