"""REST routes of dumps: what there are, and their files."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from pydantic import Field

from app.db import Json
from app.dependencies import Name, SettingsDep, StorageDep
from app.dumps.writing import find_dump_file, list_dumps
from app.schemas import Instant, ResponseModel, binary, example, problems
from app.tickets.files.serving import Download, exits_of, serve

router = APIRouter(tags=["dumps"])
_FILE: Json = {"sha256": "5f" * 32, "size_bytes": 123456, "rows": 120}
_DUMP: Json = {
    "name": "2026-11-28-1204",
    "serial": 1204,
    "created_at": "2026-11-28T03:17:00Z",
    "files": {"tickets.jsonl": _FILE},
}


class DumpFile(ResponseModel):
    """A file of a dump."""

    model_config = ResponseModel.model_config | example(**_FILE)
    sha256: str
    size_bytes: int
    rows: int


class Dump(ResponseModel):
    """Everything that was public at one moment."""

    model_config = ResponseModel.model_config | example(**_DUMP)
    name: str
    serial: int = Field(description="the last change that is in it: `changes?since=` has the rest")
    created_at: Instant
    files: dict[str, DumpFile] = Field(description="each at /api/v1/dumps/{name}/{file}")


class DumpPage(ResponseModel):
    """The dumps that are kept, the newest first."""

    model_config = ResponseModel.model_config | example(items=[_DUMP], next_cursor=None)
    items: list[Dump]
    next_cursor: str | None = None


@router.get("/dumps", operation_id="list_dumps")
def get_dumps(storage: StorageDep) -> DumpPage:
    """The dumps that are kept: one a day, made by a worker."""
    return DumpPage(items=[Dump.model_validate(manifest) for manifest in list_dumps(storage)])


@router.get("/dumps/{dump}/{file}", operation_id="get_dump_file", response_class=Response, responses={
    200: binary("application/octet-stream", "The file; its ETag is the sha256 of its bytes."),
    206: binary("application/octet-stream", "The range that was asked for."),
    304: {"description": "Not modified"},
    **problems(404, 416),
})  # fmt: skip
def get_dump_file(
    request: Request, dump: Name, file: Name, storage: StorageDep, settings: SettingsDep
) -> Response:
    """A file of a dump, or its `manifest.json`."""
    key, sha256 = find_dump_file(storage, dump, file)
    download = Download(key, f"sha256:{sha256}", "application/octet-stream", f"{dump}-{file}")
    return serve(request, storage, download, exits_of(settings))
