//! Deletes consumer groups with their committed offsets. In and out: see [`Request`]. Decides nothing: the caller
//! says which groups, and the coordinator refuses those with members.

use super::Request;
use super::codec::{Malformed, Reader, Writer};
use super::error_code::ErrorCode;

/// Sent to the coordinator of the groups.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::kafka) struct DeleteGroups {
    pub groups: Vec<String>,
}

impl Request for DeleteGroups {
    const KEY: i16 = 42;
    const NAME: &'static str = "DeleteGroups";
    const VERSIONS: &'static [i16] = &[2];
    const FLEXIBLE_FROM: i16 = 2;
    /// Each group with its error.
    type Answer = Vec<(String, ErrorCode)>;

    fn write(&self, _version: i16, out: &mut Writer) {
        out.array(&self.groups, |out, group| out.string(group));
    }

    fn read(_version: i16, reader: &mut Reader<'_>) -> Result<Self::Answer, Malformed> {
        let _throttle_time = reader.i32()?;
        reader.array(|reader| {
            let group = reader.string()?;
            let error = ErrorCode(reader.i16()?);
            reader.end_of_struct()?;
            Ok((group, error))
        })
    }
}
