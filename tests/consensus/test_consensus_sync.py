"""Catching up: a slow model of peers, honest and not, against the planner."""

import random

from node.chain.block import Block
from node.consensus.certificate import Certificate
from node.consensus.events import Head, HeadAdvanced, PeerGone, PeerStatus, Tick
from node.consensus.messages import Kind, Statement
from node.consensus.sync import Failed, Fetch, Fetched, Syncer, SyncPolicy, SyncReady

from .conftest import RECOVER, Council, make_header

Item = tuple[Block, Certificate]


def make_chain(council: Council, length: int) -> list[Item]:
    chain: list[Item] = []
    parent = council.parent
    for height in range(1, length + 1):
        block = Block(make_header(parent, council.validators[height % len(council.keys)]))
        commit = Statement(Kind.COMMIT, height, 0, block.hash)
        seals = tuple(council.sign(i, commit).signature for i in range(council.quorum))
        chain.append((block, Certificate(height, 0, block.hash, seals)))
        parent = block.header
    return chain


class Follower:
    """Applies what the syncer gives out, and answers its fetches from peers' chains."""

    def __init__(self, council: Council, policy: SyncPolicy) -> None:
        self.council = council
        self.head = council.head()
        self.syncer = Syncer(domain=council.domain, policy=policy, head=self.head, recover=RECOVER)
        self.peers: dict[bytes, list[Item]] = {}
        self.dropped: dict[bytes, str] = {}
        self.asked: list[Fetch] = []
        self.now_ms = 0

    def step(self, event: PeerStatus | PeerGone | Fetched | Failed | HeadAdvanced | Tick) -> SyncReady:
        ready = self.syncer.step(event, now_ms=self.now_ms)
        self.asked.extend(ready.fetch)
        self.dropped.update({drop.peer: drop.reason for drop in ready.drop})
        return ready

    def apply(self) -> None:
        while (item := self.syncer.next_to_apply(self.head)) is not None:
            self.head = Head(item[1].header, self.council.validators)
            self.step(HeadAdvanced(self.head))
        if self.syncer.deadline_ms() is not None and self.syncer.deadline_ms() == 0:
            self.step(Tick())

    def run(self, draw: random.Random, steps: int = 10_000) -> None:
        """Answer in any order until nothing is asked any more."""
        for _ in range(steps):
            if not self.asked:
                deadline = self.syncer.deadline_ms()
                if deadline is None:
                    return
                self.now_ms = max(self.now_ms + 1, deadline)
                self.step(Tick())
                continue
            fetch = self.asked.pop(draw.randrange(len(self.asked)))
            chain = self.peers.get(fetch.peer)
            if chain is None or fetch.peer in self.dropped:
                continue
            items = chain[fetch.from_height - 1 :][: draw.randint(1, fetch.count)]
            self.step(Fetched(fetch.peer, items))
            self.apply()
        raise AssertionError("the syncer never comes to rest")


POLICY = SyncPolicy(range_blocks_max=4, window_blocks_max=12)


def test_fetches_from_several_peers_at_once_and_in_bounded_windows() -> None:
    council = Council(4)
    follower = Follower(council, POLICY)
    for i in range(3):
        follower.step(PeerStatus(bytes([i]), 40))
    heights = [height for each in follower.asked for height in range(each.from_height, each.from_height + each.count)]
    assert sorted(heights) == list(range(1, 13)), "each height once, none beyond the window"
    assert follower.syncer.highest == 40


def test_reaches_the_head_whatever_some_peers_serve() -> None:
    council = Council(4)
    chain = make_chain(council, 40)
    forged = [(block, Certificate(c.height, c.round, c.block_hash, c.seals[:2])) for block, c in chain]
    shifted = [*chain[1:], chain[0]]
    for seed in range(30):
        draw = random.Random(seed)
        follower = Follower(council, POLICY)
        follower.peers = {b"good": chain, b"also good": chain, b"bad": draw.choice([forged, shifted]), b"empty": []}
        for peer in follower.peers:
            follower.step(PeerStatus(peer, 40))
        follower.step(PeerStatus(b"silent", 40))
        follower.run(draw)
        assert follower.head.header.number == 40, f"seed {seed}"
        assert not {b"good", b"also good"} & set(follower.dropped)
        assert follower.syncer.highest == 40


def test_a_forged_certificate_or_a_failed_execution_costs_its_peer_everything() -> None:
    council = Council(4)
    chain = make_chain(council, 4)
    follower = Follower(council, POLICY)
    follower.step(PeerStatus(b"bad", 4))
    block, certificate = chain[0]
    seals = (*certificate.seals[:2], council.sign(0, Statement(Kind.COMMIT, 1, 1, block.hash)).signature)
    follower.step(Fetched(b"bad", [(block, Certificate(1, 0, block.hash, seals)), *chain[1:]]))
    assert follower.syncer.next_to_apply(follower.head) is None
    follower.step(Tick())
    assert "bad block" in follower.dropped[b"bad"]
    follower.step(PeerStatus(b"other", 4))
    assert follower.asked[-1] == Fetch(b"other", 1, 4), "all of it is asked again, of another"
    follower.step(Fetched(b"other", chain))
    assert follower.syncer.next_to_apply(follower.head) is not None
    ready = follower.step(Failed(b"other", "state root differs"))
    assert [drop.peer for drop in ready.drop] == [b"other"]
    assert follower.syncer.next_to_apply(follower.head) is None


