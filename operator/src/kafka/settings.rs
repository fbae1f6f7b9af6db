//! How to connect to one cluster. In: the librdkafka properties of `spec.kafka`, of which the operator's own
//! client uses those about addresses, TLS, login and timeouts. Out: [`Settings`]. Connects to nothing.

use std::net::IpAddr;
use std::time::Duration;

use crds::client_config::Properties;
use openssl::pkey::PKey;
use openssl::ssl::{SslConnector, SslMethod, SslVerifyMode};
use openssl::x509::X509;
use openssl::x509::store::X509StoreBuilder;

use super::model::KafkaProblem;
use super::scram::Hash;

/// Name of the operator in the brokers' logs and quotas, unless `client.id` sets another.
const CLIENT_ID: &str = "kafka-consumer-operator";

/// TCP, TLS and the first answer take well under a second on a healthy cluster.
const CONNECT: Duration = Duration::from_secs(4);

/// A login may take several seconds more: brokers look up host names for it, and a DNS server that does not
/// answer costs them 5 s or more.
const LOGIN: Duration = Duration::from_secs(15);

/// A broker as clients reach it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Address {
    pub(super) host: String,
    pub(super) port: u16,
}

impl Address {
    /// "host:port" or "[IPv6]:port".
    fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.trim().rsplit_once(':')?;
        let host = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        let port = port.parse().ok().filter(|port| *port > 0)?;
        (!host.is_empty()).then(|| Self {
            host: host.into(),
            port,
        })
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// The login of SASL.
#[derive(Clone)]
pub(super) struct Login {
    pub(super) mechanism: Mechanism,
    pub(super) username: String,
    pub(super) password: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mechanism {
    Plain,
    Scram(Hash),
}

impl Mechanism {
    /// The name in the protocol.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::Scram(Hash::Sha256) => "SCRAM-SHA-256",
            Self::Scram(Hash::Sha512) => "SCRAM-SHA-512",
        }
    }
}

/// TLS with the certificates already parsed.
#[derive(Clone)]
pub(super) struct Tls {
    pub(super) connector: SslConnector,
    pub(super) verify_host: bool,
}

/// Everything that a connection needs.
#[derive(Clone)]
pub(super) struct Settings {
    pub(super) bootstrap: Vec<Address>,
    pub(super) client_id: String,
    pub(super) tls: Option<Tls>,
    pub(super) login: Option<Login>,
    /// Which resolved addresses of a host are used.
    pub(super) family: fn(&IpAddr) -> bool,
    /// Timeout of a connection attempt up to the first answer.
    pub(super) connect: Duration,
    /// Timeout of the login after it.
    pub(super) login_timeout: Duration,
}

