//! Values of Secrets and ConfigMaps, read from the directories where they are mounted: `<dir>/<name>/<key>`.
//! Reads files and nothing else; never logs or keeps a value. Each read returns the present content, so
//! callers that read again get the value of a rotated Secret.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

use crds::{
    client_config::KafkaCredentials,
    spec::{CaSource, Kafka, SaslCredentials, SecretKey},
};

/// A value that is missing or cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read.
    #[error("{at} cannot be read: {source}; {}", at.advice())]
    Unreadable {
        at: Box<Place>,
        #[source]
        source: io::Error,
    },
    /// The file is not text, or empty.
    #[error("{at} is {problem}; {}", at.advice())]
    Unusable { at: Box<Place>, problem: &'static str },
    /// The path would leave the mounted directory.
    #[error(
        "{at} is not a valid reference; use a name and a key that are not empty, do not start with '..' and do not contain '/'"
    )]
    Name { at: Box<Place> },
    /// The reference names neither a Secret nor a ConfigMap.
    #[error("a ca needs a secretName or a configMapName; set one of them")]
    NoSource,
}

/// Location of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    kind: &'static str,
    name: String,
    key: String,
    path: PathBuf,
}

impl Place {
    fn advice(&self) -> String {
        format!(
            "create or correct the {}, key {:?}, in the namespace of the KafkaConsumerGroup",
            self.kind, self.key
        )
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {:?} key {:?} ({})",
            self.kind,
            self.name,
            self.key,
            self.path.display()
        )
    }
}

/// Where Secrets and ConfigMaps are mounted.
#[derive(Clone, Debug)]
pub struct SecretFiles {
    secrets: PathBuf,
    config_maps: PathBuf,
}

impl SecretFiles {
    /// Takes the directories that hold one directory per Secret and per ConfigMap.
    pub fn new(secrets_dir: PathBuf, config_maps_dir: PathBuf) -> Self {
        Self {
            secrets: secrets_dir,
            config_maps: config_maps_dir,
        }
    }

    /// The value of a key of a Secret, without trailing newlines.
    pub fn read(&self, reference: &SecretKey) -> Result<String, SecretError> {
        read("Secret", &self.secrets, &reference.secret_name, &reference.key)
    }

    /// The value of a key of a ConfigMap, without trailing newlines.
    pub fn read_config_map(&self, name: &str, key: &str) -> Result<String, SecretError> {
        read("ConfigMap", &self.config_maps, name, key)
    }

    /// A PEM bundle of certificate authorities.
    pub fn ca(&self, source: &CaSource) -> Result<String, SecretError> {
        match (&source.secret_name, &source.config_map_name) {
            (Some(name), _) => read("Secret", &self.secrets, name, &source.key),
            (None, Some(name)) => self.read_config_map(name, &source.key),
            (None, None) => Err(SecretError::NoSource),
        }
    }

    /// User name and password of a SASL login.
    pub fn login(&self, credentials: &SaslCredentials) -> Result<(String, String), SecretError> {
        let read = |key: &str| read("Secret", &self.secrets, &credentials.secret_name, key);
        Ok((read(&credentials.username_key)?, read(&credentials.password_key)?))
    }

    /// Every value that `spec.kafka` references.
    pub fn kafka_credentials(&self, kafka: &Kafka) -> Result<KafkaCredentials, SecretError> {
        let mut credentials = KafkaCredentials::default();
        if let Some(tls) = &kafka.tls {
            credentials.ca_pem = tls.ca.as_ref().map(|ca| self.ca(ca)).transpose()?;
            if let Some(certificate) = &tls.client_certificate {
                let read = |key| read("Secret", &self.secrets, &certificate.secret_name, key);
                credentials.certificate_pem = Some(read("tls.crt")?);
                credentials.key_pem = Some(read("tls.key")?);
            }
        }
        if let Some(sasl) = &kafka.sasl {
            let (username, password) = self.login(&sasl.credentials)?;
            credentials.username = Some(username);
            credentials.password = Some(password);
        }
        Ok(credentials)
    }
}

