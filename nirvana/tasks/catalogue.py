"""The tasks that Nirvana knows, as data."""

from __future__ import annotations

from dataclasses import replace

from nirvana.tasks.files import SourceFile
from nirvana.tasks.task import Seal, Task


def _held_out(validation: int, published: int) -> str:
    return (
        f"test: the published test set. validation: the last {validation:,} of the {published:,} published "
        f"training images. train: the first {published - validation:,}."
    )


_LAST_5000 = _held_out(5_000, 60_000)
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
    margin_reason="300 sealed test images: one image is 0.33 pp and the binomial standard error at 97 % is "
    "0.98 pp, so that a smaller margin would ask for more than they can tell",
    pixel_max=16,
    normalisation=(0.3040, 0.3750),
    sizes={"train": 1000, "validation": 297, "test": 200},
    split="a fixed permutation of the 1,797 images "
    "(nirvana.format.initial.epoch_order(seed=0, epoch=0, n=1797)): "
    "the first 1,000 train, the next 297 validate, the next 200 test, the last 300 are sealed: in no "
    "download, and read by verifications alone (but scikit-learn has them: this seal proves nothing)",
    license="CC-BY-4.0",
    source="https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits",
    data_sha256="85a655874199b41ac44f6d267c663f3c065344e26ceaa8882d07c861a927319e",
    seal=Seal(300, "6bdfa4a5bb4837e3323ddf526aeae92f0dfbfb6e1e03f2fba9e71e415e1baafc", is_public=True),
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

KMNIST_PARTIAL = Task(
    name="kmnist-partial",
    title="Kuzushiji-MNIST, the first 7,011 training images",
    description="A part of Kuzushiji-MNIST: the first 7,011 of its 60,000 training images and the whole test "
    "set. For transfer between tasks; not comparable with numbers published for Kuzushiji-MNIST.",
    input_shape=(1, 28, 28),
    classes=10,
    class_names=KMNIST.class_names,
    margin=0.010,
    margin_reason="1.0 pp, set before anything was measured: 10,000 test images at 85 % have a binomial "
    "standard error of 0.36 pp, and runs on 6,011 images differ more than runs on 55,000",
    pixel_max=255,
    normalisation=(0.1914, 0.3482),
    sizes={"train": 6_011, "validation": 1_000, "test": 10_000},
    split="test: the published test set. validation: the last 1,000 of the first 7,011 published training "
    "images. train: the 6,011 before them.",
    license="CC-BY-SA-4.0",
    source="https://github.com/rois-codh/kmnist",
    data_sha256="97250d84aafa4467d5fbdefcc79adff8049118ba69790d40b2b4e13b5e262c5a",
)

CIFAR_10 = Task(
    name="cifar-10",
    title="CIFAR-10, 32x32 in colour",
    description="60,000 colour photographs of 32x32 pixels, by Alex Krizhevsky (Learning Multiple Layers of "
    "Features from Tiny Images, 2009), from the official binary batches. Its authors ask for "
    "a citation and state no licence.",
    input_shape=(3, 32, 32),
    classes=10,
    class_names=(
        *("airplane", "automobile", "bird", "cat", "deer"),
        *("dog", "frog", "horse", "ship", "truck"),
    ),
    margin=0.005,
    margin_reason="0.5 pp, set before anything was measured: 10,000 test images at 90 % have a binomial "
    "standard error of 0.30 pp and runs a standard deviation of 0.2 to 0.3 pp",
    pixel_max=255,
    normalisation=((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    sizes={"train": 45_000, "validation": 5_000, "test": 10_000},
    split=_held_out(5_000, 50_000),
    license="not stated",
    source="https://www.cs.toronto.edu/~kriz/cifar.html",
    data_sha256=None,
    homes=("https://www.cs.toronto.edu/~kriz",),
)

CIFAR_10_JPEG = replace(
    CIFAR_10,
    name="cifar-10-jpeg",
    title="CIFAR-10 (JPEG q75 copy), 32x32 in colour",
    description="CIFAR-10 from a lossy copy: JPEG of quality 75 with halved colour resolution, 30 dB from "
    "the originals. Decoders differ by a grey level or so. Not comparable with published CIFAR-10 numbers.",
    normalisation=((0.4914, 0.4821, 0.4464), (0.2453, 0.2430, 0.2608)),
    data_sha256="b9ed3c3e554b5422b95053dcf144cae6a72f0095a5e8fafc027028c65171bf78",
    homes=(),
)

TASKS = {
    task.name: task
    for task in (DIGITS, MNIST, FASHION_MNIST, KMNIST, KMNIST_PARTIAL, CIFAR_10, CIFAR_10_JPEG)
}


def _idx_files(
    checksums: tuple[str, str, str, str], train: str = "train", published: int = 60_000
) -> tuple[SourceFile, ...]:
    names = (f"{train}-images-idx3", f"{train}-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    shapes: tuple[tuple[int, ...], ...] = ((published, 28, 28), (published,), (10_000, 28, 28), (10_000,))
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
    "kmnist-partial": _idx_files(
        (
            "sha256:d078db481060cfb411d117d69bace4ec8073d941f39f9a4f42aa3cd114e906e5",
            "sha256:c7f766a7cf0f37417616c7bbb5bc2859cdc3f2f148b0dd937a96e8f6ae9d1571",
            "sha256:edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5",
            "sha256:20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c",
        ),
        "train7011",
        7_011,
    ),
}
