//! The output of a replay: messages and, in a terminal, one line below them with the progress, which is redrawn. If
//! a Stdout writer uses standard output, everything goes to standard error.

use std::cell::{Cell, RefCell};
use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

/// Time between two lines with the progress where they cannot be redrawn.
const LINE: Duration = Duration::from_secs(30);

pub struct Screen {
    live: bool,
    to_stderr: bool,
    /// The line at the bottom.
    shown: RefCell<String>,
    /// When the last line was printed that cannot be redrawn.
    printed: Cell<Instant>,
}

impl Screen {
    /// For this process; `stdout_is_taken`: a writer uses standard output.
    pub fn new(stdout_is_taken: bool) -> Self {
        let live = match stdout_is_taken {
            true => std::io::stderr().is_terminal() && !std::io::stdout().is_terminal(),
            false => std::io::stdout().is_terminal(),
        };
        Self {
            live,
            to_stderr: stdout_is_taken,
            shown: RefCell::default(),
            printed: Cell::new(Instant::now()),
        }
    }

    /// Prints a message of one or more lines.
    pub fn say(&self, text: &str) {
        let line = self.shown.borrow();
        match line.is_empty() {
            true => self.print(&format!("{text}\n")),
            false => self.print(&format!("\r\x1b[K{text}\n{line}")),
        }
    }

    /// Shows how far the replay is, if it is due.
    pub fn show(&self, progress: &str) {
        if self.live {
            self.print(&format!("\r\x1b[K{progress}"));
            *self.shown.borrow_mut() = progress.into();
        } else if self.printed.get().elapsed() >= LINE {
            self.print(&format!("{progress}\n"));
            self.printed.set(Instant::now());
        }
    }

    /// Shows how far the replay is, for the last time.
    pub fn end(&self, progress: &str) {
        if !self.shown.take().is_empty() {
            self.print("\r\x1b[K");
        }
        self.print(&format!("{progress}\n"));
    }

    fn print(&self, text: &str) {
        // A closed output must not stop the replay.
        let _ = match self.to_stderr {
            true => std::io::stderr().write_all(text.as_bytes()),
            false => {
                let mut out = std::io::stdout().lock();
                out.write_all(text.as_bytes()).and_then(|()| out.flush())
            }
        };
    }
}
