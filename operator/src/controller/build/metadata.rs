//! Metadata of every child. In: a validated group. Out: the common name, labels, and the owner.

use kube::api::ObjectMeta;

use crate::controller::names;
use crate::group::validate::ValidatedGroup;

/// Metadata of every child: the common name, labels, and the owner, whose deletion deletes the child.
pub(super) fn metadata(group: &ValidatedGroup) -> ObjectMeta {
    ObjectMeta {
        name: Some(names::child_name(&group.name)),
        namespace: Some(group.namespace.clone()),
        labels: Some(names::labels(&group.name)),
        owner_references: Some(vec![group.owner.clone()]),
        ..ObjectMeta::default()
    }
}
