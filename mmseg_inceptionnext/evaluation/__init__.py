from .metrics import ExactIoUMetric

__all__ = ['ExactIoUMetric']
