//! Deletes children of a group that have a name of an earlier release.

use std::collections::BTreeSet;

use kube::api::DeleteParams;
use kube::core::NamespaceResourceScope;
use kube::runtime::reflector::Store;
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use super::super::names::child_name;
use super::super::scope::Scope;
use super::children::kind_of;
use super::error::{ApplyError, is_not_found};
use crate::group::validate::ValidatedGroup;

/// Deletes children that this group owns under names that it no longer uses.
/// `budget`: the group has a PodDisruptionBudget.
pub(super) async fn delete_orphans(
    scope: &Scope,
    group: &ValidatedGroup,
    budget: bool,
) -> Result<(), ApplyError> {
    let caches = &scope.caches;
    let kept = child_name(&group.name);
    let kept = Some(kept.as_str());
    orphans(scope, group, &caches.deployments, kept).await?;
    orphans(scope, group, &caches.disruption_budgets, kept.filter(|_| budget)).await?;
    orphans(scope, group, &caches.config_maps, kept).await?;
    orphans(scope, group, &caches.role_bindings, kept).await?;
    orphans(scope, group, &caches.roles, kept).await?;
    orphans(scope, group, &caches.service_accounts, kept).await
}

async fn orphans<C>(
    scope: &Scope,
    group: &ValidatedGroup,
    cache: &Store<C>,
    kept: Option<&str>,
) -> Result<(), ApplyError>
where
    C: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    C: Clone + DeserializeOwned + std::fmt::Debug + 'static,
{
    let orphans: BTreeSet<String> = cache
        .state_filter(|child| {
            let mut owners = child.owner_references().iter();
            owners.any(|owner| owner.uid == group.owner.uid) && Some(child.name_any().as_str()) != kept
        })
        .iter()
        .map(|child| child.name_any())
        .collect();
    let api: Api<C> = Api::namespaced(scope.context.client.clone(), &group.namespace);
    for name in orphans {
        tracing::info!(
            group = group.name,
            namespace = group.namespace,
            name,
            "delete orphan"
        );
        match api.delete(&name, &DeleteParams::background()).await {
            Ok(_) => {}
            Err(error) if is_not_found(&error) => {}
            Err(source) => {
                return Err(ApplyError::Write {
                    kind: kind_of::<C>(),
                    name,
                    source: Box::new(source),
                });
            }
        }
    }
    Ok(())
}
