//! The command line of `kubectl kcg`. In: arguments. Out: [`Args`]. Runs nothing.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args as ClapArgs, Parser, Subcommand, ValueEnum};
use jiff::SignedDuration;

use crate::group::offset_reset::flags::ResetFlags;

/// How exit codes and rights work; at the end of --help.
const AFTER: &str = "Exit codes: 0 all is well or done; 1 the group is not well, or did not reach the requested state; 2 an error.
The plugin uses your kubeconfig and your rights. It never reads Secrets.";

/// Shows and changes KafkaConsumerGroups.
#[derive(Parser, Debug)]
#[command(name = "kubectl-kcg", bin_name = "kubectl kcg", version, after_help = AFTER)]
pub struct Args {
    #[command(flatten)]
    pub target: Target,
    #[command(subcommand)]
    pub command: Command,
}

/// Where the groups are.
#[derive(ClapArgs, Clone, Debug, Default)]
pub struct Target {
    /// Namespace. Default: that of the context.
    #[arg(
        short = 'n',
        long,
        global = true,
        value_name = "NAME",
        help_heading = "Cluster"
    )]
    pub namespace: Option<String>,

    /// Context of the kubeconfig. Default: the current one.
    #[arg(long, global = true, value_name = "NAME", help_heading = "Cluster")]
    pub context: Option<String>,

    /// Kubeconfig file. Default: KUBECONFIG, then ~/.kube/config.
    #[arg(long, global = true, value_name = "FILE", help_heading = "Cluster")]
    pub kubeconfig: Option<PathBuf>,
}

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Show all groups, or whether one is well, why not, and what to do.
    Status(StatusArgs),
    /// Show the partitions of a group, as far as its status knows them.
    Partitions(GroupArgs),
    /// Show lag and records per second, again every few seconds, until Ctrl-C.
    Top(TopArgs),
    /// Pause groups: workers keep their partitions and read nothing.
    Pause(StateArgs),
    /// Let paused groups continue.
    Resume(StateArgs),
    /// Stop groups: workers finish their work and end. Committed offsets stay.
    Stop(StateArgs),
    /// Start stopped groups.
    Start(StateArgs),
    /// Restart the workers of a group one after the other.
    Restart(GroupArgs),
    /// Set the number of workers of a group with scaling mode Manual.
    Scale(ScaleArgs),
    /// Set the committed offsets of a group, after showing what that changes.
    Reset(Box<ResetArgs>),
    /// Print the logs of the workers.
    Logs(LogsArgs),
    /// Collect what a bug report needs: resources, Events and logs, without Secrets.
    Report(ReportArgs),
    /// Print a program that completes `kubectl kcg` in every shell that completes kubectl.
    Completion,
    /// Print the version of the plugin.
    Version,
    /// What can follow these words.
    #[command(name = "__complete", hide = true)]
    Complete {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
}

/// A group.
#[derive(ClapArgs, Clone, Debug)]
pub struct GroupArgs {
    /// Name of the KafkaConsumerGroup.
    #[arg(value_name = "GROUP")]
    pub group: String,
}

/// Arguments of `status`.
#[derive(ClapArgs, Clone, Debug, Default)]
pub struct StatusArgs {
    /// Name of the KafkaConsumerGroup. Default: a table of all groups.
    #[arg(value_name = "GROUP")]
    pub group: Option<String>,

    /// Groups of all namespaces.
    #[arg(short = 'A', long, conflicts_with_all = ["group", "namespace"])]
    pub all_namespaces: bool,

    /// Output: json and yaml print the resources, wide adds columns or details.
    #[arg(short, long, value_name = "FORMAT")]
    pub output: Option<Output>,
}

/// Values of `--output`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    Json,
    Yaml,
    Wide,
}

/// Arguments of `top`.
#[derive(ClapArgs, Clone, Debug)]
pub struct TopArgs {
    /// Name of the KafkaConsumerGroup. Default: all groups.
    #[arg(value_name = "GROUP")]
    pub group: Option<String>,

