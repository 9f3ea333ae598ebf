from condconv_det.analysis.routing import Grouping
from condconv_det.analysis.routing_figures import _largest


def test_the_largest_groups_are_drawn_in_their_own_order():
    labels = [[0], [1], [1], [1], [2], [3], [3]]
    grouping = Grouping.from_labels('class', ['one', 'three', 'another', 'two'], labels)
    assert _largest(grouping, 2) == [1, 3]
    assert _largest(grouping, 3) == [0, 1, 3]  # of equal ones the first
    assert _largest(grouping, 9) == [0, 1, 2, 3]
