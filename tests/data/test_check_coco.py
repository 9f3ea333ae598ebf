import copy
import json
import re
from pathlib import Path

import mmcv
import pytest
from mmdet.datasets import CocoDataset
from PIL import Image

from condconv_det.data.check_coco import check_coco, read_coco
from condconv_det.data.check_images import check_images
from condconv_det.data.coco_faults import KINDS, level

DOC = Path(__file__).parents[2] / 'docs' / 'check_dataset.md'
CLASSES = ('cell', 'spot')


def whole():
    """Two images of 60x40, each with a box, of two classes."""
    return dict(
        images=[dict(id=n, file_name=f'{n}.jpg', width=60, height=40) for n in (1, 2)],
        annotations=[
            dict(id=n, image_id=n, category_id=n, bbox=[4 * n, 5, 20, 10], area=200, iscrowd=0)
            for n in (1, 2)
        ],
        categories=[dict(id=n, name=name) for n, name in enumerate(CLASSES, 1)],
    )


def changed(part, index, **values):
    data = whole()
    for key, value in values.items():
        if value is ...:
            del data[part][index][key]
        else:
            data[part][index][key] = value
    return data


def extended(part, entry):
    data = whole()
    data[part].append(entry)
    return data


def with_boxes(*boxes, **values):
    """An annotation of id 1, 2, ... for each box, in turn in either image."""
    data = whole()
    data['annotations'] = [
        {**data['annotations'][n % 2], 'id': n + 1, 'bbox': box, **values}
        for n, box in enumerate(boxes)
    ]
    return data


def annotation(**values):
    return changed('annotations', 1, **values)


def image(**values):
    return changed('images', 1, **values)


def category(**values):
    return changed('categories', 1, **values)


