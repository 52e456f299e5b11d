"""The notary: keeps the Merkle tree over a log, signs checkpoints of it, and takes these to places outside."""

from headrace_kit.notary.checkpoints import Checkpoints
from headrace_kit.notary.leaves import StoredLeaf, read_leaves
from headrace_kit.notary.notary import Notary
from headrace_kit.notary.places import FolderPlace, ObjectsPlace, Place, TopicPlace
from headrace_kit.notary.signing import Signer
from headrace_kit.notary.tree import StoredTree, TreeBehind

__all__ = [
    "Checkpoints",
    "FolderPlace",
    "Notary",
    "ObjectsPlace",
    "Place",
    "Signer",
    "StoredLeaf",
    "StoredTree",
    "TopicPlace",
    "TreeBehind",
    "read_leaves",
]
