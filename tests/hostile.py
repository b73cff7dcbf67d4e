"""What a stranger may put into a checkpoint."""
import copy
import io
import json
import os
import pickle
import struct
import zipfile
from collections import OrderedDict

import numpy as np
import safetensors.torch
import torch
from mmengine.logging import HistoryBuffer
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler

_TEST = "test_dataloader = dict(dataset=dict({}pipeline=[{}]))"
_LOAD = "dict(type='LoadImageFromFile')"
_MODEL = "model = dict(type='EncoderDecoder', {})"
_FLIP = "dict(type='RandomFlip'), "
_TTA = ("tta_model = dict(type='SegTTAModel')\n"
        "tta_pipeline = [dict(type='LoadImageFromFile'), dict(type='TestTimeAug', transforms=[{}])]")

# Configs that do harm if they are built or run: what is added to the text, and words of the sentence that refuses it.
CONFIGS = {
    'executes': ("a = __import__('os').system('touch {mark}')", "holds __import__('os').system('touch"),
    'imports': ("import os\nos.system('touch {mark}')", 'is no assignment to a name: import os'),
    'names a function': ("model = dict(type='os.system', command='touch {mark}')", "type='os.system' in model"),
    'goes through a module that is allowed': (
        "model = dict(type='mmseg.apis.utils.os.system', command='touch {mark}')", 'is not registered'),
    'names a function below': (_MODEL.format("a=[dict(type='os.system')]"), "type='os.system' in model.a"),
    'imports by a scope': (_MODEL.format("a=dict(type='FCNHead', _scope_='evil')"), '_scope_ in model.a'),
    'names a hook as a model': (_MODEL.format("a=dict(type='CheckpointHook')"), 'is not registered'),
    'names a dataset as a model': (_MODEL.format("a=dict(type='ADE20KDataset')"), 'is not registered'),
    'imports by another key': (_MODEL.format("resize_type='logging.basicConfig'"), 'is no word'),
    'unpickles a file': (_MODEL.format("loss_decode=dict(type='CrossEntropyLoss', class_weight='{mark}.pkl')"),
                         'is no word'),
    'names a file of the current folder': (_MODEL.format("class_embed_path='words'"), 'names a file'),
    'names a URL': (_MODEL.format("diffusion_cfg=dict(checkpoint='{url}')"), 'is no word'),
    'downloads by timm': ("model = dict(type='TIMMBackbone', model_name='hf-hub:someone/{mark}')", 'is no word'),
    'loads by a client': (_TEST.format('', "dict(type='LoadImageFromNpyFile')"), 'has the step LoadImageFromNpyFile'),
    'unpickles the image': (_TEST.format('', "dict(type='LoadBiomedicalImageFromFile', decode_backend='pickle')"),
                            'has the step LoadBiomedicalImageFromFile'),
    'unpickles the image, wrapped': (
        _TEST.format('', _LOAD + ", dict(type='KeyMapper', mapping=dict(a='img_path'), transforms=[dict(type="
                     "'LoadBiomedicalImageFromFile', decode_backend='pickle')])"), 'has the step KeyMapper'),
    'unpickles the image, as a view': (
        _TEST.format('', _LOAD + ", dict(type='TestTimeAug', transforms=[[dict(type='LoadBiomedicalImageFromFile')]])"),
        'has the step LoadBiomedicalImageFromFile'),
    'loads twice': (_TEST.format('', f'{_LOAD}, {_LOAD}'), 'has no step twice'),
    'loads by nothing': (_TEST.format('', "dict(type='Resize', scale=8)"), 'begins with LoadImageFromFile'),
    'a pipeline that is a text': ("test_dataloader = dict(dataset=dict(pipeline='x'))", 'pipeline is str'),
    'imports by a transform': (_TEST.format('', _LOAD + ", dict(type='Resize', scale=8, resize_type='os.system')"),
                               'has the step Resize'),
    'huge images': (_TEST.format('', _LOAD + ", dict(type='Resize', scale=(30000, 30000))"), 'makes images too large'),
    'huge images, padded': (_TEST.format('', _LOAD + ", dict(type='Pad', size_divisor=30000)"), 'images too large'),
    'huge images, by a factor': (_TEST.format('', _LOAD + ", dict(type='Resize', scale_factor=1000.)"),
                                 'makes images too large'),
    'many windows': (_MODEL.format("test_cfg=dict(mode='slide', crop_size=(8, 8), stride=(1, 1))"), 'too many windows'),
    'huge numbers': (_MODEL.format('depths=(10**12, 1)'.replace('10**12', '1000000000000')), 'numbers up to 1048576'),
    'many views': (_TTA.format('[' + _FLIP * 99 + ']'), 'has more than 64 views'),
    'many views, combined': (_TTA.format(f'[{_FLIP * 2}], ' * 30), 'has more than 64 views'),
    'views of views': (_TTA.format(f"[dict(type='TestTimeAug', transforms=[[{_FLIP * 9}]])]"), 'views of views'),
    'no views': (_TTA.format('').replace('transforms=[]', ''), 'transforms is NoneType'),
    'a list of datasets that is none': ("test_dataloader = dict(dataset=dict(datasets={{1: 2}}))", 'KeyError'),
}