NAN, INF = float('nan'), float('inf')
POLYGONS = [[5, 6, 35, 6, 35, 16], [9, 9, 20, 26, 12, 12]]
# columns 5 to 34, rows 6 to 25, counted down the columns
COUNTS = [5 * 40 + 6, *[20, 20] * 29, 20, 14 + 25 * 40]
COUNTS_AS_TEXT = f'^6d0d0{"0" * 57}Ro0'
CORNERS = [[20, 10, 50, 35], [40, 5, 59, 30], [1, 2, 8, 9]]
# Kind, data, and the annotation of id 2 after mending, as far as it differs; None if left out.
CASES = [
    ('not COCO json', [1, 2], ...),
    ('not COCO json', {**whole(), 'images': None}, ...),
    ('not COCO json', {**whole(), 'categories': []}, ...),
    ('image incomplete', image(file_name=...), None),
    ('image incomplete', image(width='60'), None),
    ('image incomplete', image(height=0), None),
    ('image incomplete', image(id=[2]), None),
    ('image incomplete', extended('images', None), {}),
    ('image listed twice', extended('images', whole()['images'][1]), {}),
    ('image listed twice', extended('images', {**whole()['images'][0], 'id': 2}), None),
    ('file listed twice', image(file_name='1.jpg'), {}),
    ('category incomplete', category(name=...), ...),
    ('category incomplete', category(id=NAN), ...),
    ('category listed twice', category(id=1), ...),
    ('category listed twice', category(name='cell'), ...),
    ('empty category of the same name', extended('categories', dict(id=3, name='spot')), {}),
    ('classes in another order', {**whole(), 'categories': whole()['categories'][::-1]}, ...),
    ('boxes of another form', with_boxes([0.5, 0, 0.9, 0.5], *[[0.2, 0.2, 0.3, 0.3]] * 3), ...),
    ('boxes of another form', with_boxes(*CORNERS), ...),
    (
        'boxes in parts of the image',
        with_boxes(*[[0.5, 0.25, 0.25, 0.5]] * 3, area=0.125),
        dict(bbox=[30, 10, 15, 20], area=300),
    ),
    ('annotation incomplete', annotation(category_id=...), None),
    ('annotation incomplete', annotation(image_id={}), None),
    ('annotation incomplete', extended('annotations', 7), {}),
    ('annotation without id', extended('annotations', {**whole()['annotations'][0], 'id': {}}), {}),
    ('annotation id twice', extended('annotations', whole()['annotations'][0]), {}),
    ('annotation id unusable', annotation(id=0), {}),
    ('annotation id unusable', annotation(id='x'), {}),
    ('image id of another type', annotation(image_id='2'), dict(image_id=2)),
    (
        'image id of another type',
        {**annotation(image_id=2), 'images': [dict(i, id=str(i['id'])) for i in whole()['images']]},
        dict(image_id='2'),
    ),
    ('category id of another type', annotation(category_id='2'), dict(category_id=2)),
    (
        'category id of another type',
        {**whole(), 'categories': [dict(c, id=str(c['id'])) for c in whole()['categories']]},
        dict(category_id='2'),
    ),
    ('unknown image', annotation(image_id='02'), None),
    ('unknown image', annotation(image_id=9), None),
    ('unknown category', annotation(category_id=9), None),
    *(
        ('box missing', annotation(bbox=box, segmentation=POLYGONS), dict(bbox=[5, 6, 30, 20]))
        for box in (..., None, [])
    ),
    (
        'box missing',
        annotation(bbox=..., area=..., segmentation=POLYGONS),
        dict(bbox=[5, 6, 30, 20], area=600),
    ),
    *(
        (
            'box missing',
            annotation(bbox=..., segmentation=dict(counts=counts, size=[40, 60])),
            dict(bbox=[5, 6, 30, 20]),
        )
        for counts in (COUNTS, COUNTS_AS_TEXT)
    ),
    ('box not numeric', annotation(bbox=...), None),
    ('box not numeric', annotation(bbox=..., segmentation=[[5, 6, 35, 26]]), None),
    ('box not numeric', annotation(bbox=..., segmentation=[[5, 6, 35, 26, 9, '9']]), None),
    ('box without area', annotation(bbox=..., segmentation=dict(counts='', size=[40, 60])), None),
    *(
        ('box not numeric', annotation(bbox=..., segmentation=rle), None)
        for rle in (
            dict(counts='P6', size=[0, 60]),
            dict(counts='P6', size=[40, 60, 3]),
            dict(counts='P6', size=None),
            dict(counts='6P', size=[40, 60]),  # its last number goes on
            dict(counts='6é', size=[40, 60]),
            dict(counts=None, size=[40, 60]),
            dict(counts=['x'], size=[40, 60]),
            dict(counts=[-1], size=[40, 60]),
            dict(counts=[2401], size=[40, 60]),
            dict(counts=[10**12], size=[10**6, 10**6]),
            dict(counts='P6', size=[10**30, 60]),
            dict(size=[40, 60]),
        )
    ),
    ('box not numeric', annotation(bbox=[1, 2, 3]), None),
    ('box not numeric', annotation(bbox=[1, 2, NAN, 3]), None),
    ('box not numeric', annotation(bbox=[1, 2, INF, 3]), None),
    ('box not numeric', annotation(bbox=[1, 2, 10**400, 3]), None),
    ('box not numeric', annotation(bbox=['1', 2, 3, 4]), None),
    ('box with negative sides', annotation(bbox=[20, 20, -9, 9]), None),
    ('box without area', annotation(bbox=[5, 5, 0, 9]), None),
    ('box without area', annotation(bbox=[5, 5, 9, 0]), None),
    ('box outside the image', annotation(bbox=[60, 5, 9, 9]), None),
    ('box outside the image', annotation(bbox=[5, -9, 9, 9]), None),
    (
        'box beyond the border',
        annotation(bbox=[-5, 30, 20, 20], area=400),
        dict(bbox=[0, 30, 15, 10], area=150),
    ),
    ('box under a pixel', annotation(bbox=[5, 5, 0.5, 9], area=4.5), {}),
    ('area missing', annotation(area=...), dict(area=200)),
    ('area missing', annotation(area=NAN), dict(area=200)),
    ('area not positive', annotation(area=0), dict(area=200)),
    ('area differs', annotation(area=100), dict(area=200)),
    ('iscrowd missing', annotation(iscrowd=...), dict(iscrowd=0)),
    ('iscrowd not 0 or 1', annotation(iscrowd='0'), dict(iscrowd=0)),
    ('iscrowd not 0 or 1', annotation(iscrowd='1'), dict(iscrowd=1)),
    ('image without boxes', {**whole(), 'annotations': whole()['annotations'][:1]}, None),
    ('category without boxes', {**whole(), 'annotations': whole()['annotations'][:1]}, None),
    ('category ids with holes', category(id=90), None),
    ('category ids with holes', category(id=3), None),
]  # fmt: skip
CASES_OF_FILES = {
    'byte-order mark',
    'image file missing',
    'image file broken',
    'image size differs',
    'image size missing',
    'no usable image',
}


