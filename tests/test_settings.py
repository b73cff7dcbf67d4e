"""Wrong settings end with a sentence that names them before the first iteration; right ones are left alone."""
from pathlib import Path

import mmseg
import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.hooks import CheckpointHook, EMAHook, Hook
from mmengine.model import BaseModule
from mmseg.registry import HOOKS, METRICS, MODELS

from mmseg_inceptionnext.apis import train
from mmseg_inceptionnext.config import load_config
from mmseg_inceptionnext.engine.check import check_custom_keys, check_views
from mmseg_inceptionnext.engine.check.settings import check_settings
from mmseg_inceptionnext.engine.check.signatures import accepted
from mmseg_inceptionnext.errors import ConfigError, InputError, SampleError

from utils import ROOT, TOY, short_config

CONFIGS = sorted(path for path in (ROOT / 'configs').rglob('*.py') if '_base_' not in path.parts)
MEANT = 'did you mean {}?'.format

# what --cfg-options says, and parts of the sentence
TOLD_BY_THE_CHECK = [
    # names
    ({'train_cfg.val_intervall': 2}, ('train_cfg.val_intervall', MEANT('val_interval'))),
    ({'train_cfg.max_epochs': 2}, ('train_cfg.max_epochs', 'max_iters')),
    ({'train_dataloader.batchsize': 2}, ('train_dataloader.batchsize', MEANT('batch_size'))),
    ({'val_dataloader.num_worker': 2}, ('val_dataloader.num_worker', MEANT('num_workers'))),
    ({'randomness.sead': 2}, ('randomness.sead', MEANT('seed'))),
    ({'randomness.determinstic': True}, ('randomness.determinstic', MEANT('deterministic'))),
    ({'optim_wrapper.optimizer.weight_decai': .1}, ('weight_decai', MEANT('weight_decay'))),
    ({'optim_wrapper.clip_gard': dict(max_norm=1)}, ('optim_wrapper.clip_gard', MEANT('clip_grad'))),
    ({'optim_wrapper.paramwise_cfg.flat_decay_mul': 0.}, ('flat_decay_mul', MEANT('flat_decay_mult'))),
    ({'optim_wrapper.paramwise_cfg.custom_keys': dict(head=dict(lr_mul=10))}, ('custom_keys.head', MEANT('lr_mult'))),
    ({'train_dataloader.dataset.on_eror': 'skip'}, ('train_dataloader.dataset.on_eror', MEANT('on_error'))),
    ({'train_dataloader.dataset.reduce_zero_labels': True}, ('dataset.reduce_zero_labels', MEANT('reduce_zero_label'))),
    ({'train_dataloader.dataset.data_prefix.img_pth': 'x'}, ('data_prefix.img_pth', MEANT('img_path'))),
    ({'val_dataloader.dataset.data_prefix.seg_map': 'x'}, ('dataset.data_prefix.seg_map', MEANT('seg_map_path'))),
    ({'train_dataloader.dataset.pipeline.3.ratio_rang': (1, 2)}, ('pipeline.3.ratio_rang', MEANT('ratio_range'))),
    ({'train_dataloader.dataset.pipeline.4.cropsize': (64, 64)}, ('pipeline.4.cropsize', MEANT('crop_size'))),
    ({'train_dataloader.sampler.shufle': True}, ('train_dataloader.sampler.shufle', MEANT('shuffle'))),
    ({'default_hooks.checkpoint.intervall': 2}, ('default_hooks.checkpoint.intervall', MEANT('interval'))),
    ({'default_hooks.checkpoint.max_keep_ckpt': 2}, ('max_keep_ckpt', MEANT('max_keep_ckpts'))),
    ({'default_hooks.logger.intervals': 2}, ('default_hooks.logger.intervals', MEANT('interval'))),
    ({'default_hooks.checkpont.interval': 2}, ('default_hooks.checkpont', MEANT('checkpoint'))),
    ({'custom_hooks': [dict(type='EMAHook', begin_itr=1)]}, ('custom_hooks.0.begin_itr', MEANT('begin_iter'))),
    ({'param_scheduler.0.start_facter': .1}, ('param_scheduler.0.start_facter', MEANT('start_factor'))),
    ({'model.test_cfg.moed': 'slide'}, ('model.test_cfg.moed', MEANT('mode'))),
    ({'model.device': 'meta'}, ('model.device', 'is no setting')),
    ({'model.backbone.drop_path': .1}, ('model.backbone.drop_path', MEANT('drop_path_rate'))),
    ({'model.neck.num_out': 4}, ('model.neck.num_out', MEANT('num_outs'))),
    ({'model.decode_head.num_class': 4}, ('model.decode_head.num_class', MEANT('num_classes'))),
    ({'model.decode_head.loss_decode.loss_weigth': 4}, ('loss_decode.loss_weigth', MEANT('loss_weight'))),
    ({'model.data_preprocessor.pad_value': 4}, ('data_preprocessor.pad_value', MEANT('pad_val'))),
    ({'val_evaluator.iou_metric': ['mIoU']}, ('val_evaluator.iou_metric', MEANT('iou_metrics'))),
    ({'visualizer.vis_backend': []}, ('visualizer.vis_backend', MEANT('vis_backends'))),
    ({'log_processor.windowsize': 3}, ('log_processor.windowsize', MEANT('window_size'))),
    ({'env_cfg.mp_cfg.opencv_threads': 3}, ('env_cfg.mp_cfg.opencv_threads', MEANT('opencv_num_threads'))),
    ({'auto_scale_lr.base_batchsize': 3}, ('auto_scale_lr.base_batchsize', MEANT('base_batch_size'))),
    ({'val_dataloader.dataset.metainfo': dict(CLASSES=('a', 'b'))}, ('dataset.metainfo.CLASSES', MEANT('classes'))),
    ({'train_dataloader.dataset.metainfo': dict(clases=('a', 'b'))}, ('dataset.metainfo.clases', MEANT('classes'))),
    ({'test_dataloader.dataset.metainfo': dict(PALETTE=[])}, ('dataset.metainfo.PALETTE', MEANT('palette'))),
    # types
    ({'model.backbone.type': 'InceptionNext'}, ('model.backbone.type', MEANT('InceptionNeXt'))),
    ({'model.decode_head.type': 'FPNHed'}, ('model.decode_head.type', MEANT('FPNHead'))),
    ({'model.decode_head.loss_decode.type': 'CrosEntropyLoss'}, ('loss_decode.type', MEANT('CrossEntropyLoss'))),
    ({'optim_wrapper.optimizer.type': 'AdmW'}, ('optim_wrapper.optimizer.type', MEANT('AdamW'))),
    ({'optim_wrapper.type': 'OptimWraper'}, ('optim_wrapper.type', MEANT('OptimWrapper'))),
    ({'train_cfg.type': 'IterBasedLoop'}, ('train_cfg.type', MEANT('IterBasedTrainLoop'))),
    ({'param_scheduler.0.type': 'LinarLR'}, ('param_scheduler.0.type', MEANT('LinearLR'))),
    ({'train_dataloader.dataset.type': 'ADEChallengDataset'}, ('dataset.type', MEANT('ADEChallengeDataset'))),
    ({'train_dataloader.sampler.type': 'InfinitSampler'}, ('sampler.type', MEANT('InfiniteSampler'))),
    ({'train_dataloader.dataset.pipeline.5.type': 'RandomFlop'}, ('pipeline.5.type', MEANT('RandomFlip'))),
    ({'val_evaluator.type': 'ExactIouMetric'}, ('val_evaluator.type', MEANT('ExactIoUMetric'))),
    ({'default_hooks.timer.type': 'IterTimeHook'}, ('default_hooks.timer.type', MEANT('IterTimerHook'))),
    ({'model.backbone.norm_cfg.type': 'SinkBN'}, ('model.backbone.norm_cfg.type', MEANT('SyncBN'))),
    ({'model.decode_head.act_cfg': dict(type='ReLu')}, ('model.decode_head.act_cfg.type', MEANT('ReLU'))),
    # values
    ({'val_evaluator.iou_metrics': ['mIOU']}, ("val_evaluator.iou_metrics is ['mIOU']", 'mIoU, mDice')),
    ({'model.decode_head.loss_decode.class_weight': [1., 2.]}, ('class_weight is [1.0, 2.0]', '150 classes')),
    ({'optim_wrapper.clip_grad': dict(max_nrom=1)}, ('optim_wrapper.clip_grad.max_nrom', MEANT('max_norm'))),
    ({'optim_wrapper.clip_grad': 5}, ('optim_wrapper.clip_grad is 5', 'max_norm')),
    ({'randomness.deterministic': 'yes'}, ("randomness.deterministic is 'yes'", 'True or False')),
    ({'train_dataloader.batch_size': 0}, ('train_dataloader.batch_size is 0', 'from 1')),
    ({'val_dataloader.batch_size': -1}, ('val_dataloader.batch_size is -1', 'from 1')),
    ({'train_dataloader.num_workers': -1}, ('train_dataloader.num_workers is -1', 'from 0')),
    ({'optim_wrapper.optimizer.lr': -1}, ('optim_wrapper.optimizer.lr is -1', 'above 0')),
    ({'optim_wrapper.optimizer.lr': 'fast'}, ("optim_wrapper.optimizer.lr is 'fast'", 'numbers')),
    ({'optim_wrapper.optimizer.weight_decay': -1}, ('weight_decay is -1', 'from 0')),
    ({'optim_wrapper.accumulative_counts': 0}, ('accumulative_counts is 0', 'from 1')),
    ({'randomness.seed': -1}, ('randomness.seed is -1', 'from 0')),
    ({'randomness.seed': 'abc'}, ("randomness.seed is 'abc'", 'from 0')),
    ({'train_cfg.max_iters': -5}, ('train_cfg.max_iters is -5', 'from 1')),
    ({'train_cfg.max_iters': 0}, ('train_cfg.max_iters is 0', 'from 1')),
    ({'train_cfg.max_iters': 2.5}, ('train_cfg.max_iters is 2.5', 'from 1')),
    ({'train_cfg.max_iters': 'abc'}, ("train_cfg.max_iters is 'abc'", 'numbers')),
    ({'train_cfg.val_interval': 0}, ('train_cfg.val_interval is 0', 'from 1')),
    ({'default_hooks.checkpoint.interval': 0}, ('default_hooks.checkpoint.interval is 0', 'from 1')),
    ({'default_hooks.logger.interval': 'often'}, ("default_hooks.logger.interval is 'often'", 'numbers')),
    ({'model.backbone.drop_path_rate': 1.5}, ('model.backbone.drop_path_rate is 1.5', 'below 1')),
    ({'model.test_cfg.mode': 'hole'}, ("model.test_cfg.mode is 'hole'", MEANT('whole'))),
    ({'model.test_cfg.mode': 'slide'}, ('model.test_cfg.crop_size is None', 'two whole numbers')),
    ({'model.test_cfg': dict(mode='slide', crop_size=32, stride=16)}, ('crop_size is 32', 'two whole numbers')),
    ({'model.test_cfg': dict(mode='slide', crop_size=(32, 32), stride=(0, 16))}, ('stride is (0, 16)', 'from 1')),
    ({'model.test_cfg': dict(mode='slide', crop_size=(32, 32), stride=(48, 48))}, ('stride is (48, 48)', 'gaps')),
    ({'optim_wrapper': 'AdamW'}, ("optim_wrapper is 'AdamW'", 'optim_wrapper=dict(')),
    ({'default_hooks.logger': 'LoggerHook'}, ("default_hooks.logger is 'LoggerHook'", 'dict(type=')),
    ({'test_dataloader.dataset.reduce_zero_label': False}, ('test_dataloader.dataset.reduce_zero_label is False', )),
    ({'val_evaluator.iou_metrics': []}, ('val_evaluator.iou_metrics is []', 'mIoU, mDice')),
    ({'val_evaluator.iou_metrics': None}, ('val_evaluator.iou_metrics is None', 'mIoU, mDice')),
    ({'val_evaluator.iou_metrics': 3}, ('val_evaluator.iou_metrics is 3', 'mIoU, mDice')),
    ({'default_hooks.checkpoint.save_best': True}, ('default_hooks.checkpoint.save_best is True', 'mIoU')),
    ({'default_hooks.checkpoint.save_best': [3]}, ('default_hooks.checkpoint.save_best is [3]', 'mIoU')),
    ({'train_dataloader.batch_size': None}, ('train_dataloader.batch_size is None', 'from 1')),
    ({'model.data_preprocessor': None}, ('model.data_preprocessor is None', 'SegDataPreProcessor')),
    ({'train_dataloader.sampler': 'InfiniteSampler'}, ('train_dataloader.sampler is', 'dict(type=')),
    ({'default_hooks.checkpoint.out_dir': 5}, ('checkpoint.out_dir is 5', 'folder')),
    ({'default_hooks.checkpoint.filename_tmpl': '{}_{}.pth'}, ('filename_tmpl is', 'one place')),
    ({'default_hooks.checkpoint.backend_args': dict(backend='nope')}, ('backend_args is', 'local')),
    ({'log_processor.window_size': 'x'}, ("window_size is 'x'", 'from 1')),
    ({'train_cfg.dynamic_intervals': [(0, 'x')]}, ('dynamic_intervals is', 'pairs')),
    ({'val_evaluator.collect_device': 'cpx'}, ("collect_device is 'cpx'", "'gpu'")),
    ({'model.decode_head.loss_decode.loss_name': 'ce'}, ("loss_name is 'ce'", "holds 'loss'")),
    ({'model.decode_head.loss_decode.loss_weight': '1'}, ("loss_weight is '1'", 'from 0')),
    ({'model.decode_head.loss_decode.loss_weight': None}, ('loss_weight is None', 'from 0')),
    ({'model.decode_head.loss_decode.loss_weight': -1}, ('loss_weight is -1', 'from 0')),
    ({'model.decode_head.loss_decode.use_sigmoid': 'False'}, ("use_sigmoid is 'False'", 'True or False')),
    ({'model.decode_head.loss_decode': []}, ('loss_decode is []', 'dict(type=')),
    ({'model.decode_head.dropout_ratio': -.5}, ('dropout_ratio is -0.5', '0 to 1')),
    ({'model.decode_head.dropout_ratio': 'much'}, ("dropout_ratio is 'much'", '0 to 1')),
    ({'model.decode_head.dropout_ratio': 1.5}, ('dropout_ratio is 1.5', '0 to 1')),
    ({'train_dataloader.dataset.pipeline.0.imdecode_backend': 'cv3'}, ("imdecode_backend is 'cv3'", "'pillow'")),
    ({'val_dataloader.dataset.pipeline.0.color_type': 'colour'}, ("color_type is 'colour'", 'grayscale')),
    ({'train_dataloader.num_batch_per_epoch': 0}, ('num_batch_per_epoch is 0', 'from 1')),
    ({'train_dataloader.dataset': dict(type='RepeatDataset', times=0, dataset=dict(type='ADEChallengeDataset'),
                                       _delete_=True)}, ('dataset.times is 0', 'from 1')),
    # loops that never end
    ({'train_cfg': dict(type='EpochBasedTrainLoop', max_epochs=2, _delete_=True)}, ('ResumableSampler', 'never ends')),
    ({'train_cfg': dict(by_epoch=True, max_epochs=2, _delete_=True),
      'train_dataloader.sampler.type': 'InfiniteSampler'}, ('InfiniteSampler', 'never ends')),
    ({'val_dataloader.sampler.type': 'InfiniteSampler'}, ('val_dataloader.sampler', 'never ends')),
    ({'test_dataloader.sampler.type': 'ResumableSampler'}, ('test_dataloader.sampler', 'never ends')),
]

