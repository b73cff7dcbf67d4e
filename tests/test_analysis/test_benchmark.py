"""Benchmarks run what they say they run; what they measure is not tested."""
import json
import runpy
import sys
import types
import weakref
from contextlib import contextmanager, nullcontext

import matplotlib.image
import pytest
import torch
from torch import nn
from torch.autograd import DeviceType

from mmseg_inceptionnext.analysis import benchmark_tables, classifiers, compare_stock, machine, measure, throughput
from mmseg_inceptionnext.analysis.compare_stock import Case, Options
from mmseg_inceptionnext.analysis.compare_stock_onnx import compare_onnx_with_stock
from mmseg_inceptionnext.errors import ConfigError

from utils import ROOT, run_tool

ATTO = str(ROOT / 'configs/upernet_inceptionnext_a_ade20k.py')
FPN = str(ROOT / 'configs/fpn_inceptionnext_a_ade20k.py')
TINY = throughput.Settings(shape=(64, 96), batch_size=2, memory_format='nchw')
MIB = 2**20


class Event:
    """A CUDA event that is a millisecond after the one before."""
    count = 0

    def __init__(self, enable_timing):
        assert enable_timing

    def record(self):
        Event.count += 1
        self.at = Event.count

    def elapsed_time(self, end):
        return float(end.at - self.at)


@pytest.fixture
def fake_gpu(monkeypatch):
    """Measuring takes the ways of a GPU, over calls that run on the CPU; peaks are 1 GiB, a call has a kernel."""
    for module in (measure, machine, compare_stock, throughput, benchmark_tables):
        monkeypatch.setattr(module, 'on_gpu', lambda: True)
    profiler = types.SimpleNamespace(events=lambda: [event('gemm', 2000)])
    monkeypatch.setattr(measure, 'profile', lambda activities: nullcontext(profiler))
    monkeypatch.setattr(machine, '_peaks', lambda amp: (1., 1.))
    for name, value in dict(
            Event=Event, synchronize=lambda: None, empty_cache=lambda: None, reset_peak_memory_stats=lambda: None,
            memory_allocated=lambda: MIB, max_memory_allocated=lambda: 1024 * MIB,
            get_device_name=lambda: 'Fake GPU').items():
        monkeypatch.setattr(torch.cuda, name, value)


def event(name, microseconds, device=DeviceType.CUDA, **more):
    span = types.SimpleNamespace(elapsed_us=lambda: microseconds)
    return types.SimpleNamespace(name=name, device_type=device, time_range=span, **more)


@pytest.fixture
def small(monkeypatch):
    """The modes of --compare-stock on small images."""
    for mode, case in compare_stock.CASES.items():
        case = case._replace(shape=(*case.shape[:2], 64, 96), original=(64, 96))
        monkeypatch.setitem(compare_stock.CASES, mode, case)


@pytest.fixture
def compile_marks(monkeypatch):
    """Compiling a model sets a mark on it."""
    def compile_model(model):
        model.is_compiled = True
        return model

    for module in (compare_stock, throughput):
        monkeypatch.setattr(module, 'compile_model', compile_model)


@pytest.fixture
def run_here(monkeypatch, capsys):
    """Runs the tool in this process, where a test has changed something; returns what it printed."""
    def run(*args):
        monkeypatch.setattr(sys, 'argv', ['benchmark.py', *map(str, args)])
        runpy.run_path(str(ROOT / 'tools/benchmark.py'), run_name='__main__')
        return capsys.readouterr().out

    return run


@pytest.mark.parametrize('mode', compare_stock.MODES)
def test_both_ways_agree(monkeypatch, mode):
    monkeypatch.setitem(compare_stock.CASES, mode, Case((2, 3, 96, 128), (75, 100), 'small'))
    monkeypatch.setattr(compare_stock, 'SLIDE', dict(mode='slide', crop_size=(64, 64), stride=(43, 43)))
    rows, agreement = compare_stock._compare(ATTO, mode, Options(), 2)
    names = dict(predict=['ours, not fused'], backbone=['timm ConvNeXt-T']).get(mode, [])
    assert [row.name for row in rows] == ['stock', 'ours', *names] and all(len(row.times) == 2 for row in rows)
    assert rows[0].macs > rows[1].macs if mode != 'backbone' else rows[0].macs == rows[1].macs
    if mode in ('predict', 'slide'):
        assert float(agreement.split(' %')[0]) > 99.9
    if mode in ('predict', 'backbone'):
        assert float(agreement.split('error ')[1]) < 1e-5


