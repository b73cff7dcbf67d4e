from .metrics import CLASS_METRICS, ExactIoUMetric, LabelRangeError
from .report import ClassReport, write_report

__all__ = ['CLASS_METRICS', 'ClassReport', 'ExactIoUMetric', 'LabelRangeError', 'write_report']
