//! Whether a group could run now, for operations that start its workers elsewhere. In: a group as the API server
//! has it. Out: what everything can be built from, or why not. Changes nothing.

use crds::KafkaConsumerGroup;
use kube::ResourceExt;

use super::dereference::{DereferenceError, dereference};
use super::memory::GroupMemory;
use super::scope::Scope;
use crate::group::rejection::Rejection;
use crate::group::validate::{ValidatedGroup, sources, validate};

/// Reads what the group references, and validates it as a reconcile of the group does.
pub async fn validated(
    scope: &Scope,
    group: &KafkaConsumerGroup,
) -> Result<Result<ValidatedGroup, Rejection>, DereferenceError> {
    let context = &scope.context;
    // Nothing is remembered: that is for the reconciles of the group.
    let observed = dereference(scope, group, &mut GroupMemory::default()).await?;
    let namespace = group.namespace().unwrap_or_default();
    context
        .programs
        .prepare(&namespace, sources(group, &observed))
        .await;
    Ok(validate(group, &observed, &context.programs, &context.defaults))
}
