from widgets.sight import Sight


def test_views_are_counted_and_each_comes_into_sight_once():
    sight = Sight()
    assert [sight.note("a", True), sight.note("a", True), sight.note("b", True)] == [True, False, True]
    sight.note("a", False)
    assert sight.is_seen
    sight.note("b", False)
    assert not sight.is_seen
    assert sight.note("a", True)


def test_a_page_that_went_without_a_word_is_forgotten():
    now_s = 0.0
    sight = Sight(clock=lambda: now_s)
    sight.note("a", True)
    now_s = 59.0
    assert sight.is_seen
    sight.note("a", True)
    now_s = 118.0
    assert sight.is_seen
    now_s = 120.0
    assert not sight.is_seen