TOLD_BY_A_TRY = [
    ({'custom_hooks': [dict(type='EMAHook', momentun=.1)]}, ('a hook cannot be used', 'momentun')),
    ({'model.backbone.arch': 'tny'}, ("arch='tny'", "'tiny'")),
    ({'model.backbone.arch.depths': 3}, ('depths=3', 'a list')),
    ({'model.backbone.arch.dims': [16, 24, 32, 'x']}, ("dims=[16, 24, 32, 'x']", 'a list')),
    ({'model.backbone.out_indices': (0, 1, 2, 7)}, ('out_indices=(0, 1, 2, 7)', '0 to 3')),
    ({'model.backbone.out_indices': 3}, ('out_indices=3', '0 to 3')),
    ({'model.backbone.out_indices': (1, 2, 3)}, ('model.neck.in_channels', '[24, 32, 48]')),
    ({'model.backbone.in_channels': 4}, ('one step of validation', '4 channels')),
    ({'model.neck.in_channels': [16, 24, 32, 40]}, ('model.neck.in_channels is [16, 24, 32, 40]', '[16, 24, 32, 48]')),
    ({'model.decode_head.in_channels': [16] * 4}, ('model.decode_head.in_channels is [16, 16, 16, 16]', '64, 64')),
    ({'model.decode_head.in_index': [0, 1, 2, 4]}, ('model.decode_head.in_index is [0, 1, 2, 4]', '0 to 3')),
    ({'model.decode_head.in_index': [0, 1]}, ('model.decode_head, ', 'cannot be used')),
    ({'optim_wrapper.optimizer.betas': (2., 1.)},
     ('optim_wrapper.optimizer, AdamW with betas=(2.0, 1.0), cannot be used', 'beta')),
    ({'optim_wrapper.constructor': 'Constructor'}, ('optim_wrapper cannot be used', 'Constructor')),
    ({'custom_hooks': [dict(type='EarlyStoppingHook', monitor='mIou')]}, ('EarlyStoppingHook', MEANT('mIoU'))),
    ({'param_scheduler': [dict(type='ReduceOnPlateauLR')]}, ("ReduceOnPlateauLR has monitor='loss'", 'mIoU')),
    ({'param_scheduler.0.end': -1},
     ('param_scheduler.0, LinearLR with begin=0, end=-1, cannot be used', )),
    ({'train_dataloader.prefetch_factor': 2}, ('train_dataloader cannot be used', 'prefetch_factor')),
    ({'train_dataloader.collate_fn': dict(type='no_such')}, ('train_dataloader cannot be used', )),
    ({'log_level': 'LOUD'}, ('log_level cannot be used', 'LOUD')),
    ({'default_hooks.checkpoint.published_keys': 3},
     ('default_hooks.checkpoint, ', 'published_keys=3, cannot be used')),
    ({'train_dataloader.dataset.pipeline.3.resize_type': 'Rezise'},
     ('pipeline.3, ', 'cannot be used', 'Rezise')),
]

