"""Collect photographs from Debian packages: pictures without labels, to train by distillation.

    python recipes/photographs.py FOLDER

Needs Debian 12 (or a relative: packages it lacks are skipped) with `apt-get` and `dpkg-deb`, after `apt-get update`; no
root. Writes FOLDER/train/*.jpg, FOLDER/held_out/*.jpg and FOLDER/manifest.json. The pictures keep the licences of their
packages: the manifest names each one's copyright file. Running it again writes the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import warnings
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps

Floats = NDArray[np.float64]
Bits = NDArray[np.bool_]

FORMATS = ("JPEG", "PNG", "WEBP")
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
ZIP_SUFFIXES = {".zip", ".pk3"}
SMALLEST_SIDE = 128
LONGEST_ASPECT = 4.0
SHORTER_SIDE = 512
LARGEST_FILE = 64 * 2**20
LARGEST_PICTURE = 100_000_000  # pixels; the largest wallpapers have 40 million
HELD_OUT_SHARE = 0.08
QUALITY = 92


@dataclass(frozen=True)
class Package:
    """A Debian package, what it holds, and which of its files are looked at: patterns of the path, as in fnmatch."""

    name: str
    holds: str
    only: tuple[str, ...] = ("*",)
    never: tuple[str, ...] = ()
    kind: str = "photograph"


def each(pattern: str, names: str) -> tuple[str, ...]:
    """The pattern for each of the names, which spaces separate."""
    return tuple(pattern.replace("{name}", name) for name in names.split())


# The order is a priority: of two pictures that look the same the first package's is kept. New packages go at the end,
# so that what an earlier list gave stays as it was. `only` and `never` leave out what passes the tests below and is no
# photograph, found by looking at every picture.
PACKAGES = (
    Package(
        "plasma-workspace-wallpapers",
        "wallpapers of KDE Plasma; most are drawn",
        only=each(
            "*/{name}/*", "BytheWater ColorfulCups EveningGlow FallenLeaf Grey Kite OneStandsOut Path summer_1am"
        ),
    ),
    Package(
        "mate-backgrounds",
        "wallpapers of MATE: nature close up",
        never=("*Elephants*", "*Float-into-MATE*", "*Ubuntu-Mate-Cold*"),
    ),
    Package("lomiri-wallpapers-16.04", "wallpapers of Ubuntu Touch 16.04: landscapes, plants, things"),
    Package("lomiri-wallpapers-20.04", "wallpapers of Ubuntu Touch 20.04", never=("*Infinite*Sea*",)),
    Package(
        "opencv-doc",
        "sample pictures of a computer vision library, and a few of its manual's that carry no drawing",
        only=(
            "*/examples/*",
            *each(
                "*/{name}.*",
                "Hough_Lines_Tutorial_Original_Image handSrc space_shuttle Background_Subtraction_Tutorial_frame "
                "Bounding_Rects_Circles_Source_Image Canny_Detector_Tutorial_Original_Image "
                "Histogram_Calculation_Original_Image Morphology_1_Tutorial_Original_Image "
                "Remap_Tutorial_Theory_0 Template_Matching_Original_Image Threshold_inRange_Tutorial_Result_input "
                "Warp_Affine_Tutorial_Original_Image ambush_5_left astra_color bicubic_div2k bicubic_urban "
                "bicubicOutput coins detect_test1 detect_test2 feature_building fusion fusion_mertens gst_input "
                "period_input pexels_double_decker_bus retina_TreeHdr_retina sample studentsSample_input "
                "227943776_1 230501201_1",
            ),
        ),
        never=(
            "*/pic[24].*",
            "*/digits.*",
            "*/HappyFish.*",
            "*/WindowsLogo.*",
            "*/LinuxLogo.*",
            "*/aloeR.*",
            "*/ela_modified.*",
            "*segmented_word*",
            "*/fuzzy/*",
            "*/imageText*",
            "*/ml.*",
            "*/pca_test1.*",
            "*/smarties.*",
            "*/stanford.*",
            "*/leuvenB.*",
            "*/graf3.*",
            "*/right.*",
            # Of the many views of one chessboard three are enough.
            "*/left0[!15].jpg",
            "*/left1[!4].jpg",
            "*/right[01][0-9].jpg",
        ),
    ),
    Package(
        "tuxpaint-stamps-default",
        "stamps for children: animals, plants, food and things, cut out of photographs",
        never=(
            "*/cartoon/*",
            "*/easter/*",
            "*/jackolantern*",
            "*/feathered_hat.*",
            "*/Santa.*",
            "*/clothes/button.*",
            "*/toy-train.*",
            "*/chineseJunk.*",
        ),
    ),
    Package(
        "gcompris-qt-data",
        "an educational suite: animals, monuments, fish, tools, orchestras, paintings",
        only=each(
            "*/{name}.rcc!*",
            "categorization clickgame details erase explore_farm_animals explore_monuments explore_world_animals "
            "explore_world_music leftright solar_system",
        ),
    ),
    Package("kalzium-data", "a periodic table: laboratory equipment", only=("*/toolpics/*",)),
    Package("darknet", "a neural network library's examples: animals, people, streets"),
    Package("palapeli-data", "jigsaw puzzles", only=("*/collection/*",)),
    Package("puzzle-jigsaw", "jigsaw puzzles: a tiger, a cat", only=("*.jp*g", "*/table.png")),
    Package(
        "python3-skimage",
        "sample pictures of an image processing library, those in samples/ left out",
        only=("*/skimage/data/*",),
        never=("*/color.png", "*/cell.png", "*/page.png", "*/motorcycle_right.png"),
    ),
    Package(
        "libjxl-testdata", "test pictures of an image format", only=("*/wesaturate/*", "*/flower.png", "*/hdr_room.png")
    ),
    Package("visp-images-data", "test pictures of a visual servoing library", only=("*/Solvay/*", "*/Klimt*")),
    Package("libvips-doc", "an image processing library's manual: an owl", only=("*/owl.jpg",)),
    Package(
        "mrpt-doc",
        "a robotics library's examples",
        only=("*/frame_color.jpg", "*/test_in.jpg", "*/imL_p01.jpg", "*/test_3_checkerboards*"),
    ),
    Package("qt5-quick-demos", "demonstrations of Qt: news pictures", only=("*/rssnews/*",)),
    Package(
        "qtdeclarative5-examples",
        "examples of Qt: food, a waterfall",
        only=("*/niagara_falls.jpg", "*/backgroundLeaves.jpg", "*/cork.jpg", "*/listview/*"),
        never=("*/lemonade.*",),
    ),
    Package(
        "qtbase5-examples", "examples of Qt", only=("*/boxes/square.jpg", "*/place.jpg", "*/bg1.jpg", "*/flower.jpg")
    ),
    Package(
        "hugin-data",
        "a panorama stitcher's manual: buildings, through all sorts of lenses",
        only=each(
            "*/help_en_EN/{name}.*",
            "180px-LagardePont-fish 250px-LagardePont-defish 250px-Rectlinear 250px-TKS-* 300px-2125768589_b "
            "300px-Lamp_enfuse 600px-Tuebingen_Neckarfront_small15* 800px-C_Marchi* AliasingPScubic "
            "Big_ben_equirectangular CA_fringes0[01] CA_strange01 CA_tCA0[013] "
            "Medinet_habu_horizontal_stereographic Vertical-stereographic",
        ),
    ),
    Package("libjs-jquery-colorbox", "a picture viewer's examples", never=("*/homer.jpg",)),
    Package(
        "tuxpaint-data",
        "a paint program's backgrounds: bark, waves, trees, a reef",
        only=("*/templates/*", "*/starters/*"),
        never=("*/frame_*", "*/reef-back*", "*/colorwheel*", "*chart*"),
    ),
    Package("wordpress-theme-twentytwentyone", "paintings by Berthe Morisot"),
    Package(
        "gimp-help-en",
        "a paint program's manual",
        only=each(
            "*/{name}",
            "taj-rippling.jpg mean_curvature-ex-1.jpg mean_curvature-denoise.jpg colors-retinex1.png cosmos-1.png "
            "enhance-red-eye-after.jpg high-pass-origin.png flame1.png kvitveis-orig.png "
            "little_planet-equirect.jpg little_planet-origin.jpg pan-project-result-1.jpg "
            "pan-project-result-2.jpg convolution-milord.png use_entire_layer.jpg regcolor.png "
            "border-selection-01.png distort-selection-01.png lockbrush-orig.png cage-1.png clip-4a.png "
            "quickie-background-scissors.jpg quickie-crop-example-source.jpg quickie-flip-example-horizontal.jpg "
            "quickie-jpeg-010.jpg quickie-rotate-example-source.jpg quickie-scale-example.jpg "
            "apple-orchard-truck-from-camera.jpg "
            "with-bilateral-smoothing-of-mask.jpg fog-tree-example.png keyfob_orig.png",
        ),
    ),
    Package(
        "fotoxx-common",
        "a photo editor's manual",
        only=each(
            "*/{name}.jpg",
            "patterns/burlap patterns/canvas2 alien-colors2 blur-background2 copy-pixels-1b emboss2 "
            "make-waves painting2 red_eyes2 unbend3",
        ),
    ),
    Package(
        "stellarium-data",
        "a planetarium: landscapes, and the objects of Messier's catalogue through telescopes",
        only=(
            "*/landscapes/garching/*",
            "*/landscapes/guereins/*",
            "*/landscapes/hurricane/*",
            "*/nebulae/default/m[0-9]*",
            "*/Sterngarten_20100320.png",
            "*/Vegetation_*",
            "*/Bodenbelag*",
            "*/Stein_Mauerwerk_mehrfarbig.jpg",
            "*/Dendera_zodiac_Louvre.jpg",
            "*/Atlas_*",
        ),
        never=("*bump*", "*/fog*"),
    ),
    Package(
        "torcs-data",
        "a racing game: walls, roads, grass, houses and trees from photographs",
        only=("*/tracks/*",),
        never=each(
            "*/{name}*",
            "clkdtm logo LOGO megafuel mycast treeUGLIES truck TRUCK advert sign DIST0 MOB1 PDKKA 64PASS shadow "
            "treeC3_n treeRNS TreeRNS tire-wall tirewall curb REF MCN ISL1 tr-house CTD background treeS3_n wall-water "
            "ambush-inn BARS GRDRA TOWER TRIBA0 BLDA TAGTNTOP TIME1A TIME2A asphalt-bw-w1-pit flatspot girder "
            "building1 tr-road1-pit TIREBLAK2",
        ),
        kind="texture",
    ),
    Package(
        "scorched3d-data",
        "a game of artillery: sand, rock, snow, grass",
        only=("*/textures/landscape/*",),
        never=("*/hell/*", "*cloud*", "*cubemap*", "*magma*", "*normal*", "*stars*"),
        kind="texture",
    ),
    Package("extremetuxracer-data", "a skiing game: rock, gravel, grass, ice", only=("*/terrains/*",), kind="texture"),
    Package(
        "supertuxkart-data",
        "a racing game: walls, wood, rock, ground",
        only=("*/data/textures/*.jpg",),
        never=(
            "*/skybox/*",
            *each(
                "*{name}*",
                "astro sakura coniferous cs_tux oakbark nebula egypt konqi palmtree flag sky city_asphalt racetrack "
                "alpha ormal _nm. _n. _norm.",
            ),
        ),
        kind="texture",
    ),
    Package(
        "plasma-workspace-data", "KDE Plasma's portraits for users: animals, food, things", only=("*/avatars/photos/*",)
    ),
    Package("dde-account-faces", "Deepin's portraits for users: animals, flowers, things"),
    Package(
        "forensics-samples-files",
        "photographs to find again on a disk",
        only=("*/original-files/*",),
        never=("*/d-debian.*",),
    ),
    Package(
        "lxqt-themes", "wallpapers of LXQt", only=("*/wallpapers/*",), never=("*plasma*", "*/waves-*", "*/triangles*")
    ),
    Package(
        "lebiniou-data",
        "a music visualiser's grey photographs",
        only=("*/opale95/*", "*/zebulon/*"),
        never=("*eyes-hurt*", "*shamen*"),
    ),
    Package(
        "psychtoolbox-3-common",
        "a laboratory toolbox's stimuli: rabbits, a town",
        only=("*/konijntjes1024x768.jpg", "*/TeapotTexture.jpg", "*/OldNewRecognition/*", "*/town.jpg"),
        never=("*/stim6.jpg",),
    ),
    Package(
        "gambas3-examples",
        "examples of a programming language",
        only=("*/rose.jpg", "*/clovis.jpg", "*/Painting/image.jpg", "*/TunnelSDL/texture.png"),
    ),
    Package(
        "python-kivy-examples",
        "examples of a user interface library",
        only=("*.jpg",),
        never=("*/Ill1.jpg", "*/kivy.jpg"),
    ),
    Package("allegro5-doc", "examples of a game library: a mouse, a parrot", only=("*/mysha_pal.png", "*/obp.jpg")),
    Package("python-matplotlib-data", "a plotting library's sample portrait", only=("*/grace_hopper.jpg",)),
    Package("libvigraimpex-doc", "a computer vision library's manual", only=("*/oi_small.jpg",)),
    Package("qtmultimedia5-examples", "examples of Qt", only=("*/leaves.jpg",)),
    Package("lazarus-src-2.2", "a development environment's examples: mushrooms", only=("*/image_mushrooms/*",)),
    Package("wx3.2-examples", "examples of a user interface library: a horse", only=("*/horse.jpg", "*/backgrnd.png")),
    Package("glmark2-data", "a graphics benchmark: nebulae", only=("*/nasa*",)),
)


@dataclass(frozen=True)
class Source:
    """A picture as a package holds it."""

    path: str  # within the package; in an archive "archive!name"
    data: bytes
    size: tuple[int, int]


@dataclass(frozen=True)
class Entry:
    """A kept picture, as the manifest tells it."""

    file: str
    package: str
    version: str
    path: str
    copyright: str
    kind: str
    split: str
    source_size: tuple[int, int]
    size: tuple[int, int]
    sha256: str


@dataclass
class Report:
    """How many pictures of a package were kept, and why others were not."""

    package: str
    version: str
    copyright: str = ""
    found: int = 0
    kept: int = 0
    dropped: dict[str, int] = field(default_factory=dict)

    def drop(self, reason: str) -> None:
        """Count a picture that is left out."""
        self.dropped[reason] = self.dropped.get(reason, 0) + 1


class NotKeptError(Exception):
    """Why a picture is left out, in two or three words."""


# --- Downloading


def download(package: str, cache: Path) -> Path | None:
    """The package's .deb in the cache, fetched if need be; None where the system's package lists don't have it."""
    have = sorted(cache.glob(f"{package}_*.deb"))
    if not have:
        done = subprocess.run(
            ["apt-get", "download", "-qq", package], cwd=cache, capture_output=True, text=True, check=False
        )
        if done.returncode:
            return None
        have = sorted(cache.glob(f"{package}_*.deb"))
    return have[-1] if have else None


