//! `logs`: the logs of all workers of a group. In: the pods. Out: lines, each with its pod. With `--follow` also
//! those of workers that start later. Prints lines as they are; workers never log payloads.

mod follow;
mod sources;

pub use self::sources::{path, pods};

use self::follow::follow;
use self::sources::{none, sources};
use super::args::LogsArgs;
use super::cluster::Cluster;
use super::error::Error;
use super::terminal::Terminal;
use super::view::GroupView;
use super::{DONE, FAILED};

pub async fn run(cluster: &Cluster, args: &LogsArgs, terminal: &mut Terminal) -> Result<u8, Error> {
    let group = GroupView::read(cluster, &args.group).await?;
    if args.follow {
        return follow(cluster, &group, args, terminal).await;
    }
    let sources = sources(cluster, &group, args).await?;
    if sources.is_empty() {
        return Err(none(&group, args));
    }
    let mut code = DONE;
    for source in sources {
        let path = path(&group, &source.pod, false, args.previous, args.tail);
        match cluster.text(&path).await {
            Ok(text) => {
                for line in text.lines() {
                    terminal.raw(&format!("[{}] {line}", source.pod))?;
                }
            }
            // A pod that starts has no log yet; the others have one.
            Err(error) => {
                terminal.note(&format!("[{}] no log: {error}", source.pod))?;
                if !args.previous {
                    code = FAILED;
                }
            }
        }
    }
    terminal.flush()?;
    Ok(code)
}
