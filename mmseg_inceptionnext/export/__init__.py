from .onnx_export import Agreement, Settings, export_onnx

__all__ = ['Agreement', 'Settings', 'export_onnx']
