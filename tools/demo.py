"""Makes a small data set, trains a CondConv SSD on it, measures its mAP and draws what it finds.

About five minutes on two cores.
"""

import argparse
import time
from pathlib import Path

from mmengine.config import Config
from mmengine.runner import Runner

from condconv_det.analysis.curves import plot_curves
from condconv_det.analysis.pictures import draw_detections
from condconv_det.data.shapes import SPLITS, make_shapes

CONFIG = (
    Path(__file__).parents[1]
    / 'configs/shapes/ssd128_mobilenet-v1-0.5-condconv-e8_1xb8-5e_shapes.py'
)
QUICK_SPLITS = dict(train=64, val=32, test=32)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--out', type=Path, default=Path('work_dirs/demo'), help='(%(default)s)')
    parser.add_argument(
        '--quick', action='store_true', help='one short epoch: shows that all runs, finds nothing'
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    splits = QUICK_SPLITS if args.quick else SPLITS
    data_root = args.out / ('shapes-quick' if args.quick else 'shapes')
    print(f'Data set: {sum(splits.values())} images of 128x128 in {data_root}', flush=True)
    args.out.mkdir(parents=True, exist_ok=True)
    make_shapes(data_root, splits, size=128)

    cfg = Config.fromfile(CONFIG)
    cfg.work_dir = str(args.out)
    for split in ('train', 'val', 'test'):
        cfg[f'{split}_dataloader'].dataset.data_root = str(data_root)
    for split in ('val', 'test'):
        cfg[f'{split}_evaluator'].ann_file = str(data_root / 'annotations' / f'{split}.json')
    if args.quick:
        cfg.train_cfg.max_epochs = 1
    cfg.randomness = dict(seed=0)

    runner = Runner.from_cfg(cfg)
    start = time.monotonic()
    runner.train()
    minutes = (time.monotonic() - start) / 60
    metrics = runner.test()

    log_file = Path(runner.log_dir) / 'vis_data' / 'scalars.json'
    loss = plot_curves([log_file], ['loss', 'loss_cls', 'loss_bbox'], args.out / 'loss.png')
    accuracy = plot_curves(
        [log_file],
        ['coco/bbox_mAP', 'coco/bbox_mAP_50'],
        args.out / 'mAP.png',
        xlabel='epoch (validation set)',
    )
    pictures = draw_detections(
        runner.model, runner.test_dataloader.dataset, args.out / 'pictures', num_pictures=24
    )
    print(f"""
Trained in {minutes:.1f} minutes. On the test images: mAP {metrics['coco/bbox_mAP']:.3f}, \
mAP@50 {metrics['coco/bbox_mAP_50']:.3f}
  loss curve   {loss}
  mAP curve    {accuracy}
  pictures     {pictures[0].parent}: true boxes left, detections right
  checkpoint   {Path(runner.work_dir, 'last_checkpoint').read_text()}
  config, log  {runner.log_dir}""")


if __name__ == '__main__':
    main()
