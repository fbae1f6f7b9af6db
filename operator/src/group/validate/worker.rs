//! `spec.worker`: what the schema cannot check. In: the settings of the pods. Out: nothing, or the field that
//! the API server would refuse in a child, where it would name the child's field instead. Also names that are
//! reserved, because the operator sets them.

use std::collections::{BTreeMap, BTreeSet};

use crds::names::{API_GROUP, GROUP_LABEL};
use crds::spec::Worker;

use crate::group::rejection::Rejection;

/// Kubernetes' limits: names of labels and annotations, their prefix, values of labels, all annotations.
const MAX_NAME: usize = 63;
const MAX_PREFIX: usize = 253;
const MAX_LABEL_VALUE: usize = 63;
const MAX_ANNOTATIONS: usize = 256 << 10;
/// Longest environment variables; together they must fit into the arguments of a process.
const MAX_ENV_VALUE: usize = 64 << 10;

/// Labels that the operator or the Deployment controller sets.
const RESERVED_LABELS: &[&str] = &[
    "app.kubernetes.io/name",
    "app.kubernetes.io/instance",
    "app.kubernetes.io/managed-by",
    "pod-template-hash",
    GROUP_LABEL,
];
/// Environment variables that the operator sets.
const RESERVED_ENV: &[&str] = &["POD_NAME", "POD_NAMESPACE"];
/// Prefix of those that the worker itself reads, such as KCW_CONFIG.
const RESERVED_ENV_PREFIX: &str = "KCW_";

type Problem = Result<(), String>;

pub(super) fn check(worker: &Worker) -> Result<(), Rejection> {
    let checks = [
        (
            "labels",
            labels(&worker.labels).and_then(|()| reserved(&worker.labels, RESERVED_LABELS)),
        ),
        ("annotations", annotations(&worker.annotations)),
        (
            "serviceAccount.labels",
            labels(&worker.service_account.labels)
                .and_then(|()| reserved(&worker.service_account.labels, RESERVED_LABELS)),
        ),
        (
            "serviceAccount.annotations",
            annotations(&worker.service_account.annotations),
        ),
        ("nodeSelector", labels(&worker.node_selector)),
        ("env", env(worker)),
        ("volumes", volumes(worker)),
        ("volumeMounts", mounts(worker)),
        ("imagePullSecrets", pull_secrets(worker)),
        (
            "priorityClassName",
            worker.priority_class_name.as_deref().map_or(Ok(()), subdomain),
        ),
        ("image", worker.image.as_deref().map_or(Ok(()), image)),
        ("resources", resources(worker)),
    ];
    for (field, check) in checks {
        check.map_err(|problem| {
            Rejection::new("InvalidWorkerSettings", format!("spec.worker.{field}: {problem}"))
        })?;
    }
    Ok(())
}

fn labels(labels: &BTreeMap<String, String>) -> Problem {
    for (key, value) in labels {
        qualified(key)?;
        if value.len() > MAX_LABEL_VALUE || !(value.is_empty() || is_name(value)) {
            return Err(format!(
                "the value {} of {key} is no valid label value: at most {MAX_LABEL_VALUE} letters, digits, '-', '_' and '.', beginning and ending with a letter or digit",
                shown(value)
            ));
        }
    }
    Ok(())
}

fn annotations(annotations: &BTreeMap<String, String>) -> Problem {
    annotations.keys().try_for_each(|key| qualified(key))?;
    reserved(annotations, &[])?;
    let bytes: usize = annotations
        .iter()
        .map(|(key, value)| key.len() + value.len())
        .sum();
    if bytes > MAX_ANNOTATIONS / 2 {
        return Err(format!(
            "has {bytes} bytes; an object has at most {MAX_ANNOTATIONS}, and half of it is for others"
        ));
    }
    Ok(())
}

/// `names`, and everything with the prefix of the API group.
fn reserved(entries: &BTreeMap<String, String>, names: &[&str]) -> Problem {
    let ours = |key: &&String| {
        let prefix = key.split_once('/').map(|(prefix, _)| prefix);
        names.contains(&key.as_str()) || prefix == Some(API_GROUP)
    };
    match entries.keys().find(ours) {
        Some(key) => Err(format!(
            "{key} is reserved, because the operator sets it; use another name"
        )),
        None => Ok(()),
    }
}

/// `[prefix/]name`, the form of keys of labels and annotations.
fn qualified(key: &str) -> Problem {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    let prefix_fits = prefix.is_none_or(|prefix| prefix.len() <= MAX_PREFIX && is_subdomain(prefix));
    if prefix_fits && name.len() <= MAX_NAME && is_name(name) {
        return Ok(());
    }
    Err(format!(
        "{} is no valid name: [DNS name/]name with at most {MAX_NAME} letters, digits, '-', '_' and '.', beginning and ending with a letter or digit",
        shown(key)
    ))
}

fn is_name(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let ends = [text.bytes().next(), text.bytes().next_back()];
    ends.iter()
        .all(|byte| byte.is_some_and(|byte| byte.is_ascii_alphanumeric()))
        && text.bytes().all(inner)
}

fn is_subdomain(text: &str) -> bool {
    let label = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !label.is_empty() && !label.starts_with('-') && !label.ends_with('-') && label.bytes().all(inner)
    };
    text.len() <= MAX_PREFIX && text.split('.').all(label)
}

/// The name of an object.
fn subdomain(name: &str) -> Problem {
    if is_subdomain(name) {
        return Ok(());
    }
    Err(format!(
        "{} is no valid name of an object: small letters, digits, '-' and '.'",
        shown(name)
    ))
}

