"""docs/backbone.md: the backbone in detectors of mmdetection, and with weights of segmentation_models.pytorch."""
import re

import pytest
import segmentation_models_pytorch as smp
import torch
from mmengine.config import Config
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import DefaultScope, Registry
from mmengine.structures import InstanceData

from mmseg_inceptionnext.models import InceptionNeXt

from utils import ROOT, randomise

ARCH = dict(depths=(1, 1, 1, 1), dims=(8, 16, 24, 32))
BN = dict(type='BN')


def test_it_is_built_in_the_scope_of_another_library():
    registry = Registry('model', parent=ROOT_MODELS, scope='elsewhere')
    with DefaultScope.overwrite_default_scope('elsewhere'):
        for mixer in (None, dict(with_square=False), dict(type='mmseg.PartialDWConv2d')):
            model = registry.build(dict(type='mmseg.InceptionNeXt', arch=ARCH, token_mixer=mixer))
            model.init_weights()
            assert type(model) is InceptionNeXt


@pytest.mark.slow
@pytest.mark.parametrize('base,out_indices', [
    ('retinanet/retinanet', (1, 2, 3)), ('faster_rcnn/faster-rcnn', (0, 1, 2, 3))])
def test_detectors(tmp_path, base, out_indices):
    """The config of the page, of few channels: losses, gradients of all weights, boxes, and maps as without mmdet."""
    try:
        import mmdet.models  # noqa: F401
        from mmdet.registry import MODELS
        from mmdet.structures import DetDataSample
    except (ImportError, AssertionError) as error:  # the latter of an MMCV that it does not take
        pytest.skip(f'needs mmdet on an MMCV with compiled operators: {error}')
    text, = re.findall(r'^```python\n# \S+retina\S+\n(.*?)^```$', (ROOT / 'docs/backbone.md').read_text(), re.M | re.S)
    (tmp_path / 'a.py').write_text(text.replace('retinanet/retinanet', base))
    cfg = Config.fromfile(str(tmp_path / 'a.py'))
    backbone = dict(arch=ARCH, out_indices=out_indices, norm_cfg=BN, out_norm_cfg=BN, init_cfg=None)
    cfg.model.backbone.update(backbone)
    cfg.model.neck.in_channels = [ARCH['dims'][i] for i in out_indices]
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(cfg.model)
        sample = DetDataSample(metainfo=dict(img_shape=(96, 96), ori_shape=(96, 96), scale_factor=(1., 1.)))
        sample.gt_instances = InstanceData(
            bboxes=torch.tensor([[8., 8, 60, 70], [40, 20, 90, 90]]), labels=torch.tensor([0, 2]))
        data = dict(inputs=[torch.randint(0, 255, (3, 96, 96), dtype=torch.uint8)] * 2, data_samples=[sample] * 2)
        data = model.data_preprocessor(data, True)
        loss, _ = model.parse_losses(model(**data, mode='loss'))
        loss.backward()
        assert loss.isfinite() and all(p.grad is not None for p in model.backbone.parameters())
        with torch.no_grad():
            results = model.eval()(**data, mode='predict')
    assert all(result.pred_instances.bboxes.shape[1] == 4 for result in results)
    alone = InceptionNeXt(**backbone).eval()
    alone.load_state_dict(model.backbone.state_dict())
    x = torch.randn(1, 3, 64, 96)
    assert all(map(torch.equal, alone(x), model.backbone(x)))


@pytest.mark.slow
def test_weights_of_segmentation_models_pytorch(tmp_path):
    theirs = randomise(smp.UPerNet('tu-inception_next_atto', encoder_weights=None)).eval()
    path = str(tmp_path / 'a.pth')
    torch.save(theirs.state_dict(), path)
    ours = InceptionNeXt('atto', out_norm_cfg=None, init_cfg=dict(type='Pretrained', checkpoint=path))
    ours.init_weights()
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        assert all(map(torch.equal, ours.eval()(x), theirs.encoder(x)[-4:]))
