from .complexity import count_complexity
from .features import visualize_features
from .plot_log import describe, plot_log
from .run_log import read_run, read_runs
from .samples import Samples, draw_samples

__all__ = [
    'Samples', 'count_complexity', 'describe', 'draw_samples', 'plot_log', 'read_run', 'read_runs',
    'visualize_features'
]
