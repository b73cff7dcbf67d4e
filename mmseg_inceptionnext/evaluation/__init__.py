from .metrics import ExactIoUMetric
from .report import ClassReport, write_report

__all__ = ['ClassReport', 'ExactIoUMetric', 'write_report']