FOLDERS = dict(type='FolderDataset', seg_map_suffix='.png', reduce_zero_label=True)
LOAD = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')]
SMALL = dict(type='Resize', scale=(32, 32))
PACK = dict(type='PackSegInputs')
TOLD_BY_A_TRY += [
    ({'val_dataloader.dataset.pipeline': [*LOAD, SMALL, PACK]}, ('32 x 32', 'put LoadAnnotations after Resize')),
    ({'val_dataloader.dataset.pipeline': [*LOAD, SMALL, dict(type='CheckLabels'), PACK]},
     ('32 x 32', 'put LoadAnnotations after Resize')),
    ({'val_dataloader.dataset.pipeline': [*LOAD, dict(type='RandomCrop', crop_size=(32, 48)), PACK]},
     ('32 x 48', 'put LoadAnnotations after Resize')),
    ({'val_dataloader.dataset': dict(FOLDERS, img_suffix='.jpg')}, ('FolderDataset', 'names no classes', 'metainfo=')),
    ({'val_dataloader.dataset.data_prefix': dict(img_path='images/validation', _delete_=True)},
     ('LoadAnnotations', 'has no seg_map_path')),
    ({'train_dataloader.dataset.data_prefix': dict(seg_map_path='annotations/training', _delete_=True)},
     ('has no img_path', )),
]
CROP = dict(type='RandomCrop', crop_size=(64, 64))
STEPS = 'train_dataloader.dataset.pipeline'
OBJECT = 'is <mmengine.hooks'
TOLD_BY_THE_CHECK += [
    # labels that would be those of other pixels
    ({STEPS: [LOAD[0], CROP, LOAD[1], PACK]}, ('pipeline.1, RandomCrop', 'put LoadAnnotations before it')),
    ({STEPS: [LOAD[0], dict(type='mmcv.RandomApply', prob=.5, transforms=[dict(type='RandomFlip', prob=1.)]), LOAD[1],
              CROP, PACK]}, ('pipeline.1.transforms.0, RandomFlip', 'pipeline.2, LoadAnnotations')),
    ({'train_dataloader.dataset': dict(
        type='RepeatDataset', times=2, _delete_=True, dataset=dict(
            type='ADEChallengeDataset', pipeline=[LOAD[0], dict(type='ResizeToMultiple'), LOAD[1], CROP, PACK]))},
     ('dataset.dataset.pipeline.1, ResizeToMultiple', )),
    # parts that are no dicts, classes that there are not
    ({'custom_hooks': [EMAHook()]}, ('custom_hooks.0', OBJECT, "dict(type='EMAHook', ...)")),
    ({'default_hooks.checkpoint': CheckpointHook()}, ('default_hooks.checkpoint', OBJECT, "type='CheckpointHook'")),
    ({STEPS: ['LoadImageFromFile', PACK]}, (f"{STEPS}.0 is 'LoadImageFromFile'", 'dict(type=')),
    ({'val_dataloader.batch_size': 2, 'val_dataloader.drop_last': True}, ('drop_last is True', 'see each image')),
    ({'val_dataloader.dataset.metainfo': dict(classes=('sky', 'raod'))}, ("classes has 'raod'", MEANT('road'))),
    ({'model.decode_head.ignore_index': None}, ('decode_head.ignore_index is None', '255')),
    ({'model.auxiliary_head': dict(type='FCNHead', ignore_index=None, loss_decode=[
        dict(type='DiceLoss'), dict(type='CrossEntropyLoss')])}, ('auxiliary_head.ignore_index is None', '255')),
    ({'model.backbone.frozen_stages': None}, ('frozen_stages is None', 'from -1')),
    ({'model.backbone.init_cfg': dict(type='Pretrained', checkpoint=None)}, ('init_cfg.checkpoint is None', 'a path')),
    ({'model.backbone.init_cfg': 'x.pth'}, ("init_cfg is 'x.pth'", "dict(type='Pretrained', checkpoint=FILE)")),
    ({'model.data_preprocessor.std': [1., 0., 1.]}, ('std is [1.0, 0.0, 1.0]', 'above 0')),
    ({'model.data_preprocessor.mean': [1., float('nan'), 1.]}, ('mean is [1.0, nan, 1.0]', 'finite')),
    ({'model.backbone.token_mixer': 'pooling'}, ("token_mixer is 'pooling'", 'dict(type=')),
    ({'default_hooks.checkpoint.save_best': ''}, ("save_best is ''", 'mIoU')),
]
STOCK = dict(type='IoUMetric', iou_metrics=['mIoU'])
BEST = 'default_hooks.checkpoint.save_best'
TOLD_BY_A_TRY += [
    ({'val_evaluator': dict(STOCK, _delete_=True), BEST: 'mIou'}, ("save_best='mIou'", MEANT('mIoU'))),
    ({'val_evaluator': [STOCK, dict(STOCK, prefix='b')], BEST: ['mIoU', 'b/mAc'],
      'default_hooks.checkpoint.rule': 'greater'}, ("='b/mAc'", MEANT('b/mAcc'))),
    ({'val_evaluator': dict(type='Evaluator', metrics=[STOCK], _delete_=True), BEST: 'mDice'}, ("save_best='mDice'", )),
    ({'val_evaluator.prefix': 'val', BEST: 'mIoU'}, ("save_best='mIoU'", 'val/mIoU')),
    ({'custom_hooks': [dict(type='CheckpointHook', save_best='mIou', rule='greater')]}, ("save_best='mIou'", )),
    ({'val_evaluator': [STOCK, dict(type='Scores')], BEST: 'scoer', 'default_hooks.checkpoint.rule': 'greater'},
     ("save_best='scoer'", MEANT('score'), 'aAcc, mAcc, mIoU, score')),
    ({'val_evaluator': [STOCK, STOCK]}, ('val_evaluator.0 and val_evaluator.1 both give aAcc', '1.prefix to a name')),
    ({'model.neck.num_outs': 1}, ('model.neck, FPN with num_outs=1, cannot be used', 'assert num_outs >=')),
    ({f'{STEPS}.5.prob': 1.5}, (f'{STEPS}.5, RandomFlip with prob=1.5, cannot be used', )),
    ({'model.decode_head.sampler': dict(type='OHEMPixelSampler', min_kept=0)},
     ('model.decode_head.sampler, OHEMPixelSampler with min_kept=0, cannot', )),
    ({'optim_wrapper.paramwise_cfg.custom_keys': dict(bakbone=dict(lr_mult=.1))}, ('keys.bakbone', MEANT('backbone'))),
    ({'activation_checkpointing': ['backbon']}, ('the config cannot be used', 'backbon')),
    ({'compile': 'yes'}, ('the config cannot be used', '`compile`')),
]