fn unique<'a>(names: impl Iterator<Item = &'a str>) -> Problem {
    let mut seen = BTreeSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err(format!("{} occurs twice; use each once", shown(name)));
        }
    }
    Ok(())
}

fn env(worker: &Worker) -> Problem {
    unique(worker.env.iter().map(|var| &*var.name))?;
    for var in &worker.env {
        let name = &var.name;
        if RESERVED_ENV.contains(&name.as_str()) || name.starts_with(RESERVED_ENV_PREFIX) {
            return Err(format!(
                "{name} is reserved, because the operator sets it; use another name"
            ));
        }
        if name.is_empty()
            || !name
                .bytes()
                .all(|byte| (b' '..=b'~').contains(&byte) && byte != b'=')
        {
            return Err(format!(
                "{} is no valid name: printable ASCII without '='",
                shown(name)
            ));
        }
        if var
            .value
            .as_ref()
            .is_some_and(|value| value.len() > MAX_ENV_VALUE)
        {
            return Err(format!(
                "the value of {} is longer than {MAX_ENV_VALUE} bytes; use a volume",
                shown(name)
            ));
        }
        if var.value.as_ref().is_some_and(|value| !value.is_empty()) && var.value_from.is_some() {
            return Err(format!(
                "{} has both value and valueFrom; remove one",
                shown(name)
            ));
        }
    }
    Ok(())
}

fn volumes(worker: &Worker) -> Problem {
    unique(worker.volumes.iter().map(|volume| &*volume.name))?;
    for volume in &worker.volumes {
        let name = &volume.name;
        if name.starts_with("kcg-") {
            return Err(format!(
                "{} is reserved, because it begins with kcg-; use another name",
                shown(name)
            ));
        }
        let claim = volume
            .persistent_volume_claim
            .as_ref()
            .map(|claim| &claim.claim_name);
        let secret = volume.secret.as_ref().map(|secret| &secret.secret_name);
        let config_map = volume.config_map.as_ref().map(|config_map| &config_map.name);
        for object in claim.into_iter().chain(secret).chain(config_map) {
            subdomain(object).map_err(|problem| format!("volume {}: {problem}", shown(name)))?;
        }
        let limit = volume
            .empty_dir
            .as_ref()
            .and_then(|dir| dir.size_limit.as_deref());
        limit
            .map_or(Ok(()), |limit| quantity(limit).map(drop))
            .map_err(|problem| format!("volume {}: sizeLimit: {problem}", shown(name)))?;
    }
    Ok(())
}

fn mounts(worker: &Worker) -> Problem {
    unique(worker.volume_mounts.iter().map(|mount| &*mount.mount_path))?;
    for mount in &worker.volume_mounts {
        let path = &mount.mount_path;
        // Otherwise one path can be written in several ways.
        let odd = |part: &str| part.is_empty() || part == "." || part == "..";
        if path.split('/').skip(1).any(odd) {
            return Err(format!(
                "{} is no plain path; write it without empty parts, '.' and '..'",
                shown(path)
            ));
        }
    }
    Ok(())
}

fn pull_secrets(worker: &Worker) -> Problem {
    unique(worker.image_pull_secrets.iter().map(|secret| &*secret.name))?;
    worker
        .image_pull_secrets
        .iter()
        .try_for_each(|secret| subdomain(&secret.name))
}

fn image(image: &str) -> Problem {
    if image.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(());
    }
    Err(format!(
        "{} is no image: it contains blanks or letters beyond ASCII",
        shown(image)
    ))
}

fn resources(worker: &Worker) -> Problem {
    let Some(resources) = &worker.resources else {
        return Ok(());
    };
    let empty = BTreeMap::new();
    let requests = resources.requests.as_ref().unwrap_or(&empty);
    let limits = resources.limits.as_ref().unwrap_or(&empty);
    for (name, amount) in requests.iter().chain(limits) {
        quantity(&amount.0).map_err(|problem| format!("{}: {problem}", shown(name)))?;
    }
    for (name, request) in requests {
        if let Some(limit) = limits.get(name)
            && quantity(&request.0)? > quantity(&limit.0)?
        {
            return Err(format!(
                "{}: the request {} is greater than the limit {}",
                shown(name),
                request.0,
                limit.0
            ));
        }
    }
    Ok(())
}

/// The value of a Kubernetes quantity that is not negative. Err if it is none.
fn quantity(text: &str) -> Result<f64, String> {
    let invalid = || {
        format!(
            "{} is no quantity; write a number with an optional unit, for example 500m, 1.5, 128Mi or 2Gi",
            shown(text)
        )
    };
    let split = text
        .find(|it: char| !(it.is_ascii_digit() || it == '.'))
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let value: f64 = number.parse().map_err(|_| invalid())?;
    let factor = match unit {
        "" => 1.0,
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 2_f64.powi(10),
        "Mi" => 2_f64.powi(20),
        "Gi" => 2_f64.powi(30),
        "Ti" => 2_f64.powi(40),
        "Pi" => 2_f64.powi(50),
        "Ei" => 2_f64.powi(60),
        exponent => {
            let digits = exponent.strip_prefix(['e', 'E']).ok_or_else(invalid)?;
            10_f64.powi(digits.parse::<i8>().map_err(|_| invalid())?.into())
        }
    };
    Ok(value * factor)
}

/// Text of a user in a message: quoted, and not longer than a line.
fn shown(text: &str) -> String {
    const MAX: usize = 40;
    let kept: String = text.chars().take(MAX).collect();
    if kept.len() < text.len() {
        format!("{kept:?}...")
    } else {
        format!("{kept:?}")
    }
}

#[cfg(test)]
mod tests;
