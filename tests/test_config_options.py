import argparse

import pytest
from mmengine.config import Config

from mmseg_inceptionnext.cli import add_config_options
from mmseg_inceptionnext.config import load_config
from mmseg_inceptionnext.errors import ConfigError
from mmseg_inceptionnext.parts import find_datasets

from utils import ROOT, TOY

UPERNET = str(ROOT / 'configs/upernet_inceptionnext_t_ade20k.py')


def parse(*args):
    parser = argparse.ArgumentParser()
    add_config_options(parser, 'a=1')
    return parser.parse_args(args).cfg_options


@pytest.mark.parametrize('text, value', [
    ('data_root=/My Drive/ade', '/My Drive/ade'), ('data_root=/a,b/c', '/a,b/c'), ('data_root=2016', '2016'),
    ('load_from=runs (old)/iter_4.pth', 'runs (old)/iter_4.pth'), ('load_from=None', None),
    ('model.backbone.init_cfg.checkpoint=https://host/a,b.pth', 'https://host/a,b.pth'),
    ('a.data_prefix.img_path=left [8 bit]', 'left [8 bit]'), ('a.save_best=IoU/screen door', 'IoU/screen door'),
    ('a="x, y"', 'x, y'), ("a='1'", '1'), ('a=1,2', [1, 2]), ('a=(1, 2)', (1, 2)), ('a=[(1,2), b]', [(1, 2), 'b']),
    ("a=['traffic light', 'car']", ['traffic light', 'car']), ('a=traffic light,car', ['traffic light', 'car']),
    ('a=(1,2),(3,4)', [(1, 2), (3, 4)]), ('a=(1,)', (1, )), ('a=[]', []), ("a='lamp, lit',car", ['lamp, lit', 'car']),
    ("a=driver's seat", "driver's seat"), ('a=-0.5', -0.5), ('a=1e-3', 1e-3), ('a=True', True), ('a=', ''),
    ('a=b=c', 'b=c')])
def test_values_with_spaces_and_commas(text, value):
    (found, ) = parse('--cfg-options', text).values()
    assert found == value and type(found) is type(value)


def test_the_folder_of_the_data_has_an_option_of_its_own():
    assert parse('--data-root', 'My Drive/a,b', '--cfg-options', 'lr=1') == dict(data_root='My Drive/a,b', lr=1)
    assert parse('--cfg-options', 'lr=1', '--data-root', '16') == dict(data_root='16', lr=1)


@pytest.mark.parametrize('text, fix', [('Drive/ade', 'put a value with spaces into quotes'),
                                       ('a=[1,2', 'close each bracket')])
def test_what_is_no_setting_is_explained(text, fix, capsys):
    with pytest.raises(SystemExit):
        parse('--cfg-options', text)
    assert fix in capsys.readouterr().err


def get(cfg, name):
    for part in name.split('.'):
        cfg = cfg[int(part) if part.isdecimal() else part]
    return cfg


@pytest.mark.parametrize('option, value, places', [
    ('norm_cfg.type', 'BN', ['model.backbone.norm_cfg.type', 'model.backbone.out_norm_cfg.type',
                             'model.decode_head.norm_cfg.type', 'model.auxiliary_head.norm_cfg.type']),
    ('train_pipeline.4.crop_size', (256, 256), ['train_dataloader.dataset.pipeline.4.crop_size']),
    ('test_pipeline.1.scale', (1024, 256), ['val_dataloader.dataset.pipeline.1.scale',
                                            'test_dataloader.dataset.pipeline.1.scale']),
    ('data_preprocessor.size', (256, 256), ['model.data_preprocessor.size']),
    ('vis_backends.0.type', 'TensorboardVisBackend', ['visualizer.vis_backends.0.type']),
    ('dataset_type', 'FolderDataset', ['train_dataloader.dataset.type', 'val_dataloader.dataset.type'])])
def test_a_variable_reaches_what_was_made_from_it(option, value, places):
    cfg = load_config(UPERNET, {option: value})
    assert [get(cfg, place) for place in places] == [value] * len(places)
    before = load_config(UPERNET)
    assert value not in [get(before, place) for place in places]
    for place in {place.split('.')[0] for place in places}:  # and nothing else
        for changed in (found for found in places if found.startswith(place)):
            parent, _, key = changed.rpartition('.')
            get(before, parent)[int(key) if key.isdecimal() else key] = value
        assert cfg[place] == before[place]


