"""The same training with several seeds, since one run says little about another."""
import copy
import os.path as osp
from typing import Dict, Sequence

import numpy as np
from mmengine.config import Config
from prettytable import PrettyTable

from mmseg_inceptionnext.evaluation import headlines

from .run import train


def train_seeds(cfg: Config, seeds: Sequence[int], **options) -> Dict[int, Dict[str, float]]:
    """Runs :func:`train` once with each ``randomness.seed``, one after the other, in ``seed_N`` under ``cfg.work_dir``.

    Returns:
        By seed, the metrics of the last validation.
    """
    results = {}
    for seed in seeds:
        run = copy.deepcopy(cfg)
        run.work_dir = osp.join(cfg.work_dir, f'seed_{seed}')
        run.experiment_name = f'{osp.basename(osp.abspath(cfg.work_dir))}_seed_{seed}'
        run.randomness = dict(cfg.get('randomness', {}), seed=seed)
        results[seed] = train(run, **options)
    return results


def seeds_table(results: Dict[int, Dict[str, float]]) -> str:
    """A table of what :func:`train_seeds` returns, with mean and standard deviation (of the sample) below."""
    names = [name for name in headlines() if all(name in metrics for metrics in results.values())]
    if not names:
        return 'no run was validated, so there are no metrics to compare: set train_cfg.val_interval'
    table = PrettyTable(['seed', *names], align='r')
    for seed, metrics in results.items():
        table.add_row([seed, *(f'{metrics[name]:.2f}' for name in names)], divider=seed == list(results)[-1])
    columns = [[metrics[name] for metrics in results.values()] for name in names]
    table.add_row(['mean', *(f'{np.mean(column):.2f}' for column in columns)])
    if len(results) > 1:
        table.add_row(['sd', *(f'{np.std(column, ddof=1):.2f}' for column in columns)])
    table.add_row(['n', *(len(column) for column in columns)])
    return f'last validation of each run\n{table}'
