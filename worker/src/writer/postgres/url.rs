//! The connection URL from the Secret as the client library needs it. In: its text. Out: how to connect, or
//! what to correct, without any of the text except names of parameters. Pure.

use std::str::FromStr;

use crds::postgres_url;
use tokio_postgres::{Config, config::SslMode};

/// How far the server's certificate is verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verify {
    Nothing,
    Authority,
    AuthorityAndHost,
}

/// Where and how to connect.
#[derive(Debug)]
pub(super) struct Address {
    pub config: Config,
    pub verify: Verify,
    /// The schemas in which tables are looked up; absent, the server decides.
    pub schema: Option<String>,
}

/// Reads a URL. The error continues a sentence that starts with the place of the URL.
pub(super) fn parse(url: &str) -> Result<Address, String> {
    let url = postgres_url::parse(url)?;
    let with = |parameters: &str| Config::from_str(&format!("{}{parameters}", url.base));
    with("").map_err(|_| "is not a valid PostgreSQL URL")?;
    for parameter in &url.others {
        if with(&format!("?{parameter}")).is_err() {
            let name = parameter.split('=').next().unwrap_or_default();
            return Err(format!("has an invalid value for the parameter {name:?}"));
        }
    }
    let parameters = match &url.others[..] {
        [] => String::new(),
        others => format!("?{}", others.join("&")),
    };
    let mut config = with(&parameters).map_err(|_| "has parameters that contradict each other")?;
    if config.get_hosts().is_empty() {
        return Err("contains no host".into());
    }
    let (ssl_mode, verify) = match url.ssl_mode {
        postgres_url::SslMode::Disable => (SslMode::Disable, Verify::Nothing),
        postgres_url::SslMode::Prefer => (SslMode::Prefer, Verify::Nothing),
        postgres_url::SslMode::Require => (SslMode::Require, Verify::Nothing),
        postgres_url::SslMode::VerifyCa => (SslMode::Require, Verify::Authority),
        postgres_url::SslMode::VerifyFull => (SslMode::Require, Verify::AuthorityAndHost),
    };
    config.ssl_mode(ssl_mode);
    Ok(Address {
        config,
        verify,
        schema: url.schema,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_reach_the_client_library() {
        for (mode, ssl_mode, verify) in [
            ("?sslmode=disable", SslMode::Disable, Verify::Nothing),
            ("", SslMode::Prefer, Verify::Nothing),
            (
                "?sslmode=allow&gssencmode=disable",
                SslMode::Prefer,
                Verify::Nothing,
            ),
            ("?sslmode=require", SslMode::Require, Verify::Nothing),
            (
                "?application_name=x&sslmode=verify-ca",
                SslMode::Require,
                Verify::Authority,
            ),
            ("?sslmode=verify-full", SslMode::Require, Verify::AuthorityAndHost),
        ] {
            let address = parse(&format!("postgresql://u:p@h:5432/d{mode}")).unwrap();
            assert_eq!(
                (address.config.get_ssl_mode(), address.verify),
                (ssl_mode, verify),
                "{mode}"
            );
        }
        let address = parse("postgresql://u:p@h/d?options=-c%20lock_timeout%3D5s&connect_timeout=3").unwrap();
        assert_eq!(address.config.get_options(), Some("-c lock_timeout=5s"));
        let message = parse("postgresql://u:p@h/d?connect_timeout=s3cret").unwrap_err();
        assert!(
            message.contains("\"connect_timeout\"") && !message.contains("s3cret"),
            "{message}"
        );
    }
}
