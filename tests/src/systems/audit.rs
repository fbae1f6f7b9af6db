//! The audit log of the API server: every write request and the user that made it. A [`Mark`] is a position
//! in the file, so that a test sees only later requests.

use std::io::{Read, Seek, SeekFrom};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::systems::env::Env;

/// A position in the log.
pub struct Mark {
    path: String,
    offset: u64,
}

/// A write request that was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    pub user: String,
    pub verb: String,
    /// With the subresource: "kafkaconsumergroups/status".
    pub resource: String,
    pub namespace: String,
    pub name: String,
}

impl Mark {
    /// The end of the log as it is now.
    pub fn now(env: &Env) -> Result<Self> {
        let path = env.variable("KCG_AUDIT_LOG")?;
        let offset = std::fs::metadata(&path)
            .with_context(|| format!("no audit log at {path}"))?
            .len();
        Ok(Self { path, offset })
    }

    /// What `user` has written since.
    pub fn writes_of(&self, user: &str) -> Result<Vec<Write>> {
        let mut file = std::fs::File::open(&self.path)?;
        file.seek(SeekFrom::Start(self.offset))?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        // The last line may not be complete yet.
        let complete = text.rfind('\n').map_or("", |end| &text[..end]);
        let mut writes = Vec::new();
        for line in complete.lines() {
            let event: Value = serde_json::from_str(line).with_context(|| format!("audit log: {line}"))?;
            if event["user"]["username"] == user {
                writes.push(write(&event));
            }
        }
        Ok(writes)
    }
}

fn write(event: &Value) -> Write {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
    let object = &event["objectRef"];
    let subresource = object["subresource"]
        .as_str()
        .map(|name| format!("/{name}"))
        .unwrap_or_default();
    Write {
        user: text(&event["user"]["username"]),
        verb: text(&event["verb"]),
        resource: text(&object["resource"]) + &subresource,
        namespace: text(&object["namespace"]),
        name: text(&object["name"]),
    }
}
