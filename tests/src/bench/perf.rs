//! With `--perf`: the worker's CPU time between its first and its last record, sampled by Linux' perf: the
//! functions that take most, and a flame graph of all. Functions have names only in a worker that was built
//! with them, and inferno must be installed to draw the graph; scripts/bench.sh does both.

use std::{
    fmt::Write as _,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use super::{
    process::Running,
    subjects::{Bench, STOP},
};

/// Functions shown for each run.
const SHOWN: usize = 15;
/// Samples per second and thread; odd, so as not to run in step with anything.
const FREQUENCY: &str = "999";
/// Bytes of a stack that each sample keeps, to find the callers: nothing is built with frame pointers.
const STACK: &str = "dwarf,16384";
/// The graph leaves out functions below this share of the CPU time, in percent.
const NARROWEST: &str = "0.1";

/// A running recording of a process.
pub(super) struct Recording {
    perf: Running,
    file: PathBuf,
    title: String,
    graph: PathBuf,
}

impl Recording {
    /// Starts a recording of the process, if requested. `name` is that of the flame graph.
    pub fn start(bench: &Bench, pid: u32, name: &str) -> Result<Option<Self>> {
        if !bench.perf {
            return Ok(None);
        }
        let file = bench.scratch.join("perf.data");
        let perf = Command::new("perf")
            // The CPU clock works in virtual machines, too.
            .args([
                "record",
                "-e",
                "cpu-clock",
                "-F",
                FREQUENCY,
                "--call-graph",
                STACK,
                "-p",
                &pid.to_string(),
                "-o",
            ])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start perf; install linux-perf")?;
        Ok(Some(Self {
            perf: Running(perf),
            file,
            title: format!("CPU time of the worker, {name}"),
            graph: bench.scratch.join(format!("{name}.svg")),
        }))
    }

    /// Ends the recording and prints its result.
    pub fn finish(mut self) -> Result<()> {
        self.perf.signal("INT")?;
        // It ends by that signal, so its exit status means nothing.
        self.perf.wait(STOP, || {})?;
        print!("{}", summary(&self.file)?);
        // A run with --quick may be too short for a single sample, and is still a run.
        match draw(&self.file, &self.title, &self.graph) {
            Ok(()) => println!("  written: {}", self.graph.display()),
            Err(error) => println!("  no flame graph: {error:#}"),
        }
        Ok(())
    }
}

/// Draws perf's stacks, one line for each, as boxes.
fn draw(recording: &Path, title: &str, graph: &Path) -> Result<()> {
    let steps: [&[&str]; 3] = [
        &[
            "perf",
            "script",
            "--no-inline",
            "-i",
            &recording.to_string_lossy(),
        ],
        &["inferno-collapse-perf", "--all"],
        &[
            "inferno-flamegraph",
            "--deterministic",
            "--minwidth",
            NARROWEST,
            "--title",
            title,
        ],
    ];
    // The last good graph stays until there is a new one.
    let unfinished = graph.with_extension("svg.new");
    let perf_log = graph.with_extension("log");
    let log = File::create(&perf_log).with_context(|| format!("cannot write {}", perf_log.display()))?;
    let mut input = Stdio::null();
    let mut running = Vec::new();
    for (number, step) in steps.iter().enumerate() {
        let output = if number + 1 == steps.len() {
            File::create(&unfinished)
                .with_context(|| format!("cannot write {}", unfinished.display()))?
                .into()
        } else {
            Stdio::piped()
        };
        let mut process = Command::new(step[0])
            .args(&step[1..])
            .stdin(input)
            .stdout(output)
            .stderr(log.try_clone()?)
            .spawn()
            .map(Running)
            .with_context(|| format!("cannot start {}", step[0]))?;
        input = process.0.stdout.take().map_or_else(Stdio::null, Stdio::from);
        running.push((step[0], process));
    }
    // Waits from the last step backwards: the last one ends when all before it have, so none is killed while
    // another still reads from it.
    for (name, process) in running.iter_mut().rev() {
        let status = process.0.wait()?;
        ensure!(status.success(), "{name}: {status}, see {}", perf_log.display());
    }
    fs::rename(&unfinished, graph).with_context(|| format!("cannot write {}", graph.display()))
}

fn summary(file: &Path) -> Result<String> {
    let output = Command::new("perf")
        .args(["report", "--stdio", "--no-children", "--no-inline", "-g", "none"])
        .args(["--sort", "symbol", "-i"])
        .arg(file)
        .stdin(Stdio::null())
        .output()
        .context("cannot start perf")?;
    ensure!(
        output.status.success(),
        "perf report: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(describe(&String::from_utf8_lossy(&output.stdout)))
}

/// The share of each owner of functions, and the first functions.
fn describe(report: &str) -> String {
    let functions: Vec<(f64, &str)> = report.lines().filter_map(function).collect();
    let mut shares: Vec<(f64, &str)> = [
        "kernel",
        "librdkafka",
        "worker and its crates",
        "C library and others",
    ]
    .map(|owner| {
        let of_owner = functions.iter().filter(|(_, name)| owner_of(name) == owner);
        (of_owner.map(|(percent, _)| percent).sum(), owner)
    })
    .to_vec();
    shares.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut text = String::new();
    for (percent, name) in shares.iter().chain(functions.iter().take(SHOWN)) {
        // Writing to memory does not fail.
        let _ = writeln!(text, "  {percent:>5.1} %  {name}");
    }
    text
}

/// Of a line "    4.88%  [.] name   -  -": 4.88 and "[.] name". None for comments.
fn function(line: &str) -> Option<(f64, &str)> {
    let (percent, name) = line.trim_start().split_once('%')?;
    let name = name.trim_end_matches([' ', '-']).trim_start();
    Some((percent.parse().ok()?, name))
}

fn owner_of(name: &str) -> &'static str {
    match name.strip_prefix("[.] ") {
        None => "kernel",
        Some(name) if name.starts_with("rd_") || name.starts_with("rdk") => "librdkafka",
        Some(name) if name.contains("::") => "worker and its crates",
        Some(_) => "C library and others",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_added_up_by_owner_and_only_the_first_functions_are_shown() {
        let more: String = (0..20)
            .map(|number| format!("   1.00%  [.] more{number}  -  -\n\n"))
            .collect();
        let report = format!(
            "# Samples: 1K\n#\n    40.50%  [.] rd_kafka_poll   -      -\n    20.00%  [k] do_syscall_64\n    \
             19.50%  [.] <worker::A as B>::apply\n{more}"
        );
        let text = describe(&report);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "   40.5 %  librdkafka");
        assert_eq!(lines[4], "   40.5 %  [.] rd_kafka_poll");
        assert!(text.contains("   19.5 %  worker and its crates\n"), "{text}");
        assert_eq!(lines.len(), 4 + SHOWN);
    }
}
