"""Several processes on one machine, by gloo: the same gradients, the same evaluation, and an end when one is lost."""
import json
import os
import time

import pytest
import torch
from mmengine.model import revert_sync_batchnorm
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import distributed, multiprocessing

from mmseg_inceptionnext.apis import evaluate, train
from mmseg_inceptionnext.config import load_config
from mmseg_inceptionnext.datasets import make_toy_crops
from mmseg_inceptionnext.engine import SegRunner, build_runner, end_processes
from mmseg_inceptionnext.models import MemoryEfficientEncoderDecoder

from utils import ROOT, TOY, randomise, run_script, save_checkpoint, short_config, total_loss

UPERNET = 'configs/upernet_inceptionnext_a_ade20k.py'
NARROW = {'model.decode_head.channels': 16, 'model.auxiliary_head.channels': 16, 'model.backbone.drop_path_rate': 0.,
          'model.decode_head.dropout_ratio': 0., 'model.auxiliary_head.dropout_ratio': 0.}
COUNTS = (2, 3)  # processes, to compare with one
IMAGES = (2, 3)  # which one of the counts divides evenly, the other not
SECONDS_TO_END = 60  # at most, after a process was lost


def toy_config(toy_root, work_dir, images, launcher):
    cfg = load_config(str(ROOT / TOY), {'data_root': str(toy_root)}, str(work_dir), launcher)
    cfg.test_dataloader.update(num_workers=0, persistent_workers=False)
    cfg.test_dataloader.dataset.indices = images
    return cfg


def loss_of(model, inputs, labels):
    """Sum of a segmentor's losses, without dropout."""
    samples = [SegDataSample(gt_sem_seg=PixelData(data=label[None]), metainfo=dict(img_shape=label.shape))
               for label in labels]
    return total_loss(model(inputs, samples, mode='loss'))


def half_the_gradients(rank, folder, data):
    """Backward of this process's half of the batch; the first process saves what the two of them agreed on."""
    cfg = load_config(str(ROOT / UPERNET), dict(NARROW), f'{folder}/gradients', 'pytorch')
    runner = build_runner(cfg)
    assert isinstance(runner, SegRunner)
    model = MODELS.build(cfg.model).double().train()
    model.load_state_dict(data['state'])
    parallel = runner.wrap_model(None, model)
    half = slice(2 * rank, 2 * rank + 2)
    loss_of(parallel, data['inputs'][half], data['labels'][half]).backward()
    if rank == 0:
        found = {name: p.grad for name, p in parallel.module.named_parameters()}
        torch.save((found, dict(parallel.module.named_buffers())), f'{folder}/gradients.pth')


def train_a_classifier(folder, crops, work_dir, batch_size, launcher):
    """Three iterations of the toy classifier on the same images, without any chance."""
    cfg = load_config(str(ROOT / 'configs/pretrain/inceptionnext_a_toy.py'), {'data_root': crops}, work_dir, launcher)
    cfg.model.backbone.update(arch=dict(depths=(1, 1, 1, 1), dims=(16, 24, 32, 48)), norm_cfg=dict(type='SyncBN'))
    cfg.train_dataloader.dataset.transform = cfg.val_dataloader.dataset.transform
    cfg.train_dataloader.update(batch_size=batch_size, num_workers=0, persistent_workers=False)
    cfg.val_dataloader.update(num_workers=0, persistent_workers=False)
    classes = len(os.listdir(f'{crops}/train'))
    for part in (cfg.model, cfg.model.data_preprocessor.mixup, cfg.train_dataloader.dataset,
                 cfg.val_dataloader.dataset):
        part.num_classes = classes
    cfg.randomness = dict(seed=0)
    cfg.optim_wrapper.optimizer = dict(type='SGD', lr=0.1)  # AdamW makes steps of what is zero but for rounding
    cfg.train_cfg.update(max_iters=3, val_interval=3)
    return train(cfg)


def train_with_a_bad_loss(rank, folder, toy_root):
    """Three iterations; in the second the loss of the second process is NaN."""
    count, loss = iter(range(3)), MemoryEfficientEncoderDecoder.loss

    def loss_once_bad(self, inputs, samples):
        factor = float('nan') if next(count) == 1 and rank == 1 else 1.
        return {name: value * factor for name, value in loss(self, inputs, samples).items()}

    cfg = short_config(toy_root, f'{folder}/bad_loss', val_interval=100)
    cfg.launcher = 'pytorch'
    cfg.train_dataloader.batch_size = 2
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MemoryEfficientEncoderDecoder, 'loss', loss_once_bad)
        train(cfg)


def process(rank, folder, toy_root):
    """One of three processes: in a group of 2, then of 3, they evaluate; the 2 also find gradients and train."""
    os.chdir(folder)  # MMEngine collects results in the current folder
    torch.set_num_threads(1)
    for count in COUNTS:
        if rank >= count:
            continue
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(count))
        distributed.init_process_group('gloo', f'file://{folder}/store{count}', rank=rank, world_size=count)
        for images in IMAGES:
            cfg = toy_config(toy_root, f'{folder}/{count}_{images}', images, 'pytorch')
            evaluate(cfg, f'{folder}/toy.pth')
        if count == 2:
            half_the_gradients(rank, folder, torch.load(f'{folder}/data.pth'))
            train_with_a_bad_loss(rank, folder, toy_root)
            train_a_classifier(folder, f'{folder}/crops', f'{folder}/classifier2', 4, 'pytorch')
        end_processes()
        assert not distributed.is_initialized()


