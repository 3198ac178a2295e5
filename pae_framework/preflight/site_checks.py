"""What a Slurm site would refuse of the jobs of a profile. No torch."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from pae_framework.errors import Problem
from pae_framework.preflight.slurm_site import Association, NodeKind, Partition, Site
from pae_framework.recipe.profile_settings import Resources, written_memory, written_time
from pae_framework.recipe.profiles import FoundProfile
from pae_framework.recipe.suggestions import describe, suggestion

_ACCEPTS_JOBS = ("up", "down")
"""States of a partition that takes jobs; in one that is down, they wait."""


def refused(profile: FoundProfile, stages: Sequence[str], site: Site) -> list[Problem]:
    """What the site would refuse of the jobs of these stages, or never start.

    Nothing is if the site has not named its partitions.
    """
    jobs = [_Job(profile, stage, profile.profile.for_stage(stage)) for stage in stages]
    return list(dict.fromkeys(problem for job in jobs for problem in job.refused(site)))


def delayed(profile: FoundProfile, stages: Sequence[str], site: Site) -> list[Problem]:
    """Why jobs of these stages will not start at present; worth a warning."""
    jobs = [_Job(profile, stage, profile.profile.for_stage(stage)) for stage in stages]
    return list(dict.fromkeys(problem for job in jobs for problem in job.delayed(site)))


@dataclass(frozen=True)
class _Job:
    """The job of one stage."""

    profile: FoundProfile
    stage: str
    asked: Resources

    def refused(self, site: Site) -> Iterator[Problem]:
        if not site.partitions:
            return
        chosen = self._chosen(site.partitions)
        unknown = [problem for problem in chosen if isinstance(problem, Problem)]
        known = [partition for partition in chosen if isinstance(partition, Partition)]
        yield from unknown
        if known and not unknown:
            answers = [list(self._refused_by(partition)) for partition in known]
            yield from min(answers, key=len)  # Slurm takes the first that accepts the job
        yield from self._not_allowed(site.associations, {partition.name for partition in known})

    def delayed(self, site: Site) -> Iterator[Problem]:
        known = [found for found in self._chosen(site.partitions) if isinstance(found, Partition)]
        if known and all(partition.state == "down" for partition in known):
            names = ", ".join(repr(partition.name) for partition in known)
            yield self._problem(f"the partition {names} is down: jobs wait", "partition")

    # --- partitions -------------------------------------------------------------------------------

    def _chosen(self, partitions: Sequence[Partition]) -> list[Partition | Problem]:
        by_name = {partition.name: partition for partition in partitions}
        if self.asked.partition is None:
            default = [partition for partition in partitions if partition.default]
            message = "no partition is set, and the site has no default"
            return [*default] or [self._problem(message, "partition", suggestion("", by_name))]
        names = self.asked.partition.split(",")
        return [by_name.get(name) or self._unknown_partition(name, by_name) for name in names]

    def _unknown_partition(self, name: str, known: Collection[str]) -> Problem:
        message = f"the site has no partition {describe(name)}"
        return self._problem(message, "partition", suggestion(name, known))

    def _refused_by(self, partition: Partition) -> Iterator[Problem]:
        named = f"the partition {partition.name!r}"
        if partition.state not in _ACCEPTS_JOBS:
            yield self._problem(f"{named} takes no jobs: {partition.state}", "partition")
        asked, limit = self.asked.minutes, partition.minutes
        if asked is not None and limit is not None and asked > limit:
            longest = written_time(limit * 60)
            message = f"{self.asked.time} is longer than the limit of {named}, {longest}"
            yield self._problem(message, "time", f"set time={longest} or less")
        lacking = [*self._wrong_size(partition, named), *self._lacking(partition.nodes, named)]
        yield from lacking
        if not lacking:
            yield from self._too_few(partition.nodes, named)

    def _wrong_size(self, partition: Partition, named: str) -> Iterator[Problem]:
        nodes, fewest, most = self.asked.nodes, partition.fewest, partition.most
        if most is not None and nodes > most:
            message = f"{nodes} nodes; a job in {named} may have {most}"
            yield self._problem(message, "nodes", _at_most("nodes", most))
        if nodes < fewest:
            message = f"{nodes} nodes; a job in {named} must have {fewest}"
            yield self._problem(
                message, "nodes", f"set nodes={fewest}, or choose another partition"
            )

    # --- nodes ------------------------------------------------------------------------------------

    def _lacking(self, nodes: Sequence[NodeKind], named: str) -> Iterator[Problem]:
        """What no node has, each resource for itself."""
        asked = self.asked
        yield from self._lacking_gpus(nodes, named)
        most = max((node.cpus for node in nodes), default=0)
        if self._cpus > most:
            message = (
                f"{self._cpus} CPUs on each node ({asked.processes_per_node} processes with "
                f"{asked.cpus_per_task or 1}); a node of {named} has {most}"
            )
            tasks = "tasks_per_node" if asked.tasks_per_node else "gpus_per_node"
            key = "cpus_per_task" if asked.cpus_per_task else tasks
            each = most // asked.processes_per_node if asked.cpus_per_task else most
            yield self._problem(message, key, _at_most(key, each))
        most = max((node.mib for node in nodes), default=0)
        if (asked.mib or 0) > most:
            has = written_memory(most) if most else "none"
            message = f"{asked.memory} on each node; a node of {named} has {has}"
            hint = f"set memory={has} or less" if most else ""
            yield self._problem(message, "memory", hint)
        if (feature := self._feature) and not any(feature in node.features for node in nodes):
            known = sorted({name for node in nodes for name in node.features})
            message = f"no node of {named} has the feature {describe(feature)}"
            hint = suggestion(feature, known) if known else "its nodes have no features"
            yield self._problem(message, "constraint", hint)

    def _lacking_gpus(self, nodes: Sequence[NodeKind], named: str) -> Iterator[Problem]:
        key = "flags.gres" if self.asked.flags.get("gres") else "gpus_per_node"
        types = sorted({kind for node in nodes for kind in node.gpus if kind})
        for kind, count in self.asked.gpus.items():
            most = max((_gpus(node, kind) for node in nodes), default=0)
            if kind and types and not most:
                message = f"no node of {named} has GPUs of the type {describe(kind)}"
                yield self._problem(message, key, suggestion(kind, types))
            elif count > most:
                typed = f" of the type {kind}" if kind else ""
                message = f"{count} GPUs{typed} on each node; a node of {named} has {most}"
                yield self._problem(message, key, _at_most(key, most))

    def _too_few(self, nodes: Sequence[NodeKind], named: str) -> Iterator[Problem]:
        suited = sum(node.count for node in nodes if self._suits(node))
        if suited < self.asked.nodes:
            message = f"{self.asked.nodes} nodes; {named} has {suited} with what is asked for"
            yield self._problem(message, "nodes", _at_most("nodes", suited))

    def _suits(self, node: NodeKind) -> bool:
        return (
            all(_gpus(node, kind) >= count for kind, count in self.asked.gpus.items())
            and node.cpus >= self._cpus
            and node.mib >= (self.asked.mib or 0)
            and (self._feature is None or self._feature in node.features)
        )

    @property
    def _cpus(self) -> int:
        return self.asked.processes_per_node * (self.asked.cpus_per_task or 1)

    @property
    def _feature(self) -> str | None:
        """The constraint if it is one feature; expressions of several are left to Slurm."""
        constraint = self.asked.constraint
        return constraint if constraint and re.fullmatch(r"[\w.:+-]+", constraint) else None

    # --- accounts ---------------------------------------------------------------------------------

    def _not_allowed(
        self, associations: Sequence[Association], partitions: Collection[str]
    ) -> Iterator[Problem]:
        """What the user may not charge or use; Slurm ignores the case of these names."""
        account, qos = self.asked.account, self.asked.qos
        usable = associations
        if associations and account is not None:
            usable = [found for found in associations if found.account == account.lower()]
            if not usable:
                message = f"you have no account {describe(account)} on this site"
                known = sorted({found.account for found in associations})
                yield self._problem(message, "account", suggestion(account, known))
                return
        here = [found for found in usable if found.partition in ("", *partitions)]
        if usable and partitions and not here:
            named = ", ".join(sorted({found.partition for found in usable}))
            of_account = "you" if account is None else f"account {account}"
            message = f"{of_account} may not use it"
            yield self._problem(message, "partition", f"allowed: {named}")
        elif here and qos is not None and all(found.qos for found in here):
            allowed = sorted(set().union(*(found.qos for found in here)))
            for name in qos.split(","):
                if name.lower() not in allowed:
                    message = f"you may not use the QOS {describe(name)}"
                    yield self._problem(message, "qos", suggestion(name, allowed))

    def _problem(self, message: str, key: str, hint: str = "") -> Problem:
        return self.profile.problem(message, key, self.stage, hint)


def _gpus(node: NodeKind, kind: str) -> int:
    return node.gpus.get(kind, 0) if kind else sum(node.gpus.values())


def _at_most(key: str, most: int) -> str:
    if not most or key == "flags.gres":
        return "choose another partition" if not most else f"ask for {most} or fewer"
    return f"set {key}={most} or less"
