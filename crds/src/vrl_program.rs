//! Compiles VRL programs. The operator compiles a program before a rollout, so that a broken program never
//! reaches a worker; the worker compiles it to run it. Both have the same functions and the same diagnostics.
//! Functions with access to the network, the environment, the file system or secrets are not included.
//!
//! A program is text of a user, and the compiler has no limits of its own: nested calls double its time with
//! every level, `.a = .` doubles its memory with every line, and deep nesting overflows its stack, which
//! aborts the process. [`compile_within`] sets limits to all of these.

mod depth;
mod usage;

use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use thiserror::Error;
use vrl::compiler::{
    CompilationResult, CompileConfig, Function, TypeState, compile_with_state, state::ExternalEnv,
};
use vrl::diagnostic::Formatter;
use vrl::value::{Kind, kind::Collection};

pub use vrl::compiler::Program;

use usage::Usage;

/// Longest program in bytes. `spec.transforms[].vrl.source` has at most 65,536 characters of up to 4 bytes.
pub const MAX_BYTES: usize = 262_144;

/// Deepest nesting of a program. A worker needs at most 2.6 KiB of stack for a level (measured without
/// optimization), and its threads have 2 MiB.
pub const MAX_LEVELS: usize = 512;

/// Stack of the thread that compiles: [`MAX_LEVELS`] levels need up to 10 MiB without optimization. Reserved,
/// and used only by deep programs.
const STACK: usize = 32 << 20;

/// More stack for each byte of a program. The parser accepts any depth, at most one level for each byte, and
/// needs this much to free what it has parsed.
const STACK_PER_BYTE: usize = 1 << 10;

/// Time between two looks at what the compiler has used.
const CHECK: Duration = Duration::from_millis(10);

/// Longest message of the compiler in bytes. It repeats lines of the program, and goes into a condition.
const MAX_MESSAGE: usize = 4096;

/// How much one compilation may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// CPU time of this process. On systems without `/proc`: time.
    pub cpu: Duration,
    /// Memory in bytes. Without effect on systems without `/proc`.
    pub memory: u64,
}

impl Limits {
    /// The operator's limits: a program within them is accepted.
    pub const OPERATOR: Self = Self {
        cpu: Duration::from_secs(5),
        memory: 64 << 20,
    };
    /// A worker's limits. Higher, because it must never refuse what the operator has accepted.
    pub const WORKER: Self = Self {
        cpu: Duration::from_secs(30),
        memory: 512 << 20,
    };
}

/// Why a program is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InvalidProgram {
    /// The compiler's message, with the lines that it reports.
    #[error("the VRL program does not compile:\n{0}")]
    Refused(String),
    #[error(
        "the VRL program has {bytes} bytes, at most {MAX_BYTES} are allowed; split it into several transforms"
    )]
    TooLong { bytes: usize },
    #[error(
        "the VRL program nests more than {MAX_LEVELS} levels deep in line {line}; each bracket, operator and else if counts as a level: split the expression into several statements, or the program into several transforms"
    )]
    TooDeep { line: usize },
    #[error(
        "the VRL program takes more than {} s of CPU time to compile; nested function calls and closures double the time with each level, and each assignment of a field adds to all later ones: use variables for intermediate results, or split the program into several transforms", .cpu.as_secs_f64()
    )]
    TooSlow { cpu: Duration },
    #[error(
        "the VRL program needs more than {} MiB of memory to compile; each assignment of a whole object to one of the fields of that object doubles its type: assign fields one by one, or delete the copy before the next one", .memory >> 20
    )]
    TooLarge { memory: u64 },
    #[error("the VRL program cannot be compiled: {0}")]
    Failed(String),
}

/// A compiled program with the warnings of the compiler, if any.
#[derive(Debug)]
pub struct Compiled {
    /// The program, ready to run on any thread.
    pub program: Program,
    /// Warnings of the compiler; the program runs nevertheless.
    pub warnings: Option<String>,
}

