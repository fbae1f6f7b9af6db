//! Completion for shells. kubectl completes a plugin with the program `kubectl_complete-kcg`: it gets the words after
//! `kubectl kcg` and prints candidates. In: words. Out: names of commands, flags, values and groups. Shows no error:
//! a shell that completes has no place for it.

use std::time::Duration;

use clap::{Arg, Command, CommandFactory};

use super::DONE;
use super::args::{Args, Target};
use super::cluster::Cluster;
use super::error::Error;
use super::terminal::Terminal;
use super::view::GroupView;

/// The program to put beside `kubectl-kcg`.
pub const SCRIPT: &str = "#!/bin/sh\n# Completion of kubectl kcg: make it executable as kubectl_complete-kcg in PATH.\nexec kubectl-kcg __complete -- \"$@\"";
/// kubectl then offers no file names (ShellCompDirectiveNoFileComp), or offers them (Default).
const NO_FILES: &str = ":4";
const FILES: &str = ":0";
/// Nobody waits longer for a list of names.
const PATIENCE: Duration = Duration::from_secs(3);

/// What can follow.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Words(Vec<String>),
    /// Names of groups.
    Groups,
    Files,
}

pub async fn run(words: &[String], terminal: &mut Terminal) -> Result<u8, Error> {
    let current = words.last().map_or("", String::as_str);
    let (candidates, directive) = match next(words) {
        Next::Words(words) => (words, NO_FILES),
        Next::Groups => (groups(words).await, NO_FILES),
        Next::Files => (Vec::new(), FILES),
    };
    for candidate in candidates
        .iter()
        .filter(|candidate| candidate.starts_with(current))
    {
        terminal.print(candidate)?;
    }
    terminal.print(directive)?;
    Ok(DONE)
}

/// Names of groups; none if they cannot be read in time.
async fn groups(words: &[String]) -> Vec<String> {
    let target = target(words);
    let read = async {
        let cluster = Cluster::connect(&target).await?;
        GroupView::read_all(&cluster, false).await
    };
    match tokio::time::timeout(PATIENCE, read).await {
        Ok(Ok(groups)) => groups.into_iter().map(|group| group.key.name).collect(),
        _ => Vec::new(),
    }
}

/// The last word is the one to complete.
fn next(words: &[String]) -> Next {
    let root = Args::command();
    let (current, before) = match words.split_last() {
        Some((current, before)) => (current.as_str(), before),
        None => ("", words),
    };
    let chosen = chosen(&root, before);
    let command = chosen.unwrap_or(&root);
    if let Some(flag) = before.last().and_then(|word| flag(&root, command, word))
        && flag.get_action().takes_values()
    {
        return values(flag);
    }
    if current.starts_with('-') {
        let flags = command.get_arguments().chain(root.get_arguments());
        let flags = flags.filter(|flag| !flag.is_hide_set()).filter_map(Arg::get_long);
        return Next::Words(flags.map(|name| format!("--{name}")).collect());
    }
    match chosen {
        Some(command) if command.get_positionals().next().is_some() => Next::Groups,
        Some(_) => Next::Words(Vec::new()),
        None => {
            let commands = root.get_subcommands().filter(|command| !command.is_hide_set());
            Next::Words(commands.map(|command| command.get_name().to_string()).collect())
        }
    }
}

/// The command among the words, without values of flags.
fn chosen<'a>(root: &'a Command, words: &[String]) -> Option<&'a Command> {
    let mut is_value = false;
    for word in words {
        if is_value {
            is_value = false;
        } else if word.starts_with('-') {
            is_value = flag(root, root, word).is_some_and(|flag| flag.get_action().takes_values());
        } else {
            return root.find_subcommand(word);
        }
    }
    None
}

/// The flag that a word is; `--name=value` has its value already.
fn flag<'a>(root: &'a Command, command: &'a Command, word: &str) -> Option<&'a Arg> {
    let mut flags = command.get_arguments().chain(root.get_arguments());
    match (word.strip_prefix("--"), word.strip_prefix('-')) {
        (Some(long), _) => flags.find(|flag| flag.get_long() == Some(long)),
        (None, Some(short)) => {
            flags.find(|flag| flag.get_short().is_some_and(|name| short == name.to_string()))
        }
        _ => None,
    }
}

fn values(flag: &Arg) -> Next {
    if ["file", "kubeconfig"].contains(&flag.get_id().as_str()) {
        return Next::Files;
    }
    let values = flag.get_possible_values();
    Next::Words(values.iter().map(|value| value.get_name().to_string()).collect())
}

/// Where to look for groups.
fn target(words: &[String]) -> Target {
    let value = |names: [&str; 2]| {
        let mut pairs = words.iter().zip(words.iter().skip(1));
        let pair = pairs.find(|(name, _)| names.contains(&name.as_str()));
        let equals = format!("{}=", names[1]);
        let joined = words.iter().find_map(|word| word.strip_prefix(&equals));
        pair.map(|(_, value)| value.clone()).or(joined.map(String::from))
    };
    Target {
        namespace: value(["-n", "--namespace"]),
        context: value(["", "--context"]),
        kubeconfig: value(["", "--kubeconfig"]).map(Into::into),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(String::from).collect()
    }

    fn candidates(line: &str) -> Vec<String> {
        match next(&words(line)) {
            Next::Words(words) => words,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn commands_flags_values_and_groups_are_completed() {
        assert!(candidates("").contains(&"status".to_string()));
        assert!(candidates("-n shop st").contains(&"stop".to_string()));
        assert!(
            !candidates("").contains(&"__complete".to_string()),
            "it is hidden"
        );
        let flags = candidates("reset orders --");
        for flag in ["--to-earliest", "--stop-group", "--namespace"] {
            assert!(flags.contains(&flag.to_string()), "{flag}: {flags:?}");
        }
        assert_eq!(candidates("status orders -o "), ["json", "yaml", "wide"]);
        assert_eq!(candidates("status -n "), Vec::<String>::new());
        for line in ["status ", "pause orders pay", "-n shop logs -f "] {
            assert_eq!(next(&words(line)), Next::Groups, "{line}");
        }
        assert_eq!(next(&words("report orders -f ")), Next::Files);
        assert_eq!(next(&words("status --kubeconfig ")), Next::Files);
        assert_eq!(candidates("version "), Vec::<String>::new());
    }

    #[test]
    fn groups_are_looked_for_where_the_command_would() {
        let target = target(&words("status --context=prod -n shop "));
        assert_eq!(
            (target.context.as_deref(), target.namespace.as_deref()),
            (Some("prod"), Some("shop"))
        );
        assert!(target.kubeconfig.is_none());
    }

    #[tokio::test]
    async fn a_cluster_that_cannot_be_reached_completes_nothing() {
        let line = words("status --kubeconfig /does/not/exist ");
        assert_eq!(groups(&line).await, Vec::<String>::new());
    }
}
