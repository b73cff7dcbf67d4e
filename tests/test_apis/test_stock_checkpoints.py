"""What MMSegmentation's own tools write is read, evaluated, published and resumed as data, without trust."""
import math
from pathlib import Path

import mmseg
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from mmseg_inceptionnext import Segmenter
from mmseg_inceptionnext.apis import check_checkpoint, evaluate, publish_checkpoint, train
from mmseg_inceptionnext.config import load_config

from utils import ROOT, TOY

CONFIGS = Path(mmseg.__file__).parent / '.mim/configs'
SGD = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=0.0005))
ADAM = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-4, weight_decay=0.01), clip_grad=dict(max_norm=1.),
            paramwise_cfg=dict(custom_keys={'head': dict(lr_mult=10.)}, norm_decay_mult=0.))
BF16 = dict(type='AutocastOptimWrapper', dtype='bfloat16', optimizer=dict(type='Adam', lr=1e-4))
ACCUMULATED = dict(type='OptimWrapper', optimizer=dict(type='RMSprop', lr=1e-4), accumulative_counts=2)
POLY = [dict(type='PolyLR', eta_min=1e-4, power=0.9, begin=0, end=9, by_epoch=False)]
WARM = [dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=2),
        dict(type='CosineAnnealingLR', T_max=8, by_epoch=False, begin=2, end=9)]
ONE_CYCLE = [dict(type='OneCycleLR', eta_max=0.01, total_steps=9, by_epoch=False)]
STEPS = [dict(type='MultiStepLR', milestones=[1, 2], by_epoch=False),
         dict(type='ConstantMomentum', factor=0.9, by_epoch=False)]
EMA = [dict(type='EMAHook', ema_type='ExponentialMovingAverage', momentum=0.1)]
# A model of each kind of head, by its base config; how it is trained; other settings of the model.
RUNS = {
    'fcn_r50-d8': (SGD, POLY, [], dict(backbone=dict(depth=18), narrow=True)),
    'pspnet_r50-d8': (SGD, WARM, EMA, dict(backbone=dict(depth=18), narrow=True)),
    'deeplabv3plus_r50-d8': (ADAM, POLY, [], dict(backbone=dict(depth=18), narrow=True)),
    'upernet_swin': (ADAM, WARM, EMA, {}),
    'segformer_mit-b0': (ADAM, ONE_CYCLE, [], {}),
    'fpn_r50': (BF16, POLY, [], {}),
    'ocrnet_r50-d8': (SGD, STEPS, [], dict(backbone=dict(depth=18), narrow=True)),
    'bisenetv2': (ACCUMULATED, POLY, [], {}),
    'erfnet_fcn': (SGD, POLY, EMA, {}),
    'cgnet': (ADAM, STEPS, [], {}),
}


def stock_config(name, toy_root, work_dir):
    """MMSegmentation's model, trained on the toy dataset in its own label convention."""
    optimizer, schedulers, hooks, settings = RUNS[name]
    cfg = load_config(str(ROOT / TOY), work_dir=str(work_dir))
    model = Config.fromfile(CONFIGS / f'_base_/models/{name}.py').model
    model.pretrained = None
    model.backbone.update(settings.get('backbone', {}))
    model.backbone.pop('init_cfg', None)
    heads = [model.decode_head, model.get('auxiliary_head') or []]
    for head in [head for group in heads for head in (group if isinstance(group, list) else [group])]:
        head.num_classes = 150
        for loss in _parts(head.get('loss_decode', {})):
            loss.pop('class_weight', None)  # for another number of classes
        if settings.get('narrow'):  # ResNet-18 has a quarter of the channels
            head.in_channels //= 4
            if 'c1_in_channels' in head:
                head.c1_in_channels //= 4
    for part in _parts(model):
        if part.get('type') == 'SyncBN':
            part['type'] = 'BN'
    cfg.model, cfg.optim_wrapper, cfg.param_scheduler, cfg.custom_hooks = model, optimizer, schedulers, hooks
    cfg.model.data_preprocessor.size = Config.fromfile(ROOT / TOY).model.data_preprocessor.size
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.update(num_workers=0, persistent_workers=False)
        loader.dataset.update(type='mmseg.ADE20KDataset', data_root=str(toy_root))
        loader.dataset.pipeline = [step for step in loader.dataset.pipeline if step['type'] != 'CheckLabels']
    cfg.train_dataloader.update(batch_size=2, sampler=dict(type='InfiniteSampler', shuffle=True))
    cfg.train_cfg.update(max_iters=2, val_interval=2)
    cfg.val_evaluator = cfg.test_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
    cfg.default_hooks = dict(
        timer=dict(type='IterTimerHook'), logger=dict(type='LoggerHook', interval=1),
        param_scheduler=dict(type='ParamSchedulerHook'), sampler_seed=dict(type='DistSamplerSeedHook'),
        checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=1, save_best='mIoU', max_keep_ckpts=2),
        visualization=dict(type='SegVisualizationHook'))
    cfg.pop('runner_type', None)
    cfg.visualizer.name = f'{name} {work_dir}'  # MMEngine keeps the first of a name
    return cfg


def _parts(node):
    if isinstance(node, dict):
        yield node
        node = list(node.values())
    for item in node if isinstance(node, (list, tuple)) else ():
        yield from _parts(item)


@pytest.mark.slow
@pytest.mark.parametrize('name', RUNS)
def test_a_stock_checkpoint_is_read_evaluated_and_resumed(toy_root, tmp_path, name):
    Runner.from_cfg(stock_config(name, toy_root, tmp_path / 'stock')).train()
    checkpoint = str(tmp_path / 'stock/iter_2.pth')
    assert check_checkpoint(checkpoint)[1] == ''
    image = str(toy_root / 'images/validation/toy_validation_00000.jpg')
    mask = Segmenter(checkpoint)(image).mask
    published = publish_checkpoint(checkpoint, str(tmp_path / 'a.pth'))
    assert (Segmenter(published)(image).mask == mask).all()
    metrics = evaluate(stock_config(name, toy_root, tmp_path / 'test'), checkpoint)
    assert math.isfinite(metrics['mIoU'])
    cfg = stock_config(name, toy_root, tmp_path / 'resumed')
    cfg.train_cfg.max_iters = 3
    train(cfg, resume=checkpoint)
    before, after = (torch.load(path, weights_only=False) for path in (checkpoint, tmp_path / 'resumed/iter_3.pth'))
    assert after['meta']['iter'] == 3 and after['message_hub']['log_scalars']['train/loss'].data[0].size == 3
    assert before['optimizer']['param_groups'][0].keys() == after['optimizer']['param_groups'][0].keys()
    assert [len(part) for part in before['param_schedulers']] == [len(part) for part in after['param_schedulers']]
