"""Every config builds, its name says what is inside, and the recipes hold the paper's numbers."""
import ast
import copy
import functools
import re
from pathlib import Path

import pytest
import torch
import yaml
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.runner import Runner
from mmengine.structures import PixelData
from mmseg.registry import DATASETS, MODELS, PARAM_SCHEDULERS
from mmseg.structures import SegDataSample
from torch.nn.modules.batchnorm import SyncBatchNorm

from mmseg_inceptionnext.analysis.complexity import count_modules
from mmseg_inceptionnext.analysis.stock import stock_model_cfg
from mmseg_inceptionnext.config import load_config
from mmseg_inceptionnext.engine.check import check_datasets
from mmseg_inceptionnext.errors import ConfigError
from mmseg_inceptionnext.parts import find_datasets, first_dataset

from utils import ROOT, TOY, randomise, total_loss

ALL = sorted(str(path.relative_to(ROOT / 'configs')) for path in (ROOT / 'configs').rglob('*.py')
             if '_base_' not in path.parts)
PUBLIC = {  # classes, crop, scale of training, iterations, and the stride of the windows that it is tested by
    'cityscapes': (19, (512, 1024), (2048, 1024), 160000, None),
    'cityscapes-slide': (19, (1024, 1024), (2048, 1024), 160000, (768, 768)),
    'voc12aug': (21, (512, 512), (2048, 512), 40000, None),
    'pascal-context-59': (59, (480, 480), (520, 520), 80000, (320, 320)),
    'coco-stuff164k': (171, (512, 512), (2048, 512), 80000, None),
    'coco-stuff10k': (171, (512, 512), (2048, 512), 40000, None),
    'loveda': (7, (512, 512), (2048, 512), 80000, None),
    'potsdam': (6, (512, 512), (512, 512), 80000, None),
    'vaihingen': (6, (512, 512), (512, 512), 80000, None),
    'isaid': (16, (896, 896), (896, 896), 80000, None),
    'mapillary': (65, (512, 1024), (2048, 1024), 80000, None),
    'chase-db1': (2, (128, 128), (960, 999), 40000, (85, 85)),
}
OF_PUBLIC = [name for name in ALL if Path(name).stem.split('_')[-1] in PUBLIC]
PRETRAIN = [name for name in ALL if name.startswith('pretrain/')]  # see test_classifiers.py
CONFIGS = [name for name in ALL if name not in (*OF_PUBLIC, *PRETRAIN)]
BASES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / 'configs' / '_base_').rglob('*.py'))
ARCHS = dict(a='atto', t='tiny', s='small', b='base')
DIMS = dict(a=[40, 80, 160, 320], t=[96, 192, 384, 768], s=[96, 192, 384, 768], b=[128, 256, 512, 1024])
MIXER = dict(type='InceptionDWConv2d', with_square=True, with_band_w=True, with_band_h=True, bands='parallel',
             band_kernel_size=11, branch_ratio=1 / 8)
VARIANTS = {  # what the third word of an ablation's name changes
    'no-square': dict(with_square=False), 'no-band-w': dict(with_band_w=False), 'no-band-h': dict(with_band_h=False),
    'sequential': dict(bands='sequential'), 'band7': dict(band_kernel_size=7), 'band9': dict(band_kernel_size=9),
    'band13': dict(band_kernel_size=13), '1of4': dict(branch_ratio=1 / 4), '1of16': dict(branch_ratio=1 / 16),
    'ln': {},
}
TIMM = {  # name in the file, size: timm's name
    ('timm-inceptionnext', 'a'): 'inception_next_atto', ('timm-convnext', 'a'): 'convnext_atto',
    ('convnext', 't'): 'convnext_tiny.fb_in1k', ('convnext', 's'): 'convnext_small.fb_in1k',
    ('convnext', 'b'): 'convnext_base.fb_in1k',
    **{('poolformer', size): f'poolformer_{size}.sail_in1k' for size in ('s24', 's36', 'm36', 'm48')},
}


