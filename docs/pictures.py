"""Draws what the detectors of a study find in some images of its test set, side by side.

    python docs/pictures.py configs/studies/domains_everywhere.py work_dirs/domains_everywhere \
        static head --out docs/images/domains.jpg

One row an image, one of each group of images, such as a domain; columns: what is there, and what
each arm's detector of the first seed finds.
"""

import condconv_det  # noqa: F401  mmdet imports only after it

# isort: split
import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
from mmdet.apis import init_detector
from mmdet.registry import DATASETS

from condconv_det.analysis.pictures import draw_detections, heading
from condconv_det.analysis.routing_records import group_by_attribute
from condconv_det.data.whole_files import written_whole
from condconv_det.study.plan import Study
from condconv_det.study.runs import plan_runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('study', type=Path)
    parser.add_argument('results', type=Path, help="the study's folder")
    parser.add_argument('arms', nargs='+')
    parser.add_argument('--out', type=Path, required=True)
    parser.add_argument('--only', nargs='+', help='of the groups (all)')
    parser.add_argument('--width', type=int, default=800, help='pixels (%(default)s)')
    parser.add_argument('--score', type=float, default=0.3, help='least score drawn (%(default)s)')
    args = parser.parse_args()
    study = Study.fromfile(args.study)
    runs = {run.arm: run for run in plan_runs(study, args.results) if run.seed == study.seeds[0]}
    models = [
        init_detector(study.arms[arm].cfg, str(runs[arm].checkpoint), device='cpu')
        for arm in args.arms
    ]
    cfg = study.arms[args.arms[0]].cfg
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    key = cfg.test_evaluator.group_by
    infos = [dataset.get_data_info(index) for index in range(len(dataset))]
    grouping = group_by_attribute(dataset, infos, key)
    rows = [heading(['true boxes', *args.arms], args.width)]
    if not set(args.only or ()) <= set(grouping.groups):
        sys.exit(f'error: --only takes some of {list(grouping.groups)}, got {args.only}')
    with TemporaryDirectory() as folder:
        for group, name in enumerate(grouping.groups):
            if args.only and name not in args.only:
                continue
            one = dataset.get_subset([int(grouping.images(group)[0])])
            (path,) = draw_detections(models, one, Path(folder), 1, args.score)
            row = cv2.imread(str(path))
            height = round(row.shape[0] * args.width / row.shape[1])
            rows.append(cv2.resize(row, (args.width, height), interpolation=cv2.INTER_AREA))
    quality = [cv2.IMWRITE_JPEG_QUALITY, 60]
    _, data = cv2.imencode(args.out.suffix, np.concatenate(rows), quality)
    with written_whole(args.out) as partial:
        partial.write_bytes(data.tobytes())


if __name__ == '__main__':
    main()
