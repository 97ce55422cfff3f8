"""Pin bundles (measure, check, draft, store under a name), and remove them."""

from __future__ import annotations

from lake.bundles.cache import Cache
from lake.bundles.contents import Contents
from lake.bundles.draft import Assessment
from lake.bundles.gates import require_score
from lake.bundles.known import KnownIndex
from lake.bundles.left_out import log_left_out
from lake.bundles.pin import Measurement, PinRequest, build_draft, measure
from lake.bundles.repository import Repository
from lake.jobs.quality.pin_report import assess
from lake.model.progress import Progress
from lake.settings import Settings
from lake.store import locks
from lake.store.damages import UNREADABLE
from lake.store.store import Store


def pin(
    store: Store,
    repository: Repository,
    settings: Settings,
    request: PinRequest,
    progress: Progress,
) -> Contents:
    """Pin a selection of tables under a name; the lake deletes no files meanwhile.

    Raises
    ------
    UnknownNameError
        A table does not exist, or has no rows of a market in the range.
    QualityError
        An interval is missing or the score is too low for the request.
    UsageError
        The name is invalid, or names a bundle with other rows; or a bundle has the same rows with
        other times of receipt.
    CommitConflictError
        Tables changed too often to read them at one moment, or files are being deleted.
    DamagedError
        A data file is not as it was committed, or as an earlier bundle lists it.
    """
    repository.require_name(request.name)
    known = KnownIndex(repository)
    with locks.lock_for_pin(store.root):
        measurement = measure(store, known, request, progress)
        assessment = _assess(store, settings, measurement, progress) if request.check else None
        if request.min_quality is not None:
            require_score(request.min_quality, assessment.score if assessment else None)
        draft = build_draft(store, measurement, assessment)
        repository.require_free(request.name, draft.id, move=request.move)
        contents = repository.store(draft)
        repository.point(request.name, contents.id)
        known.update()
    for table in measurement.tables:
        log_left_out(table.ref, table.open_bars, request.as_of or measurement.now)
    return contents


def remove_bundle(
    repository: Repository, cache: Cache | None, reference: str
) -> tuple[str, list[str]]:
    """Remove a bundle, so that a vacuum may delete its files; return its id and its names.

    Raises
    ------
    UnknownNameError
        The reference matches no bundle, or several.
    CommitConflictError
        A bundle is being pinned.
    """
    with locks.lock_for_deletion(repository.root):
        bundle_id = repository.resolve(reference)
        names = repository.remove(bundle_id)
        KnownIndex(repository).update()
    if cache is not None:
        cache.remove(bundle_id)
    return bundle_id, names


def _assess(
    store: Store, settings: Settings, measurement: Measurement, progress: Progress
) -> Assessment:
    try:
        return assess(
            store,
            settings,
            f"Bundle {measurement.request.name}",
            [table.snapshot for table in measurement.tables],
            [table.ref.selection.selection for table in measurement.tables],
            measurement.request.as_of,
            progress,
        )
    except UNREADABLE as error:
        raise type(error)(
            f"the pinned rows cannot be checked: {error.message}",
            f"{error.hint} To pin without a check and without a score: --no-check.",
        ) from error
