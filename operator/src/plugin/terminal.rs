//! Where text goes and answers come from. In: text. Out: the same on standard output, notes on standard error.
//! Replaces control characters, because messages of resources are written by others.

use std::io::{self, BufRead, IsTerminal, Write};

use super::error::Error;

/// Standard streams, or buffers in tests.
pub struct Terminal {
    out: Box<dyn Write + Send>,
    notes: Box<dyn Write + Send>,
    input: Box<dyn BufRead + Send>,
    /// Whether a user can answer questions.
    interactive: bool,
    /// Whether the screen can be cleared.
    pub screen: bool,
}

impl Terminal {
    pub fn standard() -> Self {
        Self {
            out: Box::new(io::stdout()),
            notes: Box::new(io::stderr()),
            input: Box::new(io::BufReader::new(io::stdin())),
            interactive: io::stdin().is_terminal() && io::stderr().is_terminal(),
            screen: io::stdout().is_terminal(),
        }
    }

    /// For tests: no terminal, unless there is an answer.
    #[cfg(test)]
    pub fn buffers(
        out: Box<dyn Write + Send>,
        notes: Box<dyn Write + Send>,
        answer: Option<&'static str>,
    ) -> Self {
        Self {
            out,
            notes,
            input: Box::new(io::Cursor::new(answer.unwrap_or_default())),
            interactive: answer.is_some(),
            screen: false,
        }
    }

    /// Whether [`Terminal::ask`] has somebody to ask.
    pub fn is_interactive(&self) -> bool {
        self.interactive
    }

    /// Lines of the result.
    pub fn print(&mut self, text: &str) -> Result<(), Error> {
        writeln!(self.out, "{}", clean(text.trim_end_matches('\n')))?;
        Ok(self.out.flush()?)
    }

    /// A line of a log, as it is.
    pub fn raw(&mut self, line: &str) -> Result<(), Error> {
        Ok(writeln!(self.out, "{line}")?)
    }

    pub fn flush(&mut self) -> Result<(), Error> {
        Ok(self.out.flush()?)
    }

    /// Clears the screen, if there is one.
    pub fn clear(&mut self) -> Result<(), Error> {
        if self.screen {
            write!(self.out, "\x1b[2J\x1b[H")?;
        }
        Ok(())
    }

    /// What to know beside the result.
    pub fn note(&mut self, text: &str) -> Result<(), Error> {
        Ok(writeln!(self.notes, "{}", clean(text))?)
    }

    /// Asks a question; only `y` and `yes` are yes.
    pub fn ask(&mut self, question: &str) -> Result<bool, Error> {
        write!(self.notes, "{} [y/N] ", clean(question))?;
        self.notes.flush()?;
        let mut answer = String::new();
        self.input.read_line(&mut answer)?;
        Ok(["y", "yes"].contains(&answer.trim().to_lowercase().as_str()))
    }
}

/// Control characters of a message could change what the terminal shows.
fn clean(text: &str) -> String {
    let replace = |c: char| match c {
        '\n' | '\t' => c,
        c if c.is_control() => char::REPLACEMENT_CHARACTER,
        c => c,
    };
    text.chars().map(replace).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_cannot_control_the_terminal() {
        assert_eq!(
            clean("a\x1b[31mb\r\n\tc\u{9b}"),
            "a\u{fffd}[31mb\u{fffd}\n\tc\u{fffd}"
        );
    }

    #[test]
    fn only_yes_is_yes() {
        for (answer, yes) in [
            ("y\n", true),
            ("YES\n", true),
            ("\n", false),
            ("", false),
            ("yeah\n", false),
        ] {
            let sink = || Box::new(io::sink());
            let mut terminal = Terminal::buffers(sink(), sink(), Some(answer));
            assert_eq!(terminal.ask("?").unwrap(), yes, "{answer:?}");
        }
    }
}