/// Functions that programs may call.
pub fn functions() -> Vec<Box<dyn Function>> {
    vrl::stdlib::all()
}

/// Compiles `source` within the limits of a worker.
pub fn compile(source: &str) -> Result<Compiled, InvalidProgram> {
    compile_with(source, functions())
}

/// Like [`compile`], with other implementations of [`functions`].
pub fn compile_with(source: &str, functions: Vec<Box<dyn Function>>) -> Result<Compiled, InvalidProgram> {
    compile_on_thread(source, functions, Limits::WORKER)
}

/// Compiles `source` on a thread of its own; `.` may be any value, `%` is the object described at
/// `spec.transforms[].vrl`. Blocks. If the compiler exceeds `limits`, its thread continues until the process
/// ends, because nothing can stop it: after [`InvalidProgram::TooSlow`] and [`InvalidProgram::TooLarge`] the
/// process should end.
pub fn compile_within(source: &str, limits: Limits) -> Result<Compiled, InvalidProgram> {
    compile_on_thread(source, functions(), limits)
}

fn compile_on_thread(
    source: &str,
    functions: Vec<Box<dyn Function>>,
    limits: Limits,
) -> Result<Compiled, InvalidProgram> {
    let bytes = source.len();
    if bytes > MAX_BYTES {
        return Err(InvalidProgram::TooLong { bytes });
    }
    let (sender, receiver) = mpsc::channel();
    let owned = source.to_owned();
    let before = Usage::now();
    std::thread::Builder::new()
        .name("vrl-compiler".into())
        .stack_size(STACK + bytes * STACK_PER_BYTE)
        // The receiver is gone after a limit was exceeded.
        .spawn(move || drop(sender.send(compile_here(&owned, &functions))))
        .map_err(|error| InvalidProgram::Failed(format!("cannot start a thread: {error}")))?;
    loop {
        match receiver.recv_timeout(CHECK) {
            Ok(compiled) => return compiled,
            Err(RecvTimeoutError::Timeout) => before.check(limits)?,
            Err(RecvTimeoutError::Disconnected) => {
                return Err(InvalidProgram::Failed("the compiler panicked".into()));
            }
        }
    }
}

