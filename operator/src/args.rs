//! The command line of `kafka-consumer-operator`. In: arguments and environment variables. Out: [`Args`].
//! Runs nothing.

use std::net::SocketAddr;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use crds::spec::ImagePullPolicy;

use crate::digest::hash;
use crate::group::validate::ReportMode;
use crate::local::{EmbeddedBrokerArgs, LocalArgs};
use crate::telemetry::LogFormat;

/// Name of the Lease of an operator that serves all namespaces.
const LEASE: &str = "kafka-consumer-operator";

/// Runs KafkaConsumerGroups: on Kubernetes (run), or as processes of this machine (local).
#[derive(Parser, Debug)]
#[command(name = "kafka-consumer-operator", version, about)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run the Kubernetes controller.
    Run(Box<RunArgs>),
    /// Run the groups of a file or folder without Kubernetes.
    Local(Box<LocalArgs>),
    /// Print the CustomResourceDefinitions: kafka-consumer-operator crd | kubectl apply --server-side -f -
    Crd,
    #[command(hide = true)]
    EmbeddedBroker(EmbeddedBrokerArgs),
    #[cfg(feature = "vrl")]
    #[command(hide = true)]
    CompileProgram(crate::compiler::process::CompileArgs),
}

/// Flags of `run`; each can also be set by an environment variable.
#[derive(ClapArgs, Clone, Debug)]
pub struct RunArgs {
    /// Namespaces to watch, separated by commas. Empty: all.
    #[arg(long, env = "KCO_NAMESPACES", value_delimiter = ',', value_name = "NAME,...")]
    pub namespaces: Vec<String>,

    /// Worker image, for groups that set none.
    #[arg(long, env = "KCO_WORKER_IMAGE", value_name = "IMAGE")]
    pub worker_image: String,

    /// Pull policy of the worker image, for groups that set none. Default: the Kubernetes default.
    #[arg(long, env = "KCO_IMAGE_PULL_POLICY", value_name = "POLICY")]
    pub image_pull_policy: Option<PullPolicy>,

    /// Groups that roll out a changed --worker-image at the same time.
    #[arg(long, env = "KCO_MAX_CONCURRENT_ROLLOUTS", value_name = "N", default_value_t = 5,
        value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub max_concurrent_rollouts: u32,

    /// How the reports of workers reach the status. Pull: the operator reads /status of the pods, port 8080.
    /// Push: workers write into the status of their resource, for operators that cannot connect to the pods.
    #[arg(
        long,
        env = "KCO_WORKER_REPORTS",
        value_name = "MODE",
        value_enum,
        default_value = "Pull"
    )]
    pub worker_reports: Reports,

    /// Elect a leader, so that only one of several operators is active.
    #[arg(long, env = "KCO_LEADER_ELECTION", value_name = "BOOL", default_value_t = true,
        action = clap::ArgAction::Set)]
    pub leader_election: bool,

    /// Namespace of the Lease. Default: the namespace of this pod, or of the kubeconfig's context.
    #[arg(long, env = "KCO_LEASE_NAMESPACE", value_name = "NAME")]
    pub lease_namespace: Option<String>,

    /// Name of the Lease, one for each installation. Default: kafka-consumer-operator, with --namespaces
    /// followed by a hash of them.
    #[arg(long, env = "KCO_LEASE_NAME", value_name = "NAME")]
    pub lease_name: Option<String>,

    /// Name of this operator in the Lease and in Events. Default: the host name, which is the pod's name.
    #[arg(long, env = "KCO_IDENTITY", value_name = "NAME")]
    pub identity: Option<String>,

    /// Address of the probes and metrics.
    #[arg(
        long,
        env = "KCO_HTTP_ADDRESS",
        value_name = "ADDRESS:PORT",
        default_value = "0.0.0.0:8080"
    )]
    pub http_address: SocketAddr,

    /// Address of the REST API and the dashboard, for example 0.0.0.0:8081. Default: none. Users log in with a
    /// token of the cluster.
    #[arg(long, env = "KCO_API_LISTEN", value_name = "ADDRESS:PORT")]
    pub api_listen: Option<SocketAddr>,

    /// Log format.
    #[arg(long, env = "KCO_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,

    /// Seconds between two reads of partition counts, lag and members from Kafka.
    #[arg(long, env = "KCO_KAFKA_REFRESH_SECONDS", value_name = "SECONDS", default_value_t = 15,
        value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub kafka_refresh_seconds: u64,
}

/// The values of `imagePullPolicy` in Kubernetes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "PascalCase")]
pub enum PullPolicy {
    Always,
    IfNotPresent,
    Never,
}

/// The values of `--worker-reports`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "PascalCase")]
pub enum Reports {
    Pull,
    Push,
}

impl From<Reports> for ReportMode {
    fn from(reports: Reports) -> Self {
        match reports {
            Reports::Pull => Self::Pull,
            Reports::Push => Self::Push,
        }
    }
}

impl RunArgs {
    /// The name of the Lease: operators that serve different namespaces do not stand by for each other.
    pub fn lease(&self) -> String {
        let Some(name) = &self.lease_name else {
            let mut namespaces = self.namespaces.clone();
            namespaces.sort();
            namespaces.dedup();
            return match namespaces.is_empty() {
                true => LEASE.into(),
                false => format!("{LEASE}-{}", &hash(namespaces.join(",").as_bytes())[..8]),
            };
        };
        name.clone()
    }
}

impl From<PullPolicy> for ImagePullPolicy {
    fn from(policy: PullPolicy) -> Self {
        match policy {
            PullPolicy::Always => Self::Always,
            PullPolicy::IfNotPresent => Self::IfNotPresent,
            PullPolicy::Never => Self::Never,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Args::command().debug_assert();
    }

    #[test]
    fn run_needs_only_the_workers_image() {
        let args =
            Args::try_parse_from(["kafka-consumer-operator", "run", "--worker-image", "worker:1"]).unwrap();
        let Command::Run(args) = args.command else {
            panic!("not run")
        };
        assert!(args.leader_election && args.namespaces.is_empty());
        assert_eq!(args.lease(), "kafka-consumer-operator");
        assert_eq!(args.kafka_refresh_seconds, 15);
    }

    #[test]
    fn lists_and_kubernetes_names_are_understood() {
        let args = Args::try_parse_from([
            "kafka-consumer-operator",
            "run",
            "--worker-image=worker:1",
            "--namespaces=shop,bank",
            "--image-pull-policy=IfNotPresent",
            "--leader-election=false",
            "--log-format=json",
        ])
        .unwrap();
        let Command::Run(args) = args.command else {
            panic!("not run")
        };
        let lease = args.lease();
        assert!(
            lease.starts_with("kafka-consumer-operator-") && lease.len() < 40,
            "{lease}"
        );
        assert_eq!(args.namespaces, ["shop", "bank"]);
        assert_eq!(args.image_pull_policy, Some(PullPolicy::IfNotPresent));
        assert!(!args.leader_election);
    }
}
