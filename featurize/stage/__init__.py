"""What every stage needs; everything outside this package imports these names from here.

A stage is a pure function of (typed configuration, upstream location) that writes to a location
named by the fingerprint of all that determines its result. :func:`run_stage` does the work once;
a :class:`Location` is local or on S3; the lease lets one run at a time work at a location; every
file of a result has a checksum in its manifest.

A name is loaded when it is first asked for: an exported model runs with three of them, and starting
it must not load the rest.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from featurize.stage.errors import PipelineError, condense, is_of_the_store
    from featurize.stage.fanout import (
        FanOut,
        Progress,
        WorkerPool,
        available_cores,
        processes_of,
        run_fan_out,
        worker_pool,
    )
    from featurize.stage.integrity import Damage, FileChecksum, damage_error, find_damage, sha256_of
    from featurize.stage.lease import check_token, held_lease, held_token
    from featurize.stage.locations import Location, is_folder_marker
    from featurize.stage.manifest import (
        MANIFEST_NAME,
        StageManifest,
        is_finished,
        read_checked,
        read_manifest,
        software_versions,
        timestamp,
        write_manifest,
    )
    from featurize.stage.owner import process_start
    from featurize.stage.ray_cluster import call_on_ray, ray_session
    from featurize.stage.registry import Registry, attribute_at
    from featurize.stage.restore import SealedResult
    from featurize.stage.run import StageResult, fingerprint, run_stage
    from featurize.stage.tables import TableWriter, write_table
    from featurize.stage.typed_config import InFingerprint, TypedConfig, VerifyMode

__all__ = [
    "MANIFEST_NAME",
    "Damage",
    "FanOut",
    "FileChecksum",
    "InFingerprint",
    "Location",
    "PipelineError",
    "Progress",
    "Registry",
    "SealedResult",
    "StageManifest",
    "StageResult",
    "TableWriter",
    "TypedConfig",
    "VerifyMode",
    "WorkerPool",
    "attribute_at",
    "available_cores",
    "call_on_ray",
    "check_token",
    "condense",
    "damage_error",
    "find_damage",
    "fingerprint",
    "held_lease",
    "held_token",
    "is_finished",
    "is_folder_marker",
    "is_of_the_store",
    "process_start",
    "processes_of",
    "ray_session",
    "read_checked",
    "read_manifest",
    "run_fan_out",
    "run_stage",
    "sha256_of",
    "software_versions",
    "timestamp",
    "worker_pool",
    "write_manifest",
    "write_table",
]

# In an order in which a module needs only those before it.
_MODULES = (
    *("errors", "typed_config", "locations", "termination", "ray_cluster", "fanout"),
    *("integrity", "owner", "lease", "manifest", "restore", "run", "tables", "registry"),
)

if not TYPE_CHECKING:  # or a checker would take any name for one of ours

    def __getattr__(name: str) -> object:
        """The name, from the first module that has it; it is kept here from then on."""
        if name in __all__:
            for module in _MODULES:
                loaded = import_module(f"{__name__}.{module}")
                if hasattr(loaded, name):
                    globals()[name] = getattr(loaded, name)
                    return globals()[name]
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
