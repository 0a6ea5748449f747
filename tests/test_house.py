"""The rules of the house that a machine can keep: lengths, docstrings, names, what an import may cost."""

import enum
import importlib
import inspect
import re
import subprocess
import sys
import tomllib
import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("swiommu", "cma_compat")

LENGTH, LONGEST = 400, 700  # lines: beyond the first look whether it is still one idea, never beyond the second

# Public names without an example of their own: "module:name" -> why. Constants, errors, enums, protocols and records
# without methods need none: they are lists of names.
WITHOUT_EXAMPLE: dict[str, str] = {
    "cma_compat:cma_alloc": "CmaContext shows it; this is the same on the default context",
    "cma_compat:cma_alloc_from": "CmaContext shows it; this is the same on the default context",
    "cma_compat:cma_alloc_from_region": "CmaContext shows it; this is the same on the default context",
    "cma_compat:cma_allocator_register": "CmaContext shows it; this is the same on the default context",
    "cma_compat:cma_early_region_register": "CmaContext shows it; this is the same on the default context",
    "cma_compat:cma_early_region_reserve": "CmaContext shows it; this is the same on the default context",
    "cma_compat:cma_early_regions_reserve": "CmaContext shows it; this is the same on the default context",
    "cma_compat:cma_free": "CmaContext shows it; this is the same on the default context",
    "cma_compat:cma_info": "CmaContext shows it; this is the same on the default context",
    "cma_compat:cma_info_about": "CmaContext shows it; this is the same on the default context",
    "cma_compat:cma_init": "CmaContext shows it; this is the same on the default context",
    "cma_compat:cma_region_register": "CmaContext shows it; this is the same on the default context",
    "cma_compat:cma_region_unregister": "CmaContext shows it; this is the same on the default context",
    "cma_compat:cma_set_defaults": "CmaContext shows it; this is the same on the default context",
    "swiommu.address:Address": "made by a space; the module's docstring shows both kinds",
    "swiommu.address:BusRange": "AddressRange shows it",
    "swiommu.address:PhysRange": "AddressRange shows it",
    "swiommu.iommu.groups:claim_device": "use_default_domain shows it",
    "swiommu.iommu.groups:claim_group": "use_default_domain, for one device shows it",
    "swiommu.iommu.groups:detach_pasid": "attach_pasid shows it",
    "swiommu.iommu.groups:gather_for": "PagedDomain.unmap_gathered shows it",
    "swiommu.iommu.groups:group_of": "Attachable.group, or an error shows it",
    "swiommu.iommu.groups:iova_to_phys": "map_range shows it",
    "swiommu.iommu.groups:release_device": "use_default_domain, the other way shows it",
    "swiommu.iommu.groups:release_group": "use_default_domain, the other way shows it",
    "swiommu.iommu.groups:reset_done": "reset_prepare shows it",
    "swiommu.iommu.groups:sync_map": "map_range shows it",
    "swiommu.iommu.groups:unmap_range": "map_range shows it",
    "swiommu.iommu.groups:unuse_default_domain": "use_default_domain, the other way shows it",
    "swiommu.linux:cma_get_base": "cma_alloc shows it",
    "swiommu.linux:cma_get_name": "cma_alloc shows it",
    "swiommu.linux:cma_get_size": "cma_alloc shows it",
    "swiommu.linux:cma_release": "cma_alloc shows it",
    "swiommu.linux:device_iommu_capable": "iommu_paging_domain_alloc shows a session",
    "swiommu.linux:iommu_attach_device": "iommu_paging_domain_alloc shows a session",
    "swiommu.linux:iommu_attach_device_pasid": "iommu_paging_domain_alloc shows a session",
    "swiommu.linux:iommu_attach_group": "iommu_paging_domain_alloc shows a session",
    "swiommu.linux:iommu_detach_device": "iommu_paging_domain_alloc shows a session",
    "swiommu.linux:iommu_detach_device_pasid": "iommu_paging_domain_alloc shows a session",
    "swiommu.linux:iommu_detach_group": "iommu_paging_domain_alloc shows a session",
    "swiommu.linux:iommu_device_claim_dma_owner": "iommu_paging_domain_alloc shows a session",
    "swiommu.linux:iommu_device_release_dma_owner": "iommu_paging_domain_alloc shows a session",
    "swiommu.linux:iommu_device_unuse_default_domain": "iommu_paging_domain_alloc shows a session",
    "swiommu.linux:iommu_device_use_default_domain": "iommu_paging_domain_alloc shows a session",
    "swiommu.linux:iommu_domain_free": "iommu_paging_domain_alloc shows a session",
    "swiommu.linux:iommu_flush_iotlb_all": "iommu_unmap_fast shows it",
    "swiommu.linux:iommu_get_domain_for_dev": "iommu_paging_domain_alloc shows a session",
    "swiommu.linux:iommu_get_group_resv_regions": "iommu_paging_domain_alloc shows a session",
    "swiommu.linux:iommu_group_claim_dma_owner": "iommu_paging_domain_alloc shows a session",
    "swiommu.linux:iommu_group_dma_owner_claimed": "iommu_paging_domain_alloc shows a session",
    "swiommu.linux:iommu_group_get": "iommu_paging_domain_alloc shows a session",
    "swiommu.linux:iommu_group_id": "IommuGroup shows it",
    "swiommu.linux:iommu_group_release_dma_owner": "iommu_paging_domain_alloc shows a session",
    "swiommu.linux:iommu_iotlb_gather_add_page": "IotlbGather shows it",
    "swiommu.linux:iommu_iotlb_gather_add_range": "IotlbGather shows it",
    "swiommu.linux:iommu_iotlb_gather_init": "iommu_unmap_fast shows it",
    "swiommu.linux:iommu_iotlb_gather_is_disjoint": "IotlbGather shows it",
    "swiommu.linux:iommu_iotlb_gather_queued": "IotlbGather shows it",
    "swiommu.linux:iommu_iotlb_sync": "iommu_unmap_fast shows it",
    "swiommu.linux:iommu_iova_to_phys": "iommu_paging_domain_alloc shows a session",
    "swiommu.linux:iommu_map": "iommu_paging_domain_alloc shows a session",
    "swiommu.linux:iommu_map_nosync": "iommu_paging_domain_alloc shows a session",
    "swiommu.linux:iommu_map_sg": "iommu_paging_domain_alloc shows a session",
    "swiommu.linux:iommu_paging_domain_alloc_flags": "iommu_paging_domain_alloc shows a session",
    "swiommu.linux:iommu_set_fault_handler": "iommu_paging_domain_alloc shows a session",
    "swiommu.linux:iommu_sync_map": "iommu_paging_domain_alloc shows a session",
    "swiommu.linux:iommu_unmap": "iommu_paging_domain_alloc shows a session",
    "swiommu.linux:report_iommu_fault": "iommu_paging_domain_alloc shows a session",
}


