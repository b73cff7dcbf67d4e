from mmseg_inceptionnext.moved import moved_from

from .onnx_export import Agreement, ExportSettings, export_onnx

__all__ = ['Agreement', 'ExportSettings', 'export_onnx']
__getattr__ = moved_from('export')
