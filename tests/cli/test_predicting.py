"""train --out, predict and export --weights: a ticket that answers."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy import sparse as scipy_sparse

import nirvana
from nirvana import tasks
from nirvana.errors import Invalid
from nirvana.exports import export_ticket
from nirvana.format.initial import default_laws
from nirvana.format.ticket import Ticket
from nirvana.networks import zoo
from nirvana.training.spec import TrainResult
from nirvana.weights import Weights
from tests.cli.running import Run
from tests.cli.test_exports import make_ticket

DIGITS = tasks.get("digits")


@pytest.fixture(scope="module")
def ticket() -> Ticket:
    return make_ticket(steps=200, evaluate_every=100)


@pytest.fixture(scope="module")
def result(ticket: Ticket) -> TrainResult:
    return nirvana.train_ticket(ticket, 3, engine="sparse", keep_weights=True)


@pytest.fixture
def weights(ticket: Ticket, result: TrainResult, tmp_path: Path) -> Path:
    """A file of trained weights."""
    Weights.trained(ticket, result, 3).write(tmp_path / "trained.npz")
    return tmp_path / "trained.npz"


def pixels(n: int = 12) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Raw test digits, (n, 1, 8, 8), and their labels."""
    x, y = tasks.load_raw("digits", "test")
    return x[:n], y[:n]


def classes(answer: dict[str, Any]) -> list[str]:
    return [prediction["class"] for prediction in answer["predictions"]]


# the file of weights


def test_trained_weights_are_read_back_with_all_that_predict_needs(
    ticket: Ticket, result: TrainResult, weights: Path
) -> None:
    read = Weights.read(weights)
    assert result.weights is not None
    assert (read.ticket, read.task, read.architecture) == (ticket.digest, DIGITS, ticket.architecture)
    assert all(np.array_equal(read.values[name], array) for name, array in result.weights.items())
    assert all(np.array_equal(read.masks[name], mask) for name, mask in ticket.masks.items())
    assert read.training is not None
    assert read.training["test_accuracy"] == result.final_test_accuracy
    assert read.to_bytes() == weights.read_bytes()


def test_train_writes_its_weights(ticket: Ticket, tmp_path: Path, run: Run) -> None:
    ticket.write(tmp_path / "a.ticket")
    trained = run.json("train", tmp_path / "a.ticket", "--out", tmp_path / "w.npz", "--seed", "3")
    answer = run.json("predict", tmp_path / "w.npz", "--task", "digits/test")
    assert answer["accuracy"] == pytest.approx(trained["final_test_accuracy"], abs=0.004)
    assert (answer["n"], answer["trained"], answer["ticket"]) == (200, True, ticket.digest)


def test_a_place_for_weights_that_cannot_be_is_refused_before_training(
    ticket: Ticket, tmp_path: Path, run: Run
) -> None:
    ticket.write(tmp_path / "a.ticket")
    for out in (tmp_path / "w.txt", tmp_path / "nowhere" / "w.npz"):
        code, _, err = run("train", tmp_path / "a.ticket", "--out", out)
        assert code == 2
        assert f"--out is {out}, expected a file that ends in .npz in a folder that exists" in err


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"manifest": None}, "no manifest in it"),
        ({"manifest": np.frombuffer(b"{}", np.uint8)}, "its format is None, not 'nirvana.weights/1'"),
        ({"fc1.weight": None}, "the array fc1.weight is missing"),
        ({"other": np.zeros(3, np.float32)}, "the array other belongs to no parameter"),
        (
            {"fc1.bias": np.zeros(3, np.float32)},
            "fc1.bias is float32 of shape [3], expected float32",
        ),
        ({"fc1.bias": np.full(32, np.nan, np.float32)}, "fc1.bias has values that are not finite"),
        (
            {"mask/fc1.weight": np.ones((32, 64))},
            "fc1.weight is float64 of shape [32, 64], expected uint8",
        ),
    ],
)
def test_a_file_that_is_not_of_weights_is_refused(weights: Path, change: dict[str, Any], said: str) -> None:
    with np.load(weights) as arrays:
        changed = {name: arrays[name] for name in arrays.files} | change
    np.savez(weights, **{name: array for name, array in changed.items() if array is not None})
    with pytest.raises(Invalid) as error:
        Weights.read(weights)
    assert said in error.value.detail


