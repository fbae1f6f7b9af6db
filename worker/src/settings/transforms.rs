//! Builds the transforms of the document's `transforms[]`. Consecutive VRL transforms that treat numbers in
//! the same way become one chain.

use std::sync::Arc;

use crds::spec::{Decode, Transform as Spec, TransformType};
use thiserror::Error;

use crate::{
    extensions::Extensions,
    secrets::{SecretError, SecretFiles},
    transform::{NamedTransform, fields::Fields},
};

/// A transform that cannot be built.
#[derive(Debug, Error)]
pub enum TransformError {
    /// The member that belongs to its type is missing.
    #[error("transform {name:?}: type is {kind:?}, so the member {member} must be set")]
    Missing {
        name: String,
        kind: TransformType,
        member: &'static str,
    },
    /// Its program is in a ConfigMap that cannot be read.
    #[error("transform {name:?}: {source}")]
    ConfigMap {
        name: String,
        #[source]
        source: SecretError,
    },
    /// Its program does not compile.
    #[error("transform {name:?}: {message}")]
    Program { name: String, message: String },
    /// The custom code returned an error.
    #[error("transform {name:?}: {source:#}")]
    Custom { name: String, source: anyhow::Error },
}

/// Builds all transforms, in order.
pub(super) fn build(
    specs: &[Spec],
    decode: &Decode,
    secrets: &SecretFiles,
    extensions: &Extensions,
) -> Result<Vec<NamedTransform>, TransformError> {
    let mut built = Vec::new();
    let numbers = |spec: &Spec| spec.vrl.as_ref().map(|vrl| vrl.numbers).unwrap_or_default();
    for run in specs.chunk_by(|left, right| {
        left.kind == TransformType::Vrl && right.kind == left.kind && numbers(left) == numbers(right)
    }) {
        let transform = match run[0].kind {
            TransformType::Vrl => vrl(run, decode, built.is_empty(), secrets)?,
            TransformType::Fields => fields(&run[0], decode, built.is_empty())?,
            TransformType::Custom => custom(&run[0], extensions)?,
        };
        built.push(transform);
    }
    Ok(built)
}

fn fields(spec: &Spec, decode: &Decode, first: bool) -> Result<NamedTransform, TransformError> {
    let fields = spec.fields.as_ref().ok_or_else(|| TransformError::Missing {
        name: spec.name.clone(),
        kind: spec.kind,
        member: "fields",
    })?;
    Ok(NamedTransform {
        name: (*spec.name).into(),
        transform: Arc::new(Fields::new(&spec.name, fields, decode, first)),
    })
}

fn custom(spec: &Spec, extensions: &Extensions) -> Result<NamedTransform, TransformError> {
    let name = || spec.name.clone();
    let custom = spec.custom.as_ref().ok_or_else(|| TransformError::Missing {
        name: name(),
        kind: spec.kind,
        member: "custom",
    })?;
    let config = custom.config.clone().unwrap_or_default();
    let transform = (extensions.build_transform(&custom.name, &config))
        .map_err(|source| TransformError::Custom { name: name(), source })?;
    Ok(NamedTransform {
        name: (*spec.name).into(),
        transform,
    })
}

#[cfg(feature = "vrl")]
fn vrl(
    run: &[Spec],
    decode: &Decode,
    first: bool,
    secrets: &SecretFiles,
) -> Result<NamedTransform, TransformError> {
    use crate::transform::vrl::VrlChain;

    let sources = run
        .iter()
        .map(|spec| source(spec, secrets))
        .collect::<Result<Vec<_>, _>>()?;
    let programs: Vec<(&str, &str)> = run
        .iter()
        .zip(&sources)
        .map(|(spec, source)| (&*spec.name, &**source))
        .collect();
    let numbers = (run[0].vrl.as_ref()).map(|vrl| vrl.numbers).unwrap_or_default();
    let chain = VrlChain::compile(&programs, numbers, decode, first).map_err(|(name, error)| {
        TransformError::Program {
            name,
            message: error.to_string(),
        }
    })?;
    Ok(NamedTransform {
        name: chain.name().into(),
        transform: Arc::new(chain),
    })
}

#[cfg(feature = "vrl")]
fn source(spec: &Spec, secrets: &SecretFiles) -> Result<String, TransformError> {
    let name = || spec.name.clone();
    let missing = |member| TransformError::Missing {
        name: name(),
        kind: spec.kind,
        member,
    };
    let vrl = spec.vrl.as_ref().ok_or_else(|| missing("vrl"))?;
    match (&vrl.source, &vrl.config_map) {
        (Some(source), _) => Ok(source.clone()),
        // The operator puts the program into the document. Without an operator, the program may be in a
        // mounted file.
        (None, Some(reference)) => secrets
            .read_config_map(&reference.name, &reference.key)
            .map_err(|source| TransformError::ConfigMap { name: name(), source }),
        (None, None) => Err(missing("vrl.source")),
    }
}

#[cfg(not(feature = "vrl"))]
fn vrl(run: &[Spec], _: &Decode, _: bool, _: &SecretFiles) -> Result<NamedTransform, TransformError> {
    let message =
        "this worker was built without the feature for type Vrl; use the released worker image".into();
    Err(TransformError::Program {
        name: run[0].name.clone(),
        message,
    })
}
