"""A reader of .ticket files written from docs/format.md alone: it shares no line with the library.

It needs numpy and zstandard. `python tests/format/independent_reader.py FILE` prints digest and density.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
from typing import Any

import numpy as np
import zstandard


def philox(counters: Any, seed: int) -> Any:
    c = [counters[:, i].astype(object) for i in range(4)]
    k = [seed % 2**32, seed // 2**32]
    for _ in range(10):
        a, b = c[0] * 0xD2511F53, c[2] * 0xCD9E8D57
        c = [(b >> 32) ^ c[1] ^ k[0], b % 2**32, (a >> 32) ^ c[3] ^ k[1], a % 2**32]
        k = [(k[0] + 0x9E3779B9) % 2**32, (k[1] + 0xBB67AE85) % 2**32]
    return np.stack([word.astype(np.uint64) for word in c], axis=1)


def draw(law: str, shape: list[int], seed: int, t: int, kept: Any) -> Any:
    if law in ("zeros", "ones"):
        return np.full(len(kept), float(law == "ones"), np.float32)
    field = math.prod(shape[2:])
    fan_in, fan_out = shape[1] * field, shape[0] * field
    fan = fan_in + fan_out if law.startswith("glorot") else fan_in
    normal = law.endswith("normal")
    block = kept // (2 if normal else 4)
    columns = [block % 2**32, block // 2**32, np.full_like(block, t), np.full_like(block, 0x494E4954)]
    words, row = philox(np.stack(columns, axis=1), seed), np.arange(len(kept))
    if normal:
        u, v = ((words[row, 2 * (kept % 2) + i].astype(float) + 0.5) / 2**32 for i in (0, 1))
        return (math.sqrt(2 / fan) * (np.sqrt(-2 * np.log(u)) * np.cos(2 * math.pi * v))).astype(np.float32)
    w = words[row, kept % 4].astype(np.int64)
    if law == "kaiming_signed_constant":
        return np.where(w >> 31, 1, -1).astype(np.float32) * np.float32(math.sqrt(2 / fan))
    bound = np.float32(1 / math.sqrt(fan) if law == "torch_default" else math.sqrt(6 / fan))
    return (bound * (2 * (w >> 8) + 1 - 2**24).astype(np.float32)) * np.float32(2.0**-24)


def torch_values(initial: dict[str, Any], shapes: dict[str, list[int]]) -> dict[str, Any]:
    """The values of the scheme torch-cpu/1, flat."""
    key = [int(initial["seed"]) % 2**32]
    for i in range(1, 624):
        key.append((1812433253 * (key[-1] ^ (key[-1] >> 30)) + i) % 2**32)
    generator = np.random.MT19937()
    generator.state = {"bit_generator": "MT19937", "state": {"key": np.array(key, np.uint32), "pos": 624}}
    laws = initial["laws"]
    values = {n: np.full(math.prod(s), float(laws[n] == "ones"), np.float32) for n, s in shapes.items()}
    drawing = [name.removesuffix(".weight") for name, law in laws.items() if law == "torch_default"]
    layers = initial.get("order", [n[:-7] for n in shapes if n.endswith(".weight") and n[:-7] in drawing])
    for name in (f"{layer}.{part}" for layer in layers for part in ("weight", "bias")):
        if name in shapes:
            fan_in = math.prod(shapes[name.rpartition(".")[0] + ".weight"][1:])
            kaiming = math.sqrt(3) * (math.sqrt(2 / (1 + math.sqrt(5) ** 2)) / math.sqrt(fan_in))
            b = float(np.float32(kaiming if name.endswith("weight") else 1 / math.sqrt(fan_in)))
            x = (generator.random_raw(values[name].size) % 2**24).astype(float) / 2**24
            values[name] = (2 * b * x - b).astype(np.float32)
    return values


def parameter_shapes(architecture: dict[str, Any]) -> dict[str, list[int]]:
    """Linear, convolution and batch norm: what this reader knows."""
    shapes = {}
    for node in architecture["nodes"]:
        if node["op"] in ("linear", "conv2d", "conv1d"):
            kernel = node.get("kernel", [])
            dimensions = {"linear": 0, "conv1d": 1, "conv2d": 2}[node["op"]]
            kernel = [kernel] * dimensions if isinstance(kernel, int) else kernel
            shapes[node["name"] + ".weight"] = [node["out"], node["in"] // node.get("groups", 1), *kernel]
            if node.get("bias", True):
                shapes[node["name"] + ".bias"] = [node["out"]]
        elif node["op"] == "batch_norm":
            shapes |= {f"{node['name']}.{part}": [node["channels"]] for part in ("weight", "bias")}
    return shapes


def read_mask(entry: dict[str, Any], frame: bytes, total: int) -> Any:
    body = zstandard.ZstdDecompressor().decompress(frame, max_output_size=total + 8)
    mask = np.zeros(total, bool)
    if entry["encoding"] == "bits":
        mask = np.unpackbits(np.frombuffer(body, np.uint8))[:total].astype(bool)
    else:
        place, gap = -1, 0
        for byte in body:
            gap += byte
            if byte < 255:
                place, gap = place + gap + 1, 0
                mask[place] = True
    assert mask.sum() == entry["kept"]
    assert hashlib.sha256(np.packbits(mask).tobytes()).hexdigest() == entry["sha256"]
    return mask


def read(data: bytes) -> dict[str, Any]:
    """Manifest, masks, full initial values (pruned = 0), density and digest of a ticket file."""
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    manifest = json.loads(header.pop("__metadata__")["manifest"])
    body = {name: data[end + e["data_offsets"][0] : end + e["data_offsets"][1]] for name, e in header.items()}
    initial, masks, values, weights = manifest["initial"], {}, {}, []
    norms = [node["name"] for node in manifest["architecture"]["nodes"] if node["op"] == "layer_norm"]
    shapes = parameter_shapes(manifest["architecture"])
    replayed = torch_values(initial, shapes) if initial.get("scheme") == "torch-cpu/1" else {}
    for t, (name, shape) in enumerate(shapes.items()):
        mask = np.ones(math.prod(shape), bool)
        if name in manifest["masks"]:
            mask = masks[name] = read_mask(manifest["masks"][name], body["mask/" + name], mask.size)
        kept, full = np.flatnonzero(mask), np.zeros(mask.size, np.float32)
        if initial["kind"] == "seeded" and replayed:
            full[kept] = replayed[name][kept]
        elif initial["kind"] == "seeded":
            law = initial["laws"][name]
            fans = shapes[name[:-4] + "weight"] if law == "torch_default" and len(shape) == 1 else shape
            full[kept] = draw(law, fans, int(initial["seed"]), t, kept)
        else:
            stored = np.frombuffer(body["initial/" + name], "<f4")
            full[kept] = stored[kept] if len(stored) == mask.size else stored
        assert hashlib.sha256(full.astype("<f4").tobytes()).hexdigest() == initial["sha256"][name], name
        values[name] = full.reshape(shape)
        weights += [mask] * (len(shape) > 1 and name.rpartition(".")[0] not in norms)
    identity = {
        "architecture": {k: v for k, v in manifest["architecture"].items() if k != "name"},
        "prunable": manifest["prunable"],
        "masks": {name: e["sha256"] for name, e in manifest["masks"].items() if not masks[name].all()},
        "initial": initial["sha256"],
        "rewind_step": initial["rewind_step"],
    }
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    found = {"manifest": manifest, "masks": masks, "values": values, "density": np.hstack(weights).mean()}
    return found | {"digest": "sha256:" + hashlib.sha256(text.encode()).hexdigest()}


if __name__ == "__main__":
    print({name: read(open(sys.argv[1], "rb").read())[name] for name in ("digest", "density")})  # noqa: SIM115
