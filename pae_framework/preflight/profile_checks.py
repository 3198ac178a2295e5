"""What keeps a recipe from running with a profile. No torch."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pae_framework.errors import Problem
from pae_framework.preflight.machine import Machine
from pae_framework.preflight.processes import unshared_batches
from pae_framework.preflight.requirements import unfinished_stages
from pae_framework.preflight.slurm_site import NodeKind, Partition
from pae_framework.recipe.loaded import LoadedRecipe
from pae_framework.recipe.profile_settings import Resources, written_memory, written_time
from pae_framework.recipe.profiles import FoundProfile
from pae_framework.recipe.stage_table import STAGES
from pae_framework.recipe.suggestions import describe, suggestion


def stages_to_run(
    recipes: Sequence[LoadedRecipe], store: Path | None, again: Collection[str] = ()
) -> list[str]:
    """Names of the unfinished stages of any of the recipes, in the order they run."""
    unfinished = {name for loaded in recipes for name in unfinished_stages(loaded, store, again)}
    return [name for name in STAGES if name in unfinished]


def too_many_processes(
    recipes: Sequence[LoadedRecipe],
    profile: FoundProfile,
    store: Path | None = None,
    again: Collection[str] = (),
) -> list[Problem]:
    """Trainings with fewer images per micro-batch than the processes of their stage."""
    return unshared_batches(
        recipes, store, lambda stage: profile.profile.for_stage(stage).processes, again
    )


def machine_of_jobs(profile: FoundProfile, stages: Collection[str]) -> Machine:
    """The machine that jobs run on: the largest that a stage asks for.

    Memory that the profile does not state is unknown.
    """
    asked = [profile.profile.for_stage(stage) for stage in stages]
    memory = [resources.mib for resources in asked]
    gpus = max((resources.gpus_per_node or 0 for resources in asked), default=0)
    known = [mib for mib in memory if mib is not None]
    largest = max(known) << 20 if known and len(known) == len(memory) else None
    return Machine(largest, (0,) * gpus)


def refused(
    profile: FoundProfile, stages: Sequence[str], partitions: Sequence[Partition]
) -> list[Problem]:
    """What a Slurm site would refuse of the jobs of these stages, or never start.

    Args:
        profile: the profile.
        stages: names of the stages.
        partitions: all partitions of the site.
    """
    problems = (
        problem
        for stage in stages
        for problem in _Job(profile, stage, profile.profile.for_stage(stage)).refused(partitions)
    )
    return list(dict.fromkeys(problems))


@dataclass(frozen=True)
class _Job:
    """The job of one stage."""

    profile: FoundProfile
    stage: str
    resources: Resources

    def refused(self, partitions: Sequence[Partition]) -> Iterator[Problem]:
        chosen = self._chosen(partitions)
        unknown = [problem for problem in chosen if isinstance(problem, Problem)]
        known = [partition for partition in chosen if isinstance(partition, Partition)]
        yield from unknown
        if known and not unknown:
            answers = [list(self._refused_by(partition)) for partition in known]
            yield from min(answers, key=len)  # Slurm takes the first that accepts the job

    def _chosen(self, partitions: Sequence[Partition]) -> list[Partition | Problem]:
        by_name = {partition.name: partition for partition in partitions}
        if self.resources.partition is None:
            default = [partition for partition in partitions if partition.default]
            message = "no partition is set, and the site has no default"
            return [*default] or [self._problem(message, "partition", suggestion("", by_name))]
        names = self.resources.partition.split(",")
        return [by_name.get(name) or self._unknown_partition(name, by_name) for name in names]

    def _unknown_partition(self, name: str, known: Collection[str]) -> Problem:
        message = f"the site has no partition {describe(name)}"
        return self._problem(message, "partition", suggestion(name, known))

    def _refused_by(self, partition: Partition) -> Iterator[Problem]:
        named = f"the partition {partition.name!r}"
        if partition.state != "up":
            yield self._problem(f"{named} is {partition.state}", "partition")
        asked, limit = self.resources.minutes, partition.minutes
        if asked is not None and limit is not None and asked > limit:
            longest = written_time(limit * 60)
            message = f"{self.resources.time} is longer than the limit of {named}, {longest}"
            yield self._problem(message, "time", f"set time={longest} or less")
        lacking = list(self._lacking(partition.nodes, named))
        yield from lacking
        if not lacking:
            yield from self._too_few(partition.nodes, named)

    def _lacking(self, nodes: Sequence[NodeKind], named: str) -> Iterator[Problem]:
        """What no node has, each resource for itself."""
        asked = self.resources
        most = max((node.gpus for node in nodes), default=0)
        if (asked.gpus_per_node or 0) > most:
            message = f"{asked.gpus_per_node} GPUs on each node; a node of {named} has {most}"
            yield self._problem(message, "gpus_per_node")
        most = max((node.cpus for node in nodes), default=0)
        if self._cpus > most:
            message = (
                f"{self._cpus} CPUs on each node ({asked.processes_per_node} processes with "
                f"{asked.cpus_per_task or 1}); a node of {named} has {most}"
            )
            yield self._problem(message, "cpus_per_task" if asked.cpus_per_task else "nodes")
        most = max((node.mib for node in nodes), default=0)
        if (asked.mib or 0) > most:
            has = written_memory(most) if most else "none"
            yield self._problem(
                f"{asked.memory} on each node; a node of {named} has {has}", "memory"
            )
        if (feature := self._feature) and not any(feature in node.features for node in nodes):
            known = sorted({name for node in nodes for name in node.features})
            message = f"no node of {named} has the feature {describe(feature)}"
            hint = suggestion(feature, known) if known else "its nodes have no features"
            yield self._problem(message, "constraint", hint)

    def _too_few(self, nodes: Sequence[NodeKind], named: str) -> Iterator[Problem]:
        suited = sum(node.count for node in nodes if self._suits(node))
        if suited < self.resources.nodes:
            message = f"{self.resources.nodes} nodes; {named} has {suited} with what is asked for"
            yield self._problem(message, "nodes")

    def _suits(self, node: NodeKind) -> bool:
        return (
            node.gpus >= (self.resources.gpus_per_node or 0)
            and node.cpus >= self._cpus
            and node.mib >= (self.resources.mib or 0)
            and (self._feature is None or self._feature in node.features)
        )

    @property
    def _cpus(self) -> int:
        return self.resources.processes_per_node * (self.resources.cpus_per_task or 1)

    @property
    def _feature(self) -> str | None:
        """The constraint if it is one feature; expressions of several are left to Slurm."""
        constraint = self.resources.constraint
        return constraint if constraint and re.fullmatch(r"[\w.:+-]+", constraint) else None

    def _problem(self, message: str, key: str, hint: str = "") -> Problem:
        return self.profile.problem(message, key, self.stage, hint)
