//! Transforms of type Fields whose steps contradict each other, or whose values are not decoded as JSON: the same rules as
//! the resource's own.

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
