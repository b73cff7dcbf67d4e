"""Ours agrees with stock where both are timed; what the times are is not tested."""
import json
import types
import weakref
from contextlib import nullcontext

import pytest
import torch

from mmseg_inceptionnext.analysis import benchmark, measure, variants
from mmseg_inceptionnext.analysis.variants import STOCK_SETTINGS, Settings, config_variants, stock_variants

from utils import ROOT, run_tool

ATTO = str(ROOT / 'configs/upernet_inceptionnext_a_ade20k.py')
FPN = str(ROOT / 'configs/fpn_inceptionnext_a_ade20k.py')
MIB = 2**20


@pytest.mark.parametrize('mode', [
    mode if mode == 'predict' else pytest.param(mode, marks=pytest.mark.slow) for mode in STOCK_SETTINGS])
def test_both_ways_agree(monkeypatch, mode):
    monkeypatch.setattr(variants, 'SLIDE', dict(mode='slide', crop_size=(64, 64), stride=(43, 43)))
    settings = STOCK_SETTINGS[mode]._replace(batch_size=2, shape=(96, 128), size=(75, 100))
    config = FPN if mode in ('slide', 'backbone') else ATTO
    rows, agreement = benchmark.measure_times(stock_variants(config, mode), settings, 1)
    assert all(len(row.times) == 1 for row in rows)
    assert rows[0].macs > rows[1].macs if mode != 'backbone' else rows[0].macs == rows[1].macs
    if mode in ('predict', 'slide'):
        assert float(agreement.split(' %')[0]) > 99.9
    if mode in ('predict', 'backbone'):
        assert float(agreement.split('error ')[1]) < 1e-5


def test_the_faster_format_is_reported(monkeypatch):
    other = ATTO.replace('_a_', '_t_')
    seconds = {'nchw': {ATTO: 2., other: 1.}, 'nhwc': {ATTO: 1., other: 2.}}
    monkeypatch.setattr(benchmark, 'isolated', lambda function, *args: function(*args))
    monkeypatch.setattr(benchmark, 'build', lambda variant, settings: None)
    monkeypatch.setattr(benchmark, 'call_of', lambda *args: None)
    monkeypatch.setattr(benchmark, 'alternate', lambda calls, runs: {
        variant: [seconds[variant.memory_format][variant.path]] for variant in calls})
    rows, _ = benchmark.compare(config_variants([ATTO, other], 'best'), Settings(), 1, False, best_format=True)
    assert [(row.variant.path, row.variant.memory_format) for row in rows] == [(ATTO, 'nhwc'), (other, 'nchw')]


@pytest.fixture
def fake_gpu(monkeypatch):
    """Measuring takes the ways of a GPU, over calls that run on the CPU; peaks are 1 GiB, a call has a kernel."""
    for module in (measure, benchmark):
        monkeypatch.setattr(module, 'on_gpu', lambda: True)
    event = types.SimpleNamespace(name='gemm', device_type=measure.DeviceType.CUDA,
                                  time_range=types.SimpleNamespace(elapsed_us=lambda: 2000))
    profiler = types.SimpleNamespace(events=lambda: [event])
    monkeypatch.setattr(measure, 'profile', lambda activities: nullcontext(profiler))
    for name, value in dict(synchronize=lambda: None, empty_cache=lambda: None, reset_peak_memory_stats=lambda: None,
                            max_memory_allocated=lambda: 1024 * MIB).items():
        monkeypatch.setattr(torch.cuda, name, value)


def test_a_model_is_alone_on_the_gpu_where_its_memory_is_measured(fake_gpu, monkeypatch):
    built, alive, weights = [], [], []

    def build(variant, settings):
        model = variants.build(variant, settings)
        built.append(weakref.ref(model))
        return model

    def peak_memory(function, warm_up, model):
        assert torch.backends.cudnn.benchmark
        alive.append(sum(each() is not None for each in built))
        weights.append(sum(x.numel() * x.element_size() for x in (*model.parameters(), *model.buffers())))
        return measure.peak_memory(function, warm_up, model)

    monkeypatch.setattr(benchmark, 'build', build)
    monkeypatch.setattr(benchmark, 'peak_memory', peak_memory)
    rows, _ = benchmark.compare(stock_variants(FPN, 'train'), Settings('train', shape=(64, 64)), 1)
    assert [row.memory for row in rows] == [1024 * MIB - held for held in weights] and alive == [1, 1]
    assert {row.kernels for row in rows} == {measure.Kernels(1, .002)} and not torch.backends.cudnn.benchmark


