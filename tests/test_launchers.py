"""The shell scripts that start several processes, on one machine or on several."""
from concurrent.futures import ThreadPoolExecutor

import pytest

from utils import SHORT, TOY, printed_miou, run_script, run_tool


@pytest.mark.slow
def test_the_launchers_run_two_processes(toy_root, tmp_path):
    """Training on one machine, evaluation on two of which both are this one."""
    options = (f'data_root={toy_root}', *SHORT)
    env = dict(OMP_NUM_THREADS='1', PORT='29617', CUDA_VISIBLE_DEVICES='')
    text = run_script('dist_train.sh', TOY, 2, '--work-dir', tmp_path, '--cfg-options', *options, **env).stdout
    assert 'the recipe has 6, this run has 12 (2 processes x 6 images)' in text
    assert 'the processes talk by gloo' in text and (tmp_path / 'iter_2.pth').is_file()

    def on_machine(number):
        return run_script('dist_test.sh', TOY, tmp_path / 'iter_2.pth', 1, '--work-dir', tmp_path, '--cfg-options',
                          *options, NNODES='2', NODE_RANK=number, MASTER_ADDR='127.0.0.1', **env).stdout

    with ThreadPoolExecutor() as pool:
        texts = list(pool.map(on_machine, '01'))
    alone = run_tool('tools/test.py', TOY, tmp_path / 'iter_2.pth', '--work-dir', tmp_path / 'alone', '--cfg-options',
                     *options).stdout
    assert printed_miou(texts[0]) == printed_miou(alone)
    for name in ('metrics.json', 'per_class.csv', 'confusion.npy'):  # three images: one process sees one of them twice
        assert (tmp_path / name).read_bytes() == (tmp_path / 'alone' / name).read_bytes()
    assert 'Iter(test) [2/2]' in texts[0] and 'Iter(test)' not in texts[1]  # two of the three images each, one once


@pytest.mark.parametrize('script,args', [('dist_train.sh', ['cfg.py']), ('dist_test.sh', ['cfg.py', 'w.pth'])])
def test_a_machine_of_several_needs_a_number_and_the_first_ones_address(script, args):
    for env, missing in ((dict(MASTER_ADDR='node0'), 'NODE_RANK'), (dict(NODE_RANK='1'), 'MASTER_ADDR')):
        result = run_script(script, *args, 8, NNODES='2', check=False, **env)
        assert result.returncode == 1 and f'{missing}: ' in result.stdout and 'NNODES=2 machines' in result.stdout
    usage = run_script(script, check=False)
    assert usage.returncode == 2 and f'tools/{script} CONFIG' in usage.stdout and 'PORT in' in usage.stdout


@pytest.mark.parametrize('script,args,words', [
    ('slurm_train.sh', ['gpu', 'job', 'cfg.py'],
     ['-p gpu --job-name=job', 'train.py cfg.py --launcher slurm']),
    ('slurm_test.sh', ['gpu', 'job', 'cfg.py', 'w.pth'], ['test.py cfg.py w.pth --launcher slurm']),
])
def test_slurm_scripts_hand_everything_on(tmp_path, script, args, words):
    srun = tmp_path / 'srun'
    srun.write_text('#!/bin/sh\necho "$@"\n')
    srun.chmod(0o755)
    path = f'{tmp_path}:/usr/bin:/bin'
    text = run_script(script, *args, '--cfg-options', 'a=b c', GPUS='16', PATH=path).stdout
    assert all(word in text for word in [*words, '--gres=gpu:8 --ntasks=16 --ntasks-per-node=8',
                                         '--cfg-options a=b c']), text
    assert '--gres=gpu:4 --ntasks=4 --ntasks-per-node=4' in run_script(script, *args, GPUS='4', PATH=path).stdout
    usage = run_script(script, check=False)
    assert usage.returncode == 2 and f'tools/{script} PARTITION' in usage.stdout
