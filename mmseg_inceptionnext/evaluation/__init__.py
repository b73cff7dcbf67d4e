from .metrics import CLASS_METRICS, ExactIoUMetric
from .report import ClassReport, write_report

__all__ = ['CLASS_METRICS', 'ClassReport', 'ExactIoUMetric', 'write_report']