def _nested(depth=60):
    """A tuple of a kilobyte, in a pickle, whose text has 2**60 parts."""
    nested = ('x', )
    for _ in range(depth):
        nested = (nested, nested)
    return nested


class Reduced:
    """Pickled as a call, with a state to fill in, and pairs to put in, if they are given."""

    def __init__(self, *parts):
        self.parts = parts

    def __reduce__(self):
        return self.parts


def _dtype(*arguments):
    return Reduced(np.dtype, *arguments)


RECONSTRUCT, SCALAR = np.empty(0).__reduce__()[0], np.float64(0).__reduce__()[0]
_ADDRESS = struct.pack('<Q', 0x4141414141414141)
_RECORD = _dtype(('V8', False, True), (3, '|', None, ('a', ), {'a': (np.dtype('O'), 0)}, 8, 1, 1))
_OF_OBJECTS = _dtype(('f8', False, True), (3, '|', None, None, None, -1, -1, 63))


def _array(dtype, values):
    return Reduced(RECONSTRUCT, (np.ndarray, (0, ), b'b'), (1, (1, ), dtype, False, values))


def _tensor(size, stride):
    return Reduced(torch._utils._rebuild_tensor_v2, (torch.ones(4).storage(), 0, size, stride, False, OrderedDict()))


def _history(values):
    history = HistoryBuffer([1.], [1])
    history._log_history = values
    return history


# Things that a checkpoint holds beside its weights.
EXTRAS = {
    'runs a function': lambda mark: Reduced(os.system, (f'touch {mark}', )),
    'a dtype that makes numbers into addresses': lambda mark: _array(_RECORD, _ADDRESS),
    'a dtype with other flags': lambda mark: _array(_OF_OBJECTS, _ADDRESS),
    'an array of objects from bytes': lambda mark: _array(np.dtype('O'), _ADDRESS),
    'an array larger than its bytes': lambda mark: Reduced(
        RECONSTRUCT, (np.ndarray, (0, ), b'b'), (1, (10**12, ), np.dtype('f8'), False, b'12345678')),
    'a number that is an address': lambda mark: Reduced(SCALAR, (np.dtype('O'), _ADDRESS)),
    'an array made by its class': lambda mark: Reduced(np.ndarray, ((10**10, ), 'i1')),
    'a tensor beyond its numbers': lambda mark: _tensor((10**5, 10**5), (10**5, 1)),
    'a tensor of one number, repeated': lambda mark: _tensor((10**12, ), (0, )),
    'a scheduler': lambda mark: Reduced(OneCycleParamScheduler, (3, 'lr', 1)),
    'a history of no numbers': lambda mark: _history([1]),
    'a history of many sizes': lambda mark: _history(np.ones((2, 2))),
    'items for a function': lambda mark: Reduced(getattr, (HistoryBuffer, 'mean'), None, iter([1])),
    'a dict of nested tuples': lambda mark: Reduced(OrderedDict, (), None, None, iter([(_nested(), 1)])),
    'a set of nested tuples': lambda mark: Reduced(set, ([_nested()], )),
    'an OrderedDict with attributes': lambda mark: Reduced(OrderedDict, (), dict(items=1)),
}