def test_a_file_that_is_no_archive_is_refused_in_one_line(tmp_path: Path, run: Run) -> None:
    (tmp_path / "w.npz").write_bytes(b"\x80\x04pickled")
    code, out, err = run("predict", tmp_path / "w.npz", "--task", "digits")
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert "found no trained weights" in err


# predict


@pytest.mark.parametrize("engine", ["sparse", "dense"])
def test_a_split_is_answered_with_its_accuracy(
    weights: Path, result: TrainResult, run: Run, engine: str
) -> None:
    answer = run.json("predict", weights, "--task", "digits/test", "--engine", engine)
    assert answer["engine"] == engine
    assert answer["accuracy"] == pytest.approx(result.final_test_accuracy, abs=0.0021)


def test_both_engines_give_the_same_probabilities(weights: Path, run: Run) -> None:
    found = [
        run.json("predict", weights, "--task", "digits/validation", "--top", "10", "--engine", engine)
        for engine in ("sparse", "dense")
    ]
    for a, b in zip(found[0]["predictions"], found[1]["predictions"], strict=True):
        shares = [{one["class"]: one["probability"] for one in each["top"]} for each in (a, b)]
        assert sum(shares[0].values()) == pytest.approx(1)
        assert shares[0] == pytest.approx(shares[1], abs=1e-5)


def test_arrays_tables_and_images_of_one_example_are_answered_alike(
    weights: Path, tmp_path: Path, run: Run
) -> None:
    x, y = pixels()
    np.save(tmp_path / "x.npy", x[:, 0])
    np.savez(tmp_path / "x.npz", x=x.reshape(-1, 64).astype(np.float32), labels=y)
    header = ",".join([*(f"p{i}" for i in range(64)), "label"])
    rows = [
        ",".join(map(str, [*row, label])) for row, label in zip(x.reshape(-1, 64).tolist(), y, strict=True)
    ]
    (tmp_path / "x.csv").write_text("\n".join([header, *rows]))
    np.save(tmp_path / "shares.npy", x / 16)
    np.save(tmp_path / "standardised.npy", DIGITS.normalise(x))
    images: list[str | Path] = []
    for number, image in enumerate(x[:, 0]):
        images += ["--input", tmp_path / f"{number}.png"]
        Image.fromarray(np.round(image * (255 / 16)).astype(np.uint8)).save(images[-1])
    answers = [
        run.json("predict", weights, *arguments)
        for arguments in (
            ["--input", tmp_path / "x.npy"],
            ["--input", tmp_path / "x.npz", "--batch-size", "5"],
            ["--input", tmp_path / "x.csv", "--batch-size", "10000"],
            ["--input", tmp_path / "shares.npy", "--white", "1"],
            ["--input", tmp_path / "standardised.npy", "--normalised"],
            images,
        )
    ]
    assert all(classes(answer) == classes(answers[0]) for answer in answers)
    share = float(np.mean([name == str(label) for name, label in zip(classes(answers[0]), y, strict=True)]))
    assert answers[1]["accuracy"] == answers[2]["accuracy"] == share
    assert "accuracy" not in answers[0]
    assert answers[5]["predictions"][3]["input"] == str(tmp_path / "3.png")


def test_people_get_a_table_and_the_accuracy(weights: Path, run: Run) -> None:
    code, out, err = run("predict", weights, "--task", "digits", "--rows", "2", "--top", "3")
    assert code == 0
    assert "probability" in out
    assert "of 200 examples" in out
    assert "198 more examples" in err


def test_a_ticket_answers_with_its_initial_values(ticket: Ticket, tmp_path: Path, run: Run) -> None:
    ticket.write(tmp_path / "a.ticket")
    code, out, err = run("predict", tmp_path / "a.ticket", "--task", "digits", "--json")
    assert code == 0
    assert "untrained" in err
    assert json.loads(out)["trained"] is False


