"""What gives out first as a corpus grows: bounds, and the hours of audio at which they are met.

Every line is a cost that grows with the hours, measured per piece, against a bound that is stated.
"""

from pydantic import Field

from featurize.stage import TypedConfig
from flows.scaling.costs import (
    SIXTY_THOUSAND,
    Rates,
    SpeechCorpus,
    Workload,
    num_shards,
    speakers_of_shard,
)

DRIVER_GIB = 16.0
WORKER_GIB = 4.0
MANIFEST_MIB = 256.0
"""``featurize.stage`` reads no larger one."""
DAY_S = 86_400.0
HOUR_S = 3_600.0
S3_GETS_PER_S = 5_500.0
"""What Amazon S3 states for one prefix."""
READS_PER_GROUP = 3
"""Requests for a row group whose footer is known: two for its size, one for its bytes."""


class Limit(TypedConfig):
    """Something that gives out."""

    what: str = Field(description="What.")
    figure: str = Field(description="What it costs per piece, measured.")
    bound: str = Field(description="Where it gives out.")
    hours: float = Field(description="Hours of audio at which it does.")
    remedy: str = Field(description="What would move it.")


class Growth(TypedConfig):
    """What an hour of a corpus consists of."""

    utterances: float = Field(description="In an hour.")
    shards: float = Field(description="In an hour.")
    speakers_of_shard: float = Field(description="In each shard.")

    @classmethod
    def of(cls, corpus: SpeechCorpus, work: Workload) -> "Growth":
        """As a corpus is made up."""
        return cls(
            utterances=corpus.num_utterances / corpus.hours,
            shards=num_shards(work, corpus) / corpus.hours,
            speakers_of_shard=speakers_of_shard(corpus.num_speakers, work.utterances_per_shard),
        )


class Pieces(TypedConfig):
    """What was measured besides the rates; see ``flows.scaling.result.Footprint``."""

    entry_bytes: float
    part_bytes: float
    index_bytes: float
    manifest_bytes: float
    row_group_size: int


def find_limits(
    rates: Rates, work: Workload, pieces: Pieces, corpus: SpeechCorpus = SIXTY_THOUSAND
) -> tuple[Limit, ...]:
    """Every bound with the hours at which it is met, the nearest first."""
    growth = Growth.of(corpus, work)
    parts = growth.shards * growth.speakers_of_shard
    found = [
        Limit(
            what="moments of every speaker of every shard, held by featurize's driver",
            figure=f"{pieces.part_bytes:,.0f} bytes x {growth.speakers_of_shard:.0f} speakers a "
            f"shard of {work.utterances_per_shard}",
            bound=f"{DRIVER_GIB:g} GiB",
            hours=DRIVER_GIB * 2**30 / (parts * pieces.part_bytes),
            remedy="add each shard's moments to the speakers' as it is done; keep utterances of "
            "a speaker together in shards",
        ),
        Limit(
            what="the plan's list of utterances, held by featurize's driver",
            figure=f"{pieces.entry_bytes:,.0f} bytes an utterance",
            bound=f"{DRIVER_GIB:g} GiB",
            hours=DRIVER_GIB * 2**30 / (growth.utterances * pieces.entry_bytes),
            remedy="plan subset by subset; larger machines for the driver",
        ),
        Limit(
            what="scanning the corpus, one process",
            figure=f"{1e6 * rates.scan_s_per_utterance:.0f} us an utterance, on a local disk",
            bound="one day",
            hours=DAY_S / (growth.utterances * rates.scan_s_per_utterance),
            remedy="scan subsets side by side; on S3, where each listing is a request, the sooner",
        ),
        Limit(
            what="aligning and writing, one process",
            figure=f"{rates.align.per_unit_s:.3g} s an hour of audio",
            bound="one day",
            hours=DAY_S / rates.align.per_unit_s,
            remedy="fan the shards out, as featurize does: each is aligned by itself",
        ),
        Limit(
            what="index and an epoch's plan, held by every training worker",
            figure=f"{pieces.index_bytes:,.0f} bytes an utterance",
            bound=f"{WORKER_GIB:g} GiB a worker",
            hours=WORKER_GIB * 2**30 / (growth.utterances * pieces.index_bytes),
            remedy="arrays in place of tuples; plan a window at a time",
        ),
        Limit(
            what="reading the label columns, every worker, every start",
            figure=f"{1e6 * rates.index_s_per_utterance:.0f} us an utterance, on a local disk",
            bound="one hour",
            hours=HOUR_S / (growth.utterances * rates.index_s_per_utterance),
            remedy="write an index beside the shards, once",
        ),
        Limit(
            what="drawing an epoch's batches, every worker",
            figure=f"{1e6 * rates.plan_s_per_utterance:.0f} us an utterance",
            bound="one hour an epoch",
            hours=HOUR_S / (growth.utterances * rates.plan_s_per_utterance),
            remedy="plan a window at a time, in the thread that reads ahead",
        ),
        Limit(
            what="the manifest, read whole by every process",
            figure=f"{pieces.manifest_bytes:,.0f} bytes a shard",
            bound=f"{MANIFEST_MIB:g} MiB",
            hours=MANIFEST_MIB * 2**20 / (growth.shards * pieces.manifest_bytes),
            remedy="more utterances in a shard",
        ),
        Limit(
            what="opening row groups on S3, an epoch in one hour by workers that open each once",
            figure=f"{READS_PER_GROUP} requests for {pieces.row_group_size} utterances",
            bound=f"{S3_GETS_PER_S:,.0f} requests/s",
            hours=HOUR_S
            * S3_GETS_PER_S
            * pieces.row_group_size
            / (growth.utterances * READS_PER_GROUP),
            remedy="larger row groups (featurize.row_group_size); asking for the size once; "
            "features copied to local disks",
        ),
    ]
    if rates.task_run_s is not None:
        found.append(
            Limit(
                what="a Prefect task run for each shard, one flow process",
                figure=f"{1000 * rates.task_run_s:.0f} ms a task run",
                bound="one day",
                hours=DAY_S / (growth.shards * rates.task_run_s),
                remedy="more utterances in a shard, or a task run for many shards",
            )
        )
    return tuple(sorted(found, key=lambda limit: limit.hours))
