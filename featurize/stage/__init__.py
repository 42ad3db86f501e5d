"""What every stage stands on, behind one door: import these names from here.

A stage is a pure function of (typed configuration, upstream location) that writes to a location
named by the fingerprint of all that determines its result. :func:`run_stage` does the work once;
a :class:`Location` is local or on S3; the lease lets one run at a time work at a location; every
file of a result has a checksum in its manifest.
"""

from featurize.stage.errors import PipelineError
from featurize.stage.fanout import (
    FanOut,
    Progress,
    WorkerPool,
    available_cores,
    run_fan_out,
    worker_pool,
)
from featurize.stage.integrity import (
    Damage,
    FileChecksum,
    check_file,
    content_digest,
    damage_error,
    find_damage,
    sha256_of,
    take_checksums,
)
from featurize.stage.lease import check_token, drop_claims_of_the_dead, held_lease, held_token
from featurize.stage.locations import Location
from featurize.stage.manifest import (
    MANIFEST_COPY_NAME,
    MANIFEST_NAME,
    UNSEALED_NAMES,
    StageManifest,
    is_finished,
    parse_manifest,
    read_manifest,
    read_manifest_bytes,
    read_vouched,
    software_versions,
    timestamp,
    write_manifest,
    write_sealed,
)
from featurize.stage.ray_session import call_on_ray, ray_session
from featurize.stage.run import StageResult, fingerprint, run_stage
from featurize.stage.termination import call_interruptibly, termination_handler_kept
from featurize.stage.typed_config import InFingerprint, TypedConfig, VerifyMode

__all__ = [
    "MANIFEST_COPY_NAME",
    "MANIFEST_NAME",
    "UNSEALED_NAMES",
    "Damage",
    "FanOut",
    "FileChecksum",
    "InFingerprint",
    "Location",
    "PipelineError",
    "Progress",
    "StageManifest",
    "StageResult",
    "TypedConfig",
    "VerifyMode",
    "WorkerPool",
    "available_cores",
    "call_interruptibly",
    "call_on_ray",
    "check_file",
    "check_token",
    "content_digest",
    "damage_error",
    "drop_claims_of_the_dead",
    "find_damage",
    "fingerprint",
    "held_lease",
    "held_token",
    "is_finished",
    "parse_manifest",
    "ray_session",
    "read_manifest",
    "read_manifest_bytes",
    "read_vouched",
    "run_fan_out",
    "run_stage",
    "sha256_of",
    "software_versions",
    "take_checksums",
    "termination_handler_kept",
    "timestamp",
    "worker_pool",
    "write_manifest",
    "write_sealed",
]
