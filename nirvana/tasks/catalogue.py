"""The tasks that Nirvana knows, as data."""

from __future__ import annotations

from nirvana.tasks.files import SourceFile
from nirvana.tasks.task import Task

_LAST_5000 = (
    "test: the published test set. validation: the last 5,000 of the 60,000 published training images. "
    "train: the first 55,000."
)
_SIZES = {"train": 55_000, "validation": 5_000, "test": 10_000}

DIGITS = Task(
    name="digits",
    title="Handwritten digits, 8x8",
    description="1,797 digits of 8x8 pixels with 17 grey levels, the test set of UCI's optdigits, "
    "as scikit-learn has them. Embedded in the package: no download.",
    input_shape=(1, 8, 8),
    classes=10,
    class_names=tuple("0123456789"),
    margin=0.010,
    margin_reason="500 test images: one image is 0.2 pp and the binomial standard error at 97 % is 0.76 pp, "
    "so that a smaller margin would ask for more than the test set can tell",
    pixel_max=16,
    normalisation=(0.3040, 0.3750),
    sizes={"train": 1000, "validation": 297, "test": 500},
    split="a fixed permutation of the 1,797 images (nirvana.initial.epoch_order(seed=0, epoch=0, n=1797)): "
    "the first 1,000 train, the next 297 validate, the last 500 test",
    license="CC-BY-4.0",
    source="https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits",
    data_sha256="87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826",
)

MNIST = Task(
    name="mnist",
    title="MNIST handwritten digits, 28x28",
    description="70,000 handwritten digits of 28x28 pixels with 256 grey levels.",
    input_shape=(1, 28, 28),
    classes=10,
    class_names=tuple("0123456789"),
    margin=0.003,
    margin_reason="0.3 pp, set before anything was measured: 10,000 test images at 98 % have a binomial "
    "standard error of 0.14 pp and runs a standard deviation of about 0.15 pp",
    pixel_max=255,
    normalisation=(0.1307, 0.3081),
    sizes=_SIZES,
    split=_LAST_5000,
    license="CC-BY-SA-3.0",
    source="http://yann.lecun.com/exdb/mnist/",
    data_sha256="06b0d1f124c4e5fa796686ade41a9b778edacc8622f2195a352ef479ad44fc16",
    homes=("https://ossci-datasets.s3.amazonaws.com/mnist", "http://yann.lecun.com/exdb/mnist"),
)

FASHION_MNIST = Task(
    name="fashion-mnist",
    title="Fashion-MNIST, 28x28",
    description="70,000 pictures of clothing of 28x28 pixels with 256 grey levels, by Zalando Research.",
    input_shape=(1, 28, 28),
    classes=10,
    class_names=(
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
    margin=0.005,
    margin_reason="0.5 pp: 10,000 test images at 89 % have a binomial standard error of 0.31 pp",
    pixel_max=255,
    normalisation=(0.2858, 0.3529),
    sizes=_SIZES,
    split=_LAST_5000,
    license="MIT",
    source="https://github.com/zalandoresearch/fashion-mnist",
    data_sha256="ca3ab2a37f845e1b8ae23cab1b51749a3011ba3bf1d9016176d75cbaabac376f",
    homes=("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",),
)

KMNIST = Task(
    name="kmnist",
    title="Kuzushiji-MNIST, 28x28",
    description="70,000 cursive Japanese characters of 28x28 pixels with 256 grey levels, by CODH.",
    input_shape=(1, 28, 28),
    classes=10,
    class_names=("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
    margin=0.005,
    margin_reason="0.5 pp: 10,000 test images at 92 % have a binomial standard error of 0.27 pp",
    pixel_max=255,
    normalisation=(0.1918, 0.3483),
    sizes=_SIZES,
    split=_LAST_5000,
    license="CC-BY-SA-4.0",
    source="https://github.com/rois-codh/kmnist",
    data_sha256=None,
    homes=("http://codh.rois.ac.jp/kmnist/dataset/kmnist",),
)

TASKS = {task.name: task for task in (DIGITS, MNIST, FASHION_MNIST, KMNIST)}


def _idx_files(checksums: tuple[str, str, str, str]) -> tuple[SourceFile, ...]:
    names = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    shapes: tuple[tuple[int, ...], ...] = ((60_000, 28, 28), (60_000,), (10_000, 28, 28), (10_000,))
    files = zip(names, checksums, shapes, strict=True)
    return tuple(SourceFile(f"{name}-ubyte.gz", checksum, shape) for name, checksum, shape in files)


SOURCE_FILES = {
    "mnist": _idx_files(
        (
            "sha256:440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            "sha256:3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            "sha256:8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            "sha256:f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        )
    ),
    "fashion-mnist": _idx_files(
        (
            "sha256:3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            "sha256:a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            "sha256:346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            "sha256:67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        )
    ),
    "kmnist": _idx_files(
        (
            "md5:bdb82020997e1d708af4cf47b453dcf7",
            "md5:e144d726b3acfaa3e44228e80efcd344",
            "sha256:edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5",
            "sha256:20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c",
        )
    ),
}
