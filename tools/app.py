"""Segments images in the browser: python tools/app.py CHECKPOINT"""
import argparse
import os.path as osp
import signal
import threading

from mmseg_inceptionnext import Segmenter
from mmseg_inceptionnext.cli import run_tool
from mmseg_inceptionnext.inference.page import find_port, load_gradio, serve

# Of service managers, of a terminal that is closed, and of Ctrl-\; Windows has only the first.
ENDINGS = [getattr(signal, name) for name in ('SIGTERM', 'SIGHUP', 'SIGQUIT') if hasattr(signal, name)]


def parse_args():
    parser = argparse.ArgumentParser(description='Serve a page that takes an image and shows its classes')
    parser.add_argument('checkpoint', help='checkpoint file, model folder or hf://USER/NAME, or an .onnx '
                        'file of tools/export_onnx.py')
    parser.add_argument('--config', help='config file (default: the config inside the checkpoint)')
    parser.add_argument('--device', help='such as cpu or cuda:0 (default: the best there is)')
    parser.add_argument('--host', default='127.0.0.1', help='address to listen at (default: 127.0.0.1)')
    parser.add_argument('--port', type=int, default=7860, help='0 for any that is free (default: 7860)')
    parser.add_argument('--examples', metavar='DIR', help='folder of images to choose from (default: drawn scenes)')
    parser.add_argument(
        '--trust-checkpoint', action='store_true', help='run what is inside the checkpoint, if it holds more than data')
    return parser.parse_args()


def interrupt(number, frame):
    """Ends the page as Ctrl-C does, so that uploads go; further signals do not disturb that."""
    for other in ENDINGS:
        signal.signal(other, signal.SIG_IGN)
    raise KeyboardInterrupt


def main():
    args = parse_args()
    for number in ENDINGS:
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup lets a program ignore SIGHUP
            signal.signal(number, interrupt)
    try:
        load_gradio()
        port = find_port(args.host, args.port)  # both before the model is loaded, which takes longer
        segmenter = Segmenter(args.checkpoint, args.config, args.device, True, args.trust_checkpoint)
        with serve(segmenter, osp.basename(osp.abspath(args.checkpoint)), args.host, port, args.examples) as url:
            print(f'the page is at {url}; Ctrl-C ends it', flush=True)
            threading.Event().wait()
    except KeyboardInterrupt:
        print('ended')


if __name__ == '__main__':
    run_tool(main)
