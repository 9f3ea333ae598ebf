"""YOLO's label files and lists of classes."""

import pytest

from condconv_det.data.fault import UnusableImage
from condconv_det.data.yolo import read_labels, read_names

SIZE = (40, 20)  # width, height


def read(files, text):
    faults = []
    path = files.write('a.txt', text)
    return read_labels(path, SIZE, 2, 'a', faults), [fault.kind for fault in faults]


def test_a_line_gives_a_box_in_pixels(files):
    (found,), faults = read(files, '1 0.5 0.5 0.25 0.5\n\n')
    assert found['category_id'] == 2 and found['bbox'] == [15, 5, 10, 10]
    assert found['area'] == 100 and found['iscrowd'] == 0 and faults == []


def test_a_polygon_gives_its_bounding_box(files):
    (found,), faults = read(files, '0 0.25 0.5 0.5 0.25 0.75 0.75 0.5 1')
    assert found['bbox'] == [10, 5, 20, 15] and faults == []


@pytest.mark.parametrize(
    'line, kind',
    [
        ('0 0.5 0.5 0.25', 'line of another form'),
        ('0 0.5 0.5 0.25 0.5 0.9', 'line of another form'),
        ('0, 0.5, 0.5, 0.25, 0.5', 'line of another form'),
        ('cat 0.5 0.5 0.25 0.5', 'box not numeric'),
        ('0 0.5 nan 0.25 0.5', 'box not numeric'),
        ('0 0.5 0.5 inf 0.5', 'box not numeric'),
        ('2 0.5 0.5 0.25 0.5', 'unknown class'),
        ('-1 0.5 0.5 0.25 0.5', 'unknown class'),
        ('0.5 0.5 0.5 0.25 0.5', 'unknown class'),
        ('0 0.5 0.5 0 0.5', 'box without area'),
        ('0 0.5 0.5 -0.2 0.5', 'box without area'),
        ('0 1.5 0.5 0.25 0.5', 'box outside the image'),
        ('0 0.5 -0.5 0.25 0.5', 'box outside the image'),
    ],
)
def test_a_line_that_cannot_be_used_is_left_out_and_named(files, line, kind):
    found, faults = read(files, f'{line}\n1 0.5 0.5 0.25 0.5\n')
    assert faults == [kind] and [box['category_id'] for box in found] == [2]


def test_of_a_line_of_another_form_it_is_said_what_it_has(files):
    faults = []
    path = files.write('a.txt', '0 0.5 0.5 0.25 0.5 0.9\n0,0.5,0.5,0.25,0.5')
    assert read_labels(path, SIZE, 2, 'a', faults) == []
    expected = 'expected a class and 4 numbers, or 3 or more points, with blanks between; left out'
    assert [fault.detail for fault in faults] == [
        f'line 1 (0 0.5 0.5 0.25 0.5 0.9): 6 values, {expected}',
        f'line 2 (0,0.5,0.5,0.25,0.5): 5 values with commas, {expected}',
    ]


def test_a_box_across_the_border_is_clipped_and_named_unless_it_is_rounding(files):
    (found,), faults = read(files, '0 0.95 0.5 0.2 0.5')
    assert found['bbox'] == pytest.approx([34, 5, 6, 10]) and faults == ['box beyond the border']
    (found,), faults = read(files, '0 0.91 0.5 0.2 0.5')
    assert found['bbox'] == pytest.approx([32.4, 5, 7.6, 10]) and faults == []


def test_labels_that_are_not_utf_8_make_an_image_unusable(files):
    path = files.write('a.txt', '')
    path.write_bytes(b'0 .5 .5 .3 .3 # \xe9')
    with pytest.raises(UnusableImage, match='a.txt is not UTF-8: '):
        read_labels(path, SIZE, 2, 'a', [])


@pytest.mark.parametrize(
    'name, text',
    [
        ('data.yaml', 'train: images\nnames: [cat, dog]'),
        ('deep/mine.yml', 'names: {1: dog, 0: cat}'),
        ('classes.txt', 'cat\ndog\n'),
        ('obj.names', '\ufeffcat \r\ndog\n\n'),
    ],
)
def test_classes_are_found_where_tools_write_them(files, name, text):
    files.write('hyp.yaml', 'lr: 0.1')
    assert read_names(files.root, []) is None
    files.write(name, text)
    faults = []
    assert read_names(files.root, faults) == ['cat', 'dog'] and faults == []


@pytest.mark.parametrize(
    'text', ['[yes, no, 010, 1.0, null]', '{0: yes, 1: no, 2: 010, 3: 1.0, 4: null}']
)
def test_classes_are_called_as_they_are_written(files, text):
    files.write('data.yaml', f'names: {text}')
    assert read_names(files.root, []) == ['yes', 'no', '010', '1.0', 'null']


@pytest.mark.parametrize('name', ['z.yaml', 'classes.txt'])
def test_a_yaml_file_of_something_else_is_passed_over_and_named(files, name):
    files.write('hyp.yaml', 'scales: !!python/tuple [1, 2]')
    files.write(name, 'names: [cat]' if name == 'z.yaml' else 'cat')
    faults = []
    assert read_names(files.root, faults) == ['cat']
    assert [fault.kind for fault in faults] == ['file not read']
    assert 'hyp.yaml is not YAML: could not determine a constructor' in faults[0].detail


def test_a_list_of_names_that_is_not_utf_8_is_named(files):
    files.write('classes.txt', '').write_bytes('狗'.encode('gbk'))
    with pytest.raises(ValueError, match='classes.txt is not UTF-8: '):
        read_names(files.root, [])
    files.write('data.yaml', '').write_bytes('names: [狗]'.encode('gbk'))
    with pytest.raises(ValueError, match='data.yaml is not UTF-8: '):
        read_names(files.root, [])


@pytest.mark.parametrize(
    'text, says',
    [
        ('names: {0: cat, 2: dog}', 'data.yaml: expected names as a list, or numbered from 0'),
        ('names: cat', "numbered from 0, got 'cat'"),
        ('names: []', r'numbered from 0, got \[\]'),
        ('names: [cat', 'data.yaml is not YAML: '),
        ('names: [1, dog, "1"]', 'data.yaml: expected each class once, got 1 more than once'),
    ],
)
def test_names_that_make_no_sense_are_refused(files, text, says):
    files.write('data.yaml', text)
    with pytest.raises(ValueError, match=says):
        read_names(files.root, [])


def test_a_blank_line_among_names_is_not_passed_over(files):
    files.write('classes.txt', 'cat\n\ndog\nbird\n')
    with pytest.raises(ValueError, match='classes.txt: line 2 is blank, and lines number the cl'):
        read_names(files.root, [])


def test_names_in_several_files_agree_on_each_number(files):
    files.write('train/classes.txt', 'cat\ndog')
    files.write('val/classes.txt', 'cat\ndog\nbird')  # where it was labelled later
    assert read_names(files.root, []) == ['cat', 'dog', 'bird']
    files.write('val/classes.txt', 'dog\ncat')
    says = r"class 0 is 'dog' in .*val/classes.txt and 'cat' in .*train/classes.txt: labels that"
    with pytest.raises(ValueError, match=says):
        read_names(files.root, [])