def ids(table):
    return [str(options)[:60] for options, _ in table]


@pytest.mark.parametrize('options, told', TOLD_BY_THE_CHECK, ids=ids(TOLD_BY_THE_CHECK))
def test_the_check_names_what_is_wrong(options, told):
    cfg = load_config(str(ROOT / TOY), options)
    with pytest.raises(ConfigError) as raised:
        check_settings(cfg, 'train', 'val', 'test')
    assert all(part in str(raised.value) for part in told), raised.value


@pytest.mark.parametrize('options, told', [  # each builds a run
    case if i % 6 == 0 else pytest.param(*case, marks=pytest.mark.slow) for i, case in enumerate(TOLD_BY_A_TRY)],
    ids=ids(TOLD_BY_A_TRY))
def test_a_training_names_what_is_wrong_before_its_first_iteration(options, told, toy_root, tmp_path):
    cfg = short_config(toy_root, tmp_path, custom_hooks=[dict(type='NoIteration')])
    cfg.merge_from_dict(options)
    with pytest.raises((ConfigError, InputError, SampleError)) as raised:
        train(cfg)
    assert all(part in str(raised.value) for part in told), raised.value


@METRICS.register_module()
class Scores(BaseMetric):

    def process(self, data_batch, data_samples):
        self.results.append(len(data_samples))

    def compute_metrics(self, results):
        return dict(score=sum(results))


