from benchmarks import intervals


def test_intervals_hold_the_truth_where_seeds_are_alike_and_less_often_where_few_differ(capsys):
    assert intervals.coverage(0, num_seeds=3, trials=200) > 0.9
    assert intervals.coverage(4, num_seeds=3, trials=200) < 0.9
    intervals.main(['--trials', '2'])
    title, _, *rows = capsys.readouterr().out.splitlines()
    assert title == '| seeds vary, times images | 3 seeds | 5 seeds | 10 seeds |'
    assert [row.split(' | ')[0] for row in rows] == ['| 0', '| 1', '| 4']