OWN = '''
classes = 19
crop = (64, 64)
lr = 1e-3
model = dict(type='EncoderDecoder', decode_head=dict(type='FCNHead', classes=classes, channels=19))
optim_wrapper = dict(optimizer=dict(type='AdamW', lr=lr))
unused = [1, 2]
'''


def test_a_number_reaches_settings_of_its_name_only(tmp_path):
    path = tmp_path / 'own.py'
    path.write_text(OWN)
    cfg = load_config(str(path), dict(classes=5, lr=0.1))
    assert cfg.model.decode_head == dict(type='FCNHead', classes=5, channels=19)
    assert cfg.optim_wrapper.optimizer.lr == 0.1


@pytest.mark.parametrize('option, value, fix', [
    ('max_iters', 100, 'did you mean train_cfg.max_iters'), ('lr', 1e-3, 'did you mean optim_wrapper.optimizer.lr'),
    ('batch_size', 1, 'train_dataloader.batch_size'), ('modle.backbone.arch', 's', 'did you mean model.backbone.arch'),
    ('data_rot', 'x', 'did you mean data_root'), ('optimiser.weight_decay', .1, 'optim_wrapper.optimizer.weight_decay'),
    ('seed', 3, 'seed'), ('train_dataloder.sampler', None, 'train_dataloader.sampler'),
    ('train_pipeline.12.prob', .5, 'does not fit the config'), ('train_cfg.max_iters.x', 1, 'does not fit the config'),
    ('model.decode_head.in_index.7', 1, 'does not fit the config')])
def test_what_would_change_nothing_is_refused(option, value, fix):
    with pytest.raises(ConfigError, match=f'--cfg-options {option}.*{fix}'):
        load_config(UPERNET, {option: value})


def test_a_variable_that_nothing_is_made_from_is_refused(tmp_path):
    path = tmp_path / 'own.py'
    path.write_text(OWN)
    for name in ('unused', 'crop'):
        with pytest.raises(ConfigError, match=f'no part of the config holds the value of {name}'):
            load_config(str(path), {name: (3, 4)})


@pytest.mark.parametrize('option, fix', [
    ('launcher', 'use --launcher'), ('custom_imports.imports', 'use the config file'), ('model..backbone', 'fit'),
    ('model.', 'does not fit the config'), ('val_evaluator.0.prefix', 'does not fit the config')])
def test_what_is_read_elsewhere_or_is_no_name_is_refused(option, fix):
    with pytest.raises(ConfigError, match=f'--cfg-options {option}.*{fix}'):
        load_config(UPERNET, {option: 'x'})


def test_a_number_that_other_settings_hold_is_warned_of(tmp_path, capsys):
    path = tmp_path / 'own.py'
    path.write_text('max_iters = 800\ntrain_cfg = dict(max_iters=max_iters)\n'
                    "param_scheduler = [dict(type='PolyLR', end=max_iters)]\nmodel = dict(type='EncoderDecoder')\n")
    cfg = load_config(str(path), dict(max_iters=50))
    assert cfg.train_cfg.max_iters == 50 and 'still 800: param_scheduler.0.end' in ''.join(capsys.readouterr())


def test_a_variable_of_code_of_ones_own_is_taken(tmp_path, capsys):
    path = tmp_path / 'own.py'
    path.write_text("custom_imports = dict(imports=['json'])\nmy_num = 3\nmodel = dict(type='EncoderDecoder')\n")
    assert load_config(str(path), dict(my_num=5)).my_num == 5
    assert 'only code of your own can read it' in ''.join(capsys.readouterr())


def test_options_with_delete_may_stand_in_any_order():
    cfg = load_config(UPERNET, {'train_cfg.max_epochs': 2, 'train_cfg.by_epoch': True, 'train_cfg._delete_': True})
    assert cfg.train_cfg.to_dict() == dict(max_epochs=2, by_epoch=True)


def test_a_dumped_config_is_read_without_a_word(tmp_path, capsys):
    Config.fromfile(UPERNET).dump(str(tmp_path / 'dumped.py'))
    load_config(str(tmp_path / 'dumped.py'))
    (tmp_path / 'child.py').write_text("_base_ = '{{ fileDirname }}/dumped.py'\n")
    assert load_config(str(tmp_path / 'child.py')).train_cfg.max_iters == 160000
    assert not ''.join(capsys.readouterr())


