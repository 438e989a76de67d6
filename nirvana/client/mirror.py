"""A copy of a registry in a folder: every public listing, its file, its verdicts and their signatures, and
the tasks that people made there, without their sealed rows.

    DIR/mirror.json                 the registry's address, and the serial of the last change that is here
    DIR/keys.json                   the public keys that its verdicts are signed with
    DIR/listings/7.json             listing number 7: {"ticket", "evaluations", "attestations", "transfers",
                                    "signed"}
    DIR/blobs/tickets/ab/ab....ticket   a ticket file, under the sha256 of its bytes
    DIR/tasks/ada@flowers.json      the task ada/flowers
    DIR/blobs/tasks/ab....npz       its public examples, under the sha256 of its name

It follows the log of changes, page by page, and writes the serial after each page, so that a mirror that was
killed goes on where it was. Nothing is kept that was not checked: files by their sha256 and by the ticket's
digest, verdicts by their signatures. Tasks are in no log: each run asks what has become of every one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from nirvana.client.cache import DIGEST, NAME
from nirvana.client.rest import Client
from nirvana.client.signatures import check_signature
from nirvana.errors import Conflict, DataDamaged, Gone, InvalidSignature, InvalidTicket, NotFound
from nirvana.errors import JsonObject as Json
from nirvana.files import write_atomically
from nirvana.format.ticket import Ticket
from nirvana.tasks.own import SHARED_NAME

FORMAT = "nirvana.mirror/1"
HEXADECIMAL = re.compile(r"[0-9a-f]{64}")
TASK_KEY = 36  # digits, of a column of the service
OnChange = Callable[[str], None]


@dataclass
class Counts:
    """What one run of a mirror did."""

    listings: int = 0
    files: int = 0
    verdicts: int = 0
    tasks: int = 0
    removed: int = 0
    bytes: int = 0


@dataclass
class Mirror:
    """A mirror in a folder.

    Attributes:
        counts: of this run.
    """

    folder: Path
    counts: Counts = field(default_factory=Counts)

    def follow(self, client: Client, on_change: OnChange = lambda _: None) -> int:
        """Bring the mirror up to date; return the serial that it has then.

        Raises:
            Conflict: the folder mirrors another registry.
            InvalidTicket, InvalidSignature: the registry sent a file or a verdict that is not what it says.
            DataDamaged: it sent names or numbers that are none, or other data of a task.
            NetworkError: the registry was not reached; call it again to go on.
        """
        serial = self._open(client.endpoint)
        while True:
            page = client.changes(serial)
            if page["has_more"] and page["last_serial"] <= serial:
                raise DataDamaged(f"{client.endpoint} has more changes, and none after {serial}.")
            keys = client.keys()
            for listing, change in _last_of_each(page["items"]).items():
                _check_change(change)
                on_change(f"{change['serial']}: {change['owner'] or 'listing'}/{change['name'] or listing}")
                self._take(client, listing, change, keys)
            serial = int(page["last_serial"])
            _write(self.folder / "keys.json", keys)
            _write(self.state_file, {"format": FORMAT, "registry": client.endpoint, "serial": serial})
            if not page["has_more"]:
                self._take_tasks(client, on_change)
                return serial

    @property
    def state_file(self) -> Path:
        return self.folder / "mirror.json"

    def state(self) -> Json:
        """Return the mirror's registry and serial.

        Raises:
            NotFound: the folder holds no mirror.
            DataDamaged: it holds one of another format.
        """
        if not self.state_file.is_file():
            raise NotFound(f"{self.folder} holds no mirror: there is no {self.state_file.name} in it.")
        state = read_object(self.state_file)
        if state.get("format") != FORMAT:
            raise DataDamaged(f"{self.state_file} has the format {state.get('format')!r}, expected {FORMAT}.")
        return state

    def listings(self) -> Iterator[tuple[int, Json]]:
        """Yield each listing's number and record, by number. Raises: DataDamaged."""
        for path in sorted((self.folder / "listings").glob("*.json"), key=lambda path: int(path.stem)):
            yield int(path.stem), read_object(path)

    def file(self, digest: str) -> Path:
        """Return the path of a file, by the sha256 of its bytes."""
        hexadecimal = digest.removeprefix("sha256:")
        return self.folder / "blobs" / "tickets" / hexadecimal[:2] / f"{hexadecimal}.ticket"

    def tasks(self) -> Iterator[Json]:
        """Yield the record of each task that somebody made, by name. Raises: DataDamaged."""
        for path in sorted((self.folder / "tasks").glob("*.json")):
            yield read_object(path)

    def task_data(self, task: Json) -> Path:
        """Return the path of a task's public examples."""
        return self.folder / "blobs" / "tasks" / f"{task_key(task)}.npz"

    def check(self) -> Iterator[str]:
        """Read everything again; yield what is damaged, in words."""
        keys = read_object(self.folder / "keys.json")
        for number, record in self.listings():
            name = full_name(record["ticket"])
            try:
                check_file(record["ticket"], self.file(record["ticket"]["file_sha256"]).read_bytes())
                check_verdicts(record, keys)
            except (OSError, InvalidTicket, InvalidSignature) as error:
                yield f"listing {number} ({name}): {error}"
        for task in self.tasks():
            try:
                if task["removed_at"] is None:
                    check_task_data(task, self.task_data(task).read_bytes())
            except (OSError, DataDamaged) as error:
                yield f"task {task['name']}: {error}"

    def _open(self, endpoint: str) -> int:
        if not self.state_file.exists():
            return 0
        state = self.state()
        if state["registry"] != endpoint:
            raise Conflict(f"{self.folder} mirrors {state['registry']}, and this is {endpoint}.")
        return int(state["serial"])

    def _take(self, client: Client, listing: int, change: Json, keys: Json) -> None:
        """Take a listing over as it is now, or forget it."""
        path = self.folder / "listings" / f"{listing}.json"
        try:
            if change["name"] is None:
                raise NotFound("it is private now")
            record = read_listing(client, f"{change['owner']}/{change['name']}")
            check_record(record)
            self._keep_file(client, record["ticket"])
        except (NotFound, Gone):  # hidden since the page was read: a later change says so, too
            self.counts.removed += path.exists()
            path.unlink(missing_ok=True)
            return
        check_verdicts(record, keys)
        self.counts.verdicts += len(record["signed"])
        self.counts.listings += 1
        _write(path, record)
        for name in {record["ticket"]["task"], *(one["task"] for one in record["transfers"])}:
            if SHARED_NAME.fullmatch(name) and not self._task_file(name).exists():
                self._take_task(client, name)

    def _keep_file(self, client: Client, ticket: Json) -> None:
        """Download a ticket's file, unless it is here and intact."""
        path = self.file(ticket["file_sha256"])
        if path.is_file():
            try:
                return check_file(ticket, path.read_bytes())
            except InvalidTicket:
                path.unlink()
        content = client.download_file(ticket["file_sha256"])
        check_file(ticket, content)
        write_atomically(path, content)
        self.counts.files += 1
        self.counts.bytes += len(content)

    def _take_tasks(self, client: Client, on_change: OnChange) -> None:
        """Take over every task that somebody made: those that are listed, and of those that are here what has
        become of them."""
        listed = [str(task["name"]) for task in client.tasks() if task.get("owner") is not None]
        for name in dict.fromkeys([*listed, *(str(task["name"]) for task in self.tasks())]):
            if not SHARED_NAME.fullmatch(name):
                raise DataDamaged(f"the registry sent the task {name[:100]!r}, expected owner/name")
            if self._take_task(client, name):
                on_change(f"task {name}")

    def _take_task(self, client: Client, name: str) -> bool:
        """Take a task over as it is now, its data first; return True where something changed. A ticket may
        name a task that nobody made, or whose data go just now."""
        try:
            return self._keep_task(client, name, client.task(name))
        except (NotFound, Gone):
            return False

    def _keep_task(self, client: Client, name: str, shown: Json) -> bool:
        task = {field: value for field, value in shown.items() if field not in ("references", "tickets")}
        check_task(task, name)
        path, data = self._task_file(name), self.task_data(task)
        if task["removed_at"] is not None:  # data that should not be there
            self.counts.removed += data.exists()
            data.unlink(missing_ok=True)
        elif not data.exists():
            content = client.download_task(name)
            check_task_data(task, content)
            write_atomically(data, content)
            self.counts.files += 1
            self.counts.bytes += len(content)
        if path.exists() and read_object(path) == task:
            return False
        self.counts.tasks += 1
        _write(path, task)
        return True

    def _task_file(self, name: str) -> Path:
        return self.folder / "tasks" / f"{name.replace('/', '@')}.json"


