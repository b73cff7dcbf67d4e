"""Benchmarks run what they say they run; what they measure is not tested."""
import json

import matplotlib.image
import pytest
import torch

from mmseg_inceptionnext.apis import ConfigError, compare_stock, measure, throughput
from mmseg_inceptionnext.apis.compare_stock import Case
from mmseg_inceptionnext.export.compare_stock import compare_onnx_with_stock

from utils import ROOT, run_tool

ATTO = str(ROOT / 'configs/upernet_inceptionnext_a_ade20k.py')
FPN = str(ROOT / 'configs/fpn_inceptionnext_a_ade20k.py')
TINY = throughput.Settings(shape=(64, 96), batch_size=2, memory_format='nchw')


@pytest.mark.parametrize('mode', compare_stock.MODES)
def test_both_ways_agree(monkeypatch, mode):
    monkeypatch.setitem(compare_stock.CASES, mode, Case((2, 3, 96, 128), (75, 100), 'small'))
    monkeypatch.setattr(compare_stock, 'SLIDE', dict(mode='slide', crop_size=(64, 64), stride=(43, 43)))
    rows, agreement = compare_stock._compare(ATTO, mode, 2)
    assert [row.name for row in rows][:2] == ['stock', 'ours'] and all(len(row.times) == 2 for row in rows)
    assert rows[0].macs > rows[1].macs if mode != 'backbone' else rows[0].macs == rows[1].macs
    if mode in ('predict', 'slide'):
        assert float(agreement.split(' %')[0]) > 99.9
    if mode in ('predict', 'backbone'):
        assert float(agreement.split('error ')[1]) < 1e-5


def test_macs_are_counted():
    conv = torch.nn.Conv2d(4, 8, 3, padding=1)
    assert measure.macs_of(lambda: conv(torch.zeros(2, 4, 5, 6))) == 2 * 30 * 8 * 4 * 9


def test_calls_take_turns():
    calls = []
    times = measure.alternate({name: lambda name=name: calls.append(name) for name in 'ab'}, runs=3)
    assert calls == list('ab' * 4) and {name: len(found) for name, found in times.items()} == dict(a=3, b=3)


def test_peak_memory_is_that_of_the_call():
    code = ('import torch; from mmseg_inceptionnext.apis.measure import peak_memory; '
            'print("peak", peak_memory(lambda: torch.ones(2**24)))')  # 64 MiB
    text = run_tool('-c', code, MALLOC_MMAP_THRESHOLD_=str(2**20)).stdout
    assert 60 < float(text.split('peak ')[1]) / 2**20 < 72


def test_failures_in_other_processes_are_shown():
    with pytest.raises(RuntimeError, match='no_such_function'):
        measure.in_fresh_process('measure:no_such_function')


@pytest.mark.parametrize('mode', throughput.MODES)
@pytest.mark.parametrize('backbone_only', [False, True], ids=['segmentor', 'backbone'])
def test_throughput_of_two(mode, backbone_only):
    results = throughput.measure_throughput(
        [ATTO, FPN], TINY._replace(mode=mode, backbone_only=backbone_only), runs=2, with_memory=False)
    assert [result.config for result in results] == [ATTO, FPN]
    for result in results:
        assert (result.mode, result.batch_size, len(result.times)) == (mode, 2, 2)
        assert result.images_per_second == pytest.approx(4 / sum(result.times))


def test_the_faster_format_is_reported(monkeypatch):
    seconds = {'nchw': {ATTO: 2., FPN: 1.}, 'nhwc': {ATTO: 1., FPN: 2.}}
    monkeypatch.setattr(throughput, 'alternate', lambda calls, runs: {
        (config, name): [seconds[name][config]] for config, name in calls})
    results = throughput.measure_throughput([ATTO, FPN], TINY._replace(memory_format='best'), 1, with_memory=False)
    assert [result.memory_format for result in results] == ['nhwc', 'nchw']


def test_settings_reach_the_model():
    model = throughput._build(ATTO, TINY._replace(fused=True), 'nhwc')
    assert hasattr(model, 'fused') and model.backbone.stem[0].weight.is_contiguous(memory_format=torch.channels_last)
    model = throughput._build(ATTO, TINY._replace(mode='train'), 'nchw')
    assert model.training and model.backbone.stem[0].weight.is_contiguous()
    settings, dtypes = TINY._replace(backbone_only=True, amp=True), []
    model = throughput._build(ATTO, settings, 'nchw')
    model.stem[0].register_forward_hook(lambda module, inputs, output: dtypes.append(output.dtype))
    throughput._call(model, settings, 'nchw', (1, 64, 64))()
    assert dtypes in ([torch.bfloat16], [torch.float16])


