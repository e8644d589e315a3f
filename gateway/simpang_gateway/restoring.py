"""A registry from a backup: what has happened since must neither be repeated nor refused.

A backup is older than what it saves. Since then nodes have begun epochs, were flashed, got commands, and new
ones were added. So every number that must never come twice goes up by more than can have been used, and each
node is led into an epoch that nobody ever heard: recordings of earlier frames are refused by their epoch.
"""

from dataclasses import replace

from .keystore import CEILING_STEP, LAST_COMMAND, LAST_EPOCH, LAST_GENERATION, LAST_NODE, Node, Registry

EPOCH_MARGIN = 65_536
"""Epochs that a node may have begun since the backup: one a minute for six weeks. A node has 16,777,215."""

COMMAND_MARGIN = 65_536
"""Commands that a node may have been given since. Each node has 2^30."""

ID_MARGIN = 100
"""Ids that may have been given since."""


def carry_over(registry: Registry, name: str) -> Registry:
    """Return the registry that a restored gateway begins with; `name` is that of this restoration.

    Nodes that were flashed since are accepted too, by the generation of keys that comes next.
    """
    return Registry(
        site=registry.site,
        next=min(registry.next + ID_MARGIN, LAST_NODE + 1),
        nodes={number: _carry(node) for number, node in registry.nodes.items()},
        restored=name,
    )


def _carry(node: Node) -> Node:
    steps = -(-(max(node.ceiling, node.least) + EPOCH_MARGIN) // CEILING_STEP)
    ceiling = min(steps * CEILING_STEP, LAST_EPOCH - 1)
    following = node.next_generation
    if following is None and node.generation < LAST_GENERATION:
        following = node.generation + 1
    return replace(
        node,
        ceiling=ceiling,
        # Not the ceiling itself: what is missing up to there was before the store, from here on it is lost.
        least=ceiling + 1,
        next_generation=following,
        commands=min(node.commands + COMMAND_MARGIN, LAST_COMMAND),
    )
