"""Names what images show: python tools/classify.py inceptionnext_tiny.pth cat.jpg"""
import argparse

from mmseg_inceptionnext.cli import run_tool
from mmseg_inceptionnext.inference.classify import Classifier


def parse_args():
    parser = argparse.ArgumentParser(description='Print the most probable classes of images')
    parser.add_argument('checkpoint', help="checkpoint of a classifier: the authors', timm's, or one of tools/train.py")
    parser.add_argument('images', nargs='+', metavar='IMAGE', help='image files')
    parser.add_argument('--config', help='config file (default: InceptionNeXt of the size that the weights have, at '
                        '224 x 224)')
    parser.add_argument('--topk', type=int, default=5, help='number of classes to print (default: 5)')
    parser.add_argument('--device', help='such as cpu or cuda:0 (default: the best there is)')
    return parser.parse_args()


def main():
    args = parse_args()
    classifier = Classifier(args.checkpoint, args.config, args.device)
    for path in args.images:
        print(path)
        for guess in classifier(path, args.topk):
            print(f'  {100 * guess.probability:5.1f} %  {guess.name}')


if __name__ == '__main__':
    run_tool(main)
