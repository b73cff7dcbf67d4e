"""Segments images and videos: python tools/infer.py CHECKPOINT street.jpg photos/ film.mp4 --out-dir results"""
import argparse
import json
import sys
from contextlib import redirect_stdout

try:
    from mmseg_inceptionnext import Segmenter
    from mmseg_inceptionnext.cli import run_tool
    from mmseg_inceptionnext.inference import ResultWriter, Windows, infer
except KeyboardInterrupt:  # Ctrl-C: imports take seconds
    sys.exit(130)


def parse_args():
    def names(text):
        return text.split(',')

    def numbers(text):
        return [int(number) for number in text.split(',')]

    parser = argparse.ArgumentParser(
        description='Segment images and videos. NAME.png holds the class id of each pixel, NAME_overlay.jpg is a '
        'picture to look at; of a video they become the folder NAME, a PNG for each frame, and NAME_overlay.mp4.')
    parser.add_argument('checkpoint', help='checkpoint file, model folder or hf://USER/NAME, or an .onnx '
                        'file of tools/export_onnx.py')
    parser.add_argument('inputs', nargs='+', metavar='INPUT', help="images, videos, folders to search for them, "
                        "patterns such as 'photos/**/*.jpg', or - for a list on standard input, one path a line")
    parser.add_argument('--out-dir', required=True, help='folder for the results')
    parser.add_argument('--config', help='config file (default: the config inside the checkpoint)')
    parser.add_argument(
        '--save', type=names, default=['index', 'overlay'], metavar='KIND,...', help='what is written of each image '
        '(default: index,overlay). index: the class ids, from 0, NAME.png; color: the palette, NAME_color.png; '
        'overlay: NAME_overlay.jpg; prob: all probabilities as float16, NAME_prob.npz; conf: the largest, 255 for 1, '
        'NAME_conf.png')
    parser.add_argument('--window', type=int, metavar='PIXELS', help='segment large images window by window of this '
                        'side, into NAME.tif and NAME_overlay.jpg (default: above 100 million pixels, 1024)')
    parser.add_argument('--overlap', type=int, metavar='PIXELS', help='of windows (default: a quarter of --window)')
    parser.add_argument('--bands', type=numbers, metavar='N,...', help="of a raster, in the order of the model's "
                        'channels, from 1 (default: the first)')
    parser.add_argument('--scale-range', type=float, nargs=2, metavar=('LOW', 'HIGH'), help='values of a raster that '
                        'become 0 and 255 (default: 8 bits as they are, else percentiles of an overview)')
    parser.add_argument('--classes', type=names, metavar='CLASS,...', help='paint these classes only')
    parser.add_argument('--opacity', type=float, default=0.5, help='of the painted classes, 0 to 1 (default: 0.5)')
    parser.add_argument('--device', help='such as cpu or cuda:0 (default: the best there is)')
    parser.add_argument('--amp', help='mixed precision: fp16 or bf16')
    parser.add_argument('--batch-size', type=int, default=1, help='images of the same size to predict at once')
    parser.add_argument('--tta', action='store_true', help="average the views of the config's tta_pipeline")
    parser.add_argument('--fuse', action=argparse.BooleanOptionalAction, default=True,
                        help='fold the norms into the convolutions first: faster, the same to rounding')
    parser.add_argument('--compile', action='store_true',
                        help='with torch.compile: for many images, as it takes up to minutes first')
    parser.add_argument('--skip-existing', action='store_true', help='leave out what has its results already')
    parser.add_argument('--json', action='store_true', help='print the summary as JSON')
    parser.add_argument(
        '--trust-checkpoint', action='store_true', help='run what is inside the checkpoint, if it holds more than data')
    return parser.parse_args()


def main():
    args = parse_args()
    writer = ResultWriter(args.save, args.opacity, args.classes)
    with redirect_stdout(sys.stderr):  # standard output is for the summary; MMEngine logs to it
        segmenter = Segmenter(args.checkpoint, args.config, args.device, args.fuse, args.trust_checkpoint, args.amp,
                              args.tta, args.batch_size, writer.needs_probabilities, args.compile)
        summary = infer(segmenter, args.inputs, args.out_dir, writer, args.skip_existing, sys.stdin,
                        Windows(args.window, args.overlap, args.bands, args.scale_range))
    print(json.dumps(summary.as_dict()) if args.json else summary)
    if summary.interrupted:
        print('stopped; --skip-existing goes on from here', file=sys.stderr)
        sys.exit(130)
    if summary.failures:
        sys.exit('\n'.join([f'{len(summary.failures)} of {len(summary.written) + len(summary.failures)} inputs failed:',
                            *summary.failures]))


if __name__ == '__main__':
    run_tool(main)