def version_of(deb: Path) -> str:
    """The version a .deb declares."""
    return subprocess.run(["dpkg-deb", "-f", deb, "Version"], capture_output=True, text=True, check=True).stdout.strip()


def unpack(deb: Path, folder: Path) -> None:
    """Lay a .deb's files under a folder, running none of its scripts."""
    subprocess.run(["dpkg-deb", "-x", deb, folder], check=True)


# --- Finding pictures


def pictures_of_resource(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Pictures that a Qt resource file (.rcc) holds as they are: each follows its length, 4 bytes big-endian."""
    for match in re.finditer(rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|RIFF....WEBP", data, re.DOTALL):
        start = match.start()
        length = int.from_bytes(data[max(start - 4, 0) : start], "big")
        if 1024 < length <= len(data) - start:
            yield f"{start}", data[start : start + length]


def pictures_of_zip(path: Path) -> Iterator[tuple[str, bytes]]:
    """The pictures in a zip archive, none above the largest file size."""
    try:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if Path(info.filename).suffix.lower() in SUFFIXES and info.file_size <= LARGEST_FILE:
                    yield info.filename, archive.read(info)
    # The last two: an archive with a password, and a compression that zipfile does not know.
    except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError) as error:
        print(f"  {path.name}: {error}", file=sys.stderr)


def files_of(root: Path, package: Package) -> Iterator[tuple[str, bytes]]:
    """(path within the package, contents) of what may be a picture, in the order of the paths."""
    for path in sorted(root.rglob("*")):
        if path.is_symlink() or not path.is_file() or path.stat().st_size > 4 * LARGEST_FILE:
            continue
        name = path.relative_to(root).as_posix()
        suffix = path.suffix.lower()
        inside: Iterator[tuple[str, bytes]] = iter(())
        if suffix in SUFFIXES and path.stat().st_size <= LARGEST_FILE:
            inside = iter([("", path.read_bytes())])
        elif suffix in ZIP_SUFFIXES:
            inside = pictures_of_zip(path)
        elif suffix == ".rcc":
            inside = pictures_of_resource(path.read_bytes())
        for inner, data in inside:
            full = f"{name}!{inner}" if inner else name
            if matches(full, package.only) and not matches(full, package.never):
                yield full, data


def matches(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether any pattern fits the name."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def measure(data: bytes) -> tuple[int, int]:
    """Width and height as the header has them."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                return image.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise NotKeptError("unreadable") from error


# --- Reading


def read(data: bytes) -> Image.Image:
    """The picture upright, sRGB, its shorter side at most SHORTER_SIDE: RGB, or RGBA where parts are transparent.

    Raises NotKeptError if it is truncated, damaged or too large to read safely.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                if image.width * image.height > LARGEST_PICTURE:
                    raise NotKeptError("too large")
                # A JPEG decodes at a fraction of its size where that is still twice what is kept.
                image.draft("RGB", (4 * SHORTER_SIDE, 4 * SHORTER_SIDE))
                image.load()
                upright = ImageOps.exif_transpose(image)
                return shrink(to_srgb(upright, image.info.get("icc_profile")))
    except (OSError, ValueError, SyntaxError, MemoryError, Image.DecompressionBombError) as error:
        raise NotKeptError("unreadable") from error


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """8 bits of sRGB a channel, and alpha if any pixel is not opaque."""
    if image.mode.startswith("I"):  # 16 bits of grey
        image = Image.fromarray((np.asarray(image, np.float64) / 257).clip(0, 255).astype(np.uint8))
        profile = None
    alpha = image.convert("RGBA").getchannel("A") if image.has_transparency_data else None
    if image.mode not in ("RGB", "CMYK"):
        image = image.convert("RGB")
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
            image = converted or image
        except (ImageCms.PyCMSError, OSError):
            pass  # a damaged profile, or one of another number of channels
    image = image.convert("RGB")
    if alpha is not None and alpha.getextrema()[0] != 255:
        image.putalpha(alpha)
    return image


def shrink(image: Image.Image, side: int = SHORTER_SIDE) -> Image.Image:
    """The shorter side at most `side`. Pillow weighs colours by alpha: hidden ones do not bleed in."""
    scale = side / min(image.size)
    if scale >= 1:
        return image
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.LANCZOS)


# --- Is it a photograph?


@dataclass(frozen=True)
class Texture:
    """What the photograph test goes by, measured at 256 pixels of the longer side."""

    colours: int  # distinct colours of 5 bits a channel; grey pictures count their grey levels
    flat: float  # share of pixels that differ from no neighbour by more than one level
    detail: float  # share of 8 x 8 blocks whose luminance varies (standard deviation above 3 levels)
    ink: float  # share of pixels of the 8 most frequent colours


def texture_of(image: Image.Image) -> Texture:
    """Measure a picture; of a cut-out only what is opaque."""
    small = image.copy()
    small.thumbnail((256, 256), Image.Resampling.BOX)
    pixels = np.asarray(small.convert("RGBA"), np.int16)
    opaque = pixels[..., 3] > 250
    colour = pixels[..., :3]
    if opaque.sum() < 256:
        return Texture(0, 1.0, 0.0, 1.0)
    inner = opaque[:-1, :-1] & opaque[1:, :-1] & opaque[:-1, 1:]
    right = np.abs(colour[:-1, 1:] - colour[:-1, :-1]).max(-1)
    below = np.abs(colour[1:, :-1] - colour[:-1, :-1]).max(-1)
    flat = (np.maximum(right, below) <= 1) & inner
    grey = bool((np.ptp(colour, axis=-1)[opaque] <= 8).mean() > 0.99)
    bins = colour >> 3
    codes = colour[..., 1] if grey else (bins[..., 0].astype(np.int64) << 10) | (bins[..., 1] << 5) | bins[..., 2]
    _, counts = np.unique(codes[opaque], return_counts=True)
    luminance = colour @ np.array([0.299, 0.587, 0.114])
    height, width = (side // 8 * 8 for side in luminance.shape)

    def blocks(values: NDArray[np.generic]) -> NDArray[np.generic]:
        return values[:height, :width].reshape(height // 8, 8, width // 8, 8)

    whole = np.asarray(blocks(opaque)).all(axis=(1, 3))
    varies = np.asarray(blocks(luminance), np.float64).std(axis=(1, 3)) > 3
    return Texture(
        colours=len(counts),
        flat=float(flat.sum() / max(inner.sum(), 1)),
        detail=float(varies[whole].mean()) if whole.any() else 0.0,
        ink=float(np.sort(counts)[-8:].sum() / counts.sum()),
    )


def refuse_graphics(texture: Texture) -> None:
    """Raise NotKeptError for what is no photograph: few colours, large flat parts, or little but a gradient."""
    if texture.colours < 90:
        raise NotKeptError("few colours")
    # Things before a plain wall are flat for the most part, but still have the shades that a drawing lacks.
    if texture.flat > (0.45 if texture.colours < 400 else 0.75):
        raise NotKeptError("flat parts")
    if texture.detail < 0.15:
        raise NotKeptError("no detail")


# --- Does it look like another?

HASH_SIDE = 12
HASH_CROPS = (None, 1.0, 0.75, 0.5625)  # the whole picture, then centred squares, as shares of the shorter side
SAME = 0.18  # share of differing bits; unrelated pictures differ in about half of them
SAME_AS_SAMPLE = 0.24  # rather one picture too many left out

# The hashes of scikit-learn's sample pictures, which stay free for others to measure on.
SCIKIT_LEARN = {
    "china.jpg": [
        "3a170bd5f8fc8c0fa37624f6711e698be98c",
        "3337c5dc1847c5c13a63cd3c339607d8d9de",
        "3315ff9ffced9f72ffc7989863e63263cf2c",
        "321316989cd89a36678cf9cd9c31d19e5c70",
    ],
    "flower.jpg": [
        "366c9671acd26699a7927d8591ae28698664",
        "27ada67a0cac617969b689e3ba4e1e596658",
        "a109f417a5a87a8e0669585fe1f86ca5f964",
        "eab87ba1415215417a15e1ea16a5bc168fa4",
    ],
}


@lru_cache
def cosines(size: int, kept: int) -> Floats:
    """The first rows of the discrete cosine transform, kept x size."""
    rows: Floats = np.cos(np.pi / size * (np.arange(size) + 0.5) * np.arange(kept)[:, None])
    return rows


def perceptual_hash(image: Image.Image) -> Bits:
    """Signs of the lowest cosine coefficients of the luminance, without the mean: crops x bits.

    Resizing and compressing hardly change it. The centred squares let another crop of the same picture be seen.
    """
    grey = image.convert("L")
    rows = cosines(48, HASH_SIDE)
    hashes = []
    for share in HASH_CROPS:
        crop = grey
        if share is not None:
            half = share * min(grey.size) / 2
            x, y = grey.width / 2, grey.height / 2
            crop = grey.crop((round(x - half), round(y - half), round(x + half), round(y + half)))
        small = np.asarray(crop.resize((48, 48), Image.Resampling.BOX), np.float64)
        hashes.append((rows @ small @ rows.T).ravel()[1:] > 0)
    return np.array(hashes)


def mirrored(bits: Bits) -> Bits:
    """The hash of the picture with left and right exchanged: odd horizontal cosines change their sign."""
    odd: Bits = (np.arange(HASH_SIDE**2) % HASH_SIDE % 2 == 1)[1:]
    return np.not_equal(bits, odd)


class Seen:
    """The hashes of pictures so far."""

    def __init__(self) -> None:
        self._signs: list[NDArray[np.float32]] = []
        self.names: list[str] = []

    def add(self, bits: Bits, name: str) -> None:
        """Remember a picture."""
        self._signs.append(np.where(bits, 1, -1).astype(np.float32))
        self.names.append(name)

    def find(self, bits: Bits, threshold: float = SAME) -> str | None:
        """The name of the most similar picture, if in any pair of crops at most `threshold` of the bits differ."""
        if not self.names:
            return None
        known = np.array(self._signs)
        best, name = 1.0, ""
        for version in (bits, mirrored(bits)):
            signs = np.where(version, 1, -1).astype(np.float32)
            # Parts are not compared with parts: one of the two is always whole or its largest square.
            differ = 0.5 - 0.5 * np.einsum("nab,cb->nac", known, signs) / bits.shape[1]
            differ[:, 2:, 2:] = 1.0
            nearest = int(differ.min(axis=(1, 2)).argmin())
            if differ[nearest].min() < best:
                best, name = float(differ[nearest].min()), self.names[nearest]
        return name if best <= threshold else None


# --- Keeping


def on_flat_colour(image: Image.Image, digest: str) -> Image.Image:
    """A cut-out, cropped to what is visible, on one colour that its content decides."""
    box = image.getchannel("A").point(lambda alpha: 255 * (alpha > 16)).getbbox()
    cut = image.crop(box)
    colour = tuple(48 + byte % 160 for byte in bytes.fromhex(digest)[-3:])
    ground = Image.new("RGBA", cut.size, (*colour, 255))
    return Image.alpha_composite(ground, cut).convert("RGB")


def split_of(digest: str, kind: str) -> str:
    """'held_out' for a fixed share of the photographs, by the source's SHA-256 alone."""
    held = kind == "photograph" and int(digest[:8], 16) < HELD_OUT_SHARE * 2**32
    return "held_out" if held else "train"


def check_size(size: tuple[int, int]) -> None:
    """Raise NotKeptError for icons and strips."""
    if min(size) < SMALLEST_SIDE:
        raise NotKeptError("small")
    if max(size) > LONGEST_ASPECT * min(size):
        raise NotKeptError("strip")


def prepare(data: bytes, digest: str, kind: str) -> tuple[Image.Image, str]:
    """The picture to write and its kind, or NotKeptError."""
    image = read(data)
    refuse_graphics(texture_of(image))
    if image.mode == "RGBA":
        image = on_flat_colour(image, digest)
        kind = "cut-out"
    check_size(image.size)
    return image, kind


def file_name(package: str, path: str, taken: set[str]) -> str:
    """PACKAGE--NAME.jpg of a path within the package."""
    stem = path.rsplit(".", 1)[0] if Path(path).suffix.lower() in SUFFIXES else path
    stem = re.sub(r"^usr/share/(games/|doc/)?", "", stem)
    name = re.sub(r"[^A-Za-z0-9]+", "-", stem).strip("-")[-80:].strip("-")
    if f"{package}--{name}.jpg" in taken:
        name = f"{name}-{hashlib.sha256(path.encode()).hexdigest()[:8]}"
    taken.add(f"{package}--{name}.jpg")
    return f"{package}--{name}.jpg"


def write(path: Path, data: bytes) -> None:
    """Write a file as a whole or not at all; one that already has these bytes is left alone."""
    if path.is_file() and path.read_bytes() == data:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", delete=False) as file:
        file.write(data)
    os.chmod(file.name, 0o644)
    os.replace(file.name, path)


def to_jpeg(image: Image.Image) -> bytes:
    """JPEG without chroma subsampling and without metadata."""
    stream = io.BytesIO()
    Image.fromarray(np.asarray(image)).save(stream, "JPEG", quality=QUALITY, subsampling=0)
    return stream.getvalue()


def on_any(image: Image.Image) -> Image.Image:
    """Without transparency, to compare."""
    return on_flat_colour(image, "00" * 32) if image.mode == "RGBA" else image


def pack_hash(bits: Bits) -> list[str]:
    """A perceptual hash as hexadecimal text, a word a crop."""
    return [np.packbits(crop).tobytes().hex() for crop in bits]


def unpack_hash(words: list[str]) -> Bits:
    """The inverse of pack_hash."""
    crops = [np.unpackbits(np.frombuffer(bytes.fromhex(word), np.uint8)) for word in words]
    return np.array(crops)[:, : HASH_SIDE**2 - 1].astype(bool)


def held_back(samples: Path) -> Seen:
    """The pictures that must stay out: the samples, on which everything is measured, and scikit-learn's two."""
    seen = Seen()
    for path in sorted(samples.glob("*")):
        if path.suffix.lower() in SUFFIXES:
            seen.add(perceptual_hash(on_any(read(path.read_bytes()))), path.name)
    for name, words in SCIKIT_LEARN.items():
        seen.add(unpack_hash(words), name)
    return seen


def collect(
    package: Package, root: Path, report: Report, seen: Seen, out: Seen, taken: set[str], folder: Path
) -> Iterator[Entry]:
    """Judge an unpacked package's pictures, the largest first, and write those kept."""
    sources = []
    for path, data in files_of(root, package):
        report.found += 1
        try:
            size = measure(data)
            check_size(size)
            sources.append(Source(path, data, size))
        except NotKeptError as reason:
            report.drop(str(reason))
    sources.sort(key=lambda source: (-source.size[0] * source.size[1], source.path))
    for source in sources:
        digest = hashlib.sha256(source.data).hexdigest()
        try:
            image, kind = prepare(source.data, digest, package.kind)
            bits = perceptual_hash(image)
            if out.find(bits, SAME_AS_SAMPLE):
                raise NotKeptError("held-back picture")
            if seen.find(bits):
                raise NotKeptError("duplicate")
        except NotKeptError as reason:
            report.drop(str(reason))
            continue
        file = f"{split_of(digest, kind)}/{file_name(package.name, source.path, taken)}"
        seen.add(bits, file)
        write(folder / file, to_jpeg(image))
        report.kept += 1
        yield Entry(
            file=file,
            package=package.name,
            version=report.version,
            path=source.path,
            copyright=report.copyright,
            kind=kind,
            split=split_of(digest, kind),
            source_size=source.size,
            size=image.size,
            sha256=digest,
        )


def gather(
    packages: tuple[Package, ...], folder: Path, cache: Path, samples: Path
) -> tuple[list[Entry], list[Report], list[str]]:
    """Go through the packages. What was kept, what became of each package, and which packages could not be had."""
    out, seen, taken = held_back(samples), Seen(), set[str]()
    entries: list[Entry] = []
    reports: list[Report] = []
    missing: list[str] = []
    for package in packages:
        deb = download(package.name, cache)
        if deb is None:
            print(f"{package.name}: not available, skipped", file=sys.stderr)
            missing.append(package.name)
            continue
        with tempfile.TemporaryDirectory() as root:
            unpack(deb, Path(root))
            paper = f"usr/share/doc/{package.name}/copyright"
            report = Report(package.name, version_of(deb), paper if (Path(root) / paper).exists() else "")
            entries += collect(package, Path(root), report, seen, out, taken, folder)
        reports.append(report)
        print(f"{package.name}: {report.kept} of {report.found}", file=sys.stderr)
    return entries, reports, missing


def table(entries: list[Entry], reports: list[Report], missing: list[str]) -> str:
    """The summary: a line a package, then totals."""
    lines = [f"{'package':32} {'version':20} {'found':>6} {'kept':>5}  dropped"]
    for report in reports:
        why = ", ".join(
            f"{count} {reason}" for reason, count in sorted(report.dropped.items(), key=lambda item: -item[1])
        )
        lines.append(f"{report.package:32} {report.version[:20]:20} {report.found:6} {report.kept:5}  {why}")
    lines += [f"{name:32} not available" for name in missing]
    counts = Counter((entry.split, entry.kind) for entry in entries)
    lines += [f"{split:8} {kind:12} {count:5}" for (split, kind), count in sorted(counts.items())]
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where train/, held_out/ and manifest.json go")
    parser.add_argument("--cache", type=Path, help="keep the packages here, to run again without downloading")
    parser.add_argument(
        "--samples", type=Path, default=Path(__file__).resolve().parent.parent / "samples", help=argparse.SUPPRESS
    )
    parser.add_argument("--prune", action="store_true", help="delete pictures in FOLDER that this run did not give")
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    with tempfile.TemporaryDirectory() as temporary:
        cache: Path = arguments.cache or Path(temporary)
        cache.mkdir(parents=True, exist_ok=True)
        entries, reports, missing = gather(PACKAGES, folder, cache, arguments.samples)
    manifest = {
        "packages": [asdict(report) for report in reports],
        "not_available": missing,
        "pictures": [asdict(entry) for entry in sorted(entries, key=lambda entry: entry.file)],
    }
    write(folder / "manifest.json", (json.dumps(manifest, indent=1) + "\n").encode())
    given = {entry.file for entry in entries}
    stale = [path for path in sorted(folder.glob("*/*.jpg")) if path.relative_to(folder).as_posix() not in given]
    for path in stale:
        print(f"{path}: not of this run{', deleted' if arguments.prune else ''}", file=sys.stderr)
        if arguments.prune:
            path.unlink()
    print(table(entries, reports, missing))


if __name__ == "__main__":
    main()