def test_the_batch_is_halved_until_it_fits(monkeypatch):
    def call(model, settings, memory_format, shape):
        if shape[0] > 2:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried ...")
        return lambda: None

    monkeypatch.setattr(throughput, '_call', call)
    assert throughput._fitting_call(ATTO, TINY._replace(batch_size=9), 'nchw')[0] == 2
    monkeypatch.setattr(throughput, '_call', lambda *args: call(*args[:3], (9, )))
    with pytest.raises(ConfigError, match='not even one image: give a smaller --shape'):
        throughput._fitting_call(ATTO, TINY, 'nchw')


def test_from_the_command_line(tmp_path):
    text = run_tool('tools/benchmark.py', ATTO, FPN, '--shape', 64, 64, '--runs', 1, '--memory-format', 'nchw',
                    '--json', tmp_path / 'b.json', '--plot', tmp_path / 'b.png', '--fuse', '--backbone-only').stdout
    assert '| inceptionnext_a ' in text and '1.00x' in text and 'backbones, 64 x 64 (H x W), fuse' in text
    found = json.loads((tmp_path / 'b.json').read_text())
    assert [result['batch_size'] for result in found['results']] == [1, 1] and found['settings']['fused'] is True
    assert all(0 < result['memory'] < 2**30 for result in found['results'])
    assert matplotlib.image.imread(tmp_path / 'b.png').shape == (750, 1050, 4)


@pytest.mark.parametrize('args,words', [
    ((), ['give one or more configs']), ((ATTO, '--compare-stock', ATTO), ['give one or more configs']),
    ((ATTO, '--mode', 'slide'), ['--mode slide', 'infer, train']), (('missing.py', ), ['missing.py: no such config']),
    (('--compare-stock', ATTO, '--mode', 'infer'), ['predict, train, backbone, slide']),
    ((ATTO, '--mode', 'infer', 'train', '--plot', 'a.png'), ['one mode']),
    (('--compare-stock', 'configs/peers/upernet_swin_t_ade20k.py'), ['no counterpart']),
])
def test_what_cannot_be_compared_is_said(args, words):
    result = run_tool('tools/benchmark.py', *args, check=False)
    assert result.returncode and 'Traceback' not in result.stdout
    assert all(word in result.stdout for word in words), result.stdout


@pytest.mark.parametrize('args,words', [
    (('--onnx', ATTO, '--memory-format', 'best', '--batch-size', 1, '--scaling'),
     '--onnx goes with --shape, --runs, --json only, not with --batch-size, --memory-format, --scaling'),
    (('--onnx', ATTO, '--no-memory'), '--json only, not with --no-memory'),
    (('--onnx', ATTO, '--mode', 'infer'), '--json only, not with --mode'),
    (('--compare-stock', ATTO, '--amp'), '--scaling only, not with --amp'),
    ((ATTO, '--scaling'), '--plot only, not with --scaling'),
])
def test_options_that_would_be_ignored_are_refused(args, words):
    """Also those that are given as they are by default."""
    result = run_tool('tools/benchmark.py', *args, check=False)
    assert result.returncode == 2 and words in result.stdout.splitlines()[-1]


def test_onnx_files_of_both_ways_agree(tmp_path):
    pytest.importorskip('onnxruntime')
    times, error = compare_onnx_with_stock(ATTO, (64, 96), 2)
    assert list(times) == ['stock', 'ours'] and all(len(found) == 2 and min(found) > 0 for found in times.values())
    assert error < 1e-4
    text = run_tool('tools/benchmark.py', '--onnx', FPN, '--shape', 64, 64, '--runs', 1, '--json',
                    tmp_path / 'b.json').stdout
    found = json.loads((tmp_path / 'b.json').read_text())
    assert list(found) == ['stock', 'ours', 'error'] and found['error'] < 1e-4
    assert 'in ONNX Runtime, 64 x 64 (H x W), two threads' in text and '1.00x' in text


def test_missing_config():
    with pytest.raises(ConfigError, match='no such config'):
        throughput.measure_throughput(['missing.py'], TINY)