def test_a_comparison_in_a_fresh_process():
    options = Options('bf16', channels_last=True)
    rows, agreement = compare_stock.compare_with_stock(FPN, 'backbone', options, 1, with_memory=False)
    assert [row.name for row in rows] == ['stock', 'ours', 'timm ConvNeXt-T'] and agreement.startswith('largest')
    assert {row.options for row in rows} == {options._replace(batch_size=1)}
    assert '| backbone, 512 x 512, batch 1, bf16, stock channels-last | stock ' in benchmark_tables.stock_table(rows)


def test_variants_are_what_they_are_called(compile_marks):
    models = compare_stock.build_variants(FPN, 'predict', Options(compile=True))
    assert {name: (hasattr(model, 'fused'), hasattr(model, 'is_compiled')) for name, model in models.items()} == {
        'stock': (False, False), 'ours': (True, False), 'ours, not fused': (False, False),
        'stock, compiled': (False, True), 'ours, compiled': (True, True)}
    assert len({id(next(model.parameters())) for model in models.values()}) == len(models)
    assert not any(model.training for model in models.values())
    models = compare_stock.build_variants(FPN, 'train', Options(compile=True), ['ours, compiled'])
    assert list(models) == ['ours, compiled'] and models['ours, compiled'].training
    assert compare_stock.variants_of('train', Options(compile=True)) == [
        'stock', 'ours', 'stock, compiled', 'ours, compiled']


@pytest.mark.parametrize('mode', ['predict', 'train', 'backbone'])
def test_options_reach_both_ways(small, mode):
    options, seen = Options('bf16', 3, channels_last=True), {}
    case = compare_stock.case_of(mode, options)
    assert case.shape == (3, 3, 64, 96)

    for name, model in compare_stock.build_variants(FPN, mode, options, ['stock', 'ours']).items():
        conv = next(module for module in model.backbone.modules() if isinstance(module, nn.Conv2d))
        conv.register_forward_hook(lambda module, inputs, output, name=name: seen.update({name: [
            module.weight.is_contiguous(memory_format=torch.channels_last), output.dtype]}))
        model.backbone.register_forward_hook(lambda module, inputs, output, name=name: seen[name].append(
            inputs[0].is_contiguous(memory_format=torch.channels_last)))
        compare_stock.function_of(mode, name, model, case, options)()
    assert seen['stock'] == [True, torch.bfloat16, True]
    assert seen['ours'][1] == torch.bfloat16
    assert compare_stock._memory_format('ours', options) is torch.contiguous_format  # it orders its inputs itself
    stock = compare_stock.build_variants(FPN, mode, Options(), ['stock'])['stock']
    assert all(parameter.is_contiguous() for parameter in stock.parameters())


def test_gradients_are_computed_outside_of_autocast(monkeypatch):
    order = []

    @contextmanager
    def autocast(device, amp):
        order.append(f'enter {amp}')
        yield
        order.append('exit')

    monkeypatch.setattr(measure, 'autocast', autocast)
    model = nn.Conv2d(3, 4, 1)
    model.bias.register_hook(lambda gradient: order.append('backward'))
    measure.train_step(nn.Sequential(model), torch.zeros(1, 3, 4, 4), 'fp16')()
    assert order == ['enter fp16', 'exit', 'backward']


def test_a_precision_that_is_not_there_is_refused(monkeypatch):
    for amp in ('fp32', 'bf16'):
        measure.check_amp(amp)
    monkeypatch.setattr(measure, 'autocast', lambda device, amp: nullcontext())
    with pytest.raises(ValueError, match='--amp bf16: PyTorch .* cannot autocast to it on cpu; fp32 always'):
        measure.check_amp('bf16')


def test_macs_are_counted():
    conv = torch.nn.Conv2d(4, 8, 3, padding=1)
    assert measure.macs_of(lambda: conv(torch.zeros(2, 4, 5, 6))) == 2 * 30 * 8 * 4 * 9


def test_calls_take_turns():
    calls = []
    times = measure.alternate({name: lambda name=name: calls.append(name) for name in 'ab'}, runs=3)
    assert calls == list('ab' * (measure.warm_ups() + 3))
    assert {name: len(found) for name, found in times.items()} == dict(a=3, b=3)


def test_a_gpu_is_timed_by_events(fake_gpu, monkeypatch):
    flags, waits = [], []
    monkeypatch.setattr(torch.cuda, 'synchronize', lambda: waits.append(1))
    before = torch.backends.cudnn.benchmark
    times = measure.alternate(dict(a=lambda: flags.append(torch.backends.cudnn.benchmark)), runs=2)
    assert times == dict(a=[.001, .001]) and flags == [True] * 5 and len(waits) == 10
    assert torch.backends.cudnn.benchmark is before


