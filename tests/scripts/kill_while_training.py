"""Kills a training again and again, on a disk that may be full, and checks that nothing is lost.

    python tests/scripts/kill_while_training.py --kills 20

Trains the toy config, with two workers and a checkpoint in every iteration, kills it by SIGKILL at a random moment, and
resumes it. After each kill every checkpoint must read whole; at the end the weights must be those of a run that was
never stopped, bit for bit. With --tmpfs DIR (as root) a disk of 200 MiB is mounted there first, and a training fills
it; what was written before must still be whole. Slow: about ten seconds for each kill.
"""
import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from tqdm import trange

from mmseg_inceptionnext.checkpoints import load_source
from mmseg_inceptionnext.checkpoints.files import checkpoints_in, find_damage
from mmseg_inceptionnext.datasets import make_toy_ade20k

ROOT = Path(__file__).resolve().parents[2]


def parse_args():
    parser = argparse.ArgumentParser(description='Kill trainings and check that nothing is lost')
    parser.add_argument('--kills', type=int, default=20, help='how often (default: 20)')
    parser.add_argument('--seed', type=int, default=0, help='of the moments')
    parser.add_argument('--tmpfs', metavar='DIR', help='also fill a small disk mounted here (as root)')
    return parser.parse_args()


def command(work_dir, data, iterations):
    return [sys.executable, 'tools/train.py', 'configs/fpn_inceptionnext_a_toy.py', '--work-dir', str(work_dir),
            '--deterministic', '--resume', '--cfg-options', f'data_root={data}', 'randomness.seed=0',
            f'train_cfg.max_iters={iterations}', 'train_cfg.val_interval=1000', 'default_hooks.checkpoint.interval=1',
            'default_hooks.checkpoint.max_keep_ckpts=10', 'train_dataloader.batch_size=2',
            'train_dataloader.num_workers=2', 'model.backbone.drop_path_rate=0.3']


def run(work_dir, data, iterations):
    return subprocess.run(command(work_dir, data, iterations), cwd=ROOT, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT)


def kill_once(work_dir, data, iterations, moment):
    """Trains until a new checkpoint is there, and a moment longer. Returns the newest checkpoint's number."""
    before = newest(work_dir)
    process = subprocess.Popen(command(work_dir, data, iterations), cwd=ROOT, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    while newest(work_dir) == before and process.poll() is None:
        time.sleep(0.01)
    time.sleep(moment)
    process.send_signal(signal.SIGKILL)
    process.wait()
    for path in checkpoints_in(str(work_dir)):
        assert not find_damage(path), f'{path}: {find_damage(path)}'
    assert newest(work_dir) > before, 'a checkpoint that was there is lost'
    return newest(work_dir)


def newest(work_dir):
    paths = checkpoints_in(str(work_dir))
    return int(Path(paths[0]).stem.split('_')[1]) if paths else 0


def fill_disk(folder, data):
    subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=200m', 'tmpfs', folder], check=True)
    try:
        result = run(Path(folder) / 'work', data, 1000)
        paths = checkpoints_in(f'{folder}/work')
        assert result.returncode == 1 and 'could not be written' in result.stdout, result.stdout[-2000:]
        assert paths and not any(find_damage(path) for path in paths)
        print(result.stdout.splitlines()[-1])
    finally:
        subprocess.run(['umount', folder], check=True)


def main():
    args = parse_args()
    moments = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        data, work_dir, straight = (Path(folder) / name for name in ('data', 'work', 'straight'))
        make_toy_ade20k(str(data), num_train=8, num_val=1, seed=0)
        if args.tmpfs:
            fill_disk(args.tmpfs, data)
        reached = 0
        for _ in trange(args.kills, desc='kills', unit='kill'):
            reached = kill_once(work_dir, data, 10**6, moments.uniform(0, 0.5))
        for target in (work_dir, straight):
            result = run(target, data, reached + 2)
            assert result.returncode == 0, result.stdout[-2000:]
        states = [load_source(str(target / f'iter_{reached + 2}.pth'))['state_dict'] for target in (work_dir, straight)]
        assert all(torch.equal(value, states[1][key]) for key, value in states[0].items()), 'the weights differ'
    print(f'{args.kills} kills, {reached} iterations: nothing was lost; the weights are those of a run without a stop')


if __name__ == '__main__':
    main()
