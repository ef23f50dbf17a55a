"""One folder of journal segments on disk: replay at start, append with sync, rotation, deletion of what is settled."""

import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gateway.disk import Disk
from gateway.journal_format import (
    FIRST_LINK,
    Accepted,
    JournalCorrupt,
    Place,
    Rejected,
    Scan,
    Settled,
    Start,
    decode_body,
    encode_start,
    frame,
    scan,
)
from gateway.records import Anchor, Ballot, Record
from node.chain.domain import Domain

SEGMENT_BYTES = 32 << 20
SEGMENTS_KEPT = 2

_NAME = re.compile(r"^(\d{12})\.journal$")

RecordKey = bytes | tuple[str, bytes, bytes]


def record_key(record: Record) -> RecordKey:
    """What a record is known by: written down twice under one key, it is still one record."""
    if isinstance(record, Ballot):
        return record.nullifier
    if isinstance(record, Anchor):
        return "anchor", record.batch_id, b""
    return "call", record.to, record.data


@dataclass(slots=True)
class Replayed:
    """One record found in the journal, with its end if it has one. `outcome` is None while it is pending.

    `others`: record ids under which a ballot was written down before it was found that an equal one stands.
    """

    accepted: Accepted
    segment: int
    place: Place | None = None
    outcome: int | None = None
    index: int = 0
    reason: str | None = None
    others: tuple[bytes, ...] = ()

    @property
    def pending(self) -> bool:
        return self.place is None and self.reason is None


@dataclass(slots=True)
class Replay:
    """All records of the kept segments, by key, in the order in which they were accepted."""

    records: dict[RecordKey, Replayed] = field(default_factory=dict)
    next_segment: int = 0
    next_sequence: int = 0
    link: bytes = FIRST_LINK


class Journal:
    """Appends groups of entries durably. Blocking, for one thread at a time; nothing here knows what is acknowledged.

    Each opening and each full segment begins a new file, so that no byte once written is ever touched again.
    """

    def __init__(
        self,
        folder: Path,
        domain: Domain,
        *,
        disk: Disk,
        segment_bytes: int = SEGMENT_BYTES,
        segments_kept: int = SEGMENTS_KEPT,
        salt: Callable[[], int] = lambda: secrets.randbits(32),
    ) -> None:
        """Reads the folder and writes nothing. Raises JournalCorrupt, or OSError when it cannot be read."""
        self.folder = folder
        self._domain = domain
        self._disk = disk
        self._segment_bytes = segment_bytes
        self._segments_kept = segments_kept
        self._salt = salt
        self.replay = replay_folder(folder, domain, disk)
        self._segment = self.replay.next_segment  # the number of the next file to be made
        self._link = self.replay.link
        self.next_sequence = self.replay.next_sequence
        self._descriptor: int | None = None
        self._salted = 0  # the open file's salt
        self._written = 0
        # How many records of each kept segment are not settled; in the order of the segments.
        self._unsettled = dict.fromkeys(self._numbers(), 0)
        self._segment_of: dict[int, int] = {}  # sequence → segment, of unsettled records
        for replayed in self.replay.records.values():
            if replayed.pending:
                self._note_accepted((replayed.accepted.sequence,), replayed.segment)

    def _numbers(self) -> list[int]:
        return sorted(segment_numbers(self._disk.names(self.folder)))

    def _note_accepted(self, sequences: Sequence[int], segment: int) -> None:
        self._segment_of.update(dict.fromkeys(sequences, segment))
        self._unsettled[segment] += len(sequences)

    def write(self, entries: Sequence[bytes], *, accepted: int, settled: Sequence[int]) -> None:
        """Append one group and sync it; `accepted` of its entries get the next sequences, `settled` ones are done with.

        Raises OSError when it is not durable: the file is then given up, for what a failed sync left in it is unknown,
        and the next write begins a new one that follows the last group that was synced.
        """
        if self._descriptor is not None and self._written >= self._segment_bytes:
            self._end_segment()
        try:
            self._append(entries)
        except OSError:
            self._end_segment()
            raise
        self._note_accepted(range(self.next_sequence, self.next_sequence + accepted), self._segment - 1)
        self.next_sequence += accepted
        for sequence in settled:
            owner = self._segment_of.pop(sequence, None)
            if owner is not None:
                self._unsettled[owner] -= 1
        self._delete_settled()

    def _append(self, entries: Sequence[bytes]) -> None:
        if self._descriptor is None:
            self._begin_segment()
        if self._descriptor is None:
            raise RuntimeError("no journal segment is open")
        data, link = frame(entries, self._link, self._salted)
        self._disk.write(self._descriptor, data)
        self._disk.sync(self._descriptor)
        self._written += len(data)
        self._link = link

    def _begin_segment(self) -> None:
        """Make the next file with its START, synced before any group follows it."""
        number, salt = self._segment, self._salt()
        self._segment += 1  # used up whatever happens below: a file that could not be synced keeps its number
        self._descriptor = self._disk.create(self.folder / segment_name(number))
        self._unsettled[number] = 0
        start = Start(self._domain, number, self.next_sequence, salt, self._link)
        data, link = frame([encode_start(start)], self._link, 0)
        self._disk.write(self._descriptor, data)
        self._disk.sync(self._descriptor)
        self._disk.sync_folder(self.folder)
        self._written, self._link, self._salted = len(data), link, salt

    def _end_segment(self) -> None:
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            self._disk.close(descriptor)

    def _delete_settled(self) -> None:
        """Delete the oldest segments while there are more than are kept and nothing in them waits."""
        while len(self._unsettled) > self._segments_kept + 1:
            oldest = next(iter(self._unsettled))
            if self._unsettled[oldest]:
                break
            try:
                self._delete(oldest)
            except OSError:
                break  # what cannot be deleted is in nobody's way, and the next group tries again

    def _delete(self, number: int) -> None:
        """Delete the oldest segment. The deletions before it are made durable first: a gap would look like damage."""
        self._disk.sync_folder(self.folder)
        self._disk.unlink(self.folder / segment_name(number))
        self._unsettled.pop(number, None)

    def forget_unsettled(self, *, before: int) -> None:
        """Count no record with a sequence below `before` as waiting any more: each is written down elsewhere, synced.

        Only then may a segment that holds it be deleted.
        """
        for sequence in [each for each in self._segment_of if each < before]:
            self._unsettled[self._segment_of.pop(sequence)] -= 1

    def clear(self) -> None:
        """Delete every segment, oldest first: what they hold is kept elsewhere, synced."""
        self._end_segment()
        self.forget_unsettled(before=self.next_sequence)  # before the first deletion, since the next one may fail
        for number in self._numbers():
            self._delete(number)
        self._disk.sync_folder(self.folder)

    def close(self) -> None:
        self._end_segment()


