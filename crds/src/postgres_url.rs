//! The parts of a PostgreSQL URL that both sides check: the operator before it starts workers, and the worker
//! before it connects. In: the text of a Secret. Out: its parts, or what to correct, without any of the text
//! except names of parameters. Pure.

/// A URL of the right form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresUrl<'a> {
    /// Everything before the parameters.
    pub base: &'a str,
    /// `sslmode`.
    pub ssl_mode: SslMode,
    /// The schemas in which tables are looked up, as for `search_path`; absent, the server decides.
    pub schema: Option<String>,
    /// Parameters that the client library reads itself, as `name=value`.
    pub others: Vec<&'a str>,
}

/// Values of `sslmode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SslMode {
    Disable,
    /// With TLS if the server has it. `allow`, too: libpq tries without it first.
    #[default]
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

/// The form of a URL, for messages.
pub const EXAMPLE: &str = "postgresql://user:password@host:5432/database?sslmode=require, with special \
                           characters in user and password percent-encoded";

/// Parameters of the client library.
const PASSED_ON: [&str; 17] = [
    "user",
    "password",
    "dbname",
    "options",
    "application_name",
    "host",
    "hostaddr",
    "port",
    "connect_timeout",
    "tcp_user_timeout",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_retries",
    "target_session_attrs",
    "channel_binding",
    "load_balance_hosts",
];

/// Reads a URL. The error continues a sentence that starts with the place of the URL.
pub fn parse(url: &str) -> Result<PostgresUrl<'_>, String> {
    if !["postgresql://", "postgres://"]
        .iter()
        .any(|scheme| url.starts_with(scheme))
    {
        return Err("is not a PostgreSQL URL".into());
    }
    let (base, query) = url.rsplit_once('?').unwrap_or((url, ""));
    let mut parsed = PostgresUrl {
        base,
        ssl_mode: SslMode::default(),
        schema: None,
        others: Vec::new(),
    };
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        match name {
            "sslmode" => parsed.ssl_mode = ssl_mode(value)?,
            "schema" | "currentSchema" => parsed.schema = Some(decoded(name, value)?),
            // The client library never asks for encryption by GSSAPI.
            "gssencmode" if matches!(value, "disable" | "prefer" | "allow") => {}
            "gssencmode" => {
                return Err(
                    "asks for gssencmode other than disable or prefer, which is not supported: remove \
                            the parameter, and use sslmode"
                        .into(),
                );
            }
            "client_encoding" if ["utf8", "utf-8", "auto"].contains(&&*value.to_lowercase()) => {}
            "sslrootcert" => {
                return Err(
                    "has the parameter \"sslrootcert\", which is not supported: put the certificate \
                            as ca.crt into the same Secret, and remove the parameter"
                        .into(),
                );
            }
            _ if PASSED_ON.contains(&name) => parsed.others.push(parameter),
            _ => return Err(unknown(name)),
        }
    }
    Ok(parsed)
}

fn ssl_mode(value: &str) -> Result<SslMode, String> {
    Ok(match value {
        "disable" => SslMode::Disable,
        "allow" | "prefer" => SslMode::Prefer,
        "require" => SslMode::Require,
        "verify-ca" => SslMode::VerifyCa,
        "verify-full" => SslMode::VerifyFull,
        _ => {
            return Err(
                "has an sslmode that does not exist: it must be disable, allow, prefer, require, \
                        verify-ca or verify-full"
                    .into(),
            );
        }
    })
}

/// A parameter that looks like a name is shown; anything else may be part of a password.
fn unknown(name: &str) -> String {
    if name.len() <= 40
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    {
        format!("has the parameter {name:?}, which is not supported: remove it")
    } else {
        "has a parameter that does not exist, or an unencoded ? in its password".into()
    }
}

/// Decodes percent signs.
fn decoded(name: &str, value: &str) -> Result<String, String> {
    let invalid = || format!("has an invalid value for the parameter {name:?}");
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
        let (Some(high), Some(low)) = (digit(), digit()) else {
            return Err(invalid());
        };
        bytes.push(u8::try_from(high * 16 + low).map_err(|_| invalid())?);
    }
    let text = String::from_utf8(bytes).map_err(|_| invalid())?;
    if text.is_empty() || text.contains('\0') {
        return Err(invalid());
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_of_other_clients_are_understood_or_named() {
        let url = "postgresql://u:p@h/d?schema=a%20b&gssencmode=disable&sslmode=allow&options=-c%20x%3D5";
        assert_eq!(
            parse(url),
            Ok(PostgresUrl {
                base: "postgresql://u:p@h/d",
                ssl_mode: SslMode::Prefer,
                schema: Some("a b".into()),
                others: vec!["options=-c%20x%3D5"],
            })
        );
        assert_eq!(
            parse("postgres://h/d?currentSchema=app")
                .unwrap()
                .schema
                .as_deref(),
            Some("app")
        );
        for (parameter, expected) in [
            ("sslrootcert=/certs/ca.pem", "\"sslrootcert\""),
            ("sslmode=s3cret", "sslmode that does not exist"),
            ("gssencmode=require", "gssencmode"),
            ("sslcert=s3cret", "\"sslcert\""),
            ("ssl=true", "\"ssl\""),
            ("schema=%zz", "\"schema\""),
            ("s3cret-p@h/d", "parameter that does not exist"),
        ] {
            let message = parse(&format!("postgresql://u:p@h/d?{parameter}")).unwrap_err();
            assert!(
                message.contains(expected) && !message.contains("s3cret"),
                "{message}"
            );
        }
    }
}