def _first_weight(content):
    return next(key for key, value in content['state_dict'].items() if value.ndim == 4)


def _with_weight(change):
    def make(content, path):
        key = _first_weight(content)
        content['state_dict'][key] = change(content['state_dict'][key])
        torch.save(content, path)
    return make


def _with_meta(**meta):
    def make(content, path):
        content['meta'].update(meta)
        torch.save(content, path)
    return make


def _with_names(**names):
    return lambda content, path: _with_meta(dataset_meta={**content['meta']['dataset_meta'], **names})(content, path)


def _zipped_anew(**changes):
    """Another compression, or other content of a part; ``overlapping`` lists its largest part many times."""
    compression, overlapping = changes.pop('compression', zipfile.ZIP_STORED), changes.pop('overlapping', 0)

    def make(content, path):
        buffer = io.BytesIO()
        torch.save(content, buffer)
        with zipfile.ZipFile(buffer) as source, zipfile.ZipFile(path, 'w', compression) as target:
            for name in source.namelist():
                target.writestr(name, changes.get(name.partition('/')[2].replace('.', '_'), source.read(name)))
            largest = max(target.filelist, key=lambda record: record.file_size)
            target.filelist += [largest] * overlapping
    return make


def _with_a_changed_bit(content, path):
    torch.save(content, path)
    data, key = bytearray(path.read_bytes()), _first_weight(content)
    place = bytes(data).find(bytes(content['state_dict'][key].untyped_storage()))
    assert place > 0
    data[place + 3] ^= 0x40
    path.write_bytes(data)


class _LegacyPickler(pickle.Pickler):

    def persistent_id(self, obj):
        return ('storage', torch.FloatStorage, '0', 'cpu', 10**11, None) if obj == 'numbers' else None


def _legacy_bomb(content, path):
    """PyTorch's old format, whose pickle says how many numbers a tensor has."""
    with open(path, 'wb') as file:
        for part in (torch.serialization.MAGIC_NUMBER, 1001, dict(little_endian=True)):
            pickle.dump(part, file, protocol=2)
        _LegacyPickler(file, protocol=2).dump(dict(a='numbers'))
        pickle.dump(['0'], file, protocol=2)