def test_kernels_are_counted(fake_gpu, monkeypatch):
    events = [event('gemm', 300), event('Memcpy HtoD', 50), event('softmax', 200), event('aten::mm', 9, DeviceType.CPU),
              event('step', 900, is_user_annotation=True), event('add', 1, is_user_annotation=False)]
    profiler = types.SimpleNamespace(events=lambda: events)
    monkeypatch.setattr(measure, 'profile', lambda activities: nullcontext(profiler))
    assert measure.kernels_of(lambda: None) == measure.Kernels(3, pytest.approx(501e-6))
    events.clear()
    assert measure.kernels_of(lambda: None) is None


def test_there_are_no_kernels_on_a_cpu():
    if not torch.cuda.is_available():
        assert measure.kernels_of(lambda: pytest.fail('called')) is None


def test_tf32_is_set_and_said(fake_gpu, monkeypatch):
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32
    try:
        for allowed in (True, False, None):
            machine.set_tf32(allowed)
            assert (cudnn.allow_tf32, matmul.allow_tf32) == (bool(allowed), bool(allowed))
        matmul.allow_tf32 = True
        text = machine.machine(['fp32', 'bf16'])
        assert text.startswith('Fake GPU, ') and ', float32 and bfloat16 autocast, torch ' in text
        assert text.endswith('TF32 off for convolutions, on for matrix products')
    finally:
        cudnn.allow_tf32, matmul.allow_tf32 = before


def test_peak_memory_is_that_of_the_call():
    code = ('import torch; from mmseg_inceptionnext.analysis.measure import peak_memory; '
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


def test_settings_reach_the_model(compile_marks):
    model = throughput._build(ATTO, TINY._replace(fused=True), 'nhwc')
    assert hasattr(model, 'fused') and model.backbone.stem[0].weight.is_contiguous(memory_format=torch.channels_last)
    model = throughput._build(ATTO, TINY._replace(mode='train', compile=True), 'nchw')
    assert model.training and model.is_compiled and model.backbone.stem[0].weight.is_contiguous()
    settings, dtypes = TINY._replace(backbone_only=True, amp='bf16'), []
    model = throughput._build(ATTO, settings, 'nchw')
    model.stem[0].register_forward_hook(lambda module, inputs, output: dtypes.append(output.dtype))
    throughput._call(model, settings, 'nchw', (1, 64, 64))()
    assert dtypes == [torch.bfloat16]


def test_a_model_is_alone_on_the_gpu_where_its_memory_is_measured(fake_gpu, small, monkeypatch):
    built, alive, weights = [], [], []

    def recorded(function):
        def build(*args):
            model = function(*args)
            built.append(weakref.ref(model))
            return model
        return build

    def peak_memory(function, model):
        alive.append(sum(each() is not None for each in built))
        weights.append(sum(x.numel() * x.element_size() for x in (*model.parameters(), *model.buffers())))
        return measure.peak_memory(function, model)

    for module, name in ((throughput, '_build'), (compare_stock, '_variant')):
        monkeypatch.setattr(module, name, recorded(getattr(module, name)))
        monkeypatch.setattr(module, 'peak_memory', peak_memory)
    monkeypatch.setattr(measure, 'in_fresh_process', lambda *args, **kwargs: pytest.fail('a new process'))
    results = throughput.measure_throughput([FPN, FPN.replace('_a_', '_t_')], TINY, 1)
    rows, _ = compare_stock.compare_with_stock(FPN, 'train', Options(), 1)
    assert [result.memory for result in (*results, *rows)] == [1024 * MIB - held for held in weights]
    assert alive == [1] * 4 and measure.peak_memory(lambda: None) == 1023 * MIB
    assert {result.kernels for result in (*results, *rows)} == {measure.Kernels(1, .002)}


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
    assert '| inceptionnext_a ' in text and '1.00x' in text and 'backbones, 64 x 64 (H x W), fp32, fuse' in text
    found = json.loads((tmp_path / 'b.json').read_text())
    assert [result['batch_size'] for result in found['results']] == [1, 1] and found['settings']['fused'] is True
    assert all(0 < result['memory'] < 2**30 for result in found['results'])
    assert matplotlib.image.imread(tmp_path / 'b.png').shape == (750, 1050, 4)


def test_blocks_of_a_comparison(fake_gpu, small, run_here, monkeypatch, tmp_path):
    monkeypatch.setattr(compare_stock, '_peak_memory', lambda config, mode, options, name: 3 * MIB)
    text = run_here('--compare-stock', FPN, '--mode', 'predict', '--amp', 'fp32', 'bf16', '--batch-size', 1, 3,
                    '--runs', 1, '--markdown', '--json', tmp_path / 'b.json')
    lines = text.splitlines()
    assert 'Fake GPU' in lines[0] and 'peak in fp32' in lines[1] and 'peak in bf16' in lines[2] and not lines[3]
    columns, rule, *rows = ([cell.strip() for cell in line.split('|')[1:-1]] for line in lines if line[:1] == '|')
    assert columns == ['', 'model', 'median ms', 'min-max ms', 'speed', 'GMACs', 'GMAC/s', 'kernels', 'busy ms',
                       'peak MiB', 'memory'] and set(''.join(rule)) == set(':-')
    assert [row[0] for row in rows if row[0]] == [
        f'predict, 512 x 512 in, 512 x 683 out, batch {batch}, {amp}' for amp in ('fp32', 'bf16') for batch in (1, 3)]
    assert [row[1] for row in rows] == ['stock', 'ours', 'ours, not fused'] * 4
    assert rows[1][2:5] == ['1.00', '1.00-1.00', '1.00x'] and rows[1][7:] == ['1', '2.00', '3', '1.00x']
    assert 'predict, bf16, batch 3: ' in text
    found = json.loads((tmp_path / 'b.json').read_text())
    assert 'float32 and bfloat16' in found['machine'] and len(found['rows']) == 12
    assert found['rows'][-1]['options'] == dict(amp='bf16', batch_size=3, channels_last=False, compile=False)
    assert found['rows'][-1]['kernels'] == dict(count=1, seconds=.002)


def test_compiled_rows(small, compile_marks):
    rows, _ = compare_stock._compare(FPN, 'predict', Options(compile=True), 1)
    assert [row.name for row in rows[3:]] == ['stock, compiled', 'ours, compiled']
    assert [row.macs for row in rows[3:]] == [row.macs for row in rows[:2]]


class Tiny(nn.Sequential):
    """A classifier that notes whether its input was channels-last, whether it trained, and the dtype of its logits."""
    seen = []

    def __init__(self, name):
        super().__init__(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 1000))
        self.register_forward_hook(lambda model, inputs, output: Tiny.seen.append(
            (inputs[0].is_contiguous(memory_format=torch.channels_last), model.training, output.dtype)))


