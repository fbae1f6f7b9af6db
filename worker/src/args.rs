//! The command line and the environment of a worker. Raw values only: the room `settings` interprets them. No
//! other module of the worker reads environment variables, except for seeded bugs.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use crate::telemetry::LogFormat;
use clap::{ArgAction, Parser};
use crds::names;

const EXIT_CODES: &str = "\
Exit codes:
    0  stopped on request: drained, committed, left the group; a bounded run: all of its plan is finished
    1  could not start, for example the HTTP address is in use
    2  invalid flags, or an invalid configuration document
    3  a Secret or ConfigMap file is missing, unreadable or has invalid content
    4  Kafka permanently refuses this member (fenced, fatal error)
    5  the drain budget ran out, transforms do not return, the process was stuck, or it received a second stop signal
    6  a bounded run was stopped before its end
    7  a topic of a bounded run was deleted or created again
  101  a panic, which is a bug";

/// Consumes the topics of one KafkaConsumerGroup: transforms and writes each record, then commits its offset.
// The comments are help texts, where <name> is a placeholder.
#[allow(rustdoc::invalid_html_tags)]
#[derive(Clone, Debug, Parser)]
#[command(version, after_help = EXIT_CODES)]
pub struct Args {
    /// Configuration document, as rendered by the operator.
    #[arg(long, env = "KCW_CONFIG", value_name = "FILE", default_value_os_t = default_config())]
    pub config: PathBuf,

    /// Document that controls whether the group is paused; read again every second [default: control.json in
    /// the same folder as --config].
    #[arg(long, value_name = "FILE")]
    pub control: Option<PathBuf>,

    /// Directory where Secrets are mounted: DIR/<secret name>/<key>.
    #[arg(long, value_name = "DIR", default_value = names::SECRETS_DIR)]
    pub secrets_dir: PathBuf,

    /// Directory where ConfigMaps are mounted: DIR/<config map name>/<key>.
    #[arg(long, value_name = "DIR", default_value = names::CONFIG_MAPS_DIR)]
    pub config_maps_dir: PathBuf,

    /// Address of /livez, /readyz, /status and /metrics; port 0 for any free port.
    #[arg(long, value_name = "HOST:PORT", default_value_t = default_http_address())]
    pub http_address: SocketAddr,

    /// Name of this worker in status, logs, dead letters and transactional ids.
    #[arg(long, env = "POD_NAME", default_value_t = default_name())]
    pub name: String,

    /// Format of log lines.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,

    /// Log filter: a level, or target=level pairs separated by commas, such as
    /// info,kafka_consumer_worker=debug.
    #[arg(long, env = "RUST_LOG", value_name = "FILTER", default_value = "info")]
    pub log: String,

    /// Report to the resource's status, for operators that cannot connect to this worker.
    #[arg(long, action = ArgAction::SetTrue, overrides_with = "no_report_status")]
    pub report_status: bool,

    /// Do not report to the resource's status, which is the default: the operator reads /status.
    #[arg(long, action = ArgAction::SetTrue, overrides_with = "report_status")]
    pub no_report_status: bool,

    /// Seconds between two status reports, when something has changed.
    #[arg(long, value_name = "SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub status_interval_seconds: u64,

    /// Stop, as on SIGTERM, when stdin ends. A worker that another process started then never outlives that
    /// process.
    #[arg(long)]
    pub exit_on_stdin_eof: bool,

    /// Start of this process in Unix milliseconds, part of the consumer's client.id. Local mode sets it, to
    /// recognize the process in Kafka.
    #[arg(long, env = names::STARTED_AT_ENV, value_name = "MILLISECONDS", hide = true, default_value_t = now())]
    pub started_at: i64,
}

impl Args {
    /// Path of the control document: `--control`, otherwise `control.json` in the folder of `--config`.
    pub fn control_path(&self) -> PathBuf {
        self.control
            .clone()
            .unwrap_or_else(|| self.config.with_file_name(names::CONTROL_KEY))
    }

    /// Time between two status reports, when something has changed.
    pub fn status_interval(&self) -> Duration {
        Duration::from_secs(self.status_interval_seconds)
    }
}

fn default_config() -> PathBuf {
    PathBuf::from(names::CONFIG_DIR).join(names::WORKER_CONFIG_KEY)
}

fn default_http_address() -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], names::WORKER_HTTP_PORT))
}

/// Unix milliseconds.
fn now() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

fn default_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = match host.trim() {
        "" => "worker",
        host => host,
    };
    format!("{host}-{}", std::process::id())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Args {
        Args::try_parse_from(line.split_whitespace()).unwrap()
    }

    #[test]
    fn the_definition_is_consistent_and_help_lists_the_exit_codes() {
        Args::command().debug_assert();
        let help = Args::command().render_help().to_string();
        for code in [
            "0  stopped",
            "2  invalid flags",
            "3  a Secret",
            "4  Kafka",
            "5  the drain",
            "6  a bounded run",
            "7  a topic",
            "101  a panic",
        ] {
            assert!(help.contains(code), "{code} is not in\n{help}");
        }
    }

    #[test]
    fn the_control_document_is_beside_the_configuration_unless_a_flag_names_it() {
        assert_eq!(
            parse("w --config /x/worker.json").control_path(),
            PathBuf::from("/x/control.json")
        );
        assert_eq!(
            parse("w --config /x/worker.json --control /y/c").control_path(),
            PathBuf::from("/y/c")
        );
    }

    #[test]
    fn status_is_reported_on_request_and_the_last_flag_wins() {
        assert!(!parse("w").report_status);
        assert!(!parse("w --no-report-status").report_status);
        assert!(parse("w --report-status").report_status);
        assert!(parse("w --no-report-status --report-status").report_status);
        assert!(!parse("w --report-status --no-report-status").report_status);
    }

    #[test]
    fn an_invalid_flag_is_an_error_with_exit_code_2() {
        let error = Args::try_parse_from(["w", "--status-interval-seconds", "0"]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("1..=3600"), "{error}");
    }
}