# How a checkpoint is written, from the content of a good one.
FILES = {
    'NaN weights': _with_weight(lambda weight: weight * float('nan')),
    'infinite weights': _with_weight(lambda weight: weight / 0),
    'a sparse weight': _with_weight(lambda weight: weight.to_sparse()),
    'a weight without numbers': _with_weight(lambda weight: weight.to('meta')),
    'a nested weight': _zipped_anew(data_pkl=b'\x80\x02ctorch._utils\n_rebuild_nested_tensor\n)R.'),
    'a quantised weight': _with_weight(lambda weight: torch.quantize_per_tensor(weight, 1, 0, torch.qint8)),
    'a weight that is a number': _with_weight(lambda weight: 3),
    'a changed bit': _with_a_changed_bit,
    'compressed': _zipped_anew(compression=zipfile.ZIP_DEFLATED),
    'a compressed bomb': _zipped_anew(compression=zipfile.ZIP_DEFLATED, data_pkl=bytes(10**8)),
    'overlapping parts': _zipped_anew(overlapping=10**4),
    'no pickle at all': _zipped_anew(data_pkl=b''),
    'a pickle of a later protocol': _zipped_anew(data_pkl=pickle.dumps(dict(a=1), protocol=4)),
    'a byte array of any size': _zipped_anew(data_pkl=b'\x80\x02\x96' + struct.pack('<Q', 10**10) + b'.'),
    'a text of any size': _zipped_anew(data_pkl=b'\x80\x02X' + struct.pack('<I', 2**32 - 1) + b'.'),
    'the call of an old protocol': _zipped_anew(data_pkl=b"(S'true'\nios\nsystem\n."),
    'an object of any class': _zipped_anew(data_pkl=(
        f'\x80\x02c{OneCycleParamScheduler.__module__}\nOneCycleParamScheduler\n)\x81}}b.').encode('latin1')),
    'numbers that are not there': _legacy_bomb,
    'a zip of something else': lambda content, path: zipfile.ZipFile(path, 'w').writestr('readme.txt', 'hello'),
    'integer names': lambda content, path: torch.save(dict(content, state_dict={1: torch.ones(1)}), path),
    'nested tuples as names': lambda content, path: torch.save(dict(a=_nested()), path),
    'meta that is a text': lambda content, path: torch.save(dict(content, meta='x'), path),
    'class names that are nested tuples': _with_names(classes=[_nested()] * 150),
    'a million classes': _with_names(classes=['a'] * 10**6),
    'colours that are none': _with_names(palette=[[-1, 300, 0]] * 150),
    'colours that are texts': _with_names(palette=['abc'] * 150),
    'an iteration that is nested tuples': _with_meta(iter=_nested()),
    **{name: lambda content, path, extra=extra: torch.save(dict(content, extra=extra(path.parent / 'mark')), path)
       for name, extra in EXTRAS.items()},
}


def write_files(good, folder):
    """A file for each of ``FILES``, and for each of ``CONFIGS`` one with that config, named by what is in it."""
    content = torch.load(good, weights_only=False)
    content.pop('optimizer')  # which is large
    text = content['meta']['cfg']
    for name, make in FILES.items():
        make(copy.deepcopy(content), folder / f'{name}.pth')
    for name, (added, _) in CONFIGS.items():
        added = added.format(mark=folder / 'mark', url='http://127.0.0.1:1')
        _with_meta(cfg=f'{text}\n{added}')(copy.deepcopy(content), folder / f'{name}.pth')


def _with_json(name, change):
    """Another content of a JSON file: ``change`` fills its dict, or gives the bytes of the file."""
    def make(folder):
        content = json.loads((folder / name).read_text())
        changed = change(content)
        (folder / name).write_bytes(changed if isinstance(changed, bytes) else json.dumps(content).encode())
    return make


def _with_model(**parts):
    return _with_json('config.json', lambda content: content['model'].update(parts))


def _with_step(**step):
    return _with_json('preprocessor.json', lambda content: content['test_pipeline'].append(step))


def _with_tensor(change):
    def make(folder):
        path = folder / 'model.safetensors'
        tensors = safetensors.torch.load_file(path)
        key = _first_weight(dict(state_dict=tensors))
        tensors[key] = change(tensors[key]).contiguous()
        safetensors.torch.save_file(tensors, path)
    return make


def _with_pickle(folder):
    torch.save(dict(state_dict={}, extra=Reduced(os.system, (f'touch {folder.parent / "mark"}', ))),
               folder / 'model.safetensors')


def _linked(name):
    def make(folder):
        (folder / name).rename(folder.parent / f'linked {name}')
        (folder / name).symlink_to(folder.parent / f'linked {name}')
    return make


def _with_a_pipe(folder):
    (folder / 'config.json').unlink()
    os.mkfifo(folder / 'config.json')