@pytest.fixture(scope='module')
def outcome(toy_root, tmp_path_factory):
    """What the processes left: the folder, and the model and the batch whose gradients they computed."""
    folder = tmp_path_factory.mktemp('processes')
    torch.manual_seed(0)
    toy = torch.load(save_checkpoint(TOY, folder / 'toy.pth'), weights_only=False)
    toy['state_dict']['decode_head.conv_seg.bias'][[2, 4, 6]] += 100  # sky, tree and road, which are in the pictures
    torch.save(toy, folder / 'toy.pth')
    cfg = load_config(str(ROOT / UPERNET), dict(NARROW))
    model = randomise(MODELS.build(cfg.model)).double()
    labels = torch.randint(0, 150, (4, 64, 64))
    labels[0, :50] = labels[3, 5:, 7:] = 255  # the halves have unlike shares of pixels that do not count
    data = dict(state=model.state_dict(), inputs=torch.randn(4, 3, 64, 64).double(), labels=labels)
    torch.save(data, folder / 'data.pth')
    make_toy_crops(str(toy_root), str(folder / 'crops'), count=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('CUDA_VISIBLE_DEVICES', '')
        multiprocessing.spawn(process, (str(folder), str(toy_root)), max(COUNTS))
    return folder, revert_sync_batchnorm(model), data


def test_two_processes_find_the_gradients_of_one(outcome):
    folder, model, data = outcome
    loss_of(model.train(), data['inputs'], data['labels']).backward()
    found, buffers = torch.load(folder / 'gradients.pth')
    expected = {name: p.grad for name, p in model.named_parameters()}
    assert len(expected) > 200 and all(grad.abs().sum() > 0 for grad in expected.values())
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(buffers, dict(model.named_buffers()), rtol=1e-9, atol=1e-12)


def test_two_processes_train_a_classifier_as_one_does(outcome, tmp_path):
    folder = outcome[0]
    metrics = train_a_classifier(folder, str(folder / 'crops'), str(tmp_path), 8, 'none')
    states = [torch.load(path / 'iter_3.pth', weights_only=False)['state_dict'] for path in (
        tmp_path, folder / 'classifier2')]
    start = torch.load(folder / 'classifier2/iter_3.pth', weights_only=False)
    assert start['meta']['iter'] == 3 and set(metrics) >= {'top1', 'top5'}
    torch.testing.assert_close(*states, rtol=1e-3, atol=1e-5)


def test_evaluation_does_not_depend_on_the_processes(outcome, toy_root, tmp_path):
    folder, _, _ = outcome
    alone = {}
    for images in IMAGES:
        evaluate(toy_config(toy_root, tmp_path / str(images), images, 'none'), str(folder / 'toy.pth'))
        alone[images] = json.loads((tmp_path / str(images) / 'metrics.json').read_text())
    assert all(0 < metrics['mIoU'] < 100 for metrics in alone.values())
    assert alone[2]['aAcc'] != alone[3]['aAcc'] and alone[2]['mIoU'] != alone[3]['mIoU']  # every image shows
    for images, metrics in alone.items():
        for count in COUNTS:
            assert json.loads((folder / f'{count}_{images}' / 'metrics.json').read_text()) == metrics, (count, images)


def test_a_loss_that_is_bad_in_one_process_changes_nothing_in_any(outcome):
    folder = outcome[0] / 'bad_loss'
    states = [torch.load(folder / f'iter_{i}.pth', weights_only=False)['state_dict'] for i in (1, 2, 3)]
    assert all(torch.equal(states[1][key], value) for key, value in states[0].items())
    assert all(torch.isfinite(value).all() for value in states[2].values())
    assert any(not torch.equal(states[2][key], value) for key, value in states[1].items())
    report, = folder.glob('nonfinite*.json')
    assert report.name == 'nonfinite_iter_2_rank1.json' and len(json.loads(report.read_text())['files']) == 2


LOST = '''
import os, signal, time
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmseg.registry import HOOKS

@HOOKS.register_module()
class LostHook(Hook):
    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == 1 and get_rank() == 1:
            with open({file!r}, 'w') as file:
                file.write(str(time.time()))
            {action}
'''


@pytest.mark.slow
@pytest.mark.parametrize('action,timeout,words', [
    ('os.kill(os.getpid(), signal.SIGKILL)', 1800, 'SIGKILL'), ('time.sleep(1000)', 12, 'imed out'),
], ids=['killed', 'hanging'])
def test_a_lost_process_ends_the_others(toy_root, tmp_path, action, timeout, words):
    """Two processes train, and one is lost in the second iteration."""
    (tmp_path / 'lost.py').write_text(LOST.format(file=str(tmp_path / 'time'), action=action))
    (tmp_path / 'config.py').write_text(
        f"_base_ = '{ROOT / TOY}'\ncustom_imports = dict(imports=['mmseg_inceptionnext', 'lost'])\n"
        f"custom_hooks = [dict(type='LostHook')]\nenv_cfg = dict(dist_cfg=dict(timeout={timeout}))\n")
    result = run_script(
        'dist_train.sh', tmp_path / 'config.py', 2, '--work-dir', tmp_path / 'work', '--cfg-options',
        f'data_root={toy_root}', 'train_dataloader.num_workers=1', check=False, PYTHONPATH=f'{ROOT}:{tmp_path}',
        CUDA_VISIBLE_DEVICES='', OMP_NUM_THREADS='1', PORT='29631')
    seconds = time.time() - float((tmp_path / 'time').read_text())
    assert result.returncode == 1 and words in result.stdout, result.stdout[-4000:]
    assert seconds < SECONDS_TO_END
