"""Runs one pass: renders, divides into parts, scores the missing parts and reports the precision."""

import contextlib
import functools
import gc
import itertools
import math
import time
from collections.abc import Iterator
from collections.abc import Sequence as Seq
from pathlib import Path

import numpy as np
import torch

from bench.faults import warn
from bench.schema import DrsowError, Example, UsageError
from bench.scoring import checked, filling, models, templates
from bench.scoring.forward import engine, trie
from bench.scoring.forward.device import out_of_memory
from bench.scoring.forward.engine import Prepared
from bench.scoring.noise import noise_of
from bench.scoring.passes import PART_BUDGETS, WHOLE, Options, Ready, Share, cut_parts, group, provenance
from bench.scoring.precision import precision, sampled
from bench.scoring.progress import OnShare, counting, unheard
from bench.scoring.render import Rendered, Sequence, Template, check_ids, render
from bench.scoring.tokens import TokenValues
from bench.store.folder import ScoreSet, Store

OTHERS_WAIT_S = 600.0
"""How long a shard waits for another shard that begins or finishes the same set."""


class OtherOps(Exception):
    """The loaded model computes with other ops than the key says. The text is the name of these ops."""


class Scorer:
    """A tokenizer with its model, which is loaded when it is first needed."""

    served = False
    """Whether the model is on a server, in the dtype that the server chose."""

    def __init__(self, ready: Ready, options: Options) -> None:
        """Loads the tokenizer, but not the weights."""
        self.ready, self.options = ready, options
        self.device = options.device
        files, trusted = ready.model.folder, ready.model.trust_remote_code
        self.tokenizer = models.shared_tokenizer(ready.model)
        owner = None if ready.plain else models.shared_tokenizer(ready.owner)
        self.template = Template(owner, ready.work.owner.model_id)
        self.limit, self.n_embedded = self._sizes(files, trusted=trusted)
        # What is added to the weights of the files.
        self._change = noise_of(ready.work.spec) or ready.model.adapter
        self._model: Prepared | None = None
        self._most_tokens: dict[str | None, int] = {}

    def _sizes(self, files: Path, *, trusted: bool) -> tuple[int, int]:
        """The longest sequence in tokens, and the number of token ids."""
        context = models.context_tokens(files, trust_remote_code=trusted)
        return context, models.n_embedded(files, trust_remote_code=trusted)

    def load(self) -> None:
        """Loads the model, unless it is loaded."""
        self.model()

    def model(self, dtype: str | None = None) -> Prepared:
        """The model in a dtype, by default the run's. A loaded model of another dtype is released first."""
        wanted = models.TORCH_DTYPES[dtype or self.ready.key.dtype]
        if self._model is None:
            self._say([self.note])
        if self._model is None or self._model.model.dtype != wanted:
            try:
                self._model = self._widened(wanted) or self._loaded(wanted)
            except (RuntimeError, MemoryError) as error:
                raise self._full(error, f"in {dtype or self.ready.key.dtype}") from error
        return self._model

    def _widened(self, wanted: torch.dtype) -> Prepared | None:
        """The loaded model in float32, in place; None if that is not possible."""
        if self._model is None or wanted != torch.float32 or self._change:
            return None
        try:
            return models.widened(self._model, self.ready.model.folder)
        except BaseException:
            # Nothing may compute with a model that is changed half way.
            self._model = None
            raise

    def _loaded(self, wanted: torch.dtype) -> Prepared:
        self.close()
        return models.load_model(
            self.ready.model.folder,
            dtype=wanted,
            device=self.device,
            trust_remote_code=self.ready.model.trust_remote_code,
            change=self._change,
            revision=self.ready.model.revision,
        )

    def stages(
        self, score_set: ScoreSet, share: Share = WHOLE, following: Path | None = None, *, store: Store | None = None
    ) -> Iterator[None]:
        """Scores the missing parts of a share of a set, and finishes the set if all parts are there.

        The first stage needs the run's dtype, the second float32. Between them, other passes of the same weights do
        their first stage, so that the weights are loaded once. Call it under the lock of the set or of the share.
        `following` is the folder of the next model. `store` has the earlier sets, whose precision a small set takes.
        """
        began = time.monotonic()
        self._check_ops()
        rendered = self.rendered(self.ready.work.dataset.examples)
        by_example = group(rendered.sequences)
        self._say(rendered.lines())
        with self._with_others(score_set, share):
            # The process that begins the set decides for all others how the rows are divided.
            recorded = score_set.recorded_settings()
            settings = recorded or self._settings()
            # A set that `drsow import` restored has no settings, and all of its rows are one part.
            most = math.inf if recorded == {} else PART_BUDGETS * settings["batch_tokens"]
            parts = cut_parts(by_example, part_tokens=most)
            settings = score_set.begin(len(parts), settings, self.ready.names, alone=share.whole) or settings
        torch.set_num_threads(settings["n_threads"])
        todo = {
            index: [s for i in parts[index] for s in by_example[i]]
            for index in filling.wanted(score_set, self.options)
            if index in share.parts(len(parts))
        }
        budget = settings["batch_tokens"]
        began = filling.fill_parts(self, score_set, todo, budget, following, began=began)
        sample = sampled(self, by_example, budget, store) if share.whole and not score_set.complete else None
        spent_s = time.monotonic() - began
        yield
        began = time.monotonic() - spent_s
        with self._with_others(score_set, share):
            if not score_set.complete and (share.whole or not score_set.missing()):
                sample = sample or sampled(self, by_example, budget, store)
                facts = self._facts(rendered, by_example) | precision(self, sample, budget)
                info = provenance(self.ready, device=self._device_words()) | facts
                score_set.finish(info | filling.spent(score_set, began))

    def _settings(self) -> dict:
        return {"batch_tokens": self.options.batch_tokens, "n_threads": torch.get_num_threads()}

    def _check_ops(self) -> None:
        """Loads the model on a GPU, because only then drsow knows whether its operations compile.

        Raises:
            OtherOps: Some do not compile, so the numbers belong to another set.
        """
        if self.device != "cuda":
            return
        if (found := self.model().ops.name) != self.ready.key.ops:
            raise OtherOps(found)

    @staticmethod
    def _with_others(score_set: ScoreSet, share: Share) -> contextlib.AbstractContextManager:
        """A lock for work that one process at a time may do. A process with the whole pass already has it."""
        return contextlib.nullcontext() if share.whole else score_set.lock(wait_s=OTHERS_WAIT_S)

    def logps(
        self, sequences: Seq[Sequence], budget: int, counts: dict | None = None, *, dtype: str | None = None
    ) -> list[np.ndarray | None]:
        """Log-probabilities of each response's tokens in nats; None if the sequence is longer than the context."""
        return [each and each.logps for each in self.values(sequences, budget, counts, dtype=dtype)]

    def values(
        self,
        sequences: Seq[Sequence],
        budget: int,
        counts: dict | None = None,
        *,
        dtype: str | None = None,
        on_share: OnShare = unheard,
        detailed: bool = False,
    ) -> list[TokenValues | None]:
        """The numbers of each response's tokens, `detailed` all of them; None if it is longer than the context.

        If memory runs out, the budget is halved and the work starts again. `dtype` is the run's by default. `on_share`
        is called after each step with the fraction of the work that is done, 0 to 1.
        """
        counts = counts or dict.fromkeys(("n_steps", "n_computed_tokens", "halved"), 0)
        fits = [s for s in sequences if len(s.ids) <= self.limit]
        values = self._packed(fits, budget, counts, dtype=dtype, on_share=on_share, detailed=detailed)
        alone = functools.partial(self.values, budget=budget, counts=counts, dtype=dtype, detailed=detailed)
        # A value that is not finite spreads to its whole step. Alone, each sequence shows whether it is the cause.
        found = {
            id(s): v if len(fits) == 1 or np.isfinite(v.logps).all() else alone([s])[0]
            for s, v in zip(fits, values, strict=True)
        }
        return [found.get(id(s)) for s in sequences]

    def _packed(
        self, fits: Seq[Sequence], budget: int, counts: dict, *, dtype: str | None, on_share: OnShare, detailed: bool
    ) -> list[TokenValues]:
        """As `values`, for sequences within the context, packed together."""
        # A budget that was too large for one part is too large for the next part.
        budget = min(budget, self._most_tokens.get(dtype, budget))
        model = self.model(dtype)
        while True:
            plan = trie.pack([s.ids for s in fits], [s.start for s in fits], budget=budget)
            details = np.full((2, int(plan.offsets[-1])), np.nan) if detailed else None
            try:
                out = engine.score(model, plan, counting(plan.n_computed, on_share), details=details)
                break
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error) or budget <= 1:
                    raise self._full(error, "with one token a step") from error
            budget = self._most_tokens[dtype] = budget // 2
            counts["halved"] += 1
            warn(f"{self.ready.key.model_id}: out of memory, continuing with {budget} tokens per step")
            self._let_go()
        counts["n_steps"] += len(plan.steps)
        counts["n_computed_tokens"] += plan.n_computed
        rows = out[None] if details is None else np.concatenate([out[None], details])
        return [TokenValues(*rows[:, a:b]) for a, b in itertools.pairwise(plan.offsets)]

    def close(self) -> None:
        """Releases the model and its memory."""
        # Only a look at every object, which takes a while, frees a model that is part of a cycle. On a GPU, one that
        # was refused may be left too.
        if self._model is not None or self.device == "cuda":
            self._model = None
            gc.collect()
        self._let_go()

    def _let_go(self) -> None:
        """Releases unused GPU memory."""
        if self.device == "cuda":
            torch.cuda.empty_cache()

    def rendered(self, examples: Seq[Example]) -> Rendered:
        """Examples as the model reads them.

        Raises:
            DrsowError: The template rejects an example, or the model has no embedding for a token. Names the row.
        """
        rendered = render(examples, self.tokenizer, self.template)
        for sequence in rendered.sequences:
            row = f"{sequence.example_id}: response {sequence.response_id}"
            model = self.ready.key.model_id
            check_ids(sequence.ids, self.tokenizer, n_embedded=self.n_embedded, row=row, model=model)
        return rendered

    @functools.cached_property
    def note(self) -> str:
        """A remark for the user about the choice of the chat template, "" if none is needed."""
        note = templates.read(self.ready.owner.folder).note
        return note and f"{self.ready.work.owner.model_id} {note}"

    def _say(self, lines: Seq[str]) -> None:
        for line in filter(None, lines):
            warn(f"{self.ready.key.model_id}: {line}")

    def _full(self, error: Exception, how: str) -> Exception:
        """The error to raise: one that the user can solve if memory ran out, otherwise the same error."""
        model_id = self.ready.key.model_id
        return DrsowError(f"{model_id}: out of memory on {self.device} {how}") if out_of_memory(error) else error

    def examples_logps(self, examples: Seq[Example]) -> list[list[np.ndarray]]:
        """Log-probabilities of the tokens of each example's responses in nats, the end of turn last.

        All examples are packed together.

        Raises:
            UsageError: A response with its prompt is longer than the model's context. The message names it.
        """
        sequences = self.rendered(examples).sequences
        found: dict[str, list[np.ndarray]] = {example.example_id: [] for example in examples}
        for sequence, values in zip(sequences, self.logps(sequences, self.options.batch_tokens), strict=True):
            if values is None:
                name, n_tokens = f"response {sequence.response_id}", len(sequence.ids) - sequence.start
                raise UsageError(
                    f"{sequence.example_id}: {name} has {n_tokens:,} tokens and its prompt {sequence.start:,}, but "
                    f"{self.ready.key.model_id} reads at most {self.limit:,} together"
                )
            found[sequence.example_id].append(values)
        return list(found.values())

    def _facts(self, rendered: Rendered, by_example: list[list[Sequence]]) -> dict:
        return {
            "n_examples": len(by_example),
            **rendered.counts(),
            "template_choice": self.note,
            "context_tokens": self.limit,
            **checked.told(checked.Check(self.ready.model.revision, self.ready.key.dtype, self.ready.key.ops)),
            "mean_tokens_a_row": float(
                np.mean([len(r[0].ids[: r[0].start]) + sum(len(s.ids) - s.start for s in r) for r in by_example])
            ),
        }

    def _device_words(self) -> str:
        return torch.cuda.get_device_name() if self.device == "cuda" else f"cpu, {torch.get_num_threads()} threads"
