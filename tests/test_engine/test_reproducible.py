"""Samples and their randomness are those of the place in the run."""
import itertools
import pickle

import pytest
from mmengine.dataset import BaseDataset, ConcatDataset, InfiniteSampler, RepeatDataset

from mmseg_inceptionnext.datasets.seeding import Draw, derived_seed
from mmseg_inceptionnext.engine import ResumableSampler


def first(sampler, count):
    return list(itertools.islice(sampler, count))


@pytest.mark.parametrize('shuffle', [True, False])
def test_the_order_is_mmengines_from_any_place_on(shuffle):
    data = range(7)
    expected = first(InfiniteSampler(data, shuffle=shuffle, seed=3), 30)
    sampler = ResumableSampler(data, shuffle=shuffle, seed=3)
    draws = first(sampler, 30)
    assert draws == expected and first(sampler, 30) == expected  # a second iteration starts anew
    sampler.skip(11)
    resumed = first(sampler, 19)
    assert resumed == expected[11:] and [draw.seed for draw in resumed] == [draw.seed for draw in draws[11:]]


def test_every_draw_has_a_seed_of_its_own(monkeypatch):
    seeds = set()
    for rank in (0, 1):
        for seed in (0, 1):
            sampler = ResumableSampler(range(5), seed=seed)
            sampler.rank, sampler.world_size = rank, 2
            seeds |= {draw.seed for draw in first(sampler, 50)}
    assert len(seeds) == 200


def test_draws_reach_worker_processes():
    draw = pickle.loads(pickle.dumps(Draw(5, 77)))
    assert (draw, draw.seed, [0, 1, 2, 3, 4, 'here'][draw]) == (5, 77, 'here')


def test_draws_keep_their_seeds_in_datasets_that_join_and_repeat():
    class Data(BaseDataset):
        METAINFO = dict(classes=('a', ))

        def load_data_list(self):
            return [dict(index=i) for i in range(3)]

        def __getitem__(self, index):
            return int(index), index.seed

    for data in (RepeatDataset(Data(), times=2), ConcatDataset([Data(), Data()])):
        assert [data[Draw(i, 70 + i)] for i in range(6)] == [(i % 3, 70 + i) for i in range(6)]


def test_each_number_changes_the_seed():
    assert len({derived_seed(*numbers) for numbers in itertools.product(range(4), repeat=3)}) == 64