@HOOKS.register_module()
class NoIteration(Hook):

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        raise AssertionError('an iteration began')


def test_a_key_with_dots_of_the_command_line_is_one_key():
    keys = 'optim_wrapper.paramwise_cfg.custom_keys'
    cfg = load_config(str(ROOT / TOY), {f'{keys}.backbone.stem.lr_mult': .1, f'{keys}.backbone.decay_mult': 0.})
    check_settings(cfg, 'train')
    assert cfg.optim_wrapper.paramwise_cfg.custom_keys == {
        'backbone.stem': dict(lr_mult=.1), 'backbone': dict(decay_mult=0.)}


def test_keys_of_no_parameter(monkeypatch):
    lines = []
    monkeypatch.setattr('mmseg_inceptionnext.engine.check.agreement.print_log', lambda line, **_: lines.append(line))
    model = torch.nn.ModuleDict(dict(decode_head=torch.nn.Linear(1, 1), backbone=torch.nn.Linear(1, 1)))
    keys = {'head': {}, 'backbone.weight': {}, 'absolute_pos_embed': {}}
    check_custom_keys(model, dict(paramwise_cfg=dict(custom_keys=keys)))
    assert len(lines) == 1 and 'custom_keys.absolute_pos_embed is in no name of a parameter' in lines[0]
    with pytest.raises(ConfigError, match=r'custom_keys.haed .*did you mean head'):
        check_custom_keys(model, dict(paramwise_cfg=dict(custom_keys=dict(haed={}))))
    check_custom_keys(model, dict(constructor=Configured, paramwise_cfg=dict(custom_keys=dict(haed={}))))