def test_classifiers_run_as_asked(monkeypatch):
    monkeypatch.setattr(classifiers, 'SIDE', 32)
    monkeypatch.setattr(classifiers.timm, 'create_model', Tiny)
    monkeypatch.setattr(torch, 'compile', lambda model: nn.Sequential(model))
    names = ['convnext_tiny', 'inception_next_tiny']
    for mode, amp in (('infer', 'fp32'), ('train', 'bf16')):
        Tiny.seen = []
        settings = classifiers.Settings(mode, 2, amp=amp, compile=True)
        results = classifiers.measure_classifiers(names, settings, 1)
        assert [result[:3] for result in results] == [
            (name, compiled, form) for name in names for compiled in (False, True) for form in ('nchw', 'nhwc')]
        assert {seen[0] for seen in Tiny.seen} == {True, False}
        assert {seen[1:] for seen in Tiny.seen} == {(mode == 'train', measure.PRECISIONS[amp])}
        assert [classifiers.baseline_of(result, results) for result in results[:4]] == results[4:]
    monkeypatch.setattr(classifiers, 'alternate', lambda calls, runs: {
        variant: [1. if variant[2] == 'nchw' else 2.] for variant in calls})
    results = classifiers.measure_classifiers(names, settings._replace(memory_format='best'), 1)
    assert [result[:3] for result in results] == [
        (name, compiled, 'nchw') for name in names for compiled in (False, True)]