NAN = np.full((2, 64), np.nan)


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((0, 64)), "there is no example in it"),
        (np.zeros((3, 63)), "has the shape [3, 63], expected (n, 1, 8, 8)"),
        (NAN, "example 0 has a value that is not finite (2 such)"),
        (np.array([["a"] * 64]), "holds <U1, expected numbers"),
        (np.full((1, 64), 0.5), "values within 0 and 1, expected raw pixels of digits, 0 to 16; --white 1"),
        (
            np.full((1, 64), 200, np.uint8),
            "values up to 200, expected raw pixels of digits, 0 to 16; ",
        ),
        (np.full((1, 64), -0.3), "expected raw pixels of digits, 0 to 16, or --normalised"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(
    weights: Path, tmp_path: Path, run: Run, array: NDArray[Any], said: str
) -> None:
    np.save(tmp_path / "x.npy", array)
    code, out, err = run("predict", weights, "--input", tmp_path / "x.npy")
    assert (code, out) == (2, "")
    assert said in err


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("x.csv", "", "has no row of numbers"),
        ("x.csv", "a,b\n", "has no row of numbers"),
        ("x.csv", "1,2,3\n", "line 1 has 3 fields, expected 64; --label names the column of labels"),
        ("x.csv", "\n".join([",".join("a" * 64), ",".join("1" * 63 + "x")]), "line 2, column 64 is 'x'"),
        ("x.npy", "no array", "found no arrays"),
        ("x.png", "no image", "found no image"),
        ("x.txt", "text", "ends in '.txt', expected one of .npy, .npz"),
    ],
)
def test_files_that_cannot_be_read_are_refused(
    weights: Path, tmp_path: Path, run: Run, name: str, text: str, said: str
) -> None:
    (tmp_path / name).write_text(text)
    code, out, err = run("predict", weights, "--input", tmp_path / name)
    assert (code, out) == (2, "")
    assert said in err


def test_what_predict_cannot_know_is_refused(weights: Path, tmp_path: Path, run: Run) -> None:
    np.savez(tmp_path / "x.npz", x=np.ones((2, 64), np.uint8), y=np.array([3, 11]))
    np.savez(tmp_path / "two.npz", a=np.ones((2, 64)), b=np.ones((2, 64)))
    refused = {
        (): (2, "expected either --input FILE or --task NAME/SPLIT"),
        ("--task", "digits/holdout"): (2, "split is 'holdout', expected one of train, validation, test"),
        ("--task", "mnist"): (2, "mnist has inputs of [1, 28, 28] and 10 classes, expected [1, 8, 8] and 10"),
        ("--task", "nowhere"): (3, "task 'nowhere' is unknown"),
        ("--input", str(tmp_path / "none.npy")): (3, "no such file"),
        ("--input", str(tmp_path / "x.npz")): (2, "label 1 is '11', expected one of 0, 1"),
        ("--input", str(tmp_path / "two.npz")): (2, "holds a, b, expected one called x"),
        ("--task", "digits", "--engine", "fast"): (
            2,
            "engine is 'fast', expected one of auto, dense",
        ),
    }
    for arguments, (expected, said) in refused.items():
        code, _, err = run("predict", weights, *arguments)
        assert code == expected
        assert said in err


def test_a_table_of_ones_own_is_answered_by_its_classes_names(tmp_path: Path, run: Run) -> None:
    rng = np.random.default_rng(0)
    classes_of = ("iris", "rose", "lily")
    rows = [
        f"{rng.normal():.3f},{1000 * (row % 3) + rng.normal():.3f},{classes_of[row % 3]}"
        for row in range(120)
    ]
    (tmp_path / "flowers.csv").write_text("\n".join(["length,width,kind", *rows]))
    tasks.add(tmp_path / "flowers.csv", "flowers")
    graph = zoo.build("mlp-16", (2,), 3)
    recipe = {"optimizer": "adam", "learning_rate": 0.02, "batch_size": 16, "steps": 60, "evaluate_every": 30}
    laws = default_laws(graph)
    Ticket.create(graph, {}, task="flowers", recipe=recipe, laws=laws, seed=1).write(tmp_path / "f.ticket")
    run.json("train", tmp_path / "f.ticket", "--engine", "sparse", "--out", tmp_path / "w.npz")
    tasks.remove("flowers")  # the weights hold all that is needed
    code, _, err = run("predict", tmp_path / "w.npz", "--input", tmp_path / "flowers.csv")
    assert code == 2
    assert "line 2 has 3 fields, expected 2; --label names the column of labels" in err
    answer = run.json("predict", tmp_path / "w.npz", "-i", tmp_path / "flowers.csv", "--label", "kind")
    assert answer["accuracy"] > 0.95
    assert answer["predictions"][1]["label"] == "rose"