def test_the_views_are_checked_for_a_test_that_needs_them(monkeypatch):
    lines = []
    monkeypatch.setattr('mmseg_inceptionnext.engine.check.settings.print_log', lambda line, **_: lines.append(line))
    cfg = load_config(str(ROOT / TOY))
    check_views(cfg, needed=True)
    cfg.tta_pipeline[1].transforms[0][0].keep_rato = True
    told = 'tta_pipeline.1.transforms.0.0.keep_rato is no setting (did you mean keep_ratio?)'
    check_views(cfg, needed=False)
    assert len(lines) == 1 and lines[0].startswith(told)
    with pytest.raises(ConfigError) as raised:
        check_views(cfg, needed=True)
    assert str(raised.value).startswith(told)
    with pytest.raises(ConfigError, match='tta_model.type is .*did you mean RunningSumTTAModel'):
        check_views(load_config(str(ROOT / TOY), {'tta_model.type': 'RuningSumTTAModel'}), needed=True)


@pytest.mark.slow
def test_what_the_configs_set_is_known():
    assert len(CONFIGS) > 40
    for path in CONFIGS:
        cfg = load_config(str(path))
        check_settings(cfg, 'train', 'val')
        check_settings(cfg, 'test')
        check_views(cfg, needed=True)


@pytest.mark.slow
def test_what_the_configs_of_mmsegmentation_set_is_known():
    """Every tenth; those of mask classification need mmdet."""
    paths = sorted(Path(mmseg.__file__).parent.glob('.mim/configs/[!m_]*/*.py'))
    if not paths:
        pytest.skip('this MMSegmentation comes without its configs')
    for path in paths[::10]:
        try:
            cfg = load_config(str(path))
        except ConfigError:  # it imports a package that is not installed
            continue
        check_settings(cfg, 'train', 'val')
        check_settings(cfg, 'test')
        check_views(cfg, needed=True)


@MODELS.register_module()
class Configured(BaseModule):
    """Takes what it likes."""

    def __init__(self, width: int = 3, **kwargs) -> None:
        super().__init__(kwargs.get('init_cfg'))
        self.settings = {key: value for key, value in kwargs.items()}


def test_arguments_that_go_elsewhere_are_not_judged():
    assert not accepted(Configured).are_all and not accepted(dict).are_all
    assert not accepted(MODELS.get('TIMMBackbone')).are_all
    assert accepted(MODELS.get('FastUPerHead')).are_all
    assert {'ignore_index', 'pool_scales'} <= set(accepted(MODELS.get('FastUPerHead')).names)
    cfg = load_config(str(ROOT / TOY))
    cfg.model.backbone = dict(type=Configured, anything=3)
    check_settings(cfg, 'train', 'val')