    /// Groups of all namespaces.
    #[arg(short = 'A', long, conflicts_with_all = ["group", "namespace"])]
    pub all_namespaces: bool,

    /// Print once and exit: after two reads, 16 s apart, because rates are differences.
    #[arg(long)]
    pub once: bool,

    /// Time between two reads.
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration)]
    pub interval: Duration,
}

/// Arguments of `pause`, `resume`, `stop` and `start`.
#[derive(ClapArgs, Clone, Debug)]
pub struct StateArgs {
    /// Names of KafkaConsumerGroups.
    #[arg(value_name = "GROUP", required = true)]
    pub groups: Vec<String>,

    /// Wait until the groups have reached the state.
    #[arg(long, value_name = "BOOL", default_value_t = true, default_missing_value = "true", num_args = 0..=1,
        require_equals = true, action = ArgAction::Set)]
    pub wait: bool,

    /// Longest time to wait.
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = duration)]
    pub timeout: Duration,
}

/// Arguments of `scale`.
#[derive(ClapArgs, Clone, Debug)]
pub struct ScaleArgs {
    /// Name of the KafkaConsumerGroup.
    #[arg(value_name = "GROUP")]
    pub group: String,

    /// Number of workers.
    #[arg(long, value_name = "N", allow_negative_numbers = true,
        value_parser = clap::value_parser!(u32).range(0..=1000))]
    pub replicas: u32,
}

/// Arguments of `reset`.
#[derive(ClapArgs, Clone, Debug)]
pub struct ResetArgs {
    /// Name of the KafkaConsumerGroup.
    #[arg(value_name = "GROUP")]
    pub group: String,

    #[command(flatten)]
    pub reset: ResetFlags,

    /// Stop the workers, reset, and start them again. Without it, the group must be stopped.
    #[arg(long)]
    pub stop_group: bool,

    /// Only show what would change.
    #[arg(long, conflicts_with = "yes")]
    pub dry_run: bool,

    /// Do not ask before the offsets are set.
    #[arg(short, long)]
    pub yes: bool,

    /// Longest time to wait for the end of the reset.
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = duration)]
    pub timeout: Duration,
}

/// Arguments of `logs`.
#[derive(ClapArgs, Clone, Debug)]
pub struct LogsArgs {
    /// Name of the KafkaConsumerGroup.
    #[arg(value_name = "GROUP")]
    pub group: String,

    /// Continue with new lines, also of new workers, until Ctrl-C.
    #[arg(short, long, conflicts_with = "previous")]
    pub follow: bool,

    /// Only this worker, by the name of its pod.
    #[arg(long, value_name = "POD")]
    pub worker: Option<String>,

    /// Last lines of each worker.
    #[arg(long, value_name = "N", default_value_t = 100, allow_negative_numbers = true,
        value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub tail: u32,

    /// Logs of the containers before their last restart.
    #[arg(short, long)]
    pub previous: bool,
}

/// Arguments of `report`.
#[derive(ClapArgs, Clone, Debug)]
pub struct ReportArgs {
    /// Name of the KafkaConsumerGroup.
    #[arg(value_name = "GROUP")]
    pub group: String,

    /// A new file that ends with .zip, or a new folder. Default: kcg-report-NAMESPACE-GROUP-TIME.zip here.
    #[arg(short = 'f', long = "file", value_name = "FILE.zip|DIR")]
    pub file: Option<PathBuf>,
}

/// "90s", "5m", "1h30m".
fn duration(text: &str) -> Result<Duration, String> {
    let parsed: Option<SignedDuration> = text.parse().ok();
    let positive = parsed.and_then(|duration| Duration::try_from(duration).ok());
    positive
        .filter(|duration| (Duration::from_secs(1)..=Duration::from_secs(24 * 3600)).contains(duration))
        .ok_or_else(|| format!("\"{text}\" is not a duration from 1s to 24h, for example 90s or 5m"))
}
