"""GPU models as data: the shipped catalogue, and models a plan declares for itself."""

from functools import cache

from msgspec import Struct

from pumasi.model.fleet import MAX_GPUS_PER_NODE, SLICES_PER_GPU_MAX, CpuArch, GpuModel, MigProfile, is_slice
from pumasi.model.ids import GpuModelId
from pumasi.plans.basis import Provenance, read_provenance
from pumasi.plans.locate import find_data_file
from pumasi.plans.problems import PlanError, Problems, quoted
from pumasi.plans.section import Section
from pumasi.plans.yaml_tree import Mapping, parse_yaml

CATALOGUE_FILE = "gpu_models.yaml"


class NodeShape(Struct, frozen=True, kw_only=True):
    """How nodes of a GPU model are usually built; a pool says what differs."""

    cpus: int = 0
    memory_mib: int = 0
    nodes_per_rack: int = 1
    racks_per_block: int = 1


class CatalogueEntry(Struct, frozen=True, kw_only=True):
    """A GPU model and the usual shape of its nodes."""

    model: GpuModel
    shape: NodeShape


class Catalogue(Struct, frozen=True, kw_only=True):
    """GPU models by id, with the origin of their figures."""

    entries: dict[GpuModelId, CatalogueEntry]
    provenance: Provenance


@cache
def shipped_catalogue() -> Catalogue:
    """The catalogue that ships with Pumasi.

    :raises PlanError: if the file was damaged.
    """
    path = find_data_file(CATALOGUE_FILE)
    problems = Problems(str(path))
    root = parse_yaml(path.read_bytes(), problems)
    if not isinstance(root, Mapping):
        raise PlanError(problems.listed())
    section = Section(root, "", problems, basis=True)
    provenance = read_provenance(section)
    entries = read_gpu_models(section)
    section.finish()
    if problems.count:
        raise PlanError(problems.listed())
    return Catalogue(entries=entries, provenance=provenance)


def read_gpu_models(root: Section) -> dict[GpuModelId, CatalogueEntry]:
    """The section `gpu_models` of a plan or catalogue."""
    return {name: _entry(name, section) for name, section in root.sections("gpu_models")}


def _entry(name: str, section: Section) -> CatalogueEntry:
    model = GpuModel(
        id=name,
        title=section.text("title", name),
        gpus_per_node=section.integer("gpus_per_node", minimum=1, maximum=MAX_GPUS_PER_NODE),
        nvlink_nodes=section.integer("nvlink_nodes", 1, minimum=1, maximum=1024),
        memory_gib=section.integer("memory_gib", minimum=1, maximum=100_000),
        cpu_arch=section.choice("cpu_arch", CpuArch),
        gpu_watts=section.integer("gpu_watts", minimum=1, maximum=100_000),
        planning_watts=section.integer("planning_watts", minimum=1, maximum=100_000),
        mig_profiles=_mig_profiles(section),
    )
    shape = _shape(section.section("node"), model.nvlink_nodes)
    section.finish()
    return CatalogueEntry(model=model, shape=shape)


def _mig_profiles(section: Section) -> tuple[MigProfile, ...]:
    counts = section.integers("mig_profiles", minimum=1, maximum=SLICES_PER_GPU_MAX)
    for name in counts:
        if not is_slice(name):
            section.complain("mig_profiles", f"{quoted(name)} is no MIG profile; one looks like 1g.23gb")
    return tuple(MigProfile(name, per_gpu) for name, per_gpu in counts.items())


def _shape(section: Section, nvlink_nodes: int) -> NodeShape:
    shape = NodeShape(
        cpus=section.integer("cpus", 0, maximum=100_000),
        memory_mib=1024 * section.integer("memory_gib", 0, maximum=10_000_000),
        nodes_per_rack=section.integer("nodes_per_rack", nvlink_nodes, minimum=1, maximum=1024),
        racks_per_block=section.integer("racks_per_block", 1, minimum=1, maximum=100_000),
    )
    section.finish()
    return shape