# exports of trained weights


def test_csr_is_read_by_scipy(ticket: Ticket, weights: Path) -> None:
    trained = Weights.read(weights)
    for given, values in ((None, ticket.initial_values()), (trained, trained.values)):
        content = export_ticket(ticket, "csr", given).content
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            parts = (arrays[f"fc1.weight.{part}"] for part in ("data", "indices", "indptr", "shape"))
            data, indices, indptr, shape = parts
            matrix = scipy_sparse.csr_matrix((data, indices, indptr), shape)
            assert np.array_equal(matrix.toarray(), values["fc1.weight"])
            assert matrix.nnz == ticket.mask("fc1.weight").sum()
            assert np.array_equal(arrays["fc1.bias"], values["fc1.bias"])
            assert json.loads(arrays["manifest"].tobytes()) == ticket.manifest()
            assert ("training" in arrays.files) == (given is not None)


def test_convolutions_are_rows_of_their_windows_in_csr() -> None:
    ticket = make_ticket("conv-2")
    with np.load(io.BytesIO(export_ticket(ticket, "csr").content), allow_pickle=False) as arrays:
        name = ticket.architecture.prunable[1]
        parts = [arrays[f"{name}.{part}"] for part in ("data", "indices", "indptr", "shape")]
    matrix = scipy_sparse.csr_matrix(tuple(parts[:3]), parts[3])
    value = ticket.initial_values()[name]
    assert np.array_equal(matrix.toarray(), value.reshape(len(value), -1))


def test_export_writes_trained_weights(ticket: Ticket, weights: Path, tmp_path: Path, run: Run) -> None:
    ticket.write(tmp_path / "a.ticket")
    for form in ("numpy", "safetensors", "csr", "onnx"):
        out = tmp_path / f"a-{form}"
        run.json("export", tmp_path / "a.ticket", "-f", form, "--weights", weights, "--out", out)
        assert out.read_bytes() == export_ticket(ticket, form, Weights.read(weights)).content
        assert out.read_bytes() != export_ticket(ticket, form).content
    code, _, err = run("export", tmp_path / "a.ticket", "-f", "script", "--weights", weights)
    assert code == 2
    assert "expected no trained weights" in err


def test_weights_of_another_ticket_are_refused(weights: Path) -> None:
    other = make_ticket("mlp-16")
    with pytest.raises(Invalid, match=rf"the weights were trained from sha256:\w+, expected {other.digest}"):
        export_ticket(other, "csr", Weights.read(weights))


# engines


def test_bytes_and_floats_train_to_the_same_weights(ticket: Ticket, result: TrainResult) -> None:
    floats = nirvana.train_ticket(ticket, 3, data=tasks.load("digits"), engine="sparse", keep_weights=True)
    assert floats.weights is not None
    assert result.weights is not None
    for name, array in floats.weights.items():
        np.testing.assert_allclose(array, result.weights[name], atol=1e-4)


def test_auto_says_why_torch_trains(tmp_path: Path, run: Run) -> None:
    make_ticket("mlp-32", augmentation=["flip"], steps=4, evaluate_every=2).write(tmp_path / "a.ticket")
    code, out, err = run("train", tmp_path / "a.ticket", "--json")
    assert code == 0
    assert json.loads(out)["engine"] == "dense"
    assert err.startswith("torch trains this: augmentation")
