//! Volumes of a worker pod: its configuration, every referenced Secret and ConfigMap at the path that the
//! worker expects, the volumes of the user, and a volume for temporary files. In: a validated group. Out:
//! matching volumes and mounts.

use crds::names::{CONFIG_DIR, CONFIG_MAPS_DIR, SECRETS_DIR};
use crds::spec;
use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, EmptyDirVolumeSource, PersistentVolumeClaimVolumeSource, SecretVolumeSource,
    Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::controller::names::{child_name, volume_name};
use crate::group::references::ObjectKind;
use crate::group::validate::ValidatedGroup;

const TMP: &str = "/tmp";
/// Name of the volume for temporary files.
pub const TMP_VOLUME: &str = "kcg-tmp";
/// Name of the volume with the worker's configuration.
pub const CONFIG_VOLUME: &str = "kcg-config";

pub fn volumes(group: &ValidatedGroup) -> Vec<Volume> {
    let mut volumes = vec![config_map_volume(CONFIG_VOLUME, &child_name(&group.name))];
    for (kind, name) in group.references.mounted_objects() {
        volumes.push(match kind {
            ObjectKind::Secret => secret_volume(&volume_name("kcg-secret", &name), &name),
            ObjectKind::ConfigMap => config_map_volume(&volume_name("kcg-config-map", &name), &name),
        });
    }
    volumes.extend(group.spec.worker.volumes.iter().map(user_volume));
    if !user_mounts_tmp(group) {
        volumes.push(Volume {
            name: TMP_VOLUME.into(),
            empty_dir: Some(EmptyDirVolumeSource::default()),
            ..Volume::default()
        });
    }
    volumes
}

pub fn mounts(group: &ValidatedGroup) -> Vec<VolumeMount> {
    let mut mounts = vec![mount(CONFIG_VOLUME, CONFIG_DIR, true)];
    for (kind, name) in group.references.mounted_objects() {
        mounts.push(match kind {
            ObjectKind::Secret => mount(
                &volume_name("kcg-secret", &name),
                &format!("{SECRETS_DIR}/{name}"),
                true,
            ),
            ObjectKind::ConfigMap => mount(
                &volume_name("kcg-config-map", &name),
                &format!("{CONFIG_MAPS_DIR}/{name}"),
                true,
            ),
        });
    }
    let own = &group.spec.worker.volume_mounts;
    mounts.extend(
        own.iter()
            .map(|own| mount(&own.name, &own.mount_path, own.read_only)),
    );
    if !user_mounts_tmp(group) {
        mounts.push(mount(TMP_VOLUME, TMP, false));
    }
    mounts
}

fn user_mounts_tmp(group: &ValidatedGroup) -> bool {
    group
        .spec
        .worker
        .volume_mounts
        .iter()
        .any(|own| own.mount_path == TMP)
}

fn mount(name: &str, path: &str, read_only: bool) -> VolumeMount {
    VolumeMount {
        name: name.into(),
        mount_path: path.into(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    }
}

fn secret_volume(volume: &str, secret: &str) -> Volume {
    Volume {
        name: volume.into(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(secret.into()),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    }
}

fn config_map_volume(volume: &str, config_map: &str) -> Volume {
    Volume {
        name: volume.into(),
        config_map: Some(ConfigMapVolumeSource {
            name: config_map.into(),
            ..ConfigMapVolumeSource::default()
        }),
        ..Volume::default()
    }
}

/// Every kind of volume the spec offers; a new one must be handled here.
fn user_volume(volume: &spec::Volume) -> Volume {
    let spec::Volume {
        name,
        empty_dir,
        persistent_volume_claim,
        secret,
        config_map,
    } = volume;
    Volume {
        name: name.clone(),
        empty_dir: empty_dir.as_ref().map(|dir| EmptyDirVolumeSource {
            size_limit: dir.size_limit.clone().map(Quantity),
            medium: dir.medium.map(|spec::Medium::Memory| "Memory".into()),
        }),
        persistent_volume_claim: persistent_volume_claim.as_ref().map(|claim| {
            PersistentVolumeClaimVolumeSource {
                claim_name: claim.claim_name.clone(),
                read_only: None,
            }
        }),
        secret: secret
            .as_ref()
            .and_then(|secret| secret_volume(name, &secret.secret_name).secret),
        config_map: config_map
            .as_ref()
            .and_then(|map| config_map_volume(name, &map.name).config_map),
        ..Volume::default()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::fixtures::validated;

    #[test]
    fn references_are_mounted_where_the_worker_expects_them_and_each_mount_has_a_volume() {
        let group = validated();
        let paths: Vec<_> = mounts(&group).into_iter().map(|mount| mount.mount_path).collect();
        assert_eq!(
            paths,
            [
                "/etc/kafka-consumer/config",
                "/etc/kafka-consumer/secrets/api",
                "/etc/kafka-consumer/secrets/db",
                "/etc/kafka-consumer/secrets/orders-kafka",
                "/etc/kafka-consumer/secrets/orders-mtls",
                "/etc/kafka-consumer/config-maps/kafka-ca",
                "/tmp",
            ]
        );
        let volumes: BTreeSet<_> = volumes(&group).into_iter().map(|volume| volume.name).collect();
        assert_eq!(
            mounts(&group)
                .into_iter()
                .map(|mount| mount.name)
                .collect::<BTreeSet<_>>(),
            volumes
        );
    }

    #[test]
    fn a_users_tmp_replaces_ours() {
        let mut group = validated();
        group.spec.worker.volumes = serde_json::from_value(
            serde_json::json!([{"name": "scratch", "emptyDir": {"sizeLimit": "1Gi"}}]),
        )
        .unwrap();
        group.spec.worker.volume_mounts =
            serde_json::from_value(serde_json::json!([{"name": "scratch", "mountPath": "/tmp"}])).unwrap();
        let at_tmp: Vec<_> = mounts(&group)
            .into_iter()
            .filter(|mount| mount.mount_path == "/tmp")
            .collect();
        assert_eq!((at_tmp.len(), at_tmp[0].name.as_str()), (1, "scratch"));
        assert!(volumes(&group).iter().all(|volume| volume.name != "kcg-tmp"));
    }
}
