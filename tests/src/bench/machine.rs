//! The context of a result: machine, versions, command, date. Best effort: values that cannot be determined
//! are left out.

use std::{fs, path::Path, process::Command};

use super::process::cores;

/// A list in Markdown. `jars`: Kafka's, for its version. `command`: what was run, in Markdown.
pub(super) fn describe(jars: Option<&Path>, command: &str) -> String {
    let mut lines = vec![
        format!("- Date: {}", jiff::Zoned::now().date()),
        format!("- Command: {command}"),
    ];
    let cpu = value("/proc/cpuinfo", "model name").unwrap_or_else(|| std::env::consts::ARCH.into());
    let memory = value("/proc/meminfo", "MemTotal")
        .and_then(|text| text.split(' ').next()?.parse::<f64>().ok())
        .map_or_else(String::new, |kib| format!(", {:.0} GiB", kib / 1024.0 / 1024.0));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    // The part after the first "-" names a build of it.
    let kernel = kernel.split('-').next().unwrap_or_default();
    lines.push(format!(
        "- Machine: {cpu}, {} cores{memory}, Linux {}; broker and subject share it",
        cores(),
        kernel.trim()
    ));
    let (_, librdkafka) = rdkafka::util::get_rdkafka_version();
    let mut versions = vec![format!("librdkafka {librdkafka}")];
    versions.extend(jars.and_then(kafka).map(|version| format!("Kafka {version}")));
    versions.extend(first_line("java", &["-version"]));
    versions.extend(first_line("rustc", &["--version"]));
    versions.extend(
        first_line("git", &["describe", "--always", "--dirty"]).map(|commit| format!("commit {commit}")),
    );
    lines.push(format!("- Versions: {}", versions.join(", ")));
    lines.join("\n") + "\n"
}

/// The value of the first line "key: value".
fn value(path: &str, key: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.trim() == key)
        .map(|(_, value)| value.trim().to_string())
}

/// The version in the name of the clients' jar.
fn kafka(jars: &Path) -> Option<String> {
    fs::read_dir(jars).ok()?.flatten().find_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        Some(
            name.strip_prefix("kafka-clients-")?
                .strip_suffix(".jar")?
                .to_string(),
        )
    })
}

/// The version that a program prints; java prints it on stderr.
fn first_line(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = if output.stdout.is_empty() {
        output.stderr
    } else {
        output.stdout
    };
    let line = String::from_utf8(text).ok()?.lines().next()?.trim().to_string();
    (output.status.success() && !line.is_empty()).then_some(line)
}
