"""A task's metadata as Croissant 1.0, the JSON-LD of data sets that search engines and loaders read.

Reference: http://mlcommons.org/croissant/1.0
"""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import quote

from app.db import Json
from app.settings import Settings
from nirvana.tasks.catalogue import SOURCE_FILES, TASKS
from nirvana.tasks.task import PARTS

MEDIA_TYPE = "application/ld+json"
CONFORMS = "http://mlcommons.org/croissant/1.0"
CONTEXT: Json = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
_SPLIT_TYPES = {"train": "cr:TrainingSplit", "validation": "cr:ValidationSplit", "test": "cr:TestSplit"}


def describe_data(task: Json, settings: Settings) -> Json:
    """Return a task's Croissant document. Sealed rows are in no distribution, so it names none.

    Args:
        task: as `app.tasks.service.get_task` shows it.
    """
    name, address = task["name"], f"{settings.public_url}/tasks/{quote(task['name'])}"
    files = list(_files(task, settings)) if task["removed_at"] is None else []
    document: Json = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "@id": address,
        "conformsTo": CONFORMS,
        "name": name.replace("/", "-"),
        "alternateName": task["title"],
        "description": task["description"],
        "url": address,
        "sameAs": task["source"] if task["source"].startswith(("http://", "https://")) else address,
        "license": task["license"],
        "version": "1.0.0",
        "keywords": ["classification", "lottery ticket", "sparse networks"],
        "isLiveDataset": False,
        "citeAs": f"{task['title']}, {name}, {address}",
        "distribution": files,
        "recordSet": [_classes(task), _splits(task), *_examples(task, files)],
    }
    if task["owner"]:
        document["creator"] = {"@type": "sc:Person", "name": task["owner"]}
    return document


def _files(task: Json, settings: Settings) -> Iterator[Json]:
    """Yield the files of a task's public examples; those of the library with their publisher's address."""
    name = task["name"]
    if task["owner"]:
        address = f"{settings.public_url}/api/v1/tasks/{quote(name)}/data"
        yield _file("data.npz", address, "application/x-npz") | {"sha256": task["data_sha256"]}
        return
    for home, source in ((home, one) for home in TASKS[name].homes[:1] for one in SOURCE_FILES.get(name, ())):
        kind, _, digest = source.checksum.partition(":")
        yield _file(source.name, f"{home}/{source.name}", "application/gzip") | {kind: digest}


def _file(name: str, address: str, media_type: str) -> Json:
    same = {"@type": "cr:FileObject", "@id": name, "name": name}
    return same | {"contentUrl": address, "encodingFormat": media_type}


def _classes(task: Json) -> Json:
    rows = [
        {"classes/index": index, "classes/name": label} for index, label in enumerate(task["class_names"])
    ]
    fields = [_field("classes", "index", "sc:Integer"), _field("classes", "name", "sc:Text")]
    return _record_set("classes", fields, "classes/index", rows) | {"dataType": "sc:Enumeration"}


def _splits(task: Json) -> Json:
    rows = [
        {"splits/name": part, "splits/rows": task["sizes"][part], "splits/url": _SPLIT_TYPES[part]}
        for part in PARTS
    ]
    fields = [
        _field("splits", "name", "sc:Text"),
        _field("splits", "rows", "sc:Integer"),
        _field("splits", "url", "sc:URL"),
    ]
    return _record_set("splits", fields, "splits/name", rows) | {
        "dataType": "cr:Split",
        "description": task["split"],
    }


def _record_set(name: str, fields: list[Json], key: str, rows: list[Json]) -> Json:
    same = {"@type": "cr:RecordSet", "@id": name, "name": name}
    return same | {"key": {"@id": key}, "field": fields, "data": rows}


def _field(record_set: str, name: str, kind: str) -> Json:
    return {"@type": "cr:Field", "@id": f"{record_set}/{name}", "name": name, "dataType": kind}


def _examples(task: Json, files: list[Json]) -> Iterator[Json]:
    """Yield the record set of what is in data.npz, for a task that was made here."""
    if not task["owner"] or not files:
        return
    shape = "x".join(map(str, task["input_shape"]))
    texts = {
        "x": (f"array x of the file, (rows, {shape}): values as they were uploaded", "sc:Float"),
        "y": ("array y of the file, (rows,): the class's index", "sc:Integer"),
        "part": ("array part of the file, (rows,): 0 train, 1 validation, 2 test", "sc:Integer"),
    }
    fields = [
        _field("examples", name, kind)
        | {"description": text, "repeated": name == "x"}
        | {"source": {"fileObject": {"@id": "data.npz"}, "extract": {"fileProperty": "content"}}}
        for name, (text, kind) in texts.items()
    ]
    fields[1]["references"] = {"field": {"@id": "classes/index"}}
    yield {"@type": "cr:RecordSet", "@id": "examples", "name": "examples", "field": fields}