def kinds(faults):
    return {fault.kind for fault in faults}


def errors(data):
    return [
        fault for fault in check_coco(data, classes=CLASSES).faults if level(fault, True) == 'error'
    ]


@pytest.mark.parametrize('kind, data, after', CASES)
def test_each_fault_is_found_and_mended_or_left_to_a_person(kind, data, after):
    before = copy.deepcopy(data)
    found = check_coco(data, classes=CLASSES)
    assert kind in kinds(found.faults)
    assert repr(data) == repr(before)
    if after is ...:
        assert found.mended is None
        return
    assert not errors(found.mended)
    kept = {a['id']: a for a in found.mended['annotations']}
    if after is None:
        assert 2 not in kept
    else:
        assert kept[2] == {**data['annotations'][1], 'id': 2, **after}


def test_every_kind_has_a_case_and_a_line_in_the_documentation():
    assert {kind for kind, _, _ in CASES} | CASES_OF_FILES == set(KINDS)
    rows = dict(re.findall(r'^\| ([^|]+) \| ([^|]+) \|', DOC.read_text(), flags=re.MULTILINE))
    for kind, (evaluated, trained, _, _) in KINDS.items():
        assert rows[kind] == (evaluated if evaluated == trained else f'{evaluated}; {trained}')


def test_a_whole_file_has_no_faults_and_is_not_changed():
    data = whole()
    # a mask's area, a crowd, an ignored box, a rounding beyond the border
    data['annotations'][0] |= dict(segmentation=[[4, 5, 24, 5, 24, 15]], area=100)
    data['annotations'][1] |= dict(iscrowd=1, bbox=[40, 5, 20.4, 10], area=204)
    assert check_coco(data, classes=CLASSES) == ([], data)


@pytest.mark.parametrize(
    'box', [[0, 0, 60, 40], [-1, 5, 20, 10], [5, 31, 20, 10], [5, 5, 1, 10], [5, 5, 10, 1]]
)
def test_a_box_may_cross_the_border_by_a_pixel_and_be_a_pixel_thin(box):
    assert check_coco(annotation(bbox=box, area=box[2] * box[3])).faults == []


@pytest.mark.parametrize('kept', [0, 1, 2])
def test_of_categories_of_one_name_that_with_boxes_remains(kept):
    data = whole()
    data['categories'] = [dict(id=n, name='cell') for n in range(3)]
    for entry in data['annotations']:
        entry['category_id'] = kept
    found = check_coco(data, classes=['cell'])
    assert found.mended['categories'] == [dict(id=kept, name='cell')]
    assert [str(fault) for fault in found.faults] == [
        f'category {n}: empty category of the same name: "cell" is also category {kept}'
        for n in range(3)
        if n != kept
    ]


def test_of_two_categories_of_one_name_with_boxes_it_is_said_what_to_edit():
    (fault,) = check_coco(category(name='cell')).faults
    assert str(fault) == (
        'category 2: category listed twice: "cell" is also category 1; both have boxes: give these '
        'one category_id, or the categories two names'
    )


