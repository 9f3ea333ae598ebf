from mmengine.fileio import FileClient
from mmengine.logging import MMLogger


def test_mmengine_does_not_warn_of_its_own_calls(monkeypatch):
    said = []
    logger = MMLogger.get_instance('test')
    monkeypatch.setattr(logger, 'callHandlers', said.append)
    FileClient(backend='disk')
    logger.warning('others')
    assert [record.getMessage() for record in said] == ['others']