def test_classifiers_beside_the_paper(monkeypatch, run_here, tmp_path):
    monkeypatch.setattr(classifiers, 'SIDE', 64)
    text = run_here('--classifiers', 'inception_next_atto', 'test_convnext', '--batch-size', 2, '--runs', 1,
                    '--mode', 'train', '--amp', '--memory-format', 'nhwc', '--markdown', '--json', tmp_path / 'b.json',
                    '--plot', tmp_path / 'b.png')
    amp = measure.half_precision()
    rows = [[cell.strip() for cell in line.split('|')[1:-1]] for line in text.splitlines() if line[:1] == '|']
    assert rows[2][:4] == ['inception_next_atto', 'train', amp, 'nhwc'] and rows[2][-4:] == ['1.00x', '2661', '1.00x',
                                                                                            '75.3']
    assert rows[3][0] == 'test_convnext' and rows[3][-3:] == [''] * 3
    assert 'batch 2' in text and 'to inception_next_atto run in the same way' in text
    found = json.loads((tmp_path / 'b.json').read_text())
    assert [result['settings']['amp'] for result in found['results']] == [amp] * 2
    assert matplotlib.image.imread(tmp_path / 'b.png').shape == (750, 1050, 4)


def test_names_of_classifiers():
    assert classifiers.classifier_names([]) == list(classifiers.DEFAULT)
    assert classifiers.classifier_names(['all']) == list(classifiers.TABLE_4) and len(classifiers.TABLE_4) == 10
    with pytest.raises(ValueError, match="no classifier 'convnext_tini'; allowed are its names, such as convnext_tiny"):
        classifiers.classifier_names(['resnet50', 'convnext_tini'])
    with pytest.raises(ValueError, match='resnet50 resnet50: give each once'):
        classifiers.classifier_names(['resnet50', 'resnet50'])
    with pytest.raises(ValueError, match='--plot: the paper has no accuracy of resnet18; allowed are inception_next'):
        classifiers.plot([classifiers.Result('resnet18', False, 'nchw', classifiers.Settings(), [1.])], 'b.png')


@pytest.mark.parametrize('args,words', [
    ((), ['give one or more configs']), ((ATTO, '--compare-stock', ATTO), ['give one or more configs']),
    ((ATTO, '--mode', 'slide'), ['--mode slide', 'infer, train']), (('missing.py', ), ['missing.py: no such config']),
    (('--compare-stock', ATTO, '--mode', 'infer'), ['predict, train, backbone, slide']),
    ((ATTO, '--mode', 'infer', 'train', '--plot', 'a.png'), ['one mode']),
    (('--compare-stock', 'configs/peers/upernet_swin_t_ade20k.py'), ['no counterpart']),
    (('--classifiers', '--compare-stock', ATTO), ['give one or more configs', '--classifiers [NAME ...]']),
    (('--classifiers', 'no_such_net'), ["has no classifier 'no_such_net'"]),
    (('--classifiers', '--mode', 'predict'), ['--mode predict: allowed are infer, train here']),
    (('--classifiers', '--batch-size', 1, 2), ['--batch-size 1 2: --classifiers takes one value']),
    (('--classifiers', '--plot', 'a.png'), ['--plot draws one mode in one precision, not --mode infer train']),
    ((ATTO, '--amp', 'fp32', 'bf16'), ['--amp fp32 bf16: a list of configs takes one value']),
    ((ATTO, '--batch-size', 1, 2), ['--batch-size 1 2: a list of configs takes one value']),
    ((ATTO, '--memory-format', 'both'), ['--memory-format both: allowed are best, nchw, nhwc here']),
    (('--compare-stock', ATTO, '--batch-size', 0), ['--batch-size: 0: allowed are whole numbers from 1']),
    (('--compare-stock', ATTO, '--amp', 'fp8'), ["'fp8' (choose from"]),
])
def test_what_cannot_be_compared_is_said(args, words):
    result = run_tool('tools/benchmark.py', *args, check=False)
    assert result.returncode and 'Traceback' not in result.stdout
    assert all(word in result.stdout for word in words), result.stdout


@pytest.mark.parametrize('args,words', [
    (('--onnx', ATTO, '--memory-format', 'best', '--batch-size', 1, '--scaling'),
     '--onnx goes with --shape, --runs, --json, --markdown only, not with --batch-size, --memory-format, --scaling'),
    (('--onnx', ATTO, '--no-memory'), '--markdown only, not with --no-memory'),
    (('--onnx', ATTO, '--mode', 'infer'), '--markdown only, not with --mode'),
    (('--onnx', ATTO, '--no-tf32', '--amp'), '--markdown only, not with --amp, --tf32'),
    (('--compare-stock', ATTO, '--fuse', '--shape', 64, 64), '--scaling only, not with --shape, --fuse'),
    (('--classifiers', '--channels-last', '--no-memory'), '--plot only, not with --no-memory, --channels-last'),
    ((ATTO, '--scaling', '--channels-last'), '--plot only, not with --channels-last, --scaling'),
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
