"""The model's folder in a Triton repository: its configurations, and how an export gets into it."""

import re
import shutil
from contextlib import ExitStack
from pathlib import Path

from export.engine import Profile, as_text
from export.errors import ExportError
from export.manifest import MNN_MODEL, write_entry
from matting.files import check_folder, locked, whole, write_whole

MODEL, CONFIG, FOR_TENSORRT = "dim", "config.pbtxt", "configs/tensorrt.pbtxt"
TEMPLATE = Path(__file__).parents[1] / "model_repository" / MODEL
"""The project's own model, of which every repository gets a copy of `TEMPLATES`."""

TEMPLATES = (CONFIG, "configs/*.pbtxt", "1/model.py")


def check_place(model: Path) -> None:
    """Refuse a place that cannot be written to, before minutes of work.

    Raises
    ------
    OSError
        The model's folder, or what it should lie in, is a file or cannot be written to.
    """
    for folder in (model.absolute(), model.absolute() / "1"):
        check_folder(next(path for path in (folder, *folder.parents) if path.exists()))


def read_config(model: Path, name: str) -> str:
    """Return the text of a model's configuration; the template's where the model has none.

    Raises
    ------
    ExportError
        It is no text.
    """
    own = model / name
    try:
        return (own if own.is_file() else TEMPLATE / name).read_text()
    except UnicodeDecodeError as error:
        raise ExportError(f"{own} is not text in UTF-8: correct or remove it ({error})") from None


def with_parameters(config: str, **values: str) -> str:
    """Return a config.pbtxt in which parameters of model.py, such as `engine`, have these values.

    Raises
    ------
    ExportError
        One of the parameters is not there, or more than once.
    """
    for key, value in values.items():
        parameter = rf'(key:\s*"{key}"\s*value:?\s*{{\s*string_value:\s*)"[^"]*"'
        config, found = re.subn(parameter, rf'\g<1>"{value}"', config)
        if found != 1:
            raise ExportError(
                f"{CONFIG} sets parameter {key!r} {found} times, expected once as in the "
                f'project\'s own: {{ key: "{key}" value {{ string_value: "{value}" }} }}'
            )
    return config


def with_profile(config: str, profile: Profile) -> str:
    """Return a configs/tensorrt.pbtxt whose batches and warm-up an engine of this profile takes.

    The warm-up is one picture of the size that the engine is tuned for.

    Raises
    ------
    ExportError
        The engine takes no single picture, or one of the settings is not there as often as in the
        project's own.
    """
    if profile.smallest[0] > 1:
        raise ExportError(
            f"smallest input is {as_text(profile.smallest)}: its N has to be 1, since Triton also "
            "sends single pictures"
        )
    _, height, width = profile.best
    for setting, times, pattern, value in (
        ("max_batch_size", 1, r"(?m)^max_batch_size:.*$", f"max_batch_size: {profile.largest[0]}"),
        ("the warm-up's name", 1, r'"\d+x\d+"', f'"{height}x{width}"'),
        ("the warm-up's size", 2, r"\[\s*\d+\s*,\s*\d+\s*,", f"[ {height}, {width},"),
    ):
        config, found = re.subn(pattern, value, config)
        if found != times:
            raise ExportError(
                f"{FOR_TENSORRT} sets {setting} {found} times, expected {times} as in the "
                "project's own"
            )
    return config


def fill(model: Path) -> None:
    """Copy what a model lacks of `TEMPLATES` into its folder, and the program that is there anew.

    That of an older export may not know what a new one's configuration asks for.
    """
    for source in (path for pattern in TEMPLATES for path in TEMPLATE.glob(pattern)):
        place = model / source.relative_to(TEMPLATE)
        if not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, place)
        elif place.suffix == ".py" and place.read_bytes() != source.read_bytes():
            copy_all({source: place})


def copy_all(places: dict[Path, Path]) -> None:
    """Copy files, each to its place, and replace none before all are copied.

    Their places may lie in another file system, where a file cannot be moved at once.
    """
    with ExitStack() as copies:
        for source, place in places.items():
            shutil.copyfile(source, copies.enter_context(whole(place)))


def put_in_place(
    build: Path, model: Path, artifact: str, entry: dict, configs: dict[str, str]
) -> None:
    """Copy the built files into the model's folder, and write configurations that fit them.

    A new folder is made whole before it gets its name: beside it, since the repository may be a
    file system of its own. Triton takes every folder there for a model, so it is there for the
    copying alone. Of several exports one copies at a time: their files would be mixed.
    """
    model.parent.mkdir(parents=True, exist_ok=True)
    with locked(model.parent):
        if model.exists():
            copy_into(model, build, artifact, entry, configs)
            return
        for left_behind in model.parent.glob(".*.partial"):  # by an export that was killed
            shutil.rmtree(left_behind)
        with whole(model) as new:
            new.mkdir()
            copy_into(new, build, artifact, entry, configs)


def copy_into(
    model: Path, build: Path, artifact: str, entry: dict, configs: dict[str, str]
) -> None:
    """Copy the built files into a model's folder. The manifest comes last.

    Until then it names other files than there are.
    """
    fill(model)
    copy_all({build / name: model / "1" / name for name in entry["files"]})
    for name, text in configs.items():
        write_whole(model / name, text.encode())
    write_entry(model / "1", artifact, entry)
    if artifact == "model.onnx" and MNN_MODEL not in entry["files"]:
        (model / "1" / MNN_MODEL).unlink(missing_ok=True)  # of another network
