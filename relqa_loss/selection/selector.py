"""Choosing among the checkpoints of a run, for a stated reason."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from torch import Tensor

from relqa_loss._numbers import whole_number
from relqa_loss.selection import sentences
from relqa_loss.selection.ledger import Decision, Entry, Ledger
from relqa_loss.selection.statistics import (
    Interval,
    check_options,
    paired_interval,
)
from relqa_loss.selection.store import CheckpointFolder
from relqa_loss.selection.veto import check_veto, find_vetoes, signed_profile

Scores = Mapping[str, Any] | Sequence[float] | Sequence[Tensor] | Tensor | np.ndarray[Any, Any]
"""One number per image: by key, or in an order that never changes."""


class CheckpointSelector:
    """Chooses a checkpoint by per-image scores, and keeps its weights and the reasons on disk.

    Checkpoints are compared on the same images, one by one, so that a small steady gain shows
    through images of different difficulty. NaN and infinite scores never win. Of equal means the
    earlier step wins. Everything is a function of the scores: the ledger (``ledger.json``, for
    people as well) holds them all, every file is written whole or not at all, and a run that was
    killed at any moment and resumed decides as if it had not been. A step repeated after a resume
    with the same scores gets its recorded decision back; with others, as training is not always
    repeatable, it counts as a further checkpoint.

    Args:
        folder: For weights and ledger, written by one process; ``None`` keeps scores only.
        mode: ``"min"`` for a distance, ``"max"`` for a score.
        rule: ``"best"`` chooses the best mean; ``"earliest"`` the earliest of the kept checkpoints
            whose difference to the best mean may be noise, that is, whose interval covers zero.
        veto: Tolerance per channel. ``{"ringing": 0.02}`` never chooses a checkpoint with more
            ringing than the baseline by more than 0.02; ``{"-sharpness": 0.02}`` none with less
            sharpness.
        baseline: Profile that vetoes compare with; by default that of the first checkpoint.
        keep: How many of the best checkpoints keep their weights, the chosen one always; ``None``
            for all candidates.
        metric: Its name, for the sentences.
        version: What the scores depend on, such as :attr:`ImageScores.version`. A ledger of
            another one is not continued: its scores are on another scale.
        confidence: Level of the intervals.
        resamples: Of the bootstrap.
        seed: Of the bootstrap.
        resume: Continue from the ledger in the folder, if there is one; without it, an existing
            one is an error.

    Raises:
        TypeError: For fractions where whole numbers are needed.
        ValueError: For unknown options; if the ledger cannot be read or has other settings.
        FileExistsError: If the folder has a ledger or weights and ``resume`` is not given.
        FileNotFoundError: If weights that the ledger names are gone.
        OSError: If the folder cannot be written to.

    Example:
        >>> import tempfile
        >>> from torch import nn
        >>> from relqa_loss.selection import CheckpointSelector
        >>> model = nn.Linear(2, 1)
        >>> selector = CheckpointSelector(tempfile.mkdtemp(), veto={"ringing": 0.02})
        >>> rings = {"ringing": 0.0}
        >>> _ = selector.update(0, [0.5, 0.25], state=model.state_dict(), profile=rings)
        >>> rings = {"ringing": 0.25}
        >>> selector.update(1, [0.25, 0.125], state=model.state_dict(), profile=rings).reason
        'step 1: mean loss 0.1875, vetoed: more ringing than step 0 by 0.25 (tolerance 0.02); \
step 0 stays chosen'
        >>> _ = model.load_state_dict(selector.load())
    """

    def __init__(
        self,
        folder: str | os.PathLike[str] | None = None,
        *,
        mode: Literal["min", "max"] = "min",
        rule: Literal["best", "earliest"] = "best",
        veto: Mapping[str, float] | None = None,
        baseline: Mapping[str, Any] | None = None,
        keep: int | None = 1,
        metric: str = "loss",
        version: str | None = None,
        confidence: float = 0.95,
        resamples: int = 2000,
        seed: int = 0,
        resume: bool = False,
    ) -> None:
        if mode not in ("min", "max"):
            raise ValueError(f"mode must be 'min' or 'max', got {mode!r}")
        if rule not in ("best", "earliest"):
            raise ValueError(f"rule must be 'best' or 'earliest', got {rule!r}")
        if keep is not None:
            keep = whole_number("keep", keep)
            if keep < 1:
                raise ValueError(f"keep must be at least 1, or None for all; got {keep}")
        check_options(confidence, resamples, seed)
        self._sign = 1 if mode == "min" else -1
        self._veto = check_veto(veto)
        self._baseline = None
        if baseline is not None:
            self._baseline = signed_profile(baseline, self._veto)
            if not _finite(self._baseline, self._veto):
                raise ValueError(
                    f"baseline must be finite in vetoed channels, got {dict(baseline)}"
                )
        self._ledger = Ledger(
            {
                "mode": mode,
                "rule": rule,
                "veto": self._veto,
                "baseline": self._baseline,
                "keep": keep,
                "metric": metric,
                "version": version,
                # JSON takes no numbers of NumPy.
                "confidence": float(confidence),
                "resamples": int(resamples),
                "seed": int(seed),
            }
        )
        self._store = None if folder is None else CheckpointFolder(folder)
        if self._store is not None:
            self._open(self._store, resume)

    @property
    def entries(self) -> tuple[Entry, ...]:
        """Every checkpoint so far, in order of arrival."""
        return self._ledger.entries

    @property
    def chosen(self) -> Entry | None:
        """The chosen checkpoint."""
        pool = _candidates(self.entries)
        return pool[self._choose(pool)[1]] if pool else None

    @property
    def best(self) -> Entry | None:
        """The candidate with the best mean."""
        pool = _candidates(self.entries)
        return pool[self._choose(pool)[0]] if pool else None

    @property
    def reason(self) -> str:
        """Which checkpoint is chosen of how many, and how it compares with the first one."""
        chosen, entries = self.chosen, self.entries
        if chosen is None:
            return f"no checkpoint is chosen: none of {len(entries)} is a candidate"
        metric, rule = self._ledger.settings["metric"], self._ledger.settings["rule"]
        title = "best" if rule == "best" else "earliest within the noise of the best"
        text = (
            f"step {chosen.step} is chosen: mean {metric} {chosen.mean:.4g}, the {title} of "
            f"{len(entries)} checkpoints"
        )
        rejected = sum(entry.rejected is not None for entry in entries)
        if rejected:
            text += f" ({rejected} ruled out)"
        first = entries[0]
        if first is not chosen and all(map(math.isfinite, first.values)):
            text += f"; {self._compare(chosen, first)}"
        return text

    def update(
        self,
        step: int,
        values: Scores,
        *,
        state: Mapping[str, Any] | None = None,
        profile: Mapping[str, Any] | None = None,
    ) -> Decision:
        """Offer a checkpoint.

        Args:
            step: When it was reached.
            values: Score per image, by key or by position, of the same images every time.
            state: Tensors to save, as of ``model.state_dict()``. They are copied, and written if
                the checkpoint is kept.
            profile: Mean signed map per channel, or the result of ``DistortionProfile``; needed
                for vetoes.

        Returns:
            The decision and its reason.

        Raises:
            ValueError: If the images are not those of the first checkpoint, or a vetoed channel
                is missing in the profile.
            TypeError: If ``state`` holds something other than tensors.
            OSError: If a file cannot be written; selector and folder are as they were before.
        """
        step = whole_number("step", step)
        images, numbers = self._match(*_read_scores(values))
        signed = signed_profile(profile, self._veto)
        for entry in self.entries:
            if entry.step == step and np.array_equal(entry.values, numbers, equal_nan=True):
                return entry.decision
        if self._ledger.settings["rule"] == "earliest" and len(numbers) < 2:
            raise ValueError(
                "rule='earliest' needs scores of at least 2 images to tell noise from progress, "
                "got 1: validate on more, or use rule='best'"
            )
        mean = _mean(numbers)
        rejected = self._reject(numbers, images, mean, signed, step)
        blank = Decision(step, mean, False, None, None, "")
        new = Entry(step, numbers, mean, signed, rejected, rejected is None, None, blank)
        entries, decision = self._decide(new)
        new = replace(entries[-1], decision=decision)
        if new.kept and state is not None and self._store is not None:
            new = replace(new, file=self._store.save(len(entries) - 1, step, state))
        self._commit(Ledger(self._ledger.settings, images, (*entries[:-1], new)), new.file)
        return decision

    def load(self, step: int | None = None) -> dict[str, Tensor]:
        """Weights of the chosen checkpoint, or of another one that is kept, on the CPU.

        Raises:
            FileNotFoundError: If there are none.
            ValueError: If the file is damaged.
        """
        found = [self.chosen] if step is None else [e for e in self.entries if e.step == step]
        for entry in reversed(found):
            if entry is not None and entry.file is not None and self._store is not None:
                return self._store.load(entry.file)
        wanted = "a chosen checkpoint" if step is None else f"step {step}"
        kept = [entry.step for entry in self.entries if entry.file is not None]
        raise FileNotFoundError(f"no weights of {wanted} are kept; there are those of steps {kept}")

    def _open(self, store: CheckpointFolder, resume: bool) -> None:
        if store.ledger_path.exists():
            if not resume:
                raise FileExistsError(
                    f"{store.ledger_path} exists; give resume=True or a new folder"
                )
            try:
                ledger = Ledger.from_json(store.ledger_path.read_text("utf-8"))
            except ValueError as error:
                raise ValueError(f"{store.ledger_path}: {error}") from error
            # One of the two may not know: a ledger of before, or who only looks at the choice.
            begun, given = ledger.settings.get("version"), self._ledger.settings["version"]
            settings = {**self._ledger.settings, "version": given or begun}
            ledger = replace(ledger, settings={**ledger.settings, "version": begun or given})
            for name, value in settings.items():
                if ledger.settings.get(name) != value:
                    raise ValueError(
                        f"{store.ledger_path} was begun with {name}="
                        f"{ledger.settings.get(name)!r}, not {value!r}: use the same settings or "
                        "a new folder"
                    )
            self._ledger = ledger
            for file in _files(ledger):
                if not (store.folder / file).is_file():
                    raise FileNotFoundError(
                        f"{store.folder / file} is kept according to {store.ledger_path}, but it "
                        "is gone: bring it back or use a new folder"
                    )
        elif any(path.suffix == ".safetensors" for path in store.leftovers(())):
            raise FileExistsError(
                f"{store.folder} holds checkpoints without a ledger; use a new one"
            )
        # Written even when nothing changes: a folder that cannot be written to is found out now.
        self._commit(self._ledger, None)

    def _commit(self, ledger: Ledger, new_file: str | None) -> None:
        """Weights first, then the ledger, then the clean-up: a kill between any two is harmless."""
        if self._store is not None:
            try:
                self._store.write_ledger(ledger.to_json())
            except OSError:
                if new_file is not None:
                    (self._store.folder / new_file).unlink(missing_ok=True)
                raise
        self._ledger = ledger
        if self._store is not None:
            for path in self._store.leftovers(_files(ledger)):
                path.unlink(missing_ok=True)

    def _match(
        self, keys: tuple[str, ...] | None, numbers: tuple[float, ...]
    ) -> tuple[tuple[str, ...] | int, tuple[float, ...]]:
        """The images, and the scores in their order."""
        images = self._ledger.images
        given: tuple[str, ...] | int = len(numbers) if keys is None else tuple(sorted(keys))
        if images is None:
            images = given
        if images != given:
            raise ValueError(
                "every checkpoint must be scored on the same images: " + _mismatch(images, given)
            )
        if keys is None:
            return images, numbers
        by_key = dict(zip(keys, numbers, strict=True))
        return images, tuple(by_key[key] for key in sorted(keys))

    def _reject(
        self,
        numbers: tuple[float, ...],
        images: tuple[str, ...] | int,
        mean: float,
        profile: Mapping[str, float] | None,
        step: int,
    ) -> str | None:
        bad = sentences.not_finite(numbers, images)
        if bad is not None:
            return f"not a candidate: {bad}"
        if not math.isfinite(mean):
            return "not a candidate: the mean of its scores is not finite"
        if not self._veto or profile is None:
            return None
        if not _finite(profile, self._veto):
            return "vetoed: its profile is not finite in the channels that are limited"
        baseline, name = self._baseline, "the baseline"
        if baseline is None:
            earlier = (e for e in self.entries if e.profile and _finite(e.profile, self._veto))
            first = next(earlier, None)
            if first is None or first.profile is None:
                return None
            baseline, name = dict(first.profile), f"step {first.step}"
        phrases = find_vetoes(profile, baseline, self._veto, name)
        return f"vetoed: {', '.join(phrases)}" if phrases else None

    def _decide(self, new: Entry) -> tuple[list[Entry], Decision]:
        """All entries as retention leaves them, the new one last, and the decision."""
        settings = self._ledger.settings
        before_best, before_chosen = self.best, self.chosen
        entries = [*self.entries, new]
        pool = _candidates(entries)
        title = f"step {new.step}: {sentences.mean_of(settings['metric'], new.mean)}"
        if not pool:
            text = f"{title}, {new.rejected}; there is no candidate yet"
            return entries, replace(new.decision, reason=text)
        best_at, chosen_at = self._choose(pool)
        best, chosen = pool[best_at], pool[chosen_at]
        order = sorted(range(len(pool)), key=lambda at: self._rank(pool[at]))
        keep = {id(pool[at]) for at in (*order[: settings["keep"]], best_at, chosen_at)}
        entries = [e if id(e) in keep or not e.kept else e.dropped() for e in entries]

        if new.rejected is not None:
            text = f"{title}, {new.rejected}"
        elif before_best is None:
            text = f"{title}, the first candidate ({sentences.count_images(len(new.values))})"
        else:
            text = f"{title}, {self._compare(new, before_best)}"
        if chosen is not new:
            verb = "stays chosen" if chosen is before_chosen else "is now chosen"
            text += f"; step {chosen.step} {verb}"
        if chosen is not best:
            text += f", the earliest kept within the noise of step {best.step}"
        decision = Decision(new.step, new.mean, chosen is new, chosen.step, best.step, text)
        return entries, decision

    def _choose(self, pool: Sequence[Entry]) -> tuple[int, int]:
        """Where the best and the chosen one are in a pool of candidates."""
        best = min(range(len(pool)), key=lambda at: self._rank(pool[at]))
        if self._ledger.settings["rule"] == "best":
            return best, best
        for at in sorted(range(len(pool)), key=lambda at: pool[at].step):
            if at == best or self._gain(pool[at], pool[best]).covers_zero:
                return best, at
        return best, best

    def _rank(self, entry: Entry) -> tuple[float, int]:
        # Sorting is stable, so of equal steps the first to arrive comes first.
        return self._sign * entry.mean, entry.step

    def _gain(self, entry: Entry, other: Entry) -> Interval:
        """By how much an entry is better than another one."""
        settings = self._ledger.settings
        first, second = (other, entry) if self._sign > 0 else (entry, other)
        return paired_interval(
            first.values,
            second.values,
            confidence=settings["confidence"],
            resamples=settings["resamples"],
            seed=settings["seed"],
        )

    def _compare(self, entry: Entry, other: Entry) -> str:
        return sentences.compare(
            f"step {other.step}",
            self._gain(entry, other),
            self._ledger.settings["confidence"],
            len(entry.values),
        )


def _candidates(entries: Sequence[Entry]) -> list[Entry]:
    return [entry for entry in entries if entry.kept]


def _files(ledger: Ledger) -> list[str]:
    return [entry.file for entry in ledger.entries if entry.file is not None]


def _finite(profile: Mapping[str, float] | None, names: Mapping[str, float]) -> bool:
    return profile is not None and all(
        math.isfinite(profile[name.removeprefix("-")]) for name in names
    )


def _mean(numbers: Sequence[float]) -> float:
    try:
        return math.fsum(numbers) / len(numbers)
    except (OverflowError, ValueError):  # a sum too large; inf − inf
        return math.nan


def _read_scores(values: Scores) -> tuple[tuple[str, ...] | None, tuple[float, ...]]:
    """Keys, if there are any, and numbers."""
    keys = None
    if isinstance(values, Mapping):
        keys = tuple(str(key) for key in values)
        if len(set(keys)) < len(keys):
            raise ValueError("values must have keys that differ as text; some do not")
        values = [float(value) for value in values.values()]
    if isinstance(values, list | tuple):
        values = [_off_torch(value) for value in values]
    array = np.asarray(_off_torch(values), np.float64)
    if array.shape == (0,):
        raise ValueError(
            "values must be one score per image, and there are none: score the images of a "
            "validation first, then decide, once for each validation"
        )
    if array.ndim != 1 or not array.size:
        raise ValueError(
            f"values must be one score per image, got shape {tuple(array.shape)}; a metric with "
            "reduction='none' gives them"
        )
    return keys, tuple(array.tolist())


def _off_torch(values: Any) -> Any:
    # NumPy takes no tensors of other devices, with gradients, or of bfloat16.
    return values.detach().cpu().double().numpy() if isinstance(values, Tensor) else values


def _mismatch(images: tuple[str, ...] | int, given: tuple[str, ...] | int) -> str:
    if isinstance(images, tuple) and isinstance(given, tuple):
        lost = sorted(set(images) - set(given))
        added = sorted(set(given) - set(images))
        return (
            f"{len(lost)} of the first checkpoint's are missing {lost[:3]}, {len(added)} are new "
            f"{added[:3]}"
        )
    names = [
        f"{len(x)} by key" if isinstance(x, tuple) else f"{x} by position" for x in (images, given)
    ]
    text = f"the first checkpoint had {names[0]}, this one has {names[1]}"
    if isinstance(images, int) and isinstance(given, int) and given > images:
        text += "; reset() of the scores forgets those of a validation that was stopped half-way"
    return text
