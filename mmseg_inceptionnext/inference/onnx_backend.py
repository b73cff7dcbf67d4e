class OnnxBackend:
    def __init__(self, path, device=None):
        raise ValueError('placeholder')