def test_options_that_only_add_a_part_are_taken():
    cfg = load_config(UPERNET, {'randomness.seed': 3, 'runner_type': 'SegRunner', 'resume': True,
                                'optim_wrapper.clip_grad.max_norm': 1., 'find_unused_parameters': True})
    assert cfg.randomness.seed == 3 and cfg.optim_wrapper.clip_grad.max_norm == 1. and cfg.find_unused_parameters


def roots(cfg):
    return {dataset.data_root for split in ('train', 'val', 'test') for _, dataset in find_datasets(cfg, split)}


def test_the_data_moves_also_where_no_variable_says_where_it_is(tmp_path):
    cfg = Config.fromfile(str(ROOT / TOY))
    assert roots(load_config(str(ROOT / TOY), dict(data_root='elsewhere'))) == {'elsewhere'}
    cfg.pop('data_root')
    own = dict(cfg.val_dataloader.dataset)
    cfg.val_dataloader.dataset = dict(type='ConcatDataset', datasets=[own, dict(own)])
    cfg.dump(str(tmp_path / 'joined.py'))
    assert roots(load_config(str(tmp_path / 'joined.py'), dict(data_root=2016))) == {'2016'}
    cfg.val_dataloader.dataset.datasets[1].data_root = 'other'
    cfg.dump(str(tmp_path / 'apart.py'))
    with pytest.raises(ConfigError, match='different places.*val_dataloader.dataset.datasets.1.data_root'):
        load_config(str(tmp_path / 'apart.py'), dict(data_root='elsewhere'))


@pytest.mark.parametrize('line, warned', [
    ("norm_cfg = dict(type='BN')", 'model.'), ('crop_size = (64, 64)', ''),
    ("train_pipeline = [dict(type='LoadImageFromFile')]", 'train_dataloader.dataset.pipeline'),
    ("data_root = 'elsewhere'", 'train_dataloader.dataset.data_root'),
    ("data_root = 'elsewhere'\nd = dict(dataset=dict(data_root=data_root))\n"
     'train_dataloader = d\nval_dataloader = d\ntest_dataloader = d', '')])
def test_a_config_that_sets_a_variable_of_its_base_in_vain_is_warned_of(tmp_path, capsys, line, warned):
    path = tmp_path / 'child.py'
    path.write_text(f'_base_ = {UPERNET!r}\n{line}\n')
    (tmp_path / 'grandchild.py').write_text("_base_ = 'child.py'\n")
    load_config(str(tmp_path / 'grandchild.py'))
    text = ''.join(capsys.readouterr())
    assert ('and keep that' in text) == bool(warned) and warned in text


@pytest.mark.parametrize('line, near', [
    ('val_dataloder = dict(batch_size=1)', 'val_dataloader'), ('optim_wraper = dict()', 'optim_wrapper'),
    ('param_schedulers = []', 'param_scheduler'), ('lr_config = dict()', 'param_scheduler'),
    ("optimizer = dict(type='SGD')", 'optim_wrapper.optimizer'), ('max_iters = 5', 'train_cfg.max_iters'),
    ('num_classes = 7', 'model.auxiliary_head.num_classes or model.decode_head.num_classes'),
    ('train_pipelines = []', ''), ('my_norm_cfg = dict()', '')])
def test_a_name_that_is_nearly_one_that_is_read_is_warned_of(tmp_path, capsys, line, near):
    path = tmp_path / 'child.py'
    path.write_text(f'_base_ = {UPERNET!r}\n{line}\n')
    load_config(str(path))
    text = ''.join(capsys.readouterr())
    assert f'which nothing reads: did you mean {near}?' in text if near else not text


def test_a_whole_config_as_training_writes_it_is_warned_of_nothing(tmp_path, capsys):
    cfg = Config.fromfile(UPERNET)
    cfg.optimizer, cfg.num_classes, cfg.data_preprocessor.mean = dict(type='SGD'), 7, [100., 100., 100.]
    assert cfg.data_preprocessor != cfg.model.data_preprocessor
    cfg.dump(str(tmp_path / 'whole.py'))
    load_config(str(tmp_path / 'whole.py'))
    assert not ''.join(capsys.readouterr())


@pytest.mark.slow
def test_our_own_configs_set_no_variable_in_vain(capsys):
    paths = sorted((ROOT / 'configs').rglob('*.py'))
    assert len(paths) > 40
    for path in paths:
        load_config(str(path))
    text = capsys.readouterr()
    assert 'and keep that' not in text.out + text.err
