//! The command lines of `local` and of the hidden `embedded-broker`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Subcommand};

use super::replay::args::ReplayArgs;
use super::reset::args::ResetArgs;
use super::source::Source;

/// Run KafkaConsumerGroups without Kubernetes: the same resources, the same checks, the same number of
/// workers, as processes of this machine.
#[derive(Args, Clone, Debug)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct LocalArgs {
    #[command(subcommand)]
    pub operation: Option<Operation>,

    /// File or folder with KafkaConsumerGroups (YAML, also several documents in one file); may be repeated.
    /// The groups use Secrets and ConfigMaps from the same files. Files are watched: a valid change restarts
    /// the workers of the group.
    #[arg(
        short = 'f',
        long = "file",
        value_name = "FILE|DIR",
        required_unless_present = "demo"
    )]
    pub files: Vec<PathBuf>,

    /// Start a broker in memory, on 127.0.0.1 only, and use it instead of spec.kafka. For trials: its data is
    /// lost at the end.
    #[arg(long, conflicts_with = "bootstrap_servers")]
    pub embedded_kafka: bool,

    /// The worker program. Default: kafka-consumer-worker beside this program, then in PATH.
    #[arg(long, value_name = "PATH", env = "KAFKA_CONSUMER_WORKER")]
    pub worker_binary: Option<PathBuf>,

    #[command(flatten)]
    pub source: Source,

    /// Maximum number of workers per group on this machine. Default: the number of processor cores.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..=1000))]
    pub max_workers: Option<i32>,

    /// Address of the dashboard and of the REST API; "off": none. Default: 127.0.0.1:8081, or the next free
    /// port.
    #[arg(long, value_name = "ADDRESS:PORT|off")]
    pub api_listen: Option<ApiListen>,

    /// Accept an --api-listen address that other machines can reach. There is no login: everybody who reaches
    /// it can read everything that the dashboard shows, and stop groups.
    #[arg(long)]
    pub api_allow_remote: bool,

    /// Check the files and exit: exit code 0 if all are valid, otherwise 1 and the reasons.
    #[arg(long, conflicts_with = "demo")]
    pub check: bool,

    /// Show the whole path: embedded broker, 100,000 orders, 1 in 100 invalid, and a summary. Exit code 0
    /// only if every order was either written or dead-lettered.
    #[arg(long, conflicts_with_all = ["bootstrap_servers", "secrets_dir"])]
    pub demo: bool,

    /// Keep the demo running after its summary, with its dashboard, until Ctrl-C.
    #[arg(long, visible_alias = "stay", requires = "demo")]
    pub demo_stay: bool,

    /// Number of orders that the demo produces.
    #[arg(long, requires = "demo", default_value_t = 100_000, value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..=150_000))]
    pub demo_records: u32,
}

/// What is done with a group instead of running it.
#[derive(Subcommand, Clone, Debug)]
pub enum Operation {
    /// Set the committed offsets of a group once, or show what that would change.
    Reset(Box<ResetArgs>),
    /// Run a part of the log through a group once more, beside the running group.
    Replay(Box<ReplayArgs>),
}

/// Where the API listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiListen {
    Off,
    At(SocketAddr),
}

impl FromStr for ApiListen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self::Off);
        }
        text.parse().map(Self::At).map_err(|_| {
            format!("\"{text}\" is not an IP address with a port, for example 127.0.0.1:8081, nor off")
        })
    }
}

/// Run the embedded broker. Prints its address as one line and runs until standard input closes.
#[derive(Args, Clone, Debug)]
pub struct EmbeddedBrokerArgs {
    /// Topic to create, "name:partitions"; may be repeated.
    #[arg(long = "topic", value_name = "NAME:PARTITIONS", value_parser = parse_topic)]
    pub topics: Vec<(String, i32)>,
}

/// Parses "name:partitions".
pub fn parse_topic(text: &str) -> Result<(String, i32), String> {
    let wrong = || format!("\"{text}\" is not name:partitions, for example orders:6");
    let (name, partitions) = text.rsplit_once(':').ok_or_else(wrong)?;
    let partitions: i32 = partitions.parse().map_err(|_| wrong())?;
    if name.is_empty() || !(1..=10_000).contains(&partitions) {
        return Err(wrong());
    }
    Ok((name.to_string(), partitions))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        local: LocalArgs,
    }

    #[test]
    fn a_file_is_required_except_for_the_demo() {
        assert!(Cli::try_parse_from(["local"]).is_err());
        assert!(Cli::try_parse_from(["local", "--demo"]).is_ok());
        assert!(Cli::try_parse_from(["local", "-f", "a.yaml", "-f", "dir"]).is_ok());
    }

    #[test]
    fn an_operation_has_its_own_flags() {
        let reset = Cli::try_parse_from(["local", "reset", "-f", "a.yaml", "--to-latest"]).unwrap();
        assert!(reset.local.operation.is_some() && reset.local.files.is_empty());
        let mixed = Cli::try_parse_from(["local", "-f", "a.yaml", "reset", "--to-latest"]);
        let error = mixed.map(drop).unwrap_err().to_string();
        assert!(error.contains("reset"), "{error}");
    }

    #[test]
    fn two_sources_of_brokers_are_refused() {
        let both = [
            "local",
            "-f",
            "a",
            "--embedded-kafka",
            "--bootstrap-servers",
            "a:1",
        ];
        assert!(Cli::try_parse_from(both).is_err());
        let cli = Cli::try_parse_from(["local", "-f", "a", "--bootstrap-servers", "a:1,b:2"]).unwrap();
        assert_eq!(cli.local.source.bootstrap_servers, ["a:1", "b:2"]);
    }

    #[test]
    fn the_address_of_the_api_is_an_address_or_off() {
        let listen = |arguments: &[&str]| {
            let all = [&["local", "--demo"], arguments].concat();
            Cli::try_parse_from(all).map(|cli| cli.local.api_listen)
        };
        assert_eq!(listen(&[]).unwrap(), None);
        assert_eq!(listen(&["--api-listen", "off"]).unwrap(), Some(ApiListen::Off));
        let address = "127.0.0.1:0".parse().unwrap();
        assert_eq!(
            listen(&["--api-listen", "127.0.0.1:0"]).unwrap(),
            Some(ApiListen::At(address))
        );
        let error = listen(&["--api-listen", "8081"]).unwrap_err().to_string();
        assert!(error.contains("127.0.0.1:8081"), "{error}");
    }

    #[test]
    fn topics_of_the_broker_are_name_and_partitions() {
        assert_eq!(parse_topic("orders:6"), Ok(("orders".into(), 6)));
        for wrong in ["orders", "orders:", ":6", "orders:0", "orders:x"] {
            assert!(parse_topic(wrong).unwrap_err().contains("orders:6"), "{wrong}");
        }
    }
}
