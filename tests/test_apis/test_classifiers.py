"""Classifiers as the tools train, evaluate and use them. The peers: Table 9 of the paper, NumPy, timm."""
import json
import os
import random
import re
import shutil
import tarfile
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import timm
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS, METRICS, MODELS, PARAM_SCHEDULERS
from PIL import Image
from timm.data import ImageNetInfo
from torch import nn

from mmseg_inceptionnext.apis import evaluate, train
from mmseg_inceptionnext.config import load_config
from mmseg_inceptionnext.datasets import make_toy_crops
from mmseg_inceptionnext.datasets.seeding import Draw
from mmseg_inceptionnext.engine.hooks import CompleteCheckpointHook
from mmseg_inceptionnext.errors import BrokenSampleError, CheckpointError, ConfigError, InputError, MissingDatasetError
from mmseg_inceptionnext.inference import Segmenter
from mmseg_inceptionnext.inference.classify import Classifier
from mmseg_inceptionnext.models import ImageClassifier

from utils import ROOT, TOY, run_tool

PRETRAIN = sorted(path.stem for path in (ROOT / 'configs/pretrain').glob('*_in1k*.py'))
SIZES = {'inceptionnext_a_in1k': 'a', 'inceptionnext_t_in1k': 't', 'inceptionnext_s_in1k': 's',
         'inceptionnext_b_in1k': 'b', 'inceptionnext_b_in1k_384': 'b384'}
# Table 9: learning rate, batch, epochs, warm-up, drop path, Mixup, CutMix, erasing, dropout of the head.
RECIPES = dict(
    a=(1e-3, 1280, 450, 5, 0.1, 0.2, 1., 0.1, 0.), t=(4e-3, 4096, 300, 20, 0.1, 0.8, 1., 0.25, 0.),
    s=(4e-3, 4096, 300, 20, 0.3, 0.8, 1., 0.25, 0.), b=(4e-3, 4096, 300, 20, 0.4, 0.8, 1., 0.25, 0.),
    b384=(5e-5, 1024, 30, 0, 0.7, 0., 0., 0.25, 0.5))
ARCH = dict(depths=(1, 1, 1, 1), dims=(16, 24, 32, 48))
IMAGES = 1281167  # of ImageNet-1K


def config(name):
    return load_config(str(ROOT / f'configs/pretrain/{name}.py'))


@pytest.fixture(scope='module')
def crops(toy_root, tmp_path_factory):
    folder = tmp_path_factory.mktemp('crops')
    make_toy_crops(str(toy_root), str(folder), count=1)
    return folder


def toy(crops, work_dir, **options):
    cfg = load_config(str(ROOT / 'configs/pretrain/inceptionnext_a_toy.py'), {'data_root': str(crops), **options},
                      str(work_dir))
    count = len(os.listdir(crops / 'train'))
    for part in (cfg.model, cfg.model.data_preprocessor.mixup, cfg.train_dataloader.dataset,
                 cfg.val_dataloader.dataset, cfg.test_dataloader.dataset):
        part.num_classes = count
    cfg.model.backbone.arch = ARCH
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.update(batch_size=4, num_workers=0, persistent_workers=False)
    cfg.train_cfg.update(max_iters=2, val_interval=2)
    cfg.default_hooks.checkpoint.interval = 1
    cfg.randomness = dict(seed=0)
    return cfg


@pytest.fixture(scope='module')
def trained(crops, tmp_path_factory):
    """Work dir and metrics of two iterations."""
    work_dir = tmp_path_factory.mktemp('classifier')
    return work_dir, train(toy(crops, work_dir))


@pytest.mark.parametrize('name', SIZES)
def test_recipe_is_that_of_table_9(name, tmp_path):
    lr, batch, epochs, warm_up, drop_path, mixup, cutmix, erasing, dropout = RECIPES[SIZES[name]]
    cfg = config(name)
    assert cfg.auto_scale_lr.base_batch_size == batch and batch % cfg.train_dataloader.batch_size == 0
    length = round(IMAGES / batch)
    assert cfg.train_cfg.max_iters == pytest.approx(epochs * length, rel=2e-3)
    found, transform = cfg.model.data_preprocessor.mixup, cfg.train_dataloader.dataset.transform
    if found.get('prob', 1.):
        assert (found.mixup_alpha, found.cutmix_alpha) == (mixup, cutmix)
    else:
        assert not mixup and not cutmix
    assert found.label_smoothing == 0.1 and transform.re_prob == erasing
    assert transform.auto_augment == ('rand-m5-inc1-mstd101' if name[14] == 'a' else 'rand-m9-mstd0.5-inc1')
    assert cfg.model.backbone.drop_path_rate == drop_path and cfg.model.get('dropout_ratio', 0.) == dropout
    averages = [hook for hook in cfg.custom_hooks if hook.type == 'EMAHook']
    assert [1 - hook.momentum for hook in averages] == ([0.9999] if '384' in name else [])