def modules() -> list[Path]:
    folders = [ROOT / name for name in (*PACKAGES, "tests", "docs")]
    return sorted(path for folder in folders for path in folder.rglob("*.py"))


def rooms() -> list[str]:
    """Every package, and the modules that stand beside the rooms as rooms of their own."""
    packages = [path.parent for name in PACKAGES for path in (ROOT / name).rglob("__init__.py")]
    dotted = [".".join(path.relative_to(ROOT).parts) for path in packages]
    return sorted({*dotted, *(room for layer in layers() for room in layer)})


def layers() -> list[list[str]]:
    """The house as import-linter keeps it, from the top down; rooms of one layer don't import each other."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    house = next(each for each in contracts if each["type"] == "layers")
    return [[room.strip() for room in layer.split(":")] for layer in house["layers"]]


def public_names() -> list[str]:
    return [f"{room}:{name}" for room in rooms() for name in importlib.import_module(room).__all__]


def resolve(public: str) -> object:
    room, name = public.split(":")
    return getattr(importlib.import_module(room), name)


def has_example(thing: object) -> bool:
    """Whether the docstring of the thing, or of one of its public methods, has an example."""
    own = (
        [thing, *(member for name, member in vars(thing).items() if name[0] != "_")]
        if inspect.isclass(thing)
        else [thing]
    )
    return any(">>>" in (inspect.getdoc(each) or "") for each in own)


def needs_example(thing: object) -> bool:
    if not (inspect.isclass(thing) or inspect.isroutine(thing)):
        return False  # a constant, an alias or a table
    if not inspect.isclass(thing):
        return True
    return not (issubclass(thing, (Exception, enum.Enum)) or getattr(thing, "_is_protocol", False) or is_record(thing))


def is_record(thing: type) -> bool:
    """Whether the class is fields and nothing else."""
    if not (hasattr(thing, "__attrs_attrs__") or hasattr(thing, "_fields")):
        return False
    members = [member for name, member in vars(thing).items() if name[0] != "_"]
    return not any(inspect.isroutine(member) or isinstance(member, property) for member in members)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
@pytest.mark.filterwarnings("default::pytest.PytestWarning")
def test_module_keeps_its_length(path):
    name = str(path.relative_to(ROOT))
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= LONGEST, f"{name} has {lines} lines: split it"
    if lines > LENGTH and not name.startswith("tests/"):  # a table of cases reads best in one piece
        warnings.warn(pytest.PytestWarning(f"{name} has {lines} lines: is it one idea?"), stacklevel=1)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_folder_with_modules_is_a_room(package):
    folders = {path.parent for path in (ROOT / package).rglob("*.py")}
    assert sorted(folder for folder in folders if not (folder / "__init__.py").exists()) == []


@pytest.mark.parametrize("room", rooms())
def test_room_says_what_it_is_and_what_is_public(room):
    module = importlib.import_module(room)
    assert (module.__doc__ or "").strip(), f"{room} has no docstring"
    assert list(module.__all__) == list(dict.fromkeys(module.__all__)), f"{room}.__all__ names something twice"
    assert [name for name in module.__all__ if not hasattr(module, name)] == []


@pytest.mark.parametrize("public", public_names())
def test_public_name_has_docstring_and_example(public):
    thing = resolve(public)
    if inspect.isclass(thing) or inspect.isroutine(thing):
        # A class's own docstring: an inherited one tells about the base.
        assert (thing.__doc__ or "").strip(), f"{public} has no docstring"
    if needs_example(thing) and not has_example(thing):
        assert public in WITHOUT_EXAMPLE, f"{public} has no example; write one, or say in WITHOUT_EXAMPLE why not"


def test_every_reason_for_no_example_is_used():
    assert [public for public in WITHOUT_EXAMPLE if has_example(resolve(public))] == []


def test_import_is_light():
    code = "import sys; before = set(sys.modules); import swiommu; print(*(set(sys.modules) - before))"
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    # No third party, and none of its own rooms either.
    assert [name for name in out.split() if name.split(".")[0] not in sys.stdlib_module_names] == ["swiommu"]


def test_a_comparison_does_not_load_the_checks():
    code = "import sys, swiommu.cli.compare, swiommu.answers, swiommu.report; print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert [name for name in out.split() if name.startswith("swiommu.verify")] == []


# Absolute paths of somebody's machine, and settings that name somebody's package index. Spelled so that this line is
# not a find itself.
PLACES = re.compile(r"(?<![\w.$}~-])[/](?:work|root|home|Users|mnt|opt)/|index[-_]url\b|trusted[-]host")
TEXT = {".py", ".md", ".toml", ".json", ".cfg", ".txt", ".typed", ".css", ".html", ""}
SKIPPED_FOLDERS = {"__pycache__", "_build"}


def texts() -> list[Path]:
    top = [path for path in ROOT.iterdir() if path.is_file() and path.name != ".git"]  # a file in a linked worktree
    folders = [ROOT / name for name in (*PACKAGES, "tests", "docs", ".ci")]
    inside = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return sorted(p for p in top + inside if p.suffix in TEXT and not SKIPPED_FOLDERS & set(p.parts))


def test_no_machine_is_named():
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
        for path in texts()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if PLACES.search(line)
    ]
    assert found == []


def test_changelog_fragments_are_named_right():
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["towncrier"]
    types = "|".join(kind["directory"] for kind in config["type"])
    fragment = re.compile(rf"\+[a-z0-9]+(-[a-z0-9]+)*\.({types})\.md")
    folder = ROOT / config["directory"]
    assert [p.name for p in folder.iterdir() if p.name != "README.md" and not fragment.fullmatch(p.name)] == []
    assert config["start_string"] in (ROOT / config["filename"]).read_text(encoding="utf-8")


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "changelog.d").glob("+*")), ids=lambda path: path.name)
def test_changelog_fragment_says_something(path):
    text = path.read_text(encoding="utf-8").strip()
    assert text.endswith("."), f"{path.name} is not a sentence"
    assert not text.startswith(("-", "*", "#")), (
        f"{path.name} begins like a list or a heading; towncrier adds the bullet"
    )


def first_column(page: str) -> list[str]:
    """What the first table of rooms in a page names, in its order, as modules."""
    table = (ROOT / page).read_text(encoding="utf-8").partition("| room |")[2].partition("\n\n")[0]
    rows = [row.split("|")[1] for row in table.splitlines() if row.startswith("| `") and "`docs/`" not in row]
    return [name for row in rows for name in re.findall(r"`([^`]+)`", row)]


def in_readme() -> list[str]:
    names = [name.removesuffix("/").removesuffix(".py").replace("/", ".") for name in first_column("README.md")]
    return [name if name.partition(".")[0] in PACKAGES else f"swiommu.{name}" for name in names]


def in_reference() -> list[str]:
    index = (ROOT / "docs" / "reference" / "index.md").read_text(encoding="utf-8")
    pages = re.search(r"```{toctree}\n:maxdepth: 1\n\n([^`]+)```", index)[1].split()
    return [page if page in PACKAGES else f"swiommu.{page}" for page in pages]


def in_docstring() -> list[str]:
    return re.findall(r"`(swiommu\.\w+)`", importlib.import_module("swiommu").__doc__)


MAPS = {
    "README.md": (in_readme, set()),
    "docs/explanation/house.md": (lambda: first_column("docs/explanation/house.md")[::-1], set()),
    "docs/reference/index.md": (in_reference, {"swiommu.cli"}),  # the command line's page is commands.md
    "swiommu/__init__.py": (in_docstring, {"cma_compat"}),
}


@pytest.mark.parametrize("where", MAPS)
def test_every_map_of_the_house_is_that_of_the_imports(where):
    """From the ground up: every room once, and none below what it may import."""
    draw, left_out = MAPS[where]
    names = draw()
    floor = {room: number for number, layer in enumerate(reversed(layers())) for room in layer}
    assert sorted(names) == sorted(floor.keys() - left_out)
    assert names == sorted(names, key=floor.__getitem__)  # which keeps the order inside a layer


def test_every_room_has_a_reference_page():
    pages = {path.stem for path in (ROOT / "docs" / "reference").glob("*.md")}
    names = {room.removeprefix("swiommu.").split(".")[0] for room in rooms()} - {"swiommu"}
    assert sorted(names - pages - {"cli"}) == []  # the command line's page is commands.md


@pytest.mark.parametrize("page", ["README.md", "CHANGELOG.md"])
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", (ROOT / page).read_text(encoding="utf-8"))
    assert [link for link in links if "://" not in link and not (ROOT / link).exists()] == []


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "decisions").glob("0*.md")), ids=lambda path: path.name)
def test_decision_note_is_short_and_whole(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 36  # 30 of text, and the headings
    assert re.match(rf"# {'NNNN' if path.name.startswith('0000') else path.name[:4]}: \w", text)
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["Context", "Choice", "Consequences"]
