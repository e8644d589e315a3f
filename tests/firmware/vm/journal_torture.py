"""Power cuts at random flash operations under a journal on LittleFS, on the MicroPython VM.

    micropython -X heapsize=16m journal_torture.py SEED CUTS

A life is one flash from new: boots that end in the middle of a program or erase, each with appends, bursts to
the gateway, lost epochs, named epochs; at its end the gateway takes everything and the accounts must balance.
The seed of a life is printed where it fails; with it as SEED the same happens at once. Long form: many CUTS.
"""

import gc
import random
import sys

from fakes.nor import BLOCK, Nor, mount, unmount

import node.journal
from journalworld import JournalWorld

# Small segments, so that little writing makes many of them, and few of them fill the journal.
node.journal.SEGMENT_BYTES = 600
_LIMITS = (1200, 2400, 6000)
_BLOCKS = 40
_MOUNT = "/torture"
_CUTS_A_LIFE = 12
_FRAYED = 40
# Flash operations until a cut: mostly in the middle of work, sometimes within the boot.
_REACHES = (12, 120, 700, 3000)


class FrayingNor(Nor):
    """NOR flash whose last operation ends with a frayed edge: behind what was done, some bits are too."""

    def writeblocks(self, block, buf, offset=0):
        was_dead = self.dead
        result = Nor.writeblocks(self, block, buf, offset)
        if self.dead and not was_dead:
            done = self._torn % (len(buf) + 1)
            at = block * BLOCK + offset
            for i in range(done, min(len(buf), done + _FRAYED)):
                self._data[at + i] &= buf[i] | random.getrandbits(8)
        return result

    def ioctl(self, op, arg):
        was_dead = self.dead
        result = Nor.ioctl(self, op, arg)
        if self.dead and not was_dead:
            done = self._torn % (BLOCK + 1)
            for i in range(done, min(BLOCK, done + _FRAYED)):
                self._data[arg * BLOCK + i] |= random.getrandbits(8)
        return result


class Life:
    """One flash, and the node and gateway around it; `cuts` counts those that fell."""

    def __init__(self, seed):
        random.seed(seed)
        self.cuts = 0
        self.image = None
        self.loss = random.choice((0, 20, 50))
        # In some lives no gateway is near until the end: then every record that is given up is counted.
        self.alone = random.randrange(4) == 0
        self.world = JournalWorld(_MOUNT + "/journal", random.choice(_LIMITS))

    def run(self):
        for _ in range(_CUTS_A_LIFE):
            cut = random.randrange(1, random.choice(_REACHES))
            self._powered(cut, random.getrandbits(14), self._work)
            if random.randrange(3) == 0:
                self._powered(0, 0, self.world.check)
        self._powered(0, 0, self.world.drain)

    def _powered(self, cut, torn, act):
        nor = FrayingNor(_BLOCKS, image=self.image, cut=cut, torn=torn)
        fresh = self.image is None
        if fresh:
            # A flash is formatted before it is used; the cut is for what comes then.
            nor = Nor(_BLOCKS)
        mount(nor, _MOUNT, fresh=fresh)
        try:
            if random.randrange(12) == 0:
                self.world.lose_epoch()
            self.world.boot()
            act()
        except OSError:
            if not nor.dead:
                raise
            self.cuts += 1
        self.image = nor.image()
        unmount(nor, _MOUNT)
        gc.collect()

    def _is_lost(self):
        return random.randrange(100) < self.loss

    def _work(self):
        world = self.world
        for _ in range(random.randrange(20, 300)):
            chance = random.randrange(100)
            if chance < 75:
                world.append(random.randrange(150))
            elif chance < 88:
                if not self.alone:
                    world.exchange(self._is_lost)
            elif chance < 92:
                world.hello()
            elif chance < 94:
                world.next_epoch()
            elif chance < 97:
                world.sleep()
            else:
                world.check()


def main(seed, cuts):
    fallen = lives = written = given_up = 0
    while fallen < cuts:
        life = Life(seed + lives)
        try:
            life.run()
        except AssertionError:
            print("seed", seed + lives)
            raise
        fallen += life.cuts
        lives += 1
        written += life.world.durable
        given_up += len(life.world.missing)
        life = None
        gc.collect()
    print(f"{fallen} cuts, {lives} lives, {written} records, {given_up} given up")


main(int(sys.argv[1]), int(sys.argv[2]))