fn compile_here(source: &str, functions: &[Box<dyn Function>]) -> Result<Compiled, InvalidProgram> {
    depth::check(source)?;
    // By default `.` is an object. This would reject programs for strings and arrays, such as parse_json!(.).
    let external = ExternalEnv::new_with_kind(Kind::any(), Kind::object(Collection::any()));
    let state = TypeState {
        external,
        ..TypeState::default()
    };
    match compile_with_state(source, functions, &state, CompileConfig::default()) {
        Ok(CompilationResult {
            program, warnings, ..
        }) => {
            let warnings = (!warnings.is_empty()).then(|| Formatter::new(source, warnings).to_string());
            Ok(Compiled { program, warnings })
        }
        Err(diagnostics) => {
            let mut message = Formatter::new(source, diagnostics).to_string();
            message.truncate(message.floor_char_boundary(MAX_MESSAGE));
            Err(InvalidProgram::Refused(message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_good_program_compiles() {
        assert!(compile(".amount = to_float!(.amount)").is_ok());
    }

    #[test]
    fn a_value_may_be_an_object_an_array_or_a_string() {
        for source in [
            ".amount = to_float!(.amount)\n.taxed = .amount * 1.19\ndel(.note)",
            ". = parse_json!(.)\n.seen = true",
            ". = map_values(array!(.)) -> |value| { to_int!(value) * 2 }",
            ".[0] = 5",
            ". = upcase(string!(.))",
            ". = merge(object!(.), {\"a\": 1})",
        ] {
            if let Err(error) = compile(source) {
                panic!("{source}: {error}");
            }
        }
    }

    #[test]
    fn a_broken_program_says_where_and_why() {
        let error = compile(".amount = to_flot!(.amount)").unwrap_err().to_string();
        assert!(error.contains("to_flot"), "{error}");
        assert!(error.contains("undefined function"), "{error}");
    }

    fn within(seconds: u64, mebibytes: u64, source: &str) -> Result<Compiled, InvalidProgram> {
        let limits = Limits {
            cpu: Duration::from_secs(seconds),
            memory: mebibytes << 20,
        };
        compile_within(source, limits)
    }

    /// `count` times `begin`, then `middle`, then `count` times `end`.
    fn nested(begin: &str, middle: &str, end: &str, count: usize) -> String {
        format!(".x = {}{middle}{}", begin.repeat(count), end.repeat(count))
    }

    #[test]
    fn programs_that_overflowed_the_stack_are_refused_with_the_line() {
        let else_if = |count: usize| {
            let branches = (0..count).map(|i| format!(" else if .a == {i} {{ .b = {i} }}"));
            format!(".z = 1\nif false {{ .b = 0 }}{}", branches.collect::<String>())
        };
        let operands = |operand: &str, operator: &str| format!(".x = {}", vec![operand; 600].join(operator));
        for (source, line) in [
            (else_if(600), 2),
            (operands("1", " + "), 1),
            (operands("\"a\"", " +\n"), 1),
            (operands("(.x == 1)", " && "), 1),
            (operands("to_int(.x)", " ?? "), 1),
            (nested("(", "1", ")", 600), 1),
            (nested("[", "1", "]", 600), 1),
            (nested("{\"a\": ", "1", "}", 600), 1),
            (nested("{ ", "1", " }", 600), 1),
            (nested("!", "true", "", 600), 1),
            (nested(".y = ", "1", "", 600), 1),
            (nested("1 + (", "1", ")", 600), 1),
            (nested("if true { ", "1", " }", 600), 1),
            (nested("to_string!(", ".y", ")", 600), 1),
            (nested("for_each([1]) -> |_i, v| { ", "v", " }", 600), 1),
            (nested("[", "1", "]", 60_000), 1),
            (nested("(", "1", ")", MAX_BYTES / 2 - 10), 1),
            (nested("!", "true", "", MAX_BYTES - 20), 1),
        ] {
            match within(60, 1024, &source) {
                Err(InvalidProgram::TooDeep { line: found }) => assert_eq!(found, line),
                other => panic!("{}: {other:?}", &source[..40]),
            }
        }
    }

    #[test]
    fn brackets_in_strings_are_no_nesting() {
        let pairs = format!(".x = \"{}\"", "[({})] [".repeat(600));
        within(60, 1024, &pairs).unwrap();
    }

    #[test]
    fn deep_programs_within_the_limit_compile() {
        let branches = (0..350).map(|i| format!(" else if .a == {i} {{ .b = {i} }}"));
        let source = format!("if false {{ .b = 0 }}{}", branches.collect::<String>());
        within(300, 1024, &source).unwrap();
        within(300, 1024, &nested("[", "1", "]", MAX_LEVELS - 2)).unwrap();
    }

    #[test]
    fn a_program_that_is_too_long_is_refused() {
        let error = compile(&"#".repeat(MAX_BYTES + 1)).unwrap_err().to_string();
        assert!(error.contains("262145 bytes"), "{error}");
    }

    #[test]
    fn a_long_message_of_the_compiler_is_cut() {
        let source: String = (0..500).map(|i| format!(".a = undefined_{i}(.b)\n")).collect();
        let error = compile(&source).unwrap_err().to_string();
        assert!(error.len() < MAX_MESSAGE + 100, "{}", error.len());
        assert!(error.contains("undefined_0"), "{error}");
    }

    #[test]
    fn programs_cannot_reach_outside() {
        for call in [
            "get_env_var!(\"HOME\")",
            "http_request!(\"http://localhost\")",
            "get_hostname!()",
        ] {
            assert!(compile(&format!(".x = {call}")).is_err(), "{call} compiled");
        }
    }
}