@pytest.mark.parametrize('name', [
    'inceptionnext_t_in1k', 'inceptionnext_b_in1k_384', pytest.param('inceptionnext_a_in1k', marks=pytest.mark.slow)])
def test_learning_rates_and_weight_decays_are_those_of_table_9(name):
    lr, batch, epochs, warm_up, *_ = RECIPES[SIZES[name]]
    cfg = config(name)
    init_default_scope('mmseg')
    model = MODELS.build(dict(cfg.model, init_cfg=None))
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    assert isinstance(optimizer, torch.optim.AdamW) and optimizer.defaults['betas'] == (0.9, 0.999)
    groups = [(parameter, group) for group in optimizer.param_groups for parameter in group['params']]
    assert len(groups) == len(list(model.parameters())) > 170
    for parameter, group in groups:
        assert group['lr'] == lr and group['weight_decay'] == (0.05 if parameter.ndim > 1 else 0.)
    total, first, last = cfg.train_cfg.max_iters, *((1e-6, 1e-5) if lr > 1e-3 else (5e-7, 5e-7))
    end = warm_up * total // epochs
    middle = (total + end) // 2
    expected = {0: first, end // 2: (first + lr) / 2, end: lr, middle: (lr + last) / 2, total - 1: last}
    if not warm_up:
        expected = {0: lr, middle: lr, total - 1: lr}
    optimizer = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=lr)  # one group: the schedules treat all alike
    schedulers = [PARAM_SCHEDULERS.build(dict(settings, optimizer=optimizer)) for settings in cfg.param_scheduler]
    for step in range(total):
        if step in expected:
            assert optimizer.param_groups[0]['lr'] == pytest.approx(expected.pop(step), rel=1e-3)
        for scheduler in schedulers:
            scheduler.step()
    assert not expected