def test_waits_a_little_for_consensus_to_bring_the_newest_block() -> None:
    council = Council(4)
    chain = make_chain(council, 2)
    follower = Follower(council, POLICY)
    follower.step(PeerStatus(b"peer", 1))
    assert follower.asked == []
    follower.now_ms = POLICY.grace_ms - 1
    follower.step(Tick())
    assert follower.asked == []
    assert follower.syncer.deadline_ms() == POLICY.grace_ms
    follower.now_ms = POLICY.grace_ms
    follower.step(Tick())
    assert follower.asked == [Fetch(b"peer", 1, 1)]
    follower.step(Fetched(b"peer", chain[:1]))
    follower.apply()
    assert follower.head.header.number == 1
    assert follower.syncer.deadline_ms() is None


def test_unasked_blocks_are_taken_within_the_window() -> None:
    council = Council(4)
    chain = make_chain(council, 20)
    follower = Follower(council, POLICY)
    follower.step(Fetched(b"stranger", chain[14:16]))
    follower.step(Fetched(b"stranger", chain[:2]))
    follower.apply()
    assert follower.head.header.number == 2
    follower.step(Fetched(b"stranger", [chain[2], chain[4]]))
    assert b"stranger" in follower.dropped, "a gap in a range"


def test_a_late_peer_is_asked_no_more_after_three_strikes_and_others_fill_in() -> None:
    council = Council(4)
    follower = Follower(council, POLICY)
    follower.step(PeerStatus(b"late", 4))
    for _ in range(3):
        assert follower.dropped == {}
        follower.now_ms += POLICY.deadline_ms
        follower.step(Tick())
    assert "did not answer" in follower.dropped[b"late"]
    follower.step(PeerStatus(b"gone", 4))
    follower.step(PeerGone(b"gone"))
    follower.step(PeerStatus(b"there", 4))
    assert follower.asked[-1] == Fetch(b"there", 1, 4)


def test_held_bytes_are_bounded() -> None:
    council = Council(4)
    chain = make_chain(council, 10)
    follower = Follower(council, SyncPolicy(window_bytes_max=chain[0][0].bytes_count * 2))
    follower.step(Fetched(b"peer", chain[1:10]))
    follower.step(PeerStatus(b"peer", 10))
    assert follower.asked == [Fetch(b"peer", 1, 1)], "only the next block while so much is held"
    follower.peers = {b"peer": chain}
    follower.run(random.Random(1))
    assert follower.head.header.number == 10


def test_one_liar_neither_raises_the_height_nor_holds_the_next_block_back() -> None:
    council = Council(4)
    follower = Follower(council, POLICY)
    chain = make_chain(council, 3)
    liar, honest = sorted(council.validators[1:3])  # the liar is asked first
    follower.peers = {honest: chain}
    follower.step(PeerStatus(liar, 2**62))
    assert follower.syncer.credible_height(council.validators) == 0
    follower.step(PeerStatus(honest, 3))
    assert follower.syncer.credible_height(council.validators) == 3
    follower.run(random.Random(1))
    assert follower.head.header.number == 3
    assert follower.now_ms < POLICY.deadline_ms * POLICY.strikes_max + POLICY.impatience_ms * 4


def test_the_next_block_is_asked_of_another_after_a_while_and_of_one_at_a_time() -> None:
    council = Council(4)
    follower = Follower(council, POLICY)
    silent, first, second = sorted(council.validators[1:4])
    for peer in (silent, first, second):
        follower.step(PeerStatus(peer, 2))
    assert [fetch.peer for fetch in follower.asked] == [silent]
    for peer in (first, second):
        deadline = follower.syncer.deadline_ms()
        assert deadline == follower.now_ms + POLICY.impatience_ms
        follower.now_ms = deadline
        follower.step(Tick())
        assert (follower.asked[-1].peer, follower.asked[-1].from_height) == (peer, 1)
    deadline = follower.syncer.deadline_ms()
    assert deadline is not None
    assert deadline > follower.now_ms


def test_who_failed_often_is_not_asked_while_another_can_be_also_after_it_came_back() -> None:
    council = Council(4)
    follower = Follower(council, POLICY)
    bad, good = sorted(council.validators[1:3])
    for _ in range(POLICY.faults_max + 1):
        follower.step(PeerStatus(bad, 9))
        follower.step(Failed(bad, "served a block that is not valid"))
    follower.asked.clear()
    follower.step(PeerStatus(bad, 9))
    assert [fetch.peer for fetch in follower.asked] == [bad]  # nobody else speaks of more
    follower.step(PeerGone(bad))
    follower.asked.clear()
    follower.step(PeerStatus(good, 9))
    follower.step(PeerStatus(bad, 9))
    assert {fetch.peer for fetch in follower.asked} == {good}
