"""Keyed draws."""

import pytest
import torch

from smallbatch.randomness import SampleNoise, Step, key, seed_layers


def at(index, **where):
    return Step(seed=0, index=index, images=0, progress=0.0, **where)


@pytest.mark.parametrize("ranks, micros", [(1, 4), (2, 2), (4, 1), (3, 2)])
def test_any_split_of_a_step_draws_the_same_rows(ranks, micros):
    whole = at(5).draw("noise", torch.randn, (12, 3, 2, 2))
    rows = 12 // (ranks * micros)
    parts = [
        at(5, rank=r, ranks=ranks, micro=m, micros=micros).draw("noise", torch.randn, (rows, 3, 2, 2))
        for m in range(micros)
        for r in range(ranks)
    ]
    assert torch.equal(torch.cat(parts), whole)


def test_seed_purpose_and_step_each_change_the_draw_and_nothing_else_does():
    draw = at(5).draw("noise", torch.randn, (8,))
    torch.manual_seed(1)
    assert torch.equal(at(5).draw("noise", torch.randn, (8,)), draw)
    others = [at(6).draw("noise", torch.randn, (8,)), at(5).draw("flips", torch.randn, (8,))]
    others.append(Step(1, 5, 0, 0.0).draw("noise", torch.randn, (8,)))
    assert not any(torch.equal(draw, other) for other in others)


def test_a_draw_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    at(0).draw("noise", torch.randn, (8,))
    SampleNoise(0, range(3), (1, 2, 2))(0)
    assert torch.equal(torch.get_rng_state(), before)


def test_layers_without_a_generator_are_keyed_too():
    def dropped(*parts):
        seed_layers(*parts, device=torch.device("cpu"))
        return torch.nn.functional.dropout(torch.ones(64))

    assert torch.equal(dropped(0, "dropout", 5), dropped(0, "dropout", 5))
    assert not torch.equal(dropped(0, "dropout", 5), dropped(0, "dropout", 6))


def test_keys_of_different_parts_do_not_run_together():
    assert key(1, 23) != key(12, 3) and key("a", "b") != key("ab")
    assert len({key(0, "noise", i) for i in range(10_000)}) == 10_000


def test_a_samples_noise_depends_on_its_own_number_alone():
    together, alone = SampleNoise(7, range(10), (3, 4, 4)), SampleNoise(7, [6], (3, 4, 4))
    for k in (0, 5):
        assert torch.equal(together(k)[6], alone(k)[0])
    assert not torch.equal(alone(0), alone(1))
