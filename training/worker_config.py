"""Configuration of the workers that train."""

from typing import Self

from pydantic import Field, model_validator

from featurize.stage import TypedConfig, VerifyMode


class WorkerConfig(TypedConfig):
    """Where training runs; changes its result by rounding alone, so no part of a fingerprint."""

    num_workers: int = Field(
        1,
        ge=1,
        description="Processes that train together, each on a share of every batch; on one "
        "machine at most as many as it has cores or GPUs.",
    )
    min_workers: int | None = Field(
        None,
        ge=1,
        description="Go on with so few when machines leave, and grow back when they return; "
        "empty: wait for num_workers.",
    )
    resize_check_s: float = Field(
        60.0,
        gt=0,
        description="How often a smaller group looks for machines that returned. It grows by "
        "starting anew from the last finished epoch: longer than an epoch, or epochs are lost.",
    )
    use_gpu: bool = Field(False, description="Give each worker one GPU (NCCL); else CPUs (gloo).")
    cpus_per_worker: float = Field(1.0, gt=0, description="CPUs that Ray reserves for each worker.")
    resources_per_worker: dict[str, float] = Field(
        default_factory=dict,
        description="What else each worker reserves, by Ray's names: memory (bytes), or a custom "
        "resource of the nodes that shall train.",
    )
    cluster_grows: bool = Field(
        False, description="Wait for workers that an autoscaling cluster has no room for yet."
    )
    threads_per_worker: int | None = Field(
        None,
        ge=1,
        description="Compute threads of each worker; empty shares out the cores of the machine.",
    )
    bfloat16: bool = Field(
        False,
        description="Compute in bfloat16 on a GPU where that is safe (autocast), and the "
        "recurrence's products in TF32; faster, with other rounding.",
    )
    max_failures: int = Field(
        2,
        ge=0,
        description="How many losses of workers a training survives, each by going on from its "
        "last finished epoch.",
    )
    verify_features: VerifyMode = Field(
        "sampled",
        description="Check the feature shards against their manifest before training: off, "
        "sampled (all sizes, one file in eight whole) or full.",
    )
    in_process: bool = Field(
        False, description="Train in this process without Ray (one worker; tests and debugging)."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.min_workers is not None and self.min_workers > self.num_workers:
            raise ValueError(
                f"min_workers={self.min_workers} exceeds num_workers={self.num_workers}; lower it"
            )
        own = sorted({"CPU", "GPU"} & {name.upper() for name in self.resources_per_worker})
        if own:
            raise ValueError(
                f"resources_per_worker names {own[0]}; use cpus_per_worker and use_gpu for it"
            )
        if any(amount <= 0 for amount in self.resources_per_worker.values()):
            raise ValueError(
                "resources_per_worker: amounts are above 0; leave out what is not needed"
            )
        return self