CONFIGS = [name for name in CONFIGS if not name.startswith('heads/')]  # see test_other_heads.py
ONE_OF_EACH = [  # the two of the paper's heads in make test, the others when there is time
    'upernet_inceptionnext_a_ade20k.py', 'fpn_inceptionnext_a_ade20k.py',
    *(pytest.param(name, marks=pytest.mark.slow) for name in (
        'fpn_timm-inceptionnext_a_camvid.py', 'ablations/upernet_inceptionnext-iso_s_ade20k.py',
        'ablations/upernet_metanext_t_dw3-1of8_ade20k.py', 'ablations/upernet_metanext-attn_s_ade20k.py',
        'peers/fpn_poolformer_s24_ade20k.py', 'peers/fpn_resnet_50_ade20k.py', 'peers/upernet_convnext_t_ade20k.py',
        'peers/upernet_swin_t_ade20k.py')),
]


@functools.cache
def config(name: str) -> Config:
    """Read once for all tests, which do not change it."""
    return load_config(str(ROOT / 'configs' / name))


def on_meta(model_cfg) -> torch.nn.Module:
    """The model without memory for its weights. Backbones take the rates of drop path from a tensor, as numbers."""
    with pytest.MonkeyPatch.context() as patch, torch.device('meta'):
        patch.setattr(torch, 'linspace', functools.partial(torch.linspace, device='cpu'))
        return MODELS.build(model_cfg)


@functools.cache
def model(name: str) -> torch.nn.Module:
    """The model of a config, on the meta device and with the stock head, whose parameters are the same; built once."""
    return on_meta(stock_model_cfg(config(name).model))


def test_there_are_configs():
    assert len(CONFIGS) >= 47 and len(BASES) >= 11
    for head in ('upernet', 'fpn'):
        assert {f'{head}_inceptionnext_{arch}_ade20k.py' for arch in ARCHS} <= set(CONFIGS)