# What is done to a good model folder, and words of the sentence that refuses it.
FOLDERS = {
    'a foreign class': (_with_model(decode_head=dict(type='os.system', command='touch mark')), 'type='),
    'a foreign module': (_with_model(backbone=dict(type='evil.Backbone')), 'is not registered'),
    'a scope': (_with_model(_scope_='evil'), '_scope_ in model'),
    'a path': (_with_model(words='/etc/passwd'), 'is no word'),
    'a URL': (_with_model(words='http://127.0.0.1:1/a'), 'is no word'),
    'a huge number': (_with_model(depth=10**12), 'numbers up to'),
    'a huge model': (_with_model(backbone=dict(type='InceptionNeXt', arch=dict(depths=[1] * 4, dims=[2**14] * 4))),
                     'far more parameters'),
    'a model that is a list': (_with_json('config.json', lambda content: content.update(model=[1])), 'has no model'),
    'a preprocessor of another class': (
        _with_json('preprocessor.json', lambda content: content['data_preprocessor'].update(type='os.system')),
        'type='),
    'a step that unpickles': (_with_step(type='LoadBiomedicalImageFromFile', decode_backend='pickle'), 'has the step'),
    'a step of another module': (_with_step(type='os.system'), 'has the step'),
    'views of views': (_with_json('preprocessor.json', lambda content: content.update(tta_pipeline=[
        dict(type='LoadImageFromFile'), dict(type='TestTimeAug', transforms=[[dict(type='RandomFlip')] * 99])])),
        'more than 64 views'),
    'a Python config': (_with_json('config.json', lambda _: b"import os; os.system('touch mark')"), 'no JSON'),
    'nested JSON': (_with_json('config.json', lambda _: b'[' * 10**5), 'no JSON'),
    'JSON that is a list': (_with_json('preprocessor.json', lambda _: b'[]'), 'holds a list'),
    'JSON in another encoding': (_with_json('classes.json', lambda _: b'\xff\xfe\xfa'), 'no JSON'),
    'JSON of any size': (_with_json('config.json', lambda _: b' ' * 2**21), 'has more than'),
    'classes that are numbers': (
        _with_json('classes.json', lambda content: content.update(classes=[1])), 'classes are'),
    'colours that are texts': (_with_json('classes.json', lambda content: content.update(palette=['a'])), 'palette is'),
    'other classes': (_with_json('classes.json', lambda content: content.update(classes=['a'], palette=[[0] * 3])),
                      'names 1 classes'),
    'weights that are a pickle': (_with_pickle, 'damaged or no checkpoint'),
    'weights cut off': (lambda folder: os.truncate(folder / 'model.safetensors', 2000), 'damaged or no checkpoint'),
    'a weight of whole numbers': (_with_tensor(lambda weight: weight.long()), 'of another shape'),
    'a weight of complex numbers': (_with_tensor(lambda weight: weight.to(torch.complex64)), 'of another shape'),
    'a weight of 8 bits': (_with_tensor(lambda weight: weight.to(torch.float8_e4m3fn)), 'float8_e4m3fn'),
    'a weight of another shape': (_with_tensor(lambda weight: weight[:1]), 'of another shape'),
    'a weight that is NaN': (_with_tensor(lambda weight: weight * float('nan')), 'NaN or infinite'),
    'a claim to be fused': (_with_json('config.json', lambda content: content.update(fused=True)), 'do not fit'),
    'no config': (lambda folder: (folder / 'config.json').unlink(), 'is not there'),
    'a config that is a pipe': (_with_a_pipe, 'is no file'),
    **{f'a link for {name}': (_linked(name), 'leads out of the folder')
       for name in ('config.json', 'preprocessor.json', 'classes.json', 'model.safetensors')},
}


def write_folders(good, folder, names=FOLDERS):
    """A model folder for each of ``FOLDERS``, named by what is wrong with it, from a good one."""
    for name in names:
        (folder / name).mkdir()
        for path in good.iterdir():
            (folder / name / path.name).write_bytes(path.read_bytes())
        FOLDERS[name][0](folder / name)