def task_key(task: Json) -> str:
    """Return the name of a task's file of public examples, without its suffix."""
    return sha256(str(task["name"]).encode()).hexdigest()[:TASK_KEY]


def check_task(task: Json, name: str) -> None:
    """Check the names of a task's record. Raises: DataDamaged."""
    if task["name"] != name or not HEXADECIMAL.fullmatch(str(task["data_sha256"])):
        found = f"{task['name']!r} with the data {task['data_sha256']!r}"
        raise DataDamaged(f"the registry sent the task {found}, expected {name}")


def check_task_data(task: Json, content: bytes) -> None:
    """Check that these are the bytes of a task's public examples. Raises: DataDamaged."""
    found, expected = sha256(content).hexdigest(), task["data_sha256"]
    if found != expected:
        raise DataDamaged(f"the data of {task['name']} have the sha256 {found}, expected {expected}")


def read_listing(client: Client, name: str) -> Json:
    """Return all that a registry says of a listing. Raises: NotFound, Gone, NetworkError."""
    evaluations = list(client.evaluations(name))
    signed = {str(one["id"]): client.signed_verdict(name, one["id"]) for one in evaluations}
    record = {"evaluations": evaluations, "signed": signed, "attestations": list(client.attestations(name))}
    return {"ticket": client.ticket(name), "transfers": list(client.transfers(name))} | record


