"""The import flow: Kaldi's features and alignments in, a feature set out."""

from prefect import flow, task

from featurize.import_kaldi import import_kaldi
from featurize.import_kaldi_config import KaldiImportConfig
from featurize.stage import Location, StageResult
from flows.featurize_flow import publish_features
from flows.retries import RETRIED, is_first_attempt
from flows.run_logging import send_logs_to_runs

send_logs_to_runs()


@flow(name="import-kaldi", flow_run_name="import-kaldi")
def import_kaldi_flow(config: KaldiImportConfig, runs: str, force: bool = False) -> StageResult:
    """Import Kaldi's features and alignments, or find them imported.

    Args:
        config: what to import.
        runs: root of all stages' results, a path or ``s3://`` address.
        force: import again even if it is done.
    """
    result = import_tables(config, runs, force)
    publish_features(result)
    return result


@task(name="import-tables", **RETRIED)
def import_tables(config: KaldiImportConfig, runs: str, force: bool) -> StageResult:
    """Run the import stage."""
    return import_kaldi(config, Location.of(runs), force=force and is_first_attempt())
