"""What a stranger may put into a checkpoint."""
_TEST = "test_dataloader = dict(dataset=dict({}pipeline=[{}]))"
_LOAD = "dict(type='LoadImageFromFile')"
_MODEL = "model = dict(type='EncoderDecoder', {})"

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
    'many views': ("tta_model = dict(type='SegTTAModel')\ntta_pipeline = [dict(type='LoadImageFromFile'), dict(type="
                   "'TestTimeAug', transforms=[[" + "dict(type='RandomFlip'), " * 99 + ']])]', 'has 99 choices'),
}
