"""Annotations and other data files run no code."""

import os
import pickle

import pytest
import yaml
from mmdet.datasets import BaseDetDataset
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.fileio import dump, load

from condconv_det.compat.data_errors import AnnotationError

RUNS_CODE = '!!python/object/apply:os.system ["touch ran"]'


class RunsCode:
    def __reduce__(self):
        return os.system, ('touch ran',)


@pytest.fixture(autouse=True)
def _in_its_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield
    assert not (tmp_path / 'ran').exists()


@pytest.mark.parametrize('suffix', ['pkl', 'pickle'])
def test_a_pickle_is_no_annotation_file(tmp_path, suffix):
    path = tmp_path / f'train.{suffix}'
    path.write_bytes(pickle.dumps(RunsCode()))
    with pytest.raises(AnnotationError, match=f'{path} is a pickle, which could run code'):
        BaseDataset(ann_file=str(path))


def test_nor_a_file_of_proposals(tmp_path):
    dump(dict(metainfo={}, data_list=[dict(img_path='a.jpg', instances=[])]), 'train.json')
    (tmp_path / 'proposals.pkl').write_bytes(pickle.dumps(RunsCode()))
    with pytest.raises(AnnotationError, match='proposals.pkl is a pickle'):
        BaseDetDataset(ann_file='train.json', proposal_file='proposals.pkl')


@pytest.mark.parametrize('suffix', ['yml', 'yaml'])
def test_tags_of_yaml_that_run_code_are_refused(tmp_path, suffix):
    path = tmp_path / f'data.{suffix}'
    path.write_text(RUNS_CODE)
    for read in (load, Config.fromfile, lambda file: BaseDataset(ann_file=file)):
        with pytest.raises(yaml.constructor.ConstructorError, match='object/apply:os.system'):
            read(str(path))


def test_what_mmengine_writes_as_yaml_is_read_again(tmp_path):
    cfg = Config(dict(sizes=[(3, 4), (5, 6)], name='x', flag=None, rate=1e-3))
    cfg.dump(tmp_path / 'config.yaml')
    assert Config.fromfile(tmp_path / 'config.yaml').to_dict() == cfg.to_dict()


def test_annotations_that_are_data_load(tmp_path):
    content = dict(metainfo=dict(classes=['a']), data_list=[dict(img_path='a.jpg')])
    for name in ('train.json', 'train.yml'):
        dump(content, name)
        assert BaseDataset(ann_file=name)[0]['img_path'].endswith('a.jpg')


def test_processes_still_exchange_results_through_pickles(tmp_path):
    dump([dict(result=1)], 'part_0.pkl')
    assert load('part_0.pkl') == [dict(result=1)]