def test_a_batch_is_augmented_mixed_erased_and_smoothed(crops, tmp_path):
    """In a batch of white images whatever is not white was erased; their labels are of two classes, and smoothed."""
    cfg = config('inceptionnext_t_in1k')
    settings = cfg.train_dataloader.dataset
    for name in ('a', 'b'):
        (tmp_path / 'train' / name).mkdir(parents=True)
        for i in range(32):
            cv2.imwrite(str(tmp_path / 'train' / name / f'{i}.png'), np.full((300, 280, 3), 255, np.uint8))
    np.random.seed(0), torch.manual_seed(0), random.seed(0)
    data = DATASETS.build(dict(settings, data_root=str(tmp_path), num_classes=2))
    policy = str(data.transform)
    assert 'RandAugment' in policy and 'RandomErasing' in policy and 'RandomResizedCrop' in policy
    samples = [data[i] for i in range(64)]
    images = torch.stack([sample['inputs'] for sample in samples])
    assert images.shape == (64, 3, 224, 224)
    white = (1 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    plain = [bool((image - white.view(3, 1, 1)).abs().max() < 1e-3) for image in images]
    assert 0 < sum(plain) < 64
    settings = cfg.model.data_preprocessor
    mixer = MODELS.build(dict(settings, mixup=dict(settings.mixup, num_classes=2)))
    labels = torch.tensor([sample['data_samples'] for sample in samples])
    assert labels.tolist() == [0] * 32 + [1] * 32  # so that each pair, the n-th and the n-th last, has both classes
    by_cutmix = set()
    for seed in range(6):
        np.random.seed(seed)
        mixed = mixer(dict(inputs=images, data_samples=labels), training=True)
        share = mixed['data_samples'][0, 0].item()  # of its own class, between those of smoothing by 0.1
        assert 0.05 < share < 0.95
        torch.testing.assert_close(mixed['data_samples'][:, 0], labels.where(labels == 1, 0).float() * (1 - 2 * share)
                                   + share)
        whole = torch.stack([(mixed['inputs'] == images), (mixed['inputs'] == images.flip(0))]).any(0).all()
        by_cutmix.add(bool(whole))  # each pixel is of one image; Mixup has sums
    assert by_cutmix == {False, True}


def test_training_writes_checkpoints_and_accuracies(trained, crops):
    work_dir, metrics = trained
    assert {'top1', 'top5'} <= set(metrics) and 0 <= metrics['top1'] <= metrics['top5'] <= 100
    state = torch.load(work_dir / 'iter_2.pth', weights_only=False)
    assert list(state['state_dict'])[0] == 'stem.0.weight' and list(state['state_dict'])[-1] == 'head.fc2.bias'
    assert state['meta']['dataset_meta']['classes'] == tuple(sorted(os.listdir(crops / 'train')))
    best, = work_dir.glob('best_top1*.pth')


def test_evaluation_gives_the_same_as_numpy(trained, crops, tmp_path):
    work_dir, metrics = trained
    found = evaluate(toy(crops, tmp_path), str(work_dir / 'iter_2.pth'))
    assert found == {'top1': metrics['top1'], 'top5': metrics['top5']}
    assert json.loads((tmp_path / 'metrics.json').read_text())['top1'] == found['top1']
    fused = evaluate(toy(crops, tmp_path), str(work_dir / 'iter_2.pth'), fuse_model=True)
    assert fused == found
    cfg = toy(crops, tmp_path)
    model, data = MODELS.build(cfg.model).eval(), DATASETS.build(cfg.test_dataloader.dataset)
    model.load_state_dict(torch.load(work_dir / 'iter_2.pth', weights_only=False)['state_dict'])
    with torch.no_grad():
        scores = np.concatenate([model(data[i]['inputs'][None]).numpy() for i in range(len(data))])
    labels = np.array([data[i]['data_samples'] for i in range(len(data))])
    assert found['top1'] == pytest.approx(100 * np.mean(scores.argmax(1) == labels))
    best = np.argsort(-scores, 1)[:, :5]
    assert found['top5'] == pytest.approx(100 * np.mean((best == labels[:, None]).any(1)))


def test_topk_in_a_metric_beyond_the_classes_and_wrong_ones():
    metric = METRICS.build(dict(type='Accuracy', topk=(1, 2, 7)))
    scores = torch.tensor([[.1, .6, .3], [.5, .2, .3], [.2, .3, .5]])
    metric.process({}, [dict(scores=row, label=label) for row, label in zip(scores, (2, 1, 2))])
    assert metric.evaluate(3) == {'top1': pytest.approx(100 / 3), 'top2': pytest.approx(200 / 3), 'top7': 100.}
    with pytest.raises(InputError, match='topk'):
        METRICS.build(dict(type='Accuracy', topk=(0, )))


@pytest.mark.parametrize('options', [dict(out='o'), dict(show_dir='o'), dict(no_gt='o'), dict(protocol='ms')])
def test_what_is_for_segmentors_is_refused(trained, crops, tmp_path, options):
    with pytest.raises(ConfigError, match='for segmentors only'):
        evaluate(toy(crops, tmp_path), str(trained[0] / 'iter_2.pth'), **options)


def test_the_trunk_goes_into_a_segmentor(trained, crops):
    path = trained[0] / 'iter_2.pth'
    cfg = load_config(str(ROOT / 'configs/fpn_inceptionnext_a_ade20k.py'))
    backbone = MODELS.build(dict(cfg.model.backbone, arch=ARCH, init_cfg=dict(type='Pretrained', checkpoint=str(path))))
    backbone.init_weights()
    state = torch.load(path, weights_only=False)['state_dict']
    loaded = {key: value for key, value in backbone.state_dict().items() if not key.startswith('norm')}
    assert set(loaded) == {key for key in state if not key.startswith('head.')}
    for key, value in loaded.items():
        torch.testing.assert_close(value, state[key], rtol=0, atol=0)
    with pytest.raises(InputError, match='tools/classify.py'):
        Segmenter(str(path))


def test_classify_names_classes(trained, crops, tmp_path):
    work_dir, _ = trained
    image = next((crops / 'val').glob('*/*.png'))
    toy(crops, tmp_path).dump(str(tmp_path / 'config.py'))
    guesses = Classifier(str(work_dir / 'iter_2.pth'), str(tmp_path / 'config.py'), 'cpu')(str(image), topk=3)
    assert len(guesses) == 3 and {guess.name for guess in guesses} <= set(os.listdir(crops / 'train'))
    assert guesses[0].probability >= guesses[1].probability
    theirs = timm.create_model('inception_next_atto').eval()
    torch.save(theirs.state_dict(), tmp_path / 'atto.pth')
    classifier = Classifier(str(tmp_path / 'atto.pth'), device='cpu')
    guesses = classifier(str(image))
    best, count = guesses[0], len(guesses)
    assert count == 5
    transform = timm.data.create_transform(**timm.data.resolve_data_config(model=theirs))
    with torch.no_grad():
        scores = theirs(transform(Image.open(image).convert('RGB'))[None]).softmax(1)[0]
    assert best.name == ImageNetInfo().index_to_description(int(scores.argmax()))
    assert best.probability == pytest.approx(float(scores.max()), rel=1e-4)
    printed = run_tool('tools/classify.py', tmp_path / 'atto.pth', image, '--topk', 2).stdout.splitlines()
    assert printed[-3:] == [str(image), *(f'  {100 * guess.probability:5.1f} %  {guess.name}' for guess in guesses[:2])]
    torch.save(timm.create_model('resnet18').state_dict(), tmp_path / 'other.pth')
    with pytest.raises(InputError, match='--config'):
        Classifier(str(tmp_path / 'other.pth'))
    for wrong, words in ((dict(device='cuda:99'), '--device cuda:99 cannot be used here'),
                         (dict(config=str(ROOT / TOY)), 'is no config of a classifier')):
        with pytest.raises(InputError, match=words):
            Classifier(str(tmp_path / 'atto.pth'), **wrong)
    with pytest.raises(InputError, match='--topk 0'):
        classifier(str(image), topk=0)
    (tmp_path / 'image.png').write_bytes(b'no image')
    with pytest.raises(InputError, match='cannot be read'):
        classifier(str(tmp_path / 'image.png'))


def test_data_that_is_missing_or_broken_is_named(crops, tmp_path):
    settings = dict(config('inceptionnext_a_toy').val_dataloader.dataset, num_classes=len(os.listdir(crops / 'val')))
    with pytest.raises(MissingDatasetError, match='--data-root'):
        DATASETS.build(dict(settings, data_root=str(tmp_path)))
    (tmp_path / 'val').mkdir()
    with pytest.raises(MissingDatasetError, match='no folder with images'):
        DATASETS.build(dict(settings, data_root=str(tmp_path)))
    with pytest.raises(ConfigError, match='num_classes is 3'):
        DATASETS.build(dict(settings, data_root=str(crops), num_classes=3))
    shutil.copytree(crops / 'val', tmp_path / 'val', dirs_exist_ok=True)
    broken = sorted((tmp_path / 'val').glob('*/*.png'))[0]
    broken.write_bytes(broken.read_bytes()[:200])
    data = DATASETS.build(dict(settings, data_root=str(tmp_path)))
    with pytest.raises(BrokenSampleError, match=re.escape(str(broken))):
        [data[i] for i in range(len(data))]


def test_a_tar_gives_the_same_samples(crops, tmp_path):
    with tarfile.open(tmp_path / 'val.tar', 'w') as tar:
        for path in sorted((crops / 'val').glob('*/*.png')):
            tar.add(path, path.relative_to(crops / 'val'))
    settings = dict(config('inceptionnext_a_toy').val_dataloader.dataset, num_classes=len(os.listdir(crops / 'val')))
    folder, packed = (DATASETS.build(dict(settings, data_root=str(root))) for root in (crops, tmp_path))
    assert len(folder) == len(packed) > 3 and folder.metainfo == packed.metainfo
    samples = [sorted((float(data[i]['inputs'].sum()), data[i]['data_samples']) for i in range(len(data)))
               for data in (folder, packed)]
    assert samples[0] == samples[1]


def test_seeds_of_a_sample_make_its_augmentation(crops):
    settings = config('inceptionnext_a_toy').train_dataloader.dataset
    data = DATASETS.build(dict(settings, data_root=str(crops), num_classes=len(os.listdir(crops / 'train'))))
    first, again, other = (data[Draw(0, seed)]['inputs'] for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_training_starts_from_a_classifier_of_other_classes_but_of_no_other_size(trained):
    checkpoint = dict(torch.load(trained[0] / 'iter_2.pth', weights_only=False))
    for arch, classes, fits in ((ARCH, 3, True), ('atto', 6, False)):
        model = ImageClassifier(dict(type='InceptionNeXt', arch=arch, norm_cfg=dict(type='BN')), num_classes=classes)
        runner = SimpleNamespace(model=model, cfg={}, logger='silent')
        if fits:
            CompleteCheckpointHook(may_differ=True).after_load_checkpoint(runner, dict(checkpoint))
        else:
            with pytest.raises(CheckpointError, match='do not fit'):
                CompleteCheckpointHook(may_differ=True).after_load_checkpoint(runner, dict(checkpoint))


@pytest.mark.slow
@pytest.mark.parametrize('name', PRETRAIN)
def test_a_checkpoint_loads_into_every_segmentation_config_of_its_size(name, tmp_path):
    cfg = config(name)
    init_default_scope('mmseg')
    classifier = MODELS.build(dict(cfg.model, init_cfg=None))
    torch.save(dict(state_dict=classifier.state_dict(), meta={}), tmp_path / 'weights.pth')
    stem = name.replace('_in1k_384', '').replace('_in1k', '')
    configs = [path for path in (ROOT / 'configs').rglob('*_ade20k.py')
               if path.stem in (f'upernet_{stem}_ade20k', f'fpn_{stem}_ade20k')]
    assert configs
    for path in configs:
        backbone = MODELS.build(dict(load_config(str(path)).model.backbone,
                                     init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'weights.pth'))))
        backbone.init_weights()
        own = {key: value for key, value in backbone.state_dict().items() if not key.startswith('norm')}
        assert own and all(torch.equal(value, classifier.state_dict()[key]) for key, value in own.items())
