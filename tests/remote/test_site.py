"""site: a host that nobody hears any more is lost to its job within seconds; what of the job is there ends, too."""

from __future__ import annotations

import time

import pytest
from attackers import pause
from beacons import beacon_on
from drivers import Driver
from programs import still_there, wait_until

LOST_SECONDS = 20.0  # of silence 10, looked for every 2; and time to end the run
GONE_SECONDS = 20.0  # the same, on the other side
LOCAL = {"host": "local", "max_procs": 2}


class Scene:
    """A laptop with a driver, and two hosts with beacons, on which a run goes on."""

    def __init__(self, network, *, local=False):
        self.laptop, *self.labs = network.add_hosts("laptop", "lab1", "lab2")
        self.beacons = [beacon_on(host) for host in self.labs]
        self.local = [LOCAL] * local
        self.driver = self.start()
        pids = self.driver.wait_for_run()
        self.pids = [pids[-4:-2], pids[-2:]]  # of each lab
        self.own = pids[:-4]

    def start(self):
        (self.laptop.home / "gate").unlink(missing_ok=True)
        entries = self.local + [beacon.entry() for beacon in self.beacons]
        return Driver(self.laptop.home, entries, start=self.laptop.run)

    def check_nothing_left(self):
        for beacon in self.beacons:
            beacon.check_tidy()
        for host in self.labs:
            assert host.shared_names() == []

    def close(self):
        with self.driver:
            pass
        for beacon in self.beacons:
            beacon.kill()


@pytest.fixture(params=["2 hosts", pytest.param("local and 2 hosts", marks=pytest.mark.soak)])
def scene(request, network):
    made = Scene(network, local=request.param != "2 hosts")
    try:
        yield made
    finally:
        made.close()


def check_lost(scene, time_limit, but):
    """The driver has its error in time, which names the host; no ranks are on the other hosts."""
    kind, seconds = scene.driver.error(LOST_SECONDS + 10)
    assert kind == "HostLostError", scene.driver.out
    assert scene.beacons[but].key in scene.driver.out
    assert seconds < time_limit(LOST_SECONDS)
    assert still_there([*scene.pids[1 - but], *scene.own], 5.0) == []


def check_healthy(scene):
    size = 4 + 2 * len(scene.local)
    assert scene.driver.go_on() == [str(sum(range(size)))] * size
    assert (scene.driver.finish(), scene.driver.err) == (0, "")
    scene.check_nothing_left()


@pytest.mark.slow
def test_a_pulled_cable(scene, time_limit):
    scene.labs[1].cut()
    check_lost(scene, time_limit, but=1)
    assert still_there(scene.pids[1], GONE_SECONDS) == []
    scene.labs[1].mend()
    check_healthy(scene)


@pytest.mark.slow
@pytest.mark.parametrize("scene", ["2 hosts"], indirect=True)
def test_a_cable_that_is_put_back_soon_and_a_short_freeze_are_no_loss(scene):
    scene.labs[1].cut()
    scene.labs[0].freeze()
    pause(4.0)
    scene.labs[1].mend()
    scene.labs[0].thaw()
    pids = [*scene.own, *scene.pids[0], *scene.pids[1]]
    assert sorted(still_there(pids, LOST_SECONDS - 5)) == sorted(pids)
    scene.driver.process.kill()
    assert still_there(pids, GONE_SECONDS) == []


@pytest.mark.slow
def test_a_frozen_host(scene, time_limit):
    scene.labs[1].freeze()
    check_lost(scene, time_limit, but=1)
    scene.labs[1].thaw()
    assert still_there(scene.pids[1], GONE_SECONDS) == []
    check_healthy(scene)


@pytest.mark.slow
def test_a_host_without_power(scene, time_limit):
    scene.labs[1].power_off()
    check_lost(scene, time_limit, but=1)
    scene.driver.process.stdin.close()
    assert scene.driver.finish() == 0
    scene.labs[1].power_on()
    scene.beacons[1].kill()
    scene.beacons[1] = beacon_on(scene.labs[1])
    before = scene.beacons[1].leftovers()  # of the job that the host had when it lost its power
    assert all("klyng-job" in one for one in before)
    with scene.start() as driver:
        driver.wait_for_run()
        driver.process.kill()
    scene.beacons[0].check_tidy()
    scene.beacons[1].check_tidy(before)


@pytest.mark.slow
def test_the_drivers_own_cable(scene, time_limit):
    began = time.monotonic()
    scene.laptop.cut()
    assert still_there([*scene.pids[0], *scene.pids[1]], GONE_SECONDS) == []
    assert time.monotonic() - began < time_limit(GONE_SECONDS)
    assert scene.driver.error(LOST_SECONDS + 10)[0] == "HostLostError"
    scene.laptop.mend()
    check_healthy(scene)


@pytest.mark.slow
def test_a_driver_without_power(scene, time_limit):
    began = time.monotonic()
    scene.laptop.power_off()
    assert still_there([*scene.pids[0], *scene.pids[1]], GONE_SECONDS) == []
    assert time.monotonic() - began < time_limit(GONE_SECONDS)
    scene.check_nothing_left()


@pytest.mark.slow
def test_a_host_that_is_not_there_and_one_that_is_off(network, time_limit):
    laptop, lab, dark = network.add_hosts("laptop", "lab", "dark")
    beacon = beacon_on(lab)
    dark.power_off()
    entries = [beacon.entry(), {"host": f"{dark.address}:2222", "passwd": "x", "max_procs": 1}]
    began = time.monotonic()
    with Driver(laptop.home, entries, start=laptop.run) as driver:
        assert driver.finish() == 1
        assert f"{dark.address} port 2222" in driver.err.splitlines()[-1]
    assert time.monotonic() - began < time_limit(7)
    wait_until(lambda: beacon.leftovers() == [])
    beacon.kill()