def _check_change(change: Json) -> None:
    """Check what becomes a path or an address: a registry is not believed. Raises: DataDamaged."""
    is_named = change["name"] is None or NAME.match(f"{change['owner']}/{change['name']}")
    if type(change["listing"]) is not int or not is_named:
        raise DataDamaged(f"the registry sent the listing {change['listing']!r} as {change['name']!r}")


def check_record(record: Json) -> None:
    """Check the names and numbers of a listing's record. Raises: DataDamaged."""
    ticket = record["ticket"]
    is_named = NAME.match(full_name(ticket)) and DIGEST.match(ticket["digest"])
    numbers = [one["id"] for one in record["evaluations"]]
    if not is_named or not DIGEST.match(ticket["file_sha256"]) or {type(one) for one in numbers} - {int}:
        raise DataDamaged(f"the registry sent {full_name(ticket)!r} with the file {ticket['file_sha256']!r}")


def check_file(ticket: Json, content: bytes) -> None:
    """Check that these are a listing's bytes and hold its ticket. Raises: InvalidTicket."""
    digest = f"sha256:{sha256(content).hexdigest()}"
    if digest != ticket["file_sha256"]:
        raise InvalidTicket(f"{full_name(ticket)}: found {digest}, expected {ticket['file_sha256']}")
    received = Ticket.from_bytes(content).digest
    if received != ticket["digest"]:
        raise InvalidTicket(f"{full_name(ticket)}: it holds {received}, expected {ticket['digest']}")


def check_verdicts(record: Json, keys: Json) -> None:
    """Check that every evaluation was signed as it is shown. Raises: InvalidSignature."""
    for evaluation in record["evaluations"]:
        signed = record["signed"].get(str(evaluation["id"]), {})
        if check_signature(signed, keys)["evaluation"] != evaluation:
            name = full_name(record["ticket"])
            raise InvalidSignature(f"{name}: verification {evaluation['id']} is not what was signed")


def full_name(ticket: Mapping[str, object]) -> str:
    """Return owner/name."""
    return f"{ticket['owner']}/{ticket['name']}"


def read_object(path: Path) -> Json:
    """Return the JSON object in a file. Raises: DataDamaged."""
    try:
        return dict(json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError) as error:
        raise DataDamaged(f"{path} cannot be read: {error}") from None


def _last_of_each(changes: list[Json]) -> dict[int, Json]:
    """Return listing -> its last change: what it is now is asked for once."""
    return {change["listing"]: change for change in changes}


def _write(path: Path, content: Json) -> None:
    write_atomically(path, json.dumps(content, indent=1).encode())