@pytest.mark.parametrize(
    'boxes',
    [
        [[0.5, 0.25, 0.25, 0.5]] * 2,
        [[0.5, 0.25, 0.25, 0.5]] * 9 + [[4, 5, 20, 10]],
        [[0, 0, 0, 0]] * 9,
    ],
)
def test_few_boxes_empty_ones_or_one_in_pixels_are_not_in_parts_of_the_image(boxes):
    assert 'boxes in parts of the image' not in kinds(check_coco(with_boxes(*boxes)).faults)


def test_corners_are_named_before_what_they_are_as_boxes():
    data = with_boxes(*CORNERS, CORNERS[0])
    data['annotations'].append(7)
    first, *others = check_coco(data).faults
    assert str(first) == (
        'annotations: boxes of another form: 3 of 4 reach beyond their image as x y width height, '
        'and nearly all are boxes as corners x1 y1 x2 y2: write [x1, y1, x2 - x1, y2 - y1]'
    )
    assert 'box beyond the border' in kinds(others)


@pytest.mark.parametrize('boxes', [CORNERS[:2], [*CORNERS, [1, 2, 9, 8]], [[50, 30, 20, 20]] * 3])
def test_two_boxes_half_of_them_or_others_beyond_the_border_are_no_corners(boxes):
    assert 'boxes of another form' not in kinds(check_coco(with_boxes(*boxes)).faults)


def test_boxes_in_parts_of_the_image_are_one_fault_and_an_area_in_pixels_stays():
    segmentation = [[30, 10, 45, 10, 45, 30]]
    data = with_boxes(*[[0.5, 0.25, 0.25, 0.5]] * 4, area=150, segmentation=segmentation)
    found = check_coco(data)
    assert [str(fault) for fault in found.faults] == [
        'annotations: boxes in parts of the image: all 4 lie within 0 and 1, taken as x y width '
        'height in parts of the image'
    ]
    assert [(a['bbox'], a['area']) for a in found.mended['annotations']] == [
        ([30, 10, 15, 20], 150)
    ] * 4


def test_a_box_that_is_left_out_or_rounded_hides_no_boxes_in_parts_of_the_image():
    boxes = [[0.5, 0.25, 0.25, 0.5]] * 3
    data = with_boxes(*boxes, [-0.002, 0, 0.5, 0.5], [4, 5, -20, 10])
    found = check_coco(data)
    assert found.faults[0].kind == 'boxes in parts of the image'
    assert [a['bbox'] for a in found.mended['annotations']] == [
        *[[30, 10, 15, 20]] * 3,
        pytest.approx([-0.12, 0, 30, 20]),
    ]


def test_a_fault_names_its_entry_and_cuts_long_text():
    data = extended('annotations', dict(image_id=1, category_id=1, bbox=[1, 2], iscrowd=0))
    data['categories'][1]['id'] = [[]] * 99
    places = {fault.kind: (fault.where, fault.detail) for fault in check_coco(data).faults}
    where, _ = places['box not numeric']
    assert where == 'annotation entry 2 of "1.jpg"'
    _, detail = places['category incomplete']
    assert '[], ..., expected' in detail and len(detail) < 140
    (fault,) = check_coco(annotation(bbox=[5, 5, 0, 9])).faults[:1]
    assert fault.where == 'annotation 2 of "2.jpg"'


@pytest.mark.parametrize('change', [dict(iscrowd=...), dict(id=0)])
def test_what_evaluation_alone_stumbles_over_is_no_error_in_training(change):
    (fault,) = check_coco(annotation(**change)).faults
    assert (level(fault, True), level(fault, False)) == ('error', 'note')


def test_an_image_id_is_not_of_another_type_where_an_image_has_it():
    data = extended('images', dict(id='2', file_name='3.jpg', width=60, height=40))
    found = check_coco(data)
    assert kinds(found.faults) == {'image without boxes'} and found.mended == data


def test_of_an_image_id_of_another_type_both_are_named():
    (fault,) = check_coco(annotation(image_id='2')).faults
    assert str(fault) == (
        'annotation 2 of "2.jpg": image id of another type: image_id "2", but the image has 2'
    )