impl Settings {
    pub(super) fn of(properties: &Properties) -> Result<Self, KafkaProblem> {
        let text = |key: &str| properties.get(key).map(String::as_str);
        let servers = text("bootstrap.servers").unwrap_or_default();
        let bootstrap = servers
            .split(',')
            .map(|server| {
                Address::parse(server).ok_or_else(|| {
                    invalid(&format!(
                        "bootstrap server \"{server}\" is not host:port with a port from 1 to 65535"
                    ))
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        let protocol = text("security.protocol").unwrap_or_default();
        let family: fn(&IpAddr) -> bool = match text("broker.address.family") {
            Some("v4") => IpAddr::is_ipv4,
            Some("v6") => IpAddr::is_ipv6,
            _ => |_| true,
        };
        Ok(Self {
            bootstrap,
            client_id: text("client.id").unwrap_or(CLIENT_ID).into(),
            tls: if protocol.contains("ssl") {
                Some(tls(properties)?)
            } else {
                None
            },
            login: if protocol.contains("sasl") {
                Some(login(properties)?)
            } else {
                None
            },
            family,
            connect: CONNECT,
            login_timeout: LOGIN,
        })
    }
}

fn login(properties: &Properties) -> Result<Login, KafkaProblem> {
    let text = |key: &str| properties.get(key).cloned().unwrap_or_default();
    let mechanism = text("sasl.mechanism");
    let mechanism = [
        Mechanism::Plain,
        Mechanism::Scram(Hash::Sha256),
        Mechanism::Scram(Hash::Sha512),
    ]
    .into_iter()
    .find(|known| known.name() == mechanism)
    .ok_or_else(|| invalid(&format!("SASL mechanism \"{mechanism}\" is not supported")))?;
    Ok(Login {
        mechanism,
        username: text("sasl.username"),
        password: text("sasl.password"),
    })
}

/// Errors name the property and never show its value, which may be a private key.
fn tls(properties: &Properties) -> Result<Tls, KafkaProblem> {
    let failed = |what: &'static str| move |_| invalid(what);
    let text = |key: &str| properties.get(key).map(String::as_str);
    let mut builder = SslConnector::builder(SslMethod::tls_client()).map_err(failed("OpenSSL"))?;
    if let Some(pem) = text("ssl.ca.pem") {
        let wrong = "property ssl.ca.pem: not a PEM bundle of certificates";
        let bundle = X509::stack_from_pem(pem.as_bytes()).map_err(failed(wrong))?;
        if bundle.is_empty() {
            return Err(invalid(wrong));
        }
        let mut store = X509StoreBuilder::new().map_err(failed("OpenSSL"))?;
        for certificate in bundle {
            store.add_cert(certificate).map_err(failed(wrong))?;
        }
        builder.set_cert_store(store.build());
    }
    if let Some(pem) = text("ssl.certificate.pem") {
        let wrong = "property ssl.certificate.pem: not a PEM chain of certificates";
        let mut chain = X509::stack_from_pem(pem.as_bytes())
            .map_err(failed(wrong))?
            .into_iter();
        let leaf = chain.next().ok_or_else(|| invalid(wrong))?;
        builder.set_certificate(&leaf).map_err(failed(wrong))?;
        for certificate in chain {
            builder.add_extra_chain_cert(certificate).map_err(failed(wrong))?;
        }
    }
    if let Some(pem) = text("ssl.key.pem") {
        let wrong = "property ssl.key.pem: not a PEM private key without a passphrase";
        // The callback answers the question for a passphrase, which OpenSSL would otherwise read from the
        // terminal.
        let key = PKey::private_key_from_pem_callback(pem.as_bytes(), |_| Ok(0)).map_err(failed(wrong))?;
        builder.set_private_key(&key).map_err(failed(wrong))?;
        builder.check_private_key().map_err(failed(
            "properties ssl.certificate.pem and ssl.key.pem: the key does not belong to the certificate",
        ))?;
    }
    if let Some(ciphers) = text("ssl.cipher.suites") {
        builder
            .set_cipher_list(ciphers)
            .map_err(failed("property ssl.cipher.suites: no known cipher"))?;
    }
    let verify = text("enable.ssl.certificate.verification") != Some("false");
    if !verify {
        builder.set_verify(SslVerifyMode::NONE);
    }
    Ok(Tls {
        connector: builder.build(),
        verify_host: verify && text("ssl.endpoint.identification.algorithm") != Some("none"),
    })
}

fn invalid(message: &str) -> KafkaProblem {
    KafkaProblem::InvalidConfiguration(message.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn properties(pairs: &[(&str, &str)]) -> Properties {
        let mut properties = Properties::from([("bootstrap.servers".to_string(), "a:1".to_string())]);
        properties.extend(
            pairs
                .iter()
                .map(|(key, value)| (key.to_string(), value.to_string())),
        );
        properties
    }

    #[test]
    fn addresses_have_a_host_and_a_port() {
        let parsed = |text: &str| Address::parse(text).map(|address| address.to_string());
        assert_eq!(
            parsed("kafka.example:9092").as_deref(),
            Some("kafka.example:9092")
        );
        assert_eq!(parsed("[::1]:9092").as_deref(), Some("[::1]:9092"));
        for wrong in [
            "kafka",
            "kafka:",
            ":9092",
            "kafka:0",
            "kafka:65536",
            "kafka:x",
            "",
        ] {
            assert_eq!(parsed(wrong), None, "{wrong}");
            let problem = Settings::of(&properties(&[("bootstrap.servers", wrong)]))
                .err()
                .unwrap();
            assert_eq!(problem.reason(), "InvalidClientConfig");
            assert!(problem.to_string().contains(&format!("\"{wrong}\"")), "{problem}");
        }
    }

    #[test]
    fn a_wrong_certificate_is_named_by_its_property_and_no_value_is_shown() {
        for (key, value) in [
            ("ssl.ca.pem", "not a certificate 4711"),
            ("ssl.certificate.pem", "not a certificate 4711"),
            ("ssl.key.pem", "not a key 4711"),
        ] {
            let properties = properties(&[("security.protocol", "ssl"), (key, value)]);
            let problem = Settings::of(&properties).err().unwrap();
            assert_eq!(problem.reason(), "InvalidClientConfig");
            assert!(problem.to_string().contains(key), "{problem}");
            assert!(!problem.to_string().contains("4711"), "{problem}");
        }
    }

    #[test]
    fn security_follows_the_protocol() {
        let plain = Settings::of(&properties(&[("security.protocol", "plaintext")])).unwrap();
        assert!(plain.tls.is_none() && plain.login.is_none());
        assert_eq!(plain.client_id, "kafka-consumer-operator");
        let secure = Settings::of(&properties(&[
            ("security.protocol", "sasl_ssl"),
            ("sasl.mechanism", "SCRAM-SHA-512"),
            ("sasl.username", "alice"),
            ("ssl.endpoint.identification.algorithm", "none"),
            ("client.id", "shop"),
        ]))
        .unwrap();
        assert!(!secure.tls.unwrap().verify_host);
        let login = secure.login.unwrap();
        assert_eq!(
            (login.mechanism.name(), login.username.as_str()),
            ("SCRAM-SHA-512", "alice")
        );
        assert_eq!(secure.client_id, "shop");
    }
}