def segment_name(number: int) -> str:
    return f"{number:012d}.journal"


def segment_numbers(names: Sequence[str]) -> list[int]:
    """The numbers of the segments among these file names."""
    return [int(match[1]) for name in names if (match := _NAME.match(name))]


def replay_folder(folder: Path, domain: Domain, disk: Disk) -> Replay:
    """What the segments of a folder say. Raises JournalCorrupt on damage, gaps, or another network's journal."""
    replay = Replay()
    numbers = sorted(segment_numbers(disk.names(folder)))
    if not numbers:
        return replay
    by_sequence: dict[int, Replayed] = {}
    replay.next_segment = numbers[-1] + 1
    scans = [(number, scan(disk.read(folder / segment_name(number)), segment_name(number))) for number in numbers]
    # A file with a torn START never had a synced group: it is nothing.
    sound = [(number, found) for number, found in scans if found is not None]
    for position, (number, found) in enumerate(sound):
        name, start = segment_name(number), found.start
        if start.domain != domain:
            raise JournalCorrupt(
                f"journal segment {folder / name} is of another network: chain {start.domain.chain_id}"
            )
        if start.segment != number:
            raise JournalCorrupt(f"journal segment {folder / name} says that it is number {start.segment}")
        follower = sound[position + 1][1].start.link if position + 1 < len(sound) else None
        _replay_segment(replay, by_sequence, found, follower, name)
    return replay


def other_ids(before: Replayed, record: Record) -> tuple[bytes, ...]:
    """The other record ids of a ballot that waited when it was written down again; none where it had ended."""
    if not before.pending:
        return ()
    own = before.accepted.record
    if isinstance(own, Ballot) and isinstance(record, Ballot) and own.record_id != record.record_id:
        return (*before.others, own.record_id)
    return before.others


def _replay_segment(
    replay: Replay, by_sequence: dict[int, Replayed], found: Scan, follower: bytes | None, name: str
) -> None:
    """Apply the frames of one segment up to the one that the next segment follows (all, where there is no next)."""
    start, frames = found.start, found.frames
    if follower is not None:
        links = [start.link, *(link for _, link in frames)]
        if follower not in links:
            raise JournalCorrupt(f"the journal segment after {name} follows a frame that {name} does not hold")
        frames = frames[: links.index(follower)]
    replay.next_sequence = start.first_sequence
    replay.link = start.link
    for body, link in frames:
        for entry in decode_body(body, replay.next_sequence, name):
            if isinstance(entry, Accepted):
                replayed = Replayed(entry, start.segment)
                # Written down again, after a failed sync or since an equal ballot stands: the later one counts.
                before = replay.records.pop(record_key(entry.record), None)
                if before is not None:
                    replayed.others = other_ids(before, entry.record)
                replay.records[record_key(entry.record)] = replayed
                by_sequence[entry.sequence] = replayed
                replay.next_sequence = entry.sequence + 1
            elif isinstance(entry, Settled):
                for sequence, outcome, index in entry.items:
                    if (settled := by_sequence.get(sequence)) is not None:
                        settled.place, settled.outcome, settled.index = entry.place, outcome, index
            elif isinstance(entry, Rejected) and (rejected := by_sequence.get(entry.sequence)) is not None:
                rejected.reason = entry.reason
        replay.link = link