@pytest.mark.parametrize('path', BASES)
def test_each_base_stands_alone(path):
    cfg = Config.fromfile(str(ROOT / path))
    folder = Path(path).parent.name
    leaf = f'{Path(path).stem}_ade20k.py'
    if folder == 'models' and leaf in CONFIGS:
        assert cfg.model == config(leaf).model  # which another test builds
    elif folder == 'models':
        assert on_meta(cfg.model).num_classes == (1000 if 'classifier' in path else 150)
    elif 'imagenet' in path:
        assert cfg.train_dataloader.dataset.num_classes == cfg.val_dataloader.dataset.num_classes == 1000
    elif folder == 'datasets':
        for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
            for _, settings in find_datasets(dict(train_dataloader=loader), 'train'):
                dataset = DATASETS.build(dict(settings, lazy_init=True))
                expected = PUBLIC.get(Path(path).stem, (11 if 'camvid' in path else 150, ))[0]
                assert len(dataset.metainfo['classes']) == expected and dataset.pipeline.transforms
    elif folder == 'schedules':
        rates = schedule(cfg, [0, min(cfg.train_cfg.max_iters // 2, 1600)])  # after the warm-up
        assert 0 < rates[1] < cfg.optim_wrapper.optimizer.lr and cfg.auto_scale_lr.base_batch_size > 0
    else:
        assert cfg.custom_imports.imports == ['mmseg_inceptionnext'] and cfg.default_scope == 'mmseg'


@pytest.mark.parametrize('name', [*CONFIGS, *(pytest.param(name, marks=pytest.mark.slow) for name in OF_PUBLIC)])
def test_every_parameter_takes_part(name):
    segmentor = model(name).train()
    features = segmentor.extract_feat(torch.empty(2, 3, 64, 64, device='meta'))
    outputs = [segmentor.decode_head(features)]
    if segmentor.with_auxiliary_head:
        outputs.append(segmentor.auxiliary_head(features))
    assert [out.shape[1] for out in outputs] == [num_classes(config(name))] * len(outputs)
    sum(out.sum() for out in outputs).backward()
    assert not [name for name, p in segmentor.named_parameters() if p.grad is None]


@pytest.mark.parametrize('name', ONE_OF_EACH)
def test_a_step_gives_every_parameter_a_gradient(name):
    segmentor = randomise(revert_sync_batchnorm(MODELS.build(config(name).model))).train()
    classes = num_classes(config(name))
    samples = [
        SegDataSample(gt_sem_seg=PixelData(data=torch.randint(0, classes, (1, 64, 64))),
                      metainfo=dict(img_shape=(64, 64))) for _ in range(2)
    ]
    loss = total_loss(segmentor(torch.randn(2, 3, 64, 64), samples, mode='loss'))
    loss.backward()
    assert loss.isfinite() and all(p.grad.isfinite().all() for p in segmentor.parameters())
    own = [(name, p.shape) for name, p in segmentor.named_parameters()]
    assert own == [(name, p.shape) for name, p in model(name).named_parameters()]


def num_classes(cfg):
    return len(DATASETS.get(first_dataset(cfg, 'train').type).METAINFO['classes'])


def test_parameters_are_as_many_as_the_pages_say():
    pages = [ROOT / 'README.md', *(ROOT / 'docs').glob('*.md')]
    stated = {name: float(millions) for page in pages
              for name, millions in re.findall(r'`([\w/-]+\.py)` *\| *([\d.]+) M', page.read_text())}
    counted = {name: round(sum(p.numel() for p in model(name).parameters()) / 1e6, 2) for name in stated}
    assert len(stated) >= 6 and stated == counted


@functools.cache
def zoo() -> dict:
    """The models of the files that model-index.yml names, by config."""
    files = yaml.safe_load((ROOT / 'model-index.yml').read_text())['Import']
    assert files == sorted(str(path.relative_to(ROOT)) for path in (ROOT / 'configs').rglob('metafile.yml'))
    found = [yaml.safe_load((ROOT / path).read_text()) for path in files]
    collections = {collection['Name'] for one in found for collection in one['Collections']}
    models = [model for one in found for model in one['Models']]
    configs = [model['Config'] for model in models]
    assert {model['In Collection'] for model in models} == collections and len(set(configs)) == len(configs)
    assert all((ROOT / path).is_file() for path in configs)
    return {path[len('configs/'):]: model for path, model in zip(configs, models)}


RECIPES = [f'{head}_inceptionnext_{arch}_ade20k.py' for head in ('fpn', 'upernet') for arch in ARCHS]


def test_the_model_zoo_holds_the_recipes_and_the_readme_its_numbers():
    assert set(RECIPES) <= set(zoo())
    rows = re.findall(r'`([\w-]+\.py)`(?: \(ours\))? \| ([\d.]+) M \| ([\d.]+) G \| (\d+) x (\d+)',
                      (ROOT / 'README.md').read_text())
    stated = {name: zoo()[name]['Metadata'] for name in RECIPES}
    assert {name: numbers for name, *numbers in rows} == {
        name: [f'{one["Parameters"] / 1e6:.2f}', f'{one["MACs"] / 1e9:.1f}', *one['MACs Input Size'].split('x')]
        for name, one in stated.items()}


@pytest.mark.parametrize('name', RECIPES)
def test_a_model_of_the_zoo_is_that_of_its_config(name):
    cfg, said = config(name), zoo()[name]['Metadata']
    assert zoo()[name]['Name'] == Path(name).stem and 'Results' not in zoo()[name] and said['Weights'] == 'none yet'
    assert said['Architecture'][0] == f"InceptionNeXt-{name.split('_')[2].upper()}"
    assert (said['Iterations'], said['Batch Size']) == (cfg.train_cfg.max_iters, batches(cfg)[1])
    assert said['Parameters'] == sum(p.numel() for p in model(name).parameters())


@pytest.mark.parametrize('name', [name if '_a_' in name else pytest.param(name, marks=pytest.mark.slow)
                                  for name in RECIPES])
def test_the_macs_of_the_zoo(name):
    network, said = copy.deepcopy(model(name)), zoo()[name]['Metadata']
    shape = [int(side) for side in said['MACs Input Size'].split('x')]
    found = count_modules(network, lambda x: network.decode_head(network.extract_feat(x)), (1, 3, *shape))
    assert said['MACs'] == found[''].macs


@pytest.mark.parametrize('name', CONFIGS)
def test_the_name_says_what_is_inside(name):
    head, backbone, size, *variant, dataset = Path(name).stem.split('_')
    cfg = config(name)
    assert cfg.model.decode_head.type == dict(upernet='FastUPerHead', fpn='FPNHead')[head]
    assert cfg.train_dataloader.dataset.data_root == dict(
        ade20k='data/ade/ADEChallengeData2016', toy='data/toy_ade20k', camvid='data/camvid')[dataset]
    if (backbone, size) in TIMM:
        kind = 'TIMMBackbone' if 'timm' in backbone else 'NormedTIMMBackbone'
        assert (cfg.model.backbone.type, cfg.model.backbone.model_name) == (kind, TIMM[backbone, size])
    else:
        CHECKS[backbone](model(name).backbone, cfg.model.backbone, size, variant)
    folder = 'ablations' if variant or 'metanext' in backbone or '-iso' in backbone else (
        '' if 'timm' in backbone or backbone == 'inceptionnext' else 'peers')
    assert str(Path(name).parent).replace('.', '') == folder


def check_inceptionnext(found, cfg, size, variant):
    assert (cfg.type, cfg.arch) == ('InceptionNeXt', ARCHS[size]) and list(found.out_channels) == DIMS[size]
    norm = 'LN' if variant == ['ln'] else 'SyncBN'
    assert cfg.norm_cfg.type == cfg.out_norm_cfg.type == norm
    mixer = {**MIXER, **(dict(band_kernel_size=9, branch_ratio=1 / 4) if size == 'a' else {})}
    if variant:
        mixer.update(VARIANTS[variant[0]])
    expected = MODELS.build(dict(mixer, in_channels=DIMS[size][0]))
    token_mixer = found.stages[0].blocks[0].token_mixer
    assert str(token_mixer) == str(expected)
    assert (token_mixer.split_sizes, token_mixer.bands) == (expected.split_sizes, expected.bands)


def check_metanext(found, cfg, size, variant):
    kernel, _, ratio = variant[0][2:].partition('-')
    conv = found.stages[1].blocks[0].token_mixer.dwconv
    share = [int(number) for number in ratio.split('of')] if ratio else [1, 1]
    assert conv.kernel_size == (int(kernel), int(kernel)) and conv.in_channels == 192 * share[0] // share[1]
    assert cfg.depths == (3, 3, 9, 3) and list(found.out_channels) == DIMS[size] and cfg.norm_cfg.type == 'LN'


def check_isotropic(mixer, depth, norm):
    def check(found, cfg, size, variant):
        assert (cfg.type, cfg.token_mixer.type, len(found.blocks)) == ('IsotropicMetaNeXt', mixer, depth)
        assert cfg.dim == 384 and size == 's' and cfg.get('norm_cfg', dict(type='SyncBN'))['type'] == norm
    return check


def check_swin(found, cfg, size, variant):
    depths = dict(t=[2, 2, 6, 2], s=[2, 2, 18, 2], b=[2, 2, 18, 2])[size]
    assert (cfg.type, cfg.depths, found.num_features) == ('SwinTransformer', depths, DIMS[size])


def check_resnet(found, cfg, size, variant):
    depth, _, group = size.partition('-')
    kind = 'ResNeXt' if group else 'ResNetV1c'
    assert (cfg.type, cfg.depth) == (kind, int(depth))
    assert not group or f'{cfg.groups}x{cfg.base_width}d' == group


@pytest.mark.parametrize('name', [name for name in PRETRAIN if 'in1k' in name])
def test_a_classifier_has_the_backbone_of_the_segmentor_of_its_name(name):
    stem = Path(name).stem.partition('_in1k')[0]
    segmentor, = [other for other in CONFIGS if Path(other).stem == f'upernet_{stem}_ade20k']
    trunks = [{key: value.shape for key, value in found.state_dict().items() if not key.startswith(('norm', 'head'))}
              for found in (on_meta(config(name).model), model(segmentor).backbone)]
    assert len(trunks[0]) > 100 and trunks[0] == trunks[1]


CHECKS = {
    'inceptionnext': check_inceptionnext, 'metanext': check_metanext, 'swin': check_swin,
    'inceptionnext-iso': check_isotropic('InceptionDWConv2d', 18, 'SyncBN'),
    'convnext-iso': check_isotropic('PartialDWConv2d', 18, 'LN'),
    'metanext-attn': check_isotropic('SelfAttention2d', 12, 'LN'),
    'resnet': check_resnet, 'resnext': check_resnet,
}


def test_configs_are_short_and_plain_data():
    for name in ALL:
        lines = [line for line in (ROOT / 'configs' / name).read_text().splitlines() if line.strip()]
        assert len(lines) <= (25 if name in PRETRAIN else 16), f'{name}: a leaf holds only what makes it different'
    for name in PUBLIC.keys() - {'cityscapes-slide'}:
        assert len((ROOT / f'configs/_base_/datasets/{name}.py').read_text().splitlines()) <= 25
    for path in (ROOT / 'configs').rglob('*.py'):
        kinds = {type(node) for node in ast.parse(path.read_text()).body}
        assert kinds <= {ast.Assign, ast.Expr}, f'{path}: assignments only, so that a config stays readable'


def batches(cfg):
    return cfg.train_dataloader.batch_size, cfg.auto_scale_lr.base_batch_size


def schedule(cfg, iterations):
    """The learning rate at the given iterations, by the config's own schedulers on a dummy parameter."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=cfg.optim_wrapper.optimizer.lr)
    schedulers = [PARAM_SCHEDULERS.build(dict(s, optimizer=optimizer)) for s in cfg.param_scheduler]
    rates = []
    for i in range(max(iterations) + 1):
        if i in iterations:
            rates.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    return rates


@pytest.mark.parametrize('letter,rate', [('t', 0.2), ('s', 0.3), ('b', 0.4)])
def test_the_upernet_recipe(letter, rate):
    cfg = config(f'upernet_inceptionnext_{letter}_ade20k.py')
    assert cfg.model.backbone.drop_path_rate == rate
    assert cfg.model.backbone.norm_cfg.type == cfg.model.backbone.out_norm_cfg.type == 'SyncBN'
    head, aux = cfg.model.decode_head, cfg.model.auxiliary_head
    assert (head.channels, head.pool_scales, head.norm_cfg.type) == (512, (1, 2, 3, 6), 'SyncBN')
    assert (aux.type, aux.channels, aux.in_index, aux.loss_decode.loss_weight) == ('FCNHead', 256, 2, 0.4)
    assert cfg.model.test_cfg.mode == 'whole'
    assert (cfg.train_cfg.max_iters, *batches(cfg)) == (160000, 2, 16)
    assert cfg.optim_wrapper.optimizer == dict(type='AdamW', lr=6e-5, betas=(0.9, 0.999), weight_decay=0.01)


def test_the_upernet_schedule():
    rates = schedule(config('upernet_inceptionnext_t_ade20k.py'), [0, 750, 1499, 2000, 3000])
    linear = [6e-5 * (1 - (i - 1500) / 158500) for i in (2000, 3000)]
    torch.testing.assert_close(rates, [6e-11, 6e-5 * 750 / 1499, 6e-5, *linear], rtol=2e-3, atol=0.)


@pytest.mark.parametrize('letter,rate', [('t', 0.1), ('s', 0.2), ('b', 0.2)])
def test_the_fpn_recipe(letter, rate):
    cfg = config(f'fpn_inceptionnext_{letter}_ade20k.py')
    assert cfg.model.backbone.drop_path_rate == rate
    assert (cfg.model.neck.out_channels, cfg.model.decode_head.channels) == (256, 128)
    assert (cfg.train_cfg.max_iters, *batches(cfg)) == (40000, 4, 32)
    assert cfg.optim_wrapper.optimizer == dict(type='AdamW', lr=2e-4, betas=(0.9, 0.999), weight_decay=1e-4)
    for loader in (cfg.val_dataloader, cfg.test_dataloader):
        assert dict(type='ResizeToMultiple', size_divisor=32) in loader.dataset.pipeline
    rates = schedule(cfg, [0, 1000, 2000])  # MMEngine reaches 0 at iteration 39999
    torch.testing.assert_close(rates, [2e-4 * (1 - i / 40000)**0.9 for i in (0, 1000, 2000)], rtol=1e-5, atol=0.)


@pytest.mark.parametrize('name', [name for name in CONFIGS if 'ade20k' in name and '/' not in name])
def test_ade20k_starts_from_the_authors_weights_of_that_size(name):
    backbone = config(name).model.backbone
    assert backbone.init_cfg == dict(
        type='Pretrained',
        checkpoint='https://github.com/sail-sg/inceptionnext/releases/download/model/'
        f'inceptionnext_{backbone.arch}.pth')


def test_each_public_data_set_has_its_leaves():
    sizes = [('upernet', 't'), ('upernet', 's'), ('upernet', 'b'), ('fpn', 't')]
    expected = {f'{name}/{head}_inceptionnext_{size}_{name}.py' for name in PUBLIC for head, size in sizes
                if name not in ('chase-db1', 'cityscapes-slide')}
    assert set(OF_PUBLIC) == {*expected, 'chase-db1/fpn_inceptionnext_a_chase-db1.py',
                              'cityscapes/upernet_inceptionnext_t_cityscapes-slide.py'}


@pytest.mark.parametrize('name', OF_PUBLIC)
def test_a_public_data_set_has_its_numbers(name):
    head, _, size, dataset = Path(name).stem.split('_')
    classes, crop, scale, iterations, stride = PUBLIC[dataset]
    cfg, network = Config.fromfile(str(ROOT / 'configs' / name)), config(f'{head}_inceptionnext_{size}_ade20k.py')
    heads = [cfg.model[part] for part in ('decode_head', 'auxiliary_head') if part in cfg.model]
    assert len(heads) == 1 + (head == 'upernet') and {part.num_classes for part in heads} == {classes}
    assert cfg.model.backbone == network.model.backbone and cfg.model.data_preprocessor.size == crop
    for split in ('train', 'val', 'test'):
        for _, settings in find_datasets(cfg, split):
            assert len(DATASETS.get(settings.type).METAINFO['classes']) == classes
            steps = {step.type: step for step in settings.pipeline}
            if split == 'train':
                assert (steps['RandomResize'].scale, steps['RandomCrop'].crop_size) == (scale, crop)
    assert cfg.model.test_cfg == (dict(mode='slide', crop_size=crop, stride=stride) if stride else dict(mode='whole'))
    warm_up, linear = cfg.param_scheduler
    assert (cfg.train_cfg.max_iters, linear.end, linear.power, warm_up.end) == (iterations, iterations, 1, 1500)
    assert batches(cfg) == (2, 16) and cfg.default_hooks.checkpoint.interval == cfg.train_cfg.val_interval
    assert cfg.optim_wrapper.optimizer == dict(type='AdamW', lr=6e-5, betas=(0.9, 0.999), weight_decay=0.01)
    assert cfg.train_dataloader.sampler.type == 'ResumableSampler' and cfg.val_evaluator.type == 'ExactIoUMetric'


def test_only_weights_decay():
    segmentor = model('upernet_inceptionnext_t_ade20k.py')
    optimizer = build_optim_wrapper(segmentor, config('upernet_inceptionnext_t_ade20k.py').optim_wrapper).optimizer
    decay = {id(p): group['weight_decay'] for group in optimizer.param_groups for p in group['params']}
    expected = {name: 0.01 if p.ndim > 1 else 0. for name, p in segmentor.named_parameters()}
    assert {name: decay[id(p)] for name, p in segmentor.named_parameters()} == expected
    assert expected['backbone.stages.0.blocks.0.gamma'] == expected['backbone.stem.1.weight'] == 0.


def test_every_batchnorm_is_synchronised():
    norms = [m for m in model('upernet_inceptionnext_t_ade20k.py').modules()
             if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    assert len(norms) == 1 + 18 + 3 + 4 + 13 and all(isinstance(m, SyncBatchNorm) for m in norms)


@pytest.mark.parametrize('name,content,words', [
    ('syntax.py', 'a = (', 'SyntaxError'),
    ('base.py', "_base_ = './nowhere.py'", 'FileNotFoundError.*nowhere.py'),
    ('of_base.py', "_base_ = './syntax.py'", 'SyntaxError'),
    ('name.py', 'a = unknown', "NameError.*name 'unknown' is not defined"),
    ('bytes.py', b'\xff\xfe', 'UnicodeDecodeError'),
    ('bad.yaml', 'a: [1', 'ParserError'),
    ('bad.json', '{', 'JSONDecodeError'),
    ('list.json', '[1]', 'AttributeError'),
    ('imports.py', "custom_imports = dict(imports=['no_such_module'], allow_failed_imports=False)", 'no_such_module'),
    ('config.txt', 'a = 1', 'a config is a file that ends in .py, .json, .yaml or .yml'),
    ('config', 'a = 1', 'a config is a file that ends in .py, .json, .yaml or .yml'),
])
def test_a_file_that_is_no_config_is_refused_by_its_name(tmp_path, name, content, words):
    (tmp_path / 'syntax.py').write_text('a = (')
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError, match=words) as caught:
        load_config(str(path))
    assert str(caught.value).startswith(f'{path}')


@pytest.mark.parametrize('split', ['train', 'val', 'test'])
def test_without_workers_there_are_none_to_keep(split, toy_root):
    cfg = load_config(str(ROOT / TOY), {'data_root': str(toy_root), f'{split}_dataloader.num_workers': 0})
    kept = {other: cfg[f'{other}_dataloader'].persistent_workers for other in ('train', 'val', 'test')}
    assert kept == {other: other != split for other in kept}
    loader = Runner.build_dataloader(cfg[f'{split}_dataloader'])
    assert len(next(iter(loader))['inputs']) == loader.batch_size


def test_without_a_number_of_workers_there_are_none(tmp_path):
    (tmp_path / 'config.py').write_text('train_dataloader = dict(persistent_workers=True)\nval_dataloader = None')
    assert load_config(str(tmp_path / 'config.py')).train_dataloader.persistent_workers is False


@pytest.mark.parametrize('options,words', [
    ({'train_dataloader.dataset.ignore_index': 199}, 'model.decode_head.ignore_index is 255, but '
     'train_dataloader.dataset.ignore_index is 199'),
    ({'model.decode_head.ignore_index': 199}, 'model.decode_head.ignore_index is 199, but '
     'train_dataloader.dataset.ignore_index is 255'),
    ({'model.auxiliary_head.ignore_index': 0}, 'model.auxiliary_head.ignore_index is 0, but '),
    ({'model.decode_head.ignore_index': 199, 'model.auxiliary_head.ignore_index': 199,
      'train_dataloader.dataset.ignore_index': 199}, None),
    ({'val_dataloader.dataset.ignore_index': 199}, None),  # the metric has its own
    ({'train_dataloader': None}, None),
    ({}, None),
])
def test_a_loss_that_ignores_another_value_is_refused(options, words):
    cfg = load_config(str(ROOT / 'configs/upernet_inceptionnext_a_ade20k.py'), options)
    if words is None:
        check_datasets(cfg, 'train')
        return
    with pytest.raises(ConfigError, match=words):
        check_datasets(cfg, 'train')