fn read(kind: &'static str, dir: &Path, name: &str, key: &str) -> Result<String, SecretError> {
    let path = dir.join(name).join(key);
    let at = || {
        Box::new(Place {
            kind,
            name: name.into(),
            key: key.into(),
            path: path.clone(),
        })
    };
    // Kubernetes does not allow these names, but a document written by hand may contain them.
    if [name, key]
        .iter()
        .any(|part| part.is_empty() || part.contains('/') || part.starts_with(".."))
    {
        return Err(SecretError::Name { at: at() });
    }
    let bytes = fs::read(&path).map_err(|source| SecretError::Unreadable { at: at(), source })?;
    let unusable = |problem| SecretError::Unusable { at: at(), problem };
    let text = String::from_utf8(bytes).map_err(|_| unusable("not UTF-8 text"))?;
    match text.trim_end_matches(['\n', '\r']) {
        "" => Err(unusable("empty")),
        trimmed => Ok(trimmed.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(entries: &[(&str, &[u8])]) -> (tempfile::TempDir, SecretFiles) {
        let dir = tempfile::tempdir().unwrap();
        for (path, content) in entries {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        let files = SecretFiles::new(dir.path().join("secrets"), dir.path().join("config-maps"));
        (dir, files)
    }

    fn key(name: &str, key: &str) -> SecretKey {
        SecretKey {
            secret_name: name.into(),
            key: key.into(),
        }
    }

    #[test]
    fn a_value_loses_its_trailing_newline_and_nothing_else() {
        let (_dir, files) = files(&[("secrets/db/url", b" postgresql://x \r\n\n")]);
        assert_eq!(files.read(&key("db", "url")).unwrap(), " postgresql://x ");
    }

    #[test]
    fn an_error_names_the_secret_the_key_and_the_file_but_never_a_value() {
        let (_dir, files) = files(&[("secrets/db/empty", b"\n"), ("secrets/db/binary", &[0xff, 0xfe])]);
        let message = files.read(&key("db", "url")).unwrap_err().to_string();
        assert!(message.contains("Secret \"db\" key \"url\""), "{message}");
        assert!(
            message.contains("secrets/db/url") && message.contains("create or correct the Secret"),
            "{message}"
        );
        assert!(
            files
                .read(&key("db", "empty"))
                .unwrap_err()
                .to_string()
                .contains("is empty")
        );
        assert!(
            files
                .read(&key("db", "binary"))
                .unwrap_err()
                .to_string()
                .contains("not UTF-8")
        );
    }

    #[test]
    fn a_name_cannot_leave_the_directory() {
        let (_dir, files) = files(&[("other", b"x")]);
        for (name, part) in [
            ("..", "other"),
            ("a/../..", "other"),
            ("db", "../../other"),
            ("", "x"),
        ] {
            assert!(
                matches!(files.read(&key(name, part)), Err(SecretError::Name { .. })),
                "{name} {part}"
            );
        }
    }

    #[test]
    fn kafka_credentials_come_from_every_reference_of_the_connection() {
        let (_dir, files) = files(&[
            ("config-maps/trust/ca.crt", b"CA\n"),
            ("secrets/client/tls.crt", b"CERT"),
            ("secrets/client/tls.key", b"KEY"),
            ("secrets/login/user", b"alice\n"),
            ("secrets/login/password", b"secret\n"),
        ]);
        let kafka: Kafka = serde_json::from_value(serde_json::json!({
            "bootstrapServers": ["a:1"],
            "tls": {"ca": {"configMapName": "trust"}, "clientCertificate": {"secretName": "client"}},
            "sasl": {"mechanism": "PLAIN", "credentials": {"secretName": "login", "usernameKey": "user"}}
        }))
        .unwrap();
        let credentials = files.kafka_credentials(&kafka).unwrap();
        assert_eq!(credentials.ca_pem.as_deref(), Some("CA"));
        assert_eq!(credentials.certificate_pem.as_deref(), Some("CERT"));
        assert_eq!(credentials.key_pem.as_deref(), Some("KEY"));
        assert_eq!(credentials.username.as_deref(), Some("alice"));
        assert_eq!(credentials.password.as_deref(), Some("secret"));
    }
}
