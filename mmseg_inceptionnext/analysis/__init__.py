from .complexity import count_complexity
from .features import visualize_features
from .plot_log import describe, plot_log, read_run
from .samples import draw_samples, read_samples

__all__ = [
    'count_complexity', 'describe', 'draw_samples', 'plot_log', 'read_run', 'read_samples', 'visualize_features'
]
