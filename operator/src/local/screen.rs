//! The output of local mode: messages and, in a terminal, a table that is redrawn below them. Without a
//! terminal, one line per group every few seconds. If a Stdout writer uses standard output, everything goes
//! to standard error.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use super::table::{self, GroupView};

/// A table is redrawn for a reader; lines are for log files.
const REDRAW: Duration = Duration::from_millis(500);
const LINE: Duration = Duration::from_secs(5);

pub struct Screen {
    live: bool,
    to_stderr: bool,
    /// Number of table lines at the bottom.
    drawn: usize,
    last: String,
    shown: Option<Instant>,
}

impl Screen {
    /// For this process's standard output.
    pub fn new() -> Self {
        let live = std::io::stdout().is_terminal();
        Self {
            live,
            to_stderr: false,
            drawn: 0,
            last: String::new(),
            shown: None,
        }
    }

    /// Switches to standard error: a writer uses standard output from now on.
    pub fn leave_stdout(&mut self) {
        (self.live, self.to_stderr) = (false, true);
    }

    /// Prints a message of one or more lines.
    pub fn say(&mut self, text: &str) {
        if self.live {
            let out = format!("{}{text}\n{}", self.erase(), self.last);
            self.drawn = self.last.lines().count();
            self.print(&out);
        } else {
            self.print(&format!("{text}\n"));
        }
    }

    /// Shows the state of all groups if it is due.
    pub fn show(&mut self, groups: impl FnOnce() -> Vec<GroupView>) {
        let pause = if self.live { REDRAW } else { LINE };
        if self.shown.is_some_and(|shown| shown.elapsed() < pause) {
            return;
        }
        self.shown = Some(Instant::now());
        self.draw(&groups());
    }

    /// Shows the state of all groups for the last time.
    pub fn finish(&mut self, groups: &[GroupView]) {
        self.draw(groups);
        (self.last, self.drawn) = (String::new(), 0);
    }

    fn draw(&mut self, groups: &[GroupView]) {
        if self.live {
            let table = table::table(groups);
            let out = format!("{}{table}", self.erase());
            self.drawn = table.lines().count();
            self.last = table;
            self.print(&out);
        } else {
            let lines: String = groups.iter().map(|group| table::line(group) + "\n").collect();
            self.print(&lines);
        }
    }

    /// Moves to the first line of the table and clears from there.
    fn erase(&self) -> String {
        if self.drawn == 0 {
            String::new()
        } else {
            format!("\x1b[{}F\x1b[J", self.drawn)
        }
    }

    /// A closed terminal must not stop the workers.
    fn print(&self, text: &str) {
        if self.to_stderr {
            let _ = std::io::stderr().lock().write_all(text.as_bytes());
        } else {
            let mut out = std::io::stdout().lock();
            let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        }
    }
}

impl Default for Screen {
    fn default() -> Self {
        Self::new()
    }
}