def test_ids_twice_are_numbered_anew_with_free_numbers():
    data = extended('annotations', {**whole()['annotations'][0], 'bbox': [0, 0, 20, 10]})
    data['annotations'].append({**whole()['annotations'][1], 'id': 3})
    ids = [a['id'] for a in check_coco(data).mended['annotations']]
    assert ids == [1, 2, 4, 3]


def test_an_id_is_also_twice_where_the_first_is_left_out():
    data = extended('annotations', {**whole()['annotations'][0], 'bbox': [0, 0, 0, 9]})
    assert 'annotation id twice' in kinds(check_coco(data).faults)


def load(data, path):
    path.write_text(json.dumps(data))
    return CocoDataset(
        ann_file=str(path),
        metainfo=dict(classes=CLASSES),
        data_prefix=dict(img=''),
        pipeline=[],
        serialize_data=False,  # which would collect garbage each time
    )


@pytest.mark.parametrize('kind, data, after', CASES)
def test_mmdet_loads_what_has_no_errors_and_what_was_mended(kind, data, after, tmp_path):
    found = check_coco(data, classes=CLASSES)
    if not errors(data):
        load(data, tmp_path / 'checked.json')
    if found.mended is not None:
        dataset = load(found.mended, tmp_path / 'mended.json')
        boxes = sum(len(dataset.get_data_info(i)['instances']) for i in range(len(dataset)))
        left_out = [f for f in check_coco(found.mended).faults if f.kind == 'box under a pixel']
        assert boxes == len(found.mended['annotations']) - len(left_out)


@pytest.mark.parametrize(
    'content', [b'', b'{', b'\xff\xfe{', b'\xef\xbb\xbf{}', b'[' * 100_000, b'1' * 5000]
)
def test_what_is_not_json_is_one_error_that_names_the_file(content, tmp_path):
    path = tmp_path / 'broken.json'
    path.write_bytes(content)
    with pytest.raises(ValueError, match='broken.json is not json: '):
        read_coco(path)


@pytest.fixture
def folder(tmp_path):
    for name in ('1.jpg', '2.jpg'):
        Image.new('RGB', (60, 40)).save(tmp_path / name)
    return tmp_path


def test_whole_images_have_no_faults(folder):
    assert check_images(whole(), folder) == ([], set(), 2)


@pytest.mark.parametrize(
    'content, kind',
    [
        (None, 'image file missing'),
        (b'', 'image file broken'),
        (b'no picture', 'image file broken'),
        ((40, 60), 'image size differs'),
    ],
)
def test_an_unusable_image_is_named_and_left_out_with_its_boxes(folder, content, kind):
    path = folder / '2.jpg'
    if content is None:
        path.unlink()
    elif isinstance(content, tuple):
        Image.new('RGB', content).save(path)
    else:
        path.write_bytes(content)
    found = check_images(whole(), folder)
    assert [fault.kind for fault in found.faults] == [kind]
    assert '2.jpg' in found.faults[0].where
    assert found.unusable == {2}
    mended = check_coco(whole(), unusable=found.unusable).mended
    assert [image['id'] for image in mended['images']] == [1]
    assert [a['image_id'] for a in mended['annotations']] == [1]


@pytest.mark.parametrize('suffix', ['.jpg', '.png', '.tif', '.webp'])
def test_a_photograph_on_its_side_has_the_size_that_mmdet_loads(folder, suffix):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = folder / f'side{suffix}'
    Image.new('RGB', (60, 40)).save(path, exif=exif)
    height, width = mmcv.imread(path).shape[:2]
    data = image(file_name=path.name, width=width, height=height)
    assert not check_images(data, folder).faults


def test_a_folder_of_none_of_the_images_is_an_error_of_its_own(folder):
    found = check_images(whole(), folder / 'elsewhere')
    assert found.faults[-1].kind == 'no usable image'
    assert check_coco(whole(), unusable=found.unusable).mended is None


def test_a_part_of_the_images_is_spread_over_all(folder):
    data = whole()
    data['images'] = [dict(data['images'][0], id=n, file_name=f'{n}.gone') for n in range(10)]
    found = check_images(data, folder, max_images=3)
    assert found.unusable == {0, 4, 8}
