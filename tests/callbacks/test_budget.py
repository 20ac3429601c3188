"""How long to train."""

import time

import pytest

from smallbatch.callbacks.budget import Budget
from smallbatch.errors import UserError


def test_whichever_is_spent_first_ends_training():
    budget = Budget(images=1000, minutes=10, money=6, price_per_device_hour=3)
    assert budget.spent(500, 60, 0) == 0.5
    assert budget.spent(500, 480, 0) == 0.8
    assert budget.spent(500, 480, 1.8 * 3600) == pytest.approx(0.9)
    assert budget.spent(500, 480, 9 * 3600) == 1


def test_money_is_seconds_times_devices_times_price_and_whoever_resumes_goes_on_counting(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    first = Budget(money=10, price_per_device_hour=2, devices=2, nodes=2)
    clock[0] += 900
    assert first.spent(0, first.seconds, first.device_seconds) == pytest.approx(900 * 4 / 3600 * 2 / 10)
    second = Budget(money=10, price_per_device_hour=2, devices=1)  # goes on, on fewer devices
    second.load_state_dict(first.state_dict())
    clock[0] += 1800
    assert second.seconds == 2700 and second.device_seconds == 900 * 4 + 1800
    assert second.spent(0, second.seconds, second.device_seconds) == pytest.approx(1.5 * 2 / 10)


@pytest.mark.parametrize(
    "words, said",
    [
        ({}, "give budget.images, budget.minutes or budget.money"),
        ({"money": 5}, "budget.money=5 needs a price: give price.per_device_hour"),
        ({"money": -5, "price_per_device_hour": 1}, "budget.money=-5 must be above 0"),
        ({"money": 5, "price_per_device_hour": 0}, "price.per_device_hour=0 must be above 0"),
    ],
)
def test_what_cannot_be_counted_is_refused(words, said):
    with pytest.raises(UserError, match=said):
        Budget(**words)
