import torch

from bench.memory import Watch


def test_what_stays_and_the_highest_level_of_a_step():
    others = torch.zeros(10_000)
    watch = Watch("cpu")
    weights = torch.zeros(250_000)  # 1 MB
    state = {"moment": torch.zeros(500_000)}  # 2 MB

    def step():
        a = torch.empty(1_000_000)  # 4 MB
        b = torch.empty(500_000)  # 2 MB: 6 in all
        del a
        c = torch.empty(750_000)  # 3 MB: 5 in all
        return [b, c, weights, state, others]

    assert watch.peak(step) == 1 + 2 + 6
    assert watch.peak(step) == 1 + 2 + 6


def test_views_and_what_others_hold_count_once_or_not_at_all():
    others = torch.zeros(1_000_000)
    watch = Watch("cpu")
    views = [others[1:], torch.zeros(250_000)]
    views.append(views[1][7:])
    assert watch.peak(lambda: views) == 1
