from .onnx_export import Agreement, ExportSettings, export_onnx

__all__ = ['Agreement', 'ExportSettings', 'export_onnx']
