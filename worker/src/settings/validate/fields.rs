//! Checks transforms of type Fields: their steps must not contradict each other, and their values must be
//! decoded as JSON. The resource's schema has the same rules.

use crds::{
    WorkerConfig,
    spec::{DecoderType, Fields, TransformType},
};

use super::Check;

pub(super) fn check(config: &WorkerConfig, check: &mut Check) {
    let first = config.transforms.first().map(|first| first.kind);
    if first == Some(TransformType::Fields) && config.decode.value.kind != DecoderType::Json {
        check.fail(
            "decode.value.type",
            "the first transform is of type Fields, which reads JSON; write Json",
        );
    }
    for (index, transform) in config.transforms.iter().enumerate() {
        for message in transform.fields.iter().flat_map(Fields::contradictions) {
            check.fail(format!("transforms[{index}].fields"), message);
        }
    }
}