def test_too_little_memory_is_explained(fake_gpu, monkeypatch):
    def build(variant, settings):
        raise torch.cuda.OutOfMemoryError('CUDA out of memory')

    monkeypatch.setattr(benchmark, 'build', build)
    with pytest.raises(ValueError, match='batch 9 of 512 x 512 .* smaller --batch-size or --shape. CUDA out of memory'):
        benchmark.compare(config_variants([FPN]), Settings(batch_size=9), 1)


@pytest.mark.slow
def test_configs_on_the_command_line(tmp_path):
    text = run_tool('tools/benchmark.py', ATTO, FPN, '--shape', 64, 64, '--runs', 1, '--memory-format', 'nchw',
                    '--json', tmp_path / 'b.json', '--fuse', '--backbone-only').stdout
    assert '| infer of the backbone, 64 x 64, batch 1, fp32 | upernet_inceptionnext_a_ade20k | nchw ' in text
    found = json.loads((tmp_path / 'b.json').read_text())['rows']
    assert len(found) == 2 and all(row['variant']['fused'] and 0 < row['memory'] < 2**30 for row in found)


@pytest.mark.slow
def test_stock_on_the_command_line():
    text = run_tool('tools/benchmark.py', '--compare-stock', FPN, '--mode', 'backbone', '--amp', '--channels-last',
                    '--runs', 1, '--no-memory', '--markdown').stdout
    amp = 'fp16' if torch.cuda.is_available() else 'bf16'
    assert f'peak in {amp}: ' in text and f'| backbone, 512 x 512, batch 1, {amp} | stock           | nhwc ' in text
    assert f'backbone, 512 x 512, batch 1, {amp}: largest relative error ' in text and 'peak MiB' not in text


@pytest.mark.slow
def test_classifiers_on_the_command_line():
    text = run_tool('tools/benchmark.py', '--classifiers', 'test_convnext', 'inception_next_atto', '--batch-size', 2,
                    '--runs', 1, '--mode', 'infer', '--memory-format', 'best', '--markdown').stdout
    first, second = (line.split('|') for line in text.splitlines() if line.startswith('|')
                     and ('_convnext' in line or '_atto' in line))
    assert first[1].strip() == 'infer, 224 x 224, batch 2, fp32' and '1.00x' in first[7]
    assert [cell.strip() for cell in second[8:10]] == ['9876', '75.3']


@pytest.mark.slow
def test_onnx_files_of_both_ways_agree(tmp_path):
    pytest.importorskip('onnxruntime')
    rows, agreement = benchmark.compare_onnx(ATTO, (64, 96), 2)
    assert [row.variant.name for row in rows] == ['stock', 'ours'] and float(agreement.split('error ')[1]) < 1e-4
    text = run_tool('tools/benchmark.py', '--onnx', FPN, '--shape', 64, 64, '--runs', 1).stdout
    assert 'ONNX Runtime on 2 threads, 64 x 64' in text and '1.00x' in text


@pytest.mark.parametrize('args,words', [
    ((), ['give one or more configs']), ((ATTO, '--compare-stock', ATTO), ['give one or more configs']),
    ((ATTO, '--mode', 'slide'), ['--mode slide', 'infer, train']), (('missing.py', ), ['missing.py: no such config']),
    (('--compare-stock', ATTO, '--mode', 'infer'), ['predict, train, backbone, slide']),
    (('--compare-stock', 'configs/peers/upernet_swin_t_ade20k.py'), ['no counterpart']),
    (('--classifiers', 'no_such_net'), ["has no classifier 'no_such_net'"]),
    (('--classifiers', '--mode', 'predict'), ['--mode predict', 'infer, train']),
    (('--compare-stock', ATTO, '--batch-size', 0), ['--batch-size', 'whole numbers from 1']),
    (('--onnx', ATTO, '--memory-format', 'best', '--batch-size', 1, '--no-tf32', '--amp'),
     ['--onnx goes with --runs, --json, --markdown, --shape only', '--amp, --batch-size, --memory-format, --tf32']),
    (('--compare-stock', ATTO, '--fuse', '--shape', 64, 64), ['--compare-stock goes with', 'not with --fuse, --shape']),
    ((ATTO, '--channels-last'), ['a list of configs goes with', 'not with --channels-last']),
])
def test_what_cannot_be_compared_is_said(args, words):
    """An option that would be ignored too, even where it is given as it is by default."""
    result = run_tool('tools/benchmark.py', *args, check=False)
    assert result.returncode and 'Traceback' not in result.stdout
    assert all(word in result.stdout for word in words), result.stdout
